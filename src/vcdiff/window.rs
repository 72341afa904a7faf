//! One window: its instructions, and their application.

use std::io;

use super::address::Cache;
use super::codetable::{Half, Kind, TABLE};
use super::{Error, Result, varint};

/// The source segment: the part of the source that a window may copy from (RFC 3284 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Position of the first byte in the decompressed source.
    pub pos: u64,
    /// Number of bytes; `pos + len` does not overflow.
    pub len: u64,
}

/// One instruction of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inst<'a> {
    /// The target has new bytes here.
    Add {
        /// The bytes, at least one unless the encoder was wasteful.
        data: &'a [u8],
    },
    /// The target repeats one byte here.
    Run {
        /// The byte.
        byte: u8,
        /// How often it is repeated.
        len: usize,
    },
    /// The target copies bytes here.
    Copy {
        /// How many bytes.
        len: usize,
        /// Where they are in the window's address space, which is the source segment followed by the target window. A copy
        /// within the target may overlap what it writes (RFC 3284 section 3).
        addr: u64,
    },
}

impl Inst<'_> {
    /// Number of target bytes that it describes.
    pub fn len(&self) -> usize {
        match self {
            Inst::Add { data } => data.len(),
            Inst::Run { len, .. } | Inst::Copy { len, .. } => *len,
        }
    }

    /// Whether it describes no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a window was stored. Decoding needs nothing of it; listings show it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Delta indicator: which sections are compressed (bits 1, 2, 4).
    pub compressed: u8,
    /// The declared length of everything behind it, in bytes.
    pub len: u64,
    /// Lengths of the three sections as they are in the file.
    pub sections: [u64; 3],
}

/// A window as it was read: its sizes are checked and its sections are decompressed. Its instructions were not looked at yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// Number of the window, from 0.
    pub index: u64,
    /// Offset of its first byte in the target.
    pub target_pos: u64,
    /// Number of target bytes it describes.
    pub target_len: usize,
    /// The source segment, if it copies from the source.
    pub source: Option<Segment>,
    /// Adler-32 of the target bytes, if the encoder stored it. [`Window::apply`] checks what is here.
    pub adler32: Option<u32>,
    /// Bytes of ADDs and RUNs.
    pub data: Vec<u8>,
    /// Instructions and sizes.
    pub inst: Vec<u8>,
    /// Addresses of COPYs.
    pub addr: Vec<u8>,
    /// Its form in the file.
    pub stored: Stored,
}

impl Window {
    /// Iterates over the instructions in order. An error ends the iteration. If there is none, the instructions describe
    /// exactly [`target_len`](Window::target_len) bytes and use all bytes of the sections.
    pub fn instructions(&self) -> Instructions<'_> {
        let segment = self.source.map_or(0, |s| s.len);
        Instructions {
            window: self.index,
            data: &self.data,
            inst: &self.inst,
            addr: &self.addr,
            cache: Cache::new(),
            here: segment,
            // `Reader` keeps both small enough. A window made by hand whose sum overflows fails its checks.
            end: segment.saturating_add(self.target_len as u64),
            second: None,
            done: false,
        }
    }

    /// Rebuilds the window's target bytes in `out`, which then holds exactly these. What `out` held before does not matter; if
    /// it is used again, nothing is allocated or cleared.
    ///
    /// `source(pos, buf)` must fill `buf` with the source's bytes from `pos` on. It is called once for each COPY from the
    /// source segment, mostly with rising positions, so that what holds them need not be searched twice.
    ///
    /// # Errors
    /// Fails where instructions are malformed, `source` fails, or the Adler-32 differs. `out` is of no use then.
    pub fn apply(
        &self,
        source: &mut impl FnMut(u64, &mut [u8]) -> io::Result<()>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        self.apply_in(Order::Rising, source, out)
    }

    /// As [`Window::apply`], with the positions in this order.
    ///
    /// # Errors
    /// As [`Window::apply`].
    pub fn apply_in(
        &self,
        order: Order,
        source: &mut impl FnMut(u64, &mut [u8]) -> io::Result<()>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let segment = self.source.unwrap_or(Segment { pos: 0, len: 0 });
        // All of it will be overwritten. The system's zeros are cheaper than zeros that are written.
        match out.capacity() < self.target_len {
            true => *out = vec![0; self.target_len],
            false => out.resize(self.target_len, 0),
        }
        let mut copies = Copies { order, ..Copies::default() };
        let mut at = 0;
        for inst in self.instructions() {
            match inst? {
                Inst::Add { data } => {
                    out[at..][..data.len()].copy_from_slice(data);
                    at += data.len();
                }
                Inst::Run { byte, len } => {
                    out[at..][..len].fill(byte);
                    at += len;
                }
                Inst::Copy { len, addr } => {
                    // RFC 3284 allows a copy that runs from the source segment into the target. xdelta3 never writes one.
                    let outside = segment.len.saturating_sub(addr).min(len as u64) as usize;
                    if outside > 0 {
                        let pos = segment.pos.saturating_add(addr);
                        copies.source.push(SourceCopy { pos, at, len: outside });
                    }
                    if outside < len {
                        let from = (addr + outside as u64 - segment.len) as usize;
                        copies.target.push(TargetCopy { from, at: at + outside, len: len - outside });
                    }
                    at += len;
                    if copies.source.len() + copies.target.len() >= MAX_COPIES {
                        copies.make(self.index, source, out)?;
                    }
                }
            }
        }
        copies.make(self.index, source, out)?;
        match self.adler32.map(|expected| (expected, simd_adler32::adler32(&out.as_slice()))) {
            Some((expected, found)) if expected != found => {
                Err(Error::Checksum { window: self.index, expected, found })
            }
            _ => Ok(()),
        }
    }
}

