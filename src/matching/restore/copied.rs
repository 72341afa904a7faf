//! Which extents of the base a window copies from.

use crate::container::Extent;
use crate::vcdiff::{Inst, Window};

/// Lists the extents of the base that a window copies from, in the order of its instructions, and at most the first `limit`
/// of them. A copy that begins no more than `near` bytes behind the last extent lengthens that one.
pub(super) fn copied(window: &Window, limit: usize, near: u64) -> Vec<Extent> {
    let source = window.source.map_or(Extent::default(), |s| Extent::new(s.pos, s.len));
    let mut extents: Vec<Extent> = Vec::new();
    // Where instructions are malformed, this shows when the window is applied.
    for inst in window.instructions().map_while(|inst| inst.ok()) {
        let Inst::Copy { len, addr } = inst else { continue };
        // Other copies are from within the window itself.
        let Some(rest) = source.len.checked_sub(addr).filter(|rest| *rest > 0) else { continue };
        let len = rest.min(len as u64);
        let pos = source.pos.saturating_add(addr);
        let full = extents.len() >= limit;
        match extents.last_mut() {
            Some(last) if pos >= last.pos && pos - last.pos <= last.len + near => {
                last.len = last.len.max(pos - last.pos + len)
            }
            _ if full => break,
            _ => extents.push(Extent::new(pos, len)),
        }
    }
    extents
}
