//! `pve-xdelta3 tar`: the files of a container's backup, without unpacking the rest.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum, ValueHint};
use serde_json::json;

use super::browse;
use super::exit::BROKEN_PIPE;
use super::look::{self, Archive};
use super::mount;
use super::say::{chat, count, failure, say};
use super::standard;
use crate::backup::Stamp;
use crate::container::source::Found;
use crate::files::{Extraction, Kind, Member, Node, Packing, Tree, extract, pack_file, pack_tar, pack_zip};
use crate::text::{escaped, shown, shown_bytes};

/// Runs `pve-xdelta3 tar`. The exit codes are those of `pve-xdelta3`.
pub fn run(command: Command) -> ExitCode {
    match command.run(&mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if super::is_broken_pipe(&error) => ExitCode::from(BROKEN_PIPE),
        Err(error) => {
            failure(&error);
            ExitCode::FAILURE
        }
    }
}

/// The commands that work on a container's backup.
#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Show the names of the files
    List {
        /// The archive to read.
        #[command(flatten)]
        archive: Archive,
        /// Only these files and folders, with what is in them
        paths: Vec<PathBuf>,
        /// Also show mode, owner, size and time, as tar -tv does (the time in UTC)
        #[arg(short, long)]
        long: bool,
        /// Show each file as a line of JSON
        #[arg(long, conflicts_with = "long")]
        json: bool,
        /// Show no progress (there is some on a terminal only)
        #[arg(short, long)]
        quiet: bool,
    },
    /// Write files and folders out of the backup
    ///
    /// As root with owners, modes, times, extended attributes (user.*, security.capability) and ACLs, as tar has them; as another
    /// user with modes, times and the attributes that users may set. Hard links stay linked, and holes of sparse files stay
    /// holes. Nothing that exists is replaced or changed, and nothing is written outside of DIR, whatever the archive holds: no
    /// link is followed.
    ///
    /// A guest's programs may be set to run with root's rights. As root, extract backups of guests that you do not trust into a
    /// folder that only you can enter.
    ///
    /// What cannot be written or set is named, the rest is written all the same, and the exit status is 1 then.
    Extract {
        /// The archive to read.
        #[command(flatten)]
        archive: Archive,
        /// The files and folders to write, with what is in them (etc/hosts, /etc/hosts or ./etc/hosts); all without any
        paths: Vec<PathBuf>,
        /// Write into DIR, which is made where it does not exist
        #[arg(short = 'C', long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
        /// Also make device files, which only root can
        #[arg(long)]
        devices: bool,
        /// Name each file that is written
        #[arg(short, long)]
        verbose: bool,
        /// Show no progress (there is some on a terminal only)
        #[arg(short, long)]
        quiet: bool,
    },
    /// Write a file, or a folder as an archive, to standard output
    ///
    /// A tar archive has owners, modes, times, extended attributes, ACLs, hard links, holes and devices as the backup has them. A
    /// zip file has files, folders and symbolic links, with modes and times. Names begin with that of the folder.
    ///
    /// What cannot be read ends the stream at once, and the exit status is 1 then: what was written is not whole.
    Pack {
        /// The archive to read.
        #[command(flatten)]
        archive: Archive,
        /// The file or folder
        path: PathBuf,
        /// What is written
        #[arg(long = "as", value_enum, value_name = "FORM", default_value_t)]
        form: Form,
        /// The archive lies on a storage, where others may write: follow no link
        #[arg(long, hide = true)]
        stored: bool,
        /// Show no progress (there is some on a terminal only)
        #[arg(short, long)]
        quiet: bool,
    },
    /// Answer Proxmox' web interface
    #[command(hide = true)]
    Browse(browse::Args),
    /// Show the files in a folder, without unpacking them
    #[command(long_about = mount::ABOUT_FILES)]
    Mount(mount::Args),
}

/// What `tar pack` writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// The content of a file
    #[default]
    File,
    /// A tar archive
    Tar,
    /// A tar archive, compressed by zstd
    #[value(name = "tar.zst")]
    TarZst,
    /// A zip file
    Zip,
}

