//! Proxmox' public history, for maintainers: every release ever published, laid out as the host it was installed on,
//! and tried with our patch sets.
//!
//! [`git`] reads clones, [`repositories`] knows them, [`releases`] finds the releases in them, [`host`] lays out one host
//! after the other, and [`matrix`] tries each.

pub mod git;
pub mod host;
pub mod matrix;
pub mod releases;
pub mod repositories;
