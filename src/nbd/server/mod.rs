//! A read-only server of the NBD protocol, for disks inside backups.
//!
//! It speaks the fixed newstyle with structured replies and the context `base:allocation`, as QEMU, libnbd and the kernel
//! want it, and the older simple replies. Each client has a connection with a few threads ([`connection`]), so that one
//! that does not read its answers keeps nobody else waiting; how much is read of the backup at a time is limited for all of
//! them together. [`answers`] holds the messages as pure functions.

pub mod answers;
mod connection;
mod handshake;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::container::Sparse;

/// The most connections at a time.
const MAX_CLIENTS: usize = 512;
/// How long a client may take over each step of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long to wait where the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// A disk that clients may read.
pub struct Export {
    /// The name by which they choose it.
    pub name: String,
    /// What it holds.
    pub content: Arc<dyn Sparse>,
}

/// Where clients connect to.
pub enum Listener {
    /// A socket in the file system.
    Unix(UnixListener),
    /// A port.
    Tcp(TcpListener),
}

/// A server of exports.
pub struct Server {
    exports: Vec<Export>,
    /// Is told what cannot be read.
    trouble: Box<dyn Fn(&str) + Send + Sync>,
    reading: Permits,
    clients: AtomicUsize,
}

impl Server {
    /// Makes a server. At most `threads` reads of the backup go on at a time. `trouble` is told what cannot be read.
    pub fn new(
        exports: Vec<Export>,
        threads: usize,
        trouble: impl Fn(&str) + Send + Sync + 'static,
    ) -> Arc<Server> {
        let reading = Permits { free: Mutex::new(threads.max(1)), freed: Condvar::new() };
        Arc::new(Server { exports, trouble: Box::new(trouble), reading, clients: AtomicUsize::new(0) })
    }

    /// Accepts clients until the listener fails for good, each with a thread of its own.
    ///
    /// # Errors
    /// Those of the listener.
    pub fn serve(self: Arc<Self>, listener: Listener) -> io::Result<()> {
        loop {
            let stream = match &listener {
                Listener::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
                Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            };
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => match error.raw_os_error() {
                    // A client that is gone again, or no room for it: the next one may come.
                    Some(libc::ECONNABORTED | libc::EINTR) => continue,
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        thread::sleep(PAUSE);
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            let server = Arc::clone(&self);
            if self.clients.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
                self.clients.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let started = thread::Builder::new().name("client".into()).spawn(move || {
                // Whatever a client does wrong ends its own connection.
                let _ = server.client(stream);
                server.clients.fetch_sub(1, Ordering::Relaxed);
            });
            if started.is_err() {
                self.clients.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn client(&self, mut stream: Stream) -> io::Result<()> {
        stream.time_limit(Some(HANDSHAKE))?;
        let Some(chosen) = handshake::run(&mut stream, &self.exports)? else { return Ok(()) };
        stream.time_limit(None)?;
        connection::run(self, stream, chosen)
    }

    /// Reads a part of an export, when it is its turn.
    fn read(&self, export: &Export, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        let _turn = self.reading.take();
        export.content.read_at(pos, buf).inspect_err(|error| (self.trouble)(&error.to_string()))
    }
}

/// How many threads may do something at a time.
struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

struct Permit<'a>(&'a Permits);

impl Permits {
    fn take(&self) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner) -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

/// A connection to a client.
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn time_limit(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.set_read_timeout(limit).and(stream.set_write_timeout(limit)),
            Stream::Tcp(stream) => {
                let _ = stream.set_nodelay(true);
                stream.set_read_timeout(limit).and(stream.set_write_timeout(limit))
            }
        }
    }

    fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
        })
    }

    /// Ends the connection, also for whoever waits in it.
    fn close(&self) {
        let _ = match self {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(buf),
            Stream::Tcp(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(buf),
            Stream::Tcp(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
