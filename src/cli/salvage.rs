//! What is left of a damaged backup: `vma extract --salvage`.

use std::ffi::OsStr;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::archive;
use super::say::{count, say};
use crate::container::salvage::{self, Pieces, Search};
use crate::container::source::Found;
use crate::matching::base::Base;
use crate::matching::restore::Wreck;
use crate::matching::{BaseProblem, Error};
use crate::text::{shown, told};
use crate::vcdiff::AppHeader;
use crate::vma::{Made, Salvaged, SalvagedDisk};

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
        let pieces = open(name, base)?;
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

/// Opens what is left of an archive, full or differential.
fn open(name: &OsStr, base: Option<&Path>) -> anyhow::Result<Pieces> {
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
        return salvage::open(&file, Search::Lookalikes).with_context(|| format!("cannot read {shown_name}"));
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
