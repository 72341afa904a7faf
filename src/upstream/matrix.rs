//! Tries every release: installs it on the host as it was on that day, makes a plan, checks it, and takes everything out
//! again.
//!
//! Hosts differ from release to release in a file or two, so what costs time is done once for each content of a file:
//! loading it with perl, and proving its diff. The plan is made for every release.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use super::host::{Clones, History};
use crate::host::{Dpkg, Root, Version};
use crate::patching::anchors;
use crate::patching::change::Change;
use crate::patching::check::{self, Outcome, Trust};
use crate::patching::diff;
use crate::patching::patchset::PatchSet;
use crate::patching::plan::{self, Plan, PlannedFile};
use crate::patching::sha256_hex;
use crate::patching::survey::{Survey, packages};
use crate::patching::text::strip;
use crate::patching::verified::Verified;

/// The result of trying all releases.
#[derive(Debug, Default)]
pub struct Report {
    /// How the releases fared, by series and package.
    pub counts: BTreeMap<(u32, String), Counts>,
    /// What a set cannot do: the text, with the first and the last release that has it, and the number of such releases.
    pub exceptions: BTreeMap<(u32, String), (String, String, usize)>,
    /// Contents that were only compiled, or not even that, because they do not load as they are: the reason, by file.
    pub unloaded: BTreeMap<(u32, String, String), usize>,
    /// The contents that were tried with success.
    pub verified: Verified,
}

/// How the releases of one package fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Releases tried.
    pub releases: usize,
    /// Those without an exception.
    pub good: usize,
    /// Distinct contents of files that take lines of ours.
    pub contents: usize,
    /// Hunks whose anchor was found exactly once, over all releases.
    pub anchors: usize,
    /// Contents that load with our lines.
    pub load: usize,
    /// Contents that compile with stand-ins for missing modules.
    pub compile: usize,
    /// Contents that came back to the byte, from the patched file and from the diff.
    pub reverted: usize,
}

