//! `reinstall` gets the affected packages anew from apt, for a host whose files are past repair.

use std::process::ExitCode;

use super::{Console, confirmed, open, println_quietly};
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::host::hint;
use crate::service::reinstall::{affected, reinstall};

/// Options of `reinstall`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Answer every question with yes
    #[arg(short, long)]
    pub yes: bool,
}

/// Shows what would be lost, asks, then reverts and lets apt install the packages anew.
///
/// # Errors
/// Declined, or apt-get failed.
pub fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let (host, console) = (open(global)?, Console::new());
    let affected = affected(&host.view(&console)?)?;
    println_quietly(
        "These packages are installed anew, in the version they have; edits of these files are lost:",
    );
    for package in &affected {
        println_quietly(&format!("  {}", package.package));
        package.files.iter().for_each(|file| println_quietly(&format!("    {file}")));
    }
    // apt of another root runs that root's own programs: that too is asked first.
    confirmed("Go on?", args.yes)?;
    reinstall(&host, &affected, &console)?;
    println_quietly(&format!(
        "All files are as Proxmox ships them. To patch them again: {}",
        hint::ours("apply")
    ));
    Ok(Exit::Success.into())
}
