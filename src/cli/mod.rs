//! Holds the arguments and the output of each command of `pve-diff-backup`.
//!
//! A command is one module with a struct `Args` and a function `run`, one variant of [`Command`], and one line where
//! commands are run. Help, man pages and completions are all made from these definitions.

pub mod add_map;
mod allocator;
pub mod archive;
mod browse;
pub mod chains;
pub mod compat;
pub mod consolidate;
pub mod demo;
pub mod exit;
mod fulls;
pub mod generate;
pub mod import;
pub mod installer;
mod look;
mod mount;
mod nbd;
pub(crate) mod output;
mod places;
pub(crate) mod progress;
mod report;
mod results;
mod salvage;
pub(crate) mod say;
pub mod selftest;
pub(crate) mod signals;
pub(crate) mod standard;
pub mod tar;
pub mod verify;
pub mod vma;
pub mod xdelta3;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use self::exit::{Exit, Stop};
use self::say::say;

/// The name under which the program behaves as its command `verify`.
const VERIFY_NAME: &str = "pve-verify-backups";

const LONG_ABOUT: &str = "\
Gives a Proxmox VE host differential backups on any file storage.

`apply` inserts a few lines into Proxmox' Perl modules and one into its web page, and adds files of our own. Each line \
of ours ends in a marker, no line of Proxmox is touched: `revert` takes ours out again and leaves every file as it \
was, byte for byte. All files are changed or none, whatever happens meanwhile: a run that was interrupted is \
finished or undone by the next command.

Once applied, every backup job has one more field, Full Every (days): 0 makes full backups only, as before.";

const EXAMPLES: &str = "\
pve-diff-backup status                how does this host stand?
pve-diff-backup diff                  what would apply change?
pve-diff-backup test                  would it work? (writes nothing)
pve-diff-backup apply                 do it
pve-diff-backup revert                undo it
pve-diff-backup chains /mnt/usb       which backups depend on which, and what do they take?
pve-diff-backup --root /mnt status    another host's disk, mounted at /mnt
pve-diff-backup patch > our.patch     the change as a patch for patch -p1
";

/// The command line of `pve-diff-backup`.
#[derive(Debug, Parser)]
#[command(name = "pve-diff-backup", version, about = "Differential backups for Proxmox VE", long_about = LONG_ABOUT)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub global: Global,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of all commands.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Work on the host whose files lie in DIR, not on the running one
    ///
    /// Paths and links are followed inside DIR as if it were `/`. Nothing outside is changed, no service is
    /// touched, and no code that lies in DIR is run (but see reinstall, and --load-modules of apply and test).
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Take the patch sets from DIR instead of those inside the program
    #[arg(long, global = true, value_name = "DIR")]
    pub patches: Option<PathBuf>,
    /// Colour the output
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// The choices of when to colour the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// Colour on a terminal, unless NO_COLOR is set.
    Auto,
    /// Colour always.
    Always,
    /// Colour never.
    Never,
}

