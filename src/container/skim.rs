//! Reading small parts of a file in order, without reading what lies between them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The fewest and the most bytes that are read at once. Where parts are far apart, hardly more is read than is wanted. Where
/// they are close to one another, many bytes are read, so that a file of nothing but tiny parts does not take a system call
/// for each of them.
const LEAST: usize = 64;
const MOST: usize = 64 << 10;

/// Reads parts of a file, in the order of their positions.
pub(super) struct Skim<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    /// Position of the buffer's first byte in the file.
    start: u64,
    /// How many bytes were read at once last.
    reach: usize,
}

impl<'a> Skim<'a> {
    pub fn new(file: &'a File) -> Self {
        Skim { file, buffer: Vec::new(), start: 0, reach: LEAST }
    }

    /// Fills `out` with the file's bytes from `at` on. The result is how many of them there are.
    pub fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let end = self.start + self.buffer.len() as u64;
        if at < self.start || at.saturating_add(out.len() as u64) > end {
            let near = at >= self.start && at.saturating_sub(end) <= self.reach as u64;
            self.reach = if near { (2 * self.reach).min(MOST) } else { LEAST };
            self.buffer.resize(self.reach.max(out.len()), 0);
            let n = read_full_at(self.file, &mut self.buffer, at)?;
            self.buffer.truncate(n);
            self.start = at;
        }
        let there = self.buffer.get((at - self.start) as usize..).unwrap_or_default();
        let n = there.len().min(out.len());
        out[..n].copy_from_slice(&there[..n]);
        Ok(n)
    }
}

/// Fills `buf` with the file's bytes from `at` on. The result is how many of them there are.
pub(super) fn read_full_at(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match file.read_at(&mut buf[filled..], at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_read_is_what_is_there() {
        let content: Vec<u8> = (0..300_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        for step in [1, 3, 61, 1000, 70_000] {
            let mut skim = Skim::new(&file);
            for at in (0..content.len() + 10).step_by(step) {
                let mut part = [0; 12];
                let n = skim.read_at(at as u64, &mut part).unwrap();
                let right = &content[at.min(content.len())..(at + 12).min(content.len())];
                assert_eq!(part[..n], *right, "{at}");
            }
            assert!(skim.buffer.len() <= MOST);
        }
    }
}
