//! Checks the "armor" of xdelta3 3.2: BLAKE3 hashes of the source and the target in the application header.
//!
//! The hashes are checked where a delta has them, unless `-a` is given. None are written: xdelta3 3.0.11 takes them for
//! parts of file names, and our end record already protects the target.

use std::path::Path;

use anyhow::{Context, bail};

use crate::cli::say::say;
use crate::container::read_full;
use crate::matching::base::Base;
use crate::text::shown;
use crate::vcdiff::AppHeader;

/// The number of bytes that are read at a time.
const PART: usize = 1 << 20;

/// Checks the source before anything is decoded. A source that can be read only once is not checked, and a warning says
/// so.
///
/// `path` is the path of the source, and `base` is its content, if there is any.
pub fn check_source(header: &AppHeader, path: Option<&Path>, base: Option<&Base>) -> anyhow::Result<()> {
    let [target, Some(source)] = header.blake3 else { return Ok(()) };
    let Some(path) = path else {
        bail!(
            "the delta's header holds a hash of its source, but no source was given (-s FILE; -a: do not check)"
        );
    };
    let name = shown(path);
    let hash = match base.map(Base::content).transpose() {
        Ok(None) => Ok(blake3::hash(b"")),
        Ok(Some(None)) => {
            say!(
                "warning: the source can be read only once, so the hash of it in the delta's header is not checked"
            );
            return Ok(());
        }
        Ok(Some(Some(content))) => hash_of(content),
        Err(error) => Err(error),
    };
    let hash = hash.with_context(|| format!("cannot read {name}"))?;
    if hash == source {
        return Ok(());
    }
    if target.is_some_and(|target| hash == target) {
        bail!("{name} is not the delta's source but what it makes: there is nothing to do");
    }
    bail!(
        "{name} is not the source that the delta was made against: its BLAKE3 is {hash} instead of {}",
        blake3::Hash::from_bytes(source)
    );
}

fn hash_of(mut content: impl std::io::Read) -> std::io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut part = vec![0; PART];
    loop {
        match read_full(&mut content, &mut part)? {
            0 => return Ok(hasher.finalize()),
            n => hasher.update(&part[..n]),
        };
    }
}

/// The hash of what is decoded, if the header has one to compare it with.
pub struct Target(Option<([u8; 32], blake3::Hasher)>);

impl Target {
    /// Makes the value for a delta with this header.
    pub fn new(header: &AppHeader) -> Target {
        Target(header.blake3[0].map(|expected| (expected, blake3::Hasher::new())))
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some((_, hasher)) = &mut self.0 {
            hasher.update(bytes);
        }
    }

    /// Compares the hash of all bytes with the one in the header.
    pub fn check(self) -> anyhow::Result<()> {
        match self.0.map(|(expected, hasher)| (expected, hasher.finalize())) {
            Some((expected, found)) if found != expected => bail!(
                "the decoded data is not what the delta was made of: its BLAKE3 is {found} instead of {}",
                blake3::Hash::from_bytes(expected)
            ),
            _ => Ok(()),
        }
    }
}

/// Checks that the deltas of a chain fit together, as far as their headers tell.
pub fn check_chain(headers: &[AppHeader]) -> anyhow::Result<()> {
    for (n, pair) in headers.windows(2).enumerate() {
        if let ([Some(target), _], [_, Some(source)]) = (pair[0].blake3, pair[1].blake3)
            && target != source
        {
            bail!(
                "delta {} of the chain does not continue delta {}: its source is another file",
                n + 2,
                n + 1
            );
        }
    }
    Ok(())
}
