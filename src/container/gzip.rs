//! Writing gzip (RFC 1952, RFC 1951) with several threads.
//!
//! The stream is cut into blocks of 128 to 512 KiB. Each block is compressed alone, but with the 32 KiB before it as a
//! dictionary, so that little is lost. It ends at the end of a byte, with an empty stored block. All blocks together are one
//! ordinary deflate stream, which any reader of gzip reads. The output does not depend on the number of threads.
//!
//! The content decides where a block ends. So behind an insertion the stream is soon cut at the same places again, and the
//! same bytes are written, as with `gzip --rsyncable`, which vzdump uses.

use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress};

use super::blocks::{Block, Blocks};

/// How many bytes deflate can copy from further back (RFC 1951 section 2).
const DICTIONARY: usize = 32 << 10;
/// The library's level that is used for level 1. The library's own level 1 is twice as fast as `gzip -1`, but its output is a
/// fifth larger. This one is faster than `gzip -1`, and its output is no larger.
const LEAST_LEVEL: u32 = 2;
/// The shortest and the longest block, in bytes.
const MIN_BLOCK: usize = 128 << 10;
const MAX_BLOCK: usize = 512 << 10;
/// The most bytes that a block can take when it is compressed.
const ROOM: usize = MAX_BLOCK + MAX_BLOCK / 8 + 1024;
/// Behind the shortest length, one position in so many ends a block, on average.
const PLACES: u64 = 128 << 10;
/// So many bytes decide whether a block ends behind them. The hash shifts by one bit for each byte, so older bytes leave it.
const REACH: usize = 64;

/// The last block: empty, with fixed codes (RFC 1951 section 3.2.6).
const END: [u8; 2] = [3, 0];

/// Compresses to gzip.
///
/// Memory is bounded by about 3 MiB for each thread. Only [`Writer::finish`] makes the file complete. If the writer is
/// dropped before, every reader refuses the file.
pub struct Writer<W: Write> {
    blocks: Blocks<W, Job>,
    level: Compression,
    block: Vec<u8>,
    /// How many bytes of the block were searched for its end, and the hash of the last ones.
    looked: usize,
    hash: u64,
    dictionary: Vec<u8>,
    crc: Crc,
}

/// A block to compress.
struct Job {
    content: Vec<u8>,
    dictionary: Vec<u8>,
    level: Compression,
    packed: Vec<u8>,
    crc: Crc,
}

impl Block for Job {
    fn pack(&mut self) {
        self.crc.reset();
        self.crc.update(&self.content);
        // It is a new one each time: the output of one that was reset would differ in some bytes.
        let mut deflate = Compress::new(self.level, false);
        // Deflate without a header accepts a dictionary before the first byte; neither call can fail otherwise.
        deflate.set_dictionary(&self.dictionary).expect("a dictionary at the start");
        self.packed.clear();
        // There is room for all of it even if nothing shrinks, because the output depends on where deflate has to stop.
        self.packed.reserve(ROOM);
        let mut done = false;
        while !done {
            let rest = &self.content[deflate.total_in() as usize..];
            deflate.compress_vec(rest, &mut self.packed, FlushCompress::Sync).expect("deflate to memory");
            done = self.packed.len() < self.packed.capacity();
            self.packed.reserve(1024);
        }
    }

    fn packed(&self) -> &[u8] {
        &self.packed
    }
}

