//! The NBD protocol: a client for what QEMU exports of a disk (its dirty bitmap, and the bytes that it marks), and a
//! [`server`] of the disks inside backups.
//!
//! [`Client::connect`] does the handshake (fixed newstyle, structured replies, the meta context
//! `qemu:dirty-bitmap:NAME`), [`Client::dirty`] asks which ranges the bitmap marks, and [`Client::reads`] reads ranges,
//! with several requests under way at a time. Nothing else is ever asked for: QEMU's snapshots refuse to read what the
//! bitmap does not mark.
//!
//! The server is not trusted: every length is bounded before memory is taken for it, every answer has a time limit, and
//! an answer that does not fit its question is an error. [`wire`] holds the messages as pure functions.
//!
//! Source: `doc/proto.md` of the NBD project.

mod client;
pub mod server;
mod throttle;
mod uri;
pub mod wire;

pub use client::{Client, Limits, Reads};
pub use throttle::Throttle;
pub use uri::{Uri, encoded};

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::text::shown;

/// The errors of a conversation with a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not that of an export.
    #[error("{0:?} is no address of an NBD export: it has the form nbd+unix:///EXPORT?socket=PATH")]
    Address(String),
    /// No connection could be made, for instance because no server listens there.
    #[error("cannot connect to {}", shown(path))]
    Connect {
        /// The path of the socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The connection failed.
    #[error("the connection to the NBD server failed while waiting for {during}")]
    Io {
        /// What was expected.
        during: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The server closed the connection.
    #[error("the NBD server closed the connection instead of sending {during}")]
    Closed {
        /// What was expected.
        during: &'static str,
    },
    /// The server did not answer in time.
    #[error("the NBD server did not send {during} within {} s", limit.as_secs())]
    Late {
        /// What was expected.
        during: &'static str,
        /// The time that it had.
        limit: Duration,
    },
    /// The server refused a request.
    #[error("the NBD server refused {what}: {why}")]
    Refused {
        /// What was asked.
        what: String,
        /// The reason that it gave.
        why: String,
    },
    /// The export exists, but has no such bitmap.
    #[error("the NBD export {export:?} has no dirty bitmap {bitmap:?}")]
    NoBitmap {
        /// The name of the export.
        export: String,
        /// The name of the bitmap.
        bitmap: String,
    },
    /// The server broke the rules of the protocol in this way.
    #[error("the NBD server does not keep to the protocol: {0}")]
    Protocol(&'static str),
}
