//! Holds the conversation with an NBD server.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::wire::{self, CHUNK_LEN, Chunk, GREETING_LEN, OPTION_REPLY_LEN, OptionReply, Payload};
use super::{Error, Throttle, Uri};

/// The largest length of data in an answer of the handshake, which holds names and texts.
const MAX_OPTION_DATA: u32 = 64 << 10;
/// The number of answers to one option at most. A server may also tell things that nobody asked for.
const MAX_OPTION_REPLIES: u32 = 64;
/// The largest length of data in an answer about block status. QEMU stops at 1 MiB.
const MAX_STATUS: u32 = 4 << 20;
/// The length of the range that one request for block status asks about, in bytes.
const STATUS_STEP: u64 = 1 << 30;
/// The number of dirty ranges that are listed at most, of 16 bytes each. A disk of a terabyte of which every second 64
/// KiB are dirty has half as many.
const MAX_RANGES: usize = 16 << 20;
/// The number of parts of an answer to a read at most.
const MAX_PARTS: usize = 1 << 10;
/// The largest length of a part that holds the text of an error, or the place of a hole.
const MAX_SMALL: u32 = 8 << 10;
/// The number of bytes that one request reads at most.
const MAX_READ: u32 = 1 << 20;

/// How long a client waits, and how fast it reads.
#[derive(Clone)]
pub struct Limits {
    /// The time that the server has for an answer, and for the list of dirty ranges as a whole.
    pub timeout: Duration,
    /// The number of requests that wait for their answers at a time.
    pub in_flight: usize,
    /// The limit of the speed of reading.
    pub throttle: Option<Arc<Throttle>>,
}

impl Default for Limits {
    /// The time limit is five minutes: QEMU's own limit for a guest's write that waits for a backup is 45 seconds.
    fn default() -> Self {
        Limits { timeout: Duration::from_secs(300), in_flight: 16, throttle: None }
    }
}

/// A connection to an export.
pub struct Client {
    line: Line,
    limits: Limits,
    size: u64,
    /// The number of the dirty bitmap's meta context, which the server chose.
    bitmap: Option<u32>,
    cookie: u64,
}

/// A socket whose every read has a deadline.
struct Line {
    socket: UnixStream,
    limit: Duration,
}

impl Line {
    fn send(&mut self, bytes: &[u8], during: &'static str) -> Result<(), Error> {
        self.socket.write_all(bytes).map_err(|source| self.failed(source, during))
    }

    /// Fills `buf` before the deadline, in however small pieces the bytes come.
    fn receive(&mut self, mut buf: &mut [u8], deadline: Instant, during: &'static str) -> Result<(), Error> {
        while !buf.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Late { during, limit: self.limit });
            }
            self.socket.set_read_timeout(Some(left)).map_err(|source| Error::Io { during, source })?;
            match self.socket.read(buf) {
                Ok(0) => return Err(Error::Closed { during }),
                Ok(n) => buf = &mut buf[n..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(source, during)),
            }
        }
        Ok(())
    }

    fn failed(&self, source: io::Error, during: &'static str) -> Error {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Late { during, limit: self.limit },
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Error::Closed { during },
            _ => Error::Io { during, source },
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.limit
    }
}

impl Client {
    /// Connects to an export and, if one is named, to a dirty bitmap of it.
    ///
    /// # Errors
    /// Fails where there is no server, no such export or bitmap, or where the server offers no structured replies.
    pub fn connect(uri: &Uri, bitmap: Option<&str>, limits: Limits) -> Result<Client, Error> {
        let socket = UnixStream::connect(&uri.socket)
            .map_err(|source| Error::Connect { path: uri.socket.clone(), source })?;
        Client::over(socket, &uri.export, bitmap, limits)
    }

    /// Does the same as [`Client::connect`] over a connected socket.
    ///
    /// # Errors
    /// Fails as [`Client::connect`] does.
    pub fn over(
        socket: UnixStream,
        export: &str,
        bitmap: Option<&str>,
        limits: Limits,
    ) -> Result<Client, Error> {
        let during = "its greeting";
        socket.set_write_timeout(Some(limits.timeout)).map_err(|source| Error::Io { during, source })?;
        let line = Line { socket, limit: limits.timeout };
        let mut client = Client { line, limits, size: 0, bitmap: None, cookie: 0 };
        client.greet()?;
        client.option(wire::OPT_STRUCTURED_REPLY, &[], "structured replies", |_, _| Ok(()))?;
        if let Some(name) = bitmap {
            client.bitmap = Some(client.context(export, name)?);
        }
        let (mut size, what) = (None, format!("the export {export:?}"));
        client.option(wire::OPT_GO, &wire::go(export), &what, |kind, data| {
            if kind == wire::REP_INFO {
                size = wire::export_size(data)?.or(size);
            }
            Ok(())
        })?;
        client.size = size.ok_or(Error::Protocol("it does not tell the export's size"))?;
        Ok(client)
    }

