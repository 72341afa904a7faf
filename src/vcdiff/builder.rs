//! Encoding windows (RFC 3284 sections 4.2 and 4.3).

use super::address::Cache;
use super::codetable::{self, PAIR_ADD_MAX};
use super::reader::{WIN_ADLER32, WIN_SOURCE};
use super::secondary::{self, Section};
use super::{MAX_WINDOW, Segment, Window, varint};

/// Collects the instructions of one window and encodes them.
///
/// Copies are given in positions of the source and of the window. The source segment reaches from the first to the last
/// source byte that the window copies, so addresses are known only when the window is finished. Until then an instruction
/// takes 16 bytes in a vector. Use one builder for all windows, because it keeps its memory.
///
/// Neighbouring ADDs, RUNs of the same byte, and copies that continue one another become one instruction,
/// so callers may describe a window in as small pieces as they like.
#[derive(Default)]
pub struct WindowBuilder {
    ops: Vec<Op>,
    data: Vec<u8>,
    target_len: usize,
    /// Positions of the first source byte that is copied, and behind the last one.
    span: Option<(u64, u64)>,
    // Scratch for `finish`.
    inst: Vec<u8>,
    addr: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Op {
    /// [`ADD`], [`RUN`], or the position that is copied from: in the window where [`TARGET`] is set, else in the source.
    pos: u64,
    /// Length in bytes, at most [`MAX_WINDOW`].
    len: u32,
}

const TARGET: u64 = 1 << 63;
const ADD: u64 = u64::MAX;
const RUN: u64 = u64::MAX - 1;

impl WindowBuilder {
    /// Begins an empty window.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of target bytes that are described so far.
    pub fn target_len(&self) -> usize {
        self.target_len
    }

    /// Whether nothing is described yet.
    pub fn is_empty(&self) -> bool {
        self.target_len == 0
    }

    /// Computes how many bytes the source segment would have with these bytes of the source in it too. If that is more than
    /// [`MAX_SEGMENT`](super::MAX_SEGMENT), finish the window first.
    #[inline]
    pub fn span_with(&self, pos: u64, len: u64) -> u64 {
        let (start, end) = self.span.unwrap_or((pos, pos));
        end.max(pos.saturating_add(len)) - start.min(pos)
    }

    /// Describes new bytes.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.push(ADD, bytes.len(), |_| true);
    }

    /// Describes `len` times `byte`.
    #[inline]
    pub fn run(&mut self, byte: u8, len: usize) {
        if len == 0 {
            return;
        }
        // A RUN has one byte of data, which is the last one if the last instruction is a RUN.
        let same = self.data.last() == Some(&byte);
        let before = self.ops.len();
        self.push(RUN, len, |_| same);
        if self.ops.len() > before {
            self.data.push(byte);
        }
    }

    /// Describes a copy of `len` bytes of the source from position `pos` on.
    ///
    /// # Panics
    /// If `pos + len` is 2^63 or more.
    #[inline]
    pub fn copy_source(&mut self, pos: u64, len: usize) {
        if len == 0 {
            return;
        }
        let end = pos.checked_add(len as u64).filter(|end| *end < TARGET).expect("source position in range");
        let (first, last) = self.span.unwrap_or((pos, end));
        self.span = Some((first.min(pos), last.max(end)));
        self.push(pos, len, |last| last.pos + u64::from(last.len) == pos);
    }

    /// Describes a copy of `len` bytes of this window from position `pos` on, which must be described already. The copy may
    /// overlap what it writes.
    ///
    /// # Panics
    /// If `pos` is not described yet.
    #[inline]
    pub fn copy_target(&mut self, pos: usize, len: usize) {
        assert!(pos < self.target_len, "a window copies from its own future");
        self.push(pos as u64 | TARGET, len, |last| last.pos + u64::from(last.len) == pos as u64 | TARGET);
    }

    /// Appends an instruction, or lengthens the last one if that is of the same kind and `continues` it.
    #[inline]
    fn push(&mut self, pos: u64, len: usize, continues: impl FnOnce(&Op) -> bool) {
        assert!(len <= MAX_WINDOW - self.target_len, "a window is longer than MAX_WINDOW");
        if len == 0 {
            return;
        }
        self.target_len += len;
        let kind = |pos: u64| if pos >= RUN { pos } else { pos & TARGET };
        match self.ops.last_mut() {
            Some(last) if kind(last.pos) == kind(pos) && continues(last) => last.len += len as u32,
            _ => self.ops.push(Op { pos, len: len as u32 }),
        }
    }

    /// Appends the encoded window to `out` and starts the next one. `adler32` is that of the target bytes.
    pub fn finish(&mut self, adler32: Option<u32>, out: &mut Vec<u8>) {
        self.finish_with(adler32, None, out);
    }

