//! `unpack FILE [THREADS]`: reads a compressed file to its end, for measure.py. THREADS only matter for lzop.

use std::fs::File;
use std::io::{self, Read};

use pve_diff_backup::container::{decoder, lzop};

fn main() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    let file = File::open(words.next().ok_or_else(|| io::Error::other("usage: unpack FILE [THREADS]"))?)?;
    let mut content: Box<dyn Read> = match words.next() {
        Some(threads) => Box::new(lzop::Reader::new(file, threads.parse().map_err(io::Error::other)?)),
        None => decoder(Box::new(file))?.1,
    };
    let mut buf = vec![0; 1 << 20];
    while content.read(&mut buf)? > 0 {}
    Ok(())
}
