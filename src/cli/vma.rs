//! `pve-xdelta3 vma` looks into VMA archives, also compressed or differential ones.
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
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Subcommand, ValueHint};

use super::archive::{self, Archive};
use super::exit::{BROKEN_PIPE, INCOMPLETE};
use super::output;
use super::progress::{Progress, Watched};
use super::salvage::{self, Incomplete};
use super::say::{chat, failure, print, say};
use super::signals::remove_on_signals;
use super::standard;
use super::{mount, nbd};
use crate::backup::Stamp;
use crate::host::root::read_bounded;
use crate::text::shown;
use crate::vma::{
    Config, Device, Error, Header, MAX_DEVICE, Made, Order, Reader, Summary, Uuid, extract, write_archive,
};

/// The length in bytes of the longest configuration file that an archive can hold.
const MAX_CONFIG: u64 = u16::MAX as u64;

/// Opens an archive by its name (`-` is standard input) as a decompressed VMA stream. The path is the full backup of a
/// differential, if one is given.
pub type Open<'a> = &'a dyn Fn(&OsStr, Option<&Path>) -> anyhow::Result<Box<dyn Read>>;

/// Runs `pve-xdelta3 vma`. The exit codes are those of `pve-xdelta3`.
pub fn run(command: Command, open: Open) -> ExitCode {
    let made = Made::default();
    match command.run(open, &mut io::stdout().lock(), &made) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if super::is_broken_pipe(&error) => ExitCode::from(BROKEN_PIPE),
        Err(error) => {
            failure(&error);
            for path in made.left() {
                say!("{} could not be removed: it is incomplete", shown(path));
            }
            if error.is::<Incomplete>() { ExitCode::from(INCOMPLETE) } else { ExitCode::FAILURE }
        }
    }
}

/// The commands that work on a VMA archive.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Show the configuration files, the disks and their sizes, and the time of the backup
    List {
        /// The archive to read.
        #[command(flatten)]
        archive: Archive,
    },
    /// Print a configuration file
    Config {
        /// The archive to read.
        #[command(flatten)]
        archive: Archive,
        /// The configuration file to print
        #[arg(short, long = "config", value_name = "NAME", default_value = "qemu-server.conf")]
        config: String,
    },
    /// Check the whole archive: structure, checksums, every disk complete
    Verify {
        /// The archive to read.
        #[command(flatten)]
        archive: Archive,
        /// Tell what is found
        #[arg(short, long)]
        verbose: bool,
        /// Show no progress (there is some on a terminal only)
        #[arg(short, long)]
        quiet: bool,
    },
    /// Write the configuration files and a sparse raw image of each disk into a new directory
    ///
    /// If that fails, nothing is left behind. Of a damaged backup, --salvage gets what is left.
    Extract {
        /// The archive to read.
        #[command(flatten)]
        archive: Archive,
        /// The directory, which must not exist yet
        directory: PathBuf,
        /// Only these disks, for instance drive-scsi0,drive-efidisk0
        #[arg(short, long, value_name = "DISK", value_delimiter = ',')]
        disks: Option<Vec<String>>,
        /// Get what can be read of a damaged backup, also of a differential whose full backup is damaged. Images keep
        /// their full length; what is lost is zeros in them, and listed on standard error, from the first lost byte to the first
        /// behind it. What is there, but has lost the checksum that vouches for it, is listed as unproved. The image of a disk that
        /// is not whole is named disk-NAME.incomplete.raw, and the exit status is 4
        #[arg(long)]
        salvage: bool,
        /// Also write the list as JSON to FILE, which must not exist yet
        #[arg(long, value_name = "FILE", requires = "salvage")]
        json: Option<PathBuf>,
        /// Tell what is found
        #[arg(short, long)]
        verbose: bool,
        /// Show no progress (there is some on a terminal only)
        #[arg(short, long)]
        quiet: bool,
    },
    /// Let other programs read the disks without restoring them, over the NBD protocol
    #[command(long_about = nbd::ABOUT)]
    Nbd(nbd::Args),
    /// Show the disks as files in a folder, without restoring them
    #[command(long_about = mount::ABOUT_DISKS)]
    Mount(mount::Args),
    /// Write raw images into an uncompressed archive
    ///
    /// If that fails, nothing is left behind.
    Create {
        /// The archive, which must not exist yet; - for standard output
        #[arg(value_hint = ValueHint::FilePath)]
        archive: OsString,
        /// A disk: its name in the archive (drive-scsi0 or the like) and the raw image of it
        #[arg(value_name = "NAME=IMAGE", required = true, value_parser = OsStringValueParser::new().try_map(image))]
        images: Vec<(String, PathBuf)>,
        /// A configuration file to store with them
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Order the clusters as QEMU's backup does, not from front to back
        #[arg(long)]
        mixed: bool,
    },
}

