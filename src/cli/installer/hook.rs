//! `hook`: what the maintainer scripts of our Debian package ask for.
//!
//! Patching must never fail an installation, upgrade or removal, so whatever happens ends with exit code 0. What
//! went wrong is on the terminal, in the journal and in [`NOTE`]: from there `status` tells it, and from there the next
//! trigger knows that there is something left to do.
//!
//! A host is patched again only while it is meant to be: our lines are in its files, or the note says that they are
//! owed. After a `revert` by hand nothing of both is there, and the host is left alone until somebody runs `apply`.

use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Subcommand;

use super::{Host, View, apply, preflight, revert};
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::host::root::read_bounded;
use crate::patching::plan::Change;
use crate::patching::transaction::{self, TransactionError};

/// Why our lines are owed to this host, relative to the root: written by hooks only, deleted by `apply` and `revert`.
const NOTE: &str = "var/lib/pve-diff-backup/pending";

/// Largest note read.
const MAX_NOTE: u64 = 1 << 20;

/// Where the journal (or syslog) listens.
const JOURNAL: &str = "/dev/log";

/// How long a hook waits for another run on this host: one that outlived a killed dpkg, or somebody's `apply`.
const PATIENCE: Duration = Duration::from_secs(60);

/// Facility daemon, severity error (RFC 5424, 6.2.1).
const DAEMON_ERROR: u8 = 3 * 8 + 3;

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
            report(&format!("{error:#}"), global);
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
    let wanted = is_wanted(host, &host.view()?)?;
    match event {
        Event::Remove if wanted => {
            revert::run(global, &revert::Args { yes: true, ..Default::default() })?;
            write_note(host, "the package was removed")
        }
        Event::Preflight if wanted => {
            preflight::run(host);
            Ok(())
        }
        Event::Remove | Event::Preflight => Ok(()),
        Event::Configure { before } if !wanted && !before.is_empty() => {
            println!("This host is not patched since a revert by hand: pve-diff-backup apply does it.");
            Ok(())
        }
        Event::Triggered if !wanted => Ok(()),
        Event::Configure { .. } | Event::Triggered => {
            let args = apply::Args { yes: true, ..Default::default() };
            let Err(error) = apply::run(global, &args) else { return Ok(()) };
            match write_note(host, &format!("{error:#}")) {
                Err(noting) if !is_locked(&noting) => {
                    eprintln!("warning: cannot note this for `status`: {noting:#}");
                }
                _ => {}
            }
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
    match read_bounded(&host.root.resolve(NOTE)?, MAX_NOTE) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The change of the note to `text`; `None` where it is no change.
pub(super) fn note(host: &Host, text: Option<&str>) -> anyhow::Result<Option<Change>> {
    host.own_file(NOTE, text.map(|text| format!("{text}\n").into_bytes()))
}

fn write_note(host: &Host, text: &str) -> anyhow::Result<()> {
    let (session, _) = host.session()?;
    Ok(session.commit("note", &Vec::from_iter(note(host, Some(text))?))?)
}

/// Tells people now and later: terminal and journal.
fn report(error: &str, global: &Global) {
    let text = format!(
        "not all is as it should be: {error}\nBackups without our lines are full ones. How this host stands: \
         pve-diff-backup status. To try again: pve-diff-backup apply"
    );
    eprintln!("pve-diff-backup: {text}");
    if global.root == std::path::Path::new("/") {
        // Nobody may be listening (a chroot, a container): the note tells `status` all the same.
        let _ = UnixDatagram::unbound().and_then(|socket| {
            socket.send_to(format!("<{DAEMON_ERROR}>pve-diff-backup: {text}").as_bytes(), JOURNAL)
        });
    }
}
