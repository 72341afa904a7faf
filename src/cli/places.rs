//! Finds the storages and paths that arguments name where backups are meant.

use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::bail;

use super::exit::{Exit, Stop};
use super::say::say;
use crate::backup::BackupName;
use crate::backup::chain::Directory;
use crate::backup::names::Full;
use crate::host::storage::{self, Place};
use crate::host::{Root, RootError};
use crate::text::shown;

/// Finds the storage that an argument names, if it can be the name of one. As for Proxmox VE's own commands, a plain word
/// means the storage; people who mean a file or folder of that name write `./NAME`.
pub(super) fn place(path: &Path, root: &Path) -> Result<Option<Place>, RootError> {
    let mut parts = path.components();
    let is_word = matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
    match path.to_str() {
        Some(id) if is_word && !id.contains('/') && backup_name(path).is_none() => {
            storage::backups(&Root::open(root)?, id)
        }
        _ => Ok(None),
    }
}

/// Refuses `--root` where it would be ignored: paths are taken as they are, and none of the arguments names a storage of that
/// root.
///
/// # Errors
/// [`Stop`] with the exit code of wrong usage.
pub(super) fn needs_root(paths: &[PathBuf], root: &Path) -> Result<(), Stop> {
    if root == Path::new("/") {
        return Ok(());
    }
    let wrong = |text| Stop(Exit::Usage, text);
    let opened = Root::open(root).map_err(|error| wrong(error.to_string()))?;
    // What cannot be told to be none may be one; who looks it up says what is wrong.
    let is_storage = |path: &PathBuf| !matches!(place(path, opened.dir()), Ok(None));
    match paths.iter().find(|path| path.exists()) {
        Some(path) if !paths.iter().any(is_storage) => Err(wrong(format!(
            "--root only tells whose storages are meant, and {} is no storage of {}: name one, or leave --root out, as paths \
             are taken as they are",
            shown(path),
            shown(root)
        ))),
        _ => Ok(()),
    }
}

/// Finds the one directory that an argument means, of a storage or a path.
///
/// # Errors
/// Fails where the storage keeps no files, or is not mounted.
pub(super) fn directory(path: &Path, root: &Path) -> anyhow::Result<PathBuf> {
    match place(path, root)? {
        Some(Place::NoFiles { kind }) => {
            bail!("{}: a storage of type {}, which holds no files of backups", shown(path), shown(kind))
        }
        Some(Place::Folder { unmounted: Some(at), .. }) => {
            bail!("{}: nothing is mounted at {}, so that its backups are not there", shown(path), shown(at))
        }
        Some(Place::Folder { dir, unmounted: None }) => {
            tell_of_namesake(path, &dir);
            Ok(dir)
        }
        None => Ok(path.to_owned()),
    }
}

/// Tells of a file or folder here that is called like the storage, unless it is the same place.
pub(super) fn tell_of_namesake(path: &Path, dir: &Path) {
    let Ok(here) = path.canonicalize() else { return };
    if !dir.canonicalize().is_ok_and(|dir| dir.starts_with(&here)) {
        let name = shown(path);
        say!("{name}: the storage of that name is meant, {}; what is here is ./{name}", shown(dir));
    }
}

/// The name of a backup, a full under any of its names.
pub(super) fn backup_name(path: &Path) -> Option<BackupName> {
    let name = path.file_name()?;
    let packed = || Some(BackupName::Full(Full::parse_packed(name.to_str()?)?));
    BackupName::parse(name.as_bytes()).or_else(packed)
}

/// Tells why there is nothing at a path.
pub(super) fn missing(path: &Path, error: &io::Error) -> String {
    if error.kind() != ErrorKind::NotFound {
        return format!("cannot be looked at: {error}");
    }
    match path.read_link() {
        Ok(target) => format!("a symbolic link to {}, which is not there", shown(target)),
        Err(_) if path.as_os_str().as_bytes().contains(&b'/') => "no such file or directory".into(),
        Err(_) => "no such file or directory, and no storage of that name".into(),
    }
}

/// Lists the backups in a directory. A directory without backups that has a folder `dump` is the path of a storage, whose
/// backups lie in that folder.
pub(super) fn scan(path: &Path) -> io::Result<Directory> {
    let directory = Directory::scan(path)?;
    let is_empty =
        directory.chains.is_empty() && directory.orphans.is_empty() && directory.unusable.is_empty();
    match path.join("dump") {
        dump if is_empty && dump.is_dir() => Directory::scan(&dump),
        _ => Ok(directory),
    }
}
