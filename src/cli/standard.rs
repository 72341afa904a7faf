//! Standard input and output, unbuffered, for data.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, bail};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, makedev};

/// Standard input.
///
/// # Errors
/// Where it is closed: see [`not_closed`].
pub(crate) fn input() -> anyhow::Result<File> {
    let stdin = io::stdin();
    not_closed(stdin.as_fd(), "standard input")?;
    Ok(stdin.as_fd().try_clone_to_owned().context("standard input")?.into())
}

/// Standard output.
///
/// # Errors
/// Where it is closed (see [`not_closed`]) or a terminal.
pub(crate) fn output() -> anyhow::Result<File> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        bail!("standard output is a terminal: send it to a file or a pipe");
    }
    not_closed(stdout.as_fd(), "standard output")?;
    Ok(stdout.as_fd().try_clone_to_owned().context("standard output")?.into())
}

/// Refuses a standard stream that was closed when the program started: an empty backup, or one written to nowhere,
/// would be taken for a good one.
///
/// Rust opens /dev/null for reading and writing in place of a closed one. Shells open it for one of them, where it
/// is asked for.
///
/// # Errors
/// Where it is closed.
pub(crate) fn not_closed(stream: BorrowedFd, name: &str) -> anyhow::Result<()> {
    let mode = fcntl_getfl(stream).with_context(|| name.to_owned())? & OFlags::RWMODE;
    let file = fstat(stream).with_context(|| name.to_owned())?;
    // 1, 3: Linux' number of /dev/null.
    let null = makedev(1, 3);
    let is_null = FileType::from_raw_mode(file.st_mode) == FileType::CharacterDevice && file.st_rdev == null;
    if is_null && mode == OFlags::RDWR {
        bail!(
            "{name} is closed (or /dev/null, opened for reading and writing at once): give it a file or a pipe"
        );
    }
    Ok(())
}
