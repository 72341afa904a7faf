//! `hook`: what the maintainer scripts of our Debian package ask for.
//!
//! Patching must never fail an installation, upgrade or removal, so whatever happens ends with exit code 0. What
//! went wrong is on the terminal, in the journal and in [`NOTE`]: from there `status` tells it, and from there the next
//! trigger knows that there is something left to do.
//!
//! A host is patched again only while it is meant to be: our lines are in its files, or the note says that they are
//! owed. After a `revert` by hand nothing of both is there, and the host is left alone until somebody runs `apply`.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Subcommand;

use super::{Host, View, apply, options, preflight, revert};
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::cli::say::{println_quietly, say};
use crate::host::hint;
use crate::host::notify::{self, Severity};
use crate::jobs::Mode;
use crate::patching::change::Change;
use crate::patching::sha256_hex;
use crate::patching::transaction::{self, TransactionError};

/// Why our lines are owed to this host, relative to the root: written by hooks only, deleted by `apply` and `revert`.
pub(super) const NOTE: &str = "var/lib/pve-diff-backup/pending";

/// Which failure people were told of last: a digest, so that each is told once.
const TOLD: &str = "var/lib/pve-diff-backup/told";

/// Said after the first installation: patched, every backup is still a full one.
const NEXT: &str = "Next: say how often a full backup is to be made, in a backup job (Datacenter, Backup, Edit: Full Backup \
                    Every) or for all in /etc/vzdump.conf (fullbackup: 7). Until then all backups are full ones. \
                    pve-diff-backup doctor tells whether anything else is to be done.";

/// Largest note read.
const MAX_NOTE: u64 = 1 << 20;

/// How long a hook waits for another run on this host: one that outlived a killed dpkg, or somebody's `apply`.
const PATIENCE: Duration = Duration::from_secs(60);

/// The moments in a package's life.
#[derive(Debug, Clone, Subcommand)]
pub enum Event {
    /// postinst configure, abort-*
    Configure {
        /// The version configured before; empty on the first installation.
        #[arg(default_value = "")]
        before: String,
    },
    /// postinst triggered: a package of Proxmox VE brought new files
    Triggered,
    /// prerm remove, deconfigure
    Remove,
    /// apt, before it lets dpkg install the package files named on standard input
    Preflight,
    /// A backup starts (PVE::VZDump::Differential::Jobs)
    Jobs,
}

/// Options of `hook`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    event: Event,
}

/// Does what the event asks for, and reports what went wrong. The exit code is always that of success.
///
/// # Errors
/// None; the type is that of all commands.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let begin = Instant::now();
    while let Err(error) = Host::open(global).and_then(|host| act(global, &host, &args.event)) {
        if !is_locked(&error) || begin.elapsed() > PATIENCE {
            report(global, &args.event, &format!("{error:#}"));
            break;
        }
        sleep(Duration::from_millis(200));
    }
    Ok(Exit::Success.into())
}

fn is_locked(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(TransactionError::Locked { .. }))
}

