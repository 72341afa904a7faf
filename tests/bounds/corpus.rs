//! Files that ask for more than they are: counts without the bytes for them, small things in large numbers, bombs, and
//! products of two numbers. Each is built from its structure; large ones are mostly holes.
//!
//! `tests/bounds` runs every command on the large ones, the fuzz targets begin with the small ones.

// The fuzz targets use one half of it, the tests the other.
#![allow(dead_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use pve_diff_backup::container::seekable::Writer;
use pve_diff_backup::container::{lzo, lzop};
use pve_diff_backup::matching::chunker::Cluster;
use pve_diff_backup::matching::fingerprint::Secret;
use pve_diff_backup::matching::map::{self, End, Entry, SegmentMap};
use pve_diff_backup::vcdiff::{AppHeader, Segment, Window, varint, write_header};
use pve_diff_backup::vma::{self, Config, Device, ExtentHeader, Header};

/// Bytes at some places of a file; all others are a hole.
#[derive(Clone)]
pub struct Sparse {
    len: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

impl Sparse {
    fn new() -> Sparse {
        Sparse { len: 0, parts: Vec::new() }
    }

    fn hole(mut self, len: u64) -> Sparse {
        self.len += len;
        self
    }

    fn then(mut self, bytes: Vec<u8>) -> Sparse {
        let at = self.len;
        self.len += bytes.len() as u64;
        self.parts.push((at, bytes));
        self
    }

    /// All of it, holes too.
    fn bytes(&self) -> Vec<u8> {
        let mut all = vec![0; self.len as usize];
        self.parts.iter().for_each(|(at, bytes)| all[*at as usize..][..bytes.len()].copy_from_slice(bytes));
        all
    }

    /// Makes the file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.len)?;
        self.parts.iter().try_for_each(|(at, bytes)| file.write_all_at(bytes, *at))
    }
}

impl From<Vec<u8>> for Sparse {
    fn from(bytes: Vec<u8>) -> Sparse {
        Sparse::new().then(bytes)
    }
}

/// A file of the corpus.
pub struct Hostile {
    /// What it is.
    pub name: &'static str,
    /// The file.
    pub file: Sparse,
    /// The fuzz targets that read such files.
    pub targets: &'static [&'static str],
    /// Whether it holds so much that no command is asked to pass or list all of it: that takes its time, rightly.
    pub endless: bool,
}

fn hostile(name: &'static str, targets: &'static [&'static str], file: impl Into<Sparse>) -> Hostile {
    let file = file.into();
    // What most of it would be decompressed from is a hole, or compressed again.
    let endless = file.len > 64 << 20;
    Hostile { name, file, targets, endless }
}

/// How large the files are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// So that bounds are passed.
    Large,
    /// A few KiB, to start from.
    Small,
}

impl Scale {
    fn of(self, large: usize) -> usize {
        match self {
            Scale::Large => large,
            Scale::Small => large.min(12),
        }
    }
}

const SEEKABLE: &[&str] = &["seekable", "base"];
const STREAM: &[&str] = &["container", "base"];
const LZOP: &[&str] = &["lzop", "base"];
const VMA: &[&str] = &["vma", "base"];
const DELTA: &[&str] = &["vcdiff"];

