//! `revert`: everything of ours out.

use std::process::ExitCode;

use super::cluster::{self, ChangeArgs, Operation};
use super::{Host, options, println_quietly};
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::cli::say::count as counted;
use crate::host::Origin;
use crate::jobs::Mode;
use crate::patching::change::Change;
use crate::patching::record;

/// Options of `revert`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Answer every question with yes (asked with --cluster only)
    #[arg(short, long)]
    pub yes: bool,
    /// Do not let the services load the old code
    #[arg(long)]
    pub no_restart: bool,
    /// On which nodes.
    #[command(flatten)]
    pub cluster: ChangeArgs,
}

/// Takes out our lines and files, whatever version put them there.
///
/// # Errors
/// Where something cannot be read or written; then nothing is changed.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(change) = args.cluster.change(Operation::Revert, args.yes, args.no_restart) {
        return cluster::change(global, &change);
    }
    let host = Host::open(global)?;
    if revert(&host)? {
        host.reload(args.no_restart);
    }
    Ok(Exit::Success.into())
}

/// Reverts `host`; tells whether files were changed.
pub(super) fn revert(host: &Host) -> anyhow::Result<bool> {
    let (session, recovered) = host.session()?;
    let view = host.view()?;
    let mut changes = host.revert_changes(&view)?;
    let ours = |change: &&Change| ![record::PATH, record::PATCH_PATH].contains(&change.path.as_str());
    let count = changes.iter().filter(ours).count();
    changes.extend(super::hook::forget_failure(host)?);
    // First, so that no job meets a vzdump that refuses it, wherever this run may be killed.
    options::settle(host, Mode::Leave);
    if let Err(error) = session.commit("revert", &changes) {
        options::settle(host, Mode::Keep);
        return Err(error.into());
    }
    match count {
        0 => println_quietly("There is nothing to do: nothing of ours is there."),
        _ => println_quietly(&format!("reverted {}", counted(count, "file"))),
    }
    for (path, file) in &view.survey.files {
        if file.origin == Some(Origin::Modified) && changes.iter().any(|change| change.path == *path) {
            println_quietly(&format!(
                "/{path}: is not as its package shipped it: somebody else's edits stay"
            ));
        }
    }
    Ok(recovered || count > 0)
}
