//! Serves the maintainer scripts of our Debian package, apt and vzdump.
//!
//! Patching must never fail an installation, upgrade or removal, so [`run`] has no error. What went wrong is told to the
//! listener, to the journal and in a note in our folder: from there `status` tells it, and from there the next trigger
//! knows that there is something left to do.
//!
//! A host is patched again only while it is meant to be: our lines are in its files, or the note says that they are
//! owed. After a `revert` by hand nothing of both is there, and the host is left alone until somebody runs `apply`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::host::{Host, View};
use super::listener::Listener;
use super::{apply, options, pending, revert, upcoming};
use crate::host::dpkg::Package;
use crate::host::notify::{self, Matter, Severity};
use crate::host::{PACKAGES, hint};
use crate::jobs::Mode;
use crate::patching::check::Trust;
use crate::patching::record::Record;
use crate::patching::sha256_hex;
use crate::patching::transaction::{self, TransactionError};

/// Told after the first installation, as every backup is still a full one then.
const NEXT: &str = "Next: say how often a full backup is to be made, in a backup job (Datacenter, Backup, Edit: Full Backup \
                    Every) or for all in /etc/vzdump.conf (fullbackup: 7). Until then all backups are full ones. \
                    pve-diff-backup doctor tells whether anything else is to be done.";

/// How long a hook waits for another run on this host: one that outlived a killed dpkg, or somebody's `apply`.
const PATIENCE: Duration = Duration::from_secs(60);

/// A moment in a package's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Our package is configured.
    Configure {
        /// Whether it was not installed before.
        first: bool,
    },
    /// A package of Proxmox VE brought new files.
    Triggered,
    /// Our package is about to be removed.
    Remove,
    /// apt is about to let dpkg install these package files.
    Preflight(Vec<PathBuf>),
    /// A backup starts.
    Jobs,
}

/// Why an event could not be served.
struct Failure {
    error: anyhow::Error,
    /// Whether this host is meant to be patched, and now is not.
    owed: bool,
    /// The host's packages, as far as they could be read.
    packages: BTreeMap<String, Package>,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { error, owed: false, packages: BTreeMap::new() }
    }
}

/// Does what the event asks for on `host`, or why it could not be opened, and reports what goes wrong.
pub fn run(host: anyhow::Result<Host>, event: &Event, listener: &dyn Listener) {
    let host = match host {
        Ok(host) => host,
        Err(error) => return listener.warn(&told(&error)),
    };
    let begin = Instant::now();
    while let Err(failure) = act(&host, event, listener) {
        if is_locked(&failure.error) && begin.elapsed() <= PATIENCE {
            sleep(Duration::from_millis(200));
            continue;
        }
        if failure.owed {
            match write_note(&host, &format!("{:#}", failure.error), listener) {
                Err(noting) if !is_locked(&noting) => {
                    listener.warn(&format!("warning: cannot note this for `status`: {noting:#}"));
                }
                _ => {}
            }
            // Jobs that this host's vzdump would refuse now must not stop.
            options::settle(host.root(), Mode::Keep, listener);
        }
        return report(&host, event, &failure, listener);
    }
}

fn is_locked(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(TransactionError::Locked { .. }))
}

fn act(host: &Host, event: &Event, listener: &dyn Listener) -> Result<(), Failure> {
    match event {
        Event::Jobs => {
            // In an upgrade's middle the code that calls is patched, its file may be not: the trigger looks after that.
            if options::knows_option(host.root()) {
                options::settle(host.root(), Mode::Keep, listener);
            }
        }
        Event::Preflight(files) => warn_of(host, files, listener)?,
        Event::Remove => match is_wanted(host, listener)? {
            true => {
                let locked = host.lock(listener)?;
                revert::revert(&locked, true, listener)?;
                locked.commit("note", &Vec::from_iter(pending::note(host, "the package was removed")?))?;
            }
            false => options::settle(host.root(), Mode::Leave, listener),
        },
        Event::Configure { .. } | Event::Triggered => {
            let first = *event == Event::Configure { first: true };
            if first || is_wanted(host, listener)? {
                patch(host, listener)?;
                if first {
                    listener.done(NEXT);
                }
            } else if *event != Event::Triggered {
                listener.done(&format!(
                    "This host is not patched since a revert by hand: {} does it.",
                    hint::ours("apply")
                ));
            }
        }
    }
    Ok(())
}

