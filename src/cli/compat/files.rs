//! Opens the inputs and outputs of a command.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, anyhow, bail};

use super::args::Options;
use crate::cli::say::say;
use crate::cli::signals::remove_on_signals;
use crate::cli::standard;
use crate::container::{self, Behind, Kind};
use crate::matching;
use crate::text::shown;
use crate::vma::{Made, private};

/// Opens the input and undoes its compression, unless `-D` says not to.
pub fn input(options: &Options) -> anyhow::Result<(Kind, Box<dyn Read + Send>)> {
    input_content(raw_input(options)?, options)
}

/// Opens the input.
pub fn raw_input(options: &Options) -> anyhow::Result<File> {
    match &options.input {
        Some(path) => open(path),
        None => standard::input(),
    }
}

/// Undoes the input's compression, unless `-D` says not to.
pub fn input_content(file: File, options: &Options) -> anyhow::Result<(Kind, Box<dyn Read + Send>)> {
    content(file, options).with_context(|| format!("cannot read {}", input_name(options)))
}

/// Returns the input's name for messages.
pub fn input_name(options: &Options) -> String {
    options.input.as_deref().map_or("standard input".into(), shown)
}

/// Opens a file for reading.
pub fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("file open failed: read: {}", shown(path)))
}

/// Opens the target to encode and undoes its compression, unless `-D` says not to. When it is decoded it is compressed
/// again, so the file must hold nothing but what decompressing gives.
pub fn target(options: &Options) -> anyhow::Result<(Kind, Box<dyn Read + Send>)> {
    let file = raw_input(options)?;
    if !options.decompress {
        return Ok((Kind::Raw, Box::new(file)));
    }
    let name = input_name(options);
    let opened = container::decoder_with(Box::new(file), Behind::Refuse);
    let (kind, content) = opened.with_context(|| format!("cannot read {name}"))?;
    Ok((kind, if kind == Kind::Raw { content } else { Box::new(Target { content, name }) }))
}

/// A target that was compressed. Its errors tell that it can also be encoded as it is.
struct Target {
    content: Box<dyn Read + Send>,
    name: String,
}

impl Read for Target {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.content.read(buf).map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => e,
            kind => io::Error::new(kind, format!("{}: {e}; -D encodes the file as it is", self.name)),
        })
    }
}

/// Opens the content of a file that may be compressed.
pub fn content(
    file: impl Read + Send + 'static,
    options: &Options,
) -> io::Result<(Kind, Box<dyn Read + Send>)> {
    if options.decompress { container::decoder(Box::new(file)) } else { Ok((Kind::Raw, Box::new(file))) }
}

/// Puts an error of the engine into the words of xdelta3's command line, where there are sources but no full backups.
pub fn told(error: matching::Error) -> anyhow::Error {
    match error {
        matching::Error::Base { path, problem } => anyhow!("the source {} {problem}", shown(path)),
        error => error.into(),
    }
}

/// The file or stream that the output goes to. A regular file is removed again unless [`keep`](Output::keep) is called,
/// also where a signal ends the program.
pub struct Output {
    file: Option<File>,
    name: String,
    made: Made,
}

impl Output {
    /// Checks that an output may be opened: a regular file that exists needs `-f`, and must not be one of those that
    /// are read.
    pub fn check(options: &Options, path: Option<&Path>) -> anyhow::Result<()> {
        let Some(path) = path.filter(|path| !options.no_output && path.is_file()) else { return Ok(()) };
        let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
        let mut inputs = options.input.iter().chain(&options.source).chain(&options.merge);
        if let Some(input) = inputs.find(|input| id(input) == id(path)) {
            bail!("the output {} is the file that is read as {}", shown(path), shown(input));
        }
        if !options.force {
            bail!("to overwrite output file specify -f: {}", shown(path));
        }
        Ok(())
    }

    /// Opens the output: nowhere with `-J`, `path` if there is one, else standard output.
    ///
    /// # Errors
    /// Fails as [`Output::check`] does, and where the file cannot be opened.
    pub fn open(options: &Options, path: Option<&Path>) -> anyhow::Result<Output> {
        Output::check(options, path)?;
        if options.no_output {
            return Ok(Output { file: None, name: String::new(), made: Made::default() });
        }
        let Some(path) = path else {
            return Ok(Output {
                file: Some(standard::text_output()?),
                name: "standard output".into(),
                made: Made::default(),
            });
        };
        let failed = || format!("file open failed: write: {}", shown(path));
        let file = private().create(true).truncate(true).open(path).with_context(failed)?;
        let made = Made::default();
        let metadata = file.metadata()?;
        if metadata.is_file() {
            // The owner of an existing file decides who may read it, but a guest's data must not become readable by
            // all. Some shares have no modes.
            if metadata.mode() & 0o7 != 0 {
                let _ = file.set_permissions(Permissions::from_mode(metadata.mode() & 0o770));
            }
            made.adopt(path);
            remove_on_signals(&made).with_context(failed)?;
        }
        Ok(Output { file: Some(file), name: shown(path), made })
    }

    /// Returns a writer for the output. It does not decide whether the file stays.
    pub fn writer(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match &self.file {
            Some(file) => Box::new(Named { file: file.try_clone()?, name: self.name.clone() }),
            None => Box::new(io::sink()),
        })
    }

    /// Keeps the file, as everything was written.
    pub fn keep(self) {
        self.made.keep();
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // An error here is passed over: the one that came first is reported, and it matters more.
        drop(self.made.remove());
    }
}

/// An output whose errors name it.
struct Named {
    file: File,
    name: String,
}

impl Write for Named {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", self.name)))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the path of the output on the command line, unless `-c` overrides it.
pub fn named_output(options: &Options) -> Option<&Path> {
    if options.stdout {
        if let Some(path) = &options.output
            && !options.quiet
        {
            say!("warning: -c option overrides output filename: {}", shown(path));
        }
        return None;
    }
    options.output.as_deref()
}

/// Tells whether an error means that the reader of the output has gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<matching::Error>().is_some_and(matching::Error::is_broken_pipe)
            || cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Counts the bytes that pass through.
pub struct Counted<T> {
    inner: T,
    pub bytes: u64,
}

impl<T> Counted<T> {
    pub fn new(inner: T) -> Self {
        Counted { inner, bytes: 0 }
    }

    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
