//! Patches a host, and tries whether that would work.

use super::check::{describe, modules};
use super::host::{Host, Locked, View};
use super::listener::Listener;
use super::{options, pending};
use crate::jobs::Mode;
use crate::patching::change::Change;
use crate::patching::check::{Checked, Outcome, Trust};
use crate::patching::plan::Plan;
use crate::patching::transaction;
use crate::text::count;

/// What `apply` would do, and that nothing speaks against it.
pub struct Tested<'a> {
    /// What each file should hold.
    pub plan: Plan<'a>,
    /// What would be written.
    pub changes: Vec<Change>,
    /// How the changed modules fared.
    pub checked: Vec<Checked>,
}

/// Checks everything that [`apply`] depends on, without writing.
///
/// # Errors
/// What speaks against it.
pub fn test<'a>(
    host: &'a Host,
    view: &View,
    trust: &Trust,
    listener: &dyn Listener,
) -> anyhow::Result<Tested<'a>> {
    let (plan, changes) = host.plan_changes(view, listener)?;
    let checked = modules(&trust.modules(host.root(), &[])?, view, &changes, listener)?;
    transaction::check_writable(host.root(), &changes)?;
    Ok(Tested { plan, changes, checked })
}

/// Patches the host, and lets its services load the new code where `reload` says so.
///
/// # Errors
/// What speaks against it; then nothing is changed.
pub fn apply(locked: &Locked, trust: &Trust, reload: bool, listener: &dyn Listener) -> anyhow::Result<()> {
    let (host, view) = (locked.host, &locked.view);
    let (plan, mut changes) = host.plan_changes(view, listener)?;
    host.announce(&plan, view, listener);
    let mut checked = modules(&trust.modules_at(host.root())?, view, &changes, listener)?;
    checked.retain(|checked| checked.outcome != Outcome::Loads);
    describe(&checked).iter().for_each(|line| listener.warn(&format!("warning: {line}")));
    let changed = changes.len();
    changes.extend(host.record_changes(&plan, view)?);
    changes.extend(pending::forget(host)?);
    locked.commit("apply", &changes)?;

    let set = format!("{} {}", plan.set.name, plan.set.version);
    listener.done(&match changed {
        0 => format!("There is nothing to do: the host is patched ({set})."),
        _ => format!("patched {} ({set})", count(changed, "file")),
    });
    if reload && (changed > 0 || locked.recovered) {
        host.reload(listener);
    }
    options::settle(host.root(), Mode::Keep, listener);
    Ok(())
}
