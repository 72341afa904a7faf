//! Runs `recode` and `merge`.

use std::io::{Read, Write};

use anyhow::Context;

use super::args::{Options, Setting};
use super::armor;
use super::files::{self, Output};
use crate::budget::Budget;
use crate::text::shown;
use crate::vcdiff::merge::{Steps, Whole, merge as merge_window};
use crate::vcdiff::{AppHeader, DeltaHasher, EndRecord, Item, Limits, Reader, WindowBuilder, write_header};

/// The memory in bytes that a delta to be joined may take, beside a number of times the length of its file: each of its
/// instructions takes 32 bytes, and may take only one in the file.
const MERGED: u64 = 256 << 20;
const MERGED_SHARE: u64 = 32;

/// Encodes a delta anew with the settings of `-S`, `-A` and `-n`.
pub fn recode(options: &Options) -> anyhow::Result<()> {
    let (_, input) = files::input(options)?;
    let mut reader = Reader::new(input, Limits::default()).with_context(|| files::input_name(options))?;
    let mut secondary = super::secondary(options)?;
    let app_header = match &options.app_header {
        Setting::Default => reader.header().app_header.clone(),
        Setting::Off => None,
        Setting::Given(text) => Some(text.clone()),
    };
    let output = Output::open(options, files::named_output(options))?;
    let mut out = output.writer()?;
    let mut bytes = write_header(app_header.as_deref(), secondary.as_ref().map(|s| s.kind()));
    let (mut windows, mut end, mut written) = (0, None, DeltaHasher::default());
    while let Some(item) = reader.next_item().with_context(|| files::input_name(options))? {
        match item {
            Item::Window(mut window) => {
                windows += 1;
                window.adler32 = window.adler32.filter(|_| options.checksums);
                // The instructions are checked, so that a damaged delta is not passed on in a new form.
                window.instructions().try_for_each(|inst| inst.map(drop))?;
                window.encode(secondary.as_mut(), &mut bytes);
            }
            Item::End(record) => end = Some(record),
        }
        written.update(&bytes);
        out.write_all(&bytes).context("write failed")?;
        bytes.clear();
    }
    out.write_all(&ending(windows, end, &written, options)?).context("write failed")?;
    output.keep();
    Ok(())
}

/// Joins the deltas of `-m`, in their order, and then the input, into one delta.
pub fn merge(options: &Options) -> anyhow::Result<()> {
    let mut earlier = Vec::new();
    let mut headers = Vec::new();
    for path in &options.merge {
        let file = files::open(path)?;
        let mut budget = Budget::of(MERGED + file.metadata()?.len().saturating_mul(MERGED_SHARE));
        let whole = || -> anyhow::Result<Whole> {
            let mut reader = Reader::new(files::content(file, options)?.1, Limits::default())?;
            headers.push(app_header(&reader));
            let mut whole = Whole::new();
            while let Some(item) = reader.next_item()? {
                if let Item::Window(window) = item {
                    whole.push(&window, &mut budget)?;
                }
            }
            Ok(whole)
        };
        earlier.push(whole().with_context(|| shown(path))?);
    }

    let (_, input) = files::input(options)?;
    let mut reader = Reader::new(input, Limits::default()).with_context(|| files::input_name(options))?;
    headers.push(app_header(&reader));
    if options.armor {
        armor::check_chain(&headers)?;
    }
    let mut secondary = super::secondary(options)?;
    let app_header = match &options.app_header {
        // The names in the headers are those of the single deltas, so they are left out.
        Setting::Default | Setting::Off => None,
        Setting::Given(text) => Some(text),
    };
    let output = Output::open(options, files::named_output(options))?;
    let mut out = output.writer()?;
    let mut bytes = write_header(app_header.map(Vec::as_slice), secondary.as_ref().map(|s| s.kind()));
    let (mut builder, mut steps) = (WindowBuilder::new(), Steps::default());
    let (mut windows, mut end, mut written) = (0, None, DeltaHasher::default());
    while let Some(item) = reader.next_item().with_context(|| files::input_name(options))? {
        match item {
            Item::Window(window) => {
                windows += 1;
                merge_window(&window, &earlier, &mut builder, &mut steps)?;
                let adler32 = window.adler32.filter(|_| options.checksums);
                builder.finish_with(adler32, secondary.as_mut(), &mut bytes);
            }
            Item::End(record) => end = Some(record),
        }
        written.update(&bytes);
        out.write_all(&bytes).context("write failed")?;
        bytes.clear();
    }
    out.write_all(&ending(windows, end, &written, options)?).context("write failed")?;
    output.keep();
    Ok(())
}

/// Makes the end of a joined delta. The last of its parts has `windows` windows and maybe an end record.
fn ending(
    windows: u64,
    record: Option<EndRecord>,
    written: &DeltaHasher,
    options: &Options,
) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(windows > 0 || record.is_some(), "nothing to output: the delta has no windows");
    // The hash of the delta changes as it is written anew.
    let record = record.map(|end| EndRecord { hash: end.base.map_or(end.hash, |_| written.finish()), ..end });
    // As when encoding, there is no end record without a header to announce it.
    let record = record.filter(|_| options.app_header != Setting::Off);
    Ok(EndRecord::ending(record.as_ref(), windows, options.checksums))
}

fn app_header<R: Read>(reader: &Reader<R>) -> AppHeader {
    AppHeader::parse(reader.header().app_header.as_deref().unwrap_or_default())
}
