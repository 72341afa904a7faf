//! Damaged, truncated and hostile deltas.

use pve_diff_backup::vcdiff::*;

use crate::tools::*;

fn small() -> (Vec<u8>, Vec<u8>, Encode) {
    let (base, target) = pair(21, 2000);
    let app = AppHeader { base_name: b"b".to_vec(), end_record: true, ..AppHeader::default() };
    (base, target, Encode { window: 700, app: Some(app), end: true, ..Encode::default() })
}

#[test]
fn every_truncation_is_an_error() {
    let (base, target, form) = small();
    for secondary in [None, Some((Secondary::Lzma, 1)), Some((Secondary::Djw, 9)), Some((Secondary::Fgk, 0))]
    {
        let delta = Encode { secondary, ..form.clone() }.run(&base, &target);
        assert_eq!(decode(&delta, &base).unwrap(), target);
        for len in 0..delta.len() {
            assert!(decode(&delta[..len], &base).is_err(), "cut to {len} of {}", delta.len());
        }
    }
}

#[test]
fn a_cut_at_a_window_boundary_is_named() {
    let (base, target, form) = small();
    let delta = form.run(&base, &target);
    let mut reader = Reader::new(&delta[..], Limits::default()).unwrap();
    let mut boundaries = vec![reader.offset()];
    while reader.next_item().unwrap().is_some() {
        boundaries.push(reader.offset());
    }
    assert_eq!(boundaries.pop(), Some(delta.len() as u64));
    assert!(boundaries.len() > 2);
    for len in boundaries {
        assert!(
            matches!(decode(&delta[..len as usize], &base), Err(Error::MissingEnd { offset }) if offset == len)
        );
    }
}

#[test]
fn every_flipped_byte_is_an_error_or_harmless() {
    let (base, target, form) = small();
    for secondary in [None, Some((Secondary::Lzma, 1)), Some((Secondary::Djw, 9)), Some((Secondary::Fgk, 0))]
    {
        let delta = Encode { secondary, ..form.clone() }.run(&base, &target);
        for at in 0..delta.len() {
            for flip in [1, 2, 4, 8, 16, 32, 64, 128, 0xff] {
                let mut damaged = delta.clone();
                damaged[at] ^= flip;
                if let Ok(decoded) = decode(&damaged, &base) {
                    assert!(decoded == target, "wrong output after flip {flip:#x} at {at}");
                }
            }
        }
    }
}

/// The same for what xdelta3 writes. Its deltas have no end mark, so a cut at a window boundary is a shorter
/// target, but never a wrong one.
#[test]
fn damaged_deltas_of_xdelta3_never_give_wrong_output() {
    if !have_xdelta3() {
        return;
    }
    let (base, target) = pair(22, 3000);
    let dir = Dir::new();
    dir.write("base", &base);
    dir.write("target", &target);
    for form in ["none", "lzma", "djw", "djw9", "fgk"] {
        dir.xdelta3_ok(&["-e", "-f", "-q", "-S", form, "-s", "base", "target", "delta"]);
        let delta = dir.read("delta");
        for len in 0..delta.len() {
            if let Ok(decoded) = decode(&delta[..len], &base) {
                assert!(decoded.is_empty(), "{form} cut to {len}");
            }
        }
        for at in 0..delta.len() {
            for flip in [1, 16, 128, 0xff] {
                let mut damaged = delta.clone();
                damaged[at] ^= flip;
                if let Ok(decoded) = decode(&damaged, &base) {
                    assert!(decoded == target, "{form}: wrong output after flip {flip:#x} at {at}");
                }
            }
        }
    }
}

#[test]
fn a_damaged_or_wrong_base_is_an_error() {
    let (base, target, form) = small();
    let delta = form.run(&base, &target);
    for at in 0..base.len() {
        let mut damaged = base.clone();
        damaged[at] ^= 1;
        if let Ok(decoded) = decode(&delta, &damaged) {
            assert!(decoded == target, "byte {at}");
        }
        if let Ok(decoded) = decode(&delta, &base[..at]) {
            assert!(decoded == target, "cut to {at}");
        }
    }
    assert!(matches!(decode(&delta, b""), Err(Error::Base { .. })));
    // Without checksums in the windows, the end record still tells.
    let unchecked = Encode { adler: false, ..form }.run(&base, &target);
    let other: Vec<u8> = base.iter().map(|b| !b).collect();
    assert!(matches!(decode(&unchecked, &other), Err(Error::WrongTarget { .. })));
}

/// Bytes of a delta: header with these indicator bits, then the rest.
fn raw(indicator: u8, rest: &[&[u8]]) -> Vec<u8> {
    [&MAGIC[..], &[indicator], &rest.concat()].concat()
}

