//! `pve-diff-backup chains` shows which backups need which, what they take and save, what is odd, and what to copy
//! together.

mod table;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use super::exit::Exit;
use super::places::{missing, needs_root, place, scan, tell_of_namesake};
use super::results::ResultsFile;
use super::say::{count, print, say};
use crate::backup::Stamp;
use crate::backup::chain::Directory;
use crate::backup::inventory::{self, GuestBackups, Inventory, Sums};
use crate::backup::offsite::{Copies, Wanted, copies, parse_since};
use crate::backup::verified::{Outcome, Results};
use crate::host::Root;
use crate::host::pmxcfs::{Pmxcfs, within};
use crate::host::storage;
use crate::text::{harmless, shown, shown_bytes};

/// The time that a storage may take if nobody named it: a share that is not there would hang the program.
const PATIENCE: Duration = Duration::from_secs(20);

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directories with backups, or names of storages (/etc/pve/storage.cfg)
    ///
    /// Without any, the storages on which this node keeps backups are meant; on other hosts, the working directory. If
    /// a directory has no backups but a folder `dump`, that folder is meant.
    #[arg(value_name = "DIR|STORAGE", value_hint = clap::ValueHint::DirPath)]
    places: Vec<PathBuf>,
    /// Print JSON
    #[arg(long, conflicts_with = "files")]
    json: bool,
    /// Print the names of the files that must be copied together for this guest, fulls first
    ///
    /// VMID is its number, or qemu/NUMBER or lxc/NUMBER. Logs, notes and marks of protection are among the files. The
    /// names are relative to the one directory that is meant.
    #[arg(long, value_name = "VMID", value_parser = wanted)]
    files: Option<Wanted>,
    /// Only backups made at this time or later, and the fulls they need, however old
    ///
    /// DATE is like 2026-11-20 or '2026-11-20 13:30'; the time of day is that of the node that makes the backups.
    #[arg(long, value_name = "DATE", requires = "files", value_parser = since)]
    since: Option<Stamp>,
    /// End each name with a NUL character instead of a line's end
    #[arg(long, short = '0', requires = "files")]
    null: bool,
    #[command(flatten)]
    results: ResultsFile,
}

fn wanted(text: &str) -> Result<Wanted, &'static str> {
    Wanted::parse(text).ok_or("not the number of a guest, such as 101, qemu/101 or lxc/101")
}

fn since(text: &str) -> Result<Stamp, &'static str> {
    parse_since(text).ok_or("no date, such as 2026-11-20 or '2026-11-20 13:30'")
}

/// A directory in which backups are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// The name of the storage that keeps its backups there, if the place was found or named by it.
    storage: Option<String>,
    dir: PathBuf,
    /// The folder where the storage's share or disk should be mounted, if nothing is mounted there.
    unmounted: Option<PathBuf>,
    /// Nobody asked for this place by name, so that it may hang or not exist.
    is_unnamed: bool,
}

impl Place {
    fn of(dir: &Path) -> Self {
        Place { storage: None, dir: dir.to_owned(), unmounted: None, is_unnamed: false }
    }

    fn shown(&self) -> String {
        let dir = shown(&self.dir);
        self.storage.as_ref().map_or(dir.clone(), |id| format!("storage {}, {dir}", shown(id)))
    }

    /// Says why the storage's backups are not there, even if the folder is.
    fn is_away(&self) -> Option<String> {
        let at = self.unmounted.as_ref()?;
        Some(format!("nothing is mounted at {}, so that this storage's backups are not there", shown(at)))
    }
}

/// A place and what was found there.
struct Looked {
    place: Place,
    found: anyhow::Result<Directory>,
}

/// Runs the command. `root` is the host whose storages may be named.
pub fn run(args: &Args, root: &Path) -> anyhow::Result<ExitCode> {
    needs_root(&args.places, root)?;
    let looked = match places(&args.places, root) {
        Ok(places) => look_at_once(places),
        Err(error) => {
            say!("{error:#}");
            return Ok(Exit::Usage.into());
        }
    };
    match args.files {
        Some(wanted) => list_files(looked, wanted, args),
        None => list_chains(looked, args, root),
    }
}

/// Finds the places that the arguments name.
fn places(named: &[PathBuf], root: &Path) -> anyhow::Result<Vec<Place>> {
    let mut found = named.iter().map(|path| one(path, root)).collect::<anyhow::Result<Vec<_>>>()?;
    if named.is_empty() {
        found = storages(root)?;
        if found.is_empty() && root != Path::new("/") {
            bail!(
                "--root {}: no storage there keeps backups: name one, or a directory without --root",
                shown(root)
            );
        }
        if found.is_empty() {
            found.push(Place::of(Path::new(".")));
        }
    }
    // Two storages may share one directory.
    let mut seen = HashSet::new();
    found.retain(|place| seen.insert(place.dir.clone()));
    Ok(found)
}

