//! Tries whether a host would take our lines after an upgrade that has not happened yet.

use std::path::PathBuf;

use super::check::modules;
use super::host::{Host, Refused, View};
use super::listener::Listener;
use crate::host::{Deb, hint};
use crate::patching::change::{Change, in_order};
use crate::patching::check::{Checked, Trust};
use crate::patching::plan::Plan;
use crate::patching::refusal::Refusal;
use crate::patching::text::strip;
use crate::patching::upcoming;

/// Where a package keeps Perl modules, relative to its root.
const PERL_LIB: &str = "usr/share/perl5";

/// A host as it would be with package files installed.
pub struct Upcoming {
    /// The package files.
    debs: Vec<Deb>,
    /// What each of them would do.
    pub upgrades: Vec<Upgrade>,
    /// The host with them.
    pub view: View,
}

/// One package and its version, now and then.
#[derive(Debug)]
pub struct Upgrade {
    /// Its name.
    pub package: String,
    /// The version that is installed; `None` where it is not.
    pub from: Option<String>,
    /// The version that is coming.
    pub to: String,
}

/// What would be applied, and that nothing speaks against it.
pub struct Tried<'a> {
    /// What each file would hold.
    pub plan: Plan<'a>,
    /// How the changed modules fared.
    pub checked: Vec<Checked>,
    /// How many files would hold our lines.
    pub files: usize,
}

impl Upcoming {
    /// The host that was read as `view`, with the package files `files` installed; nothing is written below its root.
    ///
    /// # Errors
    /// Where a package file cannot be read.
    pub fn new(view: View, files: &[PathBuf]) -> anyhow::Result<Self> {
        let debs = files.iter().map(|file| Deb::unpack(file)).collect::<Result<Vec<_>, _>>()?;
        let View { survey, record, mut originals, ours } = view;
        let upgrades = debs.iter().map(|deb| Upgrade {
            package: deb.package.clone(),
            from: survey.packages.get(&deb.package).map(|package| package.version.to_string()),
            to: deb.version.to_string(),
        });
        let upgrades = upgrades.collect();
        originals.retain(|found| !debs.iter().any(|deb| deb.package == found.package));
        let survey = upcoming::with(survey, &debs)?;
        Ok(Self { view: View { survey, record, originals, ours }, upgrades, debs })
    }

    /// Plans what the files would hold. Nothing is loaded.
    ///
    /// # Errors
    /// [`Refused`] where no patch set would be for them.
    pub fn plan<'a>(&self, host: &'a Host) -> Result<Plan<'a>, Refused> {
        host.plan(&self.view)
    }

    /// Tries the plan in a temporary folder: the changed modules are loaded where that is allowed, and our lines are taken out
    /// again.
    ///
    /// # Errors
    /// What speaks against it.
    pub fn try_out<'a>(
        &self,
        host: &'a Host,
        trust: &Trust,
        listener: &dyn Listener,
    ) -> anyhow::Result<Tried<'a>> {
        let plan = self.plan(host)?;
        let changes = match plan.changes() {
            Ok(changes) => in_order(changes),
            Err(refusals) => return Err(Refused(refusals.to_vec()).into()),
        };
        let libs = self.debs.iter().map(|deb| deb.root().dir().join(PERL_LIB)).filter(|lib| lib.is_dir());
        let how = trust.modules(host.root(), &libs.collect::<Vec<_>>())?;
        let checked = modules(&how, &self.view, &changes, listener)?;
        let shipped = plan.files.iter().filter(|file| file.package.is_some());
        let comes_back = |patched: &Vec<u8>| strip(patched).rest;
        let lost = shipped.filter(|file| file.patched.as_ref().map(comes_back) != file.pristine);
        let broken: Vec<Refusal> =
            lost.map(|file| Refusal::RevertBroken { file: file.path.clone() }).collect();
        if !broken.is_empty() {
            return Err(Refused(broken).into());
        }
        let files = changes.iter().filter(|change: &&Change| change.after.is_some()).count();
        Ok(Tried { plan, checked, files })
    }
}

/// For apt's hook: what it should say before the package files `files` are installed on the host that was read as `view`;
/// nothing is loaded.
pub(super) fn warnings(host: &Host, view: View, files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let upcoming = Upcoming::new(view, files)?;
    let names: Vec<String> =
        upcoming.upgrades.iter().map(|upgrade| format!("{} {}", upgrade.package, upgrade.to)).collect();
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
    let new = |package: &str| upcoming.upgrades.iter().any(|upgrade| upgrade.package == package);
    let unknown = match host.verified().judge(&plan) {
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