/// Files that pass for full backups.
pub fn fulls(scale: Scale) -> Vec<Hostile> {
    let mut all = vec![
        hostile(
            "seek table of 100 million entries",
            SEEKABLE,
            empty_seek_table(match scale {
                Scale::Large => 100_000_000,
                Scale::Small => 10,
            }),
        ),
        hostile("frames of one byte", SEEKABLE, tiny_frames(scale.of(100_000))),
        hostile("frames that claim 16 MiB in 10 bytes", SEEKABLE, claims(scale.of(200_000), 10, false)),
        hostile(
            "a map's frames that claim 16 MiB in 10 bytes",
            SEEKABLE,
            claims(scale.of(200_000), 10, true),
        ),
        hostile("a map's frames that claim terabytes", SEEKABLE, claims(scale.of(200_000), 600, true)),
        hostile("clusters far apart", SEEKABLE, far_clusters(scale.of(250) as u32, 1 << 20)),
        hostile("clusters a page apart", SEEKABLE, far_clusters(scale.of(250) as u32, 64)),
        hostile("lzop blocks of one byte", LZOP, lzop_of(scale.of(40_000), 1, false)),
        hostile("lzop members of one byte", LZOP, lzop_of(scale.of(10_000), 1, true)),
        hostile(
            "empty zstd blocks",
            STREAM,
            empty_blocks(match scale {
                Scale::Large => 100 << 20,
                Scale::Small => 100,
            }),
        ),
        hostile("zstd frames of nothing", STREAM, frame(&[]).repeat(scale.of(100_000))),
        hostile("skippable frames", STREAM, [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0].repeat(scale.of(100_000))),
        hostile("a zstd window of 128 MiB", STREAM, run_frame(27, 40)),
        hostile("a zstd window of 2 GiB", STREAM, run_frame(31, 4)),
        hostile("gzip members of nothing", STREAM, gzip(b"").repeat(scale.of(10_000))),
        hostile("gzip members of one byte", STREAM, gzip(b"x").repeat(scale.of(10_000))),
        hostile("gzip with a name without end", STREAM, gzip_name(scale)),
        hostile("bzip2 streams of nothing", STREAM, bzip2(b"").repeat(scale.of(5_000))),
        hostile("xz streams of nothing", STREAM, xz(b"").repeat(scale.of(5_000))),
        hostile("an xz index of 2^63 records", STREAM, xz_index()),
        hostile(
            "compress, codes of one byte",
            STREAM,
            [&[0x1f, 0x9d, 0x90][..], &vec![0; scale.of(1 << 20)]].concat(),
        ),
        hostile("a VMA of wide devices", VMA, vma_of(scale, 1 << 32)),
        hostile("a VMA header of tiny blobs", VMA, vma_blobs(scale)),
        hostile("tar headers that announce", &["base"], tar_headers(scale.of(4_000), b'x', 0)),
        hostile("tar sizes of exabytes", &["base"], tar_headers(1, b'0', u64::MAX >> 2)),
        hostile("tar records without end", &["base"], tar_headers(1, b'x', 1 << 40)),
    ];
    if scale == Scale::Large {
        all.extend([
            hostile("lzop blocks of 64 MiB", LZOP, lzop_of(2, 64 << 20, false)),
            Hostile { endless: true, ..hostile("a zstd bomb", STREAM, run_frame(17, 12_000)) },
        ]);
    }
    all
}

/// Files that pass for differentials of [`base`], or of the full that is named.
pub fn differentials(scale: Scale) -> Vec<(Option<&'static str>, Hostile)> {
    let one_byte_windows = scale.of(100_000);
    vec![
        (None, hostile("windows of one byte", DELTA, packed(scale, windows_of_one_byte(one_byte_windows)))),
        (
            None,
            Hostile {
                endless: true,
                ..hostile("windows with sections of 32 MiB", DELTA, packed(scale, wide_sections(scale, 3)))
            },
        ),
        (
            None,
            hostile("windows of copies of one byte", DELTA, packed(scale, tiny_copies(scale.of(1 << 20), 2))),
        ),
        (None, hostile("sections that are not there", DELTA, announced(None))),
        (None, hostile("DJW sections that are not there", DELTA, announced(Some(1)))),
        (None, hostile("LZMA sections that are not there", DELTA, announced(Some(2)))),
        (None, hostile("FGK sections that are not there", DELTA, announced(Some(16)))),
        (None, hostile("a header of nothing but slashes", &["vcdiff", "app_header"], slashes(scale))),
        (Some("frames of one byte"), hostile("copies that cover all frames", DELTA, cover(scale))),
        (Some("a zstd bomb"), hostile("a window of 2 GiB on the base", DELTA, wide_window(1 << 30, 2 << 30))),
        (Some("a zstd bomb"), hostile("copies from all over a bomb", DELTA, from_all_over(scale))),
    ]
}

/// The small files that begin a fuzz target's work.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let differentials = differentials(Scale::Small).into_iter().map(|(_, hostile)| hostile);
    let all = fulls(Scale::Small).into_iter().chain(differentials);
    all.filter(|hostile| hostile.targets.contains(&target)).map(|hostile| hostile.file.bytes()).collect()
}

/// What good differentials are made against.
pub fn base() -> Vec<u8> {
    (0..20_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()).collect()
}

// zstd (RFC 8878)

/// A frame of one stored block.
fn frame(content: &[u8]) -> Vec<u8> {
    let block = (content.len() as u32) << 3 | 1;
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, content.len() as u8];
    out.extend(&block.to_le_bytes()[..3]);
    out.extend(content);
    out
}

