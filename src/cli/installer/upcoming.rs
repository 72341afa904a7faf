//! `test --deb`: would a host take our lines after an upgrade that has not happened yet?

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{Host, View, apply};
use crate::cli::Global;
use crate::cli::exit::{Exit, Refused};
use crate::cli::say::count;
use crate::host::{Deb, hint};
use crate::patching::change::{Change, in_order};
use crate::patching::check::{self, Checked, Trust};
use crate::patching::plan::Plan;
use crate::patching::refusal::Refusal;
use crate::patching::text::strip;
use crate::patching::upcoming;

/// Where a package keeps Perl modules, relative to its root.
const PERL_LIB: &str = "usr/share/perl5";

/// A host on which package files are installed in thought.
pub(super) struct Upcoming {
    /// The package files.
    pub debs: Vec<Deb>,
    /// The host with them.
    pub view: View,
}

/// The outcome of a trial.
pub(super) struct Tried<'a> {
    /// What would be applied.
    pub plan: Plan<'a>,
    /// Its modules.
    pub checked: Vec<Checked>,
    /// Files that would hold our lines.
    pub files: usize,
}

impl Upcoming {
    /// `host` with the package files `files` installed; nothing is written below its root.
    pub fn new(host: &Host, files: &[PathBuf]) -> anyhow::Result<Self> {
        let debs = files.iter().map(|file| Deb::unpack(file)).collect::<Result<Vec<_>, _>>()?;
        let View { survey, record, mut originals } = host.view()?;
        originals.retain(|found| !debs.iter().any(|deb| deb.package == found.package));
        Ok(Self { view: View { survey: upcoming::with(survey, &debs)?, record, originals }, debs })
    }

    /// What would become of the files; nothing is loaded.
    pub fn plan<'a>(&self, host: &'a Host) -> Result<Plan<'a>, Refused> {
        host.plan(&self.view)
    }

    /// Applies in a temporary folder, loads where that is allowed, takes out again.
    pub fn try_out<'a>(&self, host: &'a Host, trust: &Trust) -> anyhow::Result<Tried<'a>> {
        let plan = self.plan(host)?;
        let changes = match plan.changes() {
            Ok(changes) => in_order(changes),
            Err(refusals) => return Err(Refused(refusals.to_vec()).into()),
        };
        let libs = self.debs.iter().map(|deb| deb.root().dir().join(PERL_LIB)).filter(|lib| lib.is_dir());
        let modules = trust.modules(&host.root, &libs.collect::<Vec<_>>())?;
        let (checked, mut broken) = check::files(&modules, &self.view.survey, &changes, |_| true, |_| ())?;
        for file in plan.files.iter().filter(|file| file.package.is_some()) {
            if file.patched.as_deref().map(|patched| strip(patched).rest) != file.pristine {
                broken.push(Refusal::RevertBroken { file: file.path.clone() });
            }
        }
        match broken.is_empty() {
            true => {
                let ours = |change: &&Change| change.after.is_some();
                let files = changes.iter().filter(ours).count();
                Ok(Tried { plan, checked, files })
            }
            false => Err(Refused(broken).into()),
        }
    }
}

/// Tries the package files `files` on the host.
///
/// # Errors
/// What speaks against them.
pub fn run(global: &Global, files: &[PathBuf], trust: &Trust, json: bool) -> anyhow::Result<ExitCode> {
    let host = Host::open(global)?;
    host.settle()?;
    let before = host.view()?;
    let upcoming = match Upcoming::new(&host, files) {
        Err(error) if json => return apply::print_refusal(&error),
        upcoming => upcoming?,
    };
    let packages: Vec<(String, String, String)> = upcoming
        .debs
        .iter()
        .map(|deb| {
            let now = before.survey.packages.get(&deb.package).map(|package| package.version.to_string());
            (deb.package.clone(), now.unwrap_or_default(), deb.version.to_string())
        })
        .collect();
    let tried = match upcoming.try_out(&host, trust) {
        Err(error) if json => return apply::print_refusal(&error),
        tried => tried?,
    };
    let (plan, verdicts) = (&tried.plan, host.verified.judge(&tried.plan));
    if json {
        let upgrades = packages.iter().map(|(name, from, to)| json!({"name": name, "from": from, "to": to}));
        apply::print_json(&json!({
            "ok": true,
            "exit": 0,
            "set": plan.set.name,
            "verified": host.is_verified(plan),
            "never_tried": verdicts.iter().flatten().flat_map(|v| &v.unknown).collect::<Vec<_>>(),
            "packages": upgrades.collect::<Vec<_>>(),
            "modules": tried.checked,
        }))?;
        return Ok(Exit::Success.into());
    }
    host.announce(plan, &upcoming.view);
    let mut out = io::stdout().lock();
    apply::describe_all(&tried.checked).iter().try_for_each(|line| writeln!(out, "{line}"))?;
    for (package, from, to) in &packages {
        let from = if from.is_empty() { "not installed" } else { from };
        writeln!(out, "{package} {from} -> {to}")?;
    }
    writeln!(
        out,
        "After this upgrade `apply` would give {} our lines and take them out again to the byte; nothing speaks \
         against it.",
        count(tried.files, "file")
    )?;
    Ok(Exit::Success.into())
}

/// For apt's hook: what it should say before the package files `files` are installed; nothing is loaded.
pub(super) fn warnings(host: &Host, files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let upcoming = Upcoming::new(host, files)?;
    let names: Vec<String> =
        upcoming.debs.iter().map(|deb| format!("{} {}", deb.package, deb.version)).collect();
    let names = names.join(", ");
    let against = |refusals: &[Refusal]| {
        let reasons = refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("\n");
        vec![format!(
            "{names} is coming, and with it this host cannot be patched:\n{reasons}\nBackups then go on as full ones \
             until a newer pve-diff-backup is installed; `{}` tells afterwards.",
            hint::ours("status")
        )]
    };
    let plan = match upcoming.plan(host) {
        Err(Refused(refusals)) => return Ok(against(&refusals)),
        Ok(plan) if !plan.refusals.is_empty() => return Ok(against(&plan.refusals)),
        Ok(plan) => plan,
    };
    let new = |package: &str| upcoming.debs.iter().any(|deb| deb.package == package);
    let unknown = match host.verified.judge(&plan) {
        Some(verdicts) => {
            verdicts.into_iter().any(|verdict| new(&verdict.package) && !verdict.unknown.is_empty())
        }
        None => plan.unverified.iter().any(|(package, ..)| new(package)),
    };
    Ok(match unknown {
        true => vec![format!(
            "{names} is coming. Its files match the patch set, which was never tried with exactly these: test a backup and a \
             restore after the upgrade."
        )],
        false => Vec::new(),
    })
}
