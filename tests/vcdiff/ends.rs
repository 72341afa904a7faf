//! How a run of the command line ends where something goes wrong: what is kept, what is told.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pve_diff_backup::vcdiff::*;

use crate::tools::*;

fn dir_with_pair(seed: u64, len: usize) -> (Dir, Vec<u8>, Vec<u8>) {
    let (base, target) = pair(seed, len);
    let dir = Dir::new();
    dir.write("base", &base);
    dir.write("target", &target);
    (dir, base, target)
}

fn sh(dir: &Dir, line: &str) {
    assert!(
        Command::new("sh").args(["-c", line]).current_dir(dir.path()).status().unwrap().success(),
        "{line}"
    );
}

/// A source that cannot be read as a whole makes no delta, not even on standard output.
#[test]
fn a_damaged_source_makes_no_delta() {
    let (dir, base, _) = dir_with_pair(71, 400_000);
    sh(&dir, "gzip -k base; xz -k -0 base; bzip2 -k base; lzop -q -k base; zstd -q -k base");
    for form in ["gz", "xz", "bz2", "lzo", "zst"] {
        let packed = dir.read(&format!("base.{form}"));
        let mut flipped = packed.clone();
        flipped[packed.len() * 3 / 4] ^= 0x55;
        for (what, bytes) in [("cut", &packed[..packed.len() * 3 / 4]), ("flipped", &flipped)] {
            dir.write("source", bytes);
            let message = dir.ours_fails(&["-e", "-q", "-s", "source", "target", "delta"]);
            assert!(message.contains("source") && !message.contains("backup"), "{form} {what}: {message}");
            assert!(!dir.path().join("delta").exists(), "{form} {what}");
            let output = dir.ours(&["-e", "-q", "-c", "-s", "source", "target"]);
            assert!(!output.status.success());
            assert!(
                decode(&output.stdout, &base).is_err(),
                "{form} {what}: what was written passes for a delta"
            );
        }
    }
}

/// Padding as `lzop -d` takes it; `gzip` and `bzip2` are compared with xdelta3 in the table of options.
#[test]
fn a_padded_lzop_file_is_whole() {
    let (dir, _, target) = dir_with_pair(72, 300_000);
    sh(&dir, "lzop -q -k base; cp base.lzo padded; head -c 5000 /dev/zero >>padded");
    dir.ours_ok(&["-e", "-s", "padded", "target", "delta"]);
    assert!(dir.ours_ok(&["-d", "-c", "-s", "padded", "delta"]).stdout == target);
    sh(&dir, "echo x >>padded");
    assert!(dir.ours_fails(&["-d", "-c", "-s", "padded", "delta"]).contains("other data appended"));
    sh(&dir, "gzip -k base; cp base.gz garbage; printf 'x%01000d' 0 >>garbage");
    let offset = dir.read("base.gz").len();
    let message = dir.ours_fails(&["-d", "-c", "-s", "garbage", "delta"]);
    assert!(
        message.contains(&format!("garbage behind the compressed data, at offset {offset}")),
        "{message}"
    );
}

#[test]
fn who_encodes_a_compressed_file_is_told() {
    let (dir, ..) = dir_with_pair(73, 50_000);
    sh(&dir, "gzip -k target; zstd -q -k target; lzop -q -k target");
    for (packed, kind) in [("target.gz", "gzip"), ("target.zst", "zstd"), ("target.lzo", "lzop")] {
        let told = |options: &[&str]| {
            let output = dir.ours_ok(&[&["-e", "-f", "-s", "base"], options, &[packed, "delta"]].concat());
            String::from_utf8(output.stderr).unwrap()
        };
        let warning = told(&[]);
        assert!(
            warning.contains("WARNING") && warning.contains(packed) && warning.contains(kind),
            "{warning}"
        );
        assert_eq!(told(&["-q"]), "");
        assert_eq!(told(&["-D"]), "");
    }
    assert!(dir.ours_ok(&["-e", "-f", "-s", "base", "target", "delta"]).stderr.is_empty());
}

