//! A zstd file without a seek table, or with one that is lost: one frame after the other.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, MAGICNUMBER, OutBuffer, get_error_name};

use super::{HELD, PART, Patient, Piece, Search, gap};
use crate::container::{ZSTD_WINDOW_LOG_MAX, read_full};

/// What looks like a frame and is none may cost that much decompressing, and that many times the file, before the search is
/// given up.
const EFFORT: u64 = 1 << 30;
const EFFORT_RATIO: u64 = 4;

/// Reads one frame after the other.
pub(super) struct Walk {
    file: Patient,
    search: Search,
    /// Where the next frame begins; none behind the last one that can be found.
    at: Option<u64>,
    effort: u64,
    /// The frame that is being handed out: its content was too long to be kept.
    current: Option<(Frame, Verdict)>,
    ready: VecDeque<Piece>,
}

/// What the first pass over a frame found.
struct Verdict {
    /// Bytes of content that could be read.
    content: u64,
    /// Where the frame ends in the file, or what is wrong with it.
    end: Result<u64, String>,
    /// All of the content, unless it is too long.
    bytes: Option<Vec<u8>>,
}

impl Walk {
    pub fn new(file: &File, search: Search) -> io::Result<Walk> {
        let file = Patient::new(file, 0)?;
        let effort = file.size().saturating_mul(EFFORT_RATIO).saturating_add(EFFORT);
        Ok(Walk { file, search, at: Some(0), effort, current: None, ready: VecDeque::new() })
    }

    /// Reads what begins at `at`: skippable frames, and the frame behind them.
    fn advance(&mut self, at: u64) -> io::Result<()> {
        let mut head = [0; 8];
        let n = read_full(&mut self.file.again(at)?, &mut head)?;
        self.at = None;
        if n == 0 {
            return Ok(());
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if n == head.len() && word(0) & 0xffff_fff0 == 0x184D_2A50 {
            let end = at + 8 + u64::from(word(4));
            if end <= self.file.size() {
                self.at = Some(end);
                return Ok(());
            }
        }
        let verdict = self.try_frame(at)?;
        match &verdict.end {
            Ok(end) => self.at = Some(*end),
            Err(_) => self.at = self.find(at + 1)?,
        }
        match (verdict.bytes, verdict.end) {
            (Some(bytes), end) => {
                let proved = end.is_ok();
                if !bytes.is_empty() {
                    self.ready.push_back(Piece::Bytes { bytes, proved });
                }
                self.ready.extend(end.err().map(|why| gap(None, why)));
            }
            (None, end) => {
                let verdict = Verdict { content: verdict.content, end, bytes: None };
                self.current = Some((Frame::begin(self.file.again(at)?)?, verdict));
            }
        }
        Ok(())
    }

    /// Reads a frame to its end, or up to the damage.
    fn try_frame(&self, at: u64) -> io::Result<Verdict> {
        let mut frame = Frame::begin(self.file.again(at)?)?;
        let mut verdict = Verdict { content: 0, end: Ok(0), bytes: Some(Vec::new()) };
        let mut part = vec![0; PART];
        loop {
            let (n, state) = frame.read(&mut part)?;
            verdict.content += n as u64;
            if let Some(bytes) = &mut verdict.bytes {
                bytes.extend_from_slice(&part[..n]);
                if bytes.len() > HELD {
                    verdict.bytes = None;
                }
            }
            match state {
                State::Within => {}
                State::Ended if frame.input.failed > 0 => {
                    verdict.end =
                        Err(format!("the disk cannot be read everywhere behind byte {at} of the file"));
                    return Ok(verdict);
                }
                State::Ended => {
                    verdict.end = Ok(frame.at());
                    return Ok(verdict);
                }
                State::Damaged(why) => {
                    verdict.end = Err(format!("the zstd frame at byte {at} of the file is damaged ({why})"));
                    return Ok(verdict);
                }
            }
        }
    }

    /// Finds the next whole frame at `from` or behind.
    fn find(&mut self, from: u64) -> io::Result<Option<u64>> {
        if self.search == Search::Certain {
            return Ok(None);
        }
        let mut input = self.file.again(from)?;
        let mut held = Vec::new();
        let mut part = vec![0; PART];
        loop {
            let n = read_full(&mut input, &mut part)?;
            if n == 0 {
                return Ok(None);
            }
            held.extend_from_slice(&part[..n]);
            let start = input.at() - held.len() as u64;
            let magic = MAGICNUMBER.to_le_bytes();
            for found in memchr::memmem::find_iter(&held, &magic) {
                let at = start + found as u64;
                let verdict = self.try_frame(at)?;
                if verdict.end.is_ok() {
                    return Ok(Some(at));
                }
                // Setting up the decompressor is not free either.
                let cost = verdict.content + 1024;
                self.effort = self.effort.saturating_sub(cost);
                if self.effort == 0 {
                    self.ready.push_back(gap(None, "too much behind it looks like zstd frames and is none"));
                    return Ok(None);
                }
            }
            held.drain(..held.len().saturating_sub(3));
        }
    }

    fn step(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if let Some((frame, verdict)) = &mut self.current {
                if verdict.content > 0 {
                    let mut bytes = vec![0; verdict.content.min(PART as u64) as usize];
                    let (n, _) = frame.read(&mut bytes)?;
                    if n == 0 {
                        return Err(io::Error::other("the file was changed while it was read"));
                    }
                    bytes.truncate(n);
                    verdict.content -= n as u64;
                    return Ok(Some(Piece::Bytes { bytes, proved: verdict.end.is_ok() }));
                }
                let why = self.current.take().and_then(|(_, verdict)| verdict.end.err());
                if let Some(why) = why {
                    return Ok(Some(gap(None, why)));
                }
            }
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            match self.at {
                Some(at) => self.advance(at)?,
                None => return Ok(None),
            }
        }
    }
}

