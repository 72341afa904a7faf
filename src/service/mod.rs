//! What the commands do to a host, and what they find out about it.
//!
//! A command turns its arguments into a call of one function here, and prints what that gives back. [`host`] opens the
//! host and reads it once; [`Locked`] is the same host with the right to change it. [`apply`], [`revert`] and
//! [`reinstall`] change its files, [`hook`] decides which of that the maintainer scripts of our package ask for,
//! [`options`] looks after the settings of backup jobs. [`status`] and [`health`] tell how a host stands, [`upcoming`] how
//! it would stand with package files that are not installed yet. [`cluster`] looks after the other nodes of the host's
//! cluster, by our program on each. [`schedule`] looks after verifications that systemd starts,
//! [`unpack`] restores a container's backup for a proof.
//!
//! What arises on the way goes to a [`Listener`] (of a cluster, to a [`cluster::Watcher`]): nothing here prints.

pub mod apply;
mod backups;
pub mod check;
pub mod cluster;
pub mod health;
pub mod hook;
pub mod host;
mod listener;
pub mod options;
mod pending;
pub mod reinstall;
pub mod revert;
mod runs;
pub mod schedule;
pub mod standing;
pub mod status;
pub mod unpack;
pub mod upcoming;

pub use host::{Host, Locked, Refused, View};
pub use listener::Listener;