/// xdelta3's own tools take what we write, as far as they can.
#[test]
fn xdelta3_recodes_and_merges_our_deltas() {
    if !have_xdelta3() {
        return;
    }
    let (dir, base, target) = dir_with_pair(74, 100_000);
    let third = [&target[..], b"and more"].concat();
    dir.write("third", &third);
    for form in [&["-S", "none"][..], &["-S", "lzma", "-W", "16384"], &["-n"]] {
        dir.ours_ok(&[&["-e", "-f", "-s", "base"], form, &["target", "delta"]].concat());
        for second in ["none", "djw", "lzma"] {
            dir.xdelta3_ok(&["recode", "-f", "-S", second, "delta", "recoded"]);
            assert!(
                dir.xdelta3_ok(&["-d", "-c", "-s", "base", "recoded"]).stdout == target,
                "{form:?} {second}"
            );
            assert!(
                dir.ours_ok(&["-d", "-c", "-s", "base", "recoded"]).stdout == target,
                "{form:?} {second}"
            );
        }
    }
    // Without a header there is no end record, and xdelta3 can merge.
    dir.ours_ok(&["-e", "-A=", "-s", "base", "target", "1"]);
    dir.ours_ok(&["-e", "-s", "target", "third", "announced"]);
    dir.ours_ok(&["recode", "-A=", "announced", "2"]);
    dir.ours_ok(&["merge", "-A=", "-m", "1", "2", "ours"]);
    dir.xdelta3_ok(&["merge", "-m", "1", "2", "merged"]);
    for delta in ["1", "2", "ours"] {
        let bytes = dir.read(delta);
        let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
        while let Some(item) = reader.next_item().unwrap() {
            assert!(matches!(item, Item::Window(_)), "{delta} has an end record");
        }
    }
    for delta in ["merged", "ours"] {
        assert!(decode(&dir.read(delta), &base).unwrap() == third);
    }
}

#[test]
fn errors_name_what_they_are_about() {
    let (dir, ..) = dir_with_pair(75, 50_000);
    dir.ours_ok(&["-e", "-s", "base", "target", "delta"]);
    let delta = dir.read("delta");
    dir.write("cut", &delta[..delta.len() - 9]);
    let once = |args: &[&str], parts: &[&str]| {
        let message = dir.ours_fails(args);
        for part in parts {
            assert_eq!(message.matches(part).count(), 1, "{part}: {message}");
        }
        assert!(!message.contains("full backup"), "{message}");
    };
    once(&["-d", "-c", "-s", "nope", "delta"], &["the source nope", "is missing"]);
    once(&["-e", "-c", "-s", "nope", "target"], &["the source nope", "is missing"]);
    once(&["-d", "-c", "-s", "base", "nope"], &["nope", "No such file"]);
    once(&["-d", "-s", "base", "delta", "no/where"], &["no/where", "No such file"]);
    once(&["merge", "-m", "nope", "delta", "out"], &["nope", "No such file"]);
    once(&["-d", "-c", "-s", "base", "cut"], &["cannot decode cut with the source base", "truncated"]);
    once(&["-d", "-c", "-s", "target", "delta"], &["cannot decode delta with the source target", "checksum"]);
    once(&["printhdr", "base"], &["base", "not a VCDIFF delta"]);
    once(&["recode", "base", "out"], &["base: not a VCDIFF delta"]);
    once(&["-d", "-f", "-s", "base", "delta", "/dev/full"], &["/dev/full", "No space"]);
    once(&["-e", "-f", "-s", "base", "target", "/dev/full"], &["/dev/full", "No space"]);

    // Where no end record was, something behind the last window is read as a window.
    dir.ours_ok(&["-e", "-A=", "-S", "none", "-s", "base", "target", "long"]);
    dir.write("long", &[&dir.read("long")[..], b"\x02\x04garbage"].concat());
    once(&["-d", "-c", "-s", "base", "long"], &["bytes behind the last window", "VCD_TARGET"]);
}

/// Nothing commands a terminal, and what is no text is seen to be none.
#[test]
fn control_characters_are_escaped_in_print() {
    let (dir, ..) = dir_with_pair(76, 20_000);
    let header = b"a\x1b[31m\xc2\x9b\xff\xc3\xa4'/".to_vec();
    let end = TargetHasher::new().finish().encode();
    dir.write("delta", &[write_header(Some(&header), None), end].concat());
    let text = String::from_utf8(dir.ours_ok(&["printhdr", "delta"]).stdout).unwrap();
    assert!(text.contains("XDELTA filename (output):     a\\x1b[31m\\xc2\\x9b\\xff\\xc3\\xa4'\n"), "{text}");
}

