//! Parses xdelta3's options.
//!
//! There are no long options. Letters may be joined (`-qdf`). A value follows at once (`-Afoo`), after `=` (`-A=foo`)
//! or as the next argument (`-A foo`). The values of `-A` and `-S` are optional: without one, or with `=` and nothing
//! behind it, the option switches its feature off. A command word may stand among the options as long as no command is
//! known. Options end at the first other word. The environment variable `XDELTA` holds further arguments, separated by
//! spaces, which come first.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{bail, ensure};

use crate::text::shown_bytes;

/// The command to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Encode,
    Decode,
    Config,
    Test,
    PrintHdr,
    PrintHdrs,
    PrintDelta,
    Recode,
    Merge,
}

/// The words that stand for commands.
const WORDS: [(&str, Command); 9] = [
    ("encode", Command::Encode),
    ("decode", Command::Decode),
    ("config", Command::Config),
    ("test", Command::Test),
    ("printhdr", Command::PrintHdr),
    ("printhdrs", Command::PrintHdrs),
    ("printdelta", Command::PrintDelta),
    ("recode", Command::Recode),
    ("merge", Command::Merge),
];

/// An option with an optional value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Setting<T> {
    /// The option was not given.
    #[default]
    Default,
    /// The option was given without a value, which switches its feature off.
    Off,
    /// The option was given with a value.
    Given(T),
}

/// The value of `-W` where it is not given, in bytes.
pub const DEFAULT_WINDOW: usize = 8 << 20;

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub command: Command,
    /// `-0` to `-9`.
    pub level: u32,
    /// `-c`.
    pub stdout: bool,
    /// `-f`.
    pub force: bool,
    pub quiet: bool,
    /// The number of times that `-v` was given.
    pub verbose: u32,
    /// `-s`.
    pub source: Option<PathBuf>,
    /// `-B`, in bytes.
    pub source_window: u64,
    /// `-W`, in bytes.
    pub window: usize,
    /// `-P`. Its value is checked, but has no effect.
    pub small_table: u64,
    /// `-C`. Its value is checked, but has no effect.
    pub matcher: Option<String>,
    /// `-S`.
    pub secondary: Setting<String>,
    /// True unless `-n` was given.
    pub checksums: bool,
    /// `-A`.
    pub app_header: Setting<Vec<u8>>,
    /// True unless `-D` was given.
    pub decompress: bool,
    /// True unless `-R` was given.
    pub recompress: bool,
    /// `-J`.
    pub no_output: bool,
    /// `-N`.
    pub no_small_matches: bool,
    /// True unless `-a` (of xdelta3 3.2) was given: the BLAKE3 hashes in the header are checked.
    pub armor: bool,
    /// `-H`, which only this program has: file names are taken from the application header.
    pub header_names: bool,
    /// `-m`.
    pub merge: Vec<PathBuf>,
    pub input: Option<PathBuf>,
    pub output: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            command: Command::Encode,
            level: 3,
            stdout: false,
            force: false,
            quiet: false,
            verbose: 0,
            source: None,
            source_window: 64 << 20,
            window: DEFAULT_WINDOW,
            small_table: 0,
            matcher: None,
            secondary: Setting::Default,
            checksums: true,
            app_header: Setting::Default,
            decompress: true,
            recompress: true,
            no_output: false,
            no_small_matches: false,
            armor: true,
            header_names: false,
            merge: Vec::new(),
            input: None,
            output: None,
        }
    }
}

impl Options {
    /// Checks what xdelta3 checks only once it starts to work: the value of -P, and that of -C where it encodes.
    ///
    /// # Errors
    /// Fails with a text that says what is wrong.
    pub fn check(&self) -> anyhow::Result<()> {
        let size = self.small_table;
        ensure!(
            size == 0 || size.is_power_of_two(),
            "-P: sprevsz is required to be a power of two: {size} is none"
        );
        let Some(text) = self.matcher.as_deref().filter(|_| self.command == Command::Encode) else {
            return Ok(());
        };
        let values: Option<Vec<u64>> = text.split(',').map(|value| value.parse().ok()).collect();
        let Some(values) = values.filter(|values| values.len() == 7) else {
            bail!("invalid string match specifier (-C): {text} (seven numbers are wanted)");
        };
        ensure!(
            values[0] >= 4 && values[1] >= 1 && values[2] >= 4,
            "invalid soft string-match config (-C): {text} (the first and the third number must be 4 at least, the \
             second 1)"
        );
        Ok(())
    }
}

/// Why no command is run.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// The usage is to be printed, and the exit code is 1.
    Help,
    /// The version is to be printed, and the exit code is 0.
    Version,
    /// This text is to be printed, and the exit code is 1.
    Wrong(String),
}