impl Color {
    /// Tells whether what goes to standard output is coloured.
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

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell what is installed and how it stands
    ///
    /// Lists the packages of Proxmox VE with their versions, the patch set that is meant for them, and each file:
    ///
    /// patched: holds our lines, as this version writes them;
    /// unpatched: holds none of them;
    /// outdated: holds lines of an older version, or lost some;
    /// missing: does not exist;
    /// foreign: somebody else's file lies where one of ours should.
    ///
    /// "Edited by somebody else" means: without our lines, it is not what dpkg recorded for its package. "Unverified"
    /// means: the files match the patch set, but this release was not known when the set was made.
    ///
    /// The exit code is 0 only where everything is patched and current and `doctor` has nothing to say, so this can serve as a
    /// check for monitoring.
    Status(installer::status::Args),
    /// Show what apply would change, for people
    ///
    /// Proxmox' own files come first, the files of ours that are added behind them. In colour on a terminal, with changed
    /// words set off. Nothing is printed where there is nothing to change.
    Diff(installer::preview::Args),
    /// Print what apply would change, for patch(1)
    ///
    /// The patch does exactly what apply does (`patch -p1` in the root folder); `patch -R -p1` undoes it without this
    /// program. Apply leaves the same patch in /var/lib/pve-diff-backup/applied.patch.
    Patch,
    /// Check whether apply would work, without writing anything
    ///
    /// Finds the patch set and the place of every line, loads each changed Perl module from a temporary folder, and
    /// looks whether everything could be written. Modules below another root and of package files are loaded only with
    /// --load-modules, as that runs their code; without it, the lines that ours hang on are looked for and read.
    Test(installer::apply::TestArgs),
    /// Patch the host
    ///
    /// Checks everything that `test` checks, replaces all files or none, records what was done in
    /// /var/lib/pve-diff-backup, and lets the services load the new code. On a patched host it does nothing; on one
    /// with an older version's lines, or after an upgrade of Proxmox, it brings everything up to date.
    ///
    /// A file that somebody else edited is patched only if the lines ours hang on are still there exactly once; the
    /// edits stay, now and when you revert.
    Apply(installer::apply::Args),
    /// Take out everything of ours
    ///
    /// Every file becomes what it was, byte for byte; edits made by others, before or since, stay. Works without the
    /// records of apply: our lines are known by their markers.
    Revert(installer::revert::Args),
    /// Let apt install the affected packages anew
    ///
    /// For a host whose files are past repair: shows the packages and files concerned, asks, takes out what is ours and
    /// lets apt-get install the versions that are installed now once more. Edits made by others are lost.
    ///
    /// With --root, apt-get of that root is run in it (chroot): that runs programs of that root, and is asked first like all
    /// else.
    Reinstall(installer::reinstall::Args),
    /// Tell what is not as it should be, what to do about it, and how the last backups went
    ///
    /// Looks at the host's files as `status` does, at the programs that backups run, at the backup jobs: what each says of full
    /// backups and what is remembered of it, whether its last run failed, and which nodes of the cluster know the option.
    ///
    /// The tasks' logs of 31 days tell of each guest's last backup what it was made as and why, what it takes and how fast it
    /// was. Of each storage that keeps backups, the room that is free is compared with what the next backups will take, as those
    /// that are there tell; what its kind of file system or mount does to backups is worth knowing.
    ///
    /// It is meant for reports of bugs: guests are told by their numbers, and this program adds no name of a server, user or
    /// password. Errors are passed on as Proxmox VE's logs have them, though, and may name such: read before you publish it.
    ///
    /// The exit code is 0 where nothing is to be done, else 1.
    Doctor(installer::doctor::Args),
    /// List each guest's backups: what depends on what, what it takes and saves, what is odd
    ///
    /// Each full backup is followed by the differentials that need it, with date, size, the share of the full's size, what
    /// that saves, protection and notes. Lines that begin with `!` tell what is odd: differentials whose full is missing,
    /// what killed jobs left, empty files, full backups that no differential needs any more.
    ///
    /// Works on any directory, without Proxmox VE. Only names, sizes and notes are read, and no link is followed.
    ///
    /// With --files: the names of the files to copy so that a guest's backups can be restored elsewhere, for rsync and
    /// rclone.
    ///
    /// The exit code is 1 where a directory could not be read, or --files would leave out differentials whose full is
    /// missing; 2 where there are no backups.
    Chains(chains::Args),
    /// Check that every differential backup can be restored
    Verify(verify::Args),
    /// Make a differential backup a full one of its own, in its place
    ///
    /// The guest is not needed. What the differential restores to is compressed as a full backup with a map, under the
    /// full's ordinary name with the differential's own date, with its notes, its protection, its log, owner and permissions. It
    /// is read back from the disk and compared. Then, and only then, the differential is removed. Whatever ends the program,
    /// one of both is there under its name: run the same command again, and it ends the work.
    ///
    /// It is refused where the full is missing or damaged, while a backup of the guest is being made, where the name is
    /// taken, or where there is not enough room. A full that no differential needs any more is named; it is removed only with
    /// --remove-full.
    ///
    /// Exit code: 0 all is done, 1 something failed, and is as it was; 2 there is nothing to do, or an argument is wrong.
    Consolidate(consolidate::Args),
    /// Give full backups a map, so that differentials against them are small and quick to make
    ///
    /// A full backup that vzdump made without us, or that was compressed anew, has none. It is read to its end and compressed as
    /// our jobs do it, read back from the disk and compared. Then, and only then, the new file takes its place in one step, with
    /// the same name, content, owner, permissions and time; notes, protection, log and differentials stay as they are, and stock
    /// programs read it as before. Whatever ends the program, the old file or the new one is there.
    ///
    /// It is refused while a backup of the guest is being made, where the full was found damaged, or where there is not enough
    /// room for both.
    ///
    /// Exit code: 0 all have a map, 1 something failed, and is as it was; 2 there is nothing to do, or an argument is wrong.
    AddMap(add_map::Args),
    /// Look at archives of the originals (ayufan/pve-patches, 2013 to 2021): what of them can be restored, and how sure that is
    ///
    /// Each full backup and each differential is read to its last byte, as a restore would. The table tells who made it, what it
    /// restores to, and what proves that: what the originals wrote has checksums, but no mark of its end, and of its full no
    /// more than the name. What was found is kept with the results of `verify`.
    ///
    /// Nothing is changed: archives of the originals are listed, restored, verified and pruned as they are. What each full backup
    /// is worth as a base of new differentials is told, too.
    ///
    /// Exit code: 0 all can be restored, 1 some cannot, 2 there are no backups.
    Import(import::Args),
    /// Show it all on an example: a small host, two guests, four nights of backups, restore and revert
    Demo(demo::Args),
    /// Back up and restore a real guest in every way, and compare
    Selftest(selftest::Args),
    /// For maintainers: try the patch sets with new releases of Proxmox VE, or with all there ever were
    ///
    /// With package files, or without: how does every line that ours hang on fare on the host as it will be with them, or
    /// as it is? One that moved or vanished is shown with the lines most like it.
    ///
    /// With --clones: lays out the host of every release in Proxmox' public history, one after the other, and on each one
    /// plans, takes everything out again and compares bytes.
    ///
    /// With --load-modules the changed modules are loaded, too (--perl-lib names stand-ins for what is missing).
    ///
    /// --write notes what went well in verified.yaml of the folder given with --patches.
    NewVersion(installer::new_version::Args),
    /// Called by the maintainer scripts of the Debian package
    #[command(hide = true)]
    Hook(installer::hook::Args),
    /// Write man pages, completions or dpkg triggers into a folder
    #[command(hide = true)]
    Generate(generate::Args),
}

