//! Man pages and completions from the command lines' own definitions, dpkg's triggers from the patch sets.

mod man;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::exit::Exit;
use super::{definition, verify, xdelta3};
use crate::patching::patchset::{self, PatchSet};

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
    /// debian/pve-diff-backup.triggers
    Triggers,
}

/// Writes the files.
///
/// # Errors
/// Where the folder cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let done = match args.what {
        What::Man => man::write(&args.dir),
        What::Bash => completions(Shell::Bash, &args.dir),
        What::Zsh => completions(Shell::Zsh, &args.dir),
        What::Fish => completions(Shell::Fish, &args.dir),
        What::Triggers => {
            fs_err::write(args.dir.join("pve-diff-backup.triggers"), triggers(&patchset::embedded()?))
        }
    };
    done.with_context(|| format!("cannot write to {}", args.dir.display()))?;
    Ok(Exit::Success.into())
}

/// The other program.
fn pve_xdelta3() -> clap::Command {
    xdelta3::Cli::command()
}

fn completions(shell: Shell, dir: &Path) -> io::Result<()> {
    for mut command in [definition(), verify::command(), pve_xdelta3()] {
        let name = command.get_name().to_owned();
        let path = clap_complete::generate_to(shell, &mut command, &name, dir)?;
        if shell == Shell::Bash {
            fs_err::write(&path, bash_labels(&fs_err::read_to_string(&path)?, &name))?;
        }
    }
    Ok(())
}

/// A bash completion whose cases have the names that it looks for: clap_complete 4.6 writes the hyphens of a program's
/// name in two ways, `__` where it says which command was typed and `__subcmd__` where it asks for that.
fn bash_labels(script: &str, name: &str) -> String {
    script.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__"))
}

/// dpkg runs our postinst when another package brings one of the files that hunks go into (deb-triggers(5)); nobody
/// has to wait for it.
fn triggers(sets: &[PatchSet]) -> String {
    let files: BTreeSet<&str> =
        sets.iter().flat_map(|set| &set.hunks).map(|hunk| hunk.file.as_str()).collect();
    let head = "# Written by `pve-diff-backup generate triggers debian`: the files that are patched.\n";
    files.iter().fold(head.to_owned(), |text, file| text + "interest-noawait /" + file + "\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_other_definitions_are_sound() {
        verify::command().debug_assert();
        pve_xdelta3().debug_assert();
    }

    #[test]
    fn the_package_listens_to_every_patched_file() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("debian/pve-diff-backup.triggers");
        assert_eq!(fs_err::read_to_string(path).unwrap(), triggers(&patchset::embedded().unwrap()));
    }
}
