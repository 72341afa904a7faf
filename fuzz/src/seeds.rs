//! Good inputs to start from, made by our own writers; small, so that every byte of them is changed sometimes.

pub mod dirty;
pub mod look;

use std::io::{Cursor, Write};

use pve_diff_backup::container::seekable::Writer as SeekableWriter;
use pve_diff_backup::container::{self, Compression, lzo, lzop, lzw};
use pve_diff_backup::matching::full;
use pve_diff_backup::vcdiff::{
    AppHeader, TargetHasher, WindowBuilder, secondary::Encoder, varint, write_header,
};
use pve_diff_backup::vma::{Config, Device, Header, Order, write_archive};

use super::Shared;

/// What deltas are made against: words, noise, a run.
pub fn base() -> Vec<u8> {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut base: Vec<u8> = (0..40).flat_map(|n| format!("word{} ", n * n).into_bytes()).collect();
    base.extend((0..300).map(|_| noise()));
    base.extend([0; 100]);
    base
}

/// A target that has much of the base, moved, and something new.
pub fn target() -> Vec<u8> {
    let base = base();
    [&base[200..], b"something new, something new, something new", &base[..260], &[7; 50]].concat()
}

/// The seeds of a target.
///
/// # Panics
/// If there is no such target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "vcdiff" | "peer_xdelta3" => deltas(),
        "secondary" => sections(),
        "app_header" => app_headers(),
        "lzop" | "peer_lzop" => vec![packed(Compression::Lzo), two_lzop_members()],
        "lzo" => [base(), self::target(), vec![0; 1000]].iter().map(|data| lzo_of(data)).collect(),
        "seekable" => vec![seek_table(), mapped()],
        "base" => [containers(), vec![mapped(), seek_table(), base(), archive(Order::Sequential)]].concat(),
        "container" => containers(),
        "vma" => vec![archive(Order::Sequential), archive(Order::Parallel(2))],
        "names" => names(),
        "nbd" => dirty::servers(),
        "compose" => dirty::composes(),
        "tar" => look::archives(),
        "nbd_server" => look::clients(),
        _ => panic!("no target {target}"),
    }
}

fn deltas() -> Vec<Vec<u8>> {
    let (source, target) = (base(), target());
    let header = AppHeader { base_name: b"base".to_vec(), end_record: true, ..AppHeader::default() };
    let encoders: [Option<Encoder>; 4] =
        [None, Some(Encoder::lzma(1)), Some(Encoder::djw(9)), Some(Encoder::fgk())];
    encoders
        .into_iter()
        .map(|mut encoder| {
            let mut out = write_header(Some(&header.encode()), encoder.as_ref().map(Encoder::kind));
            let (mut hasher, mut window) = (TargetHasher::new(), WindowBuilder::new());
            // Every kind of instruction, in two windows.
            let first = source.len() - 200;
            window.copy_source(200, first - 40);
            window.add(&target[first - 40..first + 43]);
            hasher.update(&target[..first + 43]);
            window.finish_with(
                Some(simd_adler32::adler32(&&target[..first + 43])),
                encoder.as_mut(),
                &mut out,
            );
            let second = &target[first + 43..];
            window.copy_source(0, 100);
            window.copy_source(100, 100);
            window.add(&second[200..260]);
            window.run(7, 20);
            window.copy_target(260, 30);
            hasher.update(second);
            window.finish_with(Some(simd_adler32::adler32(&second)), encoder.as_mut(), &mut out);
            out.extend(hasher.finish().encode());
            out
        })
        .collect()
}

/// Compressed sections, behind a byte that tells the compressor.
fn sections() -> Vec<Vec<u8>> {
    let data = target();
    let mut seeds = Vec::new();
    for (kind, mut encoder) in [Encoder::djw(9), Encoder::lzma(1), Encoder::fgk()].into_iter().enumerate() {
        // A window of nothing but data is a header, the compressed section and three bytes of an ADD.
        let mut out = write_header(None, Some(encoder.kind()));
        let header = out.len();
        let mut window = WindowBuilder::new();
        window.add(&data);
        window.finish_with(None, Some(&mut encoder), &mut out);
        // Indicator, length, target's length, delta indicator, and the lengths of the sections.
        let mut rest = &out[header + 1..];
        let mut number = || varint::read(&mut rest).expect("a number of our own") as usize;
        number();
        number();
        number();
        let [data_len, ..] = [number(), number(), number()];
        let section = &rest[..data_len];
        // 252..=254 leave all in the first window.
        seeds.push([&[252 + kind as u8][..], section].concat());
    }
    seeds
}