/// Finds the place that an argument names.
fn one(path: &Path, root: &Path) -> anyhow::Result<Place> {
    let name = shown(path);
    match place(path, root).with_context(|| format!("{name}: cannot tell what storages there are"))? {
        Some(storage::Place::Folder { dir, unmounted }) => {
            tell_of_namesake(path, &dir);
            Ok(Place { storage: Some(name), dir, unmounted, is_unnamed: false })
        }
        Some(storage::Place::NoFiles { kind }) => {
            bail!("{name}: a storage of type {}, which holds no files of backups", shown(kind))
        }
        None => match path.metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(Place::of(path)),
            Ok(_) => bail!("{name}: no directory"),
            Err(error) => bail!("{name}: {}", missing(path, &error)),
        },
    }
}

/// Lists the storages on which this node keeps backups. The list is empty where the host is no node.
fn storages(root: &Path) -> anyhow::Result<Vec<Place>> {
    let root = Root::open(root)?;
    let asked = root.clone();
    let found = within(PATIENCE, move || match Pmxcfs::find(&asked)? {
        Some(cluster) => storage::for_backups(&cluster),
        None => Ok(Vec::new()),
    });
    let found = found.and_then(|found| found).context("cannot read which storages there are: name one")?;
    let mut places = Vec::new();
    for storage::Storage { id, .. } in found {
        if let Some(storage::Place::Folder { dir, unmounted }) = storage::backups(&root, &id)? {
            places.push(Place { storage: Some(id), dir, unmounted, is_unnamed: true });
        }
    }
    Ok(places)
}

/// Looks at all places at the same time, so that together they take no longer than the slowest.
fn look_at_once(places: Vec<Place>) -> Vec<Looked> {
    let looks: Vec<_> =
        places.into_iter().map(|place| (place.clone(), thread::spawn(|| look(place)))).collect();
    let joined = looks.into_iter().map(|(place, look)| {
        let found = look.join().unwrap_or_else(|_| bail!("the directory {} was not read", shown(&place.dir)));
        Looked { place, found }
    });
    joined.collect()
}

fn look(place: Place) -> anyhow::Result<Directory> {
    let Place { dir, is_unnamed, .. } = place;
    if !is_unnamed {
        return scan(&dir).with_context(|| format!("cannot read the directory {}", shown(&dir)));
    }
    let name = shown(&dir);
    // If the folder does not exist yet, there are no backups.
    let looked = within(PATIENCE, move || match dir.is_dir() {
        true => Directory::scan(&dir),
        false => Ok(Directory::empty(&dir)),
    });
    match looked {
        Ok(found) => found.with_context(|| format!("cannot read the directory {name}")),
        Err(_) => bail!("{name} does not answer; its backups were not looked at"),
    }
}

/// Prints the names of the files that must be copied together.
fn list_files(looked: Vec<Looked>, wanted: Wanted, args: &Args) -> anyhow::Result<ExitCode> {
    let mut found: Vec<(Place, Copies)> = Vec::new();
    for Looked { place, found: directory } in looked {
        let copies = copies(&directory?, wanted, args.since);
        if copies != Copies::default() {
            found.push((place, copies));
        }
    }
    if let Some(away) = found.iter().find_map(|(place, _)| place.is_away()) {
        say!("{away}");
    }
    let [(place, Copies { files, stranded })] = &found[..] else {
        let places: Vec<_> = found.iter().map(|(place, _)| place.shown()).collect();
        match places.len() {
            0 => say!("there are no backups of that guest and time"),
            _ => say!(
                "that guest has backups in several places, name the one that is meant: {}",
                places.join("; ")
            ),
        }
        return Ok(Exit::Usage.into());
    };
    let end = if args.null { '\0' } else { '\n' };
    let text: String = files
        .iter()
        .flat_map(|file| [file.as_str(), end.encode_utf8(&mut [0; 1])].map(str::to_owned))
        .collect();
    print(&mut io::stdout(), text.as_bytes())?;
    if stranded.is_empty() {
        return Ok(Exit::Success.into());
    }
    say!(
        "{} of that time not listed, as the full backup is not in {}: {}",
        count(stranded.len(), "differential"),
        shown(&place.dir),
        stranded.join(", ")
    );
    Ok(Exit::Failure.into())
}