/// An unfinished output goes; a link to it stays.
#[test]
fn an_output_behind_a_link_is_removed_itself() {
    let (dir, _, target) = dir_with_pair(77, 300_000);
    dir.ours_ok(&["-e", "-S", "none", "-W", "16384", "-s", "base", "target", "delta"]);
    let delta = dir.read("delta");
    dir.write("cut", &delta[..delta.len() - 5]);
    let [keep, link] = ["keep", "link"].map(|name| dir.path().join(name));
    symlink("keep", &link).unwrap();
    // Whether it was there before or not.
    for before in [Some(b"something"), None] {
        if let Some(bytes) = before {
            fs::write(&keep, bytes).unwrap();
        }
        dir.ours_fails(&["-d", "-f", "-s", "base", "cut", "link"]);
        assert!(!keep.exists() && link.is_symlink());
    }
    dir.ours_ok(&["-d", "-f", "-s", "base", "delta", "link"]);
    assert!(fs::read(&keep).unwrap() == target && link.is_symlink());
}

/// So it does where a signal ends the program, and not where that signal was to be ignored.
#[test]
fn an_interrupted_output_is_removed() {
    let (dir, _, target) = dir_with_pair(78, 100_000);
    let program = env!("CARGO_BIN_EXE_pve-xdelta3");
    let out = dir.path().join("out");
    let (first, rest) = target.split_at(50_000);
    let start = |line: &str| -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{line} {program} -e -f -W 16384 /dev/stdin out")]);
        let mut child = command.current_dir(dir.path()).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(first).unwrap();
        // The first windows are written, the rest waits for the input.
        let begun = Instant::now();
        while fs::metadata(&out).map_or(0, |m| m.len()) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    };
    let kill = |child: &Child, signal: &str| {
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    };
    for (signal, number) in [("-HUP", 1), ("-INT", 2), ("-TERM", 15)] {
        // Also where the tests were started with nohup.
        let mut child = start("exec env --default-signal=HUP,INT,TERM");
        // Held open: to wait for the child would close it, and let the program come to its end.
        let input = child.stdin.take();
        kill(&child, signal);
        let status = child.wait().unwrap();
        drop(input);
        assert_eq!(status.signal(), Some(number), "{status}");
        assert!(!out.exists(), "{signal}");
    }
    let mut child = start("trap '' HUP; exec");
    kill(&child, "-HUP");
    child.stdin.take().unwrap().write_all(rest).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(decode(&dir.read("out"), b"").unwrap() == target);
}

/// Messages that nobody takes cost nothing but themselves.
#[test]
fn a_message_that_cannot_be_written_ends_nothing() {
    let (dir, _, target) = dir_with_pair(79, 50_000);
    dir.ours_ok(&["-e", "-s", "base", "target", "delta"]);
    let program = env!("CARGO_BIN_EXE_pve-xdelta3");
    let status = |line: &str| {
        let line = line.replace("P ", &format!("{program} "));
        Command::new("sh").args(["-c", &line]).current_dir(dir.path()).status().unwrap().code()
    };
    assert_eq!(status("P test 2>/dev/full"), Some(0));
    assert_eq!(status("P -d -v -f -s base delta out 2>/dev/full"), Some(0));
    assert!(dir.read("out") == target);
    status("(sleep .2; P -d nope 2>&1; echo $? >rc) | true; sleep 1");
    assert_eq!(dir.read("rc"), b"1\n");
}

/// An empty target has one window where it has no end record, and each decoder gives nothing for it.
#[test]
fn a_delta_of_an_empty_file_decodes_everywhere() {
    let (dir, base, _) = dir_with_pair(80, 20_000);
    dir.write("empty", b"");
    let decodes = |delta: &str, source: &[&str], target: &[u8]| {
        let args = [&["-d", "-q", "-c"], source, &[delta]].concat();
        assert!(dir.ours_ok(&args).stdout == target, "{delta} {source:?}");
        assert!(dir.xdelta3_ok(&args).stdout == target, "{delta} {source:?}");
    };
    let from_base = &["-s", "base"][..];
    for (options, source) in [
        (&["-A="][..], &[][..]),
        (&["-A="], from_base),
        (&["-A="], &["-s", "empty"]),
        (&["-A=", "-n"], from_base),
        (&["-A=", "-S", "djw"], from_base),
        (&["-A=", "-W", "16384"], from_base),
        (&["-A", "text"], from_base),
        (&[], from_base),
    ] {
        dir.ours_ok(&[&["-e", "-f"], options, source, &["empty", "delta"]].concat());
        decodes("delta", source, b"");
        for again in [&["-A="][..], &["-A=", "-n"], &["-A=", "-S", "none"], &[]] {
            dir.ours_ok(&[&["recode", "-f"], again, &["delta", "recoded"]].concat());
            decodes("recoded", source, b"");
        }
    }
    // In the middle of a chain, and at its end.
    dir.ours_ok(&["-e", "-A=", "-s", "base", "empty", "first"]);
    dir.ours_ok(&["-e", "-A=", "-s", "empty", "base", "second"]);
    dir.ours_ok(&["merge", "-m", "first", "second", "merged"]);
    decodes("merged", from_base, &base);
    dir.ours_ok(&["-e", "-s", "base", "empty", "ended"]);
    for options in [&["-A="][..], &["-A=", "-n"], &[]] {
        dir.ours_ok(&[&["merge", "-f"], options, &["-m", "second", "ended", "merged"]].concat());
        decodes("merged", &["-s", "empty"], b"");
    }
}

