//! Round trips with the xdelta3 program, in both directions.

use pve_diff_backup::vcdiff::*;

use crate::tools::*;

/// What xdelta3 writes, we read.
#[test]
fn reads_every_form_xdelta3_writes() {
    if !have_xdelta3() {
        return;
    }
    let forms: &[&[&str]] = &[
        &["-S", "none"],
        &["-S", "lzma"],
        &["-S", "lzma", "-9"],
        &["-S", "djw"],
        &["-S", "djw1"],
        &["-S", "djw9"],
        &["-S", "djw", "-W", "16384"],
        &["-S", "fgk"],
        &["-S", "fgk", "-W", "16384"],
        &["-S", "none", "-n"],
        &["-S", "none", "-A"],
        &["-S", "none", "-Afree text"],
        &["-S", "none", "-9"],
        &["-S", "none", "-1"],
        &["-S", "none", "-0"],
        &["-S", "none", "-W", "16384"],
        &["-S", "lzma", "-W", "16384"],
        &["-S", "none", "-W", "16777216"],
    ];
    let dir = Dir::new();
    for (seed, len) in [(1, 0), (2, 1), (3, 13), (4, 1000), (5, 65_537), (6, 300_001)] {
        let (base, target) = pair(seed, len);
        for (base, target) in [(&base, &target), (&Vec::new(), &target), (&base, &Vec::new())] {
            dir.write("base", base);
            dir.write("target", target);
            for form in forms {
                let args = [&["-e", "-f", "-q", "-s", "base"], *form, &["target", "delta"]].concat();
                dir.xdelta3_ok(&args);
                let decoded = decode(&dir.read("delta"), base);
                assert!(
                    decoded.as_ref().is_ok_and(|d| d == target),
                    "{form:?} of {len}: {:?}",
                    decoded.err()
                );
            }
            dir.xdelta3_ok(&["-e", "-f", "-q", "-S", "none", "target", "delta"]);
            assert_eq!(&decode(&dir.read("delta"), b"").unwrap(), target);
        }
    }
}

/// What we write, xdelta3 reads, and so do we.
#[test]
fn xdelta3_reads_every_form_we_write() {
    let full = AppHeader {
        target_name: b"target".to_vec(),
        base_name: b"base".to_vec(),
        base_len: Some(7),
        base_identity: Some([7; 16]),
        end_record: true,
        ..AppHeader::default()
    };
    let forms = [
        Encode::default(),
        Encode { adler: false, end: true, ..Encode::default() },
        Encode { window: 777, end: true, ..Encode::default() },
        Encode { secondary: Some((Secondary::Lzma, 1)), end: true, window: 4096, ..Encode::default() },
        Encode { secondary: Some((Secondary::Lzma, 9)), ..Encode::default() },
        Encode { secondary: Some((Secondary::Djw, 9)), end: true, ..Encode::default() },
        Encode { secondary: Some((Secondary::Djw, 1)), window: 4096, ..Encode::default() },
        Encode { secondary: Some((Secondary::Fgk, 0)), end: true, ..Encode::default() },
        Encode { secondary: Some((Secondary::Fgk, 0)), window: 512, ..Encode::default() },
        Encode { app: Some(AppHeader::default()), ..Encode::default() },
        Encode { app: Some(full), end: true, ..Encode::default() },
    ];
    let have_xdelta3 = have_xdelta3();
    let dir = Dir::new();
    for (seed, len) in [(1, 0), (2, 1), (3, 13), (4, 1000), (5, 65_536), (6, 300_001)] {
        let (base, target) = pair(seed, len);
        dir.write("base", &base);
        for (n, form) in forms.iter().enumerate() {
            let delta = form.run(&base, &target);
            assert_eq!(decode(&delta, &base).unwrap(), target, "form {n} of {len}");
            if have_xdelta3 {
                dir.write("delta", &delta);
                // An empty target without a single window is an error for xdelta3.
                if delta.len() as u64 > Reader::new(&delta[..], Limits::default()).unwrap().header().len {
                    dir.xdelta3_ok(&["-d", "-f", "-s", "base", "delta", "out"]);
                    assert_eq!(dir.read("out"), target, "form {n} of {len}");
                }
            }
        }
    }
}

/// Our application header serves xdelta3 as its own does: without -s it finds the base beside the delta.
#[test]
fn xdelta3_takes_names_from_our_header() {
    if !have_xdelta3() {
        return;
    }
    let (base, target) = pair(9, 100_000);
    let app = AppHeader {
        target_name: b"restored".to_vec(),
        base_name: b"base".to_vec(),
        base_len: Some(base.len() as u64),
        base_identity: Some([0xab; 16]),
        end_record: true,
        ..AppHeader::default()
    };
    let dir = Dir::new();
    dir.write(
        "delta",
        &Encode { app: Some(app.clone()), end: true, ..Encode::default() }.run(&base, &target),
    );
    dir.write("base", &base);
    assert_eq!(dir.xdelta3_ok(&["-d", "-c", "delta"]).stdout, target);
    dir.xdelta3_ok(&["-d", "delta"]);
    assert_eq!(dir.read("restored"), target);
    dir.xdelta3_ok(&["-d", "-A", "-s", "base", "delta", "other"]);
    assert_eq!(dir.read("other"), target);

    // Any compressed form of the base will do, since the header names no compressor.
    std::process::Command::new("gzip").args(["-k", "base"]).current_dir(dir.path()).status().unwrap();
    assert_eq!(dir.xdelta3_ok(&["-d", "-c", "-s", "base.gz", "delta"]).stdout, target);

    // A delta that does not need a base.
    let alone = AppHeader { base_name: Vec::new(), base_len: None, base_identity: None, ..app };
    let delta = Encode { app: Some(alone), end: true, ..Encode::default() }.run(b"", &target);
    dir.write("delta", &delta);
    assert_eq!(dir.xdelta3_ok(&["-d", "-c", "delta"]).stdout, target);
}

#[test]
fn windows_of_16_mib() {
    let (base, mut target) = pair(11, 3_000_000);
    target = [&target[..], &base, &vec![7; 9_000_000], &target, &Random::new(5).bytes(500_000)].concat();
    let delta = Encode { window: MAX_WINDOW, end: true, ..Encode::default() }.run(&base, &target);
    assert_eq!(decode(&delta, &base).unwrap(), target);
    if have_xdelta3() {
        let dir = Dir::new();
        dir.write("base", &base);
        dir.write("delta", &delta);
        dir.xdelta3_ok(&["-d", "-s", "base", "delta", "out"]);
        assert!(dir.read("out") == target);
        dir.write("target", &target);
        for form in ["none", "lzma", "djw", "fgk"] {
            dir.xdelta3_ok(&["-e", "-f", "-S", form, "-W", "16777216", "-s", "base", "target", "theirs"]);
            assert!(decode(&dir.read("theirs"), &base).unwrap() == target);
        }
    }
}
