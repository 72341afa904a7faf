//! Looking into backups without restoring them: disks over NBD and as files of a mount, files of containers.

#[path = "look/mount.rs"]
mod mount;
#[path = "look/nbd.rs"]
mod nbd;
#[path = "look/tar.rs"]
mod tar;
#[path = "look/work.rs"]
mod work;
