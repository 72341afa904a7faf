//! The command line of xdelta3, as our program speaks it, beside the real one.

use std::fs;
use std::process::Command;

use pve_diff_backup::vcdiff::*;

use crate::tools::*;

impl Dir {
    fn with_pair(seed: u64, len: usize) -> (Dir, Vec<u8>, Vec<u8>) {
        let (base, target) = pair(seed, len);
        let dir = Dir::new();
        dir.write("base", &base);
        dir.write("target", &target);
        (dir, base, target)
    }
}

#[test]
fn encodes_and_decodes_in_every_form() {
    let have_xdelta3 = have_xdelta3();
    let (dir, _, target) = Dir::with_pair(31, 200_000);
    let forms: &[&[&str]] = &[
        &[],
        &["-0"],
        &["-9", "-S", "none"],
        &["-S", "djw"],
        &["-S", "djw1", "-n"],
        &["-S", "fgk", "-A"],
        &["-S=", "-A=some text"],
        &["-N", "-C9,3,4,8,2,36,70", "-I0", "-P", "1024", "-B", "524288"],
        &["-W", "16384"],
    ];
    for source in [&["-s", "base"][..], &[]] {
        for form in forms {
            dir.ours_ok(&[&["-e", "-f"], *form, source, &["target", "delta"]].concat());
            assert_eq!(dir.ours_ok(&[&["-d", "-c"], source, &["delta"]].concat()).stdout, target, "{form:?}");
            if have_xdelta3 {
                assert_eq!(
                    dir.xdelta3_ok(&[&["-d", "-c"], source, &["delta"]].concat()).stdout,
                    target,
                    "{form:?}"
                );
            }
        }
    }
}

#[test]
fn decodes_what_xdelta3_wrote() {
    if !have_xdelta3() {
        return;
    }
    let (dir, _, target) = Dir::with_pair(32, 200_000);
    for form in ["none", "lzma", "djw", "fgk"] {
        dir.xdelta3_ok(&["-e", "-f", "-S", form, "-W", "16384", "-s", "base", "target", "delta"]);
        dir.ours_ok(&["-d", "-f", "-s", "base", "delta", "out"]);
        assert_eq!(dir.read("out"), target, "{form}");
    }
}

#[test]
fn empty_files() {
    let dir = Dir::new();
    dir.write("empty", b"");
    dir.write("full", b"something");
    for (source, target) in [("empty", "full"), ("full", "empty"), ("empty", "empty")] {
        dir.ours_ok(&["-e", "-f", "-s", source, target, "delta"]);
        dir.ours_ok(&["-d", "-f", "-s", source, "delta", "out"]);
        assert_eq!(dir.read("out"), dir.read(target));
        if have_xdelta3() {
            dir.xdelta3_ok(&["-d", "-f", "-s", source, "delta", "out"]);
            assert_eq!(dir.read("out"), dir.read(target));
        }
    }
}

#[test]
fn compressed_files_are_recognised() {
    let (dir, _, target) = Dir::with_pair(33, 150_000);
    for (program, suffix) in
        [("gzip", "gz"), ("bzip2", "bz2"), ("xz", "xz"), ("zstd", "zst"), ("lzop", "lzo")]
    {
        for file in ["base", "target"] {
            let status = Command::new(program).args(["-k", "-q", file]).current_dir(dir.path()).status();
            assert!(status.unwrap().success(), "{program}");
        }
        let (base, packed) = (format!("base.{suffix}"), format!("target.{suffix}"));
        dir.ours_ok(&["-e", "-f", "-s", &base, &packed, "delta"]);
        // Compressed again as the target was, unless -R.
        dir.ours_ok(&["-d", "-f", "-s", &base, "delta", "out"]);
        let unpacked =
            Command::new(program).arg("-dc").stdin(fs::File::open(dir.path().join("out")).unwrap()).output();
        assert_eq!(unpacked.unwrap().stdout, target, "{program}");
        dir.ours_ok(&["-d", "-f", "-R", "-s", "base", "delta", "out"]);
        assert_eq!(dir.read("out"), target, "{program}");
        // As they are with -D.
        dir.ours_ok(&["-e", "-f", "-D", "-s", &base, &packed, "delta"]);
        dir.ours_ok(&["-d", "-f", "-D", "-s", &base, "delta", "out"]);
        assert_eq!(dir.read("out"), dir.read(&packed), "{program}");
    }
    // A delta may be compressed, too.
    dir.ours_ok(&["-e", "-f", "-s", "base", "target", "delta"]);
    Command::new("zstd").args(["-q", "delta"]).current_dir(dir.path()).status().unwrap();
    assert_eq!(dir.ours_ok(&["-d", "-c", "-s", "base", "delta.zst"]).stdout, target);
}

