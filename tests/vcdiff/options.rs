//! xdelta3's options and failures, one row each, run with xdelta3 itself and with our program: same exit status, and
//! where both make a delta or decode one, the same content.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::tools::*;

/// How our outcome relates to xdelta3's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// Same exit status, same content where there is one.
    Same,
    /// We refuse what xdelta3 accepts, on purpose; the text is the reason.
    Refused(&'static str),
    /// We accept what xdelta3 refuses; the text is the reason.
    Accepted(&'static str),
}
use Expect::*;

/// Command lines, run by a shell in a directory with `base`, `target`, and `delta`: X stands for the program. What
/// they write to `out` is compared: decoded if it is a delta.
const ROWS: &[(&str, Expect)] = &[
    // Encoding, each option.
    ("X -e -f -s base target out", Same),
    ("X encode -f -s base target out", Same),
    ("X -f -s base target out", Same),
    ("X -e -c -s base target >out", Same),
    ("X -e -c -s base <target >out", Same),
    ("X -e -s base <target >out", Same),
    ("X -0 -f -s base target out", Same),
    ("X -1 -f -s base target out", Same),
    ("X -2 -f -s base target out", Same),
    ("X -3 -f -s base target out", Same),
    ("X -4 -f -s base target out", Same),
    ("X -5 -f -s base target out", Same),
    ("X -6 -f -s base target out", Same),
    ("X -7 -f -s base target out", Same),
    ("X -8 -f -s base target out", Same),
    ("X -9 -f -s base target out", Same),
    ("X -q -f -s base target out", Same),
    ("X -v -f -s base target out", Same),
    ("X -vv -f -s base target out", Same),
    ("X -F -f -s base target out", Same),
    ("X -B 1048576 -f -s base target out", Same),
    ("X -B 600000 -f -s base target out", Same),
    ("X -W 16384 -f -s base target out", Same),
    ("X -W 0x8000 -f -s base target out", Same),
    ("X -W 16777216 -f -s base target out", Same),
    ("X -P 1024 -f -s base target out", Same),
    ("X -I 0 -f -s base target out", Same),
    ("X -I 100 -f -s base target out", Same),
    ("X -S lzma -f -s base target out", Same),
    ("X -S djw -f -s base target out", Same),
    ("X -S djw9 -f -s base target out", Same),
    ("X -S none -f -s base target out", Same),
    ("X -S= -f -s base target out", Same),
    ("X -S -f -s base target out", Same),
    ("X -N -f -s base target out", Same),
    ("X -n -f -s base target out", Same),
    ("X -D -f -s base target out", Same),
    ("X -R -f -s base target out", Same),
    ("X -C 9,3,4,8,2,36,70 -f -s base target out", Same),
    ("X -A -f -s base target out", Same),
    ("X -A= -f -s base target out", Same),
    ("X -A=text -f -s base target out", Same),
    ("X -Atext -f -s base target out", Same),
    ("X -J -s base target out", Same),
    ("X -f target out", Same),
    ("X -f empty out", Same),
    ("X -f -s base empty out", Same),
    ("X -f -s empty target out", Same),
    ("mkfifo pipe; cat base >pipe & X -f -s pipe target out", Same),
    ("XDELTA='-s base -f' X target out", Same),
    ("XDELTA='-f' X -S none -s base target out", Same),
    // Decoding, each option.
    ("X -d -f -s base delta out", Same),
    ("X decode -f -s base delta out", Same),
    ("X -dc -s base delta >out", Same),
    ("X -dcqs base <delta >out", Same),
    ("X -d -c -R -s base delta >out", Same),
    ("X -d -D -c -s base delta >out", Same),
    ("X -d -n -c -s base delta >out", Same),
    ("X -d -A -c -s base delta >out", Same),
    ("X -d -J -s base delta out", Same),
    ("X -d -B 600000 -c -s base delta >out", Same),
    ("X -d -v -f -s base delta out", Same),
    ("mkfifo pipe; cat base >pipe & X -d -f -s pipe delta out", Same),
    ("X -d -f -s base.gz delta out", Same),
    ("X -d -f -s base.bz2 delta out", Same),
    ("X -d -f -s base.xz delta out", Same),
    ("X -d -f -s base.Z delta out", Same),
    // What may be wrong with them.
    ("head -c 30000 base.gz >cut.gz; X -f -s cut.gz target out; rm -f out", Same),
    ("head -c 30000 base.xz >cut.xz; X -f -s cut.xz target out; rm -f out", Same),
    ("head -c 30000 base.bz2 >cut.bz2; X -f -s cut.bz2 target out; rm -f out", Same),
    ("head -c 5000 /dev/zero >>base.gz; X -d -f -s base.gz delta out", Same),
    ("head -c 5000 /dev/zero >>base.bz2; X -d -f -s base.bz2 delta out", Same),
    ("echo garbage >>base.bz2; X -d -f -s base.bz2 delta out", Same),
    ("echo garbage >>base.gz; X -d -s base.gz delta out; rm -f out", Same),
    ("echo garbage >>base.gz; X -d -f -s base.gz delta out; rm -f out", Same),
    ("cat base.gz base.gz >two.gz; xdelta3 -e -s two.gz target both; X -d -f -s two.gz both out", Same),
    // Devices.
    ("X -f -s /dev/null target out", Same),
    ("xdelta3 -e target alone; X -d -f -s /dev/null alone out", Same),
    // Messages that cannot be written.
    ("X -h 2>/dev/full", Same),
    ("X -V 2>/dev/full", Same),
    ("X config 2>/dev/full", Same),
    ("X -d -v -f -s base delta out 2>/dev/full", Same),
    ("X -d nope 2>/dev/full", Same),
    // Standard streams that are closed, or opened for more than is needed.
    ("X printhdr delta 1<>/dev/null", Same),
    ("X -d -c -s base delta 1<>/dev/null", Same),
    ("X -d -J -s base delta >&-", Same),
    ("X -d -s base delta out >&-", Same),
    ("X -d -c -s base delta >/dev/null", Same),
    ("X -d -c delta >out", Refused("the source's name is not taken from the delta")),
    ("rm target; X -d -s base delta; mv target out", Refused("nor is the output's")),
    // Tools.
    ("X printhdr delta", Same),
    ("X printhdrs delta", Same),
    ("X printdelta delta", Same),
    ("X printhdr <delta", Same),
    ("X printhdr delta out; X -e -f -s base target out", Same),
    ("X recode -f -S none -n -A=x delta out", Same),
    ("X recode -c -S djw delta >out", Same),
    ("X merge -f -m delta second merged && X -d -f -s base merged out", Same),
    ("X config", Same),
    ("X -V", Same),
    // Failures.
    ("X -h", Same),
    ("X -T -s base target out", Same),
    ("X -E 1 -s base target out", Same),
    ("X -L 1 -s base target out", Same),
    ("X -O 1 -s base target out", Same),
    ("X -M 1 -s base target out", Same),
    ("X --help", Accepted("it tells of our own commands")),
    ("X -d -e delta", Same),
    ("X -e target one two", Same),
    ("X -s base -s base target out", Same),
    ("X -s", Same),
    ("X -B 64M -s base target out", Same),
    ("X -B 1000 -s base target out", Same),
    ("X -B 4294967296 -s base target out", Same),
    ("X -W 33554432 -s base target out", Same),
    ("X -W 1000 target out", Same),
    ("X -W -5 target out", Same),
    ("X -I x target out", Same),
    ("X -C 1,2,3 target out", Same),
    ("X -C 1,2,3,4,5,6,7 target out", Same),
    ("X -C 9,0,4,8,2,36,70 target out", Same),
    ("X -C 9,3,3,8,2,36,70 target out", Same),
    ("X -C 9,3,4,8,2,36,7x target out", Same),
    ("X -C '' target out", Same),
    ("X -d -C 1,2 -f -s base delta out", Same),
    ("X printhdr -C 1,2 delta", Same),
    ("X -P 99 target out", Same),
    ("X -P 64 -f -s base target out", Same),
    ("X -P '' -f -s base target out", Same),
    ("X -d -P 99 -s base delta out", Same),
    ("X printhdr -P 99 delta", Same),
    ("X config -P 99 -S xyz -C 1", Same),
    ("X -I '' -f -s base target out", Same),
    ("X -W '' target out", Same),
    ("X -W ' ' target out", Same),
    ("X -d -S xyz -s base delta out", Same),
    ("X printhdr -S xyz delta", Same),
    ("X -S xyz target out", Same),
    ("X -q -S xyz target out", Same),
    ("X -s missing target out", Same),
    ("X -s base missing out", Same),
    ("X target missing/out", Same),
    ("echo x >out; X -s base target out; rm out", Same),
    ("X -s base target /dev/full", Same),
    ("X -c -s base target >/dev/full", Same),
    ("X -d -s missing delta out", Same),
    ("X -d -s base missing out", Same),
    ("X -d -s base target out; rm -f out", Same),
    ("X -d -s base empty out; rm -f out", Same),
    ("X -d -s other delta out; rm -f out", Same),
    ("X -d -s short delta out; rm -f out", Same),
    ("head -c 3000 delta >cut; X -d -s base cut out; rm -f out", Same),
    ("head -c 2 delta >cut; X -d -s base cut out; rm -f out", Same),
    ("(cat delta; echo more) >long; X -d -s base long out; rm -f out", Same),
    ("X printhdr target", Same),
    ("X recode target out; rm -f out", Same),
    ("X merge -m target delta out; rm -f out", Same),
    ("X merge -f delta out", Same),
];

#[test]
fn every_option_does_what_it_does_in_xdelta3() {
    if !have_xdelta3() {
        return;
    }
    let (base, target) = pair(41, 300_000);
    let mut third = target.clone();
    third.splice(1000..1000, b"something new ".repeat(30));
    let mut other = base.clone();
    other.iter_mut().step_by(100).for_each(|b| *b ^= 1);

    let files: [(&str, &[u8]); 6] = [
        ("base", &base),
        ("target", &target),
        ("third", &third),
        ("other", &other),
        ("short", &base[..5000]),
        ("empty", b""),
    ];
    let model = Dir::new();
    files.iter().for_each(|(name, bytes)| _ = model.write(name, bytes));
    model.xdelta3_ok(&["-e", "-s", "base", "target", "delta"]);
    model.xdelta3_ok(&["-e", "-s", "target", "third", "second"]);
    shell(model.path(), "gzip -k base; bzip2 -k base; xz -k -0 base; compress -c base >base.Z");

    let mut wrong = Vec::new();
    for &(line, expect) in ROWS {
        let [theirs, ours] = ["xdelta3", env!("CARGO_BIN_EXE_pve-xdelta3")].map(|program| {
            let dir = Dir::new();
            for file in fs::read_dir(model.path()).unwrap().map(Result::unwrap) {
                fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
            }
            let line = line.split(' ').map(|word| if word == "X" { program } else { word });
            let output = shell(dir.path(), &line.collect::<Vec<_>>().join(" "));
            (output, content(&dir))
        });
        let codes = [&theirs.0, &ours.0].map(|output| output.status.code());
        let right = match expect {
            Same => codes[0] == codes[1] && theirs.1 == ours.1,
            Refused(_) => codes == [Some(0), Some(1)] && ours.1.is_none_or(|out| out.is_empty()),
            Accepted(_) => codes == [Some(1), Some(0)],
        };
        if !right {
            let text = String::from_utf8_lossy(&ours.0.stderr).into_owned();
            wrong.push(format!("{line}: xdelta3 {:?}, we {:?}: {text}", codes[0], codes[1]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn shell(dir: &Path, line: &str) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(dir).stdin(Stdio::null()).env_remove("XDELTA");
    command.output().unwrap()
}

/// What is in `out`: the target of a delta, or the bytes as they are.
fn content(dir: &Dir) -> Option<Vec<u8>> {
    let bytes = fs::read(dir.path().join("out")).ok()?;
    if !bytes.starts_with(&pve_diff_backup::vcdiff::MAGIC) {
        return Some(bytes);
    }
    Some(decode(&bytes, &dir.read("base")).expect("a delta that can be decoded"))
}

/// `-W` is the length of the windows, with a source too.
#[test]
fn windows_are_as_long_as_asked_for() {
    let (base, target) = pair(42, 500_000);
    let dir = Dir::new();
    dir.write("base", &base);
    dir.write("target", &target);
    for (option, len) in [("16384", 16384), ("100000", 100_000), ("8388608", 8 << 20), ("16777216", 16 << 20)]
    {
        dir.ours_ok(&["-e", "-f", "-W", option, "-s", "base", "target", "delta"]);
        let delta = dir.read("delta");
        assert_eq!(decode(&delta, &base).unwrap(), target);
        let lens = windows(&delta);
        assert!(lens[..lens.len() - 1].iter().all(|&n| n == len), "{option}: {lens:?}");
        assert_eq!(lens.len(), target.len().div_ceil(len));
    }
}

fn windows(delta: &[u8]) -> Vec<usize> {
    use pve_diff_backup::vcdiff::{Item, Limits, Reader};
    let mut reader = Reader::new(delta, Limits::default()).unwrap();
    let mut lens = Vec::new();
    while let Some(item) = reader.next_item().unwrap() {
        if let Item::Window(window) = item {
            lens.push(window.target_len);
        }
    }
    lens
}

/// What a pipe has given once cannot be had again: an error, no wait for a second writer.
#[test]
fn a_pipe_as_source_is_read_once() {
    let (base, target) = pair(43, 3 << 20);
    // The second half first.
    let target = [&target[2 << 20..], &base[..2 << 20]].concat();
    let dir = Dir::new();
    dir.write("base", &base);
    dir.write("target", &target);
    dir.ours_ok(&["-e", "-S", "none", "-W", "524288", "-s", "base", "target", "delta"]);
    let run = |window: &str| {
        let program = env!("CARGO_BIN_EXE_pve-xdelta3");
        let line = format!(
            "rm -f pipe; mkfifo pipe; cat base >pipe & {program} -d -f -B {window} -s pipe delta out"
        );
        shell(dir.path(), &line)
    };
    assert!(run("67108864").status.success());
    assert!(dir.read("out") == target);
    // What is compressed is read again from the file instead, with all kept that is needed.
    shell(dir.path(), "zstd -q base");
    dir.ours_ok(&["-d", "-f", "-B", "524288", "-s", "base.zst", "delta", "out"]);
    assert!(dir.read("out") == target);
    let output = run("524288");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("more than the last 524288 bytes of it are needed"), "{message}");
}

/// The hashes of xdelta3 3.2 in the header.
#[test]
fn armor_is_checked() {
    let (base, target) = pair(44, 50_000);
    let hash = |bytes: &[u8]| Some(*blake3::hash(bytes).as_bytes());
    let dir = Dir::new();
    dir.write("base", &base);
    dir.write("target", &target);
    let mut other = base.clone();
    // Nothing that is copied: only the hash tells.
    other.push(1);
    dir.write("other", &other);
    let write = |blake3| {
        use pve_diff_backup::vcdiff::AppHeader;
        let (target_name, base_name) = (b"target".to_vec(), b"base".to_vec());
        let app = AppHeader { target_name, base_name, blake3, ..AppHeader::default() };
        dir.write("delta", &Encode { app: Some(app), ..Encode::default() }.run(&base, &target));
    };
    write([hash(&target), hash(&base)]);
    for source in ["base", "other"] {
        shell(dir.path(), &format!("gzip -kf {source}; lzop -kf {source}"));
    }
    for form in ["", ".gz", ".lzo"] {
        let run =
            |option, source: &str| dir.ours(&["-d", "-c", option, "-s", &format!("{source}{form}"), "delta"]);
        assert!(run("-q", "base").stdout == target, "{form}");
        let refused = run("-q", "other");
        assert!(!refused.status.success() && refused.stdout.is_empty());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("BLAKE3"), "{form}");
        assert!(run("-a", "other").stdout == target && run("-A", "other").stdout == target, "{form}");
    }
    assert!(dir.ours_fails(&["-d", "-c", "-s", "target", "delta"]).contains("nothing to do"));
    assert!(dir.ours_fails(&["-d", "-c", "delta"]).contains("no source was given"));

    write([hash(b"something else"), hash(&base)]);
    assert!(dir.ours_fails(&["-d", "-s", "base", "delta", "out"]).contains("BLAKE3"));
    assert!(!dir.path().join("out").exists(), "an output that is not the target is left");
    dir.ours_ok(&["-d", "-a", "-s", "base", "delta", "out"]);

    // A chain whose links do not fit.
    fs::copy(dir.path().join("delta"), dir.path().join("first")).unwrap();
    assert!(dir.ours_fails(&["merge", "-m", "first", "delta", "merged"]).contains("does not continue"));
}

/// Other programs that write VCDIFF, where the environment names them: xdelta3 3.2 (XDELTA32) and HDiffPatch's hdiffz
/// (HDIFFZ).
#[test]
fn decodes_what_others_write() {
    let (base, target) = pair(45, 400_000);
    let dir = Dir::new();
    dir.write("base", &base);
    dir.write("target", &target);
    let lines = [
        ("XDELTA32", "$XDELTA32 -e -f -s base target delta"),
        ("XDELTA32", "$XDELTA32 -e -f -a -G -S djw -s base target delta"),
        ("XDELTA32", "$XDELTA32 -e -f -S none -W 16384 -s base target delta"),
        ("XDELTA32", "gzip -kf target && $XDELTA32 -e -q -f -s base target.gz delta"),
        ("HDIFFZ", "$HDIFFZ -f -VCD base target delta"),
        ("HDIFFZ", "$HDIFFZ -f -s-64 -VCD base target delta"),
    ];
    for (variable, line) in lines {
        if std::env::var_os(variable).is_none() {
            eprintln!("skipped: {variable} does not name a program");
            continue;
        }
        let made = shell(dir.path(), line);
        assert!(made.status.success(), "{line}: {}", String::from_utf8_lossy(&made.stderr));
        assert!(dir.ours_ok(&["-d", "-R", "-c", "-s", "base", "delta"]).stdout == target, "{line}");
        dir.ours_ok(&["printdelta", "delta"]);
        assert!(
            !dir.ours(&["-d", "-R", "-c", "-s", "target", "delta"]).status.success() || variable == "HDIFFZ"
        );
    }
}