/// The most copies that wait. They take some MiB of memory.
const MAX_COPIES: usize = 1 << 16;

/// The order of the positions that a window copies from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// From the front of the source to its end.
    #[default]
    Rising,
    /// From the end of the source to its front.
    Falling,
}

/// A copy from the source: from which position there, to which position of the window, and how many bytes. Copies are sorted
/// by the position in the source.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SourceCopy {
    pos: u64,
    at: usize,
    len: usize,
}

/// A copy within the window: from which position, to which position, and how many bytes.
struct TargetCopy {
    from: usize,
    at: usize,
    len: usize,
}

/// Copies of a window that wait until there are many of them, so that they can be made in a better order.
#[derive(Default)]
struct Copies {
    order: Order,
    /// Copies from the source. They depend on nothing, so they can be made in any order.
    source: Vec<SourceCopy>,
    /// Copies within the target. What they copy must be there already, so they keep their order.
    target: Vec<TargetCopy>,
}

impl Copies {
    fn make(
        &mut self,
        window: u64,
        source: &mut impl FnMut(u64, &mut [u8]) -> io::Result<()>,
        out: &mut [u8],
    ) -> Result<()> {
        self.source.sort_unstable();
        if self.order == Order::Falling {
            self.source.reverse();
        }
        for SourceCopy { pos, at, len } in self.source.drain(..) {
            source(pos, &mut out[at..][..len]).map_err(|source| Error::Base { window, pos, len, source })?;
        }
        self.target.drain(..).for_each(|copy| copy_overlapping(out, copy.from, copy.at, copy.len));
        Ok(())
    }
}

/// Copies `len` bytes from `from` to `to` (`from < to`) as if it did so byte by byte: where the two overlap, bytes repeat.
fn copy_overlapping(buf: &mut [u8], from: usize, to: usize, len: usize) {
    let mut done = 0;
    while done < len {
        // What is there from `from` on is a whole number of periods, so each step doubles it.
        let chunk = (to + done - from).min(len - done);
        buf.copy_within(from..from + chunk, to + done);
        done += chunk;
    }
}

/// Iterator over the instructions of a [`Window`].
#[derive(Clone)]
pub struct Instructions<'a> {
    window: u64,
    data: &'a [u8],
    inst: &'a [u8],
    addr: &'a [u8],
    cache: Cache,
    /// Address of the next target byte, and of the end of the window.
    here: u64,
    end: u64,
    /// The second instruction of the last opcode.
    second: Option<Half>,
    done: bool,
}

impl<'a> Instructions<'a> {
    fn half(&mut self, half: Half) -> Result<Inst<'a>, &'static str> {
        let size = match half.size {
            0 => varint::read(&mut self.inst).map_err(|_| "a size is cut or too large")?,
            size => size.into(),
        };
        if size > self.end - self.here {
            return Err("they describe more than the window");
        }
        // This fits, because it is not longer than the window, which is in memory.
        let len = size as usize;
        let inst = match half.kind {
            Kind::Add => {
                let (data, rest) = self.data.split_at_checked(len).ok_or("data is missing")?;
                self.data = rest;
                Inst::Add { data }
            }
            Kind::Run => {
                let (&byte, rest) = self.data.split_first().ok_or("data is missing")?;
                self.data = rest;
                Inst::Run { byte, len }
            }
            Kind::Copy(mode) => {
                let addr = self.cache.decode(mode, self.here, &mut self.addr)?;
                Inst::Copy { len, addr }
            }
            Kind::Noop => unreachable!("callers skip NOOPs"),
        };
        self.here += size;
        Ok(inst)
    }

    fn advance(&mut self) -> Result<Option<Inst<'a>>, &'static str> {
        if let Some(half) = self.second.take() {
            return self.half(half).map(Some);
        }
        Ok(self.opcode()?.map(|(_, inst)| inst))
    }