/// The largest integers of 32 and 64 bits, and one beyond.
const MAX_32: &[u8] = &[0x8f, 0xff, 0xff, 0xff, 0x7f];
const MAX_64: &[u8] = &[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
const TOO_LONG: &[u8] = &[0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];

/// CVE-2014-9765: xdelta3 before 3.0.9 split the application header into a fixed number of parts.
#[test]
fn application_headers_of_any_shape() {
    let many = "G/".repeat(2000);
    for text in
        [many.as_bytes(), b"", b"/", b"////", &[b'a'; 5000], &[0; 100], &[0xff; 300], b"a/b/c/d/e/f\0\0/"]
    {
        let mut delta = write_header(Some(text), None);
        assert_eq!(
            Reader::new(&delta[..], Limits::default()).unwrap().header().app_header.as_deref(),
            Some(text)
        );
        let mut builder = WindowBuilder::new();
        builder.add(b"target");
        builder.finish(None, &mut delta);
        assert_eq!(decode(&delta, b"").unwrap(), b"target");
    }
    for len in [MAX_32, MAX_64] {
        let delta = raw(4, &[len, b"short"]);
        assert!(matches!(decode(&delta, b""), Err(Error::TooLarge { .. })));
    }
    assert!(matches!(decode(&raw(4, &[TOO_LONG]), b""), Err(Error::Damaged { .. })));
    assert!(matches!(decode(&raw(4, &[&[5], b"four"]), b""), Err(Error::Truncated { .. })));
}

#[test]
fn unsupported_features_are_named() {
    let what = |delta: Vec<u8>| match decode(&delta, b"") {
        Err(Error::Unsupported { what }) => what,
        other => panic!("{other:?}"),
    };
    assert!(what(raw(2, &[&[4, 3, 4]])).contains("VCD_CODETABLE"));
    assert!(what(raw(1, &[&[9]])).contains("secondary"));
    assert!(what(raw(0, &[&[2, 1, 0, 5]])).contains("VCD_TARGET"));
    assert!(matches!(decode(b"VCD S open-vcdiff", b""), Err(Error::NotVcdiff { .. })));
    assert!(matches!(decode(&[0xd6, 0xc3, 0xc4, b'S', 0], b""), Err(Error::NotVcdiff { .. })));
    assert!(matches!(decode(b"", b""), Err(Error::NotVcdiff { .. })));
    assert!(matches!(decode(&raw(0x10, &[]), b""), Err(Error::Damaged { .. })));
    assert!(matches!(decode(&raw(0, &[&[0x80]]), b""), Err(Error::Damaged { .. })));
}

/// Sizes that are declared but not there, in every field.
#[test]
fn huge_declared_sizes() {
    let fields: [&[u8]; 5] = [&[5], &[0], &[0], &[0], &[0]]; // length, target, data, inst, addr
    for huge in [MAX_32, MAX_64, TOO_LONG, &[0xff; 20], &[0x88, 0x80, 0x80, 0x01]] {
        for place in 0..fields.len() {
            let mut fields = fields;
            fields[place] = huge;
            let delta = raw(0, &[&[0], fields[0], fields[1], &[0], fields[2], fields[3], fields[4]]);
            assert!(decode(&delta, b"").is_err(), "{huge:x?} at {place}");
        }
        // A position that is not there; of a segment that is longer than the base, only what is copied counts.
        for segment in [[&[1], huge], [huge, huge]] {
            let delta = raw(0, &[&[1], segment[0], segment[1], &[8, 1, 0, 0, 2, 1, 19, 1, 0]]);
            assert!(decode(&delta, b"abc").is_err(), "{segment:x?}");
        }
        let delta = raw(0, &[&[1], huge, &[0], &[8, 1, 0, 0, 2, 1, 19, 1, 0]]);
        assert!(decode(&delta, b"abc").is_ok_and(|d| d == b"a") || [TOO_LONG, &[0xff; 20]].contains(&huge));
    }
    // A run of 16 MiB is a legitimate way to say much in a few bytes, one byte more is not.
    let run = |len: usize| {
        let mut delta = write_header(None, None);
        let mut size = Vec::new();
        varint::write(&mut size, len as u64);
        let body = [&size[..], &[0, 1, 1 + size.len() as u8, 0], b"x", &[0], &size].concat();
        delta.push(0);
        varint::write(&mut delta, body.len() as u64);
        delta.extend(body);
        delta
    };
    assert_eq!(decode(&run(MAX_WINDOW), b"").unwrap(), vec![b'x'; MAX_WINDOW]);
    assert!(matches!(decode(&run(MAX_WINDOW + 1), b""), Err(Error::TooLarge { .. })));
    let limits = Limits { window: 1000, ..Limits::default() };
    assert!(decode_with(&run(1000), b"", limits).is_ok());
    assert!(matches!(decode_with(&run(1001), b"", limits), Err(Error::TooLarge { .. })));
}

/// Compressed sections that would swell beyond what their window can use.
#[test]
fn decompression_bombs_are_refused() {
    for mut encoder in [secondary::Encoder::lzma(9), secondary::Encoder::djw(9), secondary::Encoder::fgk()] {
        let mut delta = write_header(None, Some(encoder.kind()));
        let bomb = Window { target_len: 10, data: vec![0; 20 << 20], ..Window::default() };
        bomb.encode(Some(&mut encoder), &mut delta);
        assert!(decode(&delta, b"").is_err(), "{:?}", encoder.kind());
    }
}

#[test]
fn empty_windows_without_end_are_refused() {
    let empty = [0, 5, 0, 0, 0, 0, 0];
    let delta = |n: usize| raw(0, &[&empty.repeat(n)]);
    assert_eq!(decode(&delta(1), b"").unwrap(), b"");
    assert!(matches!(decode(&delta(100), b""), Err(Error::Damaged { .. })));
}

#[test]
fn nothing_may_follow_the_end_record() {
    let (base, target, form) = small();
    let mut delta = form.run(&base, &target);
    delta.push(0);
    assert!(matches!(decode(&delta, &base), Err(Error::Damaged { .. })));
}

#[test]
fn an_end_record_of_another_target_is_refused() {
    let (base, target, form) = small();
    let delta = Encode { end: false, ..form }.run(&base, &target);
    let mut hasher = TargetHasher::new();
    hasher.update(&target[1..]);
    let shorter = [&delta[..], &hasher.finish().encode()].concat();
    assert!(matches!(decode(&shorter, &base), Err(Error::WrongTarget { .. })));
    hasher.update(b"x");
    let other = [&delta[..], &hasher.finish().encode()].concat();
    assert!(matches!(decode(&other, &base), Err(Error::WrongTarget { .. })));
}