/// A frame of `blocks` blocks of 128 KiB each, of 4 bytes in the file, that asks for a window of 2^`log` bytes.
fn run_frame(log: u8, blocks: usize) -> Vec<u8> {
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3];
    for n in 1..=blocks {
        let block = 0x2_0000 << 3 | 1 << 1 | u32::from(n == blocks);
        out.extend(&block.to_le_bytes()[..3]);
        out.push(7);
    }
    out
}

/// A frame of blocks of 3 bytes without content, which has no end.
fn empty_blocks(hole: u64) -> Sparse {
    Sparse::new().then(vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0x38]).hole(hole)
}

/// The seek table of `entries` frames of no length.
fn empty_seek_table(entries: u64) -> Sparse {
    let mut head = 0x184D_2A5Eu32.to_le_bytes().to_vec();
    head.extend(((entries * 8 + 9) as u32).to_le_bytes());
    let mut foot = (entries as u32).to_le_bytes().to_vec();
    foot.push(0);
    foot.extend(0x8F92_EAB1u32.to_le_bytes());
    Sparse::new().then(head).hole(entries * 8).then(foot)
}

fn tiny_frames(count: usize) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    (0..count).try_for_each(|n| writer.frame(&frame(&[n as u8]), 1)).expect("memory takes it");
    writer.finish().expect("memory takes it")
}

/// Frames of `compressed` bytes that claim to hold 16 MiB each, with a map or without.
fn claims(count: usize, compressed: usize, with_map: bool) -> Sparse {
    const CLAIMED: usize = 16 << 20;
    let mut first = run_frame(17, (compressed.max(10) - 6) / 4);
    first.resize(compressed, 0);
    let mut start = first;
    let mut entries: Vec<(usize, usize)> = vec![(compressed, CLAIMED)];
    let side = |tag: &[u8; 8], payload: &[u8]| {
        let mut out = 0x184D_2A5Au32.to_le_bytes().to_vec();
        out.extend((8 + payload.len() as u32).to_le_bytes());
        out.extend([&tag[..], payload].concat());
        out
    };
    let (mut rest, mut end) = (count - 1, Vec::new());
    if with_map {
        let header = side(&map::HEADER, &map::encode_header(&[3; 32], false));
        entries.push((header.len(), 0));
        start.extend(header);
        let content = (count * CLAIMED) as u64;
        end = side(&map::END, &End { content, checksum: [0; 16], segments: 0, slots: None }.encode());
    }
    let hole = (rest * compressed) as u64;
    while rest > 0 {
        entries.push((compressed, CLAIMED));
        rest -= 1;
    }
    if with_map {
        entries.push((end.len(), 0));
    }
    let mut table = 0x184D_2A5Eu32.to_le_bytes().to_vec();
    table.extend((entries.len() as u32 * 8 + 9).to_le_bytes());
    for (compressed, content) in &entries {
        table.extend((*compressed as u32).to_le_bytes());
        table.extend((*content as u32).to_le_bytes());
    }
    table.extend((entries.len() as u32).to_le_bytes());
    table.push(0);
    table.extend(0x8F92_EAB1u32.to_le_bytes());
    Sparse::new().then(start).hole(hole).then(end).then(table)
}

/// A map whose segments name clusters of every device, each `step` behind the last.
fn far_clusters(segments: u32, step: u32) -> Vec<u8> {
    let secret = Secret::new(&[3; 32]);
    let mut writer = Writer::new(Vec::new());
    let content = vec![7; 1 << 20];
    let packed = zstd::bulk::compress(&content, 1).expect("memory takes it");
    writer.frame(&packed, content.len()).expect("memory takes it");
    writer.side(map::HEADER, &map::encode_header(&[3; 32], false)).expect("memory takes it");
    for n in 0..segments {
        let mut segment = SegmentMap { start: 0, len: 254 * 4096, ..SegmentMap::default() };
        for device in 1..255u8 {
            let at = u32::from(device - 1) * 4096;
            let number = (n + 1).wrapping_mul(step).wrapping_sub(1);
            segment.clusters.push((Cluster { device, number, mask: 1 }, segment.entries.len() as u32));
            segment.entries.push(Entry {
                at,
                len: 4096,
                fingerprint: secret.fingerprint(&(n << 8 | u32::from(device)).to_le_bytes()),
            });
        }
        writer.side(map::MAP, &segment.encode()).expect("memory takes it");
    }
    let end =
        End { content: content.len() as u64, checksum: [0; 16], segments: segments.into(), slots: None };
    writer.side(map::END, &end.encode()).expect("memory takes it");
    writer.finish().expect("memory takes it")
}