    /// Reads the next opcode and its first instruction.
    fn opcode(&mut self) -> Result<Option<(u8, Inst<'a>)>, &'static str> {
        let Some((&opcode, rest)) = self.inst.split_first() else {
            return match () {
                () if self.here != self.end => Err("they describe less than the window"),
                () if !self.data.is_empty() => Err("data is left over"),
                () if !self.addr.is_empty() => Err("addresses are left over"),
                () => Ok(None),
            };
        };
        self.inst = rest;
        // The default table has no entry that begins with a NOOP.
        let [first, second] = TABLE[usize::from(opcode)];
        self.second = (second.kind != Kind::Noop).then_some(second);
        Ok(Some((opcode, self.half(first)?)))
    }

    /// Reads the next opcode with its one or two instructions, for listings. It must not be mixed with `next`.
    pub(crate) fn next_opcode(&mut self) -> Result<Option<(u8, Inst<'a>, Option<Inst<'a>>)>> {
        let both = |this: &mut Self| {
            let Some((opcode, first)) = this.opcode()? else { return Ok(None) };
            let second = this.second.take().map(|half| this.half(half)).transpose()?;
            Ok(Some((opcode, first, second)))
        };
        both(self).map_err(|what| Error::BadInstruction { window: self.window, what })
    }

    /// How many bytes of instructions and of addresses were not used yet.
    pub(crate) fn remaining(&self) -> usize {
        self.inst.len() + self.addr.len()
    }
}

impl<'a> Iterator for Instructions<'a> {
    type Item = Result<Inst<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.advance();
        self.done = !matches!(next, Ok(Some(_)));
        next.map_err(|what| Error::BadInstruction { window: self.window, what }).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_copy_repeats_its_period() {
        for period in 1..10 {
            for len in [0, 1, 7, 9, 10, 100] {
                let mut bytes: Vec<u8> = (0..period as u8).collect();
                bytes.resize(period + len, 0xff);
                copy_overlapping(&mut bytes, 0, period, len);
                assert!(bytes.iter().enumerate().all(|(i, &b)| usize::from(b) == i % period), "{bytes:?}");
            }
        }
    }

    /// The worked example of RFC 3284 section 3, with the segment in the source.
    #[test]
    fn example_of_the_rfc() {
        let source = b"abcdefghijklmnop";
        let window = Window {
            target_len: 28,
            source: Some(Segment { pos: 0, len: 16 }),
            data: b"wxyzz".to_vec(),
            // COPY 4,0; ADD 4; COPY 4,4; COPY 12,24; RUN 4
            inst: vec![20, 5, 20, 19 + 9, 0, 4],
            addr: vec![0, 4, 24],
            ..Window::default()
        };
        let mut out = vec![1; 99];
        let mut read = |pos: u64, buf: &mut [u8]| {
            buf.copy_from_slice(&source[pos as usize..][..buf.len()]);
            Ok(())
        };
        window.apply(&mut read, &mut out).unwrap();
        assert_eq!(out, b"abcdwxyzefghefghefghefghzzzz");

        for (order, places) in [(Order::Rising, [0, 4]), (Order::Falling, [4, 0])] {
            let mut seen = Vec::new();
            let mut noted = |pos: u64, buf: &mut [u8]| {
                seen.push(pos);
                read(pos, buf)
            };
            out.fill(1);
            window.apply_in(order, &mut noted, &mut out).unwrap();
            assert_eq!(out, b"abcdwxyzefghefghefghefghzzzz");
            assert_eq!(seen, places);
        }
    }

    #[test]
    fn a_copy_may_run_from_the_segment_into_the_target() {
        let window = Window {
            target_len: 8,
            source: Some(Segment { pos: 10, len: 2 }),
            data: b"c".to_vec(),
            // ADD 1; COPY 7 bytes from address 0: the segment "ab", then the target "c", then itself.
            inst: vec![2, 19 + 4],
            addr: vec![0],
            ..Window::default()
        };
        let mut out = Vec::new();
        let mut read = |pos: u64, buf: &mut [u8]| {
            assert_eq!((pos, buf.len()), (10, 2));
            buf.copy_from_slice(b"ab");
            Ok(())
        };
        window.apply(&mut read, &mut out).unwrap();
        assert_eq!(out, b"cabcabca");
    }

    #[test]
    fn refuses_instructions_that_do_not_fit() {
        let base = Window { target_len: 3, data: b"abc".to_vec(), inst: vec![4], ..Window::default() };
        let what = |w: &Window| match w.apply(&mut |_, _| Ok(()), &mut Vec::new()) {
            Err(Error::BadInstruction { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert!(base.apply(&mut |_, _| Ok(()), &mut Vec::new()).is_ok());
        assert_eq!(what(&Window { target_len: 2, ..base.clone() }), "they describe more than the window");
        assert_eq!(what(&Window { target_len: 4, ..base.clone() }), "they describe less than the window");
        assert_eq!(what(&Window { data: b"ab".to_vec(), ..base.clone() }), "data is missing");
        assert_eq!(what(&Window { data: b"abcd".to_vec(), ..base.clone() }), "data is left over");
        assert_eq!(what(&Window { addr: vec![0], ..base.clone() }), "addresses are left over");
        assert_eq!(what(&Window { inst: vec![1, 0x83], ..base.clone() }), "a size is cut or too large");
        assert_eq!(what(&Window { inst: vec![19, 3], ..base.clone() }), "an address is cut or too large");
    }
}
