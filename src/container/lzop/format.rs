//! Headers of lzop files: reading, checking and writing them; and unpacking one block.

use std::io::{self, Read};

use flate2::Crc;

use super::Error;
use crate::container::{self, Behind, lzo, read_full};

/// The first bytes of every member.
pub const MAGIC: [u8; 9] = *b"\x89LZO\0\r\n\x1a\n";

/// Content bytes in each block lzop writes, except the last.
pub(super) const BLOCK_LEN: usize = 256 * 1024;
/// Largest block accepted, as in lzop.
const MAX_BLOCK_LEN: u32 = 64 << 20;
/// No LZO1X instruction gives more than this many bytes per byte of input.
const MAX_EXPANSION: u64 = 255;

/// The lzop release whose files are understood (1.04).
const VERSION: u16 = 0x1040;
/// Oldest file version lzop itself still reads.
const OLDEST_VERSION: u16 = 0x0900;
/// From here on headers have the version needed, the level and a 64-bit mtime.
const LONG_HEADER_VERSION: u16 = 0x0940;
/// LZO library version stated in files written here (2.10, whose LZO1X this is).
const LIBRARY_VERSION: u16 = 0x20a0;

const ADLER_CONTENT: u32 = 0x1;
const ADLER_PACKED: u32 = 0x2;
const FROM_STDIN: u32 = 0x4;
const TO_STDOUT: u32 = 0x8;
const EXTRA_FIELD: u32 = 0x40;
const CRC_CONTENT: u32 = 0x100;
const CRC_PACKED: u32 = 0x200;
const FILTER: u32 = 0x800;
const CRC_HEADER: u32 = 0x1000;
/// The flags of lzop 1.04, with those for the character set and the operating system. Any other flag is of a later version.
const KNOWN_FLAGS: u32 = 0xfff0_3fff;
/// Operating system "Unix" in the flags.
const OS_UNIX: u32 = 0x0300_0000;

/// Tells by the first 9 bytes of a file whether it is an lzop file.
pub fn is_lzop(prefix: &[u8]) -> bool {
    prefix.starts_with(&MAGIC)
}

/// Makes the header of a member, as lzop writes it when it packs its standard input with default options. Only the time is
/// left out (lzop takes 0 for "unknown"), so that equal content gives equal files.
pub(super) fn member_header() -> Vec<u8> {
    let mut fields = Vec::with_capacity(38);
    fields.extend(VERSION.to_be_bytes());
    fields.extend(LIBRARY_VERSION.to_be_bytes());
    fields.extend(LONG_HEADER_VERSION.to_be_bytes());
    fields.extend([1, 5]); // LZO1X-1 at the default level
    fields.extend((OS_UNIX | TO_STDOUT | FROM_STDIN | ADLER_CONTENT).to_be_bytes());
    fields.extend([0; 4 + 8 + 1]); // mode, mtime, no name
    let sum = simd_adler32::adler32(&fields.as_slice());
    [MAGIC.as_slice(), &fields, &sum.to_be_bytes()].concat()
}

/// Length of a block header as written by [`pack`].
const PACKED_HEADER: usize = 12;

/// Writes a block of `content` (at least one byte, at most [`BLOCK_LEN`]) with its header into `out`, and returns its length.
/// `out` never becomes shorter.
pub(super) fn pack(encoder: &mut lzo::Encoder, content: &[u8], out: &mut Vec<u8>) -> usize {
    let room = PACKED_HEADER + lzo::max_compressed_len(content.len());
    if out.len() < room {
        out.resize(room, 0);
    }
    let (header, body) = out.split_at_mut(PACKED_HEADER);
    let mut packed = encoder.compress(content, body);
    if packed >= content.len() {
        packed = content.len();
        body[..packed].copy_from_slice(content);
    }
    let sum = simd_adler32::adler32(&content);
    for (field, value) in header.chunks_exact_mut(4).zip([content.len() as u32, packed as u32, sum]) {
        field.copy_from_slice(&value.to_be_bytes());
    }
    PACKED_HEADER + packed
}

/// Which checksums the blocks of a member carry, by the flags of the member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checks(u32);

