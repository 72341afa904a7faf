//! xdelta3's command line, so that scripts written for it keep working.
//!
//! Commands, options, defaults and exit codes are those of xdelta3 3.0.11. Each program reads the deltas of the other, and
//! ours also reads those of xdelta3 3.2 and of HDiffPatch. [`DIFFERENCES`] lists what differs on purpose.

mod args;
mod armor;
mod cut;
mod decode;
mod encode;
mod files;
mod own;
mod print;
mod recompress;
mod stage;
mod tools;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, bail};

use self::args::{Command, Options, Setting, Stop};
use super::exit::{BROKEN_PIPE, READ_ALL};
use super::say::{self, HELPER as NAME, say};
use crate::vcdiff::secondary;

/// Runs a command line, whose first word is the program's name.
///
/// The exit status is 0 on success, 1 on failure, and 141 where the reader of the output went away.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let environment = std::env::var_os("XDELTA");
    let options = match args::parse(environment.as_deref(), args.get(1..).unwrap_or_default()) {
        Ok(options) => options,
        Err(Stop::Version) => {
            version();
            return ExitCode::SUCCESS;
        }
        Err(Stop::Help) => {
            version();
            say::text(format_args!("{USAGE}"));
            return ExitCode::FAILURE;
        }
        Err(Stop::Wrong(message)) => {
            say!("{message}");
            return ExitCode::FAILURE;
        }
    };
    match dispatch(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if files::is_broken_pipe(&error) => ExitCode::from(BROKEN_PIPE),
        Err(error) => {
            say::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(options: &Options) -> anyhow::Result<()> {
    if !matches!(options.command, Command::Test | Command::Config) {
        options.check()?;
        secondary(options)?;
    }
    match options.command {
        Command::Encode => encode::run(options),
        Command::Decode => decode::run(options),
        Command::PrintHdr => print::run(options, print::Extent::FirstHeader),
        Command::PrintHdrs => print::run(options, print::Extent::Headers),
        Command::PrintDelta => print::run(options, print::Extent::Everything),
        Command::Recode => tools::recode(options),
        Command::Merge => tools::merge(options),
        Command::Test => self_test(),
        Command::Config => {
            version();
            say::text(format_args!("{CONFIG}"));
            Ok(())
        }
    }
}

/// Makes the secondary compressor that `-S` names, which is LZMA if it names none.
fn secondary(options: &Options) -> anyhow::Result<Option<secondary::Encoder>> {
    let name = match &options.secondary {
        Setting::Default => "lzma",
        Setting::Off => "none",
        Setting::Given(name) => name,
    };
    Ok(match name {
        "" | "none" => None,
        "lzma" => Some(secondary::Encoder::lzma(options.level)),
        "fgk" => Some(secondary::Encoder::fgk()),
        _ => match name.strip_prefix("djw").map(str::as_bytes) {
            Some([]) => Some(secondary::Encoder::djw(6)),
            Some([level @ b'0'..=b'9']) => Some(secondary::Encoder::djw(u32::from(level - b'0'))),
            _ => bail!(
                "unrecognized secondary compressor: {name} (there are lzma, djw, djw0 to djw9, fgk, none)"
            ),
        },
    })
}

/// Tests the encoder and the decoder on data in memory.
fn self_test() -> anyhow::Result<()> {
    for seed in 0..8u32 {
        let mut state = seed;
        let mut noise = |len: usize| -> Vec<u8> {
            (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect()
        };
        let piece = noise(40_000);
        let target = [&piece[..], &noise(1000), &piece[100..9000], &[seed as u8; 5000]].concat();
        for name in ["none", "lzma", "djw", "fgk"] {
            let options =
                Options { secondary: Setting::Given(name.into()), window: 16 << 10, ..Options::default() };
            let delta =
                encode::in_memory(&options, &target).with_context(|| format!("encoding with {name}"))?;
            let decoded = decode::in_memory(&delta).with_context(|| format!("decoding with {name}"))?;
            if decoded != target {
                bail!("self-test failed: {name} does not give back what was encoded");
            }
        }
        say::text(format_args!("."));
    }
    say::text(format_args!(" success\n"));
    Ok(())
}

/// Prints the version on standard error. It is no error where that cannot be written, as with xdelta3.
fn version() {
    say::text(format_args!(
        "Xdelta version 3.0.11, as {NAME} {} understands it\n",
        env!("CARGO_PKG_VERSION")
    ));
}

/// What `-h` prints.
pub(super) const USAGE: &str = "\
usage: pve-xdelta3 [command/options] [input [output]]
make patch:

  pve-xdelta3 -e -s old_file new_file delta_file

apply patch:

  pve-xdelta3 -d -s old_file delta_file decoded_new_file

special command names:
    config      prints the configuration
    decode      decompress the input
    encode      compress the input
    test        run the builtin tests
special commands for VCDIFF inputs:
    printdelta  print information about the entire delta
    printhdr    print information about the first window
    printhdrs   print information about all windows
    recode      encode with new application/secondary settings
    merge       merge VCDIFF inputs (see below)
merge patches:

  pve-xdelta3 merge -m 1.vcdiff -m 2.vcdiff 3.vcdiff merged.vcdiff

standard options:
   -0 .. -9     compression level
   -c           use stdout
   -d           decompress
   -e           compress
   -f           force (overwrite)
   -F           accepted, no effect (no external program is run)
   -h           show help
   -H           take file names from the delta's header, in the delta's directory
   -q           be quiet
   -v           be verbose
   -V           show version
memory options:
   -B bytes     source window size
   -W bytes     input window size
   -P size      checked, no effect
   -I size      checked, no effect
compression options:
   -a           do not check the BLAKE3 hashes that xdelta3 3.2 puts into the header
   -s source    source file to copy from (if any)
   -S [lzma|djw|fgk|none] enable/disable secondary compression
   -N           disable string-matching within the input
   -D           disable decompression of inputs (encode/decode)
   -R           disable recompression of the output (decode)
   -n           disable checksum (encode/decode)
   -C           checked, no effect
   -G           accepted, no effect (of xdelta3 3.2)
   -A [apphead] disable/provide application header (encode)
   -J           disable output (check/compute only)
   -m           arguments for \"merge\"
the XDELTA environment variable may contain extra args:
   XDELTA=\"-s source-x.y.tar.gz\" \\
   tar --use-compress-program=pve-xdelta3 \\
       -cf target-x.z.tar.gz.vcdiff target-x.y

our own commands: full, diff, compose, restore, identify, vma (each with --help)
";

/// The differences from xdelta3 that are intended, for the man page.
pub(super) const DIFFERENCES: [&str; 13] = [
    "No program is ever run. Files compressed with gzip, bzip2, xz, compress, zstd or lzop are recognised by their \
     content alone, whatever a delta's header says they were, and are read and written by this program itself; GZIP and \
     XZ_OPT are not looked at. So a delta made against full.zst can be decoded with full, full.gz or full.lzo.",
    "A compressed target is decompressed before it is encoded, with a warning, and .zst and .lzo are among them, which \
     xdelta3 3.0.11 takes as they are. Decoding compresses it again: the same data, but not always the same bytes. -D \
     when encoding keeps a compressed file as it is, -R when decoding leaves the output uncompressed.",
    "Garbage behind the gzip, xz, zstd or lzop data of a source or a delta is an error, with -F too; zeros behind gzip, xz \
     or lzop data and anything behind bzip2 data are passed over, as their own programs do. A target with anything behind \
     its compressed data, zeros and zstd's skippable frames too, is refused unless -D is given, since decoding would not \
     give it back; xdelta3 loses it. What may be missing are our full backups' maps and seek tables: they are made of \
     the content.",
    "File names in a delta's header are never opened or written, unless -H is given, and then only in the delta's \
     own directory; in the current one, if the delta is standard input. Without it, decoding wants -s FILE where a \
     source is needed, and an output's name or -c.",
    "Deltas end in an end record, a window without content that every other decoder passes over. It holds the length \
     and a hash of the whole, by which a delta that was cut between two windows is known; xdelta3 takes it for a \
     complete one. With -A and a text it is not announced, so its absence is not noticed. -A= leaves it out, when \
     encoding, recoding and merging: xdelta3's own merge does not take deltas that have it (\"offset mismatch\").",
    "What is written is removed again if it could not be completed, also where SIGHUP, SIGINT or SIGTERM ends the \
     program, unless it is a pipe or a device. An output is not opened before the source was found to fit, and never \
     where it is one of the files that are read.",
    "-q silences remarks, not errors.",
    "Matches are found at any distance: -B, -C, -I, -P are checked, but change nothing in what is encoded, and the level \
     (-0 to -9) is that of LZMA; -0 and -N do without repetitions within the input. When decoding, -B is how much is \
     kept of a source that can only be read from its start; what lies further back is kept in a temporary file below \
     TMPDIR or /var/tmp, if the source is a file: up to 1.25 GiB, and 64 times the length of the source.",
    "What xdelta3 writes with -S fgk it cannot always read itself (where incompressible windows come before others); \
     this program reads it.",
    "The hashes of xdelta3 3.2 (armor) are checked when decoding and merging, and not written. As there, the source is \
     read as a whole for it, before anything is decoded; -a does without.",
    "merge leaves the header out unless -A gives one, and takes compressed files with -m. It refuses to join deltas that \
     would take more than 256 MiB of memory and 32 times their length. A delta of more than 16 empty \
     windows in a row, with an instruction or address section of more than twice its window's length, or with a header \
     of more than 1 MiB, is refused.",
    "printhdr, printhdrs and printdelta escape control characters, and bytes that are no UTF-8, in names and headers. A \
     delta without secondary compression has \"none\" for a compressor; xdelta3 says lzma there, by mistake. For them \
     an empty file is an error.",
    "full, diff, compose, restore, identify, vma, help, --help or --version as the first word is a command of ours (a file of \
     that name is ./full). -a, -G and -H are options. Repeated blanks in XDELTA do no harm.",
];

/// The exit codes, for the man page.
pub(super) const EXIT: [(u8, &str); 4] = [
    (0, "done; also -V"),
    (1, "anything else, also wrong usage and -h; what was written is incomplete"),
    (
        READ_ALL,
        "compose: a differential cannot be made of what is dirty alone; nothing is wrong, everything must be read",
    ),
    (BROKEN_PIPE, "the reader of the output went away; xdelta3 is ended by SIGPIPE then"),
];

const CONFIG: &str = "\
EXTERNAL_COMPRESSION=0
REGRESSION_TEST=1
SECONDARY_DJW=1
SECONDARY_FGK=1
SECONDARY_LZMA=1
VCDIFF_TOOLS=1
XD3_ENCODER=1
XD3_POSIX=1
XD3_DEFAULT_LEVEL=3
XD3_DEFAULT_SRCWINSZ=67108864
XD3_DEFAULT_WINSIZE=8388608
XD3_HARDMAXWINSIZE=16777216
";
