//! What is left of a damaged backup: `vma extract --salvage`, `restore --salvage`.

use std::ffi::OsStr;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::archive;
use super::say::{count, say};
use crate::backup::tar::salvage as tar;
use crate::container::salvage::{self, Piece, Pieces, Search};
use crate::container::source::Found;
use crate::matching::base::{Base, Nature};
use crate::matching::restore::Wreck;
use crate::matching::{BaseProblem, Error};
use crate::text::{shown, shown_bytes, told};
use crate::vcdiff::AppHeader;
use crate::vma::{Made, Salvaged, SalvagedDisk};

/// The most files that are unproved which are listed one by one.
const LISTED: usize = 100;

/// The end of a salvage that did not get everything.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Incomplete(String);

/// Unpacks what is left of a VM's backup, and tells what is lost; `list` is a new file that tells programs.
///
/// # Errors
/// [`Incomplete`] where anything is lost or in doubt. Where nothing could be salvaged, nothing is left.
pub(super) fn extract(
    (name, base): (&OsStr, Option<&Path>),
    directory: &Path,
    only: Option<&[String]>,
    list: Option<&Path>,
    made: &Made,
) -> anyhow::Result<()> {
    let shown_name = archive::shown(name);
    let salvaged = made.all_or_nothing(|| {
        let list = list
            .map(|path| made.file(path).with_context(|| format!("cannot make {}", shown(path))))
            .transpose()?;
        let pieces = open(name, base, Search::Lookalikes)?;
        let salvaged =
            crate::vma::salvage(pieces, directory, only, made).with_context(|| shown_name.clone())?;
        anyhow::Ok((salvaged, list))
    });
    let (salvaged, file) = salvaged?;
    tell(&salvaged);
    if let (Some(mut file), Some(path)) = (file, list) {
        writeln!(file, "{:#}", as_json(&salvaged))
            .and_then(|()| file.sync_all())
            .with_context(|| format!("cannot write {}", shown(path)))?;
    }
    if salvaged.is_whole() {
        return Ok(());
    }
    let lost = salvaged.disks.iter().filter(|disk| !disk.is_whole()).count();
    bail!(Incomplete(match lost {
        0 => format!("{shown_name} is damaged, but every disk that was unpacked is whole"),
        n => format!(
            "{shown_name} is damaged: {} not whole, as listed above; the rest is in {}",
            if n == 1 { "1 disk is".to_owned() } else { format!("{n} disks are") },
            shown(directory)
        ),
    }))
}

/// Writes what is left of a container's backup as a tar archive.
///
/// # Errors
/// Fails where nothing can be salvaged, or it is a VM's backup.
pub(super) fn tar(
    (name, base): (&OsStr, Option<&Path>),
    out: &mut dyn Write,
) -> anyhow::Result<tar::Salvaged> {
    let shown_name = archive::shown(name);
    // What looks like a further frame may be a file within the archive.
    let mut open = || open(name, base, Search::Certain);
    if let Some(Ok(Piece::Bytes { bytes, .. })) = open()?.next()
        && Nature::of(&bytes) == Nature::Vma
    {
        bail!("{shown_name} is a VM's backup: pve-xdelta3 vma extract --salvage gets what is left of it");
    }
    tar::salvage(&mut open, out).with_context(|| shown_name.clone())
}

/// Tells what is lost of a container's backup; `list` is a new file that tells programs.
///
/// # Errors
/// [`Incomplete`] where anything is lost or in doubt.
pub(super) fn tell_tar(name: &OsStr, salvaged: &tar::Salvaged, list: Option<&Path>) -> anyhow::Result<()> {
    for why in &salvaged.reasons {
        say!("damage: {why}");
    }
    for tar::Partial { name, written, lost, why, .. } in &salvaged.partial {
        let name = shown_bytes(name);
        let told = match (written, why) {
            (Some(written), _) => format!("the rest is {}", shown_bytes(written)),
            (None, Some(why)) => format!("left out: {why}"),
            (None, None) => "left out".to_owned(),
        };
        say!("{name}: lost, or not whole; {told}");
        for Range { start, end } in lost {
            say!("{name}: lost: {start} to {end}");
        }
    }
    for (folder, members) in &salvaged.unproved {
        let members = count(usize::try_from(*members).unwrap_or(usize::MAX), "member");
        say!("{folder}: {members} found behind damage, whose places are not proved");
    }
    match salvaged.doubtful.len() {
        0 => {}
        members if members <= LISTED => {
            salvaged.doubtful.iter().for_each(|path| say!("{}: unproved", shown_bytes(path)));
        }
        members => say!(
            "unproved: {}, as the checksum that vouches for them is wrong or lost (--json lists them)",
            count(members, "member")
        ),
    }
    if let Some(path) = list {
        let mut file = std::fs::OpenOptions::new();
        let file = file.write(true).create_new(true).mode(0o600).open(path);
        file.and_then(|mut file| {
            writeln!(file, "{:#}", tar_as_json(salvaged)).and_then(|()| file.sync_all())
        })
        .with_context(|| format!("cannot write {}", shown(path)))?;
    }
    if salvaged.is_whole() {
        return Ok(());
    }
    bail!(Incomplete(format!(
        "{} is damaged: {} there{}, {} not whole, as listed above{}",
        archive::shown(name),
        count(usize::try_from(salvaged.whole).unwrap_or(usize::MAX), "member"),
        if salvaged.doubtful.is_empty() { "" } else { " (not all of them proved)" },
        salvaged.partial.len(),
        if salvaged.unproved.is_empty() { "" } else { "; further files are lost whose names nobody knows" }
    )))
}