/// Prints the backups of each guest.
fn list_chains(looked: Vec<Looked>, args: &Args, root: &Path) -> anyhow::Result<ExitCode> {
    let results = match args.results.path(root) {
        Some(path) => Results::read(&path).with_context(|| format!("cannot read {}", shown(&path)))?,
        None => Results::default(),
    };
    let (mut failed, mut is_empty) = (false, true);
    let mut told = Vec::new();
    for Looked { place, found } in looked {
        let found =
            found.map(|it| Inventory::of(it, &results)).map_err(|error| harmless(&format!("{error:#}")));
        is_empty &= found.as_ref().is_ok_and(|it| it.guests.is_empty() && it.unusable.is_empty());
        failed |= found.is_err() || place.unmounted.is_some();
        told.push((place, found));
    }
    let text = match args.json {
        true => serde_json::to_string_pretty(&told.iter().map(Told::new).collect::<Vec<_>>())? + "\n",
        false => harmless(&told.iter().map(table::place).collect::<Vec<_>>().join("\n")),
    };
    print(&mut io::stdout(), text.as_bytes())?;
    Ok(match (failed, is_empty) {
        (true, _) => Exit::Failure,
        // If there is nothing at all, the directory is more likely wrong.
        (false, true) => Exit::Usage,
        (false, false) => Exit::Success,
    }
    .into())
}

/// A place as JSON has it.
#[derive(Debug, Serialize)]
struct Told {
    directory: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    guests: Vec<ToldGuest>,
    unusable: Vec<ToldOdd>,
}

#[derive(Debug, Serialize)]
struct ToldGuest {
    guest: String,
    fulls: usize,
    differentials: usize,
    full_size: u64,
    differential_size: u64,
    saved: u64,
    chains: Vec<ToldChain>,
    stranded: Vec<ToldBackup>,
    unfinished: Vec<ToldFile>,
    odd: Vec<ToldOdd>,
}

#[derive(Debug, Serialize)]
struct ToldChain {
    full: ToldBackup,
    differentials: Vec<ToldBackup>,
}

#[derive(Debug, Serialize)]
struct ToldBackup {
    file: String,
    date: String,
    size: u64,
    /// The differential's size divided by the full's.
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<u64>,
    protected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<String>,
    /// The result of the last verification, and its time in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Outcome>,
}

#[derive(Debug, Serialize)]
struct ToldFile {
    file: String,
    size: u64,
}

#[derive(Debug, Serialize)]
struct ToldOdd {
    kind: &'static str,
    file: String,
    text: String,
}

impl Told {
    fn new((place, found): &(Place, Result<Inventory, String>)) -> Self {
        let (guests, unusable) = match found {
            Ok(inventory) => (&inventory.guests[..], &inventory.unusable[..]),
            Err(_) => (&[][..], &[][..]),
        };
        let odd = |it: &crate::backup::chain::Unusable| ToldOdd {
            kind: "unusable",
            file: shown(&it.name),
            text: it.reason.to_owned(),
        };
        Told {
            directory: shown(&place.dir),
            storage: place.storage.clone(),
            error: found.as_ref().err().cloned().or_else(|| place.is_away()),
            guests: guests.iter().map(ToldGuest::new).collect(),
            unusable: unusable.iter().map(odd).collect(),
        }
    }
}

impl ToldGuest {
    fn new(guest: &GuestBackups) -> Self {
        let Sums { fulls, differentials, full_size, differential_size, saved } = guest.sums();
        let chains = guest.chains.iter().map(|chain| ToldChain {
            full: ToldBackup::new(&chain.full, None),
            differentials: chain.differentials.iter().map(|it| ToldBackup::new(it, Some(chain))).collect(),
        });
        let unfinished = guest.unfinished.iter();
        let odd = guest.odd.iter().map(|it| ToldOdd {
            kind: it.kind(),
            file: it.file().to_owned(),
            text: harmless(&it.to_string()),
        });
        ToldGuest {
            guest: guest.guest.to_string(),
            fulls,
            differentials,
            full_size,
            differential_size,
            saved,
            chains: chains.collect(),
            stranded: guest.stranded.iter().map(|it| ToldBackup::new(it, None)).collect(),
            unfinished: unfinished
                .map(|it| ToldFile { file: it.left.file.name.clone(), size: it.size })
                .collect(),
            odd: odd.collect(),
        }
    }
}

impl ToldBackup {
    fn new(backup: &inventory::Backup, of: Option<&inventory::Chain>) -> Self {
        ToldBackup {
            file: backup.name.as_str().to_owned(),
            date: backup.name.stamp().readable().replace(' ', "T"),
            size: backup.size,
            share: of.and_then(|chain| chain.share(backup)),
            saved: of.map(|chain| chain.saved(backup)),
            protected: backup.is_protected,
            notes: backup.notes.as_deref().map(shown_bytes),
            verified: backup.verified.clone(),
        }
    }
}