/// The rows of a table of xdelta3's exit codes; where xdelta3 passes damage over in silence, we do not.
#[test]
fn failures_are_failures() {
    let (dir, base, target) = Dir::with_pair(34, 100_000);
    dir.ours_ok(&["-e", "-W", "16384", "-S", "none", "-s", "base", "target", "delta"]);
    let delta = dir.read("delta");
    let decode_fails = |delta: &[u8]| {
        dir.write("damaged", delta);
        let message = dir.ours_fails(&["-d", "-q", "-s", "base", "damaged", "out"]);
        assert!(!dir.path().join("out").exists(), "an incomplete output is left");
        message
    };
    let mut boundary = Reader::new(&delta[..], Limits::default()).unwrap();
    boundary.next_item().unwrap();
    let boundary = boundary.offset() as usize;
    assert!(decode_fails(&delta[..boundary]).contains("truncated"));
    assert!(decode_fails(&delta[..boundary + 9]).contains("truncated"));
    assert!(decode_fails(&delta[..3]).contains("truncated"));
    assert!(decode_fails(b"").contains("not a VCDIFF delta"));
    assert!(decode_fails(b"something else").contains("not a VCDIFF delta"));
    assert!(decode_fails(&[&delta[..], b"x"].concat()).contains("bytes follow the end record"));
    let no_window = write_header(None, None);
    assert!(decode_fails(&no_window).contains("nothing to output"));

    let mut other = base.clone();
    other.iter_mut().step_by(100).for_each(|b| *b ^= 1);
    dir.write("other", &other);
    assert!(dir.ours_fails(&["-d", "-c", "-s", "other", "delta"]).contains("checksum"));
    dir.write("other", &base[..5000]);
    assert!(dir.ours_fails(&["-d", "-c", "-s", "other", "delta"]).contains("base"));
    assert!(dir.ours_fails(&["-d", "-c", "-s", "missing", "delta"]).contains("missing"));
    assert!(dir.ours_fails(&["-d", "-q", "-c", "-s", "base", "missing"]).contains("missing"));
    assert!(dir.ours_fails(&["-e", "-q", "-s", "missing", "target"]).contains("missing"));

    dir.write("out", b"precious");
    assert!(dir.ours_fails(&["-d", "-s", "base", "delta", "out"]).contains("-f"));
    assert_eq!(dir.read("out"), b"precious");
    dir.write("other", &target);
    dir.ours_fails(&["-d", "-f", "-s", "other", "delta", "out"]);
    assert_eq!(dir.read("out"), b"precious", "a wrong source cost a file");
    for output in ["base", "delta", "./base"] {
        assert!(
            dir.ours_fails(&["-d", "-f", "-s", "base", "delta", output]).contains("is the file that is read")
        );
    }
    assert_eq!((dir.read("base"), dir.read("delta")), (base.clone(), delta.clone()));
    assert!(dir.ours_fails(&["-e", "-s", "base", "-s", "base", "target"]).contains("only one source"));
    assert!(dir.ours_fails(&["-S", "xyz", "-c", "target"]).contains("xyz"));
    assert!(dir.ours_fails(&["-h"]).contains("usage"));
    assert!(dir.ours_ok(&["-V"]).status.success());
    if std::path::Path::new("/dev/full").exists() {
        assert!(dir.ours_fails(&["-d", "-f", "-s", "base", "delta", "/dev/full"]).contains("space"));
    }

    // Nothing is written with -J, but everything is checked.
    dir.ours_ok(&["-d", "-J", "-s", "base", "delta", "nowhere"]);
    assert!(!dir.path().join("nowhere").exists());
    dir.ours_fails(&["-d", "-J", "-s", "other", "delta", "nowhere"]);
    assert_eq!(decode(&delta, &base).unwrap(), target);
}

