//! `pve-xdelta3 vma`: looking into VMA archives, also compressed or differential ones.
//!
//! The commands and options are those of Proxmox's `vma`, so that an administrator knows them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, bail};
use lexopt::prelude::*;

use super::say::say;
use crate::backup::Stamp;
use crate::vma::{Config, Device, Header, MAX_DEVICE, Order, Reader, Summary, Uuid, extract, write_archive};

/// Text of `pve-xdelta3 vma --help`.
pub const HELP: &str = "\
Look into a VMA archive (a VM's backup), compressed or not, full or differential.

usage: pve-xdelta3 vma list ARCHIVE
       pve-xdelta3 vma config ARCHIVE [-c NAME]
       pve-xdelta3 vma verify ARCHIVE [-v]
       pve-xdelta3 vma extract ARCHIVE DIRECTORY [-v] [-d DISK[,DISK...]]
       pve-xdelta3 vma create  ARCHIVE NAME=IMAGE... [-c FILE] [--mixed]

  list      configuration files, disks and their sizes, time of the backup
  config    print a configuration file (default: qemu-server.conf)
  verify    check the whole archive: structure, checksums, every disk complete
  extract   write the configuration files and a sparse raw image of each disk
            into DIRECTORY, which must not exist yet
  create    write raw images into an uncompressed ARCHIVE (NAME: drive-scsi0 or the like)

  -c, --config NAME    the configuration file to print, or to store
  -d, --disks LIST     only these disks, for instance drive-scsi0,drive-efidisk0
  -v, --verbose        tell what is found
      --mixed          order the clusters as QEMU's backup does, not from front to back

ARCHIVE may be - for standard input, with create for standard output.
";

/// Opens an archive by name (`-`: standard input) and gives its decompressed VMA stream.
pub type Open<'a> = &'a dyn Fn(&OsStr) -> anyhow::Result<Box<dyn Read>>;

