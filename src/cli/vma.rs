//! `pve-xdelta3 vma`: looking into VMA archives, also compressed or differential ones.
//!
//! The commands and options are those of Proxmox's `vma`, so that an administrator knows them.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use lexopt::prelude::*;

use crate::backup::Stamp;
use crate::vma::{Header, Reader, Summary, extract};

/// Text of `pve-xdelta3 vma --help`.
pub const HELP: &str = "\
Look into a VMA archive (a VM's backup), compressed or not, full or differential.

usage: pve-xdelta3 vma list ARCHIVE
       pve-xdelta3 vma config ARCHIVE [-c NAME]
       pve-xdelta3 vma verify ARCHIVE [-v]
       pve-xdelta3 vma extract ARCHIVE DIRECTORY [-v] [-d DISK[,DISK...]]

  list      configuration files, disks and their sizes, time of the backup
  config    print a configuration file (default: qemu-server.conf)
  verify    check the whole archive: structure, checksums, every disk complete
  extract   write the configuration files and a sparse raw image of each disk
            into DIRECTORY, which must not exist yet

  -c, --config NAME    the configuration file to print
  -d, --disks LIST     only these disks, for instance drive-scsi0,drive-efidisk0
  -v, --verbose        tell what is found

ARCHIVE may be - for standard input.
";

/// Opens an archive by name (`-`: standard input) and gives its decompressed VMA stream.
pub type Open<'a> = &'a dyn Fn(&OsStr) -> anyhow::Result<Box<dyn Read>>;

/// Runs `pve-xdelta3 vma ARGS`. Exit code 0: all well; 1: the archive is damaged or cannot be read; 2: usage.
pub fn run(args: impl IntoIterator<Item = OsString>, open: Open) -> ExitCode {
    let command = match Command::parse(args) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("pve-xdelta3 vma: {error:#}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match command.run(open, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // whoever reads our output has seen enough
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pve-xdelta3 vma: {error:#}");
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
}

impl Command {
    fn parse(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let mut parser = lexopt::Parser::from_args(args);
        let (mut words, mut config, mut disks, mut verbose) = (Vec::new(), None, None, false);
        while let Some(arg) = parser.next()? {
            match arg {
                Short('h') | Long("help") => return Ok(Command::Help),
                Short('v') | Long("verbose") => verbose = true,
                Short('c') | Long("config") => config = Some(parser.value()?.string()?),
                Short('d') | Long("disks") => {
                    disks = Some(parser.value()?.string()?.split(',').map(str::to_owned).collect());
                }
                Value(word) => words.push(word),
                other => return Err(other.unexpected().into()),
            }
        }
        let mut words = words.into_iter();
        let name = words.next().context("what shall be done? list, config, verify or extract")?;
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
            _ => bail!("unknown command {name:?}"),
        };
        if let Some(word) = words.next() {
            bail!("unexpected argument {word:?}");
        }
        if config.is_some() || disks.is_some() {
            bail!("-c belongs to config, -d to extract");
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
        }
        out.flush()?;
        Ok(())
    }
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