fn act(global: &Global, host: &Host, event: &Event) -> anyhow::Result<()> {
    if matches!(event, Event::Jobs) {
        // In an upgrade's middle the code that calls is patched, its file may be not: the trigger looks after that.
        if options::knows_option(&host.root) {
            options::settle(host, Mode::Keep);
        }
        return Ok(());
    }
    let coming = if matches!(event, Event::Preflight) { preflight::coming(host) } else { Vec::new() };
    let wanted = is_wanted(host, &host.view()?)?;
    match event {
        Event::Remove if wanted => {
            revert::run(global, &revert::Args { yes: true, ..Default::default() })?;
            write_note(host, "the package was removed")
        }
        Event::Preflight if wanted => {
            preflight::warn(host, &coming);
            Ok(())
        }
        Event::Remove => {
            options::settle(host, Mode::Leave);
            Ok(())
        }
        Event::Preflight | Event::Jobs => Ok(()),
        Event::Configure { before } if !wanted && !before.is_empty() => {
            println_quietly(&format!(
                "This host is not patched since a revert by hand: {} does it.",
                hint::ours("apply")
            ));
            Ok(())
        }
        Event::Triggered if !wanted => Ok(()),
        Event::Configure { .. } | Event::Triggered => {
            let args = apply::Args { yes: true, ..Default::default() };
            let Err(error) = apply::run(global, &args) else {
                if matches!(event, Event::Configure { before } if before.is_empty()) {
                    println_quietly(NEXT);
                }
                return Ok(());
            };
            match write_note(host, &format!("{error:#}")) {
                Err(noting) if !is_locked(&noting) => {
                    say!("warning: cannot note this for `status`: {noting:#}");
                }
                _ => {}
            }
            // Jobs that this host's vzdump would refuse now must not stop.
            options::settle(host, Mode::Keep);
            Err(error)
        }
    }
}

/// Whether this host is meant to be patched.
fn is_wanted(host: &Host, view: &View) -> anyhow::Result<bool> {
    let mut files = view.survey.files.values();
    let ours = files.any(|file| file.stripped.as_ref().is_some_and(|stripped| !stripped.markers.is_empty()));
    // `apply` and `revert` finish or undo what an interrupted run left, and then know that services must reload.
    let interrupted = transaction::is_interrupted(&host.root)?;
    Ok(ours || interrupted || view.record.is_some() || read_note(host)?.is_some())
}

/// Why the last hook left the host without our lines, if it did.
pub(super) fn read_note(host: &Host) -> anyhow::Result<Option<String>> {
    let note = host.root.read(NOTE, MAX_NOTE)?;
    Ok(note.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()))
}

/// The change of the note to `text`; `None` where it is no change.
pub(super) fn note(host: &Host, text: Option<&str>) -> anyhow::Result<Option<Change>> {
    host.own_file(NOTE, text.map(|text| format!("{text}\n").into_bytes()))
}

/// The changes by which a host forgets a failure that is past.
pub(super) fn forget_failure(host: &Host) -> anyhow::Result<Vec<Change>> {
    Ok(note(host, None)?.into_iter().chain(host.own_file(TOLD, None)?).collect())
}

fn write_note(host: &Host, text: &str) -> anyhow::Result<()> {
    let (session, _) = host.session()?;
    Ok(session.commit("note", &Vec::from_iter(note(host, Some(text))?))?)
}

/// Tells people now and later: terminal and journal, and once for each failure a message.
fn report(global: &Global, event: &Event, error: &str) {
    let text = format!(
        "not all is as it should be: {error}\nBackups without our lines are full ones. How this host stands: {}. To try \
         again: {}",
        hint::ours("status"),
        hint::ours("apply")
    );
    say!("{text}");
    let Ok(host) = Host::open(global) else { return };
    notify::journal(&host.root, Severity::Error, &text);
    if matches!(event, Event::Configure { .. } | Event::Triggered | Event::Remove) {
        // Who cannot be told now is told by the next attempt.
        let _ = tell_once(&host, error, &text);
    }
}

/// Sends a message unless the last one was about the same failure with the same packages.
fn tell_once(host: &Host, error: &str, text: &str) -> anyhow::Result<()> {
    let packages = host.view().map(|view| view.survey.packages).unwrap_or_default();
    let mut failure = error.to_owned();
    for (name, package) in &packages {
        failure += &format!("\n{name} {}", package.version);
    }
    let digest = format!("{}\n", sha256_hex(failure.as_bytes()));
    let Some(change) = host.own_file(TOLD, Some(digest.into_bytes()))? else { return Ok(()) };
    if notify::message(&host.root, "pve-diff-backup: this host is not patched as it should be", text) {
        let (session, _) = host.session()?;
        session.commit("note", &[change])?;
    }
    Ok(())
}
