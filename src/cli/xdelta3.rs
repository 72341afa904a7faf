//! `pve-xdelta3`: its own sub-commands. Everything else is taken for xdelta3's command line ([`super::compat`]).

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::archive;
use super::exit::{BROKEN_PIPE, INCOMPLETE, MISSED, READ_ALL};
use super::output::Destination;
use super::progress::{Progress, Watched};
use super::report::Report;
use super::salvage::Incomplete;
use super::say::{self, HELPER as NAME, say};
use super::standard;
use super::tar;
use super::vma;
use crate::container::source::Found;
use crate::container::{self, Compression};
use crate::matching::base::{Access, Base};
use crate::matching::restore::MAX_WINDOW;
use crate::matching::{BaseProblem, Error, WINDOW, differential, full};
use crate::text::{hex, shown, told};

mod audit;
mod compose;
mod restore;

/// Differential backups of Proxmox VE: the program behind vzdump's compressor.
#[derive(Parser)]
#[command(name = "pve-xdelta3", version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Without one of these commands pve-xdelta3 takes the command line of xdelta3 (-e, -d, -s …; its \
manual page has all of them, pve-xdelta3 -h the list).

Exit status: 0 done; 1 failed, what was written is incomplete; 2 wrong usage; 3 compose: everything must be read; 4 \
vma extract --salvage and restore --salvage: something is lost or no longer proved, and the rest was written; 5 \
audit: not all that changed was marked; 141 the \
reader of the output went away.";

#[derive(Subcommand)]
enum Command {
    /// Compress a full backup from standard input to standard output
    #[command(
        long_about = "Compresses standard input to standard output, as vzdump's compressor.\n\nThe result is \
an ordinary archive: zstd -d, lzop -d or gzip -d unpack it. With zstd it also carries a map of its content (1 % of \
its size), by which differentials are made without reading it again."
    )]
    Full(FullArgs),
    /// Make a differential of standard input against a full backup, to standard output
    Diff(DiffArgs),
    /// Make a differential of a running VM of what QEMU's dirty bitmaps mark, to standard output
    #[command(long_about = compose::ABOUT)]
    Compose(compose::Args),
    /// Check by two backups of a VM whether QEMU's dirty bitmaps marked all that changed
    #[command(long_about = audit::ABOUT)]
    Audit(audit::Args),
    /// Restore from a differential and its full backup, to standard output
    #[command(long_about = restore::ABOUT)]
    Restore(restore::RestoreArgs),
    /// Look into a VM's backup, full or differential: list, config, verify, extract, create
    ///
    /// The commands and options are those of Proxmox' own `vma`.
    #[command(subcommand)]
    Vma(vma::Command),
    /// Look into a container's backup, full or differential: list and extract files without unpacking the rest
    #[command(subcommand)]
    Tar(tar::Command),
    /// Tell whether a file can serve as the base of differentials
    Identify {
        /// Also tell whether this differential is known to have been made against it
        #[arg(long = "for", value_name = "DIFFERENTIAL")]
        differential: Option<PathBuf>,
        /// The full backup.
        file: Encoded,
    },
}

#[derive(Args)]
pub(super) struct Output {
    /// How to compress the output
    #[arg(long, value_enum, default_value = "zstd")]
    compress: How,
    /// Level: 1 to 19 for zstd (default 3), 1 to 9 for gzip (default 6); lzo has none
    #[arg(long)]
    level: Option<u32>,
    #[command(flatten)]
    pub(super) threads: Threads,
}

#[derive(Args)]
struct ReportArg {
    /// At the end, write to PATH (a new file; percent-encoded or not) how many bytes were read, how many of them were
    /// new, and how long it took
    #[arg(long, value_name = "PATH")]
    report: Option<Encoded>,
}

impl ReportArg {
    fn begin(self) -> Report {
        Report::new(self.report.map(|path| path.0))
    }
}

#[derive(Args)]
pub(super) struct Threads {
    /// Threads to work with; 0 means all processors. diff and restore use no more than 3, for the sake of memory
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    threads: u16,
}

