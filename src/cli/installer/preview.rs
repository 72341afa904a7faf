//! `diff` and `patch` show what `apply` would change.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use super::{Console, open};
use crate::cli::Global;
use crate::cli::exit::Exit;
use crate::cli::say::count;
use crate::patching::change::Change;
use crate::patching::diff::{self, Look};

/// Options of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only count: how many lines of each file would change
    #[arg(long)]
    stat: bool,
}

/// Prints unified diffs of all files that `apply` would change, for people: those of Proxmox VE first.
///
/// # Errors
/// Refusals, and whatever cannot be read.
pub fn diff(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let mut changes = changes(global)?;
    changes.sort_by_key(|change| change.before.is_none());
    match args.stat {
        true => print(|out| stat(out, &changes)),
        false => print(|out| {
            changes.iter().try_for_each(|change| diff::write(out, change, look(global.color.enabled())))
        }),
    }
}

/// Prints the same for `patch`, in the order in which `apply` works.
///
/// # Errors
/// As [`diff`].
pub fn patch(global: &Global) -> anyhow::Result<ExitCode> {
    let changes = changes(global)?;
    print(|out| changes.iter().try_for_each(|change| diff::write(out, change, look(false))))
}

/// A terminal gets nothing that would command it; a file or pipe gets every byte as it is.
fn look(colour: bool) -> Look {
    Look { colour, harmless: io::stdout().is_terminal() }
}

fn changes(global: &Global) -> anyhow::Result<Vec<Change>> {
    let (host, console) = (open(global)?, Console::new());
    Ok(host.plan_changes(&host.view(&console)?, &console)?.1)
}

fn print(write: impl FnOnce(&mut BufWriter<io::StdoutLock>) -> io::Result<()>) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out)?;
    out.flush()?;
    Ok(Exit::Success.into())
}

/// Prints how many lines are inserted and taken out of each file, with one sum for the files that are there and one for those
/// that are new.
fn stat(out: &mut impl Write, changes: &[Change]) -> io::Result<()> {
    // Files, lines that are inserted, lines that are taken out.
    let (mut there, mut new) = ((0, 0, 0), (0, 0, 0));
    for change in changes {
        let (inserted, removed) = diff::lines(change);
        let signs = [("+", inserted), ("-", removed)].map(|(sign, count)| match count {
            0 => String::new(),
            _ => format!(" {sign}{count}"),
        });
        writeln!(out, " {}{}", change.path, signs.concat())?;
        let sum = if change.before.is_some() { &mut there } else { &mut new };
        *sum = (sum.0 + 1, sum.1 + inserted, sum.2 + removed);
    }
    for ((files, inserted, removed), what) in [(there, "changed"), (new, "added")] {
        if files > 0 {
            let lines = |of| count(of, "line");
            let out_of = if removed > 0 { format!(", {} taken out", lines(removed)) } else { String::new() };
            writeln!(out, "{} {what}: {} inserted{out_of}", count(files, "file"), lines(inserted))?;
        }
    }
    Ok(())
}
