//! Joining a chain of deltas into one, without any of the files they are for.
//!
//! If A turns one file into a second and B turns that into a third, then wherever B copies from the second
//! file, A tells what stands there. So a copy of B is looked up in A and replaced by A's instructions for
//! that range: new bytes, runs, and copies from the first file. Copies within a window of B stay as they are,
//! hence also its windows and their checksums.

use super::{Error, Inst, Result, Window, WindowBuilder};
use crate::budget::Budget;

/// All instructions of a delta by position in its target. In memory: 32 bytes each, and all new bytes.
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

/// Steps that look-ups may take: so many at first, and some for each byte of the target. Copies of copies of copies cost
/// a step each, so a hostile delta could ask for the square of its length.
#[derive(Debug)]
pub struct Steps(u64);

const STEPS_PER_BYTE: u64 = 16;

impl Default for Steps {
    fn default() -> Self {
        Steps(1 << 20)
    }
}

/// Longest segment of a merged window: readers with 32-bit sizes must be able to add a window to it.
const MAX_SPAN: u64 = u32::MAX as u64 - super::MAX_WINDOW as u64;

impl Whole {
    /// Of no windows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the next window.
    ///
    /// # Errors
    /// Malformed instructions, and more of them than the budget has room for.
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

    /// The instruction that writes the byte at `pos`: its position, its end, and what it does.
    fn find(&self, pos: u64) -> Option<(u64, u64, From)> {
        let after = self.ops.partition_point(|op| op.target <= pos);
        let op = self.ops.get(after.checked_sub(1)?)?;
        let end = self.ops.get(after).map_or(self.len, |next| next.target);
        (pos < end).then_some((op.target, end, op.from))
    }
}

/// Describes `window` in `builder` in terms of the first of the `earlier` deltas' source. Each of them makes
/// the source of the next one, the last that of `window`.
///
/// # Errors
/// Malformed instructions, copies from beyond what the earlier deltas make, a segment over 4 GiB, and
/// copies nested too deeply.
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
                    pending.push((earlier.len(), segment.0.saturating_add(addr), outside));
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

/// Works off a stack of ranges: (number of earlier deltas left, position in the source of what follows, length).
fn resolve(
    pending: &mut Vec<(usize, u64, u64)>,
    earlier: &[Whole],
    builder: &mut WindowBuilder,
    steps: &mut u64,
) -> Result<(), &'static str> {
    while let Some((level, pos, len)) = pending.pop() {
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
        let (start, end, from) =
            whole.find(pos).ok_or("it copies from beyond the target of the delta before it")?;
        let skipped = pos - start;
        let mut take = len.min(end - pos);
        match from {
            From::Target(source) => {
                // An overlapping copy repeats the bytes between its source and itself.
                let period = start - source;
                take = take.min(period - skipped % period);
                if take < len {
                    pending.push((level + 1, pos + take, len - take));
                }
                pending.push((level + 1, source + skipped % period, take));
                continue;
            }
            From::Source(source) => {
                if take < len {
                    pending.push((level + 1, pos + take, len - take));
                }
                pending.push((level, source.saturating_add(skipped), take));
                continue;
            }
            From::Add(at) => builder.add(&whole.adds[at + skipped as usize..][..take as usize]),
            From::Run(byte) => builder.run(byte, take as usize),
        }
        if take < len {
            pending.push((level + 1, pos + take, len - take));
        }
    }
    Ok(())
}
