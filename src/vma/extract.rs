//! Unpacking an archive into raw images and configuration files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{BLOCK, CLUSTER, Cluster, Device, Error, Event, Header, Made, Reader};
use crate::text::shown;

/// The files that [`extract`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// All of them, configuration files first.
    pub files: Vec<PathBuf>,
}

/// Unpacks what `reader` has into the new directory `dir`: configuration files under their names, each
/// disk as the sparse raw image `disk-NAME.raw`, the guest's memory as `vmstate.bin`.
///
/// If `only` names disks, others are left out. Names of images begin with `tmp-` until the whole archive proved to be complete,
/// as with Proxmox's `vma extract`. After an error nothing is left: `made` knows what is to be removed then, or when a signal
/// ends the program.
pub fn extract<R: Read>(
    reader: &mut Reader<R>,
    dir: &Path,
    only: Option<&[String]>,
    made: &Made,
) -> Result<Extracted, Error> {
    made.all_or_nothing(|| unpack(reader, dir, only, made))
}

fn unpack<R: Read>(
    reader: &mut Reader<R>,
    dir: &Path,
    only: Option<&[String]>,
    made: &Made,
) -> Result<Extracted, Error> {
    let header = reader.header().clone();
    let wanted = select(&header, only)?;
    made.directory(dir).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: shown(dir) },
        _ => failed(dir, e),
    })?;
    let mut files = Vec::new();
    for config in &header.configs {
        let path = dir.join(&config.name);
        create(made, &path)?.write_all(&config.data).map_err(|e| failed(&path, e))?;
        files.push(path);
    }
    let mut images = BTreeMap::new();
    for (id, device) in wanted {
        images.insert(id, Image::create(made, dir, device)?);
    }
    while let Some(event) = reader.next()? {
        if let Event::Cluster { device, cluster, data } = event
            && let Some(image) = images.get_mut(&device.id)
        {
            image.store(cluster, data)?;
        }
    }
    for image in images.into_values() {
        files.push(image.finish(made)?);
    }
    Ok(Extracted { files })
}

/// Finds the devices to unpack. The result is these devices by their ids.
pub(super) fn select<'a>(
    header: &'a Header,
    only: Option<&[String]>,
) -> Result<BTreeMap<u8, &'a Device>, Error> {
    let Some(only) = only else { return Ok(header.devices.iter().map(|d| (d.id, d)).collect()) };
    let find = |name: &String| {
        header.devices.iter().find(|d| d.name == *name).map(|d| (d.id, d)).ok_or_else(|| {
            let names: Vec<_> = header.devices.iter().map(|d| d.name.as_str()).collect();
            Error::NoSuch { what: "device", name: name.clone(), have: names.join(", ") }
        })
    };
    only.iter().map(find).collect()
}

/// An image that is being written.
pub(super) struct Image {
    file: File,
    temporary: PathBuf,
    pub path: PathBuf,
    /// Its size in bytes. For the guest's memory, it is the size that is known so far.
    pub size: u64,
    /// Whether it is the guest's memory, of which nobody knows the length before.
    pub grows: bool,
}

impl Image {
    pub fn create(made: &Made, dir: &Path, device: &Device) -> Result<Self, Error> {
        let grows = device.is_vmstate();
        let name = if grows { "vmstate.bin".to_owned() } else { format!("disk-{}.raw", device.name) };
        let (temporary, path) = (dir.join(format!("tmp-{name}")), dir.join(name));
        let file = create(made, &temporary)?;
        let size = if grows { 0 } else { device.size };
        file.set_len(size).map_err(|e| failed(&temporary, e))?;
        Ok(Image { file, temporary, path, size, grows })
    }

    /// Writes the stored blocks of a cluster, neighbouring blocks with one call. The others stay holes.
    pub fn store(&mut self, cluster: Cluster, data: &[u8]) -> Result<(), Error> {
        let base = u64::from(cluster.number) * CLUSTER as u64;
        if self.grows {
            self.size = base + CLUSTER as u64;
            self.file.set_len(self.size).map_err(|e| failed(&self.temporary, e))?;
        }
        let mut blocks = cluster.blocks().peekable();
        let mut used = 0;
        while let Some(first) = blocks.next() {
            let mut len = BLOCK;
            while blocks.next_if_eq(&(first + len)).is_some() {
                len += BLOCK;
            }
            let at = base + first as u64;
            // The last block may reach behind the end of the device.
            let kept = (self.size - at).min(len as u64) as usize;
            self.file.write_all_at(&data[used..used + kept], at).map_err(|e| failed(&self.temporary, e))?;
            used += len;
        }
        Ok(())
    }

    pub fn finish(self, made: &Made) -> Result<PathBuf, Error> {
        self.file.sync_all().map_err(|e| failed(&self.temporary, e))?;
        made.rename(&self.temporary, &self.path).map_err(|e| failed(&self.path, e))?;
        Ok(self.path)
    }
}

/// Creates a file; it must not exist.
pub(super) fn create(made: &Made, path: &Path) -> Result<File, Error> {
    made.file(path).map_err(|e| failed(path, e))
}

pub(super) fn failed(path: &Path, source: io::Error) -> Error {
    Error::Write { path: shown(path), source }
}
