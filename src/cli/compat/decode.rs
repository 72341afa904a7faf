//! Runs `decode`.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};

use super::args::{Options, Setting};
use super::armor;
use super::encode::open_base;
use super::files::{self, Output};
use super::print::compressor;
use super::recompress;
use crate::cli::say::say;
use crate::container::Encoder;
use crate::container::source::Pass;
use crate::matching;
use crate::matching::restore::{self, Differential};
use crate::text::{shown, shown_bytes};
use crate::vcdiff::{self, AppHeader};

/// Restores the target of a delta.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let begun = Instant::now();
    let file = files::raw_input(options)?;
    let again = Pass::from_here(&file);
    let (_, input) = files::input_content(file, options)?;
    let mut delta =
        Differential::new(input).with_context(|| format!("cannot decode {}", files::input_name(options)))?;
    delta = delta.with(again);
    if !options.checksums {
        delta = delta.without_checksums();
    }
    let use_header = options.app_header != Setting::Off;
    let header = if use_header { delta.header() } else { AppHeader::default() };

    let source = match &options.source {
        Some(path) => Some(path.clone()),
        None => named(options, &header.base_name),
    };
    let base = source.as_deref().map(|path| open_base(path, options)).transpose()?.flatten();
    let armored = if options.armor { header.clone() } else { AppHeader::default() };
    armor::check_source(&armored, source.as_deref(), base.as_ref())?;
    let mut hash = armor::Target::new(&armored);

    let path = match files::named_output(options) {
        Some(path) => Some(path.to_owned()),
        None if options.stdout || options.no_output => None,
        None => {
            let path = named(options, &header.target_name);
            let name = &header.target_name;
            if path.is_none() && !name.is_empty() && name != b"-" {
                bail!(
                    "where to? Name an output file, or give -c for standard output, or -H to write \"{}\" as the \
                     delta's header suggests",
                    shown_bytes(name)
                );
            }
            path
        }
    };
    Output::check(options, path.as_deref())?;
    let kind = compressor(&header.compressors[0]).filter(|_| options.recompress && !options.no_output);
    // The output is opened only when there is something to write: a wrong source must not cost anybody an existing
    // file.
    let open = || -> anyhow::Result<(Output, Box<dyn Encoder>)> {
        let output = Output::open(options, path.as_deref())?;
        let writer = recompress::writer(output.writer()?, kind)?;
        Ok((output, writer))
    };
    let mut opened = None;

    let restore = restore::Options {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        window: options.source_window,
        check_base: use_header,
    };
    let sink = |bytes: &[u8]| {
        if opened.is_none() {
            opened = Some(open().map_err(io::Error::other)?);
        }
        hash.update(bytes);
        opened.as_mut().map_or(Ok(()), |(_, writer)| writer.write_all(bytes))
    };
    let outcome = delta.restore(base, restore, sink).map_err(|error| {
        let delta = files::input_name(options);
        let what = match &source {
            Some(source) => format!("cannot decode {delta} with the source {}", shown(source)),
            None if header.base_name.is_empty() => format!("cannot decode {delta}, without a source"),
            None => format!(
                "cannot decode {delta}: no source was given with -s (the delta's header names \"{}\")",
                shown_bytes(&header.base_name)
            ),
        };
        // After good windows, these bytes are more likely something that was appended than a window of a kind that
        // nobody writes.
        let behind = opened.is_some()
            && matches!(error, matching::Error::Delta { error: vcdiff::Error::Unsupported { .. } });
        let error = files::told(error);
        let error = if behind { error.context("bytes behind the last window, it seems") } else { error };
        error.context(what)
    })?;
    if outcome.windows == 0 && !outcome.ended {
        bail!("nothing to output: the delta has no windows");
    }
    hash.check()?;
    let (output, writer) = match opened {
        Some(opened) => opened,
        None => open()?,
    };
    writer.finish().context("write failed")?;
    output.keep();
    if options.verbose > 0 {
        let time = begun.elapsed().as_secs_f64();
        say!("finished in {time:.1} sec; output {} bytes", outcome.total);
    }
    Ok(())
}

/// Decodes a delta in memory. The delta must need no source.
pub fn in_memory(delta: &[u8]) -> anyhow::Result<Vec<u8>> {
    let options = restore::Options { threads: 1, window: 0, check_base: false };
    let mut out = Vec::new();
    let input: Box<dyn Read + Send> = Box::new(io::Cursor::new(delta.to_vec()));
    Differential::new(input)?.restore(None, options, |bytes| {
        out.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(out)
}

/// Finds the path that `-H` means: the file that the delta's header names, in the delta's folder.
fn named(options: &Options, name: &[u8]) -> Option<PathBuf> {
    // A name in a header cannot hold `/`, which separates the header's fields.
    let plain = !matches!(name, b"" | b"-" | b"." | b"..") && !name.contains(&b'/');
    if !options.header_names || !plain {
        return None;
    }
    let directory = options.input.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let path = directory.join(OsStr::from_bytes(name));
    if !options.quiet {
        say!("using default filename: {}", shown(&path));
    }
    Some(path)
}
