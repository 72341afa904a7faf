//! Full backups, differentials and restores through the real program, and against zstd, lzop, gzip, xz
//! and xdelta3.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pve_diff_backup::container::Compression;
use pve_diff_backup::container::source::Found;
use pve_diff_backup::matching::base::Base;
use pve_diff_backup::matching::restore::{Differential, Options};
use pve_diff_backup::matching::{differential, full};
use pve_diff_backup::vma::{Cluster, Config, Device, ExtentHeader, Header, Order, write_archive};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pve-xdelta3");
const OPTIONS: Options = Options { threads: 2, window: 64 << 20, check_base: true };

/// Random bytes that are the same every time (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]));
        bytes
    }
}

/// A disk: random, text, zeros.
fn disk(seed: u64, mib: usize) -> Vec<u8> {
    let mut r = Random(seed);
    let mut disk = Vec::with_capacity(mib << 20);
    for part in 0..mib * 4 {
        match part % 4 {
            0 | 1 => disk.extend(r.bytes(256 << 10)),
            2 => disk.extend(
                (0u64..).flat_map(|n| format!("line {} {part}\n", n * n).into_bytes()).take(256 << 10),
            ),
            _ => disk.extend(vec![0; 256 << 10]),
        }
    }
    disk
}

/// A day's work on a disk: bytes changed in place, blocks rewritten, a block moved, text shifted by a few bytes.
fn change(disk: &mut [u8], seed: u64) {
    let mut r = Random(seed);
    for _ in 0..20 {
        let at = r.below(disk.len() - 100);
        let new = r.bytes(50);
        disk[at..at + 50].copy_from_slice(&new);
    }
    let new = r.bytes(40_000);
    let at = r.below(disk.len() - new.len());
    disk[at..at + new.len()].copy_from_slice(&new);
    let (from, to) = (r.below(disk.len() / 4096) * 4096, r.below(disk.len() / 4096) * 4096);
    disk.copy_within(from..from + 4096, to);
    let at = r.below(disk.len() - 9000);
    disk.copy_within(at..at + 8000, at + 13);
}

fn vma(disks: &[&[u8]], order: Order, uuid: u8) -> Vec<u8> {
    let header = Header {
        uuid: [uuid; 16],
        ctime: 1_700_000_000 + i64::from(uuid),
        configs: vec![Config { name: "qemu-server.conf".into(), data: format!("memory: {uuid}\n").into() }],
        devices: disks
            .iter()
            .zip(1..)
            .map(|(d, id)| Device { id, name: format!("drive-scsi{}", id - 1), size: d.len() as u64 })
            .collect(),
    };
    let mut images: Vec<_> = disks.iter().map(Cursor::new).collect();
    write_archive(Vec::new(), header, &mut images, order).unwrap()
}

/// A VM's backups of two days.
fn vm() -> (Vec<u8>, Vec<u8>) {
    let (mut a, mut b) = (disk(1, 6), disk(2, 2));
    let full = vma(&[&a, &b], Order::Sequential, 1);
    change(&mut a, 3);
    change(&mut b, 4);
    (full, vma(&[&a, &b], Order::Parallel(3), 2))
}

/// Streams of no known format, of two days: changed, inserted, removed, moved.
fn bytes() -> (Vec<u8>, Vec<u8>) {
    let full = disk(7, 9);
    let mut day = full.clone();
    change(&mut day, 8);
    day.splice(1_000_001..1_000_001, Random(9).bytes(77_777));
    day.drain(3_000_000..3_100_003);
    let moved: Vec<u8> = day.drain(5_000_000..6_000_000).collect();
    day.extend(moved);
    (full, day)
}

fn run(args: &[&str], input: &[u8]) -> Output {
    pipe(Command::new(PROGRAM).args(args), input)
}