/// Builds the definition of the command line, with examples and exit codes.
pub fn definition() -> clap::Command {
    let codes = Exit::TABLE.iter().map(|(code, meaning)| format!("  {:>2}  {meaning}\n", *code as u8));
    let examples = EXAMPLES.lines().map(|line| format!("  {line}\n"));
    Cli::command().after_long_help(format!(
        "Examples:\n{}\nExit codes:\n{}",
        examples.collect::<String>(),
        codes.collect::<String>()
    ))
}

/// Runs the program with its arguments, of which the first is its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    allocator::set_up();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let result = match is_named_verify(&arguments) {
        true => {
            say::speak_as(VERIFY_NAME);
            let args: verify::Args = parsed(verify::command(), arguments);
            standard::is_read().and_then(|()| verify::run(&args, Path::new("/")))
        }
        false => {
            say::speak_as("pve-diff-backup");
            run(&parsed(definition(), arguments))
        }
    };
    match result {
        Ok(code) => code,
        // The reader of the output has gone, so nobody is left to be told.
        Err(error) if is_broken_pipe(&error) => Exit::Success.into(),
        Err(error) => {
            say::failure(&error);
            Exit::of_error(&error).into()
        }
    }
}

/// Parses the command line. The program ends here where it is wrong, or asks for help.
fn parsed<T: FromArgMatches>(definition: clap::Command, arguments: Vec<OsString>) -> T {
    let matches = definition.try_get_matches_from(arguments);
    matches
        .and_then(|matches| T::from_arg_matches(&matches))
        .unwrap_or_else(|error| wrong_usage(&error, Exit::Success as u8))
}

/// Ends the program where its command line is wrong, or asks for help. The exit code is `unread` where nobody reads the
/// text.
fn wrong_usage(error: &clap::Error, unread: u8) -> ! {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // The help or the version was asked for.
        if !error.use_stderr()
            && let Err(closed) = standard::is_read()
        {
            say!("{closed}");
            std::process::exit(Exit::Failure as i32);
        }
        let code = match error.print().and_then(|()| io::stdout().flush()) {
            Ok(()) => error.exit_code(),
            Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => unread.into(),
            Err(cause) => {
                say!("cannot write the help: {cause}");
                Exit::Failure as i32
            }
        };
        std::process::exit(code);
    }
    let mut text = error.render().to_string();
    for (kind, value) in error.context() {
        let is_typed = match kind {
            ContextKind::InvalidValue | ContextKind::InvalidSubcommand => true,
            ContextKind::InvalidArg => error.kind() == ErrorKind::UnknownArgument,
            _ => false,
        };
        // The text may be the name of a file that somebody else chose.
        if let ContextValue::String(typed) = value
            && is_typed
        {
            text = text.replace(typed, &crate::text::shown(typed));
        }
    }
    say!("{}", text.strip_prefix("error: ").unwrap_or(&text).trim_end());
    std::process::exit(error.exit_code())
}

