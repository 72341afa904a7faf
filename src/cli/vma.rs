//! `pve-xdelta3 vma`: looking into VMA archives, also compressed or differential ones.
//!
//! The commands and options are those of Proxmox's `vma`, so that an administrator knows them.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, bail};
use lexopt::prelude::*;

use super::archive;
use super::say::{self, chat, print, say};
use super::signals::remove_on_signals;
use super::standard;
use super::xdelta3::{BROKEN_PIPE, told};
use crate::backup::Stamp;
use crate::text::shown;
use crate::vma::{
    Config, Device, Error, Header, MAX_DEVICE, Made, Order, Reader, Summary, Uuid, extract, write_archive,
};

/// Text of `pve-xdelta3 vma --help`.
pub const HELP: &str = "\
Look into a VMA archive (a VM's backup), compressed or not, full or differential.

usage: pve-xdelta3 vma list ARCHIVE [--base FULL]
       pve-xdelta3 vma config ARCHIVE [--base FULL] [-c NAME]
       pve-xdelta3 vma verify ARCHIVE [--base FULL] [-v]
       pve-xdelta3 vma extract ARCHIVE DIRECTORY [--base FULL] [-v] [-d DISK[,DISK...]]
       pve-xdelta3 vma create  ARCHIVE NAME=IMAGE... [-c FILE] [--mixed]

  list      configuration files, disks and their sizes, time of the backup
  config    print a configuration file (default: qemu-server.conf)
  verify    check the whole archive: structure, checksums, every disk complete
  extract   write the configuration files and a sparse raw image of each disk
            into DIRECTORY, which must not exist yet; where that fails, nothing is left
  create    write raw images into an uncompressed ARCHIVE (NAME: drive-scsi0 or the like),
            which must not exist yet; where that fails, nothing is left

      --base FULL      the full backup of a differential ARCHIVE (default: found beside it,
                       by its name FULL--differential-DATE.vcdiff...)
  -c, --config NAME    the configuration file to print, or to store
  -d, --disks LIST     only these disks, for instance drive-scsi0,drive-efidisk0
  -v, --verbose        tell what is found
      --mixed          order the clusters as QEMU's backup does, not from front to back

ARCHIVE may be - for standard input, with create for standard output.

Exit status: 0 done; 1 damaged, or cannot be read or written; 2 wrong usage; 141 the reader of the output of list,
config or create went away.
";

/// Opens an archive by name (`-`: standard input) and gives its decompressed VMA stream. The full backup of a
/// differential may be given.
pub type Open<'a> = &'a dyn Fn(&OsStr, Option<&Path>) -> anyhow::Result<Box<dyn Read>>;

