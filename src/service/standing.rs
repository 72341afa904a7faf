//! Tells how the files of a host stand, compared with what `apply` would make of them.

use super::host::{Host, Refused, View, stale_lines};
use crate::host::hint;
use crate::patching::change::Change;
use crate::patching::plan::{Overall, Plan};
use crate::patching::refusal::Refusal;

/// How a host's files stand.
pub struct Standing<'a> {
    /// The plan, where there is one.
    pub plan: Option<Plan<'a>>,
    /// How they stand, in a word.
    pub overall: Overall,
    /// What speaks against patching it.
    pub refusals: Vec<Refusal>,
    /// What an older version left.
    pub stale: Vec<Change>,
}

impl<'a> Standing<'a> {
    /// How the files of `host` stand.
    pub fn of(host: &'a Host, view: &View) -> Self {
        let (plan, overall, refusals) = match host.plan(view) {
            Ok(plan) => {
                let (overall, refusals) = (plan.overall(), plan.refusals.clone());
                (Some(plan), overall, refusals)
            }
            Err(Refused(refusals)) => (None, Overall::Unsupported, refusals),
        };
        let stale = plan.as_ref().map(|plan| host.stale(plan, view)).unwrap_or_default();
        let overall = match overall {
            Overall::Patched | Overall::Unpatched if !stale.is_empty() => Overall::Mixed,
            overall => overall,
        };
        Self { plan, overall, refusals, stale }
    }

    /// How they stand, in a sentence, and what to do. What speaks against patching is said below it.
    pub fn words(&self, view: &View) -> String {
        match self.overall {
            Overall::Patched => "patched and current".to_owned(),
            Overall::Unpatched => format!("not patched; `{}` does it", hint::ours("apply")),
            Overall::Mixed => {
                format!(
                    "partly patched, or by an older version; `{}` brings it up to date",
                    hint::ours("apply")
                )
            }
            Overall::Unsupported if matches!(self.refusals[..], [Refusal::NotInstalled { .. }]) => {
                "nothing is there to be patched, for the reason below".to_owned()
            }
            Overall::Unsupported if view.survey.holds_ours() => {
                "cannot be patched anew, for the reasons below".to_owned()
            }
            Overall::Unsupported => {
                "cannot be patched, for the reasons below; backups run as full ones".to_owned()
            }
        }
    }

    /// The same with all reasons, where something is to be done.
    pub(super) fn complaint(&self, host: &Host, view: &View) -> Option<String> {
        if self.overall == Overall::Patched {
            return None;
        }
        let mut lines = vec![format!("{}: {}", host.root().dir().display(), self.words(view))];
        lines.extend(self.refusals.iter().map(ToString::to_string));
        if !self.refusals.is_empty() && view.survey.holds_ours() {
            lines.push(stale_lines());
        }
        Some(lines.join("\n"))
    }
}
