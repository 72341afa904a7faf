//! Joining a chain of deltas into one, without any of the files they are for.
//!
//! If A turns one file into a second and B turns that into a third, then wherever B copies from the second
//! file, A tells what stands there. So a copy of B is looked up in A and replaced by A's instructions for
//! that range: new bytes, runs, and copies from the first file. Copies within a window of B stay as they are,
//! hence also its windows and their checksums.

use super::{Error, Inst, Result, Window, WindowBuilder};
use crate::budget::Budget;

/// All instructions of a delta, by their position in its target. They take 32 bytes of memory each; all new bytes are in
/// memory too.
#[derive(Default)]
pub struct Whole {
    ops: Vec<Op>,
    adds: Vec<u8>,
    len: u64,
}

struct Op {
    target: u64,
    from: From,
}

#[derive(Clone, Copy)]
enum From {
    /// Offset in `adds`.
    Add(usize),
    Run(u8),
    /// Position in the source.
    Source(u64),
    /// Position in the target, before this instruction's.
    Target(u64),
}

/// How many steps look-ups may still take: a million, and some for each byte of the target. A copy of a copy of a copy costs
/// a step each time, so a hostile delta could ask for the square of its length.
#[derive(Debug)]
pub struct Steps(u64);

const STEPS_PER_BYTE: u64 = 16;

impl Default for Steps {
    fn default() -> Self {
        Steps(1 << 20)
    }
}

/// The longest source segment of a merged window, in bytes. Readers with sizes of 32 bits must be able to add a window to it.
const MAX_SPAN: u64 = u32::MAX as u64 - super::MAX_WINDOW as u64;

impl Whole {
    /// Begins without windows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the next window.
    ///
    /// # Errors
    /// Fails where instructions are malformed, and where the budget is spent.
    pub fn push(&mut self, window: &Window, budget: &mut Budget) -> Result<()> {
        let segment = window.source.map_or((0, 0), |s| (s.pos, s.len));
        let start = self.len;
        for inst in window.instructions() {
            let inst = inst?;
            match inst {
                Inst::Add { data } => {
                    self.op(From::Add(self.adds.len()), data.len(), budget)?;
                    budget.extend(&mut self.adds, data)?;
                }
                Inst::Run { byte, len } => self.op(From::Run(byte), len, budget)?,
                Inst::Copy { len, addr } => {
                    let outside = segment.1.saturating_sub(addr).min(len as u64) as usize;
                    self.op(From::Source(segment.0.saturating_add(addr)), outside, budget)?;
                    if outside < len {
                        let from = From::Target(start + (addr + outside as u64 - segment.1));
                        self.op(from, len - outside, budget)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn op(&mut self, from: From, len: usize, budget: &mut Budget) -> Result<()> {
        if len > 0 {
            budget.push(&mut self.ops, Op { target: self.len, from })?;
            self.len += len as u64;
        }
        Ok(())
    }

    /// Finds the instruction that writes the byte at `pos`.
    fn find(&self, pos: u64) -> Option<Found> {
        let after = self.ops.partition_point(|op| op.target <= pos);
        let op = self.ops.get(after.checked_sub(1)?)?;
        let end = self.ops.get(after).map_or(self.len, |next| next.target);
        (pos < end).then_some(Found { start: op.target, end, from: op.from })
    }
}

/// Describes `window` in `builder` by copies from the source of the first of the `earlier` deltas. Each of these makes the
/// source of the next one; the last one makes the source of `window`.
///
/// # Errors
/// Fails where instructions are malformed, copy from beyond what the earlier deltas make, or are nested too deeply, and where
/// the source segment would be longer than 4 GiB.
pub fn merge(
    window: &Window,
    earlier: &[Whole],
    builder: &mut WindowBuilder,
    Steps(steps): &mut Steps,
) -> Result<()> {
    let segment = window.source.map_or((0, 0), |s| (s.pos, s.len));
    *steps = steps.saturating_add(STEPS_PER_BYTE * window.target_len as u64);
    let mut pending = Vec::new();
    for inst in window.instructions() {
        match inst? {
            Inst::Add { data } => builder.add(data),
            Inst::Run { byte, len } => builder.run(byte, len),
            Inst::Copy { len, addr } => {
                let outside = segment.1.saturating_sub(addr).min(len as u64);
                if outside > 0 {
                    pending.push(Range {
                        level: earlier.len(),
                        pos: segment.0.saturating_add(addr),
                        len: outside,
                    });
                    resolve(&mut pending, earlier, builder, steps)
                        .map_err(|what| Error::BadInstruction { window: window.index, what })?;
                }
                if outside < len as u64 {
                    let from = (addr + outside - segment.1) as usize;
                    builder.copy_target(from, len - outside as usize);
                }
            }
        }
    }
    Ok(())
}

/// Bytes that are still to be described.
struct Range {
    /// They are bytes of the target of the last of so many earlier deltas; with 0, of the source of the first one.
    level: usize,
    /// Position of the first byte there.
    pos: u64,
    /// Number of bytes.
    len: u64,
}

/// An instruction that was found.
struct Found {
    /// Position in the target of the first byte that it writes.
    start: u64,
    /// Position behind the last byte that it writes.
    end: u64,
    from: From,
}

/// Describes all pending ranges, the last one first.
fn resolve(
    pending: &mut Vec<Range>,
    earlier: &[Whole],
    builder: &mut WindowBuilder,
    steps: &mut u64,
) -> Result<(), &'static str> {
    while let Some(Range { level, pos, len }) = pending.pop() {
        *steps = steps.checked_sub(1).ok_or("copies of copies are nested too deeply to merge")?;
        let Some(level) = level.checked_sub(1) else {
            if builder.span_with(pos, len) > MAX_SPAN {
                return Err("merged, it would copy from places more than 4 GiB apart");
            }
            if pos.checked_add(len).is_none_or(|end| end >= 1 << 63) {
                return Err("a copy lies beyond 2^63 bytes");
            }
            builder.copy_source(pos, len as usize);
            continue;
        };
        let whole = &earlier[level];
        let Found { start, end, from } =
            whole.find(pos).ok_or("it copies from beyond the target of the delta before it")?;
        let skipped = pos - start;
        let mut take = len.min(end - pos);
        match from {
            From::Target(source) => {
                // An overlapping copy repeats the bytes between its source and itself.
                let period = start - source;
                take = take.min(period - skipped % period);
                let rest = Range { level: level + 1, pos: pos + take, len: len - take };
                if take < len {
                    pending.push(rest);
                }
                pending.push(Range { level: level + 1, pos: source + skipped % period, len: take });
                continue;
            }
            From::Source(source) => {
                if take < len {
                    pending.push(Range { level: level + 1, pos: pos + take, len: len - take });
                }
                pending.push(Range { level, pos: source.saturating_add(skipped), len: take });
                continue;
            }
            From::Add(at) => builder.add(&whole.adds[at + skipped as usize..][..take as usize]),
            From::Run(byte) => builder.run(byte, take as usize),
        }
        if take < len {
            pending.push(Range { level: level + 1, pos: pos + take, len: len - take });
        }
    }
    Ok(())
}
