//! A small VM and a small container, as vzdump's stream of one day.

use std::fs;
use std::io::Cursor;
use std::process::Command;

use pve_diff_backup::vma::{Config, Device, Header, Order, write_archive};

/// A VM of one disk, in QEMU's order of this time; `day` changes a part of the disk.
pub fn machine(day: u8, order: u64) -> Vec<u8> {
    let mut disk: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    disk[1_000_000..1_000_100].fill(day);
    disk.resize(8 << 20, 0);
    let header = Header {
        uuid: [day; 16],
        ctime: 1_763_766_000 + i64::from(day),
        configs: vec![Config { name: "qemu-server.conf".into(), data: format!("memory: {day}\n").into() }],
        devices: vec![Device { id: 1, name: "drive-scsi0".into(), size: disk.len() as u64 }],
    };
    write_archive(Vec::new(), header, &mut [Cursor::new(disk)], Order::Workers(order)).unwrap()
}

/// A container's tar; `day` changes a small file.
pub fn container(day: u8) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(dir.path().join("etc/day"), day.to_string()).unwrap();
    fs::write(dir.path().join("data"), (0..400_000).flat_map(u32::to_le_bytes).collect::<Vec<_>>()).unwrap();
    let tar = Command::new("tar").args(["c", "--sort=name", "-C"]).arg(dir.path()).arg(".").output().unwrap();
    assert!(tar.status.success());
    tar.stdout
}