impl Command {
    fn run(self, out: &mut impl Write) -> anyhow::Result<()> {
        match self {
            Command::Mount(args) => mount::run(&args, mount::What::Files),
            Command::Browse(args) => browse::run(&args, out),
            Command::Pack { archive, path, form, stored, quiet } => {
                standard::is_read()?;
                if io::stdout().is_terminal() {
                    bail!("{} is not for a terminal: write it to a file or into a pipe", shown(&path));
                }
                let found = if stored { Found::ByName } else { Found::ByPerson };
                let (content, tree) = look::files_found(&archive, found, quiet)?;
                let node = nodes(&tree, &archive, std::slice::from_ref(&path))?[0];
                pack(&Packing { archive: &content, tree: &tree, node }, form, out).with_context(|| {
                    format!("{}: {} is not written as a whole", archive.shown(), shown(&path))
                })
            }
            Command::List { archive, paths, long, json, quiet } => {
                standard::is_read()?;
                let (_, tree) = look::files(&archive, quiet)?;
                let nodes = nodes(&tree, &archive, &paths)?;
                let mut out = io::BufWriter::new(out);
                let text = |member: &Member| match (json, long) {
                    (true, _) => as_json(member),
                    (_, true) => long_line(member),
                    _ => escaped(&shown_name(member)),
                };
                let mut list = |member: &Member| writeln!(out, "{}", text(member));
                let listed = match paths.is_empty() {
                    true => tree.members().iter().try_for_each(list),
                    false => nodes.into_iter().try_for_each(|node| each(&tree, node, &mut list)),
                };
                listed.and_then(|()| out.flush()).context("cannot write to standard output")
            }
            Command::Extract { archive, paths, directory, devices, verbose, quiet } => {
                if verbose {
                    standard::is_read()?;
                }
                let (content, tree) = look::files(&archive, quiet)?;
                let nodes = nodes(&tree, &archive, &paths)?;
                let cannot = || format!("cannot write to {}", shown(&directory));
                let is_new = !directory.exists();
                fs::create_dir_all(&directory).with_context(cannot)?;
                let into = File::open(&directory).with_context(cannot)?;
                if !into.metadata().with_context(cannot)?.is_dir() {
                    bail!("{} is no folder", shown(&directory));
                }
                let extraction = Extraction {
                    archive: &content,
                    tree: &tree,
                    into: into.as_fd(),
                    is_new,
                    as_root: rustix::process::geteuid().is_root(),
                    devices,
                };
                let (mut wrong, mut told) = (0, Ok(()));
                let mut done = |name: &[u8]| {
                    if verbose && told.is_ok() {
                        told = chat(out, format!("{}\n", escaped(name)).as_bytes());
                    }
                };
                let mut problem = |problem: crate::files::Problem| {
                    wrong += 1;
                    say!("{}: {}", shown_bytes(&problem.name), problem.what);
                };
                extract(&extraction, &nodes, &mut done, &mut problem);
                if paths.is_empty() {
                    for member in tree.astray() {
                        wrong += 1;
                        say!(
                            "{}: its name leads out of the folder, so it is not written",
                            shown_bytes(&member.name)
                        );
                    }
                }
                told?;
                match wrong {
                    0 => Ok(()),
                    n => bail!("{} could not be written as in the backup", count(n, "file")),
                }
            }
        }
    }
}

/// Writes a file or folder in a form.
fn pack(packing: &Packing, form: Form, out: &mut impl Write) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(1 << 18, out);
    let mut left_out = |problem: crate::files::Problem| {
        say!("{}: {}", shown_bytes(&problem.name), problem.what);
    };
    match form {
        Form::File => pack_file(packing, &mut out)?,
        Form::Tar => pack_tar(packing, &mut out, &mut left_out)?,
        Form::Zip => pack_zip(packing, &mut out, &mut left_out)?,
        Form::TarZst => {
            let mut zstd = zstd::Encoder::new(&mut out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            zstd.include_checksum(true)?;
            pack_tar(packing, &mut zstd, &mut left_out)?;
            zstd.finish()?;
        }
    }
    out.flush()
}

