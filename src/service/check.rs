//! The check of changed modules before they are written, and its outcome in words.

use super::host::{Refused, View};
use super::listener::Listener;
use crate::patching::change::Change;
use crate::patching::check::{self, Checked, Modules, Outcome};

/// Loads the changed modules.
///
/// # Errors
/// [`Refused`] where one is broken by our lines; where the check itself cannot be made.
pub(super) fn modules(
    how: &Modules,
    view: &View,
    changes: &[Change],
    listener: &dyn Listener,
) -> anyhow::Result<Vec<Checked>> {
    let progress = |path: &str| listener.working(Some(&format!("checking {path}")));
    let (checked, broken) = check::files(how, &view.survey, changes, |_| true, progress)?;
    listener.working(None);
    match broken.is_empty() {
        true => Ok(checked),
        false => Err(Refused(broken).into()),
    }
}

/// The modules' outcomes, for people.
pub fn describe(checked: &[Checked]) -> Vec<String> {
    let (left, tried): (Vec<_>, Vec<_>) =
        checked.iter().partition(|checked| checked.outcome == Outcome::NotLoaded);
    let mut lines: Vec<String> = tried.into_iter().map(describe_one).collect();
    if !left.is_empty() {
        lines.push(format!(
            "{} Perl modules were not loaded: their code is not the running host's, and runs only with --load-modules",
            left.len()
        ));
    }
    lines
}

fn describe_one(checked: &Checked) -> String {
    match &checked.outcome {
        Outcome::NotLoaded => format!("/{}: not loaded", checked.path),
        Outcome::Loads => format!("/{}: loads", checked.path),
        Outcome::Compiles(reason) => format!(
            "/{}: compiles, but could not be loaded, as it cannot without our lines either: {reason}",
            checked.path
        ),
        Outcome::NotCheckable(reason) => {
            format!(
                "/{}: could not be checked, as it does not load without our lines either: {reason}",
                checked.path
            )
        }
    }
}
