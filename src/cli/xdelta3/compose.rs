//! `pve-xdelta3 compose` makes a differential of the ranges of disks that QEMU's dirty bitmaps mark.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};

use super::super::output::Destination;
use super::super::say::say;
use super::{BaseArgs, Encoded, Output, ReportArg, Usage, hex};
use crate::container;
use crate::container::source::{self, Refused};
use crate::matching::base::Base;
use crate::matching::compose::{self, Disk, Previous};
use crate::matching::{BaseProblem, Error};
use crate::nbd::{self, Client, Limits, Throttle, Uri};
use crate::text::shown;
use crate::vma::Config;

/// The long help text.
pub(super) const ABOUT: &str = "Makes a differential of a running VM without reading its disks: what QEMU's dirty bitmaps \
mark is read by NBD, all else is taken over from the last differential, or copied from the full backup. Neither the rest of \
the disks nor the full backup's data is read.\n\nThe full backup must have been made by pve-xdelta3 full with zstd, since a \
version that stores where its clusters lie. The disks must be those of the full backup, of the same size. If anything does \
not fit, nothing is written, and the exit status is 3: everything must be read then (pve-xdelta3 diff).\n\nThat the bitmaps \
mark all that was written since the last differential was made, or since the full backup if there is none, cannot be seen \
from them: whoever calls this must know.";

/// The arguments of the command.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    base: BaseArgs,
    /// The differential of this full backup since which the bitmaps count. Without it, they count since the full backup
    /// itself
    #[arg(long, value_name = "FILE")]
    previous: Option<Encoded>,
    /// A disk: its name in the archive, its export (nbd+unix:///EXPORT?socket=PATH), and the name of its dirty bitmap
    /// there; with - in place of the bitmap, the whole disk is read
    #[arg(long, num_args = 3, value_names = ["NAME", "URI", "BITMAP"], required = true)]
    disk: Vec<String>,
    /// A file of the guest's configuration, stored under its own name (qemu-server.conf)
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Read no more than this many bytes a second, of all disks together; 0 is no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    bandwidth: u64,
    /// Seconds that QEMU may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// The full backup's id, as `identify` told it; another file in its place is refused
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Tell on standard error how much of each disk was read, and how much was new
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    report: ReportArg,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    to: Destination,
}

/// Runs the command.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let report = args.report.begin();
    let (how, threads) = (args.output.compression()?, args.output.threads.get());
    let Some((path, found)) = args.base.get() else {
        bail!(Usage("which full backup? Give it with --base".into()))
    };
    let configs = args.config.iter().map(config).collect::<anyhow::Result<Vec<_>>>()?;
    let base = Base::open_found(&path, found).and_then(Base::full)?;
    if args.id.as_ref().is_some_and(|id| *id != hex(&base.identity)) {
        let problem = BaseProblem::Changed("was replaced or cut short".into());
        return Err(Error::Base { path: base.path, problem }.into());
    }
    let previous = args.previous.map(|file| file.0);
    let opened = previous.as_deref().map(|path| {
        let file = source::open(path, found).map_err(|refused| match refused {
            Refused::Io(error) => anyhow!("cannot open {}: {error}", shown(path)),
            refused => anyhow!("{} {refused}", shown(path)),
        })?;
        Ok::<_, anyhow::Error>(Previous::new(path, file))
    });
    let opened = opened.transpose()?;

    let throttle = (args.bandwidth > 0).then(|| Arc::new(Throttle::new(args.bandwidth)));
    let limits = Limits { timeout: Duration::from_secs(args.timeout), throttle, ..Limits::default() };
    let disks = args.disk.chunks_exact(3).map(|disk| {
        let [name, uri, bitmap] = disk else { bail!("--disk takes NAME URI BITMAP") };
        let bitmap = Some(bitmap.as_str()).filter(|bitmap| *bitmap != "-");
        let connect = || Client::connect(&Uri::parse(uri)?, bitmap, limits.clone());
        Ok(Disk::new(name, connect)?)
    });
    let disks = disks.collect::<anyhow::Result<Vec<_>>>()?;
    let witness = base.witness(found);
    let prepared = compose::prepare(base, disks, opened).with_context(|| match &previous {
        Some(previous) => format!("{} with {}", shown(&path), shown(previous)),
        None => shown(&path),
    })?;

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    let read: Vec<_> = [Some(path.as_path()), previous.as_deref()].into_iter().flatten().collect();
    let summary = args.to.write(&read, |output| {
        let out = container::small_encoder(Box::new(output), how, threads)?;
        Ok(prepared.write(configs, now, out, || witness.still_there())?)
    })?;
    report.write_disks(Some(summary.new), &summary.disks);
    if args.verbose {
        let mib = |n: u64| n as f64 / (1u64 << 20) as f64;
        for disk in &summary.disks {
            say!("{}: read {:.1} MiB of {:.1} MiB", disk.name, mib(disk.read), mib(disk.size));
        }
        say!("{:.1} MiB, of which {:.1} MiB are new", mib(summary.total), mib(summary.new));
    }
    Ok(())
}

/// Reads a file of the guest's configuration in the form in which the archive holds it.
fn config(path: &PathBuf) -> anyhow::Result<Config> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name =
        name.ok_or_else(|| anyhow!("{} has no name that an archive can hold", shown(path)))?.to_owned();
    let data = fs::read(path).with_context(|| format!("cannot read {}", shown(path)))?;
    Ok(Config { name, data })
}

/// Tells whether an error means that nothing is wrong, except that all of the disks must be read.
pub(super) fn must_read_all(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<Error>(),
        Some(Error::Unfit(_) | Error::Disk { source: nbd::Error::NoBitmap { .. }, .. })
    )
}