impl Command {
    /// Tells whether the command's result is the text that it prints. The other commands do something, and tell of it
    /// if somebody listens.
    fn prints(&self) -> bool {
        match self {
            Command::Status(_)
            | Command::Diff(_)
            | Command::Patch
            | Command::Test(_)
            | Command::Doctor(_)
            | Command::Chains(_)
            | Command::Verify(_)
            | Command::Import(_)
            | Command::Demo(_)
            | Command::Selftest(_)
            | Command::NewVersion(_) => true,
            Command::Apply(_)
            | Command::Revert(_)
            | Command::Reinstall(_)
            | Command::Consolidate(_)
            | Command::AddMap(_)
            | Command::Hook(_)
            | Command::Generate(_) => false,
        }
    }
}

impl Command {
    /// Finds the first of the options of all commands that was given, but that this command would ignore. Such an
    /// option is refused, as whoever gives it expects something that would not happen.
    fn ignored(&self, global: &Global) -> Option<&'static str> {
        let (root, patches, color) = (
            global.root != Path::new("/"),
            global.patches.is_some(),
            // The other values ask for nothing where nothing is coloured.
            global.color == Color::Always,
        );
        let no_root = |why| root.then_some(why);
        let no_patches = || patches.then_some("--patches: this command uses no patch sets; leave it out");
        let no_color = || color.then_some("--color always: this command colours nothing; leave it out");
        match self {
            // `hook` must never fail the installation that calls it.
            Command::Hook(_) | Command::Diff(_) => None,
            Command::Status(_)
            | Command::Patch
            | Command::Test(_)
            | Command::Apply(_)
            | Command::Revert(_)
            | Command::Reinstall(_)
            | Command::Doctor(_) => no_color(),
            Command::NewVersion(args) if args.is_of_clones() => {
                no_root("--root: with --clones the hosts are those of the clones; leave it out")
                    .or_else(no_color)
            }
            Command::NewVersion(_) => no_color(),
            // These look for themselves whether the arguments name storages of that root.
            Command::Verify(_)
            | Command::Chains(_)
            | Command::Consolidate(_)
            | Command::AddMap(_)
            | Command::Import(_) => no_patches().or_else(no_color),
            Command::Demo(_) => {
                no_root("--root: demo builds a host of its own; leave it out").or_else(no_color)
            }
            Command::Selftest(_) => {
                no_root("--root: selftest deals with guests of the running host; leave it out")
                    .or_else(no_patches)
                    .or_else(no_color)
            }
            Command::Generate(_) => {
                no_root("--root: what generate writes is this program's own; leave it out")
                    .or_else(no_patches)
                    .or_else(no_color)
            }
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    if let Some(reason) = cli.command.ignored(global) {
        return Err(Stop(Exit::Usage, reason.to_owned()).into());
    }
    if cli.command.prints() {
        standard::is_read()?;
    }
    match &cli.command {
        Command::Status(args) => installer::status::run(global, args),
        Command::Diff(args) => installer::preview::diff(global, args),
        Command::Patch => installer::preview::patch(global),
        Command::Test(args) => installer::apply::test(global, args),
        Command::Apply(args) => installer::apply::run(global, args),
        Command::Revert(args) => installer::revert::run(global, args),
        Command::Reinstall(args) => installer::reinstall::run(global, args),
        Command::Doctor(args) => installer::doctor::run(global, args),
        Command::Chains(args) => chains::run(args, &global.root),
        Command::Verify(args) => verify::run(args, &global.root),
        Command::Consolidate(args) => consolidate::run(args, &global.root),
        Command::AddMap(args) => add_map::run(args, &global.root),
        Command::Import(args) => import::run(args, &global.root),
        Command::Demo(args) => demo::run(global, args),
        Command::Selftest(args) => selftest::run(args),
        Command::NewVersion(args) => installer::new_version::run(global, args),
        Command::Hook(args) => installer::hook::run(global, args),
        Command::Generate(args) => generate::run(args),
    }
}

/// Tells whether the program was called by its other name.
fn is_named_verify(arguments: &[OsString]) -> bool {
    let name = arguments.first().and_then(|name| Path::new(name).file_name());
    name == Some(OsStr::new(VERIFY_NAME))
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
    fn the_other_name_is_known() {
        let called = |name: &str| is_named_verify(&[name.into(), "/dump".into()]);
        assert!(called("/usr/bin/pve-verify-backups"));
        assert!(!called("pve-diff-backup"));
        assert!(!is_named_verify(&[]));
    }
}