/// Tries all releases in `clones` of the given `series` with `sets`. `digests` says what each set is now; `trust`
/// whether modules are loaded; `progress` is told each release.
///
/// # Errors
/// Where a clone or the work folder cannot be used. What sets cannot do is in the report.
pub fn run(
    clones: &Path,
    series: &[u32],
    sets: &[PatchSet],
    digests: &BTreeMap<String, String>,
    trust: &Trust,
    progress: &(impl Fn(&str) + Sync),
) -> anyhow::Result<Report> {
    let mut report = Report::default();
    digests.iter().for_each(|(set, digest)| report.verified.begin(set, digest.clone()));
    let (report, queue) = (Mutex::new(report), Mutex::new(series.to_vec()));
    let work = || -> anyhow::Result<()> {
        let mut clones = Clones::open(clones)?;
        loop {
            let next = queue.lock().map(|mut queue| queue.pop()).unwrap_or_default();
            let Some(series) = next else { return Ok(()) };
            Walk { series, sets, trust, report: &report, host: History::new()?, done: BTreeSet::new() }
                .all(&mut clones, progress)?;
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(series.len());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let mut report = report.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report.verified.compact();
    Ok(report)
}

/// The walk through one series.
struct Walk<'a> {
    series: u32,
    sets: &'a [PatchSet],
    trust: &'a Trust,
    report: &'a Mutex<Report>,
    host: History,
    /// The contents that have been checked already.
    done: BTreeSet<String>,
}

impl Walk<'_> {
    fn all(mut self, clones: &mut Clones, progress: &impl Fn(&str)) -> anyhow::Result<()> {
        let releases = clones.releases(self.series);
        // The host begins with the first release of everything that was there in its first half year.
        let begin = releases.iter().find(|(index, _)| clones.get(*index).0.name == "pve-manager");
        let Some(begin) = begin.map(|(_, release)| release.time + HALF_A_YEAR) else { return Ok(()) };
        for (index, release) in releases.iter().rev().filter(|(_, release)| release.time < begin) {
            let (repository, clone) = clones.get(*index);
            if !releases.iter().any(|(other, earlier)| other == index && earlier.version < release.version) {
                self.host.install(clone, repository, release)?;
            }
        }
        for (index, release) in &releases {
            let (repository, clone) = clones.get(*index);
            self.host.install(clone, repository, release)?;
            if self.sets.iter().any(|set| set.packages.contains_key(repository.package)) {
                progress(&format!("{} {}", repository.package, release.version));
                self.try_host(repository.package, &release.version)?;
            }
        }
        Ok(())
    }

    /// Tries the host as it is, on which a release of `package` is new.
    fn try_host(&mut self, package: &str, version: &Version) -> anyhow::Result<()> {
        let root = Root::open(self.host.root())?;
        let survey = Survey::read(&root, &Dpkg::open(&root, &packages(self.sets))?, self.sets, None)?;
        let mut faults = Vec::new();
        let mut anchors = 0;
        match plan::choose(self.sets, &survey) {
            Err(refusal) => faults.push(refusal.to_string()),
            Ok(set) => {
                let plan = Plan::new(set, &survey);
                faults.extend(self.name_anchors(&plan));
                if let Ok(changes) = plan.changes() {
                    faults.extend(self.try_contents(&root, &survey, &plan, &changes)?);
                }
                let of_package = plan.files.iter().filter(|file| file.package.as_deref() == Some(package));
                anchors = of_package.filter(|file| file.patched.is_some()).map(|file| file.hunks.len()).sum();
            }
        }
        let mut report = self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let counts = report.counts.entry((self.series, package.to_owned())).or_default();
        counts.releases += 1;
        counts.good += usize::from(faults.is_empty());
        counts.anchors += anchors;
        for fault in faults {
            let release = format!("{package} {version}");
            let known = report.exceptions.entry((self.series, fault));
            let entry = known.or_insert_with(|| (release.clone(), release.clone(), 0));
            entry.1 = release;
            entry.2 += 1;
        }
        Ok(())
    }

    /// The plan's refusals in words that name anchors and no release, so that the same one in many releases counts once.
    fn name_anchors(&self, plan: &Plan) -> Vec<String> {
        if plan.refusals.is_empty() {
            return Vec::new();
        }
        let findings = anchors::examine(plan);
        let mut lost: Vec<String> =
            findings.iter().filter(|finding| !finding.holds()).map(ToString::to_string).collect();
        if lost.is_empty() {
            lost.extend(plan.refusals.iter().map(ToString::to_string));
        }
        lost
    }

    /// Checks what was not checked before, and notes all files as tried where nothing is wrong.
    fn try_contents(
        &mut self,
        root: &Root,
        survey: &Survey,
        plan: &Plan,
        changes: &[Change],
    ) -> anyhow::Result<Vec<String>> {
        let key = |file: &PlannedFile| {
            let sum = |content: &Option<Vec<u8>>| content.as_deref().map(sha256_hex).unwrap_or_default();
            format!("{} {} {}", file.path, sum(&file.pristine), sum(&file.patched))
        };
        let new: Vec<&PlannedFile> =
            plan.files.iter().filter(|file| !self.done.contains(&key(file))).collect();
        let is_new = |path: &str| new.iter().any(|file| file.path == path);
        let (checked, broken) = match new.is_empty() {
            true => Default::default(),
            false => check::files(&self.trust.modules(root, &[])?, survey, changes, is_new, |_| ())?,
        };
        let mut faults: Vec<String> = broken.iter().map(ToString::to_string).collect();
        for change in changes.iter().filter(|change| is_new(&change.path)) {
            if let Err(error) = diff::write_proven(&mut std::io::sink(), change) {
                faults.push(format!("/{}: {error}", change.path));
            }
        }
        let mut report = self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for file in &new {
            let Some(package) = &file.package else { continue };
            let counts = report.counts.entry((self.series, package.clone())).or_default();
            counts.contents += 1;
            let outcome = checked.iter().find(|checked| checked.path == file.path).map(|c| &c.outcome);
            counts.load += usize::from(matches!(outcome, Some(Outcome::Loads)));
            counts.compile += usize::from(matches!(outcome, Some(Outcome::Compiles(_))));
            let back = file.patched.as_deref().map(|patched| strip(patched).rest);
            match back == file.pristine {
                true => counts.reverted += 1,
                false => faults.push(format!("/{}: does not come back to the byte", file.path)),
            }
            if let Some(Outcome::Compiles(reason) | Outcome::NotCheckable(reason)) = outcome {
                // Without the place, which is that of a temporary folder.
                let reason = reason.split(" at /").next().unwrap_or_default().to_owned();
                *report.unloaded.entry((self.series, file.path.clone(), reason)).or_default() += 1;
            }
        }
        if faults.is_empty() {
            for file in &plan.files {
                let (Some(package), Some(pristine)) = (&file.package, &file.pristine) else { continue };
                let Some(installed) = survey.packages.get(package) else { continue };
                let sum = sha256_hex(pristine);
                report.verified.add(&plan.set.name, package, &file.path, &sum, &installed.version);
            }
            self.done.extend(new.iter().map(|file| key(file)));
        }
        Ok(faults)
    }
}

/// Half a year in seconds.
const HALF_A_YEAR: i64 = 182 * 86_400;