fn pipe(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|s| {
        // The program may end before it has read everything.
        s.spawn(move || {
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().unwrap()
    })
}

fn ok(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    output.stdout
}

/// Tells why not, where a program is not installed.
fn have(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn same(a: &[u8], b: &[u8], what: &str) {
    let at = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    assert!(a == b, "{what}: {} and {} bytes, equal up to {at}", a.len(), b.len());
}

#[test]
fn stock_programs_read_full_backups() {
    for (name, (full, _)) in [("vma", vm()), ("bytes", bytes()), ("empty", Default::default())] {
        for (how, program) in [("zstd", "zstd"), ("lzo", "lzop"), ("gzip", "gzip")] {
            for threads in ["1", "3"] {
                let packed = ok(run(&["full", "--compress", how, "--threads", threads], &full));
                if have(program) {
                    same(
                        &ok(pipe(Command::new(program).args(["-d", "-q", "-c"]), &packed)),
                        &full,
                        &format!("{name} {how}"),
                    );
                }
            }
        }
        same(&ok(run(&["full", "--compress", "none"], &full)), &full, name);
    }
}

#[test]
fn every_form_of_base_serves_and_xdelta3_restores_too() {
    let dir = Dir::new();
    for (name, (full, day)) in [("vma", vm()), ("bytes", bytes())] {
        let raw = dir.file("raw", &full);
        let mut bases = vec![("raw", full.clone())];
        for how in ["zstd", "lzo", "gzip"] {
            bases.push((how, ok(run(&["full", "--compress", how], &full))));
        }
        for program in ["zstd", "lzop", "gzip", "xz"] {
            if have(program) {
                bases.push((program, ok(pipe(Command::new(program).args(["-1", "-q", "-c"]), &full))));
            }
        }
        for (n, (form, base)) in bases.iter().enumerate() {
            let what = format!("{name}, base {n} {form}");
            let base = dir.file(&format!("base{n}"), base);
            let how = ["zstd", "lzo", "gzip", "none"][n % 4];
            let delta = ok(run(&["diff", "--base", text(&base), "--compress", how, "--threads", "2"], &day));
            assert!(delta.len() < day.len() / 15, "{what}: {} of {}", delta.len(), day.len());
            let delta = dir.file("delta", &delta);
            let restored = ok(run(&["restore", "--base", text(&base), text(&delta)], &[]));
            same(&restored, &day, &what);
            // Through a pipe, against another form of the same full.
            let restored = ok(run(&["restore", "--base", text(&raw), "-"], &fs::read(&delta).unwrap()));
            same(&restored, &day, &what);
            if have("xdelta3") {
                let mut plain = Vec::new();
                let (_, mut reader) =
                    pve_diff_backup::container::decoder(Box::new(fs::File::open(&delta).unwrap())).unwrap();
                reader.read_to_end(&mut plain).unwrap();
                let restored = ok(pipe(Command::new("xdelta3").args(["-d", "-c", "-s", text(&raw)]), &plain));
                same(&restored, &day, &format!("{what}, by xdelta3"));
            }
        }
    }
}

#[test]
fn deltas_of_xdelta3_are_restored_from_every_form_of_base() {
    if !have("xdelta3") {
        return;
    }
    let dir = Dir::new();
    let (full, day) = bytes();
    let raw = dir.file("full", &full);
    let day_file = dir.file("day", &day);
    for options in [&["-e"][..], &["-e", "-S", "none", "-9"], &["-e", "-S", "djw", "-n"], &["-e", "-A", "-1"]]
    {
        let delta = ok(pipe(
            Command::new("xdelta3").args(options).args(["-q", "-c", "-s", text(&raw), text(&day_file)]),
            &[],
        ));
        let delta = dir.file("delta", &delta);
        for how in ["zstd", "lzo", "gzip", "none"] {
            let base = dir.file("base", &ok(run(&["full", "--compress", how], &full)));
            let restored = ok(run(&["restore", "--base", text(&base), text(&delta)], &[]));
            same(&restored, &day, &format!("{options:?} {how}"));
        }
    }
}

#[test]
fn an_unchanged_vm_costs_next_to_nothing() {
    let dir = Dir::new();
    let (a, b) = (disk(1, 24), disk(2, 8));
    let full = ok(run(&["full"], &vma(&[&a, &b], Order::Sequential, 1)));
    let base = dir.file("full", &full);
    for order in [Order::Sequential, Order::Workers(5), Order::Parallel(6)] {
        let again = vma(&[&a, &b], order, 9);
        let delta = ok(run(&["diff", "--base", text(&base)], &again));
        assert!(delta.len() * 1000 < again.len(), "{order:?}: {} of {}", delta.len(), again.len());
    }
}

/// What a one-way base is read for must keep up with growth far beyond its window.
#[test]
fn a_disk_that_filled_up_still_matches_a_one_way_base() {
    if !have("zstd") {
        return;
    }
    let dir = Dir::new();
    let mut disk = Random(4).bytes(300 << 20);
    disk[100 << 20..250 << 20].fill(0);
    let full = vma(&[&disk], Order::Workers(1), 1);
    let base = dir.file("base", &ok(pipe(Command::new("zstd").args(["-1", "-q", "-c"]), &full)));
    let new = Random(5).bytes(150 << 20);
    disk[100 << 20..250 << 20].copy_from_slice(&new);
    let day = vma(&[&disk], Order::Workers(2), 2);
    let delta = ok(run(&["diff", "--base", text(&base)], &day));
    assert!(delta.len() < 152 << 20, "{}", delta.len());
    let delta = dir.file("delta", &delta);
    same(&ok(run(&["restore", "--base", text(&base), text(&delta)], &[])), &day, "filled up");
}

#[test]
fn a_larger_window_finds_changes_of_what_moved_further_in_a_one_way_base() {
    if !have("gzip") {
        return;
    }
    let dir = Dir::new();
    let full = Random(6).bytes(100 << 20);
    let base = dir.file("base", &ok(pipe(Command::new("gzip").args(["-1", "-c"]), &full)));
    let mut day = [&full[70 << 20..], &full[..70 << 20]].concat();
    day.iter_mut().step_by(1000).for_each(|byte| *byte ^= 1);
    for (window, limit) in [("64", 110 << 20), ("256", 2 << 20)] {
        let delta = ok(run(&["diff", "--base", text(&base), "--window", window], &day));
        assert!(delta.len() < limit, "{window}: {}", delta.len());
        assert_eq!(delta.len() > 20 << 20, window == "64");
        let delta = dir.file("delta", &delta);
        same(&ok(run(&["restore", "--base", text(&base), text(&delta)], &[])), &day, window);
    }
}

/// Files that were written anew lie anywhere: of a base that is read once, they are kept aside.
#[test]
fn what_moved_far_in_a_one_way_base_is_found_again() {
    if !have("gzip") || !have("xdelta3") {
        return;
    }
    let dir = Dir::new();
    let full = Random(8).bytes(120 << 20);
    let base = dir.file("base", &ok(pipe(Command::new("gzip").args(["-1", "-c"]), &full)));
    // Twice what lay at the front, once in parts and backwards, and what followed it.
    let parts: Vec<&[u8]> = full[1 << 20..3 << 20].chunks(100_000).rev().collect();
    let day = [&full[..], &full[..5 << 20], &parts.concat(), &full[60 << 20..70 << 20]].concat();
    let delta = ok(run(&["diff", "--base", text(&base)], &day));
    assert!(delta.len() < 1 << 20, "{}", delta.len());
    let delta_file = dir.file("delta", &delta);
    let args = ["restore", "--base", text(&base), text(&delta_file)];
    same(&ok(run(&args, &[])), &day, "from a file");
    same(&ok(run(&["restore", "--base", text(&base), "-"], &delta)), &day, "from a pipe");
    let mut stdin = Command::new(PROGRAM);
    let stdin =
        stdin.args(["restore", "--base", text(&base), "-"]).stdin(fs::File::open(&delta_file).unwrap());
    same(&ok(stdin.output().unwrap()), &day, "from standard input");
    // A smaller window than the encoder's: all of it comes from further back.
    same(&ok(run(&[&args[..], &["--window", "1"]].concat(), &[])), &day, "a small window");

    let raw = dir.file("raw", &full);
    let plain = dir.file("plain", &ok(pipe(Command::new("zstd").args(["-dcq"]), &delta)));
    let stock = Command::new("xdelta3").args(["-dcs", text(&raw), text(&plain)]).output().unwrap();
    same(&ok(stock), &day, "xdelta3");

    let nowhere = Command::new(PROGRAM).args(args).env("TMPDIR", dir.0.path().join("gone")).output().unwrap();
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(!nowhere.status.success() && said.contains("gone") && said.contains("set TMPDIR"), "{said}");
    assert!(day.starts_with(&nowhere.stdout));
}

/// A delta of another's making may go back and forth as it likes: the base is read a few times, not once for each jump.
/// As xdelta3 finds it, which looks at every byte.
#[test]
fn small_parts_in_another_order_are_found_in_a_small_base() {
    if !have("xdelta3") || !have("gzip") {
        return;
    }
    let dir = Dir::new();
    let full = Random(12).bytes(3_000_000);
    let mut parts: Vec<&[u8]> = full.chunks(700).collect();
    let mut r = Random(13);
    (1..parts.len()).rev().for_each(|n| parts.swap(n, r.below(n + 1)));
    let day = parts.concat();
    let raw = dir.file("raw", &full);
    let new = dir.file("new", &day);
    let gz = dir.file("gz", &ok(pipe(Command::new("gzip").args(["-1", "-c"]), &full)));
    let theirs = Command::new("xdelta3").args(["-ecq", "-S", "none", "-s", text(&raw), text(&new)]).output();
    let limit = ok(theirs.unwrap()).len() * 11 / 10;
    for base in [&raw, &gz] {
        let delta = ok(run(&["diff", "--compress", "none", "--base", text(base)], &day));
        assert!(delta.len() < limit, "{}: {}", base.display(), delta.len());
        let delta = dir.file("delta", &delta);
        same(&ok(run(&["restore", "--base", text(base), text(&delta)], &[])), &day, text(base));
    }
}

/// So many small changes that no piece of the stream is as it was.
#[test]
fn dense_changes_cost_what_changed() {
    if !have("zstd") {
        return;
    }
    let dir = Dir::new();
    let full = Random(10).bytes(40 << 20);
    let mut day = [&b"put in"[..], &full].concat();
    let mut r = Random(11);
    for at in (0..day.len() - 8).step_by(500) {
        let new = r.bytes(8);
        day[at..at + 8].copy_from_slice(&new);
    }
    let mapped = dir.file("mapped", &ok(run(&["full"], &full)));
    let stock = dir.file("stock", &ok(pipe(Command::new("zstd").args(["-1", "-q", "-c"]), &full)));
    let raw = dir.file("raw", &full);
    for base in [&mapped, &stock, &raw] {
        let delta = ok(run(&["diff", "--base", text(base)], &day));
        // Eight bytes each, and their place.
        assert!(delta.len() < day.len() / 500 * 16 + (1 << 20), "{}: {}", base.display(), delta.len());
        let delta = dir.file("delta", &delta);
        same(&ok(run(&["restore", "--base", text(base), text(&delta)], &[])), &day, text(base));
    }
}

/// A program that was built anew: it lies elsewhere on the disk, not at whole blocks of the old one, and every few
/// hundred bytes are others.
#[test]
fn a_file_that_was_written_anew_elsewhere_is_found() {
    let mut r = Random(31);
    let old = r.bytes(3 << 20);
    let mut new = [&r.bytes(100)[..], &old].concat();
    (0..new.len()).step_by(400).for_each(|at| new[at] ^= 1);
    let mut before = disk(32, 24);
    before[2 << 20..][..old.len()].copy_from_slice(&old);
    let mut after = before.clone();
    after[18 << 20..][..new.len()].copy_from_slice(&new);
    let day = vma(&[&after], Order::Workers(5), 2);
    let full = vma(&[&before], Order::Workers(4), 1);
    let dir = Dir::new();
    let mapped = dir.file("full.zst", &ok(run(&["full"], &full)));
    let raw = dir.file("full", &full);
    for base in [&mapped, &raw] {
        let delta = ok(run(&["diff", "--base", text(base)], &day));
        assert!(delta.len() < new.len() / 10, "{}: {}", base.display(), delta.len());
        let delta = dir.file("delta", &delta);
        same(&ok(run(&["restore", "--base", text(base), text(&delta)], &[])), &day, text(base));
    }
}

/// Damage of the base that shows while it is read makes no differential, whatever could be read of it.
#[test]
fn a_one_way_base_that_ends_too_early_makes_no_differential() {
    if !have("gzip") || !have("xz") {
        return;
    }
    let dir = Dir::new();
    let full = Random(41).bytes(6 << 20);
    for program in ["gzip", "xz"] {
        let mut base = ok(pipe(Command::new(program).args(["-1", "-c"]), &full));
        base.truncate(base.len() / 5 * 4);
        let base = dir.file("base", &base);
        let diff = run(&["diff", "--base", text(&base)], &full);
        let said = String::from_utf8_lossy(&diff.stderr);
        assert!(!diff.status.success() && said.contains("base is damaged"), "{program}: {said}");
        let delta = dir.file("delta", &diff.stdout);
        assert!(!run(&["restore", "--base", text(&base), text(&delta)], &[]).status.success(), "{program}");
    }
}

#[test]
fn odd_streams_survive() {
    let dir = Dir::new();
    let (full, day) = vm();
    let cut = &day[..day.len() - 70_000];
    let trailed = [&day[..], b"something behind the archive"].concat();
    let mut damaged = day.clone();
    damaged[5_000_000..5_000_900].fill(0x55);
    let tiny = b"x".to_vec();
    let cases: [(&str, &[u8]); 6] = [
        ("cut", cut),
        ("trailed", &trailed),
        ("damaged", &damaged),
        ("tiny", &tiny),
        ("empty", b""),
        ("header", &full[..12345]),
    ];
    for (base_name, base_content) in cases.iter().filter(|(name, _)| *name != "empty") {
        let base = dir.file("base", &ok(run(&["full"], base_content)));
        for (name, content) in cases {
            let delta = dir.file("delta", &ok(run(&["diff", "--base", text(&base)], content)));
            let restored = ok(run(&["restore", "--base", text(&base), text(&delta)], &[]));
            same(&restored, content, &format!("{name} against {base_name}"));
        }
    }
}

#[test]
fn the_wrong_base_is_refused_before_any_output() {
    let dir = Dir::new();
    let (full, day) = vm();
    let (other, _) = bytes();
    for how in ["zstd", "lzo", "gzip", "none"] {
        let good = ok(run(&["full", "--compress", how], &full));
        let base = dir.file("base", &good);
        let delta = dir.file("delta", &ok(run(&["diff", "--base", text(&base)], &day)));
        let again =
            ok(run(&["full", "--compress", how], &vma(&[&disk(1, 6), &disk(2, 2)], Order::Sequential, 77)));
        let another = ok(run(&["full", "--compress", how], &other));
        let mut cases = vec![
            ("cut short", good[..good.len() - 1].to_vec()),
            ("cut in half", good[..good.len() / 2].to_vec()),
            ("lengthened", [&good[..], b"x"].concat()),
            ("another guest's", another.clone()),
            ("another day's", again),
            (
                "another form of another guest's",
                ok(run(&["full", "--compress", if how == "lzo" { "none" } else { "lzo" }], &other)),
            ),
            ("empty", Vec::new()),
        ];
        let mut replaced = good.clone();
        replaced[..another.len().min(good.len())].copy_from_slice(&another[..another.len().min(good.len())]);
        cases.push(("overwritten", replaced));
        for (what, bad) in cases {
            fs::write(&base, &bad).unwrap();
            let output = run(&["restore", "--base", text(&base), text(&delta)], &[]);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{how} {what}: {error}");
            assert_eq!(output.stdout.len(), 0, "{how} {what}: {error}");
            assert!(error.contains(text(&base)) && error.lines().count() == 1, "{how} {what}: {error}");
        }
        fs::remove_file(&base).unwrap();
        for bad in [base.clone(), dir.0.path().to_owned()] {
            let output = run(&["restore", "--base", text(&bad), text(&delta)], &[]);
            assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
            assert!(String::from_utf8_lossy(&output.stderr).contains(text(&bad)));
            assert_eq!(run(&["identify", text(&bad)], &[]).status.code(), Some(1));
        }
    }
}

#[test]
fn rot_in_the_base_is_found_where_it_is_used() {
    let dir = Dir::new();
    let (full, day) = vm();
    for how in ["zstd", "lzo", "gzip", "none"] {
        let good = ok(run(&["full", "--compress", how], &full));
        let base = dir.file("base", &good);
        let delta = dir.file("delta", &ok(run(&["diff", "--base", text(&base)], &day)));
        let mut r = Random(11);
        let mut noticed = 0;
        for _ in 0..12 {
            let mut bad = good.clone();
            let at = 100_000 + r.below(bad.len() - 200_000);
            bad[at] ^= 4;
            fs::write(&base, &bad).unwrap();
            let output = run(&["restore", "--base", text(&base), text(&delta)], &[]);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(day.starts_with(&output.stdout), "{how} {at}: wrong output");
            if output.status.success() {
                same(&output.stdout, &day, "rot that was not used");
            } else {
                noticed += 1;
                assert!(error.starts_with("pve-xdelta3: "), "{how} {at}: {error}");
            }
            // Damage that shows makes no differential. What is not looked at cannot show.
            let usable = run(&["identify", text(&base)], &[]).status.success();
            let again = run(&["diff", "--base", text(&base)], &day);
            let error = String::from_utf8_lossy(&again.stderr).into_owned();
            assert!(usable || again.stdout.is_empty(), "{how} {at}: {error}");
            if again.status.success() {
                assert_eq!(error, "", "{how} {at}: a warning is not enough");
                continue;
            }
            assert!(error.contains("damaged"), "{how} {at}: {error}");
            let half = dir.file("half", &again.stdout);
            let restored = run(&["restore", "--base", text(&base), text(&half)], &[]);
            assert!(!restored.status.success(), "{how} {at}: what was written passes for a differential");
        }
        assert!(noticed > 6, "{how}: {noticed} of 12");
    }
}

#[test]
fn a_damaged_differential_never_gives_wrong_output() {
    let dir = Dir::new();
    let full = disk(5, 1);
    let mut day = full.clone();
    change(&mut day[..300_000], 6);
    day.truncate(400_000);
    for (raw_base, how) in
        [(false, Compression::None), (true, Compression::Zstd(1)), (true, Compression::Lzo)]
    {
        let base = dir.0.path().join("base");
        let out = fs::File::create(&base).unwrap();
        let form = if raw_base { Compression::None } else { Compression::Zstd(1) };
        full::compress(Cursor::new(full.clone()), out, form, 1).unwrap();
        let packed = dir.0.path().join("delta");
        let sink = pve_diff_backup::container::encoder(Box::new(fs::File::create(&packed).unwrap()), how, 1)
            .unwrap();
        differential::diff(
            Cursor::new(day.clone()),
            Base::open(&base).unwrap(),
            sink,
            differential::Options::default(),
        )
        .unwrap();
        let good = fs::read(&packed).unwrap();

        let restore = |delta: Vec<u8>| {
            let mut out = Vec::new();
            let result = Differential::open(Box::new(Cursor::new(delta))).and_then(|d| {
                d.restore(Some(Base::open(&base)?), OPTIONS, |bytes| {
                    out.extend_from_slice(bytes);
                    Ok(())
                })
            });
            (result.is_ok(), out)
        };
        let (complete, out) = restore(good.clone());
        assert!(complete);
        same(&out, &day, "untouched");
        // Every byte of the head and the tail, and a sample of the bulk.
        let places = (0..good.len()).filter(|&n| n < 300 || n + 300 > good.len() || n % 97 == 0);
        for at in places {
            let (complete, out) = restore(good[..at].to_vec());
            assert!(!complete, "{how:?} cut at {at} of {} passes for complete", good.len());
            assert!(day.starts_with(&out), "{how:?} cut at {at}: wrong output");
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            let (complete, out) = restore(bad);
            assert!(day.starts_with(&out), "{how:?} flip at {at}: wrong output");
            assert!(!complete || out.len() == day.len(), "{how:?} flip at {at}: short output");
        }
    }
}

#[test]
fn paths_of_all_kinds() {
    let dir = Dir::new();
    let (full, day) = bytes();
    let base = dir.file("a b'c\"$(touch x)%41\n.zst", &ok(run(&["full"], &full)));
    let encoded: String = text(&base).bytes().map(|b| format!("%{b:02x}")).collect();
    let delta = ok(run(&["diff", &format!("--base={encoded}")], &day));
    let delta = dir.file("delta with blank", &delta);
    same(&ok(run(&["restore", &format!("--base={encoded}"), text(&delta)], &[])), &day, "encoded");
    same(&ok(run(&["restore", "--base", text(&base), text(&delta)], &[])), &day, "as it is");
    // Beside its full, and named as vzdump names it.
    let full_name = "vzdump-lxc-100-2026_01_01-00_00_00.tar.zst";
    fs::rename(&base, dir.0.path().join(full_name)).unwrap();
    let beside = dir.file(
        &format!("{full_name}--differential-2026_01_02-00_00_00.vcdiff.zst"),
        &fs::read(&delta).unwrap(),
    );
    same(&ok(run(&["restore", text(&beside)], &[])), &day, "beside");
}

#[test]
fn a_full_disk_and_a_gone_reader() {
    let dir = Dir::new();
    let (full, day) = vm();
    let base = dir.file("base", &ok(run(&["full"], &full)));
    let delta = dir.file("delta", &ok(run(&["diff", "--base", text(&base)], &day)));
    let commands = [
        vec!["full"],
        vec!["full", "--compress", "lzo"],
        vec!["full", "--compress", "gzip"],
        vec!["full", "--compress", "none"],
        vec!["diff", "--base", text(&base)],
        vec!["restore", "--base", text(&base), text(&delta)],
    ];
    for args in &commands {
        let full_disk = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let input = dir.file("input", &day);
        let output = Command::new(PROGRAM)
            .args(args)
            .stdin(fs::File::open(&input).unwrap())
            .stdout(full_disk)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert!(error.contains("No space left on device"), "{args:?}: {error}");

        let mut child = Command::new(PROGRAM)
            .args(args)
            .stdin(fs::File::open(&input).unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

#[test]
fn full_backups_and_differentials_are_told_apart() {
    let dir = Dir::new();
    let (full, day) = vm();
    let told = |output: Output, parts: &[&str]| {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{parts:?}: {error}");
    };
    for (how, unpacker) in
        [("zstd", "zstd -d"), ("lzo", "lzop -d"), ("gzip", "gzip -d"), ("none", "vma extract")]
    {
        let base = dir.file("base", &ok(run(&["full", "--compress", how], &full)));
        let delta = ok(run(&["diff", "--base", text(&base), "--compress", how], &day));
        let delta = dir.file("delta", &delta);
        for (given, input) in [(text(&base), vec![]), ("-", fs::read(&base).unwrap())] {
            let shown = if given == "-" { "standard input" } else { given };
            told(
                run(&["restore", "--base", text(&base), given], &input),
                &[shown, "a full backup (VMA)", unpacker, "pve-xdelta3 vma extract"],
            );
        }
        let is_one = [text(&delta), "is a differential, not a full backup"];
        told(run(&["identify", text(&delta)], &[]), &is_one);
        told(run(&["diff", "--base", text(&delta)], &day), &is_one);
        // xdelta3's command line takes any source.
        let second = dir.file("second", &ok(run(&["-e", "-c", "-s", text(&delta)], &day)));
        same(&ok(run(&["-d", "-c", "-s", text(&delta), text(&second)], &[])), &day, "xdelta3's source");
    }
    let mut tar = vec![0; 10240];
    tar[..5].copy_from_slice(b"./etc");
    tar[257..262].copy_from_slice(b"ustar");
    let tar = dir.file("tar", &ok(run(&["full"], &tar)));
    told(run(&["restore", text(&tar)], &[]), &[text(&tar), "a full backup (tar)", "zstd -d"]);
}

#[test]
fn a_restore_that_fails_names_the_differential_and_its_base() {
    let dir = Dir::new();
    let (full, day) = vm();
    let base = dir.file("base", &full);
    let whole = ok(run(&["diff", "--base", text(&base), "--compress", "none"], &day));
    let delta = dir.file("delta", &whole[..whole.len() - 20]);
    let says = |what: &str| {
        let output = run(&["restore", "--any-base", "--base", text(&base), text(&delta)], &[]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        let start = format!("pve-xdelta3: {} (full backup {}): ", text(&delta), text(&base));
        assert!(error.starts_with(&start) && error.contains(what), "{error}");
    };
    says("truncated");
    fs::write(&delta, &whole).unwrap();
    let changed: Vec<u8> = full.iter().map(|b| b ^ 1).collect();
    fs::write(&base, changed).unwrap();
    says("checksum of window 0");
    fs::write(&base, &full[..100]).unwrap();
    says("reading the base failed");
}

/// What is done to a base while a differential is made against it, and what is said then; nothing where that does no
/// harm.
type Mishap = (&'static str, fn(&Path), Option<&'static str>);

/// Puts another file in its place.
fn replace(base: &Path, content: &[u8]) {
    let other = base.with_extension("other");
    fs::write(&other, content).unwrap();
    fs::rename(other, base).unwrap();
}

#[test]
fn a_base_that_goes_while_it_is_used_makes_no_differential() {
    const MISHAPS: &[Mishap] = &[
        ("nothing", |_| {}, None),
        ("removed", |base| fs::remove_file(base).unwrap(), Some("was removed or renamed while")),
        (
            "renamed",
            |base| fs::rename(base, base.with_extension("x")).unwrap(),
            Some("was removed or renamed"),
        ),
        (
            "renamed and back",
            |base| {
                fs::rename(base, base.with_extension("x")).unwrap();
                fs::rename(base.with_extension("x"), base).unwrap();
            },
            None,
        ),
        (
            "cut short",
            |base| {
                let file = fs::OpenOptions::new().write(true).open(base).unwrap();
                file.set_len(file.metadata().unwrap().len() - 5).unwrap();
            },
            Some("while a differential backup was made against it"),
        ),
        ("replaced", |base| replace(base, b"of another guest"), Some("was replaced or overwritten while")),
    ];
    let dir = Dir::new();
    let (full, day) = bytes();
    for how in ["zstd", "none"] {
        let content = ok(run(&["full", "--compress", how], &full));
        for (what, mishap, says) in MISHAPS {
            let base = dir.file("base", &content);
            let mut command = Command::new(PROGRAM);
            command.args(["diff", "--or-full", "--base", text(&base)]);
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            // More than a pipe of ours holds, 1 MiB: it is read, so the base was opened before.
            stdin.write_all(&day[..2 << 20]).unwrap();
            mishap(&base);
            let rest = day[2 << 20..].to_vec();
            let writer = std::thread::spawn(move || drop(stdin.write_all(&rest)));
            let output = child.wait_with_output().unwrap();
            writer.join().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), says.is_none(), "{how} {what}: {error}");
            assert!(says.is_none_or(|says| error.contains(says)), "{how} {what}: {error}");
            if says.is_none() {
                let delta = dir.file("delta", &output.stdout);
                same(&ok(run(&["restore", "--base", text(&base), text(&delta)], &[])), &day, what);
            }
        }
    }
    // A copy in its place, which its map proves to be the same.
    let base = dir.file("base", &ok(run(&["full"], &full)));
    let opened = Base::open(&base).unwrap();
    replace(&base, &fs::read(&base).unwrap());
    opened.witness(Found::ByPerson).still_there().unwrap();
}

#[test]
fn where_the_base_cannot_serve_a_full_backup_is_made() {
    let dir = Dir::new();
    let (full, day) = bytes();
    let base = dir.file("base", &ok(run(&["full"], &full)));
    let said = String::from_utf8(ok(run(&["identify", text(&base)], &[]))).unwrap();
    let id = said.split(" id=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    let made = |id: &str, base: &Path| {
        let output = run(&["diff", "--or-full", "--id", id, "--base", text(base)], &day);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        (dir.file("made", &output.stdout), error)
    };
    let (delta, said) = made(&id, &base);
    same(&ok(run(&["restore", "--base", text(&base), text(&delta)], &[])), &day, "the right base");
    assert_eq!(said, "");

    let cut = dir.file("cut", &fs::read(&base).unwrap()[..5000]);
    let other = dir.file("other", &ok(run(&["full"], &day)));
    for (what, base) in [("missing", &dir.0.path().join("nowhere")), ("cut", &cut), ("another", &other)] {
        let (made, said) = made(&id, base);
        assert!(said.contains("making an ordinary full backup instead"), "{what}: {said}");
        let content = ok(run(&["diff", "--compress", "none", "--base", text(&made)], &day));
        assert!(content.len() < 2000, "{what}: a full with a map");
    }
    // Without being asked to it makes none.
    let output = run(&["diff", "--base", "/nowhere"], &day);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
}

#[test]
fn damage_that_shows_late_leaves_a_note() {
    let dir = Dir::new();
    let (full, day) = vm();
    let mut packed = ok(run(&["full", "--compress", "gzip"], &full));
    let middle = packed.len() / 2;
    packed[middle..middle + 8].fill(0);
    let base = dir.file("base.gz", &packed);
    let note = dir.0.path().join("base.gz.damaged");
    let plain = run(&["diff", "--base", text(&base)], &day);
    assert!(!plain.status.success() && !note.exists());
    let output = run(&["diff", "--or-full", "--base", text(&base)], &day);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let found = fs::read_to_string(note).unwrap();
    assert!(error.contains("is damaged: ") && error.contains(found.trim()), "{error} / {found}");
}

#[test]
fn a_level_is_refused_where_there_is_none() {
    for how in ["lzo", "none"] {
        for command in [&["full"][..], &["diff", "--base", "/nowhere"]] {
            let output = run(&[command, &["--compress", how, "--level", "3"]].concat(), b"x");
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{error}");
            assert!(error.contains("--level goes with zstd and gzip only"), "{error}");
        }
    }
}

#[test]
fn a_name_in_a_differential_steers_no_terminal() {
    let dir = Dir::new();
    let base = dir.file("red\x1b[31m\n.zst", &ok(run(&["full"], b"full backup")));
    let delta = dir.file("delta", &ok(run(&["diff", "--base", text(&base)], b"full backup, changed")));
    let other = dir.file("other", &ok(run(&["full"], b"of another guest")));
    let output = run(&["restore", "--base", text(&other), text(&delta)], &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(r"(red\x1b[31m\n.zst)") && !error.contains('\x1b'), "{error:?}");
}

/// What lies behind a full backup with a map is told from an end that is missing; skippable frames are nothing.
#[test]
fn what_follows_a_full_backup_is_told() {
    let dir = Dir::new();
    let (content, day) = bytes();
    let full = ok(run(&["full"], &content));
    let base = dir.file("full.zst", &full);
    let differential = ok(run(&["diff", "--base", text(&base)], &day));
    let note = b"\x53\x2a\x4d\x18\x04\0\0\0note";
    let more = ok(pipe(Command::new("zstd").arg("-qc"), b"more"));
    let identity = ok(run(&["identify", text(&base)], b""));
    let size = full.len().to_string();
    let cut = "cut short";
    for (what, behind, told) in [
        ("a note", &note[..], None),
        ("a long note", &[b"\x50\x2a\x4d\x18\0\0\x20\0", &vec![1; 2 << 20][..]].concat(), None),
        ("notes", &note.repeat(9), None),
        ("a frame", &more, Some("more zstd data")),
        ("a note and a frame", &[&note[..], &more].concat(), Some("more zstd data")),
        ("itself", &full, Some("more zstd data")),
        ("text", b"some text", Some("no whole zstd frame")),
        ("zeros", &[0; 9], Some("no whole zstd frame")),
        ("half a frame", &more[..9], Some("no whole zstd frame")),
        ("half a note", &note[..9], Some("no whole zstd frame")),
    ] {
        dir.file("full.zst", &[&full[..], behind].concat());
        let whole = Command::new("zstd").args(["-tq", text(&base)]).stderr(Stdio::null()).status().unwrap();
        assert_eq!(whole.success(), told != Some("no whole zstd frame"), "{what}");
        let identified = run(&["identify", text(&base)], b"");
        let restored =
            pipe(Command::new(PROGRAM).args(["restore", "--base", text(&base), "-"]), &differential);
        let Some(told) = told else {
            assert_eq!(ok(identified), identity, "{what}");
            assert!(ok(restored) == day, "{what}");
            assert_eq!(ok(run(&["diff", "--base", text(&base)], &day)), differential, "{what}");
            continue;
        };
        for output in [identified, restored] {
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success() && output.stdout.is_empty(), "{what}");
            assert!(error.contains(told) && error.contains(&size) && !error.contains(cut), "{what}: {error}");
        }
    }
    for len in [full.len() - 1, full.len() - 20, full.len() / 2] {
        dir.file("full.zst", &full[..len]);
        let error = String::from_utf8(run(&["identify", text(&base)], b"").stderr).unwrap();
        assert!(error.contains(cut), "{error}");
    }
    // One that stock vzdump made has no map, but an end as well.
    let stock = ok(pipe(Command::new("zstd").arg("-qc"), &content));
    let size = stock.len().to_string();
    for (what, file, told) in [
        ("text", [&stock[..], b"some text"].concat(), "bytes that are no zstd frame behind its end"),
        ("zeros", [&stock[..], &[0; 9999]].concat(), "bytes that are no zstd frame behind its end"),
        ("half a frame", [&stock[..], &more[..9]].concat(), "or a part of another was appended"),
        ("itself, cut", stock[..stock.len() - 1].to_vec(), "is not complete: the file is cut short"),
    ] {
        dir.file("full.zst", &file);
        let error = String::from_utf8(run(&["identify", text(&base)], b"").stderr).unwrap();
        assert!(error.contains(told), "{what}: {error}");
        assert_eq!(error.contains(&size), what != "itself, cut", "{what}: {error}");
        assert_eq!(
            error.contains("cut short"),
            told.contains("cut short") || told.contains("part of"),
            "{what}: {error}"
        );
    }
}

/// A disk of so many clusters, and which blocks of each are stored, by its number.
type Disk = (u32, fn(u32) -> u16);

/// A VM's stream.
fn thin(disks: &[Disk], uuid: u8) -> Vec<u8> {
    let devices = disks.iter().zip(1..);
    let devices = devices.map(|((clusters, _), id)| Device {
        id,
        name: format!("drive-scsi{id}"),
        size: u64::from(*clusters) << 16,
    });
    let devices = devices.collect();
    let header = Header { uuid: [uuid; 16], ctime: 1_700_000_000, configs: Vec::new(), devices };
    let mut stream = header.encode().unwrap();
    let longest = disks.iter().map(|(clusters, _)| *clusters).max().unwrap();
    let all: Vec<_> = (0..longest)
        .flat_map(|number| {
            let of = disks.iter().zip(1..).filter(move |((clusters, _), _)| number < *clusters);
            of.map(move |((_, mask), device)| Cluster { device, number, mask: mask(number) })
        })
        .collect();
    for clusters in all.chunks(58) {
        stream.extend(ExtentHeader::new([uuid; 16], clusters).encode());
        for cluster in clusters {
            let seed = (u64::from(cluster.number) + 1) << 8 | u64::from(cluster.device);
            stream.extend(Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).bytes(cluster.data_len()));
        }
    }
    stream
}

/// Where nothing changed, only the UUID and the checksums of the extents are new.
#[test]
fn an_unchanged_disk_costs_no_more_than_with_xdelta3() {
    let dir = Dir::new();
    for (what, disks) in [
        ("empty", &[(1 << 17, (|_| 0) as fn(u32) -> u16)][..]),
        ("sparse", &[(1 << 16, |n| if n % 97 == 0 { 0x8001 } else { 0 })]),
        ("nearly empty", &[(1 << 17, |n| if n % 10_007 == 0 { 0xffff } else { 0 })]),
        ("one block each", &[(4000, |n| 1 << (n % 16))]),
        ("full", &[(250, |_| 0xffff)]),
        ("two, interleaved", &[(40_000, |n| if n % 300 == 0 { 0xffff } else { 0 }), (30_000, |_| 0)]),
    ] {
        let (yesterday, today) = (thin(disks, 1), thin(disks, 2));
        let raw = dir.file("yesterday", &yesterday);
        let new = dir.file("today", &today);
        let peer =
            ok(pipe(Command::new("xdelta3").args(["-e", "-q", "-c", "-s", text(&raw), text(&new)]), b""));
        let stock = dir.file("stock.zst", &ok(pipe(Command::new("zstd").args(["-qc", text(&raw)]), b"")));
        let full = dir.file("full.zst", &ok(run(&["full"], &yesterday)));
        for base in [&full, &stock, &raw] {
            let differential = ok(run(&["diff", "--base", text(base)], &today));
            // The header with the base's name and identity, and the end record, are ours.
            let (ours, most) = (differential.len(), peer.len() + peer.len() / 10 + 256);
            assert!(ours <= most, "{what}, {base:?}: {ours} bytes, xdelta3 needs {}", peer.len());
            let restored = ["restore", "--base", text(base), "-"];
            assert!(ok(run(&restored, &differential)) == today, "{what}");
            let delta = dir.file("delta", &ok(pipe(Command::new("zstd").arg("-dqc"), &differential)));
            let theirs = ["-d", "-q", "-c", "-s", text(&raw), text(&delta)];
            assert!(ok(pipe(Command::new("xdelta3").args(theirs), b"")) == today, "{what}");
        }
    }
}