/// A delta cannot make us open or write a file of its choosing.
#[test]
fn names_in_the_header_are_only_used_on_request() {
    let (dir, _, target) = Dir::with_pair(35, 50_000);
    dir.ours_ok(&["-e", "-s", "base", "target", "delta"]);
    fs::remove_file(dir.path().join("target")).unwrap();
    let message = dir.ours_fails(&["-d", "delta"]);
    assert!(message.contains("target") && message.contains("-H"), "{message}");
    let message = dir.ours_fails(&["-d", "-c", "delta"]);
    assert!(message.contains("base") && message.contains("-s"), "{message}");
    assert!(!dir.path().join("target").exists());
    dir.ours_ok(&["-d", "-H", "delta"]);
    assert_eq!(dir.read("target"), target);
    let mut command = Command::new(env!("CARGO_BIN_EXE_pve-xdelta3"));
    command.args(["-d", "-f", "delta"]).current_dir(dir.path()).env("XDELTA", "-q -H");
    assert!(command.status().unwrap().success());

    // Not even on request outside the delta's directory.
    fs::create_dir(dir.path().join("sub")).unwrap();
    dir.ours_ok(&["-e", "-A=..//..//", "target", "sub/delta"]);
    dir.ours_fails(&["-d", "-H", "sub/delta"]);
}

/// What is printed is what xdelta3 prints, but for the compressor of a delta that has none (xdelta3 prints
/// its own default there).
#[test]
fn prints_what_xdelta3_prints() {
    if !have_xdelta3() {
        return;
    }
    let (dir, ..) = Dir::with_pair(36, 100_000);
    let lines = |bytes: Vec<u8>| -> Vec<String> {
        let text = String::from_utf8(bytes).unwrap();
        text.lines().filter(|l| !l.starts_with("VCDIFF secondary compressor")).map(str::to_owned).collect()
    };
    // Names with all that is no control character, and headers of any number of parts.
    const NAME: &str = "\u{e4}'b\"c\\d \u{2603}";
    dir.write(NAME, &dir.read("target"));
    let headers = ["/", "//", "///", "/x", "foo/", "foo//", "//bar/", "foo//-/", "-//-/", "a/b/c/d/e"];
    let headers = headers.map(|text| format!("-A={text}"));
    let headers = headers.iter().map(|text| [text.as_str(), "target"]);
    let forms = [
        &["-S", "none", "target"][..],
        &["-S", "lzma", "target"],
        &["-S", "djw", "target"],
        &["-n", "-A", "target"],
        &["-A=text", "-S", "fgk", "target"],
        &[NAME],
    ];
    let headers: Vec<_> = headers.collect();
    for form in forms.into_iter().chain(headers.iter().map(|form| &form[..])) {
        dir.xdelta3_ok(&[&["-e", "-f", "-W", "16384", "-s", "base"], form, &["delta"]].concat());
        for command in
            [&["printhdr"][..], &["printhdr", "-c"], &["printhdrs"], &["printdelta"], &["printdelta", "-v"]]
        {
            let args = [command, &["delta"]].concat();
            let (ours, theirs) = (dir.ours_ok(&args).stdout, dir.xdelta3_ok(&args).stdout);
            assert_eq!(lines(ours), lines(theirs), "{form:?} {command:?}");
        }
    }
}