/// A compressed target is taken apart only where nothing of it is lost; a source may have a tail.
#[test]
fn nothing_behind_a_compressed_target_is_lost() {
    let (dir, _, target) = dir_with_pair(81, 30_000);
    let note = b"\x53\x2a\x4d\x18\x04\0\0\0note";
    for (kind, program) in [
        ("gzip", "gzip -c"),
        ("bzip2", "bzip2 -c"),
        ("xz", "xz -c"),
        ("lzop", "lzop -c"),
        ("zstd", "zstd -qc"),
        ("compress", "compress -c"),
    ] {
        if kind == "compress" {
            // The program is rare; our own writer is behind -d of what it once encoded.
            dir.write("packed", &[&[0x1f, 0x9d, 0x90][..], &[b'a', 0xc4, 0x8c, 1]].concat());
        } else {
            sh(&dir, &format!("{program} target >packed"));
        }
        let packed = dir.read("packed");
        // As it is, and with another one behind it, it is decompressed.
        let twice = if kind == "compress" { packed.clone() } else { packed.repeat(2) };
        for bytes in [&packed, &twice] {
            dir.write("whole", bytes);
            dir.ours_ok(&["-e", "-q", "-f", "-s", "base", "whole", "delta"]);
            let content = dir.ours_ok(&["-d", "-R", "-c", "-s", "base", "delta"]).stdout;
            let times = bytes.len() / packed.len();
            assert!(kind == "compress" || content == target.repeat(times), "{kind}");
            assert!(kind != "compress" || content == b"abc", "{kind}: {content:?}");
        }
        let mut behind = vec![&b"a tail that matters"[..], b"\n", &[0; 3000], note, &packed[..5]];
        if kind == "compress" {
            // Without an end mark all of these are data, but for what is too short to be.
            behind = vec![b"\n"];
        }
        for tail in behind {
            dir.write("tailed", &[&packed[..], tail].concat());
            let message = dir.ours_fails(&["-e", "-q", "-f", "-s", "base", "tailed", "delta"]);
            assert!(message.contains("tailed") && message.contains("-D"), "{kind} {tail:?}: {message}");
            assert!(!dir.path().join("delta").exists(), "{kind} {tail:?}");
            dir.ours_ok(&["-e", "-D", "-f", "-s", "base", "tailed", "delta"]);
            let args = ["-d", "-c", "-s", "base", "delta"];
            assert!(dir.ours_ok(&args).stdout == dir.read("tailed"), "{kind} {tail:?}");
            fs::remove_file(dir.path().join("delta")).unwrap();
        }
        // Nor behind the first part: from a pipe, too.
        if kind != "compress" {
            let parts = [&packed[..], if kind == "zstd" { note } else { &[0; 8] }, &packed];
            dir.write("tailed", &parts.concat());
            sh(
                &dir,
                &format!("! {} -e -q -c -s base <tailed >delta 2>message", env!("CARGO_BIN_EXE_pve-xdelta3")),
            );
            let message = String::from_utf8(dir.read("message")).unwrap();
            assert!(message.contains("standard input") && message.contains("-D"), "{kind}: {message}");
            fs::remove_file(dir.path().join("delta")).unwrap();
        }
    }
    // What is made from the content may go: a map.
    sh(&dir, &format!("{} full <target >full.zst", env!("CARGO_BIN_EXE_pve-xdelta3")));
    dir.ours_ok(&["-e", "-q", "-s", "base", "full.zst", "delta"]);
    assert!(dir.ours_ok(&["-d", "-R", "-c", "-s", "base", "delta"]).stdout == target);
}