impl Iterator for Walk {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// How reading a frame went on.
enum State {
    Within,
    Ended,
    Damaged(String),
}

/// A frame that is being decompressed.
struct Frame {
    zstd: DCtx<'static>,
    input: Patient,
    buffer: Vec<u8>,
    used: usize,
    ended: bool,
}

impl Frame {
    fn begin(input: Patient) -> io::Result<Frame> {
        let mut zstd = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        zstd.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))
            .map_err(|e| io::Error::other(get_error_name(e)))?;
        Ok(Frame { zstd, input, buffer: Vec::new(), used: 0, ended: false })
    }

    /// Position of the next byte of the file that was not used.
    fn at(&self) -> u64 {
        self.input.at() - (self.buffer.len() - self.used) as u64
    }

    /// Fills `out`, unless the frame ends before.
    fn read(&mut self, out: &mut [u8]) -> io::Result<(usize, State)> {
        let mut out = OutBuffer::around(out);
        while out.pos() < out.capacity() {
            if self.ended {
                return Ok((out.pos(), State::Ended));
            }
            let mut exhausted = false;
            if self.used == self.buffer.len() {
                self.buffer.resize(128 << 10, 0);
                let n = read_once(&mut self.input, &mut self.buffer)?;
                self.buffer.truncate(n);
                self.used = 0;
                exhausted = n == 0;
            }
            let before = out.pos();
            let mut input = InBuffer::around(&self.buffer[self.used..]);
            let next = self.zstd.decompress_stream(&mut out, &mut input);
            self.used += input.pos();
            match next {
                Ok(0) => self.ended = true,
                Ok(_) if exhausted && out.pos() == before => {
                    return Ok((out.pos(), State::Damaged("it has no end".into())));
                }
                Ok(_) => {}
                Err(error) => return Ok((out.pos(), State::Damaged(get_error_name(error).into()))),
            }
        }
        Ok((out.pos(), if self.ended { State::Ended } else { State::Within }))
    }
}

fn read_once(input: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
