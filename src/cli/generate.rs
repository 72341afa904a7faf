//! Man pages and completions from the command line's own definition.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;
use clap_complete::Shell;
use clap_mangen::Man;

use super::exit::Exit;
use super::{EXAMPLES, definition};

/// What the program reads and writes besides the patched files.
const FILES: [(&str, &str); 4] = [
    ("/var/lib/dpkg", "dpkg's database: which packages are installed, and what their files should hold."),
    (
        "/var/lib/pve-diff-backup/applied.json",
        "What was applied, when, and the sha256 of each file before and after.",
    ),
    (
        "/var/lib/pve-diff-backup/applied.patch",
        "The same as a patch: patch -R -p1 undoes it without this program.",
    ),
    (
        "/var/lib/pve-diff-backup/journal.json",
        "There only while files are replaced; the next command deals with it.",
    ),
];

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

fn completions(shell: Shell, dir: &Path) -> io::Result<()> {
    clap_complete::generate_to(shell, &mut definition(), "pve-diff-backup", dir).map(drop)
}

/// One page for the program, one for each command, as git has them.
fn man_pages(dir: &Path) -> io::Result<()> {
    // What follows the options in help has sections of its own here.
    let mut program = definition().after_long_help("").disable_help_subcommand(true);
    program.build();
    man_page(&program, true, dir)?;
    program
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .try_for_each(|command| man_page(command, false, dir))
}

fn man_page(command: &clap::Command, whole: bool, dir: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let man = Man::new(command.clone()).title(name.to_uppercase()).section("1").manual("pve-diff-backup");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if whole {
        man.render_subcommands_section(&mut page)?;
        writeln!(page, ".SH EXAMPLES\n.nf\n{}.fi", roff(EXAMPLES))?;
        writeln!(page, ".SH FILES")?;
        for (path, what) in FILES {
            writeln!(page, ".TP\n.I {}\n{}", roff(path), roff(what))?;
        }
        writeln!(page, ".SH EXIT STATUS")?;
        for (code, meaning) in Exit::TABLE {
            writeln!(page, ".TP\n.B {}\n{}", code as u8, roff(meaning))?;
        }
    } else {
        writeln!(page, ".SH EXIT STATUS\nSee\n.BR pve\\-diff\\-backup (1).")?;
    }
    fs_err::write(dir.join(format!("{name}.1")), page)
}

/// Plain text for roff: hyphens that can be copied, no backslash or leading dot that is a request.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    escaped
        .split_inclusive('\n')
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}"),
            false => line.to_owned(),
        })
        .collect()
}
