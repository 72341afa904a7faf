//! A small VM with a dirty block on each disk, as QEMU exports it.

use std::io::{Cursor, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::LazyLock;

use pve_diff_backup::container::{self, Compression};
use pve_diff_backup::matching::base::Base;
use pve_diff_backup::matching::compose::{self, Disk, Previous};
use pve_diff_backup::matching::{Error, differential, full as matching_full};
use pve_diff_backup::nbd::{self, Client, Limits};
use pve_diff_backup::vma::{Config, Device, Header, Order, write_archive};

use super::super::{Shared, file};

/// The block of each disk that is dirty.
const DIRTY: std::ops::Range<usize> = 4096..8192;

/// The inputs of the target `compose`.
pub fn composes() -> Vec<Vec<u8>> {
    let base = [&[0][..], &full()].concat();
    let previous = [None, Some(differential(None)), Some(all_read())];
    let previous = previous.iter().map(|previous| [&[1][..], &differential(previous.as_deref())].concat());
    [base].into_iter().chain(previous).chain([[&[1][..], &all_read()].concat()]).collect()
}

/// The names and contents of the disks when the full backup was made, and later.
fn disks(later: bool) -> Vec<(String, Vec<u8>)> {
    let mut disks = vec![vec![0; 3 * 65536 + 8192], super::target().repeat(20)];
    disks[0][65536..65536 + 600].copy_from_slice(&super::base()[..600]);
    disks[1].truncate(9000);
    if later {
        disks[0][DIRTY].fill(9);
        disks[1][DIRTY.start + 100..DIRTY.start + 110].fill(9);
    }
    (0..).zip(disks).map(|(n, disk)| (format!("drive-scsi{n}"), disk)).collect()
}

/// The guest's configuration.
pub fn configs() -> Vec<Config> {
    vec![Config { name: "qemu-server.conf".into(), data: b"memory: 512\n".to_vec() }]
}

fn archive(later: bool) -> Vec<u8> {
    let disks = disks(later);
    let device = |(id, (name, disk)): (u8, &(String, Vec<u8>))| Device {
        id,
        name: name.clone(),
        size: disk.len() as u64,
    };
    let header = Header {
        uuid: [5; 16],
        ctime: 1_700_000_000,
        configs: configs(),
        devices: (1..).zip(&disks).map(device).collect(),
    };
    let mut images: Vec<_> = disks.iter().map(|(_, disk)| Cursor::new(disk)).collect();
    write_archive(Vec::new(), header, &mut images, Order::Sequential).expect("memory takes it")
}

/// The full backup, with a map and a list of clusters. It is made once, as each has an identity of its own.
pub fn full() -> Vec<u8> {
    static FULL: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let out = Shared::default();
        let archive = Cursor::new(archive(false));
        matching_full::compress(archive, out.clone(), Compression::Zstd(1), 1).expect("memory takes it");
        out.take()
    });
    FULL.clone()
}

fn full_file() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&full()).expect("a written file");
    file
}

/// A differential of what is dirty.
pub fn differential(previous: Option<&[u8]>) -> Vec<u8> {
    composed(full_file().path(), previous).expect("a good full backup, and a good differential")
}

/// A differential that read everything.
fn all_read() -> Vec<u8> {
    let full = full_file();
    let base = Base::open(full.path()).expect("a good full backup");
    let delta = Shared::default();
    let out = container::encoder(Box::new(delta.clone()), Compression::Zstd(1), 1).expect("memory takes it");
    differential::diff(Cursor::new(archive(true)), base, out, differential::Options::default())
        .expect("a good archive");
    delta.take()
}

/// The name of each disk, and all that a server sends of it to a client that wants to know what is dirty, and then
/// reads that.
pub fn exports() -> Vec<(String, Vec<u8>)> {
    let export = |(name, disk): (String, Vec<u8>)| {
        let dirty = [(DIRTY.start, 0), (DIRTY.len(), 1), (disk.len() - DIRTY.end, 0)];
        let mut status = 1u32.to_be_bytes().to_vec();
        dirty.iter().for_each(|&(len, flags)| {
            status.extend((len as u32).to_be_bytes());
            status.extend([0, 0, 0, flags]);
        });
        let data = [&(DIRTY.start as u64).to_be_bytes()[..], &disk[DIRTY]].concat();
        (name, [handshake(disk.len() as u64), chunk(5, 1, &status), chunk(1, 2, &data)].concat())
    };
    disks(true).into_iter().map(export).collect()
}

/// The inputs of the target `nbd`.
pub fn servers() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = exports().into_iter().map(|(_, sent)| sent).collect();
    let status = [&1u32.to_be_bytes()[..], &[0, 1, 0, 0, 0, 0, 0, 1]].concat();
    // A hole; and an answer in two parts.
    let hole = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0];
    all.push([handshake(65536), chunk(5, 1, &status), chunk(2, 2, &hole)].concat());
    all
}

fn handshake(size: u64) -> Vec<u8> {
    let export = [&[0, 0][..], &size.to_be_bytes(), &[0, 3]].concat();
    [
        b"NBDMAGICIHAVEOPT\0\x03".to_vec(),
        reply(8, 1, b""),
        reply(10, 4, b"\0\0\0\x01qemu:dirty-bitmap:b"),
        reply(10, 1, b""),
        reply(7, 3, &export),
        reply(7, 1, b""),
    ]
    .concat()
}

/// An answer to an option of the handshake.
fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let numbers = [option, kind, data.len() as u32].map(u32::to_be_bytes).concat();
    [&0x0003_e889_0455_65a9u64.to_be_bytes()[..], &numbers, data].concat()
}

/// The only part of the answer to request `cookie`.
fn chunk(kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
    let mut out = 0x668e_33efu32.to_be_bytes().to_vec();
    out.extend([0, 1]);
    out.extend(kind.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out.extend((data.len() as u32).to_be_bytes());
    out.extend(data);
    out
}

/// Connects to a server that sends these bytes, and then closes the connection. The other end of it is returned too, as
/// the client's questions must go somewhere.
pub fn connect(bytes: &[u8]) -> (Result<Client, nbd::Error>, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().expect("two sockets");
    theirs.write_all(bytes).expect("room in a socket");
    theirs.shutdown(std::net::Shutdown::Write).expect("a socket of our own");
    (Client::over(ours, "disk", Some("b"), Limits::default()), theirs)
}

/// Makes a differential against a full backup of the seeds' VM, of which a block of each disk is dirty.
///
/// # Errors
/// Those of the program.
pub fn composed(full: &Path, previous: Option<&[u8]>) -> Result<Vec<u8>, Error> {
    let base = Base::open(full)?;
    let mut servers = Vec::new();
    let disks = exports().into_iter().map(|(name, sent)| {
        Disk::new(&name, || {
            let (client, server) = connect(&sent);
            servers.push(server);
            client
        })
    });
    let disks = disks.collect::<Result<_, _>>()?;
    let previous = previous.map(|bytes| Previous::new(Path::new("previous"), file(bytes)));
    let delta = Shared::default();
    let out = container::encoder(Box::new(delta.clone()), Compression::None, 1).expect("no compression");
    compose::prepare(base, disks, previous)?.write(configs(), 1, out, || Ok(()))?;
    Ok(delta.take())
}
