//! Differentials of dirty blocks: what an NBD server sends, the base's list of clusters, the last differential.

use std::io::{Cursor, Write};

use pve_diff_backup::matching::base::Base;
use pve_diff_backup::matching::{Error, restore};
use pve_diff_backup::vma;

use super::seeds::dirty::{composed, connect, differential, full as good_full};

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

/// Behind a byte that tells which: a full backup, or the last differential against a good one. What is made of it and
/// restored is a good archive.
pub fn compose(data: &[u8]) -> bool {
    let Some((which, data)) = data.split_first() else { return false };
    let (full, previous) = match which % 2 {
        0 => (data.to_vec(), differential(None)),
        _ => (good_full(), data.to_vec()),
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
