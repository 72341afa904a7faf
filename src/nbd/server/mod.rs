//! A read-only server of the NBD protocol, for disks inside backups.
//!
//! It speaks the fixed newstyle with structured replies and the context `base:allocation`, as QEMU, libnbd and the kernel
//! want it, and the older simple replies. Each client has a connection with a few threads ([`connection`]), so that one
//! that does not read its answers keeps nobody else waiting; how much is read of the backup at a time is limited for all of
//! them together. [`answers`] holds the messages as pure functions.
//!
//! Whoever reaches the server may be hostile. The handshake has a time limit, and so has a client that does not take its
//! answers. One that asks nothing may stay, as a disk that is attached somewhere does; where no place is left, those that were
//! silent longest make room ([`clients`]). The memory of all answers together has a bound, as their parts are short.

pub mod answers;
mod clients;
mod connection;
mod handshake;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::clients::{Clients, Place};
use crate::container::Sparse;

/// How long the handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long a client may take over the next bytes of an answer.
const SEND: Duration = Duration::from_secs(60);
/// The stack of a thread for a client.
const STACK: usize = 256 << 10;
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
    clients: Arc<Clients>,
}

impl Server {
    /// Makes a server. At most `threads` reads of the backup go on at a time. `trouble` is told what cannot be read.
    pub fn new(
        exports: Vec<Export>,
        threads: usize,
        trouble: impl Fn(&str) + Send + Sync + 'static,
    ) -> Arc<Server> {
        let reading = Permits { free: Mutex::new(threads.max(1)), freed: Condvar::new() };
        Arc::new(Server { exports, trouble: Box::new(trouble), reading, clients: Arc::default() })
    }

    /// Accepts clients until the listener fails for good, each with a thread of its own.
    ///
    /// # Errors
    /// Those of the listener.
    pub fn serve(self: Arc<Self>, listener: Listener) -> io::Result<()> {
        loop {
            let socket = match &listener {
                Listener::Unix(listener) => listener.accept().map(|(stream, _)| Socket::Unix(stream)),
                Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Socket::Tcp(stream)),
            };
            let socket = match socket {
                Ok(socket) => socket,
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
            // Where no place is free, or the system has no room for a thread, the client is cut off.
            let Some((stream, place)) = self.admit(socket) else { continue };
            let _ = thread::Builder::new().name("client".into()).stack_size(STACK).spawn(move || {
                // Whatever a client does wrong ends its own connection.
                let _ = server.client(stream, &place);
            });
        }
    }

    /// Serves one client until its connection ends.
    ///
    /// # Errors
    /// Fails where the connection does, or the client does not keep to the protocol.
    pub fn serve_one(&self, stream: UnixStream) -> io::Result<()> {
        let admitted = self.admit(Socket::Unix(stream));
        let (stream, place) = admitted.ok_or(io::ErrorKind::ConnectionRefused)?;
        self.client(stream, &place)
    }

    fn admit(&self, socket: Socket) -> Option<(Stream, Place)> {
        let place = self.clients.enter(socket.try_clone().ok()?)?;
        Some((Stream { socket, deadline: None }, place))
    }

    fn client(&self, mut stream: Stream, place: &Place) -> io::Result<()> {
        stream.socket.begin(SEND)?;
        stream.deadline = Some(Instant::now() + HANDSHAKE);
        let Some(chosen) = handshake::run(&mut stream, &self.exports)? else { return Ok(()) };
        stream.deadline = None;
        stream.socket.read_limit(None)?;
        connection::run(self, stream, place, chosen)
    }

    /// Reads a part of an export, when it is its turn. Its memory is taken only then.
    fn read(&self, export: &Export, pos: u64, len: usize, buf: &mut Vec<u8>) -> io::Result<()> {
        let _turn = self.reading.take();
        buf.resize(len, 0);
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
struct Stream {
    socket: Socket,
    /// Until when everything must have been read.
    deadline: Option<Instant>,
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// Limits how long a part of an answer may wait.
    fn begin(&self, send: Duration) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.set_write_timeout(Some(send)),
            Socket::Tcp(stream) => {
                let _ = stream.set_nodelay(true);
                stream.set_write_timeout(Some(send))
            }
        }
    }

    fn read_limit(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.set_read_timeout(limit),
            Socket::Tcp(stream) => stream.set_read_timeout(limit),
        }
    }

    fn try_clone(&self) -> io::Result<Socket> {
        Ok(match self {
            Socket::Unix(stream) => Socket::Unix(stream.try_clone()?),
            Socket::Tcp(stream) => Socket::Tcp(stream.try_clone()?),
        })
    }

    /// Ends the connection, also for whoever waits in it.
    fn close(&self) {
        let _ = match self {
            Socket::Unix(stream) => stream.shutdown(Shutdown::Both),
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.read_limit(Some(left))?;
        }
        match &mut self.socket {
            Socket::Unix(stream) => stream.read(buf),
            Socket::Tcp(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.write(buf),
            Socket::Tcp(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_draws_out_the_handshake() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ends = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        // A byte now and then, for ever.
        let dribbles = thread::spawn(move || {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) && theirs.write_all(&[0]).is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        let deadline = Some(Instant::now() + Duration::from_millis(100));
        let mut stream = Stream { socket: Socket::Unix(ours), deadline };
        let late = stream.read_exact(&mut vec![0; 1 << 30]).unwrap_err();
        assert!(matches!(late.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{late}");
        ends.store(true, std::sync::atomic::Ordering::Relaxed);
        dribbles.join().unwrap();
    }
}
