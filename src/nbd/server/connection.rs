//! The requests of a client, and their answers.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crossbeam_channel::bounded;

use super::answers::*;
use super::clients::Place;
use super::handshake::Chosen;
use super::{Export, STACK, Server, Socket, Stream};

/// The threads that answer requests, and how many requests may wait for them.
const THREADS: usize = 4;
const WAITING: usize = 64;
/// How many bytes are read of the export at once. Each thread has so much in memory at most.
const PART: usize = 128 << 10;
/// The longest part of an answer that is sent together with what stands before it.
const SHORT: usize = 64 << 10;
/// The most runs in an answer about holes.
const MAX_RUNS: usize = 4096;

/// What the threads of a connection share.
struct Shared<'a> {
    server: &'a Server,
    chosen: &'a Chosen<'a>,
    place: &'a Place,
    out: Mutex<Socket>,
    /// Whether an answer could not be sent: the other requests are not answered either.
    broken: AtomicBool,
}

/// Answers the requests of a client until it disconnects.
///
/// # Errors
/// Fails where the connection does, or the client does not keep to the protocol.
pub(super) fn run(server: &Server, mut stream: Stream, place: &Place, chosen: Chosen<'_>) -> io::Result<()> {
    let shared = Shared {
        server,
        chosen: &chosen,
        place,
        out: Mutex::new(stream.socket.try_clone()?),
        broken: AtomicBool::new(false),
    };
    let (send, requests) = bounded::<Request>(WAITING);
    thread::scope(|scope| {
        let mut threads = 0;
        let result = loop {
            let request = match next(&mut stream) {
                Ok(Some(request)) => request,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            if request.command == CMD_DISCONNECT {
                break Ok(());
            }
            place.heard();
            // A client that asks one thing at a time needs one thread.
            if threads == 0 || (threads < THREADS && !send.is_empty() && place.is_one_of_few()) {
                let (requests, shared) = (requests.clone(), &shared);
                let work = move || {
                    for request in requests {
                        if shared.broken.load(Ordering::Relaxed) {
                            continue;
                        }
                        if shared.answer(&request).is_err() {
                            // The thread that waits for requests finds that they have ended, too.
                            shared.broken.store(true, Ordering::Relaxed);
                            shared.out.lock().unwrap_or_else(PoisonError::into_inner).close();
                        }
                    }
                };
                match thread::Builder::new().name("answer".into()).stack_size(STACK).spawn_scoped(scope, work)
                {
                    Ok(_) => threads += 1,
                    Err(error) if threads == 0 => break Err(error),
                    Err(_) => {}
                }
            }
            if send.send(request).is_err() {
                break Ok(());
            }
        };
        drop(send);
        drop(requests);
        result
    })
}

/// Reads the next request, and passes over what a client wants to write; `None` where the client is gone.
fn next(stream: &mut Stream) -> io::Result<Option<Request>> {
    let mut bytes = [0; 28];
    match stream.read(&mut bytes[..1])? {
        0 => return Ok(None),
        _ => stream.read_exact(&mut bytes[1..])?,
    }
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "this is no request");
    let request = Request::parse(&bytes).ok_or_else(invalid)?;
    if request.command == CMD_WRITE {
        if request.len > MAX_REQUEST {
            return Err(invalid());
        }
        let passed = io::copy(&mut Read::take(&mut *stream, request.len.into()), &mut io::sink())?;
        if passed < request.len.into() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(request))
}

impl Shared<'_> {
    fn export(&self) -> &Export {
        self.chosen.export
    }

    /// Sends parts of an answer in one piece.
    fn send(&self, parts: &[&[u8]]) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        match parts {
            // A short answer is one packet.
            [head, data] if data.len() < SHORT => out.write_all(&[*head, *data].concat()),
            _ => parts.iter().try_for_each(|part| out.write_all(part)),
        }?;
        self.place.heard();
        Ok(())
    }

    fn refuse(&self, request: &Request, number: u32, text: &str, at: Option<u64>) -> io::Result<()> {
        match self.chosen.structured {
            true => self.send(&[&error(request.cookie, number, text, at)]),
            false => self.send(&[&simple(request.cookie, number)]),
        }
    }

    fn answer(&self, request: &Request) -> io::Result<()> {
        let size = self.export().content.size();
        let inside = request.offset.checked_add(request.len.into()).is_some_and(|end| end <= size);
        match request.command {
            CMD_READ if request.len > MAX_REQUEST => self.refuse(request, EINVAL, "too much at once", None),
            CMD_READ | CMD_BLOCK_STATUS if !inside || request.len == 0 => {
                self.refuse(request, EINVAL, "outside of the disk", None)
            }
            CMD_READ if self.chosen.structured => self.read_structured(request),
            CMD_READ => self.read_simple(request),
            CMD_BLOCK_STATUS if self.chosen.allocation => self.block_status(request),
            CMD_WRITE | CMD_TRIM | CMD_WRITE_ZEROES => {
                self.refuse(request, EPERM, "a backup is read-only", None)
            }
            CMD_FLUSH if self.chosen.structured => self.send(&[&done(request.cookie)]),
            CMD_FLUSH => self.send(&[&simple(request.cookie, 0)]),
            _ => self.refuse(request, EINVAL, "no such command", None),
        }
    }

    fn read_structured(&self, request: &Request) -> io::Result<()> {
        let (mut at, end) = (request.offset, request.offset + u64::from(request.len));
        let mut buf = Vec::new();
        while at < end {
            let (is_data, run) = self.export().content.run(at, end - at);
            let len = if is_data { run.min(PART as u64) } else { run };
            let last = at + len == end;
            if !is_data {
                self.send(&[&hole(last, request.cookie, at, len as u32)])?;
                at += len;
                continue;
            }
            match self.server.read(self.export(), at, len as usize, &mut buf) {
                Ok(()) => self.send(&[&data(last, request.cookie, at, buf.len()), &buf])?,
                Err(failed) => return self.refuse(request, EIO, &failed.to_string(), Some(at)),
            }
            at += len;
        }
        Ok(())
    }

    fn read_simple(&self, request: &Request) -> io::Result<()> {
        let (start, end) = (request.offset, request.offset + u64::from(request.len));
        let mut buf = Vec::new();
        let part = |at: u64, buf: &mut Vec<u8>| {
            self.server.read(self.export(), at, (end - at).min(PART as u64) as usize, buf)
        };
        // Once the answer has begun, no error can be told: so all of a long one is read once before that.
        let mut at = start;
        while at < end {
            if part(at, &mut buf).is_err() {
                return self.refuse(request, EIO, "", None);
            }
            at += buf.len() as u64;
        }
        let head = simple(request.cookie, 0);
        if buf.len() as u64 == end - start {
            return self.send(&[&head, &buf]);
        }
        // Nobody else may write between the parts of an answer.
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(&head)?;
        let mut at = start;
        while at < end {
            part(at, &mut buf)?;
            out.write_all(&buf)?;
            self.place.heard();
            at += buf.len() as u64;
        }
        Ok(())
    }

    fn block_status(&self, request: &Request) -> io::Result<()> {
        let (mut at, end) = (request.offset, request.offset + u64::from(request.len));
        let most = if request.flags & REQ_ONE != 0 { 1 } else { MAX_RUNS };
        let mut runs = Vec::new();
        while at < end && runs.len() < most {
            let (is_data, run) = self.export().content.run(at, end - at);
            runs.push((run as u32, if is_data { 0 } else { HOLE }));
            at += run;
        }
        self.send(&[&status(request.cookie, &runs)])
    }
}
