//! `pve-xdelta3 tar browse`: what Proxmox' web interface asks of a container's backup.
//!
//! The answer is one JSON document. It comes at once, or says that the names must be read first; `--build` does that, and tells
//! how far it is. Links on the storage are not followed.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::look::{self, Archive};
use crate::container::content_size;
use crate::container::source::Found;
use crate::files::{Kind, Tree};
use crate::matching::base::Stream;
use crate::text::{escaped, hex, shown};

/// The arguments name an archive and a folder or file in it, whose entries are printed.
#[derive(Debug, PartialEq, Eq, clap::Args)]
pub struct Args {
    /// The archive to read.
    #[command(flatten)]
    archive: Archive,
    /// The file or folder
    path: PathBuf,
    /// The most entries of a folder that are listed
    #[arg(long, default_value_t = 20_000)]
    most: usize,
    /// Read the names, and keep them
    #[arg(long)]
    build: bool,
}

/// How long to wait between two lines about progress.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs `pve-xdelta3 tar browse`.
///
/// # Errors
/// Fails where the archive cannot be read or is damaged where its members are told, and where it has no such file.
pub fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    match args.build {
        true => build(&args.archive),
        false => writeln!(out, "{}", look(args)?).context("cannot write to standard output"),
    }
}

fn look(args: &Args) -> anyhow::Result<Value> {
    let unread = Cell::new(false);
    let whole = |_: &Path, _: Stream| -> Stream {
        unread.set(true);
        Box::new(Unread)
    };
    let path = &*args.archive.path;
    let view = match look::open_watched(path, args.archive.base.as_deref(), Found::ByName, &whole) {
        Err(_) if unread.get() => return Ok(json!({"state": "unread"})),
        view => view?,
    };
    look::is_containers(&view, &args.archive)?;
    match look::kept(&view) {
        Some(tree) => answer(&tree, args),
        None => Ok(json!({"state": "unread"})),
    }
}

/// Tells what is in a folder, or what a file is.
fn answer(tree: &Tree, args: &Args) -> anyhow::Result<Value> {
    let path = args.path.as_os_str().as_bytes();
    let Some(node) = tree.find(path) else {
        bail!("{}: there is no file \"{}\"", args.archive.shown(), shown(&args.path));
    };
    let entry = |node| {
        let (letter, size) = match (tree.member(node), tree.file(node)) {
            (None, _) => ("d", None),
            (Some(member), file) => match (member.kind, file) {
                (Kind::Folder, _) => ("d", None),
                (Kind::File, _) => ("f", Some(member.size)),
                (Kind::HardLink, Some((_, file))) if file.kind == Kind::File => ("h", Some(file.size)),
                (Kind::HardLink, _) => ("u", None),
                (Kind::Symlink, _) => ("l", None),
                (Kind::Character(..), _) => ("c", None),
                (Kind::Block(..), _) => ("b", None),
                (Kind::Fifo, _) => ("p", None),
            },
        };
        let name = tree.name(node);
        let mut entry = json!({"name": hex(name), "text": escaped(name), "type": letter});
        if let Some(size) = size {
            entry["size"] = size.into();
        }
        if let Some(member) = tree.member(node) {
            entry["mtime"] = member.mtime.0.into();
        }
        entry
    };
    if !tree.is_folder(node) {
        return Ok(json!({"state": "file", "entry": entry(node)}));
    }
    let within = tree.within(node);
    if within.len() > args.most {
        return Ok(json!({"state": "many", "count": within.len(), "most": args.most}));
    }
    let entries: Vec<Value> = within.into_iter().map(|(_, node)| entry(node)).collect();
    Ok(json!({"state": "folder", "entries": entries}))
}

fn build(archive: &Archive) -> anyhow::Result<()> {
    let meter = Meter::default();
    let whole = |path: &Path, inner: Stream| -> Stream {
        Box::new(Metered { inner, meter: meter.clone(), done: 0, of: content_size(path) })
    };
    let path = &*archive.path;
    let view = look::open_watched(path, archive.base.as_deref(), Found::ByName, &whole)?;
    look::is_containers(&view, archive)?;
    if look::kept(&view).is_none() {
        look::read_names(&view, &|pos| meter.reached(pos, Some(crate::container::ReadAt::size(&view))))
            .with_context(|| archive.shown())?;
        if look::kept(&view).is_none() {
            bail!(
                "{}: its names could not be kept, for want of space in the folder of caches or since there are too many; pve-xdelta3 \
                 tar list and extract work all the same",
                archive.shown()
            );
        }
    }
    Ok(())
}

/// A stream that nobody wants to read now.
struct Unread;

impl Read for Unread {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("it is not read now"))
    }
}

/// Tells progress on standard output, a line now and then.
#[derive(Clone, Default)]
struct Meter(std::sync::Arc<Mutex<Option<Instant>>>);

impl Meter {
    fn reached(&self, done: u64, of: Option<u64>) {
        let Ok(mut last) = self.0.lock() else { return };
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        *last = Some(Instant::now());
        let text = match of.filter(|of| *of > 0) {
            Some(of) => format!("{} %", (done.min(of) as f64 / of as f64 * 100.0) as u64),
            None => format!("{} MiB", done >> 20),
        };
        super::say::println_quietly(&text);
    }
}

/// A stream that tells how far it is read.
struct Metered {
    inner: Stream,
    meter: Meter,
    done: u64,
    of: Option<u64>,
}

impl Read for Metered {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.done += n as u64;
        self.meter.reached(self.done, self.of);
        Ok(n)
    }
}
