//! Man pages and completions from the command line's own definition.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use clap_complete::Shell;

use super::definition;
use super::exit::Exit;

/// What to write, and where.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to write
    what: What,
    /// The folder, which must exist
    dir: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    Man,
    Bash,
    Zsh,
    Fish,
}

/// Writes the files.
///
/// # Errors
/// Where the folder cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let done = match args.what {
        What::Man => man_pages(&args.dir),
        What::Bash => completions(Shell::Bash, &args.dir),
        What::Zsh => completions(Shell::Zsh, &args.dir),
        What::Fish => completions(Shell::Fish, &args.dir),
    };
    done.with_context(|| format!("cannot write to {}", args.dir.display()))?;
    Ok(Exit::Success.into())
}

fn completions(shell: Shell, dir: &Path) -> std::io::Result<()> {
    clap_complete::generate_to(shell, &mut definition(), "pve-diff-backup", dir).map(drop)
}

/// One page for the program, one for each command, as git has them.
fn man_pages(dir: &Path) -> std::io::Result<()> {
    clap_mangen::generate_to(definition().disable_help_subcommand(true), dir)
}
