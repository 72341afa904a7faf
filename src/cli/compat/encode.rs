//! Runs `encode`.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use crossbeam_channel::{Sender, bounded};

use super::args::{DEFAULT_WINDOW, Options, Setting};
use super::cut::{Cutter, Tee};
use super::files::{self, Counted, Output};
use super::own::Matcher;
use super::print::letter;
use super::stage::Stage;
use crate::cli::say::say;
use crate::container::{self, Kind, Parts, read_full};
use crate::matching::base::Base;
use crate::matching::{self, differential};
use crate::vcdiff::{AppHeader, EndRecord, Item, Limits, Reader, TargetHasher, WindowBuilder, write_header};

/// Encodes the input against the source.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (kind, input) = files::target(options)?;
    if kind != Kind::Raw && !options.quiet {
        say!(
            "WARNING: {} is compressed with {kind}, and is decompressed before it is encoded; decoding compresses \
             it again (unless -R), which gives the same data, but maybe not the same bytes; if this is an issue, use \
             -D to encode the file as it is",
            files::input_name(options)
        );
    }
    let base = options.source.as_deref().map(|path| open_base(path, options)).transpose()?.flatten();

    let one_way = base.as_ref().is_some_and(Base::is_one_way);
    let name = |path: &Option<std::path::PathBuf>| {
        let name = path.as_deref().and_then(Path::file_name);
        name.map(|n| n.as_bytes().to_vec()).unwrap_or_default()
    };
    let header = match &options.app_header {
        Setting::Off => None,
        Setting::Given(text) => Some(text.clone()),
        Setting::Default => {
            // The source's identity is left out, as xdelta3 knows none. If the source has changed, the checksums of the
            // windows tell.
            let header = AppHeader {
                target_name: name(&options.input),
                base_name: name(&options.source),
                compressors: [letter(kind).to_vec(), Vec::new()],
                base_window: one_way.then_some(options.source_window),
                end_record: true,
                ..AppHeader::default()
            };
            Some(header.encode())
        }
    };

    let output = Output::open(options, files::named_output(options))?;
    let mut out = Counted::new(output.writer()?);
    let total = stream(options, header.as_deref(), input, base, &mut out)?;
    let written = out.bytes;
    out.into_inner().flush().context("write failed")?;
    output.keep();
    if options.verbose > 0 {
        let percent = 100.0 * written as f64 / total.max(1) as f64;
        let time = begun.elapsed().as_secs_f64();
        say!("finished in {time:.1} sec; input {total} output {written} bytes ({percent:.2}%)");
    }
    Ok(())
}

/// Encodes bytes in memory, without a source.
pub fn in_memory(options: &Options, target: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let header = AppHeader { end_record: true, ..AppHeader::default() }.encode();
    stream(options, Some(&header), Box::new(io::Cursor::new(target.to_vec())), None, &mut out)?;
    Ok(out)
}

/// Opens a source. The result is `None` if it is empty, since nothing can be copied from it.
pub fn open_base(path: &Path, options: &Options) -> anyhow::Result<Option<Base>> {
    Base::open_source(path, options.decompress).map_err(files::told)
}

/// Writes the delta and returns the length of the target.
fn stream(
    options: &Options,
    header: Option<&[u8]>,
    input: Box<dyn Read + Send>,
    base: Option<Base>,
    out: &mut impl Write,
) -> anyhow::Result<u64> {
    let secondary = super::secondary(options)?;
    let bytes = write_header(header, secondary.as_ref().map(|s| s.kind()));
    let matcher = (options.level > 0 && !options.no_small_matches).then(Matcher::new);
    let checksums = options.checksums;
    let builder = WindowBuilder::new();
    let mut stage = Stage { builder, matcher, secondary, checksums, bytes, windows: 0, out };
    let end = match base {
        Some(base) => against(base, options, input, &mut stage)?,
        None => alone(options.window, input, &mut stage)?,
    };
    // The end record is written only now, so a delta that failed in any way has none. It is left out where there is no
    // header: then nobody could tell that it is missing, and xdelta3's own merge and recode, which do not accept it,
    // can use the delta.
    let record = header.filter(|header| !header.is_empty()).map(|_| &end);
    stage.bytes.extend(EndRecord::ending(record, stage.windows, checksums));
    stage.write()?;
    Ok(end.total_len)
}

/// Encodes without a source, so only repetitions within a window are found.
fn alone(
    window: usize,
    mut input: Box<dyn Read + Send>,
    stage: &mut Stage<impl Write>,
) -> anyhow::Result<EndRecord> {
    let mut hasher = TargetHasher::new();
    let mut buf = vec![0; window];
    loop {
        let n = read_full(&mut input, &mut buf).context("input read failed")?;
        if n == 0 {
            break;
        }
        hasher.update(&buf[..n]);
        stage.start();
        stage.add(&buf[..n]);
        stage.finish(Some(simd_adler32::adler32(&&buf[..n])))?;
    }
    Ok(hasher.finish())
}

/// Encodes against a source: the settings that the delta engine does not know are applied to the windows that it makes.
fn against(
    base: Base,
    options: &Options,
    input: Box<dyn Read + Send>,
    stage: &mut Stage<impl Write>,
) -> anyhow::Result<EndRecord> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // Nothing is copied from further back than xdelta3 itself could restore.
    let how = differential::Options {
        threads,
        window: options.source_window,
        far: 0,
        records: stage.matcher.is_some(),
    };
    // The engine's own windows are no longer than the default length.
    let (input, cutter) = match options.window {
        DEFAULT_WINDOW => (input, None),
        _ => {
            let (tee, target) = Tee::new(input);
            (Box::new(tee) as Box<dyn Read + Send>, Some(Cutter::new(options.window, target)))
        }
    };
    let (send, receive) = bounded(2);
    std::thread::scope(|scope| {
        let engine = scope.spawn(move || differential::diff(input, base, Box::new(PipeIn(send)), how));
        // The closure owns the receiver: if it ends, the pipe ends too, and the engine does not wait for ever.
        let windows = Parts::new(move || Ok(receive.recv().unwrap_or_default()));
        let staged = restage(windows, cutter, stage);
        let encoded = engine.join().map_err(|_| matching::Error::Internal("the encoder stopped"))?;
        match (staged, encoded) {
            // If only the pipe between the two broke, the other side knows why.
            (Err(error), Err(engine)) if engine.is_broken_pipe() => Err(error),
            (_, Err(engine)) => Err(files::told(engine)),
            (staged, Ok(_)) => staged,
        }
    })
}

fn restage(
    engine: impl Read,
    mut cutter: Option<Cutter>,
    stage: &mut Stage<impl Write>,
) -> anyhow::Result<EndRecord> {
    let mut reader = Reader::new(engine, Limits::default())?;
    let mut record = None;
    while let Some(item) = reader.next_item()? {
        match (item, &mut cutter) {
            (Item::Window(window), None) => stage.window(&window)?,
            (Item::Window(window), Some(cutter)) => cutter.window(&window, stage)?,
            (Item::End(end), cutter) => {
                if let Some(cutter) = cutter {
                    cutter.finish(stage)?;
                }
                record = Some(end);
            }
        }
    }
    Ok(record.ok_or(matching::Error::Internal("the encoder's delta has no end"))?)
}

/// Carries the delta from the engine's thread to the last stage. If it ends without
/// [`finish`](container::Encoder::finish), the end record that the engine's header announces is missing, so the delta
/// cannot pass for a complete one.
struct PipeIn(Sender<Vec<u8>>);

impl Write for PipeIn {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.send(buf.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl container::Encoder for PipeIn {
    fn finish(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}