/// Runs `pve-xdelta3 vma ARGS`. Exit codes: see [`HELP`].
pub fn run(args: impl IntoIterator<Item = OsString>, open: Open) -> ExitCode {
    let command = match Command::parse(args) {
        Ok(command) => command,
        Err(error) => {
            say!("{}", told(&error));
            say::text(format_args!("\n{HELP}"));
            return ExitCode::from(2);
        }
    };
    let made = Made::default();
    match command.run(open, &mut io::stdout().lock(), &made) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if super::is_broken_pipe(&error) => ExitCode::from(BROKEN_PIPE),
        Err(error) => {
            say!("{}", told(&error));
            for path in made.left() {
                say!("{} could not be removed: it is incomplete", shown(path));
            }
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    List { archive: Archive },
    Config { archive: Archive, name: String },
    Verify { archive: Archive, verbose: bool },
    Extract { archive: Archive, directory: PathBuf, disks: Option<Vec<String>>, verbose: bool },
    Create { archive: OsString, images: Vec<(String, PathBuf)>, config: Option<PathBuf>, mixed: bool },
}

/// An archive to be read.
#[derive(Debug, PartialEq, Eq)]
struct Archive {
    name: OsString,
    /// Its full backup, if it was given.
    base: Option<PathBuf>,
}

impl Archive {
    fn open(&self, open: Open) -> anyhow::Result<Reader<Box<dyn Read>>> {
        let input = open(&self.name, self.base.as_deref())?;
        Reader::new(input).with_context(|| self.shown())
    }

    fn shown(&self) -> String {
        archive::shown(&self.name)
    }
}

impl Command {
    fn parse(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let mut parser = lexopt::Parser::from_args(args);
        let (mut words, mut base, mut config, mut disks, mut verbose, mut mixed) =
            (Vec::new(), None, None, None, false, false);
        while let Some(arg) = parser.next()? {
            match arg {
                Short('h') | Long("help") => return Ok(Command::Help),
                Short('v') | Long("verbose") => verbose = true,
                Long("mixed") => mixed = true,
                Long("base") => base = Some(PathBuf::from(parser.value()?)),
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
        if base.is_some() && name == "create" {
            bail!("--base belongs to list, config, verify and extract");
        }
        let archive = Archive { name: archive, base };
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
                Command::Create { archive: archive.name, images, config, mixed: std::mem::take(&mut mixed) }
            }
            _ => bail!("unknown command \"{}\"", shown(name)),
        };
        if let Some(word) = words.next() {
            bail!("unexpected argument \"{}\"", shown(word));
        }
        if config.is_some() || disks.is_some() || mixed {
            bail!("-c belongs to config and create, -d to extract, --mixed to create");
        }
        Ok(command)
    }

    fn run(self, open: Open, out: &mut impl Write, made: &Made) -> anyhow::Result<()> {
        match self {
            Command::Help => print(out, HELP.as_bytes()),
            Command::List { archive } => print(out, header_lines(archive.open(open)?.header()).as_bytes()),
            Command::Config { archive, name } => {
                let reader = archive.open(open)?;
                let configs = &reader.header().configs;
                let Some(config) = configs.iter().find(|c| c.name == name) else {
                    let names = configs.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
                    bail!(
                        "{}: no configuration file \"{}\" (there is: {})",
                        archive.shown(),
                        shown(name),
                        shown(names)
                    );
                };
                print(out, &config.data)
            }
            Command::Verify { archive, verbose } => {
                let mut reader = archive.open(open)?;
                if verbose {
                    chat(out, header_lines(reader.header()).as_bytes())?;
                }
                while reader.next().with_context(|| archive.shown())?.is_some() {}
                if verbose {
                    chat(out, summary_line(reader.summary()).as_bytes())?;
                }
                Ok(())
            }
            Command::Extract { archive, directory, disks, verbose } => {
                let mut reader = archive.open(open)?;
                if verbose {
                    chat(out, header_lines(reader.header()).as_bytes())?;
                }
                remove_on_signals(made)?;
                let written = extract(&mut reader, &directory, disks.as_deref(), made)
                    .with_context(|| archive.shown())?;
                if verbose {
                    let mut text = String::new();
                    for file in written.files {
                        text += &format!("WROTE: {}\n", shown(file));
                    }
                    chat(out, (text + &summary_line(reader.summary())).as_bytes())?;
                }
                Ok(())
            }
            Command::Create { archive, images, config, mixed } => {
                create(&archive, &images, config, mixed, made)
            }
        }
    }
}

/// Splits `NAME=IMAGE`.
fn image(word: &OsStr) -> anyhow::Result<(String, PathBuf)> {
    let bytes = word.as_bytes();
    let at = bytes
        .iter()
        .position(|&b| b == b'=')
        .with_context(|| format!("\"{}\" is not NAME=IMAGE", shown(word)))?;
    let name = std::str::from_utf8(&bytes[..at])
        .with_context(|| format!("\"{}\": the name is not UTF-8", shown(word)))?;
    Ok((name.to_owned(), OsStr::from_bytes(&bytes[at + 1..]).into()))
}

fn create(
    archive: &OsStr,
    images: &[(String, PathBuf)],
    config: Option<PathBuf>,
    mixed: bool,
    made: &Made,
) -> anyhow::Result<()> {
    let mut uuid = Uuid::default();
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut uuid)).context("/dev/urandom")?;
    let seed = u64::from_le_bytes(*uuid.first_chunk().expect("16 bytes"));
    let ctime = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let mut header = Header { uuid, ctime, configs: Vec::new(), devices: Vec::new() };
    if let Some(path) = config {
        let data = fs::read(&path).with_context(|| shown(&path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        header.configs.push(Config { name, data });
    }
    if images.len() > MAX_DEVICE.into() {
        bail!("an archive holds at most {MAX_DEVICE} disks");
    }
    let mut files = Vec::new();
    for ((name, path), id) in images.iter().zip(1..=MAX_DEVICE) {
        let (file, size) = open_image(path)?;
        header.devices.push(Device { id, name: name.clone(), size });
        files.push(file);
    }
    let shown = || match archive.as_bytes() {
        b"-" => "standard output".to_owned(),
        _ => shown(archive),
    };
    // What cannot be stored is refused before there is a file.
    header.encode().map_err(|defect| Error::Unstorable(defect.to_string())).with_context(shown)?;
    let order = if mixed { Order::Workers(seed) } else { Order::Sequential };
    let buffered = |file| io::BufWriter::with_capacity(1 << 20, file);
    if archive == "-" {
        write_archive(buffered(standard::output()?), header, &mut files, order).with_context(shown)?;
        return Ok(());
    }
    remove_on_signals(made)?;
    made.all_or_nothing(|| -> anyhow::Result<()> {
        let file = made.file(Path::new(archive))?;
        let written = write_archive(buffered(file), header, &mut files, order)?;
        // Told here, an error of the disk is known before anyone relies on the archive.
        Ok(written.get_ref().sync_all()?)
    })
    .with_context(shown)
}

/// Opens an image; also tells its size.
fn open_image(path: &Path) -> anyhow::Result<(File, u64)> {
    let context = || shown(path);
    // Asked before opening: to open a FIFO would wait for its writer.
    let kind = fs::metadata(path).with_context(context)?.file_type();
    if !(kind.is_file() || kind.is_block_device()) {
        bail!("{} is no regular file or block device", shown(path));
    }
    let mut file = File::open(path).with_context(context)?;
    // Not from the metadata, which says 0 for a block device.
    let size = file.seek(io::SeekFrom::End(0)).with_context(context)?;
    if size == 0 {
        bail!("{} is empty", shown(path));
    }
    file.rewind().with_context(context)?;
    Ok((file, size))
}

/// The lines of Proxmox's `vma list`, but the time is UTC and says so.
fn header_lines(header: &Header) -> String {
    let mut lines = Vec::new();
    for config in &header.configs {
        lines.push(format!("CFG: size: {} name: {}", config.data.len(), shown(&config.name)));
    }
    for device in &header.devices {
        let Device { id, name, size } = device;
        lines.push(match device.is_vmstate() {
            true => format!("VMSTATE: dev_id={id} memory: {size}"),
            false => format!("DEV: dev_id={id} size: {size} devname: {}", shown(name)),
        });
    }
    lines.push(match Stamp::from_unix_utc(header.ctime) {
        Some(stamp) => format!("CTIME: {stamp} UTC"),
        None => format!("CTIME: {} seconds since 1970", header.ctime),
    });
    lines.join("\n") + "\n"
}

fn summary_line(summary: Summary) -> String {
    let Summary { bytes, extents, clusters, blocks } = summary;
    let zeros = clusters * 16 - blocks;
    format!(
        "OK: {bytes} bytes, {extents} extents, {clusters} clusters, {blocks} blocks of data, {zeros} of zeros\n"
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
        let archive = || Archive { name: "a.vma".into(), base: None };
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
    fn a_base_belongs_to_what_is_read() {
        let archive = Archive { name: "d".into(), base: Some("f".into()) };
        assert_eq!(parse("list d --base f").unwrap(), Command::List { archive });
        let error = parse("create d --base f drive-scsi0=i").unwrap_err().to_string();
        assert_eq!(error, "--base belongs to list, config, verify and extract");
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
