//! Damaged lzop files must not cost memory. Alone in its program, because the peak is that of a process.

use std::fs::File;
use std::io::{self, Write};

use pve_diff_backup::container::lzop::{Reader, Seekable, Writer};

/// Peak resident memory of this process so far, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn seek(file: &[u8]) -> io::Result<()> {
    let mut disk: File = tempfile::tempfile()?;
    disk.write_all(file)?;
    let disk = Seekable::open(disk)?;
    let mut buffer = [0; 4096];
    for at in (0..disk.len()).step_by(1 << 20) {
        let count = buffer.len().min((disk.len() - at) as usize);
        disk.read_at(at, &mut buffer[..count])?;
    }
    Ok(())
}

#[test]
fn a_flipped_byte_or_a_hostile_length_costs_no_memory() {
    let mut writer = Writer::new(Vec::new(), 1);
    writer.write_all("hello, hello, hello! ".repeat(200).as_bytes()).unwrap();
    writer.write_all(&[0; 3000]).unwrap();
    let good = writer.finish().unwrap();
    let before = peak();
    let mut errors = 0;
    let mut try_all = |file: &[u8]| {
        errors += u32::from(io::copy(&mut Reader::new(file, 1), &mut io::sink()).is_err());
        errors += u32::from(io::copy(&mut Reader::new(file, 2), &mut io::sink()).is_err());
        errors += u32::from(seek(file).is_err());
    };
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            try_all(&bad);
        }
    }
    // A block header at offset 38, then as much packed data as there is.
    for len in [64 << 20, (64 << 20) + 1, u32::MAX, u32::MAX - 1, 1 << 25] {
        for packed_len in [1, 1000, 64 << 20, u32::MAX] {
            let mut bad = good.clone();
            bad[38..42].copy_from_slice(&u32::to_be_bytes(len));
            bad[42..46].copy_from_slice(&u32::to_be_bytes(packed_len));
            try_all(&bad);
        }
    }
    assert!(errors > 1000, "damage is noticed: {errors}");
    let growth = peak() - before;
    assert!(growth < 64 << 10, "peak memory grew by {growth} KiB");
}
