//! `pve-xdelta3 vma nbd`: the disks of a VM's backup as exports of an NBD server.

use std::collections::HashSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io, thread};

use anyhow::{Context, bail};
use clap::ValueHint;
use serde_json::json;

use super::archive::processors;
use super::look::{self, Archive, Disks};
use super::say::{chat, say};
use super::signals::Ending;
use crate::container::ReadAt;
use crate::nbd::Uri;
use crate::nbd::server::{Export, Listener, Server};
use crate::text::shown;

pub(super) const ABOUT: &str = "\
Lets other programs read the disks without restoring them, over the NBD protocol.

Each disk is an export with its name in the archive, read-only, with its holes. One line for each tells its address, which \
qemu-img, qemu-nbd, nbdcopy and others take; then the exports stay until the command is ended (Ctrl-C). What is damaged in \
the backup is an error where it is read, and named on standard error. There are 512 connections at most: where a client comes and \
none is left, the one that was silent longest is cut off, after a minute at least.

  pve-xdelta3 vma nbd FILE --socket /run/user/1000/disks &
  qemu-img convert 'nbd+unix:///drive-scsi0?socket=/run/user/1000/disks' disk.qcow2
  qemu-nbd --read-only -c /dev/nbd0 'nbd+unix:///drive-scsi0?socket=/run/user/1000/disks'

A file without a map that can be read from its front only (zstd of vzdump itself, gzip) is read once beforehand, and kept in \
XDG_CACHE_HOME or ~/.cache (pve-xdelta3) in a form that can be read at any place; it takes about as much room as the file. \
The same goes for a differential. What was not used for a week is removed there.";

/// The port that is registered for NBD.
const PORT: u16 = 10809;
/// So many different troubles are told.
const MOST_TOLD: usize = 1000;

/// What to export, and where.
#[derive(Debug, PartialEq, Eq, clap::Args)]
pub struct Args {
    /// The archive to read.
    #[command(flatten)]
    archive: Archive,
    /// Listen on this socket, which is made, for its owner only
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, required_unless_present = "listen")]
    socket: Option<PathBuf>,
    /// Listen on a port: ADDRESS, PORT or ADDRESS:PORT. Whoever reaches it can read the disks: there is no password
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1", conflicts_with = "socket",
          value_parser = address)]
    listen: Option<SocketAddr>,
    /// Only these disks, for instance drive-scsi0,drive-efidisk0
    #[arg(short, long, value_name = "DISK", value_delimiter = ',')]
    disks: Option<Vec<String>>,
    /// Tell the exports as JSON
    #[arg(long)]
    json: bool,
    /// Show no progress (there is some on a terminal only)
    #[arg(short, long)]
    quiet: bool,
}

/// Reads an address with or without a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    (text.parse::<SocketAddr>().ok())
        .or_else(|| bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, PORT)))
        .or_else(|| text.parse::<u16>().ok().map(|port| SocketAddr::new(loopback, port)))
        .ok_or_else(|| "an address is 127.0.0.1, 127.0.0.1:10809, [::1]:10809 or 10809".into())
}

/// Serves the disks until a signal ends that.
///
/// # Errors
/// Fails where the archive cannot be read, or the socket cannot be made.
pub(super) fn run(args: Args, out: &mut impl Write) -> anyhow::Result<()> {
    let Disks { disks, .. } = look::disks(&args.archive, args.quiet)?;
    let have: Vec<_> = disks.iter().map(|disk| shown(disk.name())).collect();
    if let Some(unknown) =
        args.disks.iter().flatten().find(|name| disks.iter().all(|disk| disk.name() != *name))
    {
        bail!("{}: no disk \"{}\" (there is: {})", args.archive.shown(), shown(unknown), have.join(", "));
    }
    let wanted = |name: &str| args.disks.as_ref().is_none_or(|wanted| wanted.iter().any(|one| one == name));
    let exports: Vec<_> = (disks.into_iter().filter(|disk| wanted(disk.name())))
        .map(|disk| Export { name: disk.name().to_owned(), content: Arc::new(disk) })
        .collect();
    if exports.is_empty() {
        bail!("{} has no disks", args.archive.shown());
    }
    let (listener, _socket, place) = match (&args.socket, args.listen) {
        (Some(path), _) => {
            let (listener, made) = listen_at(path)?;
            (Listener::Unix(listener), Some(made), path.display().to_string())
        }
        (None, Some(address)) => {
            let cannot = || format!("cannot listen on {address}");
            let listener = TcpListener::bind(address).with_context(cannot)?;
            let address = listener.local_addr().with_context(cannot)?;
            if !address.ip().is_loopback() {
                say!("warning: whoever reaches {address} can read these disks");
            }
            (Listener::Tcp(listener), None, address.to_string())
        }
        (None, None) => bail!("where? Give --socket PATH or --listen ADDRESS"),
    };
    let address = |name: &str| match &args.socket {
        Some(path) => Uri { socket: absolute(path), export: name.to_owned() }.to_string(),
        None => format!("nbd://{place}/{}", crate::nbd::encoded(name.as_bytes())),
    };
    let lines: String = match args.json {
        true => {
            let list: Vec<_> = (exports.iter())
                .map(|e| json!({ "name": e.name, "size": e.content.size(), "uri": address(&e.name) }))
                .collect();
            format!("{}\n", json!({ "exports": list }))
        }
        false => exports.iter().map(|e| format!("{}  {}\n", address(&e.name), e.content.size())).collect(),
    };
    let ending = Ending::new()?;
    let server = Server::new(exports, processors() + 1, troubles(&args.archive));
    let (end, ended) = std::sync::mpsc::channel();
    let failed = end.clone();
    thread::Builder::new()
        .name("listen".into())
        .spawn(move || failed.send(server.serve(listener)))
        .context("cannot start a thread")?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            ending.wait();
            let _ = end.send(Ok(()));
        })
        .context("cannot start a thread")?;
    chat(out, lines.as_bytes())?;
    // Clients are cut off by the end of the program.
    ended.recv().unwrap_or(Ok(())).with_context(|| format!("no more clients can connect to {place}"))
}

/// Tells each trouble with an archive once.
pub(super) fn troubles(archive: &Archive) -> impl Fn(&str) + Send + Sync + 'static {
    let name = archive.shown();
    let told = Mutex::new(HashSet::new());
    move |trouble: &str| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MOST_TOLD && told.insert(trouble.to_owned()) {
            say!("{name}: {trouble}");
        }
    }
}

/// A socket in the file system, removed at the end of this.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens on a new socket, for its owner only. One that a killed program left is replaced.
fn listen_at(path: &Path) -> anyhow::Result<(UnixListener, Socket)> {
    let cannot = || format!("cannot listen on {}", shown(path));
    // Whoever could connect before the mode is set could read everything.
    let bind = || {
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        bound
    };
    let listener = match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // To connect to what is no socket is refused, too.
            let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
            let refused =
                || UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
            if !(is_socket && refused()) {
                bail!("{} exists already: choose another name", shown(path));
            }
            fs::remove_file(path).with_context(cannot)?;
            bind()
        }
        bound => bound,
    };
    Ok((listener.with_context(cannot)?, Socket(path.to_owned())))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
