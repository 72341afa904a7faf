//! `hook` is called by the maintainer scripts of our Debian package, by apt and by vzdump. [`crate::service::hook`] does the
//! work.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::{Console, open};
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::service::hook;

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
    let event = match &args.event {
        Event::Configure { before } => hook::Event::Configure { first: before.is_empty() },
        Event::Triggered => hook::Event::Triggered,
        Event::Remove => hook::Event::Remove,
        Event::Preflight => hook::Event::Preflight(named_by_apt()),
        Event::Jobs => hook::Event::Jobs,
    };
    hook::run(open(global), &event, &Console::new());
    Ok(Exit::Success.into())
}

/// The package files that apt names through `DPkg::Pre-Install-Pkgs` (apt.conf(5)), one a line. All of its input is read:
/// apt must not find the pipe closed.
fn named_by_apt() -> Vec<PathBuf> {
    let lines = io::stdin().lock().split(b'\n').map_while(Result::ok);
    lines.map(|line| PathBuf::from(OsString::from_vec(line))).collect()
}