impl Threads {
    pub(super) fn get(&self) -> usize {
        match self.threads {
            0 => archive::processors(),
            n => n.into(),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    Zstd,
    Lzo,
    Gzip,
    None,
}

#[derive(Args)]
struct FullArgs {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    report: ReportArg,
    #[command(flatten)]
    to: Destination,
}

#[derive(Args)]
struct DiffArgs {
    #[command(flatten)]
    base: BaseArgs,
    /// MiB to keep of a base that can only be read from the front (zstd without a seek table, gzip, xz, bzip2): changed
    /// data is looked for in these. Restoring takes as much memory, 256 MiB at most, and about 1 GiB below TMPDIR
    /// (/var/tmp) for data that moved further
    #[arg(long, value_name = "MIB", default_value_t = WINDOW >> 20, value_parser = clap::value_parser!(u64).range(16..=MAX_WINDOW >> 20))]
    window: u64,
    /// Write an ordinary full backup if the base cannot serve. If the base turns out damaged only later, nothing is
    /// made, and the reason is left in PATH.damaged
    #[arg(long)]
    or_full: bool,
    /// The full backup's id, as `identify` told it; another file in its place is refused
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Tell on standard error how much was new
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    report: ReportArg,
    #[command(flatten)]
    to: Destination,
}

/// The arguments that name the full backup.
#[derive(Args)]
#[group(multiple = false)]
pub(super) struct BaseArgs {
    /// The full backup; may be percent-encoded (%20 for a blank)
    #[arg(long, value_name = "PATH")]
    base: Option<Encoded>,
    /// The full backup on a storage that others can write to, as vzdump gives it: it and FILE must be regular files
    /// themselves, no links, devices or pipes, and FILE's header must tell that this is the right one
    #[arg(long, value_name = "PATH")]
    stored_base: Option<Encoded>,
}

impl BaseArgs {
    pub(super) fn get(self) -> Option<(PathBuf, Found)> {
        let given = self.base.map(|base| (base.0, Found::ByPerson));
        given.or(self.stored_base.map(|base| (base.0, Found::ByName)))
    }
}

/// A path, percent-encoded or not. If a file lies at the path as it was typed, nothing is decoded.
#[derive(Clone)]
pub(super) struct Encoded(pub(super) PathBuf);

impl From<OsString> for Encoded {
    fn from(text: OsString) -> Encoded {
        if Path::new(&text).exists() {
            return Encoded(text.into());
        }
        let mut bytes = text.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        while let Some((&b, rest)) = bytes.split_first() {
            let hex = |n: usize| rest.get(n).and_then(|&d| char::from(d).to_digit(16));
            match (b, hex(0), hex(1)) {
                (b'%', Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    bytes = &rest[2..];
                }
                _ => {
                    out.push(b);
                    bytes = rest;
                }
            }
        }
        Encoded(OsString::from_vec(out).into())
    }
}

/// Runs the program with its arguments, of which the first is its name.
pub fn run(args: Vec<OsString>) -> ExitCode {
    super::allocator::set_up();
    say::speak_as(NAME);
    if let Err(error) = standard::named_in(args.get(1..).unwrap_or_default()) {
        say!("{error}");
        return ExitCode::FAILURE;
    }
    let ours = [
        "full",
        "diff",
        "compose",
        "audit",
        "restore",
        "identify",
        "vma",
        "tar",
        "help",
        "--help",
        "--version",
    ];
    match args.get(1) {
        Some(word) if ours.iter().any(|c| word == c) => {}
        // Here xdelta3 would wait for somebody to type what it is to encode.
        None if io::stdin().is_terminal() && std::env::var_os("XDELTA").is_none() => {
            say::text(format_args!("{}", Cli::command().render_help()));
            return ExitCode::from(2);
        }
        first => {
            let hint = first.and_then(|word| meant(word));
            let code = super::compat::run(args);
            if let Some(hint) = hint.filter(|_| code != ExitCode::SUCCESS) {
                say!("{hint}");
            }
            return code;
        }
    }
    let cli = Cli::try_parse_from(args).unwrap_or_else(|error| super::wrong_usage(&error, BROKEN_PIPE));
    let result = match cli.command {
        Command::Full(args) => compress(args),
        Command::Diff(args) => diff(args),
        Command::Compose(args) => compose::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Restore(args) => restore::run(args),
        Command::Vma(command) => {
            say::speak_as("pve-xdelta3 vma");
            return vma::run(command, &archive::open_named);
        }
        Command::Tar(command) => {
            say::speak_as("pve-xdelta3 tar");
            return tar::run(command);
        }
        Command::Identify { file, differential } => identify(&file.0, differential.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if super::is_broken_pipe(&e) => ExitCode::from(BROKEN_PIPE),
        Err(e) => {
            say::failure(&e);
            match () {
                () if e.is::<Usage>() => ExitCode::from(2),
                () if e.is::<audit::Missed>() => ExitCode::from(MISSED),
                () if compose::must_read_all(&e) => ExitCode::from(READ_ALL),
                () if e.is::<Incomplete>() => ExitCode::from(INCOMPLETE),
                () => ExitCode::FAILURE,
            }
        }
    }
}

/// A mistake in the command line that the parser cannot find.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Suggests a command of ours where a word looks like one, but was taken for a file by xdelta3's command line, and
/// there is no such file.
fn meant(word: &OsStr) -> Option<String> {
    if word.as_bytes().starts_with(b"-") || Path::new(word).exists() {
        return None;
    }
    let error = Cli::try_parse_from([OsStr::new("pve-xdelta3"), word]).err()?;
    let ContextValue::Strings(alike) = error.get(ContextKind::SuggestedSubcommand)? else { return None };
    let command = alike.first()?;
    Some(format!(
        "there is a command of that kind: was pve-xdelta3 {command} meant? (see pve-xdelta3 --help)"
    ))
}

impl Output {
    pub(super) fn compression(&self) -> anyhow::Result<Compression> {
        Ok(match (self.compress, self.level) {
            (How::None, None) => Compression::None,
            (How::Lzo, None) => Compression::Lzo,
            (How::Zstd, level @ (None | Some(1..=19))) => Compression::Zstd(level.unwrap_or(3) as i32),
            (How::Gzip, level @ (None | Some(1..=9))) => Compression::Gzip(level.unwrap_or(6)),
            (How::Zstd | How::Gzip, Some(level)) => {
                bail!(Usage(format!("no level {level}: zstd has 1 to 19, gzip 1 to 9")))
            }
            (How::Lzo | How::None, Some(_)) => {
                bail!(Usage("--level goes with zstd and gzip only: leave it out".into()))
            }
        })
    }
}

fn compress(args: FullArgs) -> anyhow::Result<()> {
    let how = args.output.compression()?;
    let (input, threads) = (standard::input()?, args.output.threads.get());
    let left = standard::left(&input);
    let report = args.report.begin();
    let input = report.counted(input);
    args.to.write(&[], |output| {
        let progress = Progress::new(args.to.progress(left.is_none()), left);
        let watched = Watched { inner: input, progress: progress.clone() };
        let done = full::compress(watched, output, how, threads);
        progress.end();
        Ok(done?)
    })?;
    report.write(None);
    Ok(())
}

fn diff(args: DiffArgs) -> anyhow::Result<()> {
    let threads = args.output.threads.get();
    let how = args.output.compression()?;
    let Some((path, found)) = args.base.get() else {
        bail!(Usage("which full backup? Give it with --base".into()))
    };
    let input = standard::input()?;
    let left = standard::left(&input);
    let report = args.report.begin();
    let input = report.counted(input);
    let options =
        differential::Options { threads, window: args.window << 20, ..differential::Options::default() };
    let opened = Base::open_found(&path, found).and_then(Base::full).and_then(|base| {
        if args.id.as_ref().is_some_and(|id| *id != hex(&base.identity)) {
            let problem = BaseProblem::Changed("was replaced or cut short".into());
            return Err(Error::Base { path: base.path, problem });
        }
        let (witness, size) = (base.witness(found), base.size());
        Ok((differential::prepare(base, options)?, witness, size))
    });
    let (prepared, witness, size) = match opened {
        Err(error) if args.or_full => {
            say!("warning: {}: making an ordinary full backup instead", told(&error));
            args.to.write(&[&path], |output| Ok(full::compress(input, output, how, threads)?))?;
            report.write(None);
            return Ok(());
        }
        opened => opened?,
    };
    let summary = args.to.write(&[&path], |output| {
        let progress = Progress::new(args.to.progress(left.is_none()), left.or(size));
        let watched = Watched { inner: input, progress: progress.clone() };
        let out = container::small_encoder(Box::new(output), how, threads)?;
        let done = prepared.encode(watched, out, || witness.still_there());
        progress.end();
        if let (true, Err(Error::Base { path, problem: BaseProblem::Damaged(found) })) = (args.or_full, &done)
        {
            note_damage(path, found);
        }
        Ok(done?)
    })?;
    report.write(Some(summary.new));
    if args.verbose {
        let mib = |n: u64| n as f64 / (1u64 << 20) as f64;
        say!("{:.1} MiB, of which {:.1} MiB are new", mib(summary.total), mib(summary.new));
    }
    Ok(())
}

/// Leaves a note beside a damaged full backup, so that no other differential is made against it.
fn note_damage(base: &Path, found: &str) {
    let mut path = base.as_os_str().to_owned();
    path.push(".damaged");
    let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
    match made.and_then(|mut file| writeln!(file, "{found}")) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            say!("warning: cannot write {}: {e}", shown(&path))
        }
        _ => {}
    }
}

fn identify(path: &Path, against: Option<&Path>) -> anyhow::Result<()> {
    standard::is_read()?;
    let base = Base::open(path)?.full()?;
    if let Some(name) = against {
        let input = File::open(name).with_context(|| format!("cannot open {}", shown(name)))?;
        let delta = restore::read_differential(input).with_context(|| shown(name))?;
        base.prove(&delta.header()).with_context(|| shown(name))?;
    }
    let how = match base.access {
        Access::Mapped(_) => "full backup with a map",
        Access::Random(_) => "can be read at any place",
        Access::OneWay(_) => "can be read from its start only",
    };
    let id = hex(&base.identity);
    let size = base.size().map_or("unknown".into(), |n| n.to_string());
    writeln!(io::stdout(), "{} form={} id={id} size={size} ({how})", shown(path), base.form)
        .context("cannot write to standard output")
}
