//! The VM of the demo: two disks, and the stream that QEMU would send for a backup.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::Context;
use fs_err as fs;

use super::content::Random;
use super::stage::Stage;
use super::{Guest, compare, table, time_of};
use crate::vma::{Config, Device, Header, Made, Order, Reader, extract, write_archive};

const ID: u32 = 101;
/// Name, bytes in all, bytes of text and bytes of noise at the start; the rest is still zeros.
const DISKS: [(&str, u64, usize, usize); 2] =
    [("drive-scsi0", 48 << 20, 22 << 20, 14 << 20), ("drive-scsi1", 16 << 20, 8 << 20, 4 << 20)];
const BLOCK: u64 = 4096;

/// The VM.
pub struct Vm {
    /// Where its disks and the stream are.
    dir: PathBuf,
    disks: Vec<Disk>,
    config: String,
    random: Random,
}

impl Vm {
    /// Makes the VM on the demo's host.
    pub fn create(stage: &Stage) -> anyhow::Result<Self> {
        let dir = stage.path(format!("guests/{ID}"));
        fs::create_dir_all(&dir)?;
        let mut random = Random(ID.into());
        let disks = DISKS
            .iter()
            .map(|(name, size, text, noise)| {
                Disk::create(dir.join(format!("{name}.raw")), *size, *text, *noise, &mut random)
                    .with_context(|| format!("cannot write the disk {name}"))
            })
            .collect::<anyhow::Result<_>>()?;
        let stream = dir.join("backup.vma");
        let config = format!("name: example\nmemory: 2048\nstream: {}\n", stream.display());
        fs::write(stage.path(format!("host/etc/pve/qemu-server/{ID}.conf")), &config)?;
        Ok(Self { dir, disks, config, random })
    }

    fn header(&mut self, night: u64) -> anyhow::Result<Header> {
        let devices = DISKS.iter().zip(1..).map(|((name, size, ..), id)| Device {
            id,
            name: (*name).to_owned(),
            size: *size,
        });
        Ok(Header {
            uuid: u128::from(self.random.number()).to_be_bytes(),
            ctime: time_of(night).try_into()?,
            configs: vec![Config { name: "qemu-server.conf".into(), data: self.config.clone().into_bytes() }],
            devices: devices.collect(),
        })
    }
}

impl Guest for Vm {
    fn title(&self) -> &str {
        "VM 101"
    }

    fn id(&self) -> u32 {
        ID
    }

    fn size(&self) -> anyhow::Result<u64> {
        Ok(DISKS.iter().map(|(_, size, ..)| size).sum())
    }

    fn live(&mut self, night: u64) -> anyhow::Result<()> {
        if night > 0 {
            for disk in &mut self.disks {
                disk.change(&mut self.random).context("cannot write to a disk")?;
            }
        }
        let header = self.header(night)?;
        let stream = self.dir.join("backup.vma");
        let output = File::create(&stream).with_context(|| format!("cannot write {}", stream.display()))?;
        let mut images: Vec<File> =
            self.disks.iter().map(|disk| File::open(&disk.path)).collect::<io::Result<_>>()?;
        // QEMU sends the clusters in another order each time
        write_archive(output, header, &mut images, Order::Workers(self.random.number()))?;
        Ok(())
    }

    fn restore(&self, stage: &Stage, volume: &str) -> anyhow::Result<String> {
        let restored = format!("restored/{ID}.vma");
        fs::create_dir_all(stage.path("restored"))?;
        stage.host("usr/sbin/qmrestore", &[volume, &restored])?;
        let stream = compare::require_equal(&self.dir.join("backup.vma"), &stage.path(&restored))?;

        let images = stage.path(format!("restored/{ID}"));
        let mut reader = Reader::new(File::open(stage.path(&restored))?)?;
        extract(&mut reader, &images, None, &Made::default())?;
        let mut bytes = 0;
        for (disk, (name, ..)) in self.disks.iter().zip(DISKS) {
            bytes += compare::require_equal(&disk.path, &images.join(format!("disk-{name}.raw")))?;
        }
        let config = fs::read_to_string(images.join("qemu-server.conf"))?;
        anyhow::ensure!(config == self.config, "the VM's configuration is not what it was:\n{config}");
        Ok(format!(
            "VM {ID}: the stream ({:.2} MiB) and both disks ({:.2} MiB) are equal byte for byte",
            table::mib(stream),
            table::mib(bytes)
        ))
    }
}

/// A disk image.
struct Disk {
    path: PathBuf,
    file: File,
    /// Where the zeros begin.
    used: u64,
}

impl Disk {
    fn create(path: PathBuf, size: u64, text: usize, noise: usize, random: &mut Random) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        file.set_len(size)?;
        file.write_all_at(&random.text(text), 0)?;
        file.write_all_at(&random.noise(noise), text as u64)?;
        Ok(Self { path, file, used: (text + noise) as u64 })
    }

    /// Changes the disk as a day would do it.
    fn change(&mut self, random: &mut Random) -> io::Result<()> {
        // files are replaced
        for turn in 0..16 {
            let block = random.below(self.used / BLOCK) * BLOCK;
            let data = if turn % 2 == 0 { random.text(4096) } else { random.noise(4096) };
            self.file.write_all_at(&data, block)?;
        }
        // a database changes some bytes here and there
        for _ in 0..32 {
            let at = random.below(self.used - 16);
            self.file.write_all_at(&random.noise(16), at)?;
        }
        // a file grows
        self.append(&random.text(96 << 10))?;
        // another one is moved to the end and its old place given back
        let mut moved = vec![0; 512 << 10];
        let from = random.below((self.used - moved.len() as u64) / BLOCK) * BLOCK;
        self.file.read_exact_at(&mut moved, from)?;
        self.append(&moved)?;
        self.file.write_all_at(&vec![0; moved.len()], from)
    }

    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, self.used)?;
        self.used += data.len() as u64;
        Ok(())
    }
}
