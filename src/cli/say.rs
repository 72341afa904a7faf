//! Messages on standard error and output.
//!
//! `eprintln!` ends the program in a panic where a message cannot be written: standard error is on a full disk, or
//! its reader is gone. No work is to be lost for a message.

use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;

use anyhow::Context;

pub(crate) use crate::text::count;
use crate::text::{escaped, harmless};

/// Writes a message to standard error, behind the program's name; where that fails, it is left unsaid.
macro_rules! say {
    ($($message:tt)*) => {
        $crate::cli::say::message(format_args!($($message)*))
    };
}
pub(crate) use say;

/// The name of the program that makes and restores backups.
pub(crate) const HELPER: &str = "pve-xdelta3";

/// The name under which the program speaks.
static NAME: Mutex<&str> = Mutex::new("");

/// Tells under which name the program speaks from now on.
pub(crate) fn speak_as(name: &'static str) {
    if let Ok(mut slot) = NAME.lock() {
        *slot = name;
    }
}

/// What [`say!`] does.
pub(crate) fn message(message: fmt::Arguments) {
    match NAME.lock().map_or("", |name| *name) {
        "" => text(format_args!("{message}\n")),
        name => text(format_args!("{name}: {message}\n")),
    }
}

/// Tells why a program ends: the error with its causes.
pub(crate) fn failure(error: &anyhow::Error) {
    say!("{error:#}");
}

/// Writes a text without the program's name, in one piece where the system lets it: lines of several programs stay
/// lines. Whatever came into it, it commands no terminal.
pub(crate) fn text(text: fmt::Arguments) {
    let _ = io::stderr().write_all(harmless(&text.to_string()).as_bytes());
}

/// Takes text for people, into which names and values of others may have come; it commands no terminal.
pub(crate) struct ForPeople<W>(pub W);

impl<W: Write> Write for ForPeople<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // What is formatted comes in whole strings.
        let text = std::str::from_utf8(buf).map_or_else(|_| escaped(buf), harmless);
        self.0.write_all(text.as_bytes())?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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