/// Patches a host that is meant to be.
fn patch(host: &Host, listener: &dyn Listener) -> Result<(), Failure> {
    let owed = |error, packages| Failure { error, owed: true, packages };
    let locked = host.lock(listener).map_err(|error| owed(error, BTreeMap::new()))?;
    let applied = apply::apply(&locked, &Trust::default(), true, listener);
    applied.map_err(|error| owed(error, locked.view.survey.packages))
}

/// Whether this host is meant to be patched. Traces that tell it without reading all files are looked for first, because
/// these are read again once the host is locked.
fn is_wanted(host: &Host, listener: &dyn Listener) -> anyhow::Result<bool> {
    // `apply` and `revert` finish or undo what an interrupted run left, and then know that services must reload.
    let traces = transaction::is_interrupted(host.root())?
        || pending::read(host)?.is_some()
        || Record::read(host.root()).is_ok_and(|record| record.is_some());
    Ok(traces || holds_lines(&host.read(listener)?))
}

fn holds_lines(view: &View) -> bool {
    let mut files = view.survey.files.values();
    files.any(|file| file.stripped.as_ref().is_some_and(|stripped| !stripped.markers.is_empty()))
}

/// Warns of what speaks against patching the host after the upgrade that apt is about to make. The package files that take
/// lines of ours are unpacked into a temporary folder and planned for together. None of their code runs, as dpkg has not
/// installed it yet. Nothing here stops apt.
fn warn_of(host: &Host, files: &[PathBuf], listener: &dyn Listener) -> anyhow::Result<()> {
    let files: Vec<PathBuf> = files.iter().filter(|file| concerns(host, file)).cloned().collect();
    if files.is_empty() {
        return Ok(());
    }
    let view = host.read(listener)?;
    let wanted = holds_lines(&view)
        || view.record.is_some()
        || pending::read(host)?.is_some()
        || transaction::is_interrupted(host.root())?;
    if wanted {
        match upcoming::warnings(host, view, &files) {
            Ok(warnings) => warnings.iter().for_each(|warning| listener.warn(warning)),
            Err(error) => {
                listener.warn(&format!("cannot look at what is about to be installed: {error:#}"));
            }
        }
    }
    Ok(())
}

/// Whether a package file is of one of Proxmox' packages that a set deals with; its name tells that without opening it.
fn concerns(host: &Host, file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('_').next());
    name.is_some_and(|name| {
        PACKAGES.contains(&name) && host.sets().iter().any(|set| set.packages.contains_key(name))
    })
}

fn write_note(host: &Host, text: &str, listener: &dyn Listener) -> anyhow::Result<()> {
    let (session, _) = host.session(listener)?;
    Ok(session.commit("note", &Vec::from_iter(pending::note(host, text)?))?)
}

fn told(error: &anyhow::Error) -> String {
    format!(
        "not all is as it should be: {error:#}\nBackups without our lines are full ones. How this host stands: {}. To try \
         again: {}",
        hint::ours("status"),
        hint::ours("apply")
    )
}

/// Tells people of a failure: the listener and the journal each time, and by a message once for each failure.
fn report(host: &Host, event: &Event, failure: &Failure, listener: &dyn Listener) {
    let text = told(&failure.error);
    listener.warn(&text);
    notify::journal(host.root(), Severity::Error, &text);
    if matches!(event, Event::Configure { .. } | Event::Triggered | Event::Remove) {
        // Who cannot be told now is told by the next attempt.
        let _ = tell_once(host, failure, &text, listener);
    }
}

/// Sends a message unless the last one was about the same failure with the same packages.
fn tell_once(host: &Host, failure: &Failure, text: &str, listener: &dyn Listener) -> anyhow::Result<()> {
    let mut about = format!("{:#}", failure.error);
    for (name, package) in &failure.packages {
        about += &format!("\n{name} {}", package.version);
    }
    let Some(change) = pending::told(host, &sha256_hex(about.as_bytes()))? else { return Ok(()) };
    if notify::message(
        host.root(),
        Matter::Error,
        "pve-diff-backup: this host is not patched as it should be",
        text,
    ) {
        let (session, _) = host.session(listener)?;
        session.commit("note", &[change])?;
    }
    Ok(())
}