/// Opens the archive as a stream.
fn opened(archive: &Archive, open: Open) -> anyhow::Result<Reader<Box<dyn Read>>> {
    let input = open(&archive.name, archive.base.as_deref())?;
    Reader::new(input).with_context(|| archive.shown())
}

/// Opens the archive to be read as a whole, with a bar that shows the progress.
fn watched(archive: &Archive, open: Open, quiet: bool) -> anyhow::Result<(Reader<Box<dyn Read>>, Progress)> {
    let progress = Progress::new(!quiet, archive::expected(&archive.name, archive.base.as_deref()));
    progress.at(&archive.shown(), None);
    let inner = open(&archive.name, archive.base.as_deref())?;
    let watched = Watched { inner, progress: progress.clone() };
    Ok((Reader::new(Box::new(watched) as Box<dyn Read>).with_context(|| archive.shown())?, progress))
}

impl Command {
    /// Tells whether all or some of the result goes to standard output.
    fn prints(&self) -> bool {
        match self {
            Command::List { .. } | Command::Config { .. } => true,
            Command::Verify { verbose, .. } | Command::Extract { verbose, .. } => *verbose,
            // `create` asks for itself, if the archive goes to standard output.
            Command::Create { .. } | Command::Mount(_) => false,
            Command::Nbd(_) => true,
        }
    }

