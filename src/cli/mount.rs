//! `pve-xdelta3 vma mount` and `pve-xdelta3 tar mount`: backups as read-only file systems.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueHint;

use super::archive::processors;
use super::look::{self, Archive};
use super::nbd::troubles;
use super::signals::Ending;
use crate::host::program;
use crate::mount::{Container, Disks, How, Mount, Source};
use crate::text::shown;

pub(super) const ABOUT_DISKS: &str = "\
Shows the disks as files in a folder, without restoring them.

DIR has the image of each disk (disk-drive-scsi0.raw and so on), with its holes, and the configuration files, under the names \
that vma extract gives them. All of it is read-only. qemu-nbd, guestmount, losetup and cp --sparse=always can use the images:

  pve-xdelta3 vma mount FILE DIR
  losetup --find --show --read-only --partscan DIR/disk-drive-scsi0.raw
  umount DIR";

pub(super) const ABOUT_FILES: &str = "\
Shows the files of the container in a folder, without unpacking them: as a read-only tree with owners, modes, times, hard links \
and extended attributes.

  pve-xdelta3 tar mount FILE DIR
  cp -a DIR/etc/hosts .
  umount DIR";

/// What to mount, and where.
#[derive(Debug, PartialEq, Eq, clap::Args)]
#[command(after_long_help = "\
The command ends when the folder is mounted. The mount ends with umount DIR (fusermount3 -u DIR for those who are not root), \
or where its process gets a signal. Only the user who mounted it sees what is inside. Users other than root need fusermount3 \
(package fuse3). What is damaged in the backup is an error where it is read; with --foreground it is also named on standard error.")]
pub struct Args {
    /// The archive to read.
    #[command(flatten)]
    archive: Archive,
    /// The folder to mount at, which must exist
    #[arg(value_hint = ValueHint::DirPath)]
    directory: PathBuf,
    /// Let other users look inside, too: a container's files as far as their owners and modes let them, disks without a limit
    /// (users other than root need user_allow_other in /etc/fuse.conf for that)
    #[arg(long)]
    allow_other: bool,
    /// Stay in the foreground until it is unmounted, or Ctrl-C
    #[arg(short, long)]
    foreground: bool,
    /// Show no progress (there is some on a terminal only)
    #[arg(short, long)]
    quiet: bool,
}

/// What a backup is mounted as.
#[derive(Clone, Copy)]
pub(super) enum What {
    Disks,
    Files,
}

/// The line that a process in the background writes when it has mounted.
const READY: &str = "mounted\n";
/// Tells a process that it is to go to the background.
const BACKGROUND: &str = "PVE_XDELTA3_BACKGROUND";

/// Mounts the backup, and waits for its end in the foreground or lets a process in the background do so.
///
/// # Errors
/// Fails where the archive cannot be read, or nothing can be mounted there.
pub(super) fn run(args: &Args, what: What) -> anyhow::Result<()> {
    let background = std::env::var_os(BACKGROUND).is_some();
    if !args.directory.is_dir() {
        bail!("{} is no folder: make it first", shown(&args.directory));
    }
    // It would hide what is there.
    let device = |path: &Path| std::fs::metadata(path).map(|m| m.dev()).ok();
    if device(&args.directory) != device(&args.directory.join("..")) {
        bail!("something is mounted at {} already: name another folder", shown(&args.directory));
    }
    if !args.foreground && !background {
        let started =
            program::in_background(BACKGROUND, READY).context("cannot start a process in the background")?;
        // It has said itself why it did not mount.
        if !started {
            std::process::exit(1);
        }
        return Ok(());
    }
    match what {
        What::Disks => {
            let look::Disks { header, disks } = look::disks(&args.archive, args.quiet)?;
            mount(args, Disks::new(&header, disks, args.allow_other), background)
        }
        What::Files => {
            let (archive, tree) = look::files(&args.archive, args.quiet)?;
            mount(args, Container::new(archive, tree), background)
        }
    }
}

fn mount(args: &Args, source: impl Source + 'static, background: bool) -> anyhow::Result<()> {
    let name = args.archive.shown();
    let how = How { at: &args.directory, name: &name, others: args.allow_other, threads: processors() + 2 };
    let ending = Ending::new()?;
    let (mount, unmount) =
        Mount::new(source, &how, troubles(&args.archive)).with_context(|| cannot(&args.directory))?;
    if background {
        let _ = std::io::stdout().write_all(READY.as_bytes()).and_then(|()| std::io::stdout().flush());
        program::leave_terminal();
    }
    let (end, ended) = std::sync::mpsc::channel();
    let failed = end.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            ending.wait();
            let _ = end.send(unmount.unmount(by_helper));
        })
        .context("cannot start a thread")?;
    std::thread::Builder::new()
        .name("mount".into())
        .spawn(move || failed.send(mount.run()))
        .context("cannot start a thread")?;
    // Where files are open there still, they end with the program.
    ended.recv().unwrap_or(Ok(())).with_context(|| format!("the mount at {} ended", shown(&args.directory)))
}

/// Unmounts by the program that may do so for users other than root.
fn by_helper(at: &Path) -> std::io::Result<()> {
    let run = |name: &str| {
        let arguments = ["-u".as_ref(), "-z".as_ref(), "--".as_ref(), at.as_os_str()];
        program::Program::new(name, arguments).run().map_err(std::io::Error::other)
    };
    let ran = run("fusermount3").or_else(|_| run("fusermount"))?;
    if ran.succeeded() { Ok(()) } else { Err(std::io::Error::other(ran.err())) }
}

fn cannot(directory: &Path) -> String {
    let hint = match () {
        () if !Path::new("/dev/fuse").exists() => " (there is no /dev/fuse: modprobe fuse)",
        () if !rustix::process::geteuid().is_root() => " (needs fusermount3, of the package fuse3)",
        () => "",
    };
    format!("cannot mount at {}{hint}", shown(directory))
}
