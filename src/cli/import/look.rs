//! What a file itself tells of what it restores to: who made it, and what there is to check it by.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, anyhow};
use serde::Serialize;

use crate::backup::{BackupName, Differential};
use crate::cli::archive::open_in_any_form;
use crate::container::source::{self, Found, Refused};
use crate::container::{self, Kind};
use crate::matching::base::{Access, Base, Proof};
use crate::text::shown;
use crate::vcdiff::{AppHeader, Item, Limits, Reader};

/// Who made a differential: this product.
pub(super) const OURS: &str = "pve-diff-backup";
/// Who made a differential: xdelta3, as the originals called it.
pub(super) const XDELTA3: &str = "xdelta3";

/// What a file tells.
#[derive(Debug, Serialize)]
pub(super) struct Look {
    /// How the full backup can be read, its own or that of the differential: `map`, `anywhere` or `front` (from its start only).
    pub full_read: &'static str,
    /// The compression of the file: `zstd`, `lzop`, `gzip`, `raw` (none) and so on.
    pub compression: String,
    #[serde(flatten)]
    pub of: Of,
}

/// What a file of each kind tells.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Of {
    /// It is a full backup.
    Full,
    /// It is a differential.
    Differential {
        /// [`OURS`] or [`XDELTA3`].
        made_by: &'static str,
        /// Number of its windows.
        windows: u64,
        /// How many of them have no checksum.
        windows_without_checksum: u64,
        /// Whether a record of length and hash ends it.
        end_record: bool,
        /// What tells that the full backup is the right one: `content` (its identity or beginning), or `name`.
        full_known_by: &'static str,
    },
}

/// Reads a file's headers, and those of its full backup; of a differential the windows, too, without applying them.
///
/// # Errors
/// Fails where something of that cannot be read, or the full backup is another one.
pub(super) fn at(dir: &Path, name: &BackupName) -> anyhow::Result<Look> {
    match name {
        BackupName::Full(full) => {
            let path = dir.join(full.as_str());
            let base = Base::open_found(&path, Found::ByName)?.full()?;
            Ok(Look { full_read: read(&base), compression: compression(&path)?, of: Of::Full })
        }
        BackupName::Differential(differential) => differential_at(dir, differential),
    }
}

fn differential_at(dir: &Path, differential: &Differential) -> anyhow::Result<Look> {
    let path = dir.join(differential.as_str());
    let unreadable = || format!("cannot read {}", shown(&path));
    let (_, stream) = container::decoder(Box::new(opened(&path)?)).with_context(unreadable)?;
    let mut reader = Reader::new(stream, Limits::default()).with_context(unreadable)?;
    let header = AppHeader::parse(reader.header().app_header.as_deref().unwrap_or_default());
    let base = open_in_any_form(&dir.join(differential.base().as_str()), Found::ByName, &header)?;
    let proof = base.check(&header)?;
    let (mut windows, mut without, mut ended) = (0, 0, false);
    while let Some(item) = reader.next_item().with_context(unreadable)? {
        match item {
            Item::Window(window) => {
                windows += 1;
                without += u64::from(window.adler32.is_none());
            }
            Item::End(_) => ended = true,
        }
    }
    let of = Of::Differential {
        made_by: if header.end_record || header.base_identity.is_some() { OURS } else { XDELTA3 },
        windows,
        windows_without_checksum: without,
        end_record: ended,
        full_known_by: if proof == Proof::Content { "content" } else { "name" },
    };
    Ok(Look { full_read: read(&base), compression: compression(&path)?, of })
}

fn opened(path: &Path) -> anyhow::Result<File> {
    source::open(path, Found::ByName).map_err(|refused| match refused {
        Refused::Io(error) => anyhow::Error::new(error).context(format!("cannot open {}", shown(path))),
        refused => anyhow!("{} {refused}", shown(path)),
    })
}

fn read(base: &Base) -> &'static str {
    match base.access {
        Access::Mapped(_) => "map",
        Access::Random(_) => "anywhere",
        Access::OneWay(_) => "front",
    }
}

fn compression(path: &Path) -> anyhow::Result<String> {
    let kind: Kind = container::decoder(Box::new(opened(path)?))
        .with_context(|| format!("cannot read {}", shown(path)))?
        .0;
    Ok(format!("{kind:?}").to_lowercase())
}
