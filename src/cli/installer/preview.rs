//! `diff` and `patch`: what `apply` would change.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use super::Host;
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::patching::diff;

/// Prints unified diffs of all files that `apply` would change, in colour or for `patch`.
///
/// # Errors
/// Refusals, and whatever cannot be read.
pub fn run(global: &Global, colour: bool) -> anyhow::Result<ExitCode> {
    let host = Host::open(global)?;
    host.settle()?;
    let (_, changes) = host.plan_changes(&host.view()?)?;
    let mut out = BufWriter::new(io::stdout().lock());
    for change in changes {
        diff::write(&mut out, &change, colour)?;
    }
    out.flush()?;
    Ok(Exit::Success.into())
}
