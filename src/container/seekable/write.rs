//! Writing a zstd file with a seek table.

use std::io::{self, Write};

use super::{FOOTER_LEN, FOOTER_MAGIC, SIDE_MAGIC, TABLE_MAGIC, Tag};

/// Writes a zstd file with a seek table, frame by frame.
pub struct Writer<W: Write> {
    out: W,
    /// For each frame: its bytes in the file, and its bytes of content.
    table: Vec<(u32, u32)>,
}

impl<W: Write> Writer<W> {
    /// Starts a file.
    pub fn new(out: W) -> Writer<W> {
        Writer { out, table: Vec::new() }
    }

    /// Appends a complete zstd frame that holds `content` bytes.
    ///
    /// # Errors
    /// Fails where the output cannot be written.
    pub fn frame(&mut self, compressed: &[u8], content: usize) -> io::Result<()> {
        self.table.push((size32(compressed.len())?, size32(content)?));
        self.out.write_all(compressed)
    }

    /// Appends a side frame.
    ///
    /// # Errors
    /// Fails where the output cannot be written.
    pub fn side(&mut self, tag: Tag, payload: &[u8]) -> io::Result<()> {
        let len = size32(tag.len() + payload.len())?;
        self.table.push((size32(8 + tag.len() + payload.len())?, 0));
        self.out.write_all(&SIDE_MAGIC.to_le_bytes())?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&tag)?;
        self.out.write_all(payload)
    }

    /// Gives the output back, without a seek table.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// Writes the seek table; the file is complete then.
    ///
    /// # Errors
    /// Fails where the output cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        let mut t = Vec::with_capacity(17 + 8 * self.table.len());
        t.extend(TABLE_MAGIC.to_le_bytes());
        t.extend(size32(8 * self.table.len() + FOOTER_LEN as usize)?.to_le_bytes());
        for (compressed, content) in &self.table {
            t.extend(compressed.to_le_bytes());
            t.extend(content.to_le_bytes());
        }
        t.extend(size32(self.table.len())?.to_le_bytes());
        t.push(0);
        t.extend(FOOTER_MAGIC.to_le_bytes());
        self.out.write_all(&t)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

fn size32(n: usize) -> io::Result<u32> {
    u32::try_from(n).map_err(|_| io::Error::other("a zstd frame or table of 4 GiB or more cannot be written"))
}
