//! The format of the `compress` program (`.Z`). It is here because xdelta3 knows it, and scripts may rely on that.
//!
//! The format has no document of its own; this was learnt from files that ncompress writes and gzip reads.
//!
//! - Header: 1F 9D, then a byte: the longest code in bits (9 to 16), and bit 7 if code 256 clears the table.
//! - Codes, least significant bit first, of 9 bits at first; one bit more whenever the next code would not fit.
//! - Codes come in groups of eight. Where their length changes or the table is cleared, what is left of the
//!   group is padding.
//! - There is no end mark and no checksum: a file that was cut short passes for a whole one.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};

use super::Behind;

/// First bytes of a file.
pub const MAGIC: [u8; 2] = [0x1f, 0x9d];
const HEADER: usize = 3;
const BLOCK_MODE: u8 = 0x80;
const RESERVED: u8 = 0x60;
const MIN_BITS: u32 = 9;
const MAX_BITS: u32 = 16;
/// The code that clears the table, in block mode.
const CLEAR: usize = 256;

/// Tells whether these are the first bytes of a `.Z` file.
pub fn is_lzw(prefix: &[u8]) -> bool {
    matches!(prefix, [a, b, flags, ..] if [*a, *b] == MAGIC && bits_of(*flags).is_some())
}

/// Reads the length of the longest code from the third byte of a header, in bits.
fn bits_of(flags: u8) -> Option<u32> {
    let bits = u32::from(flags & !(BLOCK_MODE | RESERVED));
    (flags & RESERVED == 0 && (MIN_BITS..=MAX_BITS).contains(&bits)).then_some(bits)
}

/// Decompresses a stream. Memory is bounded by the table of 2^16 strings.
pub struct Reader<R> {
    codes: Codes<R>,
    table: Option<Table>,
    /// The string read last, reversed.
    string: Vec<u8>,
}

/// Reads codes of growing length from a stream.
struct Codes<R> {
    input: BufReader<R>,
    /// The group of eight codes that is being read.
    group: [u8; MAX_BITS as usize],
    filled: usize,
    /// How many bits of it were used.
    used: usize,
    /// Position in the file behind the group.
    offset: u64,
    behind: Behind,
}

/// The strings that have a code. Each is another string, named by its code, and one byte more.
struct Table {
    block_mode: bool,
    max_bits: u32,
    bits: u32,
    prefix: Vec<u16>,
    suffix: Vec<u8>,
    /// The next code that a string will get.
    next: usize,
    /// The code that was read last, and the first byte of its string.
    last: Option<(usize, u8)>,
}

impl<R: Read> Reader<R> {
    /// Reads from `input`, which needs no buffer.
    pub fn new(input: R, behind: Behind) -> Self {
        let input = BufReader::new(input);
        let codes =
            Codes { input, group: [0; MAX_BITS as usize], filled: 0, used: 0, offset: HEADER as u64, behind };
        Reader { codes, table: None, string: Vec::new() }
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let table = match &mut self.table {
            Some(table) => table,
            none => none.insert(Table::new(&mut self.codes.input)?),
        };
        let mut done = 0;
        while done < buf.len() {
            if let Some(byte) = self.string.pop() {
                buf[done] = byte;
                done += 1;
            } else if !table.next_string(&mut self.codes, &mut self.string)? {
                break;
            }
        }
        Ok(done)
    }
}

impl<R: Read> Codes<R> {
    /// Reads the next code, of `bits` bits; `None` at the end.
    fn next(&mut self, bits: u32) -> io::Result<Option<usize>> {
        let bits = bits as usize;
        if self.used + bits > self.filled * 8 {
            self.nothing_left()?;
            // A group has as many bytes as a code has bits. Only the last one may be shorter.
            self.filled = super::read_full(&mut self.input, &mut self.group[..bits])?;
            self.offset += self.filled as u64;
            self.used = 0;
            if self.filled * 8 < bits {
                self.nothing_left()?;
                return Ok(None);
            }
        }
        let mut code = 0;
        for (n, at) in (self.used / 8..self.filled).take(3).enumerate() {
            code |= usize::from(self.group[at]) << (8 * n);
        }
        let code = code >> (self.used % 8) & ((1 << bits) - 1);
        self.used += bits;
        Ok(Some(code))
    }

    /// Refuses a rest of bytes that are too few for a code. No writer leaves one.
    fn nothing_left(&self) -> io::Result<()> {
        let left = self.filled - self.used.div_ceil(8);
        match self.behind {
            Behind::Refuse if left > 0 => Err(super::behind("compress", self.offset - left as u64)),
            _ => Ok(()),
        }
    }

