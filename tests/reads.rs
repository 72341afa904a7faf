//! How much of a base is read. The process is counted, so that this test has one of its own.

use std::fs;
use std::io::{Cursor, Write};

use pve_diff_backup::container::source::Pass;
use pve_diff_backup::container::{Compression, encoder};
use pve_diff_backup::matching::base::Base;
use pve_diff_backup::matching::restore::{Differential, Options};
use pve_diff_backup::vcdiff::{WindowBuilder, write_header};

#[test]
fn jumps_in_a_one_way_base_do_not_read_it_again_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let full: Vec<u8> = (0..12 << 17u64)
        .flat_map(|n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n << 40).to_le_bytes())
        .collect();
    let base = dir.path().join("base.gz");
    let mut gz = encoder(Box::new(fs::File::create(&base).unwrap()), Compression::Gzip(1), 1).unwrap();
    gz.write_all(&full).unwrap();
    gz.finish().unwrap();

    let (mut delta, mut target) = (write_header(None, None), Vec::new());
    let mut window = WindowBuilder::new();
    for n in 0..3000 {
        let from = if n % 2 == 0 { n * 1000 } else { (12 << 20) - 500 - n * 1000 };
        window.copy_source(from as u64, 500);
        window.finish(None, &mut delta);
        target.extend_from_slice(&full[from..from + 500]);
    }
    let path = dir.path().join("delta");
    fs::write(&path, &delta).unwrap();
    for again in [false, true] {
        let opened = Differential::open(Box::new(Cursor::new(delta.clone()))).unwrap();
        let opened =
            if again { opened.with(Pass::from_here(&fs::File::open(&path).unwrap())) } else { opened };
        let options = Options { threads: 1, window: 1 << 20, check_base: false };
        let mut restored = Vec::new();
        let before = read_by_me();
        opened.restore(Some(Base::open(&base).unwrap()), options, |bytes| restored.write_all(bytes)).unwrap();
        assert!(restored == target);
        let read = read_by_me() - before;
        assert!(read < 8 * full.len() as u64, "{read} bytes were read");
    }
}

/// Bytes that this process has read so far.
fn read_by_me() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}
