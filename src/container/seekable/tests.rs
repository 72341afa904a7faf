use std::io::Write;
use std::sync::Arc;

use super::*;
use crate::container::extent::Extent;
use crate::container::read_at::ReadAt;

pub(super) fn sample() -> (Vec<u8>, Vec<u8>) {
    let content: Vec<u8> = (0..300_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
    let mut w = Writer::new(Vec::new());
    let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
    zstd.include_checksum(true).unwrap();
    for part in content.chunks(100_000) {
        w.frame(&zstd.compress(part).unwrap(), part.len()).unwrap();
        w.side(*b"testtest", &part[..10]).unwrap();
    }
    (content, w.finish().unwrap())
}

fn open(bytes: &[u8]) -> io::Result<Option<Arc<Seekable>>> {
    let mut f = tempfile::tempfile().unwrap();
    f.write_all(bytes).unwrap();
    Ok(Seekable::open(f)?.map(Arc::new))
}

/// A reader of the content that decompresses frames to their ends, or only their fronts.
fn reader(file: &[u8], fronts: bool) -> FrameReader {
    let options = ReadOptions { fronts, ..ReadOptions::default() };
    open(file).unwrap().unwrap().reader(options)
}

#[test]
fn reads_at_any_place_and_as_a_plain_stream() {
    let (content, file) = sample();
    assert_eq!(zstd::decode_all(&file[..]).unwrap(), content);
    let s = open(&file).unwrap().unwrap();
    let reader = s.reader(ReadOptions::default());
    assert_eq!((s.size(), reader.size()), (content.len() as u64, content.len() as u64));
    for (pos, len) in [(0, 1), (99_999, 2), (250_000, 500_000), (1_199_999, 1), (0, 1_200_000), (7, 0)] {
        let mut buf = vec![0; len];
        reader.read_at(pos as u64, &mut buf).unwrap();
        assert_eq!(buf, content[pos..pos + len]);
    }
    let past = reader.read_at(1_199_999, &mut [0; 2]).unwrap_err();
    assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!([0, 99_999, 100_000, 1_199_999].map(|pos| s.frame_at(pos)), [0, 0, 1, 11]);
    assert_eq!(s.sides(), 12);
    assert_eq!(s.side(3, 10).unwrap(), (*b"testtest", content[300_000..300_010].to_vec()));
    assert!(s.side(3, 9).is_err());
}

#[test]
fn no_more_than_the_front_that_is_read_is_decompressed() {
    // Blocks of at most 128 KiB: 25 in the first frame.
    let content: Vec<u8> = (0..800_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
    let mut w = Writer::new(Vec::new());
    let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
    zstd.include_checksum(true).unwrap();
    let frame = zstd.compress(&content).unwrap();
    w.frame(&frame, content.len()).unwrap();
    let file = w.finish().unwrap();
    let have = |s: &FrameReader, range| s.frame(0, range).map(|content| content.bytes.len());

    assert_eq!(have(&reader(&file, false), 0..10).unwrap(), content.len());
    let s = reader(&file, true);
    for (range, about) in
        [(0..10, 10), (500_000..500_001, 500_001), (3..4, 500_001), (1_000_000..1_500_000, 1_500_000)]
    {
        let len = have(&s, range.clone()).unwrap();
        assert!((about..about + (128 << 10)).contains(&len), "{range:?}: {len}");
        let mut buf = vec![0; range.len()];
        s.read_at(range.start as u64, &mut buf).unwrap();
        assert_eq!(buf, content[range]);
    }
    s.expect(0, &[(0, 10), (2_000_000, 10), (2_400_000, 100)].map(|(pos, len)| Extent::new(pos, len)));
    assert!((2_400_100..2_600_000).contains(&have(&s, 1_500_000..1_700_000).unwrap()));
    assert_eq!(have(&s, 7..3_200_000).unwrap(), content.len());

    // Damaged at its end, where the checksum is: that shows where it is read.
    let mut bad = file.clone();
    bad[frame.len() - 1] ^= 1;
    assert!(reader(&bad, false).read_at(0, &mut [0; 10]).is_err());
    let s = reader(&bad, true);
    s.read_at(0, &mut [0; 10]).unwrap();
    assert!(s.read_at(3_199_999, &mut [0]).is_err());
    s.read_at(0, &mut [0; 10]).unwrap();
    assert!(s.verify(Extent::new(0, 1)).is_err());
}

#[test]
fn frames_that_are_not_what_the_table_says_are_errors() {
    let frame = zstd::bulk::compress(&[7; 1000], 1).unwrap();
    let read = |frame: &[u8], content: usize, fronts: bool| {
        let mut w = Writer::new(Vec::new());
        w.frame(frame, content).unwrap();
        let s = reader(&w.finish().unwrap(), fronts);
        s.read_at(0, &mut vec![0; content])?;
        s.read_at(0, &mut [0])
    };
    for fronts in [false, true] {
        read(&frame, 1000, fronts).unwrap();
        // Several in the place of one.
        read(&[&frame[..], &frame].concat(), 2000, fronts).unwrap();
        assert!(read(&frame, 999, fronts).is_err());
        assert!(read(&frame, 1001, fronts).is_err());
        assert!(read(&[&frame[..], b"x"].concat(), 1000, fronts).is_err());
        (1..frame.len()).for_each(|cut| assert!(read(&frame[..cut], 1000, fronts).is_err(), "{cut}"));
    }
}

#[test]
fn every_truncation_and_flip_of_the_table_is_noticed_or_harmless() {
    let (content, file) = sample();
    for cut in 1..200 {
        // No footer at the end any more: not seekable, or damaged.
        assert!(!matches!(open(&file[..file.len() - cut]), Ok(Some(_))), "cut {cut}");
    }
    for at in file.len() - 250..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 0x20;
        if let Ok(Some(s)) = open(&bad) {
            let mut buf = vec![0; s.size().min(2 << 20) as usize];
            if s.reader(ReadOptions::default()).read_at(0, &mut buf).is_ok() {
                assert!(content.starts_with(&buf), "flip at {at}");
            }
        }
    }
}

#[test]
fn a_damaged_frame_is_an_error_where_it_is_read() {
    let (content, mut file) = sample();
    file[30] ^= 1;
    let s = reader(&file, false);
    assert!(s.read_at(0, &mut [0; 10]).is_err());
    let mut buf = [0; 10];
    s.read_at(500_000, &mut buf).unwrap();
    assert_eq!(buf, content[500_000..500_010]);
}
