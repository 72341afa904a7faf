//! Directories with backups, and the program that verifies them.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub use super::guests::{container, machine};
use serde_json::Value;
use tempfile::TempDir;

/// A directory as vzdump leaves it: fulls of a VM and a container, a differential of each.
pub struct Dump {
    pub dir: TempDir,
    extension: &'static str,
}

pub const COMPRESSIONS: [(&str, &str); 4] =
    [("zstd", ".zst"), ("lzo", ".lzo"), ("gzip", ".gz"), ("none", "")];

impl Dump {
    pub fn new((compression, extension): (&str, &'static str)) -> Self {
        let dump = Dump { dir: tempfile::tempdir().unwrap(), extension };
        let streams =
            [(dump.vm(), [machine(1, 1), machine(2, 9)]), (dump.ct(), [container(1), container(2)])];
        for (full, [first, second]) in streams {
            dump.compressor(&["full", "--compress", compression], &first, &full);
            let base = format!("--base={}", dump.path(&full).display());
            dump.compressor(
                &["diff", &base, "--compress", compression],
                &second,
                &dump.differential(&full, 21),
            );
        }
        dump
    }

    pub fn vm(&self) -> String {
        format!("vzdump-qemu-101-2026_11_20-01_00_02.vma{}", self.extension)
    }

    pub fn ct(&self) -> String {
        format!("vzdump-lxc-100-2026_11_20-01_00_02.tar{}", self.extension)
    }

    pub fn differential(&self, full: &str, day: u32) -> String {
        format!("{full}--differential-2026_11_{day}-01_00_02.vcdiff{}", self.extension)
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs what vzdump would.
    pub fn compressor(&self, args: &[&str], input: &[u8], output: &str) {
        let stdin = self.path("input");
        fs::write(&stdin, input).unwrap();
        let status = Command::new(env!("CARGO_BIN_EXE_pve-xdelta3"))
            .args(args)
            .stdin(File::open(&stdin).unwrap())
            .stdout(File::create(self.path(output)).unwrap())
            .status()
            .unwrap();
        assert!(status.success(), "{args:?}");
        fs::remove_file(stdin).unwrap();
    }

    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        fs::write(self.path(name), bytes).unwrap();
    }

    pub fn verify(&self, options: &[&str]) -> Verified {
        Verified::new(verify().args(options).arg(self.dir.path()))
    }
}

/// The program by its own name, as the original's script was called.
pub fn verify() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pve-diff-backup"));
    command.arg0("pve-verify-backups").stderr(Stdio::piped());
    command
}

pub struct Verified {
    pub code: i32,
    pub lines: Vec<String>,
    pub errors: String,
}

impl Verified {
    pub fn new(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let lines = String::from_utf8(stdout).unwrap().lines().map(str::to_owned).collect();
        Verified { code: status.code().unwrap(), lines, errors: String::from_utf8(stderr).unwrap() }
    }

    /// Each line as JSON.
    pub fn json(&self) -> Vec<Value> {
        self.lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The line about a file.
    pub fn line(&self, name: &str) -> &str {
        let about = |line: &&String| {
            line.split_once("  ").is_some_and(|(_, text)| {
                text.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', ':']))
            })
        };
        self.lines.iter().find(about).unwrap_or_else(|| panic!("no line about {name} in {:#?}", self.lines))
    }
}