    /// Skips the rest of a group.
    fn skip_group(&mut self) {
        (self.filled, self.used) = (0, 0);
    }
}

impl Table {
    fn new(input: &mut impl BufRead) -> io::Result<Table> {
        let mut header = [0; HEADER];
        input.read_exact(&mut header)?;
        let bits = bits_of(header[2]).filter(|_| header[..2] == MAGIC);
        let max_bits = bits.ok_or_else(|| damaged("it does not start as a .Z file"))?;
        let block_mode = header[2] & BLOCK_MODE != 0;
        Ok(Table {
            block_mode,
            max_bits,
            bits: MIN_BITS,
            prefix: vec![0; 1 << max_bits],
            suffix: vec![0; 1 << max_bits],
            next: CLEAR + usize::from(block_mode),
            last: None,
        })
    }

    /// Puts the string of the next code into `out`, reversed. The result is false at the end.
    fn next_string<R: Read>(&mut self, codes: &mut Codes<R>, out: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            if self.next >= 1 << self.bits && self.bits < self.max_bits {
                codes.skip_group();
                self.bits += 1;
            }
            let Some(code) = codes.next(self.bits)? else { return Ok(false) };
            if code == CLEAR && self.block_mode && self.last.is_some() {
                // The string that begins before the clearing and ends behind it gets the code of the clearing, and is never used.
                self.next = CLEAR;
                self.bits = MIN_BITS;
                codes.skip_group();
                continue;
            }
            let Some((last, first)) = self.last else {
                let byte = u8::try_from(code).map_err(|_| damaged("the first code is no byte"))?;
                out.push(byte);
                self.last = Some((code, byte));
                return Ok(true);
            };
            let mut at = code;
            if code >= self.next {
                // The code is that of the string which is just being made: the last string and its own first byte.
                if code > self.next || self.next >= self.prefix.len() {
                    return Err(damaged("a code stands for nothing"));
                }
                out.push(first);
                at = last;
            }
            // The code of a prefix is smaller than that of its string, so this ends.
            while at > 255 {
                out.push(self.suffix[at]);
                at = self.prefix[at].into();
            }
            let first = at as u8;
            out.push(first);
            if self.next < self.prefix.len() {
                (self.prefix[self.next], self.suffix[self.next]) = (last as u16, first);
                self.next += 1;
            }
            self.last = Some((code, first));
            return Ok(true);
        }
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the .Z file is damaged: {what}"))
}

/// Compresses as `compress` does by default: codes of up to 16 bits, in block mode.
///
/// The format has no end mark, so the output of a writer that was dropped passes for a shorter file. It may be used only where
/// whoever owns the output removes it then.
pub struct Writer<W: Write> {
    sink: W,
    strings: HashMap<(u16, u8), u16>,
    next: usize,
    bits: u32,
    /// The code of the string that is being lengthened.
    string: Option<u16>,
    /// The packed codes of the group that is being written.
    pending: u64,
    pending_bits: u32,
    in_group: u32,
    out: Vec<u8>,
}

/// How many compressed bytes are passed on at once.
const PART: usize = 32 << 10;

impl<W: Write> Writer<W> {
    /// Writes to `sink`.
    pub fn new(sink: W) -> Self {
        Writer {
            sink,
            strings: HashMap::new(),
            next: CLEAR + 1,
            bits: MIN_BITS,
            string: None,
            pending: 0,
            pending_bits: 0,
            in_group: 0,
            out: vec![MAGIC[0], MAGIC[1], BLOCK_MODE | MAX_BITS as u8],
        }
    }

