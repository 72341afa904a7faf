//! Reading what is dirty from the disks.

use crossbeam_channel::{Receiver, bounded};

use super::dirty::{Dirty, ranges};
use super::shape::Shape;
use super::{Disk, ReadOf};
use crate::matching::Error;
use crate::vma::{CLUSTER, Cluster};

/// The number of ranges of a disk that are read ahead.
const AHEAD: usize = 16;

/// The dirty ranges of the disks, which are read ahead in the order of the base's extents.
pub(super) struct Feeds(Vec<Option<Feed>>);

/// What is read of one disk.
struct Feed {
    data: Receiver<Result<Vec<u8>, Error>>,
    /// The size of the disk in bytes.
    size: u64,
}

impl Feeds {
    /// Begins to read. Also tells how much will be read of each disk.
    ///
    /// # Errors
    /// Fails where no thread can be started.
    pub fn start(disks: Vec<Disk>, shape: &Shape, dirty: &Dirty) -> Result<(Feeds, Vec<ReadOf>), Error> {
        let mut wanted: Vec<Vec<(u32, u16)>> = vec![Vec::new(); 256];
        for slot in &shape.slots.slots {
            let mask = dirty.of(slot);
            if mask != 0 {
                wanted[usize::from(slot.device)].push((slot.number, mask));
            }
        }
        let (mut feeds, mut read): (Vec<_>, _) = ((0..256).map(|_| None).collect(), Vec::new());
        for Disk { name, client, .. } in disks {
            let device = shape.header.devices.iter().find(|device| device.name == name);
            let id = usize::from(device.ok_or(Error::Internal("a disk is missing"))?.id);
            let (wanted, size) = (std::mem::take(&mut wanted[id]), client.size());
            let all = wanted.iter().flat_map(|&(number, mask)| ranges(number, mask, size));
            read.push(ReadOf {
                name: name.clone(),
                read: all.map(|range| range.end - range.start).sum(),
                size,
            });
            let (send, data) = bounded(AHEAD);
            std::thread::Builder::new()
                .name("disk".into())
                .spawn(move || {
                    let wanted = wanted.into_iter().flat_map(|(number, mask)| ranges(number, mask, size));
                    for data in client.reads(wanted) {
                        let data = data.map_err(|source| Error::Disk { name: name.clone(), source });
                        // The receiver is gone only if something else has failed.
                        if send.send(data).is_err() {
                            break;
                        }
                    }
                })
                .map_err(|source| Error::Io { what: "cannot start a thread".into(), source })?;
            feeds[id] = Some(Feed { data, size });
        }
        Ok((Feeds(feeds), read))
    }

    /// Fills the blocks `dirty` of the next dirty cluster into `buf`, which has room for all of the cluster.
    ///
    /// # Errors
    /// Fails where the disk cannot be read.
    pub fn read(&self, cluster: &Cluster, dirty: u16, buf: &mut [u8]) -> Result<(), Error> {
        let feed =
            self.0[usize::from(cluster.device)].as_ref().ok_or(Error::Internal("a disk is missing"))?;
        for range in ranges(cluster.number, dirty, feed.size) {
            let data =
                feed.data.recv().map_err(|_| Error::Internal("a disk's thread ended unexpectedly"))??;
            let from = (range.start % CLUSTER as u64) as usize;
            buf[from..from + data.len()].copy_from_slice(&data);
        }
        Ok(())
    }
}