impl Checks {
    /// Whether the content of each block has a checksum.
    pub fn of_content(&self) -> bool {
        self.0 & (ADLER_CONTENT | CRC_CONTENT) != 0
    }
}

/// The recorded checksums of some bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    adler: Option<u32>,
    crc: Option<u32>,
}

impl Sums {
    fn verify(self, offset: u64, what: &'static str, bytes: &[u8]) -> Result<(), Error> {
        if let Some(recorded) = self.adler {
            check(offset, what, "Adler-32", recorded, simd_adler32::adler32(&bytes))?;
        }
        if let Some(recorded) = self.crc {
            let mut crc = Crc::new();
            crc.update(bytes);
            check(offset, what, "CRC-32", recorded, crc.sum())?;
        }
        Ok(())
    }
}

fn check(
    offset: u64,
    what: &'static str,
    kind: &'static str,
    recorded: u32,
    found: u32,
) -> Result<(), Error> {
    if recorded == found { Ok(()) } else { Err(Error::Checksum { offset, what, kind, recorded, found }) }
}

/// A block's header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    /// Where the header starts in the file.
    pub offset: u64,
    /// Where the packed bytes start in the file.
    pub data_offset: u64,
    /// Content length, 1..=64 MiB.
    pub len: u32,
    /// Packed length, 1..=`len`.
    pub packed_len: u32,
    content_sums: Sums,
    packed_sums: Sums,
}

impl Block {
    /// Unpacks the block's bytes into `content`, whatever it held before, and verifies all checksums. If the block is stored,
    /// `packed` and `content` change places.
    pub fn unpack(&self, packed: &mut Vec<u8>, content: &mut Vec<u8>) -> Result<(), Error> {
        self.packed_sums.verify(self.offset, "packed block", packed)?;
        let len = self.len as usize;
        if self.packed_len == self.len {
            std::mem::swap(packed, content);
        } else {
            content.resize(len, 0);
            let found = lzo::decompress(packed, content)
                .map_err(|cause| Error::Data { offset: self.offset, cause })?;
            if found != len {
                let what = format!("block of {len} bytes unpacks to {found}");
                return Err(Error::Corrupt { offset: self.offset, what });
            }
        }
        self.content_sums.verify(self.offset, "block", content)
    }
}

/// Walks over the headers of a file.
///
/// Behind the header of a block, the caller must take the packed bytes: either with [`Scanner::read_packed`], or by moving the
/// input and calling [`Scanner::skipped`].
pub(super) struct Scanner<R> {
    input: R,
    /// Offset of the next byte of `input` in the file.
    offset: u64,
    /// Which checksums blocks have; none outside of a member.
    checks: Option<Checks>,
    /// What may follow the last member.
    pub behind: Behind,
}

impl<R: Read> Scanner<R> {
    /// Begins at the start of a file.
    pub fn new(input: R) -> Self {
        Self { input, offset: 0, checks: None, behind: Behind::Pass }
    }

    /// Begins at the header of a block, in a member with `checks`. `input` is at the header, whose offset in the file is
    /// `offset`.
    pub fn at_block(input: R, offset: u64, checks: Checks) -> Self {
        Self { input, offset, checks: Some(checks), behind: Behind::Pass }
    }

    /// Position of the next byte in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Which checksums the member of the last block has.
    pub fn checks(&self) -> Option<Checks> {
        self.checks
    }

    /// Returns the input, so that the caller can move it.
    pub fn input(&mut self) -> &mut R {
        &mut self.input
    }

    /// Takes note that the caller moved the input over `count` bytes.
    pub fn skipped(&mut self, count: u64) {
        self.offset += count;
    }

    /// Reads the header of the next block, in this member or in one behind it. The result is `None` at the proper end of the
    /// file.
    pub fn next_block(&mut self) -> Result<Option<Block>, Error> {
        loop {
            let checks = match self.checks {
                Some(checks) => checks,
                None => match self.member()? {
                    Some(checks) => *self.checks.insert(checks),
                    None => return Ok(None),
                },
            };
            let offset = self.offset;
            let len = self.u32("its blocks, before the end mark")?;
            if len != 0 {
                return self.block(offset, len, checks).map(Some);
            }
            self.checks = None;
        }
    }

