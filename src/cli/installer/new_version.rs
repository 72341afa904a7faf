//! `new-version` tries the patch sets with releases that they do not know yet, or with all there ever were.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::ProgressBar;

use super::{Console, LoadArgs, open};
use crate::cli::Global;
use crate::cli::exit::{Exit, Stop};
use crate::cli::say::{count as counted, say};
use crate::host::root::read_bounded;
use crate::patching::anchors;
use crate::patching::check::{Outcome, Trust};
use crate::patching::embedded;
use crate::patching::sha256_hex;
use crate::patching::verified::{self, Verified};
use crate::service::Host;
use crate::service::check::describe;
use crate::service::upcoming::Upcoming;
use crate::upstream::matrix::{self, Counts, Report};

/// The major releases of Proxmox VE that there are files of.
const SERIES: [u32; 8] = [2, 3, 4, 5, 6, 7, 8, 9];

/// Largest patch set read.
const MAX_SET: u64 = 8 << 20;

/// Options of `new-version`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Package files of the new release; without any, the host as it is
    #[arg(value_name = "FILE", conflicts_with = "clones")]
    debs: Vec<PathBuf>,
    /// Try every release in the clones of Proxmox' repositories below DIR (NAME/.git, NAME.git or NAME)
    #[arg(long, value_name = "DIR")]
    clones: Option<PathBuf>,
    /// With --clones: only these major releases
    #[arg(long, value_name = "N", value_delimiter = ',', requires = "clones")]
    series: Vec<u32>,
    /// Note what went well in verified.yaml of the folder given with --patches
    #[arg(long, conflicts_with = "series")]
    write: bool,
    #[command(flatten)]
    load: LoadArgs,
}

impl Args {
    /// Whether the hosts to try are those of clones.
    pub(in crate::cli) fn is_of_clones(&self) -> bool {
        self.clones.is_some()
    }
}

/// Tries, reports and, where asked to, notes.
///
/// # Errors
/// Where something cannot be read or written. Anchors that are lost and the like end with the exit code `apply` would
/// have; exceptions among many releases with that of any other failure.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let patches = global.patches.as_deref();
    if args.write && patches.is_none() {
        let text =
            "--write needs the folder with the patch sets, whose verified.yaml it is: --patches patches";
        return Err(Stop(Exit::Usage, text.to_owned()).into());
    }
    if args.write && args.clones.is_some() && !args.load.load_modules {
        let text = "--write notes what was loaded with our lines, and --clones has code of others: give --load-modules, and \
                    --perl-lib with stand-ins for what is missing";
        return Err(Stop(Exit::Usage, text.to_owned()).into());
    }
    let trust = args.load.trust()?;
    let host = open(global)?;
    let digests = digests(&host, patches)?;
    match &args.clones {
        Some(clones) => {
            let series = if args.series.is_empty() { SERIES.to_vec() } else { args.series.clone() };
            try_all(&host, clones, &series, &digests, &trust, args.write.then_some(patches).flatten())
        }
        None => try_one(&host, &args.debs, digests, &trust, args.write.then_some(patches).flatten()),
    }
}

/// The digest of each set.
fn digests(host: &Host, patches: Option<&Path>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    for set in host.sets() {
        let path = format!("{}/patchset.yaml", set.name);
        let yaml = match patches {
            Some(dir) => read_bounded(&dir.join(&path), MAX_SET).with_context(|| path.clone())?,
            None => {
                let found = embedded::FILES.iter().find(|(name, _)| *name == path);
                found.map(|(_, yaml)| yaml.to_vec()).with_context(|| path.clone())?
            }
        };
        digests.insert(set.name.clone(), verified::digest(&set.name, &yaml)?);
    }
    Ok(digests)
}

