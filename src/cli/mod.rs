//! Arguments and output of each command of `pve-diff-backup`.
//!
//! A command is one module with an `Args` struct and `run`, one variant of [`Command`] and one line in [`run`].
//! Help, man pages and completions all come from these definitions.

pub mod archive;
pub mod compat;
pub mod exit;
pub mod generate;
pub mod installer;
pub mod selftest;
pub mod verify;
pub mod vma;
pub mod xdelta3;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use self::exit::Exit;

/// The name under which the program behaves as its command `verify`.
const VERIFY_NAME: &str = "pve-verify-backups";

const LONG_ABOUT: &str = "\
Gives a Proxmox VE host differential backups on any file storage.

`apply` inserts a few lines into Proxmox' Perl modules and one into its web page, and adds files of our own. Each line \
of ours ends in a marker, no line of Proxmox is touched: `revert` takes ours out again and leaves every file as it \
was, byte for byte. All files are changed or none, whatever happens meanwhile: a run that was interrupted is \
finished or undone by the next command.

Once applied, every backup job has one more field, Full Backup Every (days): 0 makes full backups only, as before.";

const EXAMPLES: &str = "\
Examples:
  pve-diff-backup status                how does this host stand?
  pve-diff-backup diff                  what would apply change?
  pve-diff-backup test                  would it work? (writes nothing)
  pve-diff-backup apply                 do it
  pve-diff-backup revert                undo it
  pve-diff-backup --root /mnt status    another host's disk, mounted at /mnt
  pve-diff-backup patch > our.patch     the change as a patch; `patch -R -p1` undoes it without us
";

/// The command line of `pve-diff-backup`.
#[derive(Debug, Parser)]
#[command(name = "pve-diff-backup", version, about = "Differential backups for Proxmox VE", long_about = LONG_ABOUT)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of all commands.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Work on the host whose files lie in DIR, not on the running one
    ///
    /// Paths and links are followed inside DIR as if it were `/`. Nothing outside is changed, no service is
    /// touched and no question asked.
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Take the patch sets from DIR instead of those inside the program
    #[arg(long, global = true, value_name = "DIR")]
    pub patches: Option<PathBuf>,
    /// Colour the output
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether to colour what goes to standard output.
    pub fn enabled(self) -> bool {
        use std::io::IsTerminal;
        match self {
            Self::Auto => {
                io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            }
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell what is installed and how it stands
    Status(installer::status::Args),
    /// Show what apply would change, for people
    Diff,
    /// Print what apply would change, for `patch -p1`
    Patch,
    /// Check whether apply would work, without writing anything
    Test(installer::apply::TestArgs),
    /// Patch the host
    Apply(installer::apply::Args),
    /// Take out everything of ours
    Revert(installer::revert::Args),
    /// Let apt install the affected packages anew
    Reinstall(installer::reinstall::Args),
    /// Check that every differential backup can be restored
    Verify(verify::Args),
    /// Back up and restore a real guest in every way, and compare
    Selftest(selftest::Args),
    /// Called by the maintainer scripts of the Debian package
    #[command(hide = true)]
    Hook(installer::hook::Args),
    /// Write man pages, completions or dpkg triggers into a folder
    #[command(hide = true)]
    Generate(generate::Args),
}

/// The command line's definition with examples and exit codes.
pub fn definition() -> clap::Command {
    Cli::command().after_long_help(format!("{EXAMPLES}\n{}", Exit::help()))
}

/// Runs the program with its arguments, the first of which is its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = definition().get_matches_from(with_command_of_name(arguments.into_iter().collect()));
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(&cli) {
        Ok(code) => code,
        // Whoever read our output has gone: nobody is left to be told.
        Err(error) if is_broken_pipe(&error) => Exit::Success.into(),
        Err(error) => {
            eprintln!("pve-diff-backup: {error:#}");
            Exit::of_error(&error).into()
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    match &cli.command {
        Command::Status(args) => installer::status::run(global, args),
        Command::Diff => installer::diff::run(global, global.color.enabled()),
        Command::Patch => installer::diff::run(global, false),
        Command::Test(args) => installer::apply::test(global, args),
        Command::Apply(args) => installer::apply::run(global, args),
        Command::Revert(args) => installer::revert::run(global, args),
        Command::Reinstall(args) => installer::reinstall::run(global, args),
        Command::Verify(args) => verify::run(args, &archive::open),
        Command::Selftest(args) => selftest::run(args),
        Command::Hook(args) => installer::hook::run(global, args),
        Command::Generate(args) => generate::run(args),
    }
}

/// Called by another name of ours, the program behaves as the command of that name.
fn with_command_of_name(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().and_then(|name| Path::new(name).file_name());
    if name == Some(OsStr::new(VERIFY_NAME)) {
        arguments.insert(1, "verify".into());
    }
    arguments
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn every_exit_code_is_in_the_table_once() {
        for (index, (code, _)) in Exit::TABLE.iter().enumerate() {
            assert_eq!(*code as usize, index);
        }
    }

    #[test]
    fn the_other_name_is_a_command() {
        let called = |name: &str| with_command_of_name(vec![name.into(), "/dump".into()]);
        assert_eq!(called("/usr/bin/pve-verify-backups"), ["/usr/bin/pve-verify-backups", "verify", "/dump"]);
        assert_eq!(called("pve-diff-backup"), ["pve-diff-backup", "/dump"]);
    }
}