/// Finds the nodes of paths; the node of everything, where there are none.
fn nodes(tree: &Tree, archive: &Archive, paths: &[PathBuf]) -> anyhow::Result<Vec<Node>> {
    if paths.is_empty() {
        return Ok(vec![0]);
    }
    let find = |path: &PathBuf| {
        let name = path.as_os_str().as_bytes();
        tree.find(name).with_context(|| {
            format!(
                "{}: there is no file \"{}\" (pve-xdelta3 tar list shows them)",
                archive.shown(),
                shown(path)
            )
        })
    };
    paths.iter().map(find).collect()
}

/// Calls a function for the member of a node, and those of all that is in it.
fn each(tree: &Tree, node: Node, call: &mut dyn FnMut(&Member) -> io::Result<()>) -> io::Result<()> {
    let mut rest = vec![node];
    while let Some(node) = rest.pop() {
        if let Some(member) = tree.member(node) {
            call(member)?;
        }
        rest.extend(tree.within(node).into_iter().rev().map(|(_, node)| node));
    }
    Ok(())
}

/// Writes the name of a member as tar does: that of a folder ends in a slash.
fn shown_name(member: &Member) -> Vec<u8> {
    let mut name = if member.name.is_empty() { b".".to_vec() } else { member.name.clone() };
    if member.kind == Kind::Folder {
        name.push(b'/');
    }
    name
}

fn long_line(member: &Member) -> String {
    let letter = match member.kind {
        Kind::File => '-',
        Kind::HardLink => 'h',
        Kind::Symlink => 'l',
        Kind::Character(..) => 'c',
        Kind::Block(..) => 'b',
        Kind::Folder => 'd',
        Kind::Fifo => 'p',
    };
    let mut rights: Vec<char> =
        (0..9).map(|n| if member.mode >> (8 - n) & 1 == 1 { ['r', 'w', 'x'][n % 3] } else { '-' }).collect();
    for (bit, at, set) in [(0o4000, 2, 's'), (0o2000, 5, 's'), (0o1000, 8, 't')] {
        if member.mode & bit != 0 {
            rights[at] = if rights[at] == 'x' { set } else { set.to_ascii_uppercase() };
        }
    }
    let size = match member.kind {
        Kind::Character(major, minor) | Kind::Block(major, minor) => format!("{major},{minor}"),
        _ => member.size.to_string(),
    };
    let time =
        Stamp::from_unix_utc(member.mtime.0).map_or(member.mtime.0.to_string(), |stamp| stamp.to_string());
    let link = match member.kind {
        Kind::Symlink => format!(" -> {}", escaped(&member.link)),
        Kind::HardLink => format!(" link to {}", escaped(&member.link)),
        _ => String::new(),
    };
    let rights: String = rights.into_iter().collect();
    let name = escaped(&shown_name(member));
    format!("{letter}{rights} {}/{} {size:>10} {time} {name}{link}", member.uid, member.gid)
}

fn as_json(member: &Member) -> String {
    let kind = match member.kind {
        Kind::File => "file",
        Kind::HardLink => "hard-link",
        Kind::Symlink => "symlink",
        Kind::Character(..) => "character-device",
        Kind::Block(..) => "block-device",
        Kind::Folder => "folder",
        Kind::Fifo => "fifo",
    };
    let mut line = json!({
        "name": text(&member.name), "kind": kind, "mode": format!("{:04o}", member.mode), "uid": member.uid,
        "gid": member.gid, "size": member.size, "mtime": member.mtime.0,
    });
    if matches!(member.kind, Kind::Symlink | Kind::HardLink) {
        line["link"] = text(&member.link).into();
    }
    line.to_string()
}

/// A name for JSON, which has no bytes; what is no UTF-8 is escaped.
fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| escaped(bytes))
}