impl<W: Write> Writer<W> {
    /// Compresses into `sink` at a level from 1 to 9, with `threads` threads. With 0 or 1 it is the caller's own.
    pub fn new(sink: W, level: u32, threads: usize) -> Self {
        // The header: no name, no time, the effort (4 for fastest, 2 for best), made on Unix (RFC 1952 section 2.3).
        let effort = match level {
            1 => 4,
            9 => 2,
            _ => 0,
        };
        let header = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, effort, 3];
        Writer {
            blocks: Blocks::new(sink, header, threads),
            level: Compression::new(level.max(LEAST_LEVEL)),
            block: Vec::with_capacity(MAX_BLOCK),
            looked: 0,
            hash: 0,
            dictionary: Vec::new(),
            crc: Crc::new(),
        }
    }

    /// Writes the end mark, flushes the sink and returns it.
    ///
    /// # Errors
    /// Fails where the sink cannot be written. The file is incomplete then.
    pub fn finish(mut self) -> io::Result<W> {
        self.submit()?;
        let crc = &mut self.crc;
        self.blocks.drain(0, |job| crc.combine(&job.crc))?;
        // RFC 1952 wants the length modulo 2^32, which is how `Crc` counts it.
        let trailer = [&END[..], &self.crc.sum().to_le_bytes(), &self.crc.amount().to_le_bytes()].concat();
        self.blocks.put(|sink| sink.write_all(&trailer).and_then(|()| sink.flush()))?;
        Ok(self.blocks.into_sink())
    }

    /// Passes the collected block to the workers.
    fn submit(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let mut job = self.blocks.free_block().unwrap_or_else(|| Job {
            content: Vec::with_capacity(MAX_BLOCK),
            dictionary: Vec::with_capacity(DICTIONARY),
            level: self.level,
            packed: Vec::new(),
            crc: Crc::new(),
        });
        std::mem::swap(&mut job.content, &mut self.block);
        std::mem::swap(&mut job.dictionary, &mut self.dictionary);
        self.block.clear();
        self.dictionary.clear();
        // Only the last block, or one before a flush, is shorter than that.
        let tail = job.content.len().saturating_sub(DICTIONARY);
        self.dictionary.extend_from_slice(&job.content[tail..]);
        (self.looked, self.hash) = (0, 0);
        let crc = &mut self.crc;
        self.blocks.submit(job, |job| crc.combine(&job.crc))
    }

    /// Looks on for the end of the block; where it is among the bytes that are there.
    fn end(&mut self) -> Option<usize> {
        let from = self.looked.max(MIN_BLOCK - REACH);
        for (n, &byte) in self.block.iter().enumerate().skip(from) {
            // Every bit of a byte moves up and out within REACH steps, so only the last REACH bytes count.
            self.hash =
                (self.hash << 1).wrapping_add((u64::from(byte) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            if n + 1 >= MIN_BLOCK && self.hash < u64::MAX / PLACES {
                return Some(n + 1);
            }
        }
        self.looked = self.block.len();
        (self.block.len() == MAX_BLOCK).then_some(MAX_BLOCK)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.blocks.is_broken() {
            self.blocks.put(|_| Ok(()))?;
        }
        let before = self.block.len();
        let count = data.len().min(MAX_BLOCK - before);
        self.block.extend_from_slice(&data[..count]);
        match self.end() {
            Some(end) => {
                self.block.truncate(end);
                self.submit()?;
                Ok(end - before)
            }
            None => Ok(count),
        }
    }

    /// Writes all data given so far, if need be as a short block, and flushes the sink.
    fn flush(&mut self) -> io::Result<()> {
        self.submit()?;
        let crc = &mut self.crc;
        self.blocks.drain(0, |job| crc.combine(&job.crc))?;
        self.blocks.put(Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use flate2::read::GzDecoder;

    use super::*;

    fn packed(data: &[u8], level: u32, threads: usize) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), level, threads);
        writer.write_all(data).unwrap();
        writer.finish().unwrap()
    }

    /// One member, and nothing behind it.
    fn unpacked(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut decoder = GzDecoder::new(packed);
        let mut out = Vec::new();
        decoder.read_to_end(&mut out)?;
        assert!(decoder.into_inner().is_empty(), "bytes behind the end");
        Ok(out)
    }

    /// Words, then noise, then a run.
    fn content() -> Vec<u8> {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 12
        };
        let mut data: Vec<u8> =
            (0..400_000).flat_map(|_| format!("word{} ", random() % 5000).into_bytes()).collect();
        data.extend((0..600_000).map(|_| random() as u8));
        data.resize(data.len() + 1_500_000, 0);
        data
    }

    #[test]
    fn every_length_comes_back() {
        let data = content();
        let lens = [0, 1, MIN_BLOCK - 1, MIN_BLOCK, MIN_BLOCK + 1, MAX_BLOCK, 3 * MAX_BLOCK + 7, data.len()];
        for len in lens {
            for threads in [1, 3] {
                assert!(
                    unpacked(&packed(&data[..len], 6, threads)).unwrap() == data[..len],
                    "{len} {threads}"
                );
            }
        }
        for level in 1..=9 {
            assert!(unpacked(&packed(&data, level, 2)).unwrap() == data, "level {level}");
        }
    }

    #[test]
    fn programs_read_it() {
        let data = content();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.gz");
        std::fs::write(&path, packed(&data, 6, 2)).unwrap();
        for program in ["gzip", "pigz"] {
            match Command::new(program).arg("-dc").arg(&path).output() {
                Ok(output) => assert!(output.status.success() && output.stdout == data, "{program}"),
                Err(_) => eprintln!("skipped: {program} is not installed"),
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        let data = content().repeat(4);
        for level in [1, 6] {
            assert!(packed(&data, level, 1) == packed(&data, level, 4), "level {level}");
        }
        // Nor does how it is handed over.
        let mut writer = Writer::new(Vec::new(), 6, 2);
        data.chunks(777).for_each(|part| writer.write_all(part).unwrap());
        assert!(writer.finish().unwrap() == packed(&data, 6, 1), "in small parts");
    }

    #[test]
    fn what_was_inserted_changes_little_of_the_rest() {
        let mut data = content();
        data.truncate(3_000_000);
        let before = packed(&data, 6, 1);
        data.splice(1000..1000, *b"something new");
        let after = packed(&data, 6, 1);
        // The end holds the checksum.
        let same = before.iter().rev().zip(after.iter().rev()).skip(8).take_while(|(a, b)| a == b).count();
        assert!(same > before.len() / 2, "{same} of {} bytes", before.len());
    }

    #[test]
    fn dropped_early_it_is_refused() {
        let data = content();
        for threads in [1, 2] {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out, 6, threads);
            writer.write_all(&data).unwrap();
            writer.flush().unwrap();
            drop(writer);
            assert_eq!(unpacked(&out).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn flushed_it_can_be_read_so_far() {
        let data = content();
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, 6, 2);
        for part in data[..900_000].chunks(100_000) {
            writer.write_all(part).unwrap();
            writer.flush().unwrap();
        }
        writer.finish().unwrap();
        assert!(unpacked(&out).unwrap() == data[..900_000]);
    }
}