    /// Writes what is left, and returns the sink.
    ///
    /// # Errors
    /// Fails where the sink fails.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(code) = self.string.take() {
            self.put(code.into());
        }
        if self.pending_bits > 0 {
            self.out.push(self.pending as u8);
        }
        self.sink.write_all(&self.out)?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn put(&mut self, code: usize) {
        self.pending |= (code as u64) << self.pending_bits;
        self.pending_bits += self.bits;
        self.in_group = (self.in_group + 1) % 8;
        self.spill();
    }

    fn spill(&mut self) {
        while self.pending_bits >= 8 {
            self.out.push(self.pending as u8);
            self.pending >>= 8;
            self.pending_bits -= 8;
        }
    }

    /// Ends the group with padding, and goes on with codes of `bits` bits.
    fn change_bits(&mut self, bits: u32) {
        while self.in_group != 0 {
            self.put(0);
        }
        self.bits = bits;
    }

    fn byte(&mut self, byte: u8) {
        let Some(string) = self.string else {
            self.string = Some(byte.into());
            return;
        };
        if let Some(&longer) = self.strings.get(&(string, byte)) {
            self.string = Some(longer);
            return;
        }
        self.put(string.into());
        self.string = Some(byte.into());
        if self.next == 1 << MAX_BITS {
            // The table is full. It is cleared, so that it will fit what comes.
            self.put(CLEAR);
            self.change_bits(MIN_BITS);
            self.strings.clear();
            self.next = CLEAR + 1;
            return;
        }
        self.strings.insert((string, byte), self.next as u16);
        self.next += 1;
        // The reader is one string behind.
        if self.next > 1 << self.bits && self.bits < MAX_BITS {
            self.change_bits(self.bits + 1);
        }
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.out.len() >= PART {
            self.sink.write_all(&self.out)?;
            self.out.clear();
        }
        let part = &buf[..buf.len().min(PART)];
        part.iter().for_each(|&byte| self.byte(byte));
        Ok(part.len())
    }

    /// Flushes the sink. Codes that are not written yet are written by [`finish`](Writer::finish) only.
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn packed(data: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.write_all(data).unwrap();
        writer.finish().unwrap()
    }

    fn unpacked(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Reader::new(packed, Behind::Pass).read_to_end(&mut out).map(|_| out)
    }

    /// Text, noise and runs: all lengths of codes, several clearings.
    fn samples() -> Vec<Vec<u8>> {
        let mut state = 7u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        let noise: Vec<u8> = (0..400_000).map(|_| random() as u8).collect();
        let text: Vec<u8> =
            (0..100_000).flat_map(|_| format!("word{} ", random() % 700).into_bytes()).collect();
        let mixed = [&text[..200_000], &noise, &[0; 100_000], &text].concat();
        vec![vec![], vec![1], vec![5; 3], vec![0; 300_000], text[..3000].to_vec(), mixed, text, noise]
    }

    #[test]
    fn gives_back_what_it_packed() {
        for data in samples() {
            assert!(unpacked(&packed(&data)).unwrap() == data, "{} bytes", data.len());
        }
    }

    fn through(program: &str, args: &[&str], input: &[u8]) -> Option<Vec<u8>> {
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, input, 0).unwrap();
        let mut command = Command::new(program);
        let output = command.args(args).stdin(file).stderr(Stdio::inherit()).output().ok()?;
        // compress: 2 where nothing was saved, with -f written all the same.
        assert!(output.status.success() || program == "compress", "{program}: {}", output.status);
        Some(output.stdout)
    }

    #[test]
    fn gzip_reads_what_it_packed() {
        for data in samples() {
            assert!(through("gzip", &["-dc"], &packed(&data)).unwrap() == data, "{} bytes", data.len());
        }
    }

    #[test]
    fn reads_what_compress_packed() {
        for data in samples() {
            // Not 9, with which it writes what it cannot read itself.
            for bits in ["10", "12", "15", "16"] {
                let Some(packed) = through("compress", &["-cf", "-b", bits], &data) else {
                    eprintln!("skipped: the compress program is not installed");
                    return;
                };
                assert!(unpacked(&packed).unwrap() == data, "{} bytes, {bits} bits", data.len());
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(unpacked(b"").is_err());
        assert!(unpacked(b"\x1f\x9d").is_err());
        assert!(unpacked(b"\x1f\x9d\x91").is_err());
        assert!(unpacked(b"\x1f\x9d\xf0").is_err());
        // Codes that stand for nothing: the first, and one later.
        assert!(unpacked(b"\x1f\x9d\x90\xff\xff").is_err());
        assert!(unpacked(b"\x1f\x9d\x90\x41\xfe\x03\x00").is_err());
        assert!(!is_lzw(b"\x1f\x9d\x11") && !is_lzw(b"\x1f\x9d") && is_lzw(b"\x1f\x9d\x90"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(flags: u8, bytes: Vec<u8>) {
            let mut out = Vec::new();
            let _ = Reader::new(&[&MAGIC[..], &[flags], &bytes].concat()[..], Behind::Pass).take(1 << 20).read_to_end(&mut out);
        }

        #[test]
        fn round_trip(bytes in prop::collection::vec(0u8..4, 0..5000)) {
            prop_assert_eq!(unpacked(&packed(&bytes)).unwrap(), bytes);
        }
    }
}
