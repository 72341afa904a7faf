//! `revert` takes everything of ours out of the host.

use std::process::ExitCode;

use super::cluster::{self, ChangeArgs};
use super::{Console, open};
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::service::cluster::Operation;
use crate::service::revert::revert;

/// Options of `revert`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Answer every question with yes (asked with --cluster only)
    #[arg(short, long)]
    pub yes: bool,
    /// Do not let the services load the old code
    #[arg(long)]
    pub no_restart: bool,
    /// The nodes to work on.
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
    let (host, console) = (open(global)?, Console::new());
    revert(&host.lock(&console)?, !args.no_restart, &console)?;
    Ok(Exit::Success.into())
}
