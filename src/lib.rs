//! Differential backups for Proxmox VE on any plain storage.
//!
//! Two programs share this library. `pve-diff-backup` patches the installed Proxmox VE ([`host`],
//! [`patching`]) and looks after backups ([`backup`]); `pve-xdelta3` makes and restores
//! differentials ([`matching`], [`vcdiff`]) of archives ([`container`], [`vma`], [`files`]).
//! [`budget`] bounds what an input may take, [`cli`] holds the arguments and the output of each command, [`text`] how
//! text of others is shown.

pub mod backup;
pub mod budget;
pub mod cli;
pub mod container;
pub mod files;
pub mod host;
pub mod jobs;
pub mod matching;
pub mod mount;
pub mod nbd;
pub mod patching;
pub mod service;
pub mod tar;
pub mod text;
pub mod upstream;
pub mod vcdiff;
pub mod vma;
