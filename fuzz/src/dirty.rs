//! Differentials of dirty blocks: what an NBD server sends, the base's list of clusters, the last differential.

use std::io::{Cursor, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use pve_diff_backup::container::{self, Compression};
use pve_diff_backup::matching::base::Base;
use pve_diff_backup::matching::compose::{self, Disk, Previous};
use pve_diff_backup::matching::{Error, restore};
use pve_diff_backup::nbd::{self, Client, Limits};
use pve_diff_backup::vma;

use super::{Shared, file, seeds};

/// The most bytes that a socket certainly takes before anybody reads them.
const MAX_SENT: usize = 64 << 10;
/// The bytes that are read of a dirty range.
const PART: u64 = 4096;

/// Everything that a server sends, whatever it is asked: what is dirty lies within the export, and what is read has the
/// length that was asked for.
pub fn nbd(data: &[u8]) -> bool {
    if data.len() > MAX_SENT {
        return false;
    }
    let (client, _server) = connect(data);
    let Ok(mut client) = client else { return false };
    let size = client.size();
    let Ok(dirty) = client.dirty() else { return false };
    assert!(dirty.iter().all(|range| range.start < range.end && range.end <= size));
    assert!(dirty.windows(2).all(|two| two[0].end < two[1].start), "two of them touch");
    let wanted: Vec<_> =
        dirty.iter().take(8).map(|range| range.start..range.end.min(range.start + PART)).collect();
    let mut read = client.reads(wanted.clone().into_iter());
    wanted.into_iter().all(|range| match read.next() {
        Some(Ok(data)) => {
            assert!(data.len() as u64 == range.end - range.start);
            true
        }
        Some(Err(_)) => false,
        None => panic!("a range was left out without an error"),
    })
}

/// Connects to a server that sends these bytes, and then closes the connection. The other end of it is returned too, as
/// the client's questions must go somewhere.
fn connect(bytes: &[u8]) -> (Result<Client, nbd::Error>, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().expect("two sockets");
    theirs.write_all(bytes).expect("room in a socket");
    theirs.shutdown(std::net::Shutdown::Write).expect("a socket of our own");
    (Client::over(ours, "disk", Some("b"), Limits::default()), theirs)
}

/// Behind a byte that tells which: a full backup, or the last differential against a good one. What is made of it and
/// restored is a good archive.
pub fn compose(data: &[u8]) -> bool {
    let Some((which, data)) = data.split_first() else { return false };
    let (full, previous) = match which % 2 {
        0 => (data.to_vec(), seeds::dirty::differential(None)),
        _ => (seeds::dirty::full(), data.to_vec()),
    };
    let mut path = tempfile::NamedTempFile::new().expect("a temporary file");
    path.write_all(&full).expect("a written file");
    let delta = match composed(path.path(), Some(&previous)) {
        Ok(delta) => delta,
        Err(Error::Internal(what)) => panic!("{what}"),
        Err(_) => return false,
    };
    let base = Base::open(path.path()).expect("what could be opened before");
    let options = restore::Options { threads: 1, window: 1 << 20, check_base: true };
    let mut restored = Vec::new();
    let outcome = restore::Differential::new(Box::new(Cursor::new(delta)))
        .expect("a header of our own")
        .restore(Some(base), options, |bytes| {
            restored.extend_from_slice(bytes);
            Ok(())
        });
    match outcome {
        Ok(_) => assert!(vma::verify(&restored[..]).is_ok(), "restored, it is no good archive"),
        Err(Error::Internal(what)) => panic!("{what}"),
        Err(_) => return false,
    }
    true
}

/// Makes a differential against a full backup of the seeds' VM, of which a block of each disk is dirty.
///
/// # Errors
/// Those of the program.
pub(super) fn composed(full: &Path, previous: Option<&[u8]>) -> Result<Vec<u8>, Error> {
    let base = Base::open(full)?;
    let mut servers = Vec::new();
    let disks = seeds::dirty::exports().into_iter().map(|(name, sent)| {
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
    compose::prepare(base, disks, previous)?.write(seeds::dirty::configs(), 1, out, || Ok(()))?;
    Ok(delta.take())
}
