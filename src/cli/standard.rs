//! Opens standard input and output for data, without buffers, and refuses those that are closed.
//!
//! Before `main` begins, Rust's runtime opens `/dev/null` in the place of each standard stream that is closed, so that no
//! other file gets its number. A program that then reads standard input finds it empty, and what it writes to standard
//! output is lost without an error. So this module notes before that which streams are closed, and refuses to use these.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, IsTerminal, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, bail, ensure};

/// The streams that were closed when the program was started: bit n stands for the stream of that number.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Notes which streams are closed. It runs before the runtime, so it asks the system and nothing else.
extern "C" fn note_closed() {
    for stream in 0..3 {
        #[allow(unsafe_code)]
        // SAFETY: it only asks for a descriptor's flags, and fails where there is no such descriptor.
        if unsafe { libc::fcntl(stream, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << stream, Ordering::Relaxed);
        }
    }
}

/// Has the C library call [`note_closed`] when the program is loaded.
#[allow(unsafe_code)]
// SAFETY: the section holds pointers to functions that are called once each, before `main`; the arguments that the C
// library passes are not looked at.
#[unsafe(link_section = ".init_array")]
#[used]
static NOTE_CLOSED: extern "C" fn() = note_closed;

/// The standard streams that data passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Input = 0,
    Output = 1,
    Error = 2,
}

impl Stream {
    /// Refuses one that is closed.
    fn open(self) -> anyhow::Result<()> {
        let name = match self {
            Stream::Input => "standard input",
            Stream::Output => "standard output",
            Stream::Error => "standard error",
        };
        ensure!(CLOSED.load(Ordering::Relaxed) >> self as u8 & 1 == 0, "{name} is closed");
        Ok(())
    }
}

/// Standard input.
///
/// # Errors
/// Where it is closed; those of duplicating it.
pub(crate) fn input() -> anyhow::Result<File> {
    is_fed()?;
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

/// Standard output, for what no terminal can show.
///
/// # Errors
/// Where it is closed, or a terminal; those of duplicating it.
pub(crate) fn output() -> anyhow::Result<File> {
    if io::stdout().is_terminal() {
        bail!("standard output is a terminal: send it to a file or a pipe, or give --output FILE");
    }
    text_output()
}

/// Standard output, for what may be text.
///
/// # Errors
/// Where it is closed; those of duplicating it.
pub(crate) fn text_output() -> anyhow::Result<File> {
    is_read()?;
    Ok(io::stdout().as_fd().try_clone_to_owned().context("standard output")?.into())
}

/// Call this before a command opens standard input by its path.
///
/// # Errors
/// Where it is closed.
pub(crate) fn is_fed() -> anyhow::Result<()> {
    Stream::Input.open()
}

/// Call this before a command begins whose only result is what it prints.
///
/// # Errors
/// Where standard output is closed.
pub(crate) fn is_read() -> anyhow::Result<()> {
    Stream::Output.open()
}

/// Refuses arguments that name a closed stream by its path: they would be opened as the `/dev/null` in its place.
///
/// # Errors
/// Where there is such an argument.
pub(crate) fn named_in(arguments: &[OsString]) -> anyhow::Result<()> {
    const PATHS: [(Stream, [&str; 3]); 3] = [
        (Stream::Input, ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"]),
        (Stream::Output, ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]),
        (Stream::Error, ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"]),
    ];
    for (stream, paths) in PATHS {
        // Also as the value of an option, joined to its name, and of NAME=IMAGE.
        let named =
            |argument: &OsStr| paths.iter().any(|path| argument.as_bytes().ends_with(path.as_bytes()));
        if arguments.iter().any(|argument| named(argument)) {
            stream.open()?;
        }
    }
    Ok(())
}