    /// Reads the rest of a block header.
    fn block(&mut self, offset: u64, len: u32, Checks(flags): Checks) -> Result<Block, Error> {
        let corrupt = |what| Err(Error::Corrupt { offset, what });
        if len == u32::MAX {
            return Err(Error::Unsupported { offset, what: "a file split over volumes".into() });
        }
        if len > MAX_BLOCK_LEN {
            return corrupt(format!("block of {len} bytes, {MAX_BLOCK_LEN} is the most allowed"));
        }
        let packed_len = self.u32("a block header")?;
        if packed_len > len || u64::from(packed_len) * MAX_EXPANSION < u64::from(len) {
            return corrupt(format!("block of {len} bytes cannot be packed in {packed_len}"));
        }
        let mut sum = |flag| {
            if flags & flag != 0 { self.u32("a block header").map(Some) } else { Ok(None) }
        };
        let content_sums = Sums { adler: sum(ADLER_CONTENT)?, crc: sum(CRC_CONTENT)? };
        let packed_sums = if packed_len < len {
            Sums { adler: sum(ADLER_PACKED)?, crc: sum(CRC_PACKED)? }
        } else {
            Sums::default()
        };
        Ok(Block { offset, data_offset: self.offset, len, packed_len, content_sums, packed_sums })
    }

    /// Reads the packed bytes of the block that was returned last. Memory grows with what is really there.
    pub fn read_packed(&mut self, block: &Block, packed: &mut Vec<u8>) -> Result<(), Error> {
        packed.clear();
        packed.reserve((block.packed_len as usize).min(BLOCK_LEN));
        let want = u64::from(block.packed_len);
        self.input.by_ref().take(want).read_to_end(packed)?;
        self.offset += packed.len() as u64;
        if packed.len() as u64 != want {
            return Err(Error::Truncated { offset: self.offset, within: "a block" });
        }
        Ok(())
    }

    /// Reads the header of a member. The result is `None` if the input ends here, and this is not its start. Zeros up to the end
    /// are padding, as for `lzop -d`.
    fn member(&mut self) -> Result<Option<Checks>, Error> {
        let offset = self.offset;
        let mut magic = [0; MAGIC.len()];
        let found = self.fill(&mut magic)?;
        if offset > 0 && magic[..found].iter().all(|&b| b == 0) {
            if found > 0 && self.behind == Behind::Refuse {
                return Err(container::behind("lzop", offset).into());
            }
            self.padding()?;
            return Ok(None);
        }
        if magic[..found] != MAGIC[..found] || found == 0 {
            return Err(Error::NotLzop { offset });
        }
        if found < magic.len() {
            return Err(self.truncated("a header"));
        }
        let mut header = Header { scanner: self, bytes: Vec::with_capacity(64) };
        let fields = header.fields(offset)?;
        let Header { bytes, .. } = header;
        self.recorded_sum(offset, "header", fields.flags, &mut Sum::new(fields.flags, &bytes))?;
        fields.refuse_unsupported(offset)?;
        if fields.flags & EXTRA_FIELD != 0 {
            self.extra_field(offset, fields.flags)?;
        }
        Ok(Some(Checks(fields.flags)))
    }

