//! Members made by hand for what the lzop program writes only in odd versions, damage at every byte, and
//! sinks that fail. `tests/lzop.rs` compares with the program.

use std::fs::File;
use std::io::{self, BufRead, Cursor, Read, Write};

use super::format::BLOCK_LEN;
use super::*;

const FLAGS: u32 = 0x0300_0001;

/// A member to be written by hand, with what makes it unusual.
struct Member {
    version: u16,
    needed: u16,
    method: u8,
    flags: u32,
    filter: u32,
    name: &'static [u8],
    extra: &'static [u8],
    blocks: Vec<u8>,
}

fn member() -> Member {
    let (version, needed) = (0x1040, 0x0940);
    Member { version, needed, method: 1, flags: FLAGS, filter: 0, name: b"", extra: b"", blocks: Vec::new() }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn adler(bytes: &[u8]) -> u32 {
    simd_adler32::adler32(&bytes)
}

impl Member {
    /// Adds a block with the checksums the flags ask for, packed if that makes it shorter.
    fn block(mut self, content: &[u8]) -> Self {
        let mut packed = vec![0; lzo::max_compressed_len(content.len())];
        let len = lzo::Encoder::new().compress(content, &mut packed);
        packed.truncate(len);
        let shorter = packed.len() < content.len();
        let packed = if shorter { packed } else { content.to_vec() };
        let mut fields = vec![content.len() as u32, packed.len() as u32];
        let sums =
            [(0x1, adler(content)), (0x100, crc(content)), (0x2, adler(&packed)), (0x200, crc(&packed))];
        fields.extend(
            sums.iter()
                .filter(|(flag, _)| self.flags & flag != 0 && (shorter || flag & 0x101 != 0))
                .map(|s| s.1),
        );
        self.blocks.extend(fields.into_iter().flat_map(u32::to_be_bytes));
        self.blocks.extend(packed);
        self
    }

    /// Adds a block header alone.
    fn claim(mut self, len: u32, packed_len: u32) -> Self {
        self.blocks.extend([len, packed_len, 1].into_iter().flat_map(u32::to_be_bytes));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let long = self.version >= 0x0940;
        let mut head = [self.version.to_be_bytes(), [0x20, 0xa0]].concat();
        if long {
            head.extend(self.needed.to_be_bytes());
        }
        head.push(self.method);
        if long {
            head.push(5);
        }
        head.extend(self.flags.to_be_bytes());
        if self.flags & 0x800 != 0 {
            head.extend(self.filter.to_be_bytes());
        }
        head.extend(if long { &[0; 12][..] } else { &[0; 8][..] });
        head.push(self.name.len() as u8);
        head.extend(self.name);
        let sum = if self.flags & 0x1000 != 0 { crc } else { adler };
        let mut file = [MAGIC.as_slice(), &head, &sum(&head).to_be_bytes()].concat();
        if self.flags & 0x40 != 0 {
            let field = [&(self.extra.len() as u32).to_be_bytes(), self.extra].concat();
            file.extend(&field);
            file.extend(sum(&field).to_be_bytes());
        }
        file.extend(&self.blocks);
        file.extend([0; 4]);
        file
    }
}

/// Reads by stream with so many threads.
fn stream(file: &[u8], threads: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    Reader::new(file, threads).read_to_end(&mut content)?;
    Ok(content)
}

fn on_disk(file: &[u8]) -> File {
    let mut disk = tempfile::tempfile().unwrap();
    disk.write_all(file).unwrap();
    disk
}

/// Reads by place.
fn seek(file: &[u8]) -> io::Result<Vec<u8>> {
    let file = Seekable::open(on_disk(file))?;
    let mut content = vec![0; file.len() as usize];
    file.read_at(0, &mut content)?;
    Ok(content)
}

fn write(content: &[u8], threads: usize) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), threads);
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