// lzop, gzip, bzip2, xz

/// Blocks of `len` bytes; each in a member of its own, or all in one.
fn lzop_of(count: usize, len: usize, members: bool) -> Vec<u8> {
    let content = vec![7; len];
    let mut writer = lzop::Writer::new(Vec::new(), 1);
    writer.write_all(&[7]).and_then(|()| writer.flush()).expect("memory takes it");
    let whole = writer.finish().expect("memory takes it");
    // A header, a block of one byte with its header, and four zeros.
    let (header, _) = whole.split_at(whole.len() - 4 - 13);
    let mut packed = vec![0; len + len / 16 + 67];
    let n = lzo::Encoder::new().compress(&content, &mut packed);
    let data = if n < len { &packed[..n] } else { &content[..] };
    let sum = simd_adler32::adler32(&&content[..]);
    let mut block: Vec<u8> =
        [len as u32, data.len() as u32, sum].iter().flat_map(|n| n.to_be_bytes()).collect();
    block.extend(data);
    match members {
        true => [header, &block, &[0; 4]].concat().repeat(count),
        false => [header, &block.repeat(count), &[0; 4]].concat(),
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).and_then(|()| encoder.finish()).expect("memory takes it")
}

fn gzip_name(scale: Scale) -> Sparse {
    let mut head = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
    head.extend(vec![b'n'; scale.of(8 << 20)]);
    head.into()
}

fn bzip2(content: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(content).and_then(|()| encoder.finish()).expect("memory takes it")
}

fn xz(content: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(content).and_then(|()| encoder.finish()).expect("memory takes it")
}

/// A stream whose index begins where its first block should, and claims records for ever.
fn xz_index() -> Vec<u8> {
    let mut bytes = xz(b"")[..12].to_vec();
    bytes.push(0);
    bytes.extend([0xff; 8]);
    bytes.push(0x7f);
    bytes.extend([0x81; 100]);
    bytes
}

// VMA and tar

fn vma_header(devices: u8, clusters: u64) -> Header {
    Header {
        uuid: [5; 16],
        ctime: 1_700_000_000,
        configs: vec![Config { name: "qemu-server.conf".into(), data: b"memory: 512\n".to_vec() }],
        devices: (1..=devices)
            .map(|id| Device { id, name: format!("drive-scsi{id}"), size: clusters * vma::CLUSTER as u64 })
            .collect(),
    }
}

/// An archive whose clusters, all of zeros, lie far apart on every device.
fn vma_of(scale: Scale, clusters: u64) -> Vec<u8> {
    let devices = if scale == Scale::Large { 254 } else { 2 };
    let header = vma_header(devices, clusters);
    let mut out = header.encode().expect("a header");
    let mut next = (0..scale.of(1500) as u32).flat_map(|n| {
        (1..=devices).map(move |device| vma::Cluster { device, number: n.wrapping_mul(40_001 * 64), mask: 0 })
    });
    loop {
        let part: Vec<_> = next.by_ref().take(59).collect();
        if part.is_empty() {
            return out;
        }
        out.extend(ExtentHeader::new(header.uuid, &part).encode());
    }
}

/// A header of 16 MiB, full of blobs of no length.
fn vma_blobs(scale: Scale) -> Vec<u8> {
    use md5::{Digest, Md5};
    let mut bytes = vma_header(1, 16).encode().expect("a header");
    let len = if scale == Scale::Large { vma::MAX_HEADER } else { bytes.len() };
    bytes.resize(len, 0);
    bytes[52..56].copy_from_slice(&((len - vma::FIXED_HEADER) as u32).to_be_bytes());
    bytes[56..60].copy_from_slice(&(len as u32).to_be_bytes());
    bytes[32..48].fill(0);
    let sum: [u8; 16] = Md5::digest(&bytes).into();
    bytes[32..48].copy_from_slice(&sum);
    bytes
}

fn tar_headers(count: usize, kind: u8, size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..4].copy_from_slice(b"name");
    block[124] = 0x80;
    block[128..136].copy_from_slice(&size.to_be_bytes());
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..262].copy_from_slice(b"ustar");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.repeat(count)
}

// VCDIFF (RFC 3284)

fn header(change: impl FnOnce(&mut AppHeader)) -> Vec<u8> {
    let mut app = AppHeader { base_name: b"base".to_vec(), ..AppHeader::default() };
    change(&mut app);
    write_header(Some(&app.encode()), None)
}

