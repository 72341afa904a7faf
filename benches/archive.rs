//! `archive ORDER SEED ARCHIVE NAME=IMAGE...`: writes raw images into a VMA archive, for the data that is measured. ORDER is
//! that of the clusters: `bursts`, `sequential`, or `interleaved` (see [`Order`]); SEED seeds what is left to chance.

use std::fs::File;
use std::io::{self, BufWriter};

use pve_diff_backup::vma::{Device, Header, Order, write_archive};

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [order, seed, archive, disks @ ..] = &words[..] else {
        return Err(io::Error::other(
            "usage: archive bursts|sequential|interleaved SEED ARCHIVE NAME=IMAGE...",
        ));
    };
    let seed: u64 = seed.parse().map_err(io::Error::other)?;
    let order = match order.as_str() {
        "bursts" => Order::Parallel(seed),
        "sequential" => Order::Sequential,
        "interleaved" => Order::Workers(seed),
        other => return Err(io::Error::other(format!("{other} is no order"))),
    };
    let (mut devices, mut images) = (Vec::new(), Vec::new());
    for (id, disk) in (1..).zip(disks) {
        let (name, image) = disk.split_once('=').ok_or_else(|| io::Error::other("a disk is NAME=IMAGE"))?;
        let image = File::open(image)?;
        devices.push(Device { id, name: name.into(), size: image.metadata()?.len() });
        images.push(image);
    }
    // An archive has a UUID of its own, which stands in the header of each of its extents.
    let uuid = u128::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_le_bytes();
    let header = Header { uuid, ctime: 0, configs: Vec::new(), devices };
    write_archive(BufWriter::new(File::create(archive)?), header, &mut images, order)
        .map_err(io::Error::other)?;
    Ok(())
}
