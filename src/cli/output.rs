//! Sends a command's data to standard output, or to a file that gets its name when it is complete, and only then.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use clap::Args;

use super::signals::remove_on_signals;
use super::standard;
use crate::text::shown as named;
use crate::vma::{Made, rename_to_free};

/// The options of the commands that write data.
#[derive(Args)]
pub(crate) struct Destination {
    /// Write to FILE, for its owner only, instead of standard output. FILE must not exist yet, and is removed again if
    /// anything fails
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace FILE where it exists, once the new one is complete
    #[arg(short, long, requires = "output")]
    force: bool,
    /// Show no progress (there is some on a terminal only)
    #[arg(short, long)]
    quiet: bool,
}

/// The output of a command. It notes whether writing failed.
pub(crate) struct Output {
    file: File,
    failed: Arc<AtomicBool>,
}

impl Output {
    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            self.failed.fetch_or(error.kind() != io::ErrorKind::Interrupted, Ordering::Relaxed);
        })
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buf);
        self.noted(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.flush();
        self.noted(flushed)
    }
}

fn cannot_make(path: &Path) -> String {
    format!("cannot make {}", named(path))
}

/// Lets `work` write a file. The file gets its name when it is complete, and replaces another one only if `force` is set. So
/// half a file never has the name of a whole one, whatever ends this program. `made` removes what is not complete.
///
/// # Errors
/// Fails where the work fails, or where the file cannot be made or named.
pub(super) fn complete<T>(
    path: &Path,
    force: bool,
    made: &Made,
    work: impl FnOnce(File) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let failed = || cannot_make(path);
    let new = path.with_file_name(format!(".pve-xdelta3.{}.new", std::process::id()));
    let file = made.file(&new).with_context(failed)?;
    let disk = file.try_clone().with_context(failed)?;
    let done = work(file)?;
    // An error of the disk is known before anyone relies on the file.
    disk.sync_all().with_context(failed)?;
    // From here on a signal may leave the new file beside an old one, but takes neither away.
    made.keep();
    let named_now = if force { fs::rename(&new, path) } else { rename_to_free(&new, path) };
    // It may be the only copy of what came through a pipe.
    named_now
        .with_context(|| format!("{}, but what was to be in it is complete, in {}", failed(), named(&new)))?;
    Ok(done)
}

impl Destination {
    /// Whether to show progress. In a pipe others speak on the terminal: vzdump and qmrestore have logs of their own there.
    pub fn progress(&self, in_a_pipe: bool) -> bool {
        !self.quiet && (self.output.is_some() || !in_a_pipe)
    }

    /// Lets `work` write to the output. `read` are the files that it reads.
    ///
    /// # Errors
    /// Fails where the work fails, and where the file exists, is one of those that are read, or cannot be made. No file
    /// is left then.
    pub fn write<T>(
        &self,
        read: &[&Path],
        work: impl FnOnce(Output) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let Some(path) = self.output.as_deref().filter(|path| *path != Path::new("-")) else {
            return work(Output { file: standard::output()?, failed: Arc::default() });
        };
        let made = Made::default();
        remove_on_signals(&made)?;
        let done = made.all_or_nothing(|| {
            match fs::symlink_metadata(path).ok() {
                None => {}
                Some(there) if there.is_dir() => bail!("{} is a folder: name a file in it", named(path)),
                Some(there) if there.is_symlink() => {
                    bail!("{} is a symbolic link, which is not replaced: name the file itself", named(path))
                }
                Some(there) if !there.is_file() => bail!(
                    "{} is a device or the like: to write there, leave out --output, and > it",
                    named(path)
                ),
                Some(_) if !self.force => {
                    bail!("{} exists already: choose another name, or replace it with --force", named(path))
                }
                Some(there) => {
                    let same = |other: &&&Path| {
                        fs::metadata(other).is_ok_and(|m| (m.dev(), m.ino()) == (there.dev(), there.ino()))
                    };
                    if let Some(input) = read.iter().find(same) {
                        bail!("{} is the file that is read as {}", named(path), named(input));
                    }
                }
            }
            complete(path, self.force, &made, |file| {
                let failed = Arc::new(AtomicBool::new(false));
                let done = work(Output { file, failed: Arc::clone(&failed) });
                // Most errors are not those of the output.
                if failed.load(Ordering::Relaxed) { done.with_context(|| cannot_make(path)) } else { done }
            })
        });
        if let Some(left) = made.left().first() {
            return done.with_context(|| format!("{} could not be removed: it is incomplete", named(left)));
        }
        done
    }
}
