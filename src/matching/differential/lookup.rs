//! Looking up the pieces of a segment in the index of the base.

use super::candidates::MAX_REFERENCE;
use super::context::Context;
use super::stretch::{Origin, Reach, Stretch};
use crate::container::Extent;
use crate::matching::chunker::{Piece, PieceKind, Pieces, Segment};
use crate::matching::map::{Cursor, Index, Match};
use crate::vma::EXTENT_FRONT;

/// What was found of a segment.
pub(super) struct Lookup {
    /// The stretches of the segment, in order. They cover all of it.
    pub stretches: Vec<Stretch>,
    /// The Adler-32 of the segment. It is computed on the way, while the pieces are in the processor's cache.
    pub adler32: u32,
    /// The reach, less what was found before the part of the base that can be read.
    pub reach: Reach,
}

/// Looks up each piece of a segment, and joins pieces to stretches where they are neighbours in the base too.
pub(super) fn look_up(context: &Context, segment: &Segment, index: &Index, mut reach: Reach) -> Lookup {
    let mut finder = Finder { context, segment, cursor: index.cursor() };
    let mut all: Vec<Stretch> = Vec::new();
    let mut pieces = segment.pieces();
    let mut adler = simd_adler32::Adler32::new();
    while let Some((piece, found)) = finder.next(&mut pieces) {
        let found = found.filter(|found| take(&mut reach, found));
        adler.write(&segment.data[piece.at..piece.at + piece.len]);
        if let Some(Match { at, equal: true, headed: true, .. }) = found
            && let Some(Stretch { origin: Origin::Front(base), .. }) = all.last_mut()
        {
            *base = at.checked_sub(EXTENT_FRONT as u64).filter(|front| *front >= reach.readable_from);
        }
        let origin = match found {
            None if piece.kind == PieceKind::Front => Origin::Front(None),
            None if piece.kind == PieceKind::Clusters => Origin::Fresh,
            Some(Match { at, equal: true, .. }) => Origin::Equal(at),
            Some(Match { at, len, .. }) => Origin::Changed(Some(Extent::new(at, len as u64))),
            None => Origin::Changed(None),
        };
        let stretch = Stretch { at: piece.at, len: piece.len, origin };
        if !all.last_mut().is_some_and(|last| join(last, stretch)) {
            all.push(stretch);
        }
    }
    Lookup { stretches: all, adler32: adler.finish(), reach }
}

/// Whether a match can be copied. An equal piece before the part of the base that can be read uses up what may be copied
/// from there.
fn take(reach: &mut Reach, found: &Match) -> bool {
    if found.at < reach.readable_from && found.equal {
        let Some(left) = reach.copyable.checked_sub(found.len as u64) else { return false };
        reach.copyable = left;
    }
    true
}

/// Lengthens `last` by `next`, which follows it in the segment, if their origins follow one another too.
fn join(last: &mut Stretch, next: Stretch) -> bool {
    let joins = match (&mut last.origin, next.origin) {
        (Origin::Equal(from), Origin::Equal(next)) => *from + last.len as u64 == next,
        (Origin::Changed(Some(old)), Origin::Changed(Some(next)))
            if old.end() == next.pos && old.len < MAX_REFERENCE =>
        {
            old.len += next.len;
            true
        }
        (Origin::Changed(None), Origin::Changed(None)) => true,
        _ => false,
    };
    if joins {
        debug_assert_eq!(last.end(), next.at);
        last.len += next.len;
    }
    joins
}

/// Cuts pieces off a segment and finds them in the base.
struct Finder<'a> {
    context: &'a Context,
    segment: &'a Segment,
    cursor: Cursor<'a>,
}

impl Finder<'_> {
    /// Cuts the next piece off, and finds it.
    fn next(&mut self, pieces: &mut Pieces<'_>) -> Option<(Piece, Option<Match>)> {
        let Finder { context, segment, cursor } = self;
        let fingerprint =
            |piece: &Piece| context.secret.fingerprint(&segment.data[piece.at..piece.at + piece.len]);
        if let Some(guess) = pieces.guess(|| context.found(cursor.following_len()))
            && let Some(found) = context.found(cursor.find_next(&guess, fingerprint(&guess)))
        {
            pieces.accept(guess);
            return Some((guess, Some(found)));
        }
        let piece = pieces.next()?;
        let found = match piece.has_fingerprint() {
            true => context.found(cursor.find(&piece, fingerprint(&piece))),
            false => None,
        };
        Some((piece, found))
    }
}
