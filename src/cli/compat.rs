//! xdelta3's command line, so that scripts written for it keep working.
//!
//! Commands, options, defaults and exit codes are those of xdelta3 3.0.11; deltas go both ways. On purpose
//! different:
//! - compressed files are recognised by content alone and (de)compressed in process: gzip, xz, zstd, lzop.
//!   No program is ever run, so there is no bzip2 and no compress;
//! - file names in a delta's header are never opened or written, unless `-H` is given;
//! - `-q` silences remarks, not errors; an output file that could not be completed is removed;
//! - `-B`, `-C`, `-I`, `-P` and `-W` are checked but, as the encoder finds matches at any distance, only `-W` has
//!   an effect, without a source, and `-B` when decoding against a compressed source (never too small: the
//!   source is read again where needed); the level is that of LZMA;
//! - deltas end in an end record, by which a truncated one is known (xdelta3 ignores it).

mod args;
mod decode;
mod encode;
mod files;
mod own;
mod print;
mod recompress;
mod tools;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, bail};

use self::args::{Command, Options, Setting, Stop};
use crate::vcdiff::secondary;

const NAME: &str = "pve-xdelta3";

/// Runs a command line, whose first word is the program's name.
///
/// Exit status 0 means done, 1 anything else, and 141 that the reader of the output went away.
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
            eprint!("{USAGE}");
            return ExitCode::FAILURE;
        }
        Err(Stop::Wrong(message)) => {
            eprintln!("{NAME}: {message}");
            return ExitCode::FAILURE;
        }
    };
    match dispatch(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if files::is_broken_pipe(&error) => ExitCode::from(super::xdelta3::BROKEN_PIPE),
        Err(error) => {
            eprintln!("{NAME}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(options: &Options) -> anyhow::Result<()> {
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
            eprint!("{CONFIG}");
            Ok(())
        }
    }
}

/// The secondary compressor of `-S`, LZMA if there is none.
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

/// Encodes and decodes in memory what this program relies on.
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
        eprint!(".");
    }
    eprintln!(" success");
    Ok(())
}

fn version() {
    eprintln!("Xdelta version 3.0.11, as {NAME} {} understands it", env!("CARGO_PKG_VERSION"));
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
   -P size      accepted, no effect
   -I size      accepted, no effect
compression options:
   -s source    source file to copy from (if any)
   -S [lzma|djw|fgk|none] enable/disable secondary compression
   -N           disable string-matching within the input
   -D           disable decompression of inputs (encode/decode)
   -R           disable recompression of the output (decode)
   -n           disable checksum (encode/decode)
   -C           accepted, no effect
   -A [apphead] disable/provide application header (encode)
   -J           disable output (check/compute only)
   -m           arguments for \"merge\"
the XDELTA environment variable may contain extra args:
   XDELTA=\"-s source-x.y.tar.gz\" \\
   tar --use-compress-program=pve-xdelta3 \\
       -cf target-x.z.tar.gz.vcdiff target-x.y

our own commands: full, diff, restore, identify, vma (each with --help)
";

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
