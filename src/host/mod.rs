//! What is installed on a host: its root folder, dpkg's database, its services.
//!
//! Nothing here writes a host's own files. [`Root`] keeps every path inside the folder given with `--root`. [`Dpkg`] reads
//! dpkg's own files and needs no dpkg, as the folder may be a mounted disk. Each of these does one thing for all of the
//! program: [`services`] talks to systemd, [`notify`] tells people who are not there, [`pmxcfs`] reads and writes what a
//! cluster shares, [`cluster`] reaches the other nodes, [`storage`] finds where backups lie, [`mounts`] what is mounted there, [`scratch`] makes temporary
//! folders, [`program`] starts other programs, [`priority`] sets how ours stands behind them, and [`hint`] words the commands that messages tell people to run.

pub mod cluster;
pub mod deb;
pub mod dpkg;
pub mod hint;
mod members;
pub mod mounts;
pub mod notify;
pub mod pmxcfs;
pub mod priority;
pub mod program;
pub mod root;
pub mod scratch;
pub mod services;
pub mod settings;
pub mod storage;
pub mod tasks;
pub mod version;

pub use deb::{Deb, DebError};
pub use dpkg::{Dpkg, DpkgError, Origin};
pub use program::{Program, ProgramError};
pub use root::{Root, RootError};
pub use scratch::Scratch;
pub use version::Version;

/// The packages of Proxmox VE that patch sets deal with.
pub const PACKAGES: [&str; 5] =
    ["pve-manager", "libpve-storage-perl", "libpve-guest-common-perl", "qemu-server", "pve-container"];
