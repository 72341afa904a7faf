//! Standard input and output, unbuffered, for data.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use anyhow::{Context, bail};

/// Standard input.
///
/// # Errors
/// Those of duplicating it.
pub(crate) fn input() -> anyhow::Result<File> {
    Ok(io::stdin().as_fd().try_clone_to_owned().context("standard input")?.into())
}

/// Standard output.
///
/// # Errors
/// Where it is a terminal.
pub(crate) fn output() -> anyhow::Result<File> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        bail!("standard output is a terminal: send it to a file or a pipe");
    }
    Ok(stdout.as_fd().try_clone_to_owned().context("standard output")?.into())
}