/// Tries one host, as it is or with package files.
fn try_one(
    host: &Host,
    debs: &[PathBuf],
    digests: BTreeMap<String, String>,
    trust: &Trust,
    write: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let console = Console::new();
    let upcoming = Upcoming::new(host.view(&console)?, debs)?;
    let mut out = io::stdout().lock();
    for (name, package) in &upcoming.view.survey.packages {
        writeln!(out, "{name} {}", package.version)?;
    }
    let plan = upcoming.plan(host)?;
    writeln!(out, "patch set {} {}", plan.set.name, plan.set.version)?;
    for finding in anchors::examine(&plan) {
        writeln!(out, "{finding}")?;
    }
    let tried = upcoming.try_out(host, trust, &console)?;
    describe(&tried.checked).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    let set = &tried.plan.set.name;
    let mut verified = host.verified().clone();
    if !verified.knows(set) {
        verified.begin(set, digests.get(set).cloned().unwrap_or_default());
    }
    let loads = tried.checked.iter().all(|checked| checked.outcome == Outcome::Loads);
    let mut news = 0;
    for file in &tried.plan.files {
        let (Some(package), Some(pristine)) = (&file.package, &file.pristine) else { continue };
        let Some(installed) = upcoming.view.survey.packages.get(package) else { continue };
        let known = host.verified().knows_file(set, file) == Some(true);
        let state = if known { "known" } else { "new" };
        writeln!(out, "/{}: {state}: {} {}", file.path, package, installed.version)?;
        news += usize::from(!known);
        verified.add(set, package, &file.path, &sha256_hex(pristine), &installed.version);
    }
    writeln!(out, "{news} new contents, all of them good")?;
    if let Some(patches) = write {
        if !loads {
            let text = "not written: not every module was loaded here. Give --load-modules, and what is missing with \
                        --perl-lib, or --root a host that has it";
            return Err(Stop(Exit::ModuleBroken, text.to_owned()).into());
        }
        if host.verified().is_outdated(set) {
            let text = "not written: the set's hunks have changed since verified.yaml was written, so all it names must be \
                        tried anew: new-version --clones DIR --write";
            return Err(Stop(Exit::Failure, text.to_owned()).into());
        }
        verified.compact();
        save(&verified, patches)?;
    }
    Ok(Exit::Success.into())
}

/// Tries all releases of the public history.
fn try_all(
    host: &Host,
    clones: &Path,
    series: &[u32],
    digests: &BTreeMap<String, String>,
    trust: &Trust,
    write: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let bar = ProgressBar::new_spinner();
    let report = matrix::run(clones, series, host.sets(), digests, trust, &|release| {
        bar.set_message(release.to_owned());
        bar.tick();
    })?;
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    print(&mut out, &report)?;
    if let Some(patches) = write {
        save(&report.verified, patches)?;
    }
    match report.exceptions.is_empty() {
        true => Ok(Exit::Success.into()),
        false => Ok(Exit::Failure.into()),
    }
}

/// Prints the table, then all that is not as it should be.
fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let row = |out: &mut dyn Write, series: &str, package: &str, counts: &Counts| {
        writeln!(
            out,
            "{series:<7}{package:<26}{:>9}{:>6}{:>9}{:>10}{:>6}{:>9}{:>10}",
            counts.releases,
            counts.good,
            counts.anchors,
            counts.contents,
            counts.load,
            counts.compile,
            counts.reverted
        )
    };
    writeln!(
        out,
        "{:<7}{:<26}{:>9}{:>6}{:>9}{:>10}{:>6}{:>9}{:>10}",
        "series", "package", "releases", "good", "anchors", "contents", "load", "compile", "reverted"
    )?;
    let mut sum = Counts::default();
    for ((series, package), counts) in &report.counts {
        row(out, &series.to_string(), package, counts)?;
        sum.releases += counts.releases;
        sum.good += counts.good;
        sum.anchors += counts.anchors;
        sum.contents += counts.contents;
        sum.load += counts.load;
        sum.compile += counts.compile;
        sum.reverted += counts.reverted;
    }
    row(out, "all", "", &sum)?;
    for ((series, file, reason), count) in &report.unloaded {
        writeln!(out, "{series}: /{file}: {count} contents do not load as they are: {reason}")?;
    }
    for ((series, text), (first, last, count)) in &report.exceptions {
        writeln!(out, "{series}: EXCEPTION with {}, {first} to {last}: {text}", counted(*count, "release"))?;
    }
    writeln!(
        out,
        "{} tried, {}",
        counted(sum.releases, "release"),
        counted(report.exceptions.len(), "exception")
    )
}

/// Replaces verified.yaml in the folder `patches`.
fn save(verified: &Verified, patches: &Path) -> anyhow::Result<()> {
    let path = patches.join(verified::FILE);
    let mut file = tempfile::NamedTempFile::new_in(patches).with_context(|| path.display().to_string())?;
    file.write_all(verified.to_yaml().as_bytes())?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode)?;
    file.persist(&path).with_context(|| path.display().to_string())?;
    if io::stderr().is_terminal() {
        say!("wrote {}", path.display());
    }
    Ok(())
}
