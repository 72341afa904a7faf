//! What looks into backups: the walk over a tar archive, and the server of disks.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use pve_diff_backup::container::{ReadAt, Sparse};
use pve_diff_backup::files::{self, FileContent, Kind};
use pve_diff_backup::nbd::server::{Export, Server};

/// What is read of a file at most.
const ENOUGH: u64 = 1 << 20;

/// Tar archives: what was kept of a walk makes the same tree, no name leads upwards, and every file reads as it is told.
pub fn tar(data: &[u8]) -> bool {
    let (archive, size) = (Arc::new(data.to_vec()) as Arc<dyn ReadAt>, data.len() as u64);
    let mut kept = Vec::new();
    let Ok(tree) = files::walk(&*archive, size, &mut kept) else { return false };
    let again = files::read(&kept[..], size, size).expect("what was kept can be read");
    assert_eq!((tree.members(), tree.nodes()), (again.members(), again.nodes()));
    for node in 0..tree.nodes() {
        assert_ne!(tree.name(node), b"..");
        assert!(tree.parent(node) <= node);
        let Some((_, member)) = tree.file(node) else { continue };
        let _ = files::xattrs(&*archive, member);
        if member.kind != Kind::File {
            continue;
        }
        let Ok(content) = FileContent::open(&archive, member) else { continue };
        assert_eq!(content.size(), member.size);
        let mut at = 0;
        while at < content.size().min(ENOUGH) {
            let (_, len) = content.run(at, content.size() - at);
            assert!(len > 0 && len <= content.size() - at);
            at += len;
        }
        let _ = content.read_at(0, &mut vec![0; content.size().min(ENOUGH) as usize]);
    }
    true
}

/// A disk of which every other block is a hole.
struct Disk;

const DISK: u64 = 64 << 10;
const BLOCK: u64 = 4096;

impl ReadAt for Disk {
    fn size(&self) -> u64 {
        DISK
    }

    fn read_at(&self, pos: u64, buf: &mut [u8]) -> io::Result<()> {
        assert!(
            pos.checked_add(buf.len() as u64).is_some_and(|end| end <= DISK),
            "it is asked for what is there"
        );
        match pos / BLOCK {
            5 => Err(io::ErrorKind::InvalidData.into()),
            _ => {
                buf.fill(7);
                Ok(())
            }
        }
    }
}

impl Sparse for Disk {
    fn run(&self, pos: u64, most: u64) -> (bool, u64) {
        ((pos / BLOCK).is_multiple_of(2), (BLOCK - pos % BLOCK).min(most))
    }
}

/// Clients of the server of disks.
pub fn nbd_server(data: &[u8]) -> bool {
    let export = |name: &str| Export { name: name.into(), content: Arc::new(Disk) };
    let server = Server::new(vec![export("drive-scsi0"), export("drive-efidisk0")], 1, |_| {});
    let (ours, mut theirs) = UnixStream::pair().expect("two ends");
    let mut answers = theirs.try_clone().expect("a second handle");
    thread::scope(|scope| {
        let serves = scope.spawn(|| server.serve_one(ours));
        scope.spawn(move || io::copy(&mut answers, &mut io::sink()));
        // Whoever speaks nonsense is cut off.
        let _ = theirs.write_all(data);
        let _ = theirs.shutdown(Shutdown::Write);
        serves.join().expect("the server does not panic").is_ok()
    })
}
