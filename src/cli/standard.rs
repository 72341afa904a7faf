//! Standard input and output, unbuffered, for data.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Seek};
use std::os::fd::AsFd;

use anyhow::{Context, bail};

/// Standard input.
///
/// # Errors
/// Those of duplicating it.
pub(crate) fn input() -> anyhow::Result<File> {
    Ok(io::stdin().as_fd().try_clone_to_owned().context("standard input")?.into())
}

/// How many bytes are left in a file; `None` where it is a pipe or the like, which does not tell.
pub(crate) fn left(file: &File) -> Option<u64> {
    let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
    Some(metadata.len().saturating_sub((&mut &*file).stream_position().ok()?))
}

/// Whether standard output is a file, whose writer alone speaks on the terminal.
pub(crate) fn is_file() -> bool {
    output().is_ok_and(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))
}

/// Standard output.
///
/// # Errors
/// Where it is a terminal.
pub(crate) fn output() -> anyhow::Result<File> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        bail!("standard output is a terminal: send it to a file or a pipe, or give --output FILE");
    }
    Ok(stdout.as_fd().try_clone_to_owned().context("standard output")?.into())
}
