//! `pve-xdelta3 restore`: from a differential and its full backup, or from what is left of them.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueHint};

use super::{BaseArgs, Threads};
use crate::cli::output::Destination;
use crate::cli::progress::Progress;
use crate::cli::say::say;
use crate::cli::{archive, salvage as salvaging, standard};
use crate::container::source::{Found, Pass};
use crate::container::{self, Kind};
use crate::matching::WINDOW;
use crate::matching::base::{Base, Nature};
use crate::matching::restore::{Differential, Options};
use crate::text::shown;

pub(super) const ABOUT: &str = "\
Restores from a differential and its full backup, to standard output.

With --salvage FILE is a damaged backup of a container, full or differential, and what can be read of it is written as a tar \
archive. What is whole is as it was. A file of which a part is lost is called NAME.incomplete, and has zeros for what is lost. \
Where it is no longer known where files begin, all that is found from there on lies in the folder unproved-1 (then unproved-2, \
and so on): it may belong to an archive that lies in a file, so look at it before you put it in its place. What is lost is listed \
on standard error. The exit code is 4 then. Of a VM's backup, vma extract --salvage gets what is left.";

#[derive(Args)]
pub(super) struct RestoreArgs {
    /// Where no full backup is given, it is looked for beside FILE, by FILE's name, and both must be regular files. If
    /// it is not there, or is another one, the same name with another compression (.zst, .lzo, .gz, .xz, none) will do
    #[command(flatten)]
    base: BaseArgs,
    /// Use this base even if the differential's header says that it was made against another one, or does not say
    /// against which
    #[arg(long)]
    any_base: bool,
    /// MiB to keep of a base that can only be read from the front (zstd without a map, gzip, xz)
    #[arg(long, value_name = "MIB", default_value_t = WINDOW >> 20, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    window: u64,
    /// Get what is left of a damaged backup of a container, full or differential, and list what is lost
    #[arg(long)]
    salvage: bool,
    /// With --salvage: write that list to FILE, too, as JSON. FILE must not exist yet
    #[arg(long, value_name = "FILE", requires = "salvage", value_hint = ValueHint::FilePath)]
    json: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    to: Destination,
    /// The differential; - for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    file: OsString,
}

/// Runs the command.
pub(super) fn run(args: RestoreArgs) -> anyhow::Result<()> {
    if args.salvage {
        return salvage(args);
    }
    let name = archive::shown(&args.file);
    let given = args.base.get();
    let beside = archive::full_beside(Path::new(&args.file));
    let found = match (&given, &beside) {
        (Some((_, found)), _) => *found,
        (None, Ok(_)) => Found::ByName,
        (None, Err(_)) => Found::ByPerson,
    };
    let input = archive::input(&args.file, found)?;
    let again = Pass::from_here(&input);
    let delta = read_differential(input).with_context(|| name.clone())?.with(again);
    let base = match given {
        Some((base, _)) => Some(base),
        None if delta.needs_base() => Some(beside?),
        None => None,
    };
    let header = delta.header();
    let open = |base: PathBuf| match args.any_base {
        // Whoever accepts any base means the file of that name, not the same name with another compression.
        true => Base::open_found(&base, found),
        false => archive::open_in_any_form(&base, found, &header),
    };
    let base = base.map(open).transpose().with_context(|| name.clone())?;
    let unchecked = match &base {
        Some(base) if found == Found::ByName && !args.any_base => {
            base.accept_by_name(&header).with_context(|| name.clone())?
        }
        _ => None,
    };
    let both = match &base {
        Some(base) => format!("{name} (full backup {})", shown(&base.path)),
        None => name,
    };
    let options =
        Options { threads: args.threads.get(), window: args.window << 20, check_base: !args.any_base };
    let mut read = vec![Path::new(&args.file)];
    let path = base.as_ref().map(|base| base.path.clone());
    read.extend(path.as_deref());
    args.to.write(&read, |mut out| {
        let size = base.as_ref().and_then(Base::size);
        let progress = Progress::new(args.to.progress(!standard::is_file()), size);
        let done = delta.restore(base, options, |bytes| {
            progress.add(bytes.len() as u64);
            out.write_all(bytes)
        });
        progress.end();
        done.map(drop).context(both)
    })?;
    // The warning comes at the end: Proxmox VE reads the beginning for the guest's configuration, and takes any text
    // for a failure.
    if let Some(unchecked) = unchecked {
        say!("{}: warning: {unchecked}", archive::shown(&args.file));
    }
    Ok(())
}

/// Reads a differential's header. A full backup that is given as a differential is refused in words that say so.
pub(super) fn read_differential(input: File) -> anyhow::Result<Differential> {
    let (kind, content) = container::decoder(Box::new(input)).context("cannot read the differential")?;
    let (found, content) = archive::beginning(content).context("cannot read the differential")?;
    let unpacker = match kind {
        Kind::Zstd => "zstd -d",
        Kind::Lzop => "lzop -d",
        Kind::Gzip => "gzip -d",
        _ => "its decompressor",
    };
    match (found, kind) {
        (Nature::Vma, Kind::Raw) => {
            bail!("a full backup (VMA), not compressed: pve-xdelta3 vma extract unpacks its disks")
        }
        (Nature::Vma, _) => bail!(
            "a full backup (VMA), no differential: {unpacker} decompresses it, pve-xdelta3 vma extract unpacks its disks"
        ),
        (Nature::Tar, Kind::Raw) => bail!("a full backup (tar), not compressed: tar -x unpacks it"),
        (Nature::Tar, _) => {
            bail!("a full backup (tar), no differential: {unpacker} decompresses it, tar -x unpacks it then")
        }
        _ => Ok(Differential::new(content)?),
    }
}

/// Writes what is left of a damaged backup of a container.
fn salvage(args: RestoreArgs) -> anyhow::Result<()> {
    let base = args.base.get().map(|(base, _)| base);
    let given = base.as_deref();
    let read: Vec<&Path> = [Path::new(&args.file)].into_iter().chain(given).collect();
    let salvaged = args.to.write(&read, |mut out| salvaging::tar((&args.file, given), &mut out))?;
    salvaging::tell_tar(&args.file, &salvaged, args.json.as_deref())
}