    fn run(self, open: Open, out: &mut impl Write, made: &Made) -> anyhow::Result<()> {
        if self.prints() {
            standard::is_read()?;
        }
        match self {
            Command::List { archive } => {
                print(out, header_lines(opened(&archive, open)?.header()).as_bytes())
            }
            Command::Config { archive, config: name } => {
                let reader = opened(&archive, open)?;
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
            Command::Verify { archive, verbose, quiet } => {
                let (mut reader, progress) = watched(&archive, open, quiet)?;
                if verbose {
                    progress.suspend(|| chat(out, header_lines(reader.header()).as_bytes()))?;
                }
                while reader.next().with_context(|| archive.shown())?.is_some() {}
                progress.end();
                if verbose {
                    chat(out, summary_line(reader.summary()).as_bytes())?;
                }
                Ok(())
            }
            Command::Extract { archive, directory, disks, salvage: true, json, .. } => {
                remove_on_signals(made)?;
                let what = (archive.name.as_os_str(), archive.base.as_deref());
                salvage::extract(what, &directory, disks.as_deref(), json.as_deref(), made)
            }
            Command::Extract { archive, directory, disks, verbose, quiet, .. } => {
                let (mut reader, progress) = watched(&archive, open, quiet)?;
                if verbose {
                    progress.suspend(|| chat(out, header_lines(reader.header()).as_bytes()))?;
                }
                remove_on_signals(made)?;
                let written = extract(&mut reader, &directory, disks.as_deref(), made)
                    .with_context(|| archive.shown())?;
                progress.end();
                if verbose {
                    let mut text = String::new();
                    for file in written.files {
                        text += &format!("WROTE: {}\n", shown(file));
                    }
                    chat(out, (text + &summary_line(reader.summary())).as_bytes())?;
                }
                Ok(())
            }
            Command::Nbd(args) => nbd::run(args, out),
            Command::Mount(args) => mount::run(&args, mount::What::Disks),
            Command::Create { archive, images, config, mixed } => {
                create(&archive, &images, config, mixed, made)
            }
        }
    }
}

/// Splits `NAME=IMAGE` into the disk's name and the path of its image.
fn image(word: OsString) -> anyhow::Result<(String, PathBuf)> {
    let bytes = word.as_bytes();
    let at = bytes
        .iter()
        .position(|&b| b == b'=')
        .with_context(|| format!("\"{}\" is not NAME=IMAGE", shown(&word)))?;
    let name = std::str::from_utf8(&bytes[..at])
        .with_context(|| format!("\"{}\": the name is not UTF-8", shown(&word)))?;
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
        let data = read_bounded(&path, MAX_CONFIG).with_context(|| {
            format!(
                "cannot take {} for a configuration file, which has {MAX_CONFIG} bytes at most",
                shown(&path)
            )
        })?;
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
    // A header that cannot be stored is refused before a file is made.
    header.encode().map_err(|defect| Error::Unstorable(defect.to_string())).with_context(shown)?;
    let order = if mixed { Order::Workers(seed) } else { Order::Sequential };
    let buffered = |file| io::BufWriter::with_capacity(1 << 20, file);
    if archive == "-" {
        write_archive(buffered(standard::output()?), header, &mut files, order).with_context(shown)?;
        return Ok(());
    }
    let path = Path::new(archive);
    if path.symlink_metadata().is_ok() {
        bail!("{} exists already: choose another name", shown());
    }
    remove_on_signals(made)?;
    made.all_or_nothing(|| {
        output::complete(path, false, made, |file| {
            write_archive(buffered(file), header, &mut files, order).with_context(shown)
        })
    })?;
    Ok(())
}

/// Opens an image, and tells its size in bytes.
fn open_image(path: &Path) -> anyhow::Result<(File, u64)> {
    let context = || shown(path);
    // The kind of file is asked before it is opened: opening a FIFO would wait for its writer.
    let kind = fs::metadata(path).with_context(context)?.file_type();
    if !(kind.is_file() || kind.is_block_device()) {
        bail!("{} is no regular file or block device", shown(path));
    }
    let mut file = File::open(path).with_context(context)?;
    // The size is not taken from the metadata, which say 0 for a block device.
    let size = file.seek(io::SeekFrom::End(0)).with_context(context)?;
    if size == 0 {
        bail!("{} is empty", shown(path));
    }
    file.rewind().with_context(context)?;
    Ok((file, size))
}

/// Writes the lines that Proxmox's `vma list` writes, except that the time is in UTC and says so.
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
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &str) -> Result<Command, String> {
        let words = ["vma"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.command).map_err(|error| error.to_string())
    }

    #[test]
    fn the_commands_of_proxmox_are_understood() {
        let archive = || Archive { name: "a.vma".into(), base: None };
        assert_eq!(parse("list a.vma").unwrap(), Command::List { archive: archive() });
        assert_eq!(
            parse("verify a.vma -v").unwrap(),
            Command::Verify { archive: archive(), verbose: true, quiet: false }
        );
        assert_eq!(
            parse("config a.vma").unwrap(),
            Command::Config { archive: archive(), config: "qemu-server.conf".into() }
        );
        assert_eq!(
            parse("config -c qemu-server.fw a.vma").unwrap(),
            Command::Config { archive: archive(), config: "qemu-server.fw".into() }
        );
        assert_eq!(
            parse("extract -d drive-scsi0,drive-scsi1 a.vma out").unwrap(),
            Command::Extract {
                archive: archive(),
                directory: "out".into(),
                disks: Some(vec!["drive-scsi0".into(), "drive-scsi1".into()]),
                salvage: false,
                json: None,
                verbose: false,
                quiet: false
            }
        );
        assert_eq!(
            parse("create - drive-scsi0=i=1 -c 100.conf").unwrap(),
            Command::Create {
                archive: "-".into(),
                images: vec![("drive-scsi0".into(), "i=1".into())],
                config: Some("100.conf".into()),
                mixed: false
            }
        );
    }

    #[test]
    fn a_base_belongs_to_what_is_read() {
        let archive = Archive { name: "d".into(), base: Some("f".into()) };
        assert_eq!(parse("list d --base f").unwrap(), Command::List { archive });
        let error = parse("create d --base f drive-scsi0=i").unwrap_err();
        assert!(error.contains("unexpected argument '--base'"), "{error}");
    }

    #[test]
    fn mistakes_are_named() {
        for (line, message) in [
            ("", "subcommand"),
            ("list", "ARCHIVE"),
            ("extract a.vma", "DIRECTORY"),
            ("lists a.vma", "unrecognized subcommand 'lists'"),
            ("list a.vma b.vma", "unexpected argument 'b.vma'"),
            ("list -c x a.vma", "unexpected argument '-c'"),
            ("verify --fast a.vma", "unexpected argument '--fast'"),
            ("create a.vma", "NAME=IMAGE"),
            ("create a.vma drive-scsi0", "\"drive-scsi0\" is not NAME=IMAGE"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(message), "{line:?}: {error}");
        }
    }
}
