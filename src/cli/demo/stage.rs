//! The folder of a demo and the programs that run in it.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::host::Program;

/// The programs that the host's programs need, each with arguments by which it tells that it is there, and its Debian package.
const NEEDED: [(&str, &[&str], &str); 3] = [
    // a Debian without the package perl has a perl without these
    ("/usr/bin/perl", &["-MFile::Copy", "-MTime::Local", "-e", "1"], "perl"),
    ("/bin/bash", &["--version"], "bash"),
    ("tar", &["--version"], "tar"),
];

/// The folder of a demo.
pub struct Stage {
    dir: PathBuf,
    us: PathBuf,
    helper: PathBuf,
    patches: Option<PathBuf>,
}

impl Stage {
    /// Makes sure that the programs are there. `patches` is a folder of patch sets to use.
    ///
    /// # Errors
    /// Where a program is missing, saying which package has it.
    pub fn open(dir: &Path, patches: Option<&Path>) -> anyhow::Result<Self> {
        for (program, arguments, package) in NEEDED {
            let found = Program::new(program, arguments).run();
            ensure!(
                found.is_ok_and(|ran| ran.succeeded()),
                "the demo needs {program}; apt-get install {package}"
            );
        }
        let us = std::env::current_exe().context("cannot find our own program")?;
        let helper = us.with_file_name("pve-xdelta3");
        if !helper.is_file() {
            bail!(
                "pve-xdelta3 is not beside {}, but the backups are made by it; install the package, or build both \
                 with cargo build",
                us.display()
            );
        }
        let absolute = |path: &Path| path.canonicalize().with_context(|| path.display().to_string());
        let dir = absolute(dir)?;
        // vzdump runs its compressor as plain words; on a real host ours is /usr/bin/pve-xdelta3, here it is below dir
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
        ensure!(
            dir.as_os_str().as_bytes().iter().all(is_plain),
            "the demo cannot work in {}: choose a folder (--keep, or TMPDIR) of letters, digits, '.', '_' and '-'",
            dir.display()
        );
        Ok(Self { dir, us, helper, patches: patches.map(absolute).transpose()? })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path below the folder.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.dir.join(inside)
    }

    /// Our `pve-xdelta3`.
    pub fn helper(&self) -> &Path {
        &self.helper
    }

    /// Runs our own program; see [`Self::host`].
    pub fn us(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(patches) = &self.patches {
            words.extend(["--patches".into(), patches.into()]);
        }
        words.extend(arguments.iter().map(Into::into));
        self.run(&self.us, "pve-diff-backup", words)
    }

    /// Runs a program of the demo's host, showing the command. Gives what it said.
    ///
    /// # Errors
    /// Where it does not end well: the command and all that it said.
    pub fn host(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let shown = format!("host/{program}");
        self.run(&self.path(&shown), &shown, arguments.iter().map(Into::into).collect())
    }

    fn run(&self, program: &Path, shown: &str, arguments: Vec<OsString>) -> anyhow::Result<String> {
        let line = arguments.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        say(format_args!("   $ {shown} {line}"))?;
        let ran = Program::new(program, arguments)
            .dir(&self.dir)
            // the names of backups have the local time
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .merged()
            .run()
            .with_context(|| {
                format!(
                    "{} cannot be run; if its folder is mounted noexec, use --keep DIR with another one",
                    program.display()
                )
            })?;
        let said = ran.out();
        ensure!(ran.succeeded(), "`{shown} {line}` failed ({}):\n{said}", ran.status);
        Ok(said)
    }
}

/// Prints what a command said, below that command.
pub fn show(said: &str) -> io::Result<()> {
    said.lines().try_for_each(|line| say(format_args!("     {line}")))
}

/// Prints a line.
pub fn say(line: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}
