//! Finding the headers of a tar archive, so that pieces begin and end where its members do.
//!
//! A new backup may list the same files in another order, or with changed headers (access times). Most files are small.
//! Where a file is cut at its first and its last byte, it is found again all the same.

use std::ops::Range;

use crate::tar::{self, BLOCK};

/// A member with at most so many bytes of content is not cut from its header: that many pieces would make the map large.
const SMALL: u64 = 2 << 10;
/// The most bytes that the headers of one member take together (extended attributes and long names have headers of their
/// own). Whatever takes more is no tar archive.
const MAX_HEADERS: usize = 64 << 10;

/// Finds the headers of every member whose content is not small. The result is ranges of `data`, in order. Data that is no
/// tar archive has none; bytes that merely look like a header do no harm.
///
/// `start` is the position of `data` in the stream, from which the alignment follows.
pub fn headers(start: u64, data: &[u8]) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut at = start.wrapping_neg() as usize % BLOCK;
    while at + BLOCK <= data.len() {
        match member(&data[at..]) {
            Some((headers, content)) => {
                if content > SMALL {
                    all.push(at..at + headers);
                }
                at += headers;
            }
            None => at += BLOCK,
        }
    }
    all
}

/// Reads the headers of the member at the front of `data`: their length together, and the length of the content behind
/// them, in bytes. The result is `None` where there is no header.
fn member(data: &[u8]) -> Option<(usize, u64)> {
    let mut len = 0;
    loop {
        let (kind, size) = header(data.get(len..)?)?;
        len += BLOCK;
        if !matches!(kind, b'x' | b'g' | b'L' | b'K') {
            return Some((len, size));
        }
        // This one precedes the member's own header.
        len += usize::try_from(size).ok()?.checked_next_multiple_of(BLOCK)?;
        if len > MAX_HEADERS {
            return None;
        }
    }
}

/// Reads kind and size from the header at the front of `data`.
fn header(data: &[u8]) -> Option<(u8, u64)> {
    let block = data.first_chunk().filter(|block| tar::begins(&block[..]))?;
    Some((tar::kind(block), tar::size(block)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u8, size: usize) -> Vec<u8> {
        let mut all = vec![0; BLOCK];
        all[..4].copy_from_slice(b"name");
        all[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        all[156] = kind;
        all[257..262].copy_from_slice(b"ustar");
        all.resize(BLOCK + size.next_multiple_of(BLOCK), b'.');
        all
    }

    #[test]
    fn members_are_found() {
        let parts =
            [entry(b'0', 5000), entry(b'0', 100), entry(b'x', 600), entry(b'0', 3000), entry(b'5', 0)];
        let tar = parts.concat();
        let big = BLOCK + 5120;
        let long = big + 1024;
        let found = [0..BLOCK, long..long + BLOCK + 1024 + BLOCK];
        assert_eq!(headers(0, &tar), found);
        // From somewhere within a content on, at any place.
        let all = long - 1000..long - 1000 + 2048;
        assert_eq!(headers(1000, &tar[1000..]), std::slice::from_ref(&all));
        assert_eq!(headers(1, &tar), []);
        for cut in 0..tar.len() {
            assert!(headers(0, &tar[..cut]).iter().all(|h| h.end <= cut));
        }
    }

    #[test]
    fn what_is_no_archive_has_none() {
        let mut wild = entry(b'x', 100_000);
        wild[124..136].fill(b'7');
        assert_eq!(headers(0, &wild), []);
        assert_eq!(headers(0, &[0; 5000]), []);
        assert_eq!(headers(0, b"ustar"), []);
    }
}