/// The letters that take a value. For those in [`OPTIONAL`] it may be left out.
const WITH_VALUE: &[u8] = b"smBCEILOMPWAS";
const OPTIONAL: &[u8] = b"AS";

/// Parses the arguments of `XDELTA`, then the others (without the program's name).
pub fn parse(xdelta: Option<&OsStr>, args: &[OsString]) -> Result<Options, Stop> {
    let mut all: Vec<&[u8]> = Vec::new();
    if let Some(xdelta) = xdelta {
        all.extend(xdelta.as_bytes().split(|&b| b == b' ').filter(|word| !word.is_empty()));
    }
    all.extend(args.iter().map(|a| a.as_bytes()));

    let mut options = Options::default();
    let mut command = None;
    let mut at = 0;
    while at < all.len() {
        let Some(mut cluster) = all[at].strip_prefix(b"-") else {
            match WORDS.iter().find(|(word, _)| word.as_bytes() == all[at]) {
                Some((_, found)) if command.is_none() => command = Some(*found),
                _ => break,
            }
            at += 1;
            continue;
        };
        while let Some((&letter, rest)) = cluster.split_first() {
            cluster = rest;
            let mut value = None;
            if WITH_VALUE.contains(&letter) {
                let optional = OPTIONAL.contains(&letter);
                value = match cluster {
                    [] if at + 1 < all.len() && !all[at + 1].starts_with(b"-") => {
                        at += 1;
                        Some(all[at])
                    }
                    [] if optional => None,
                    [] => {
                        return Err(Stop::Wrong(format!("-{}: requires an argument", char::from(letter))));
                    }
                    [b'='] if optional => None,
                    [b'=', value @ ..] => Some(value),
                    value => Some(value),
                };
                cluster = &[];
            }
            apply(&mut options, &mut command, letter, value)?;
        }
        at += 1;
    }
    options.command = command.unwrap_or(Command::Encode);
    let path = |bytes: &&[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    options.input = all.get(at).map(path);
    options.output = all.get(at + 1).map(path);
    if let Some(third) = all.get(at + 2) {
        return Err(Stop::Wrong(format!("too many filenames: {} ...", shown_bytes(third))));
    }
    Ok(options)
}

fn apply(
    options: &mut Options,
    command: &mut Option<Command>,
    letter: u8,
    value: Option<&[u8]>,
) -> Result<(), Stop> {
    let path = |value: Option<&[u8]>| PathBuf::from(OsString::from_vec(value.unwrap_or_default().to_vec()));
    let value_text = || String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    let number = |low, high| number(letter, &value_text(), low, high);
    match letter {
        b'0'..=b'9' => options.level = u32::from(letter - b'0'),
        b'c' => options.stdout = true,
        b'd' | b'e' if command.is_some() => return Err(Stop::Help),
        b'd' => *command = Some(Command::Decode),
        b'e' => *command = Some(Command::Encode),
        b'f' => options.force = true,
        b'n' => options.checksums = false,
        b'q' => (options.quiet, options.verbose) = (true, 0),
        // -F forces the external compressor, but there is none here. In xdelta3 it falls through to -v.
        b'v' | b'F' => (options.quiet, options.verbose) = (false, options.verbose + 1),
        b'D' => options.decompress = false,
        b'a' => options.armor = false,
        // In xdelta3 3.2, -G leaves the level out of the header, which is always done here.
        b'G' => {}
        b'H' => options.header_names = true,
        b'J' => options.no_output = true,
        b'N' => options.no_small_matches = true,
        b'R' => options.recompress = false,
        b'V' => return Err(Stop::Version),
        b's' if options.source.is_some() => return Err(Stop::Wrong("specify only one source file".into())),
        b's' => options.source = Some(path(value)),
        b'm' => options.merge.push(path(value)),
        b'A' => options.app_header = value.map_or(Setting::Off, |v| Setting::Given(v.to_vec())),
        b'S' => options.secondary = value.map_or(Setting::Off, |_| Setting::Given(value_text())),
        b'B' => options.source_window = number(512 << 10, 2 << 30)?,
        b'W' => options.window = number(16 << 10, 16 << 20)? as usize,
        b'I' => _ = number(0, 0)?,
        b'P' => options.small_table = number(0, 0)?,
        b'C' => options.matcher = Some(value_text()),
        _ => return Err(Stop::Help),
    }
    Ok(())
}

/// Reads a number as C's `strtoll` does with base 0, and checks its limits (no upper one if `high` is 0).
fn number(letter: u8, text: &str, low: u64, high: u64) -> Result<u64, Stop> {
    let wrong = |what: String| Err(Stop::Wrong(format!("-{}: {what}", char::from(letter))));
    // An empty text comes from `-W ''`. C reads it as 0.
    let digits = if text.is_empty() { "0" } else { text.trim_start() };
    let (negative, digits) = match digits.as_bytes() {
        [b'-', ..] => (true, &digits[1..]),
        [b'+', ..] => (false, &digits[1..]),
        _ => (false, digits),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match (lower.strip_prefix("0x"), lower.strip_prefix('0')) {
        (Some(hex), _) => (hex, 16),
        (None, Some(octal)) if !octal.is_empty() => (octal, 8),
        _ => (lower.as_str(), 10),
    };
    if !digits.bytes().all(|b| char::from(b).is_digit(radix)) || digits.is_empty() {
        return wrong(format!("invalid integer: {text}"));
    }
    // A number that is too large becomes the largest, as in C.
    let value = i64::from_str_radix(digits, radix).unwrap_or(i64::MAX) as u64;
    if negative && value != 0 {
        return wrong(format!("negative integer: {text}"));
    }
    if value < low {
        return wrong(format!("minimum value: {low}"));
    }
    if high != 0 && value > high {
        return wrong(format!("maximum value: {high}"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, Stop> {
        let args: Vec<OsString> = line.split(' ').filter(|w| !w.is_empty()).map(OsString::from).collect();
        parse(None, &args)
    }

    #[test]
    fn forms_of_values() {
        for line in ["-e -Afoo in", "-e -A foo in", "-e -A=foo in", "-eA=foo in", "-eqAfoo in"] {
            let options = parsed(line).unwrap();
            assert_eq!(options.app_header, Setting::Given(b"foo".to_vec()), "{line}");
            assert_eq!(options.input, Some("in".into()), "{line}");
        }
        for line in ["-e -A= in", "-A -e in", "-e -A -q in", "-S= -A= encode in"] {
            let options = parsed(line).unwrap();
            assert_eq!((options.app_header, options.input), (Setting::Off, Some("in".into())), "{line}");
        }
        assert_eq!(parsed("-s").unwrap_err(), Stop::Wrong("-s: requires an argument".into()));
        assert_eq!(parsed("-s -q").unwrap_err(), Stop::Wrong("-s: requires an argument".into()));
        assert_eq!(parsed("-W=20000").unwrap().window, 20000);
    }

    #[test]
    fn commands_by_word_and_letter() {
        for (line, command) in [
            ("in out", Command::Encode),
            ("-f encode -A= in", Command::Encode),
            ("-qdq", Command::Decode),
            ("decode -f in", Command::Decode),
            ("recode -n in out", Command::Recode),
            ("merge -m 1 -m 2 3", Command::Merge),
            ("printhdr", Command::PrintHdr),
        ] {
            assert_eq!(parsed(line).unwrap().command, command, "{line}");
        }
        // Once there is a command, a word is a file.
        assert_eq!(parsed("-d encode").unwrap().input, Some("encode".into()));
        for line in ["-d -e", "-dd", "-h", "-Tx", "-E 1", "--help"] {
            assert_eq!(parsed(line).unwrap_err(), Stop::Help, "{line}");
        }
        assert_eq!(parsed("-V").unwrap_err(), Stop::Version);
        assert_eq!(parsed("a b c").unwrap_err(), Stop::Wrong("too many filenames: c ...".into()));
        assert_eq!(parsed("-s a -s b").unwrap_err(), Stop::Wrong("specify only one source file".into()));
    }

    #[test]
    fn numbers_as_c_reads_them() {
        assert_eq!(parsed("-B 0x4000000 x").unwrap().source_window, 64 << 20);
        assert_eq!(parsed("-B2147483648").unwrap().source_window, 2 << 30);
        for (line, message) in [
            ("-B 64M", "-B: invalid integer: 64M"),
            ("-B 1000", "-B: minimum value: 524288"),
            ("-B 4294967296", "-B: maximum value: 2147483648"),
            ("-W 33554432", "-W: maximum value: 16777216"),
            ("-B=-1", "-B: negative integer: -1"),
            ("-W 99999999999999999999999", "-W: maximum value: 16777216"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), Stop::Wrong(message.into()), "{line}");
        }
    }

    #[test]
    fn environment_comes_first() {
        let options =
            parse(Some(OsStr::new(" -s  base -9")), &["-q".into(), "-5".into(), "in".into()]).unwrap();
        assert_eq!(options.source, Some("base".into()));
        assert_eq!((options.level, options.quiet), (5, true));
    }
}