fn packed(scale: Scale, delta: Vec<u8>) -> Vec<u8> {
    match scale {
        Scale::Large => zstd::encode_all(&delta[..], 1).expect("memory takes it"),
        Scale::Small => delta,
    }
}

fn windows_of_one_byte(count: usize) -> Vec<u8> {
    let mut window = Vec::new();
    Window { target_len: 1, data: vec![7], inst: vec![2], ..Window::default() }.encode(None, &mut window);
    [header(|_| ()), window.repeat(count)].concat()
}

/// Windows of 16 MiB whose instructions mostly do nothing.
fn wide_sections(scale: Scale, count: usize) -> Vec<u8> {
    let len = scale.of(16 << 20);
    // RUN of no length: two bytes of instructions, one of data.
    let empty = (len - 1) / 2;
    let mut inst = vec![0; 2 * empty];
    inst.push(0);
    varint::write(&mut inst, len as u64);
    let mut window = Vec::new();
    Window { target_len: len, data: vec![7; empty + 1], inst, ..Window::default() }.encode(None, &mut window);
    [header(|_| ()), window.repeat(count)].concat()
}

/// Windows that copy byte by byte from the source's front and end in turn.
fn tiny_copies(len: usize, count: usize) -> Vec<u8> {
    let source = Some(Segment { pos: 0, len: 80_000 });
    let (mut inst, mut addr) = (Vec::new(), Vec::new());
    for n in 0..len {
        // COPY by address, size follows.
        inst.extend([19, 1]);
        varint::write(&mut addr, if n % 2 == 0 { n as u64 % 40_000 } else { 79_999 - n as u64 % 40_000 });
    }
    let mut window = Vec::new();
    Window { target_len: len, source, inst, addr, ..Window::default() }.encode(None, &mut window);
    [header(|_| ()), window.repeat(count)].concat()
}

/// A window of 16 MiB whose sections are announced, compressed by the secondary compressor of this number, and missing.
fn announced(secondary: Option<u8>) -> Vec<u8> {
    let mut out = vec![0xd6, 0xc3, 0xc4, 0];
    let compressed = match secondary {
        Some(id) => {
            out.extend([1, id]);
            7
        }
        None => {
            out.push(0);
            0
        }
    };
    let (len, section) = (16u64 << 20, 16u64 << 20);
    let mut body = Vec::new();
    varint::write(&mut body, len);
    body.push(compressed);
    (0..3).for_each(|_| varint::write(&mut body, section));
    out.push(0);
    varint::write(&mut out, body.len() as u64 + 3 * section);
    out.extend(body);
    varint::write(&mut out, len);
    out.extend([7; 20]);
    out
}

fn slashes(scale: Scale) -> Vec<u8> {
    write_header(Some(&vec![b'/'; scale.of(1 << 20)]), None)
}

/// Windows of 256 copies, each of all of a base of one-byte frames.
fn cover(scale: Scale) -> Vec<u8> {
    let (frames, copies) = (scale.of(100_000), scale.of(40));
    let source = Some(Segment { pos: 0, len: frames as u64 });
    let mut inst = Vec::new();
    for _ in 0..copies {
        inst.push(19);
        varint::write(&mut inst, frames as u64);
    }
    let addr = vec![0; copies];
    let mut window = Vec::new();
    Window { target_len: frames * copies, source, inst, addr, ..Window::default() }.encode(None, &mut window);
    packed(scale, [header(|_| ()), window.repeat(scale.of(16))].concat())
}

/// One byte from far behind in a base, of which much is to be kept.
fn wide_window(at: u64, window: u64) -> Vec<u8> {
    let mut out = header(|app| app.base_window = Some(window));
    let source = Some(Segment { pos: at, len: 1 });
    Window { target_len: 1, source, inst: vec![19, 1], addr: vec![0], ..Window::default() }
        .encode(None, &mut out);
    out
}

/// All of a base once and then once more, so that all of it has to be kept.
fn from_all_over(scale: Scale) -> Vec<u8> {
    let mut out = header(|app| {
        app.base_window = Some(16 << 20);
        app.base_far = true;
    });
    let len = 1 << 20;
    for n in (0..scale.of(1500) as u64).rev() {
        let source = Some(Segment { pos: n * len, len });
        let mut inst = vec![19];
        varint::write(&mut inst, len);
        Window { target_len: len as usize, source, inst, addr: vec![0], ..Window::default() }
            .encode(None, &mut out);
    }
    out
}