    fn greet(&mut self) -> Result<(), Error> {
        let during = "its greeting";
        let mut greeting = [0; GREETING_LEN];
        self.line.receive(&mut greeting, self.line.deadline(), during)?;
        let answer = wire::greeting(&greeting)?;
        self.line.send(&answer, during)
    }

    /// Negotiates an option. `take` gets the answers that come before the last one.
    fn option(
        &mut self,
        option: u32,
        data: &[u8],
        what: &str,
        mut take: impl FnMut(u32, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (during, deadline) = ("an answer in the handshake", self.line.deadline());
        self.line.send(&wire::option(option, data), during)?;
        for _ in 0..MAX_OPTION_REPLIES {
            let mut head = [0; OPTION_REPLY_LEN];
            self.line.receive(&mut head, deadline, during)?;
            let reply = OptionReply::parse(&head, option)?;
            if reply.len > MAX_OPTION_DATA {
                return Err(Error::Protocol("an answer in the handshake is too long"));
            }
            let mut data = vec![0; reply.len as usize];
            self.line.receive(&mut data, deadline, during)?;
            if let Some(why) = reply.refusal(&data) {
                return Err(Error::Refused { what: what.to_owned(), why });
            }
            match reply.kind {
                wire::REP_ACK => return Ok(()),
                kind => take(kind, &data)?,
            }
        }
        Err(Error::Protocol("an answer in the handshake has no end"))
    }

    /// Selects the meta context of a dirty bitmap, and returns its number.
    fn context(&mut self, export: &str, bitmap: &str) -> Result<u32, Error> {
        let name = format!("qemu:dirty-bitmap:{bitmap}");
        let (mut id, what) = (None, format!("the bitmap {bitmap:?} of the export {export:?}"));
        self.option(wire::OPT_SET_META_CONTEXT, &wire::meta_context(export, &name), &what, |kind, data| {
            if kind == wire::REP_META_CONTEXT {
                let (number, found) = wire::context(data)?;
                if found != name.as_bytes() || id.is_some() {
                    return Err(Error::Protocol("it chose a meta context that nobody asked for"));
                }
                id = Some(number);
            }
            Ok(())
        })?;
        id.ok_or_else(|| Error::NoBitmap { export: export.to_owned(), bitmap: bitmap.to_owned() })
    }

    /// The size of the export in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Lists the ranges of bytes that the bitmap marks, in order; no two of them touch. Without a bitmap it is the
    /// whole export.
    ///
    /// # Errors
    /// Fails where the connection fails, or an answer does not fit its question.
    pub fn dirty(&mut self) -> Result<Vec<Range<u64>>, Error> {
        let Some(context) = self.bitmap else {
            return Ok(Some(0..self.size).filter(|all| !all.is_empty()).into_iter().collect());
        };
        let deadline = self.line.deadline();
        let (mut at, mut found) = (0, Vec::new());
        while at < self.size {
            for (len, flags) in self.status(context, at, deadline)? {
                let end = at.saturating_add(len.into()).min(self.size);
                if end == at {
                    return Err(Error::Protocol("it tells of a range without length"));
                }
                if flags & wire::DIRTY != 0 {
                    note(&mut found, at..end)?;
                }
                at = end;
                if at == self.size {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Asks for the block status from `at` on. Returns the length in bytes and the flags of each range, at least one.
    fn status(&mut self, context: u32, at: u64, deadline: Instant) -> Result<Vec<(u32, u32)>, Error> {
        let during = "what its bitmap marks";
        self.cookie += 1;
        let step = STATUS_STEP.min(self.size - at) as u32;
        self.line.send(&wire::request(wire::CMD_BLOCK_STATUS, self.cookie, at, step), during)?;
        let mut answer = None;
        loop {
            let (chunk, data) = self.chunk(deadline, during)?;
            if chunk.cookie != self.cookie {
                return Err(Error::Protocol("an answer belongs to no question"));
            }
            match chunk.payload(&data)? {
                Payload::Status(id, ranges) if id == context && answer.is_none() => answer = Some(ranges),
                Payload::None => {}
                Payload::Error(number, text) => return Err(refused("to tell what is dirty", number, &text)),
                _ => return Err(Error::Protocol("an answer does not fit its question")),
            }
            if chunk.done {
                return answer.ok_or(Error::Protocol("a question for what is dirty had no answer"));
            }
        }
    }

    /// Reads ranges of at most 1 MiB each, several at a time. The data come in the order of `wanted`.
    pub fn reads<I: Iterator<Item = Range<u64>>>(self, wanted: I) -> Reads<I> {
        Reads { client: self, wanted, pending: VecDeque::new(), deadline: None, failed: false }
    }

    /// Receives the next part of an answer, with its data.
    fn chunk(&mut self, deadline: Instant, during: &'static str) -> Result<(Chunk, Vec<u8>), Error> {
        let mut head = [0; CHUNK_LEN];
        self.line.receive(&mut head, deadline, during)?;
        let chunk = Chunk::parse(&head)?;
        let limit = if chunk.is_status() { MAX_STATUS } else { MAX_READ + MAX_SMALL };
        if chunk.len > limit {
            return Err(Error::Protocol("a part of an answer is too long"));
        }
        let mut data = vec![0; chunk.len as usize];
        self.line.receive(&mut data, deadline, during)?;
        Ok((chunk, data))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The server also ends the connection if no goodbye comes. In the handshake none can be said.
        if self.size == 0 {
            return;
        }
        let _ = self.line.send(&wire::request(wire::CMD_DISCONNECT, 0, 0, 0), "its leave");
    }
}

/// Appends a dirty range, joined to the last one if they touch.
fn note(found: &mut Vec<Range<u64>>, range: Range<u64>) -> Result<(), Error> {
    if let Some(last) = found.last_mut()
        && last.end == range.start
    {
        last.end = range.end;
        return Ok(());
    }
    if found.len() == MAX_RANGES {
        return Err(Error::Protocol("its bitmap has too many ranges"));
    }
    found.push(range);
    Ok(())
}

fn refused(what: &str, number: u32, text: &str) -> Error {
    let error = io::Error::from_raw_os_error(number as i32);
    let why = if text.is_empty() { error.to_string() } else { format!("{error} ({text})") };
    Error::Refused { what: what.to_owned(), why }
}

/// A read whose answer has not come completely.
struct Pending {
    cookie: u64,
    range: Range<u64>,
    data: Vec<u8>,
    /// The ranges of its data that have come.
    parts: Vec<Range<u64>>,
    done: bool,
}

impl Pending {
    /// Notes that a part has come, and returns the range that it fills in `data`.
    fn part(&mut self, at: u64, len: u64) -> Result<Range<usize>, Error> {
        let part = at..at.saturating_add(len);
        let within = len > 0 && part.start >= self.range.start && part.end <= self.range.end;
        let twice = self.parts.iter().any(|p| p.start < part.end && part.start < p.end);
        if self.done || !within || twice || self.parts.len() == MAX_PARTS {
            return Err(Error::Protocol("it sends data that nobody asked for"));
        }
        self.parts.push(part.clone());
        Ok((part.start - self.range.start) as usize..(part.end - self.range.start) as usize)
    }

    fn end(&mut self) -> Result<(), Error> {
        let come: u64 = self.parts.iter().map(|p| p.end - p.start).sum();
        if come != self.range.end - self.range.start {
            return Err(Error::Protocol("an answer ends before all of its data has come"));
        }
        self.done = true;
        Ok(())
    }
}

/// The ranges that are being read; see [`Client::reads`]. The first error ends it.
pub struct Reads<I> {
    client: Client,
    wanted: I,
    pending: VecDeque<Pending>,
    /// The time by which the oldest read must be complete.
    deadline: Option<Instant>,
    failed: bool,
}

impl<I: Iterator<Item = Range<u64>>> Reads<I> {
    fn ask(&mut self) -> Result<(), Error> {
        while self.pending.len() < self.client.limits.in_flight.max(1) {
            let Some(range) = self.wanted.next() else { break };
            let len = range.end.saturating_sub(range.start);
            if len == 0 || len > MAX_READ.into() || range.end > self.client.size {
                return Err(Error::Protocol("internal error: an impossible range was to be read"));
            }
            if let Some(throttle) = &self.client.limits.throttle {
                throttle.take(len);
            }
            self.client.cookie += 1;
            let cookie = self.client.cookie;
            let ask = wire::request(wire::CMD_READ, cookie, range.start, len as u32);
            self.client.line.send(&ask, "data")?;
            let data = vec![0; len as usize];
            self.pending.push_back(Pending { cookie, range, data, parts: Vec::new(), done: false });
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            self.ask()?;
            let Some(first) = self.pending.front() else { return Ok(None) };
            if first.done {
                self.deadline = None;
                return Ok(self.pending.pop_front().map(|read| read.data));
            }
            // The time does not count from the request, as the throttle may have slept since.
            let deadline = *self.deadline.get_or_insert_with(|| self.client.line.deadline());
            let (chunk, data) = self.client.chunk(deadline, "data")?;
            let read = self.pending.iter_mut().find(|read| read.cookie == chunk.cookie && !read.done);
            let read = read.ok_or(Error::Protocol("an answer belongs to no question"))?;
            match chunk.payload(&data)? {
                Payload::Data(at, bytes) => {
                    let place = read.part(at, bytes.len() as u64)?;
                    read.data[place].copy_from_slice(bytes);
                }
                Payload::Hole(at, len) => {
                    read.part(at, len.into())?;
                }
                Payload::None => {}
                Payload::Error(number, text) => {
                    let what = format!("to read {} bytes at {}", read.data.len(), read.range.start);
                    return Err(refused(&what, number, &text));
                }
                Payload::Status(..) => return Err(Error::Protocol("an answer does not fit its question")),
            }
            if chunk.done {
                read.end()?;
            }
        }
    }
}

impl<I: Iterator<Item = Range<u64>>> Iterator for Reads<I> {
    type Item = Result<Vec<u8>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.step();
        self.failed = next.is_err();
        next.transpose()
    }
}

#[cfg(test)]
mod tests;