#[test]
fn recode_changes_what_it_is_told() {
    let have_xdelta3 = have_xdelta3();
    let (dir, _, target) = Dir::with_pair(37, 100_000);
    let has = |line: &str, what: &str| {
        let text = String::from_utf8(dir.ours_ok(&["printhdr", "recoded"]).stdout).unwrap();
        text.lines().any(|l| l.starts_with(line) && l.contains(what))
    };
    for first in [&["-S", "none"][..], &["-S", "djw"], &["-S", "lzma"], &["-n", "-A=first"]] {
        dir.ours_ok(&[&["-e", "-f", "-s", "base"], first, &["target", "delta"]].concat());
        for second in ["none", "djw", "lzma", "fgk"] {
            dir.ours_ok(&["recode", "-f", "-S", second, "-A=second", "delta", "recoded"]);
            assert_eq!(has("VCDIFF header indicator", "VCD_SECONDARY"), second != "none");
            assert!(has("VCDIFF application header", "second"));
            assert_eq!(has("VCDIFF window indicator", "VCD_ADLER32"), !first.contains(&"-n"));
            assert_eq!(dir.ours_ok(&["-d", "-c", "-s", "base", "recoded"]).stdout, target);
            if have_xdelta3 {
                assert_eq!(dir.xdelta3_ok(&["-d", "-c", "-s", "base", "recoded"]).stdout, target);
            }
        }
        dir.ours_ok(&["recode", "-f", "-n", "-A=", "-S=", "delta", "recoded"]);
        assert!(has("VCDIFF header indicator", "none") && !has("VCDIFF window indicator", "VCD_ADLER32"));
    }
    let delta = dir.read("delta");
    dir.write("cut", &delta[..delta.len() / 2]);
    dir.ours_fails(&["recode", "cut", "not-made"]);
    assert!(!dir.path().join("not-made").exists());
}

#[test]
fn merge_joins_a_chain() {
    let (dir, _, second) = Dir::with_pair(38, 100_000);
    let mut third = second.clone();
    third.splice(5000..9000, b"something new".repeat(20));
    third.extend_from_slice(&second[..30_000]);
    let fourth: Vec<u8> = third.chunks(9000).rev().flatten().copied().collect();
    dir.write("third", &third);
    dir.write("fourth", &fourth);
    let have_xdelta3 = have_xdelta3();
    for theirs in [false, true] {
        for (source, target, delta) in
            [("base", "target", "1"), ("target", "third", "2"), ("third", "fourth", "3")]
        {
            let args = ["-e", "-f", "-s", source, target, delta];
            if theirs && have_xdelta3 {
                dir.xdelta3_ok(&args)
            } else {
                dir.ours_ok(&args)
            };
        }
        dir.ours_ok(&["merge", "-f", "-m", "1", "-m", "2", "3", "merged"]);
        assert_eq!(dir.ours_ok(&["-d", "-c", "-s", "base", "merged"]).stdout, fourth);
        if have_xdelta3 {
            assert_eq!(dir.xdelta3_ok(&["-d", "-c", "-s", "base", "merged"]).stdout, fourth);
        }
    }
    // In the wrong order they do not fit: an error or, where the lengths happen to, a failing checksum later.
    if dir.ours(&["merge", "-f", "-m", "3", "1", "merged"]).status.success() {
        dir.ours_fails(&["-d", "-c", "-s", "third", "merged"]);
    }
}

#[test]
fn command_words_and_streams() {
    let (dir, _, target) = Dir::with_pair(39, 20_000);
    let pipe = |args: &str, input: &str, output: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pve-xdelta3"));
        command.args(args.split_whitespace()).current_dir(dir.path());
        command.stdin(fs::File::open(dir.path().join(input)).unwrap());
        command.stdout(fs::File::create(dir.path().join(output)).unwrap());
        assert!(command.status().unwrap().success(), "{args}");
    };
    for (encode, decode) in
        [("-A", "-d"), ("-A= encode", "decode"), ("-A -q encode -s base", "-qdqs base"), ("-e -A", "-d -c")]
    {
        pipe(encode, "target", "delta");
        pipe(decode, "delta", "out");
        assert_eq!(dir.read("out"), target, "{encode}");
    }
    assert!(dir.ours_ok(&["test"]).status.success());
    assert!(dir.ours_ok(&["config"]).status.success());
}
