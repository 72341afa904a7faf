//! Messages on standard error and output.
//!
//! `eprintln!` ends the program in a panic where a message cannot be written: standard error is on a full disk, or
//! its reader is gone. No work is to be lost for a message.

use std::fmt;
use std::io::{self, Write};

use anyhow::Context;

/// Writes a line to standard error, as `eprintln!` does; where that fails, it is left unsaid.
macro_rules! say {
    ($($message:tt)*) => {
        $crate::cli::say::text(format_args!("{}\n", format_args!($($message)*)))
    };
}
pub(crate) use say;

/// Writes a text as it is, in one piece where the system lets it: lines of several programs stay lines.
pub(crate) fn text(message: fmt::Arguments) {
    let _ = io::stderr().write_all(message.to_string().as_bytes());
}

/// Tells on standard output what became of work that is done, or goes on whether anybody reads it.
pub(crate) fn println_quietly(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Writes what a command was asked for to standard output.
///
/// # Errors
/// Those of writing.
pub(crate) fn print(out: &mut impl Write, text: &[u8]) -> anyhow::Result<()> {
    out.write_all(text).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Tells on standard output what a command finds, whose result is its exit status. It goes on where nobody reads that.
///
/// # Errors
/// As [`print`], apart from that.
pub(crate) fn chat(out: &mut impl Write, text: &[u8]) -> anyhow::Result<()> {
    match print(out, text) {
        Err(error) if super::is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}
