//! Messages on standard error.
//!
//! `eprintln!` ends the program in a panic where a message cannot be written: standard error is on a full disk, or
//! its reader is gone. No work is to be lost for a message.

use std::fmt;
use std::io::{self, Write};

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