/// Runs `pve-xdelta3 vma ARGS`. Exit code 0: all well; 1: the archive is damaged or cannot be read; 2: usage.
pub fn run(args: impl IntoIterator<Item = OsString>, open: Open) -> ExitCode {
    let command = match Command::parse(args) {
        Ok(command) => command,
        Err(error) => {
            say!("pve-xdelta3 vma: {error:#}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match command.run(open, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // whoever reads our output has seen enough
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say!("pve-xdelta3 vma: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<io::Error>(), Some(e) if e.kind() == io::ErrorKind::BrokenPipe)
}

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    List { archive: OsString },
    Config { archive: OsString, name: String },
    Verify { archive: OsString, verbose: bool },
    Extract { archive: OsString, directory: PathBuf, disks: Option<Vec<String>>, verbose: bool },
    Create { archive: OsString, images: Vec<(String, PathBuf)>, config: Option<PathBuf>, mixed: bool },
}

impl Command {
    fn parse(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let mut parser = lexopt::Parser::from_args(args);
        let (mut words, mut config, mut disks, mut verbose, mut mixed) =
            (Vec::new(), None, None, false, false);
        while let Some(arg) = parser.next()? {
            match arg {
                Short('h') | Long("help") => return Ok(Command::Help),
                Short('v') | Long("verbose") => verbose = true,
                Long("mixed") => mixed = true,
                Short('c') | Long("config") => config = Some(parser.value()?.string()?),
                Short('d') | Long("disks") => {
                    disks = Some(parser.value()?.string()?.split(',').map(str::to_owned).collect());
                }
                Value(word) => words.push(word),
                other => return Err(other.unexpected().into()),
            }
        }
        let mut words = words.into_iter();
        let name = words.next().context("what shall be done? list, config, verify, extract or create")?;
        let archive = words.next().context("which ARCHIVE?")?;
        let command = match name.to_str() {
            Some("list") => Command::List { archive },
            Some("config") => {
                let name = config.take().unwrap_or_else(|| "qemu-server.conf".to_owned());
                Command::Config { archive, name }
            }
            Some("verify") => Command::Verify { archive, verbose },
            Some("extract") => {
                let directory = words.next().context("into which DIRECTORY?")?.into();
                Command::Extract { archive, directory, disks: disks.take(), verbose }
            }
            Some("create") => {
                let images = words.by_ref().map(|w| image(&w)).collect::<anyhow::Result<Vec<_>>>()?;
                if images.is_empty() {
                    bail!("which NAME=IMAGE shall be stored?");
                }
                let config = config.take().map(PathBuf::from);
                Command::Create { archive, images, config, mixed: std::mem::take(&mut mixed) }
            }
            _ => bail!("unknown command {name:?}"),
        };
        if let Some(word) = words.next() {
            bail!("unexpected argument {word:?}");
        }
        if config.is_some() || disks.is_some() || mixed {
            bail!("-c belongs to config and create, -d to extract, --mixed to create");
        }
        Ok(command)
    }

    fn run(self, open: Open, out: &mut impl Write) -> anyhow::Result<()> {
        let start = |archive: &OsStr| -> anyhow::Result<Reader<Box<dyn Read>>> {
            let input = open(archive)?;
            Reader::new(input).with_context(|| archive.display().to_string())
        };
        match self {
            Command::Help => write!(out, "{HELP}")?,
            Command::List { archive } => print_header(start(&archive)?.header(), out)?,
            Command::Config { archive, name } => {
                let reader = start(&archive)?;
                let configs = &reader.header().configs;
                let Some(config) = configs.iter().find(|c| c.name == name) else {
                    let names: Vec<_> = configs.iter().map(|c| c.name.as_str()).collect();
                    bail!(
                        "{}: no configuration file {name:?} (there is: {})",
                        archive.display(),
                        names.join(", ")
                    );
                };
                out.write_all(&config.data)?;
            }
            Command::Verify { archive, verbose } => {
                let mut reader = start(&archive)?;
                if verbose {
                    print_header(reader.header(), out)?;
                }
                while reader.next().with_context(|| archive.display().to_string())?.is_some() {}
                if verbose {
                    print_summary(reader.summary(), out)?;
                }
            }
            Command::Extract { archive, directory, disks, verbose } => {
                let mut reader = start(&archive)?;
                if verbose {
                    print_header(reader.header(), out)?;
                }
                let written = extract(&mut reader, &directory, disks.as_deref(), |_| ())
                    .with_context(|| archive.display().to_string())?;
                if verbose {
                    for file in written.files {
                        writeln!(out, "WROTE: {}", file.display())?;
                    }
                    print_summary(reader.summary(), out)?;
                }
            }
            Command::Create { archive, images, config, mixed } => {
                create(&archive, &images, config, mixed, out)?
            }
        }
        out.flush()?;
        Ok(())
    }
}

/// Splits `NAME=IMAGE`.
fn image(word: &OsStr) -> anyhow::Result<(String, PathBuf)> {
    let bytes = word.as_bytes();
    let at = bytes.iter().position(|&b| b == b'=').with_context(|| format!("{word:?} is not NAME=IMAGE"))?;
    let name =
        std::str::from_utf8(&bytes[..at]).with_context(|| format!("{word:?}: the name is not UTF-8"))?;
    Ok((name.to_owned(), OsStr::from_bytes(&bytes[at + 1..]).into()))
}

fn create(
    archive: &OsStr,
    images: &[(String, PathBuf)],
    config: Option<PathBuf>,
    mixed: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut uuid = Uuid::default();
    File::open("/dev/urandom")?.read_exact(&mut uuid)?;
    let seed = u64::from_le_bytes(*uuid.first_chunk().expect("16 bytes"));
    let ctime = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let mut header = Header { uuid, ctime, configs: Vec::new(), devices: Vec::new() };
    if let Some(path) = config {
        let data = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        header.configs.push(Config { name, data });
    }
    if images.len() > MAX_DEVICE.into() {
        bail!("an archive holds at most {MAX_DEVICE} disks");
    }
    let mut files = Vec::new();
    for ((name, path), id) in images.iter().zip(1..=MAX_DEVICE) {
        let context = || path.display().to_string();
        let mut file = File::open(path).with_context(context)?;
        // Not from the metadata, which says 0 for a block device.
        let size = file.seek(io::SeekFrom::End(0)).with_context(context)?;
        file.rewind().with_context(context)?;
        header.devices.push(Device { id, name: name.clone(), size });
        files.push(file);
    }
    let order = if mixed { Order::Workers(seed) } else { Order::Sequential };
    if archive == "-" {
        write_archive(out, header, &mut files, order)?;
    } else {
        let file = File::create_new(archive).with_context(|| archive.display().to_string())?;
        write_archive(io::BufWriter::with_capacity(1 << 20, file), header, &mut files, order)?;
    }
    Ok(())
}

/// The lines of Proxmox's `vma list`, but the time is UTC and says so.
fn print_header(header: &Header, out: &mut impl Write) -> io::Result<()> {
    for config in &header.configs {
        writeln!(out, "CFG: size: {} name: {}", config.data.len(), config.name)?;
    }
    for device in &header.devices {
        match device.is_vmstate() {
            true => writeln!(out, "VMSTATE: dev_id={} memory: {}", device.id, device.size)?,
            false => {
                writeln!(out, "DEV: dev_id={} size: {} devname: {}", device.id, device.size, device.name)?
            }
        }
    }
    match Stamp::from_unix_utc(header.ctime) {
        Some(stamp) => writeln!(out, "CTIME: {stamp} UTC"),
        None => writeln!(out, "CTIME: {} seconds since 1970", header.ctime),
    }
}

fn print_summary(summary: Summary, out: &mut impl Write) -> io::Result<()> {
    let Summary { bytes, extents, clusters, blocks } = summary;
    let zeros = clusters * 16 - blocks;
    writeln!(
        out,
        "OK: {bytes} bytes, {extents} extents, {clusters} clusters, {blocks} blocks of data, {zeros} of zeros"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Command> {
        Command::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_commands_of_proxmox_are_understood() {
        let archive = || OsString::from("a.vma");
        assert_eq!(parse("list a.vma").unwrap(), Command::List { archive: archive() });
        assert_eq!(parse("verify a.vma -v").unwrap(), Command::Verify { archive: archive(), verbose: true });
        assert_eq!(
            parse("config a.vma").unwrap(),
            Command::Config { archive: archive(), name: "qemu-server.conf".into() }
        );
        assert_eq!(
            parse("config -c qemu-server.fw a.vma").unwrap(),
            Command::Config { archive: archive(), name: "qemu-server.fw".into() }
        );
        assert_eq!(
            parse("extract -d drive-scsi0,drive-scsi1 a.vma out").unwrap(),
            Command::Extract {
                archive: archive(),
                directory: "out".into(),
                disks: Some(vec!["drive-scsi0".into(), "drive-scsi1".into()]),
                verbose: false
            }
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (line, message) in [
            ("", "what shall be done?"),
            ("list", "which ARCHIVE?"),
            ("extract a.vma", "which DIRECTORY?"),
            ("lists a.vma", "unknown command"),
            ("list a.vma b.vma", "unexpected argument"),
            ("list -c x a.vma", "-c belongs to config"),
            ("verify --fast a.vma", "invalid option"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(message), "{line:?}: {error}");
        }
    }
}