fn app_headers() -> Vec<Vec<u8>> {
    let full = AppHeader {
        target_name: b"target".to_vec(),
        base_name: b"base.zst".to_vec(),
        compressors: [b"G9".to_vec(), b"S".to_vec()],
        base_len: Some(123_456),
        base_identity: Some([7; 16]),
        base_form: Some("map".into()),
        base_head: Some([8; 16]),
        end_record: true,
        blake3: [Some([9; 32]), Some([10; 32])],
        ..AppHeader::default()
    };
    let many = "G/".repeat(300).into_bytes();
    vec![full.encode(), AppHeader::default().encode(), b"a//b/S".to_vec(), many]
}

fn packed(how: Compression) -> Vec<u8> {
    let out = Shared::default();
    let mut encoder = container::encoder(Box::new(out.clone()), how, 1).expect("a writer in memory");
    encoder.write_all(&target()).and_then(|()| encoder.finish()).expect("memory takes it");
    out.take()
}

fn two_lzop_members() -> Vec<u8> {
    let mut writer = lzop::Writer::new(Vec::new(), 1);
    writer.write_all(&base()).and_then(|()| writer.flush()).expect("memory takes it");
    writer.write_all(&target()).expect("memory takes it");
    [writer.finish().expect("memory takes it"), packed(Compression::Lzo)].concat()
}

fn lzo_of(data: &[u8]) -> Vec<u8> {
    let mut packed = vec![0; data.len() + data.len() / 16 + 67];
    let len = lzo::Encoder::new().compress(data, &mut packed);
    packed.truncate(len);
    packed
}

/// Every form of compressed file.
fn containers() -> Vec<Vec<u8>> {
    let mut z = lzw::Writer::new(Vec::new());
    z.write_all(&target()).expect("memory takes it");
    vec![
        packed(Compression::Zstd(1)),
        packed(Compression::Lzo),
        packed(Compression::Gzip(6)),
        z.finish().expect("memory takes it"),
    ]
}

/// A full backup with a map.
fn mapped() -> Vec<u8> {
    let out = Shared::default();
    full::compress(Cursor::new(target()), out.clone(), Compression::Zstd(1), 1).expect("memory takes it");
    out.take()
}

/// A seekable file of somebody else.
fn seek_table() -> Vec<u8> {
    let data = target();
    let mut writer = SeekableWriter::new(Vec::new());
    for part in data.chunks(300) {
        let mut frame = Vec::new();
        let out = Shared::default();
        let mut encoder =
            container::encoder(Box::new(out.clone()), Compression::Zstd(1), 1).expect("a writer in memory");
        encoder.write_all(part).and_then(|()| encoder.finish()).expect("memory takes it");
        frame.extend(out.take());
        writer.frame(&frame, part.len()).expect("memory takes it");
        writer.side(*b"somebody", &part[..20]).expect("memory takes it");
    }
    writer.finish().expect("memory takes it")
}

/// An archive of two small disks.
fn archive(order: Order) -> Vec<u8> {
    let disks = [[base(), vec![0; 9000], target()].concat(), target()];
    let header = Header {
        uuid: [5; 16],
        ctime: 1_700_000_000,
        configs: vec![Config { name: "qemu-server.conf".into(), data: b"memory: 512\n".to_vec() }],
        devices: (1..)
            .zip(&disks)
            .map(|(id, disk)| Device { id, name: format!("drive-scsi{id}"), size: disk.len() as u64 })
            .collect(),
    };
    let mut images: Vec<_> = disks.iter().map(Cursor::new).collect();
    write_archive(Vec::new(), header, &mut images, order).expect("memory takes it")
}

fn names() -> Vec<Vec<u8>> {
    [
        "vzdump-qemu-101-2026_11_01-02_00_00.vma.zst",
        "vzdump-lxc-102-2026_11_01-02_00_00.tar.gz",
        "vzdump-qemu-101-2026_11_01-02_00_00.vma.lzo--differential-2026_11_05-02_00_00.vcdiff.zst",
        "vzdump-openvz-107-2013_01_01-00_00_00.tgz",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec()
}