/// Content of which blocks can be told apart: counting lines, then noise.
fn content(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut content: Vec<u8> = (0..len / 16).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
    content.resize_with(len, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    content
}

/// The text of the error that all three ways to read must give.
fn refused(file: &[u8]) -> String {
    let errors =
        [stream(file, 1), stream(file, 3), seek(file)].map(|read| read.expect_err("must be refused"));
    for error in &errors {
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(error.to_string(), errors[0].to_string());
    }
    errors[0].to_string()
}

#[test]
fn every_known_header_is_read() {
    let text = b"some content some content some content".as_slice();
    let cases = [
        member(),
        Member { version: 0x0900, ..member() },
        Member { version: 0x0930, name: b"old", ..member() },
        Member { version: 0x2000, ..member() },
        Member { method: 3, name: &[b'n'; 255], ..member() },
        Member { flags: FLAGS | 0x1000, ..member() },
        Member { flags: FLAGS | 0x40, extra: b"something", ..member() },
        Member { flags: FLAGS | 0x1040, extra: &[7; 9000], ..member() },
        Member { flags: 0x0350_0303, ..member() },
        Member { flags: 0x0300_0202, ..member() },
        Member { flags: 0, ..member() },
    ];
    for case in cases {
        let file = case.block(text).block(b"\x01").bytes();
        let expected = [text, b"\x01"].concat();
        assert!(is_lzop(&file));
        assert_eq!(stream(&file, 1).unwrap(), expected);
        assert_eq!(seek(&file).unwrap(), expected);
    }
}

#[test]
fn what_is_not_supported_is_said() {
    let text = |case: Member| refused(&case.block(b"x").bytes());
    let says = |what: &str| {
        format!("lzop header at offset 0: {what} is not supported; decompress the file with the lzop program")
    };
    assert_eq!(text(Member { version: 0x08ff, ..member() }), says("file version 0x08ff"));
    assert_eq!(text(Member { needed: 0x1050, ..member() }), says("a file that needs lzop version 0x1050"));
    assert_eq!(text(Member { method: 128, ..member() }), says("compression method 128"));
    assert_eq!(text(Member { flags: FLAGS | 0x8000, ..member() }), says("unknown flag 0x8000"));
    assert_eq!(
        text(Member { flags: FLAGS | 0x800, filter: 1, ..member() }),
        says("filter 1 (lzop --filter)")
    );
    let split = member().claim(u32::MAX, 0).bytes();
    assert!(refused(&split).contains("a file split over volumes is not supported"));
}

#[test]
fn impossible_sizes_are_refused_before_memory_is_taken() {
    let at = "lzop file is damaged at offset 38: ";
    let claim = |len, packed| refused(&member().claim(len, packed).bytes());
    let large = format!("{at}block of 67108865 bytes, 67108864 is the most allowed");
    assert_eq!(claim((64 << 20) + 1, 100), large);
    assert_eq!(claim(100, 101), format!("{at}block of 100 bytes cannot be packed in 101"));
    assert_eq!(claim(100, 0), format!("{at}block of 100 bytes cannot be packed in 0"));
    assert_eq!(claim(25501, 100), format!("{at}block of 25501 bytes cannot be packed in 100"));
    assert_eq!(claim(64 << 20, 64 << 20), "lzop file is truncated: it ends at offset 54, within a block");
}

#[test]
fn damage_is_named_with_its_place() {
    let good = member().block(b"abc").block(b"def").bytes();
    assert_eq!(refused(b""), Error::NotLzop { offset: 0 }.to_string());
    assert_eq!(refused(b"not an lzop file"), Error::NotLzop { offset: 0 }.to_string());
    let behind = good.len() as u64;
    assert_eq!(refused(&[&good, b"xyz".as_slice()].concat()), Error::NotLzop { offset: behind }.to_string());
    // Zeros up to the end are padding, as for lzop; zeros before something else are not.
    for zeros in [1, 9, 10, 5000] {
        let padded = [good.clone(), vec![0; zeros]].concat();
        assert_eq!(stream(&padded, 1).unwrap(), b"abcdef");
        assert_eq!(seek(&padded).unwrap(), b"abcdef");
        let offset = if zeros < MAGIC.len() { behind } else { behind + zeros as u64 };
        let garbage = refused(&[&padded, b"x".as_slice()].concat());
        assert_eq!(garbage, Error::NotLzop { offset }.to_string());
    }
    let mut header = good.clone();
    header[20] ^= 1;
    assert!(refused(&header).starts_with("lzop file is damaged at offset 0: header has Adler-32"));
    let mut block = good.clone();
    block[38 + 15 + 12] ^= 1;
    assert_eq!(
        refused(&block),
        "lzop file is damaged at offset 53: block has Adler-32 025c0131, recorded is 0259012f"
            .replace("025c0131", &format!("{:08x}", adler(b"eef")))
            .replace("0259012f", &format!("{:08x}", adler(b"def")))
    );
    assert_eq!(
        refused(&good[..good.len() - 4]),
        "lzop file is truncated: it ends at offset 68, within its blocks, before the end mark"
    );
    let packed = member().block(&[9; 1000]);
    let mut file = packed.bytes();
    file[38 + 12] = 16;
    assert!(refused(&file).starts_with("lzop file is damaged in the block at offset 38: copy from"));
}

#[test]
fn each_kind_of_checksum_is_verified() {
    for flag in [0x1, 0x2, 0x100, 0x200] {
        let case = Member { flags: flag, ..member() }.block(&[5; 300]);
        let mut file = case.bytes();
        assert_eq!(stream(&file, 1).unwrap(), [5; 300]);
        file[38 + 8] ^= 1;
        let what = if flag & 0x202 != 0 { "packed block" } else { "block" };
        let kind = if flag < 0x100 { "Adler-32" } else { "CRC-32" };
        assert!(refused(&file).contains(&format!("{what} has {kind}")), "{}", refused(&file));
    }
    let mut crc_header = Member { flags: FLAGS | 0x1000, name: b"n", ..member() }.bytes();
    crc_header[34] ^= 1;
    assert!(refused(&crc_header).contains("header has CRC-32"));
    let mut extra = Member { flags: FLAGS | 0x40, extra: b"abc", ..member() }.bytes();
    extra[38 + 5] ^= 1;
    assert!(refused(&extra).contains("extra field has Adler-32"));
}

#[test]
fn members_follow_each_other() {
    let parts = [
        member().block(b"one ").bytes(),
        Member { flags: 0x0300_1303, name: b"second", ..member() }.block(&[b'2'; 99]).bytes(),
        member().bytes(),
        write(&content(BLOCK_LEN + 5), 1),
    ];
    let expected = [b"one ".as_slice(), &[b'2'; 99], &content(BLOCK_LEN + 5)].concat();
    let file = parts.concat();
    assert_eq!(stream(&file, 1).unwrap(), expected);
    assert_eq!(stream(&file, 4).unwrap(), expected);
    assert_eq!(seek(&file).unwrap(), expected);
}

#[test]
fn any_flipped_byte_and_any_cut_gives_an_error_or_the_content() {
    let text = content(1500);
    let file = [
        Member { flags: FLAGS | 0x1000, name: b"n", ..member() }.block(&text[..900]).bytes(),
        member().block(&text[900..]).bytes(),
    ]
    .concat();
    let judge = |read: io::Result<Vec<u8>>, what: &str| {
        if let Ok(found) = read {
            assert!(found == text, "{what}: wrong content");
        }
    };
    for at in 0..file.len() {
        let mut bad = file.clone();
        for mask in 1..=255 {
            bad[at] = file[at] ^ mask;
            judge(stream(&bad, 1), "stream");
        }
        judge(stream(&bad, 2), "threads");
        judge(seek(&bad), "seek");
    }
    // A cut between two members leaves a proper file; the format has no way to tell.
    let first = file.windows(MAGIC.len()).rposition(|bytes| bytes == MAGIC).unwrap();
    for cut in (0..file.len()).filter(|&cut| cut != first) {
        stream(&file[..cut], 1).unwrap_err();
        stream(&file[..cut], 2).unwrap_err();
        seek(&file[..cut]).unwrap_err();
    }
}

#[test]
fn content_before_damage_is_delivered_and_the_error_stays() {
    let text = content(5 * BLOCK_LEN);
    let file = write(&text, 1);
    for threads in [1, 3] {
        let mut reader = Reader::new(&file[..file.len() - 5], threads);
        let mut found = Vec::new();
        let error = reader.read_to_end(&mut found).unwrap_err();
        assert_eq!(found, text[..4 * BLOCK_LEN]);
        for _ in 0..2 {
            assert_eq!(reader.read(&mut [0; 9]).unwrap_err().to_string(), error.to_string());
            assert_eq!(reader.fill_buf().unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}

#[test]
fn threads_change_nothing() {
    let text = content(9 * BLOCK_LEN + 77);
    let one = write(&text, 1);
    for threads in [0, 2, 5] {
        assert!(write(&text, threads) == one, "{threads} threads write the same file");
        assert!(stream(&one, threads).unwrap() == text, "{threads} threads read the same content");
    }
}

#[test]
fn a_block_of_the_largest_size_is_read() {
    let zeros = vec![0; 64 << 20];
    let file = member().block(&zeros).block(b"end").bytes();
    let mut reader = Reader::new(file.as_slice(), 2);
    assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), (64 << 20) + 3);
    let file = Seekable::open(on_disk(&file)).unwrap();
    let mut end = [1; 5];
    file.read_at((64 << 20) - 2, &mut end).unwrap();
    assert_eq!(&end, b"\0\0end");
}

#[test]
fn any_place_can_be_read_by_many_threads() {
    let text = content(20 * BLOCK_LEN + 1000);
    let file = Seekable::open(on_disk(&write(&text, 1))).unwrap();
    assert_eq!(file.len(), text.len() as u64);
    assert!(!file.is_empty());
    std::thread::scope(|scope| {
        for seed in 0..4usize {
            let (file, text) = (&file, &text);
            scope.spawn(move || {
                for turn in 0..200usize {
                    let at = (turn * 7_368_787 + seed * 15_485_863) % text.len();
                    let len = (turn * 4099 % 300_000).min(text.len() - at);
                    let mut buffer = vec![0; len];
                    file.read_at(at as u64, &mut buffer).unwrap();
                    assert!(buffer == text[at..at + len], "{len} bytes at {at}");
                }
            });
        }
    });
    let end = text.len() as u64;
    file.read_at(end, &mut []).unwrap();
    for (at, len) in [(end, 1), (end - 1, 2), (u64::MAX, 1), (u64::MAX, 0)] {
        let error = file.read_at(at, &mut vec![0; len]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn short_blocks_can_be_read_at_any_place() {
    let text = content(700_000);
    let mut odd = member();
    let mut from = 0;
    for len in (1..).map(|i| 1 + i * i * 37 % 3000) {
        let to = (from + len).min(text.len());
        odd = odd.block(&text[from..to]);
        from = to;
        if to == text.len() {
            break;
        }
    }
    let file = Seekable::open(on_disk(&odd.bytes())).unwrap();
    let mut buffer = [0; 1000];
    for at in (0..text.len() - buffer.len()).step_by(4999) {
        file.read_at(at as u64, &mut buffer).unwrap();
        assert!(buffer == text[at..at + 1000], "at {at}");
    }
}

#[test]
fn a_file_cut_while_open_is_an_error() {
    let text = content(3 * BLOCK_LEN);
    let disk = on_disk(&write(&text, 1));
    let file = Seekable::open(disk.try_clone().unwrap()).unwrap();
    disk.set_len(100).unwrap();
    let error = file.read_at(2 * BLOCK_LEN as u64, &mut [0; 10]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

/// A sink that takes so many bytes and then fails for good.
struct Full {
    room: usize,
    taken: Vec<u8>,
    refusals: usize,
}

impl Write for &mut Full {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = data.len().min(self.room - self.taken.len());
        if count == 0 && !data.is_empty() {
            self.refusals += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.taken.extend(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sink_that_fails_is_reported_and_left_alone() {
    let text = content(6 * BLOCK_LEN);
    let whole = write(&text, 1);
    for threads in [1, 3] {
        for room in [0, 20, 38, 5000, whole.len() / 2, whole.len() - 4, whole.len() - 1] {
            let mut sink = Full { room, taken: Vec::new(), refusals: 0 };
            let mut writer = Writer::new(&mut sink, threads);
            let error = match writer.write_all(&text).and_then(|()| writer.flush()) {
                Ok(()) => writer.finish().map(drop).unwrap_err(),
                Err(error) => {
                    writer.write_all(b"more").unwrap_err();
                    writer.flush().unwrap_err();
                    writer.finish().map(drop).unwrap_err();
                    error
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "room {room}");
            assert_eq!((sink.taken.as_slice(), sink.refusals), (&whole[..room], 1));
        }
    }
}

#[test]
fn a_writer_dropped_early_leaves_no_complete_file() {
    for threads in [1, 3] {
        for len in [0, 1000, 3 * BLOCK_LEN] {
            let mut sink = Vec::new();
            let mut writer = Writer::new(&mut sink, threads);
            writer.write_all(&content(len)).unwrap();
            writer.flush().unwrap();
            drop(writer);
            stream(&sink, 1).unwrap_err();
            sink.extend([0; 4]);
            assert!(stream(&sink, 1).unwrap() == content(len), "flush wrote all");
        }
    }
}

/// A source that gives single bytes and is interrupted now and then.
struct Slow<'a>(Cursor<&'a [u8]>, bool);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let some = buffer.len().min(7);
        self.0.read(&mut buffer[..some])
    }
}

#[test]
fn sources_may_be_slow_and_sinks_may_fail() {
    let text = content(BLOCK_LEN + 3);
    let file = write(&text, 1);
    let mut found = Vec::new();
    Reader::new(Slow(Cursor::new(&file), false), 2).read_to_end(&mut found).unwrap();
    assert!(found == text);
    let failing = (&file[..200]).chain(Failing);
    let error = Reader::new(failing, 2).read_to_end(&mut found).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// A source that fails.
struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}
