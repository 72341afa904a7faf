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
    /// Refuses a stream that was closed.
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

/// Bytes that a pipe of a backup or a restore shall hold: as many as the system grants to everybody by default.
///
/// A pipe has room for 64 KiB otherwise. On a busy machine, whoever waits for the other end of such a pipe is made to wait
/// again after each 64 KiB.
const PIPE: usize = 1 << 20;

/// Opens standard input.
///
/// # Errors
/// Fails where the stream was closed or cannot be duplicated.
pub(crate) fn input() -> anyhow::Result<File> {
    is_fed()?;
    let input: File = io::stdin().as_fd().try_clone_to_owned().context("standard input")?.into();
    widen(&input);
    Ok(input)
}

/// Makes room for [`PIPE`] bytes, where the file is a pipe and the system grants it.
fn widen(file: &File) {
    // Without it the pipe works all the same.
    if rustix::pipe::fcntl_getpipe_size(file).is_ok_and(|size| size < PIPE) {
        let _ = rustix::pipe::fcntl_setpipe_size(file, PIPE);
    }
}

/// Tells how many bytes are left in a file. It is `None` for pipes and the like, which do not tell.
pub(crate) fn left(file: &File) -> Option<u64> {
    let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
    Some(metadata.len().saturating_sub((&mut &*file).stream_position().ok()?))
}

/// Tells whether standard output is a file; then only the program that writes it speaks on the terminal.
pub(crate) fn is_file() -> bool {
    output().is_ok_and(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))
}

/// Opens standard output for data that no terminal can show.
///
/// # Errors
/// Fails where the stream was closed, is a terminal, or cannot be duplicated.
pub(crate) fn output() -> anyhow::Result<File> {
    if io::stdout().is_terminal() {
        bail!("standard output is a terminal: send it to a file or a pipe, or give --output FILE");
    }
    let output = text_output()?;
    widen(&output);
    Ok(output)
}

/// Opens standard output for data that may be text.
///
/// # Errors
/// Fails where the stream was closed or cannot be duplicated.
pub(crate) fn text_output() -> anyhow::Result<File> {
    is_read()?;
    Ok(io::stdout().as_fd().try_clone_to_owned().context("standard output")?.into())
}

/// Makes sure that standard input is open. A command calls this before it opens standard input by its path.
///
/// # Errors
/// Fails where standard input was closed.
pub(crate) fn is_fed() -> anyhow::Result<()> {
    Stream::Input.open()
}

/// Makes sure that standard output is open. A command calls this first if its only result is what it prints.
///
/// # Errors
/// Fails where standard output was closed.
pub(crate) fn is_read() -> anyhow::Result<()> {
    Stream::Output.open()
}

/// Refuses arguments that name a closed stream by its path, as they would be opened as the `/dev/null` in its place.
///
/// # Errors
/// Fails where there is such an argument.
pub(crate) fn named_in(arguments: &[OsString]) -> anyhow::Result<()> {
    const PATHS: [(Stream, [&str; 3]); 3] = [
        (Stream::Input, ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"]),
        (Stream::Output, ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]),
        (Stream::Error, ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"]),
    ];
    for (stream, paths) in PATHS {
        // The path may also be the value of an option, joined to the option's name, and the image of NAME=IMAGE.
        let named =
            |argument: &OsStr| paths.iter().any(|path| argument.as_bytes().ends_with(path.as_bytes()));
        if arguments.iter().any(|argument| named(argument)) {
            stream.open()?;
        }
    }
    Ok(())
}
