//! `revert`: everything of ours out.

use std::io::{self, Write};
use std::process::ExitCode;

use super::Host;
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::host::Origin;

/// Options of `revert`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Answer every question with yes
    #[arg(short, long)]
    pub yes: bool,
    /// Do not let the services load the old code
    #[arg(long)]
    pub no_restart: bool,
}

/// Takes out our lines and files, whatever version put them there.
///
/// # Errors
/// Where something cannot be read or written; then nothing is changed.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let host = Host::open(global)?;
    let count = revert(&host)?;
    if count > 0 {
        host.reload(args.no_restart);
    }
    Ok(Exit::Success.into())
}

/// Reverts `host`; gives the number of files changed.
pub(super) fn revert(host: &Host) -> anyhow::Result<usize> {
    let session = host.session()?;
    let view = host.view()?;
    let mut changes = host.revert_changes(&view)?;
    let count = changes.iter().filter(|change| change.path != crate::patching::record::PATH).count();
    changes.extend(super::hook::note(host, None)?);
    session.commit("revert", &changes)?;
    let mut out = io::stdout().lock();
    match count {
        0 => writeln!(out, "There is nothing to do: nothing of ours is there.")?,
        _ => writeln!(out, "reverted {count} files")?,
    }
    for (path, file) in &view.survey.files {
        if file.origin == Some(Origin::Modified) && changes.iter().any(|change| change.path == *path) {
            writeln!(out, "/{path}: is not as its package shipped it: somebody else's edits stay")?;
        }
    }
    Ok(count)
}
