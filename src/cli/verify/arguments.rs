//! Finds what the arguments of `verify` name: storages, directories, single backups.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::backup::chain::Directory;
use crate::backup::verify::{Task, task, tasks};
use crate::cli::places::{backup_name, missing, place, scan, tell_of_namesake};
use crate::cli::say::say;
use crate::host::storage::Place;
use crate::text::shown;

/// What the arguments name.
#[derive(Default)]
pub(super) struct Found {
    /// The backups to check.
    pub work: Vec<Task>,
    /// Number of full backups that were seen.
    pub fulls: usize,
    /// The directories that were read.
    pub directories: Vec<Directory>,
    pub left: Vec<Left>,
    pub refused: Vec<Refused>,
}

/// An unfinished backup that people should look after.
#[derive(Debug, Serialize)]
pub(super) struct Left {
    pub file: String,
    pub advice: String,
}

/// An argument that cannot be checked, or not completely.
#[derive(Debug, Serialize)]
pub(super) struct Refused {
    /// The argument as it was typed, made printable.
    pub argument: String,
    pub reason: String,
}

/// Finds out what each argument names. An argument that names nothing does not keep the others from being checked: that is
/// told at once, though it changes the exit code only at the end.
pub(super) fn collect(paths: &[PathBuf], all: bool, root: &Path) -> Found {
    let mut found = Found::default();
    for path in paths {
        if let Err(reason) = found.add(path, all, root) {
            let argument = shown(path);
            say!("{argument}: {reason}");
            found.refused.push(Refused { argument, reason });
        }
    }
    found
}

impl Found {
    /// Adds what an argument names. An error says why it cannot be checked, or not completely.
    fn add(&mut self, path: &Path, all: bool, root: &Path) -> Result<(), String> {
        match place(path, root).map_err(|error| format!("cannot tell what storages there are: {error}"))? {
            None => self.add_path(path, all),
            Some(Place::NoFiles { kind }) => {
                Err(format!("a storage of type {}, which holds no files of backups", shown(kind)))
            }
            Some(Place::Folder { dir, unmounted }) => {
                tell_of_namesake(path, &dir);
                let scanned = match dir.try_exists() {
                    Ok(false) => Err("is not there: is its share or disk mounted?".into()),
                    _ => self.add_directory(&dir, all),
                };
                scanned.map_err(|reason| {
                    format!(
                        "the storage {} keeps its backups in {}, which {reason}",
                        shown(path),
                        shown(&dir)
                    )
                })?;
                unmounted.map_or(Ok(()), |at| {
                    Err(format!(
                        "nothing is mounted at {}, so that the backups of this storage are not there (what lies in {} \
                         itself is checked)",
                        shown(at),
                        shown(&dir)
                    ))
                })
            }
        }
    }

    fn add_path(&mut self, path: &Path, all: bool) -> Result<(), String> {
        let kind = match path.metadata() {
            Ok(metadata) => metadata.file_type(),
            Err(error) => return Err(missing(path, &error)),
        };
        if kind.is_dir() {
            return self.add_directory(path, all).map_err(|reason| format!("a directory that {reason}"));
        }
        if !kind.is_file() {
            let what = match () {
                () if kind.is_fifo() => "a pipe",
                () if kind.is_socket() => "a socket",
                () => "a device",
            };
            return Err(format!("{what}, no backup"));
        }
        if is_beside_backups(path) {
            say!("{}: not a backup but what vzdump writes beside one: passed over", shown(path));
            return Ok(());
        }
        let name = backup_name(path).ok_or("not the name of a backup")?;
        self.work.push(task(path.parent().unwrap_or(Path::new("")), &name));
        Ok(())
    }

    fn add_directory(&mut self, path: &Path, all: bool) -> Result<(), String> {
        let directory = scan(path).map_err(|error| format!("cannot be read: {error}"))?;
        self.fulls += directory.chains.len();
        self.work.extend(tasks(&directory, all));
        self.left.extend(directory.leftovers.iter().filter_map(|it| {
            let advice = it.advice(&directory.path)?;
            Some(Left { file: it.file.name.clone(), advice })
        }));
        self.left.extend(directory.folders.iter().filter_map(|it| {
            let advice = it.advice(&directory.path)?;
            Some(Left { file: it.name.clone(), advice })
        }));
        self.directories.push(directory);
        Ok(())
    }
}

/// Tells whether a file is a log, or the notes or the mark of protection of a backup.
fn is_beside_backups(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("log" | "notes" | "protected"))
}