fn tar_as_json(salvaged: &tar::Salvaged) -> Value {
    let range = |r: &Range<u64>| json!({"from": r.start, "to": r.end});
    let partial = |it: &tar::Partial| {
        json!({
            "name": shown_bytes(&it.name), "written": it.written.as_deref().map(shown_bytes),
            "lost": it.lost.iter().map(range).collect::<Vec<_>>(), "why": it.why,
        })
    };
    json!({
        "whole": salvaged.is_whole(),
        "members": salvaged.whole,
        "partial": salvaged.partial.iter().map(partial).collect::<Vec<_>>(),
        "unproved": salvaged.unproved,
        "damage": salvaged.reasons,
        "unproved_content": salvaged.doubtful.iter().map(|it| shown_bytes(it)).collect::<Vec<_>>(),
    })
}

/// Opens what is left of an archive, full or differential.
fn open(name: &OsStr, base: Option<&Path>, search: Search) -> anyhow::Result<Pieces> {
    let shown_name = archive::shown(name);
    let (base, found) = match base {
        Some(base) => (Some(base.to_owned()), Found::ByPerson),
        None => match archive::full_beside(Path::new(name)) {
            Ok(base) => (Some(base), Found::ByName),
            Err(_) => (None, Found::ByPerson),
        },
    };
    let kind = std::fs::metadata(name).with_context(|| format!("cannot open {shown_name}"))?.file_type();
    if !(kind.is_file() || kind.is_block_device()) {
        bail!("{shown_name} is no file: what is damaged must be read more than once");
    }
    let file = archive::input(name, found)?;
    let Some(base) = base else {
        return salvage::open(&file, search).with_context(|| format!("cannot read {shown_name}"));
    };
    let wreck = Wreck::open(&file).with_context(|| shown_name.clone())?;
    let base = open_base(&base, found, &wreck.header()).with_context(|| shown_name)?;
    Ok(wreck.pieces(base))
}

/// Opens the full backup, or what is left of it; none where nothing is.
fn open_base(path: &Path, found: Found, header: &AppHeader) -> anyhow::Result<Option<Base>> {
    let error = match archive::open_in_any_form(path, found, header) {
        Ok(base) if found == Found::ByName => {
            if let Some(warning) = base.accept_by_name(header)? {
                say!("warning: {warning}");
            }
            return Ok(Some(base));
        }
        Ok(base) => {
            base.check(header)?;
            return Ok(Some(base));
        }
        Err(error) => error,
    };
    say!("warning: {}: what it gave is lost, as far as it cannot be read", told(&error));
    match Base::open_damaged(path, found, header) {
        Err(error @ Error::Base { problem: BaseProblem::Other { .. } | BaseProblem::Refused(_), .. }) => {
            Err(error.into())
        }
        opened => Ok(opened.ok()),
    }
}

/// Tells on standard error what is lost, and why.
fn tell(salvaged: &Salvaged) {
    for why in &salvaged.reasons {
        say!("damage: {why}");
    }
    if salvaged.strange > 0 {
        say!("damage: {} of no disk", count(salvaged.strange as usize, "cluster"));
    }
    for disk in &salvaged.disks {
        let name = shown(&disk.name);
        for Range { start, end } in &disk.lost {
            match end {
                &u64::MAX => say!("{name}: lost: from {start} on, nobody knows how far"),
                end => say!("{name}: lost: {start} to {end}"),
            }
        }
        for Range { start, end } in &disk.doubtful {
            say!("{name}: unproved: {start} to {end}");
        }
        let bytes = |ranges: &[Range<u64>]| -> u64 {
            ranges.iter().filter(|range| range.end < u64::MAX).map(|range| range.end - range.start).sum()
        };
        say!(
            "{name}: {} bytes, {} lost, {} unproved: {}",
            disk.size,
            bytes(&disk.lost),
            bytes(&disk.doubtful),
            shown(&disk.file)
        );
    }
}

/// The same for programs.
fn as_json(salvaged: &Salvaged) -> Value {
    let ranges = |ranges: &[Range<u64>]| -> Value {
        let range = |r: &Range<u64>| json!({"from": r.start, "to": (r.end < u64::MAX).then_some(r.end)});
        ranges.iter().map(range).collect()
    };
    let path = |path: &PathBuf| path.to_string_lossy().into_owned();
    let disk = |disk: &SalvagedDisk| {
        json!({
            "name": disk.name, "file": path(&disk.file), "size": disk.size,
            "lost": ranges(&disk.lost), "unproved": ranges(&disk.doubtful),
        })
    };
    json!({
        "whole": salvaged.is_whole(),
        "disks": salvaged.disks.iter().map(disk).collect::<Vec<_>>(),
        "configs": salvaged.configs.iter().map(path).collect::<Vec<_>>(),
        "damage": salvaged.reasons,
        "strange": salvaged.strange,
    })
}
