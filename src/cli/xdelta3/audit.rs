//! `pve-xdelta3 audit` compares two backups of a VM outside of what QEMU's dirty bitmaps mark: there they must be equal.

use std::collections::HashMap;
use std::ffi::OsString;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueHint;
use twox_hash::XxHash3_128;

use super::super::archive;
use super::super::say::say;
use super::Encoded;
use crate::nbd::{Client, Limits, Uri};
use crate::text::shown;
use crate::vma::{BLOCK, BLOCKS_PER_CLUSTER, CLUSTER, Event, Reader};

/// The long help text.
pub(super) const ABOUT: &str = "Compares two backups of a VM, of which the second read everything: where its disks are \
not marked by QEMU's dirty bitmaps, which count from the first one on, they must be equal. Else the bitmaps missed \
something, and the exit status is 5: differentials made by them may be wrong.\n\nBoth are read to their end, and so is \
the full backup of a differential. It takes 256 KiB of memory for each GiB of the disks.";

/// The arguments of the command.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The full backup of the differentials among the two (default: found beside each, by its name)
    #[arg(long, value_name = "FULL")]
    base: Option<Encoded>,
    /// A disk: its name in the archives, its export (nbd+unix:///EXPORT?socket=PATH), and the name of its dirty bitmap
    /// there. Other disks are not compared
    #[arg(long, num_args = 3, value_names = ["NAME", "URI", "BITMAP"], required = true)]
    disk: Vec<String>,
    /// Seconds that QEMU may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// The backup that the bitmaps count from; may be percent-encoded
    #[arg(value_hint = ValueHint::FilePath)]
    old: OsString,
    /// A later one that read everything; may be percent-encoded
    #[arg(value_hint = ValueHint::FilePath)]
    new: OsString,
}

/// The bitmaps missed something.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Missed(String);

/// Runs the command.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let limits = Limits { timeout: Duration::from_secs(args.timeout), ..Limits::default() };
    let mut dirty = HashMap::new();
    for disk in args.disk.chunks_exact(3) {
        let [name, uri, bitmap] = disk else { bail!("--disk takes NAME URI BITMAP") };
        let ranges = Client::connect(&Uri::parse(uri)?, Some(bitmap), limits.clone())
            .and_then(|mut client| client.dirty())
            .with_context(|| format!("cannot read the disk {}", shown(name)))?;
        dirty.insert(name.clone(), ranges);
    }
    let base = args.base.map(|base| base.0);
    let mut states: HashMap<String, Vec<State>> = HashMap::new();
    each_cluster(Encoded::from(args.old), base.as_ref(), |name, number, state| {
        if dirty.contains_key(name) {
            set(states.entry(name.to_owned()).or_default(), number, state);
        }
    })?;
    let mut missed: HashMap<String, (u64, u64)> = HashMap::new();
    let mut compared = 0u64;
    each_cluster(Encoded::from(args.new), base.as_ref(), |name, number, state| {
        let Some(ranges) = dirty.get(name).filter(|ranges| !touches(ranges, number)) else { return };
        debug_assert!(ranges.is_sorted_by_key(|range| range.start));
        compared += CLUSTER as u64;
        if states.get(name).and_then(|states| states.get(number)) != Some(&state) {
            let (count, first) = missed.entry(name.to_owned()).or_insert((0, u64::MAX));
            (*count, *first) = (*count + 1, (*first).min(number as u64 * CLUSTER as u64));
        }
    })?;
    if missed.is_empty() {
        say!("what is not marked is equal: {} MiB", compared >> 20);
        return Ok(());
    }
    let mut told: Vec<_> = missed
        .iter()
        .map(|(name, (count, first))| {
            format!("{}: {count} clusters of 64 KiB, the first at {first}", shown(name))
        })
        .collect();
    told.sort();
    Err(Missed(format!("what changed is not all marked: {}", told.join("; "))).into())
}

/// What a cluster holds, as a number; that of zeros is 0.
type State = u64;

fn set(states: &mut Vec<State>, number: usize, state: State) {
    if states.len() <= number {
        states.resize(number + 1, 0);
    }
    states[number] = state;
}

/// Whether any of the ranges touches a cluster.
fn touches(ranges: &[Range<u64>], number: usize) -> bool {
    let (start, end) = (number as u64 * CLUSTER as u64, (number as u64 + 1) * CLUSTER as u64);
    let next = ranges.partition_point(|range| range.end <= start);
    ranges.get(next).is_some_and(|range| range.start < end)
}

/// Passes the name of the disk, the number and the state of each cluster of an archive to `take`.
fn each_cluster(
    file: Encoded,
    base: Option<&PathBuf>,
    mut take: impl FnMut(&str, usize, State),
) -> anyhow::Result<()> {
    let Encoded(path) = file;
    let context = || shown(&path);
    let input = archive::open_named(path.as_os_str(), base.map(PathBuf::as_path))?;
    let mut reader = Reader::new(input).with_context(context)?;
    let mut whole = vec![0; CLUSTER];
    while let Some(event) = reader.next().with_context(context)? {
        let Event::Cluster { device, cluster, data } = event else { continue };
        // A block of zeros may be stored or not.
        whole.fill(0);
        let stored = (0..BLOCKS_PER_CLUSTER).filter(|block| cluster.mask >> block & 1 != 0);
        for (block, data) in stored.zip(data.chunks_exact(BLOCK)) {
            whole[block * BLOCK..][..BLOCK].copy_from_slice(data);
        }
        let state = match whole.iter().all(|byte| *byte == 0) {
            true => 0,
            false => XxHash3_128::oneshot(&whole) as u64 | 1,
        };
        take(&device.name, cluster.number as usize, state);
    }
    Ok(())
}
