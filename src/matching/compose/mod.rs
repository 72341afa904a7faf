//! Makes a differential from what QEMU's dirty bitmaps mark. Nothing else of the disks is read.
//!
//! The new archive has the base's layout and UUID. The dirty blocks of a cluster come from the disk. The other blocks
//! come from the last differential if they differ there from the base, and else from the base. A dirty block that is
//! equal to the base's, by the fingerprint in the base's map, is copied from the base. One that is not is compared with
//! the base's bytes at its place, unless it looks new (`near`). An extent in which nothing differs is a single copy, with
//! its header; every other extent gets a new header. The archive's header holds the guest's configuration: if that
//! grows, all extents move.
//!
//! Most of the data that is copied is never seen here. So windows have no checksums, and the end record holds a hash of
//! the differential itself (version 2, see `vcdiff/end.rs`). When it is restored, the checksums of the base's frames
//! prove what was copied.
//!
//! If anything is not certain, the result is [`Error::Unfit`]: then everything must be read.

mod carried;
mod dirty;
mod extents;
mod feeds;
mod near;
mod output;
mod parts;
mod piece;
mod previous;
mod shape;
mod walk;

use std::ops::Range;
use std::path::PathBuf;

use self::carried::Carried;
use self::dirty::Dirty;
use self::extents::Extents;
use self::feeds::Feeds;
use self::output::Output;
use self::shape::Shape;
use super::Error;
use super::base::{Access, Base};
use super::map::MapReader;
use crate::container::Encoder;
use crate::container::seekable::ReadOptions;
use crate::nbd::{self, Client};
use crate::vcdiff::AppHeader;
use crate::vma::{BLOCK, Config, Header};

pub use self::previous::Previous;

/// A disk of the guest, as QEMU exports it.
pub struct Disk {
    name: String,
    client: Client,
    dirty: Vec<Range<u64>>,
}

impl Disk {
    /// Connects to a disk's export, and asks which ranges are dirty.
    ///
    /// # Errors
    /// Fails with [`Error::Disk`].
    pub fn new(name: &str, connect: impl FnOnce() -> Result<Client, nbd::Error>) -> Result<Disk, Error> {
        let failed = |source| Error::Disk { name: name.to_owned(), source };
        let mut client = connect().map_err(failed)?;
        let dirty = client.dirty().map_err(failed)?;
        Ok(Disk { name: name.to_owned(), client, dirty })
    }
}

/// How much had to be read of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOf {
    /// The name of the disk.
    pub name: String,
    /// The number of bytes that were read.
    pub read: u64,
    /// The size of the disk in bytes.
    pub size: u64,
}

/// The figures of a differential that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The length of the archive in bytes.
    pub total: u64,
    /// The number of bytes of the archive that the differential itself holds.
    pub new: u64,
    /// How much was read of each disk.
    pub disks: Vec<ReadOf>,
}

/// All that is known before the first byte of the differential is written.
pub struct Prepared {
    path: PathBuf,
    /// The application header of the differential, which describes the base.
    app: AppHeader,
    identity: [u8; 16],
    map: MapReader,
    shape: Shape,
    dirty: Dirty,
    carried: Carried,
    previous: Option<Previous>,
    disks: Vec<Disk>,
}

/// Reads what must be known of the base, the disks and the last differential.
///
/// # Errors
/// Fails with [`Error::Unfit`] where they do not belong together, and where one of them cannot be read.
pub fn prepare(base: Base, disks: Vec<Disk>, previous: Option<Previous>) -> Result<Prepared, Error> {
    let mut app = AppHeader { end_record: true, end_of_delta: true, ..AppHeader::default() };
    base.describe(&mut app);
    let Base { path, identity, access, .. } = base;
    let Access::Mapped(map) = access else {
        return Err(Error::unfit("the full backup has no map"));
    };
    // The extents come in the order of the base: what is compared is near the front of a frame as often as near its end.
    let map = map.reader(ReadOptions { fronts: true, ..ReadOptions::default() });
    let named: Vec<_> = disks.iter().map(|disk| (disk.name.as_str(), disk.client.size())).collect();
    let shape = Shape::of(&map, &path, &named)?.map_err(Error::Unfit)?;
    let mut dirty = Dirty::new();
    for device in &shape.header.devices {
        let disk =
            disks.iter().find(|disk| disk.name == device.name).ok_or(Error::Internal("a disk is missing"))?;
        dirty.add(device, &disk.dirty).ok_or_else(|| {
            Error::unfit(format!(
                "the bitmap of the disk {} does not go by blocks of {BLOCK} bytes",
                disk.name
            ))
        })?;
    }
    let carried = match &previous {
        Some(previous) => Carried::read(previous.open(&app)?, &shape, map.content(), &dirty)?,
        None => Carried::none(&shape),
    };
    Ok(Prepared { path, app, identity, map, shape, dirty, carried, previous, disks })
}

impl Prepared {
    /// Writes the differential to `out`, which compresses it. `proof` is called before the end is written, and can
    /// refuse it.
    ///
    /// # Errors
    /// Fails where the disks, the last differential or the base's map cannot be read, where the output cannot be
    /// written, and where `proof` fails. The output then has no end record, which shows that it is incomplete.
    pub fn write(
        self,
        configs: Vec<Config>,
        ctime: i64,
        out: Box<dyn Encoder>,
        proof: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Summary, Error> {
        let header = Header { configs, ctime, ..self.shape.header.clone() };
        let header = header.encode().map_err(|defect| Error::Io {
            what: "the guest's configuration does not fit into an archive".into(),
            source: std::io::Error::other(defect.to_string()),
        })?;

        let mut out = Output::new(out, &self.app);
        out.add(&header)?;
        let (feeds, disks) = Feeds::start(self.disks, &self.shape, &self.dirty)?;
        let again = || match &self.previous {
            Some(previous) => previous.open(&self.app),
            None => Err(Error::Internal("there is no last differential")),
        };
        let new = self.carried.new_bytes(again, &self.shape, self.map.content(), &self.dirty)?;
        let carried = (&self.carried, new);
        let mut extents = Extents::new(&self.path, &self.map, &self.shape, &self.dirty, carried, feeds);
        for n in 0..self.shape.slots.count() {
            extents.write(n, &mut out)?;
        }
        extents.end()?;
        proof()?;
        let (total, new) = (out.total, out.new);
        out.finish(self.identity)?;
        Ok(Summary { total, new, disks })
    }
}