    /// Reads up to the end of the input. There may be nothing but zeros before it.
    fn padding(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 4096];
        loop {
            let offset = self.offset;
            let found = self.fill(&mut buffer)?;
            if found == 0 {
                return Ok(());
            }
            if let Some(at) = buffer[..found].iter().position(|&b| b != 0) {
                return Err(Error::NotLzop { offset: offset + at as u64 });
            }
        }
    }

    /// Skips the extra field, which lzop reserves and never writes.
    fn extra_field(&mut self, offset: u64, flags: u32) -> Result<(), Error> {
        let length = self.array::<4>("an extra field")?;
        let mut sum = Sum::new(flags, &length);
        let mut left = u32::from_be_bytes(length) as usize;
        let mut buffer = [0; 4096];
        while left > 0 {
            let part = &mut buffer[..left.min(4096)];
            if self.fill(part)? < part.len() {
                return Err(self.truncated("an extra field"));
            }
            sum.update(part);
            left -= part.len();
        }
        self.recorded_sum(offset, "extra field", flags, &mut sum)
    }

    /// Reads the checksum of a header, and compares it.
    fn recorded_sum(
        &mut self,
        offset: u64,
        what: &'static str,
        flags: u32,
        sum: &mut Sum,
    ) -> Result<(), Error> {
        let recorded = self.u32("a header")?;
        let kind = if flags & CRC_HEADER != 0 { "CRC-32" } else { "Adler-32" };
        check(offset, what, kind, recorded, sum.value())
    }

    fn u32(&mut self, within: &'static str) -> Result<u32, Error> {
        self.array(within).map(u32::from_be_bytes)
    }

    fn array<const N: usize>(&mut self, within: &'static str) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        if self.fill(&mut bytes)? < N { Err(self.truncated(within)) } else { Ok(bytes) }
    }

    fn truncated(&self, within: &'static str) -> Error {
        Error::Truncated { offset: self.offset, within }
    }

    /// Reads until `buffer` is full or the input ends. The result is the number of bytes that were read.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let filled = read_full(&mut self.input, buffer)?;
        self.offset += filled as u64;
        Ok(filled)
    }
}

/// Computes the checksum of a header or an extra field, of the kind that the flags ask for.
enum Sum {
    Adler(simd_adler32::Adler32),
    Crc(Crc),
}

impl Sum {
    fn new(flags: u32, start: &[u8]) -> Self {
        let mut sum = if flags & CRC_HEADER != 0 {
            Sum::Crc(Crc::new())
        } else {
            Sum::Adler(simd_adler32::Adler32::new())
        };
        sum.update(start);
        sum
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Sum::Adler(adler) => adler.write(bytes),
            Sum::Crc(crc) => crc.update(bytes),
        }
    }

    fn value(&self) -> u32 {
        match self {
            Sum::Adler(adler) => adler.finish(),
            Sum::Crc(crc) => crc.sum(),
        }
    }
}

/// The fields of a header that matter.
struct Fields {
    version_needed: u16,
    method: u8,
    flags: u32,
    filter: u32,
}

impl Fields {
    /// Refuses a file that is not supported. This is called once the checksum has shown that the fields are as they were
    /// written.
    fn refuse_unsupported(&self, offset: u64) -> Result<(), Error> {
        let what = if self.version_needed > VERSION {
            format!("a file that needs lzop version {:#06x}", self.version_needed)
        } else if self.flags & !KNOWN_FLAGS != 0 {
            format!("unknown flag {:#x}", self.flags & !KNOWN_FLAGS)
        } else if !(1..=3).contains(&self.method) {
            format!("compression method {}", self.method)
        } else if self.filter != 0 {
            format!("filter {} (lzop --filter)", self.filter)
        } else {
            return Ok(());
        };
        Err(Error::Unsupported { offset, what })
    }
}

/// Reads the fields of a header, and keeps their bytes for the checksum.
struct Header<'a, R> {
    scanner: &'a mut Scanner<R>,
    bytes: Vec<u8>,
}

impl<R: Read> Header<'_, R> {
    fn fields(&mut self, offset: u64) -> Result<Fields, Error> {
        let version = u16::from_be_bytes(self.array()?);
        if version < OLDEST_VERSION {
            let what = format!("file version {version:#06x}");
            return Err(Error::Unsupported { offset, what });
        }
        let long = version >= LONG_HEADER_VERSION;
        let _library: [u8; 2] = self.array()?;
        let version_needed = if long { u16::from_be_bytes(self.array()?) } else { 0 };
        let [method] = self.array()?;
        if long {
            let _level: [u8; 1] = self.array()?;
        }
        let flags = u32::from_be_bytes(self.array()?);
        let filter = if flags & FILTER != 0 { u32::from_be_bytes(self.array()?) } else { 0 };
        let _mode_and_mtime: [u8; 8] = self.array()?;
        if long {
            let _mtime_high: [u8; 4] = self.array()?;
        }
        let [name_len] = self.array()?;
        for _ in 0..name_len {
            let _name: [u8; 1] = self.array()?;
        }
        Ok(Fields { version_needed, method, flags, filter })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.scanner.array("a header")?;
        self.bytes.extend(bytes);
        Ok(bytes)
    }
}