    /// [`finish`](Self::finish) with secondary compression, which the file header must name.
    pub fn finish_with(
        &mut self,
        adler32: Option<u32>,
        secondary: Option<&mut secondary::Encoder>,
        out: &mut Vec<u8>,
    ) {
        self.encode_instructions();
        let source = self.span.map(|(start, end)| Segment { pos: start, len: end - start });
        let sections = [&mut self.data, &mut self.inst, &mut self.addr];
        write_window(source, self.target_len, adler32, sections, secondary, out);
        self.data.clear();
        self.inst.clear();
        self.addr.clear();
        self.ops.clear();
        self.target_len = 0;
        self.span = None;
    }

    fn encode_instructions(&mut self) {
        /// What the last opcode can still be joined with.
        enum Last {
            Add(u8),
            Copy4 { mode: u8 },
            Done,
        }
        let (start, end) = self.span.unwrap_or((0, 0));
        let (inst, addr) = (&mut self.inst, &mut self.addr);
        let segment = end - start;
        let mut cache = Cache::new();
        let mut here = segment;
        let mut last = Last::Done;
        for op in &self.ops {
            let len = op.len as usize;
            last = match op.pos {
                ADD => match last {
                    Last::Copy4 { mode } if len == 1 => {
                        *inst.last_mut().expect("COPY before") = codetable::copy_add_opcode(mode);
                        Last::Done
                    }
                    _ => {
                        push_sized(inst, codetable::add_opcode(len), op.len);
                        if len <= PAIR_ADD_MAX.into() { Last::Add(len as u8) } else { Last::Done }
                    }
                },
                RUN => {
                    push_sized(inst, (codetable::RUN, true), op.len);
                    Last::Done
                }
                pos => {
                    let address = if pos & TARGET == 0 { pos - start } else { segment + (pos & !TARGET) };
                    let mode = cache.encode(address, here, addr);
                    let pair = match last {
                        Last::Add(added) => codetable::add_copy_opcode(added, mode, len),
                        _ => None,
                    };
                    match pair {
                        Some(opcode) => {
                            *inst.last_mut().expect("ADD before") = opcode;
                            Last::Done
                        }
                        None => {
                            push_sized(inst, codetable::copy_opcode(mode, len), op.len);
                            if len == 4 { Last::Copy4 { mode } } else { Last::Done }
                        }
                    }
                }
            };
            here += u64::from(op.len);
        }
    }
}

impl Window {
    /// Appends the encoded form of the window to `out`. Its sections are compressed anew with `secondary`, which the file
    /// header must name.
    pub fn encode(&self, secondary: Option<&mut secondary::Encoder>, out: &mut Vec<u8>) {
        let [mut data, mut inst, mut addr] = [&self.data, &self.inst, &self.addr].map(Vec::clone);
        let sections = [&mut data, &mut inst, &mut addr];
        write_window(self.source, self.target_len, self.adler32, sections, secondary, out);
    }
}

/// Appends a window to `out` (RFC 3284 sections 4.2 and 4.3). Sections that get compressed are replaced by their compressed
/// form.
fn write_window(
    source: Option<Segment>,
    target_len: usize,
    adler32: Option<u32>,
    mut sections: [&mut Vec<u8>; 3],
    secondary: Option<&mut secondary::Encoder>,
    out: &mut Vec<u8>,
) {
    let mut compressed = 0;
    if let Some(encoder) = secondary {
        for (section, bytes) in Section::ALL.into_iter().zip(&mut sections) {
            if let Some(smaller) = encoder.encode(section, bytes) {
                **bytes = smaller;
                compressed |= section.bit();
            }
        }
    }
    let lens = sections.each_ref().map(|s| s.len() as u64);
    let checksum = if adler32.is_some() { 4 } else { 0 };
    let sizes: usize = lens.iter().map(|&len| varint::len(len)).sum();
    let len = (varint::len(target_len as u64) + 1 + sizes + checksum) as u64 + lens.iter().sum::<u64>();

    out.push(if source.is_some() { WIN_SOURCE } else { 0 } | if adler32.is_some() { WIN_ADLER32 } else { 0 });
    if let Some(segment) = source {
        varint::write(out, segment.len);
        varint::write(out, segment.pos);
    }
    varint::write(out, len);
    out.reserve(len as usize);
    varint::write(out, target_len as u64);
    out.push(compressed);
    lens.iter().for_each(|&len| varint::write(out, len));
    out.extend(adler32.iter().flat_map(|a| a.to_be_bytes()));
    sections.iter().for_each(|section| out.extend_from_slice(section));
}

#[inline]
fn push_sized(inst: &mut Vec<u8>, (opcode, size_follows): (u8, bool), size: u32) {
    inst.push(opcode);
    if size_follows {
        varint::write(inst, size.into());
    }
}
