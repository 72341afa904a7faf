//! Inputs and outputs of a command.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::args::Options;
use crate::container::{self, Kind};
use crate::matching;

/// Opens the input and undoes its compression, unless `-D` says not to.
pub fn input(options: &Options) -> anyhow::Result<(Kind, Box<dyn Read + Send>)> {
    let (file, name) = match &options.input {
        Some(path) => (open(path)?, path.display().to_string()),
        None => (File::from(io::stdin().as_fd().try_clone_to_owned()?), "standard input".into()),
    };
    content(file, options).with_context(|| format!("cannot read {name}"))
}

/// Opens a file for reading.
pub fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("file open failed: read: {}", path.display()))
}

/// The content of a file that may be compressed.
pub fn content(file: File, options: &Options) -> io::Result<(Kind, Box<dyn Read + Send>)> {
    if options.decompress { container::decoder(Box::new(file)) } else { Ok((Kind::Raw, Box::new(file))) }
}

/// Where output goes. A regular file is removed again unless [`keep`](Output::keep) is called.
pub struct Output {
    file: Option<File>,
    remove: Option<PathBuf>,
}

impl Output {
    /// Opens the output: nowhere with `-J`, `path` if there is one, else standard output.
    ///
    /// # Errors
    /// Where a regular file exists and `-f` is not given.
    pub fn open(options: &Options, path: Option<&Path>) -> anyhow::Result<Output> {
        if options.no_output {
            return Ok(Output { file: None, remove: None });
        }
        let Some(path) = path else {
            return Ok(Output { file: Some(stdout()?), remove: None });
        };
        if !options.force && path.is_file() {
            bail!("to overwrite output file specify -f: {}", path.display());
        }
        let file =
            File::create(path).with_context(|| format!("file open failed: write: {}", path.display()))?;
        let regular = file.metadata()?.is_file();
        Ok(Output { file: Some(file), remove: regular.then(|| path.to_owned()) })
    }

    /// Something to write to; independent of this, which only cares for the file's fate.
    pub fn writer(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match &self.file {
            Some(file) => Box::new(file.try_clone()?),
            None => Box::new(io::sink()),
        })
    }

    /// Everything was written.
    pub fn keep(mut self) {
        self.remove = None;
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(path) = &self.remove {
            // Best effort: the error that brought us here is reported, and is what matters.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The output named on the command line, unless `-c` overrides it.
pub fn named_output(options: &Options) -> Option<&Path> {
    if options.stdout {
        if let Some(path) = &options.output
            && !options.quiet
        {
            eprintln!("{}: warning: -c option overrides output filename: {}", super::NAME, path.display());
        }
        return None;
    }
    options.output.as_deref()
}

fn stdout() -> anyhow::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Whether whoever read our output has gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<matching::Error>().is_some_and(matching::Error::is_broken_pipe)
            || cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Counts what passes through.
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
