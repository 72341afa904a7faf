//! What is installed on a host: its root folder, dpkg's database, its services.
//!
//! Nothing here writes. [`Root`] keeps every path inside the folder given with `--root`, [`Dpkg`] reads
//! dpkg's own files (no dpkg needed: the folder may be a mounted disk), [`services`] is the one place that
//! talks to systemd, [`cluster`] knows the other nodes.

pub mod cluster;
pub mod dpkg;
pub mod root;
pub mod services;
pub mod version;

pub use dpkg::{Dpkg, DpkgError, Origin};
pub use root::{Root, RootError};
pub use version::Version;

/// The packages of Proxmox VE that patch sets deal with.
pub const PACKAGES: [&str; 5] =
    ["pve-manager", "libpve-storage-perl", "libpve-guest-common-perl", "qemu-server", "pve-container"];
