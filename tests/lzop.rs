//! Our lzop files against the `lzop` program, both ways.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use pve_diff_backup::container::lzop::{Reader, Seekable, Writer};

const BLOCK: usize = 256 * 1024;
const LEVELS: [&str; 8] = ["-1", "-2", "-3", "-5", "-6", "-7", "-8", "-9"];

/// Runs the program on some input; its output if it succeeds.
fn lzop(args: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = Command::new("lzop")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these tests need the lzop program (package lzop)");
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    });
    if output.status.success() && output.stderr.is_empty() {
        Ok(output.stdout)
    } else {
        Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn text(len: usize) -> Vec<u8> {
    let line = |i: usize| {
        format!("Nov 21 {:02}:{:02} host daemon[{}]: job {i} done\n", i % 24, i % 60, i * 7919 % 4096)
    };
    let mut text: Vec<u8> = (0..len / 30 + 1).flat_map(|i| line(i).into_bytes()).collect();
    text.truncate(len);
    text
}

/// A program: the one that runs this test.
fn machine_code(len: usize) -> Vec<u8> {
    let mut code = Vec::new();
    File::open("/proc/self/exe").unwrap().take(len as u64).read_to_end(&mut code).unwrap();
    code
}

/// Content of several kinds, of a size near a block's edge or well away from it.
fn contents() -> Vec<(String, Vec<u8>)> {
    let mut contents = Vec::new();
    for len in [0, 1, 5, 100, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 4711] {
        let kinds = [
            ("noise", noise(len)),
            ("zeros", vec![0; len]),
            ("text", text(len)),
            ("code", machine_code(len)),
        ];
        contents.extend(kinds.map(|(kind, content)| (format!("{len} bytes of {kind}"), content)));
    }
    contents
}

fn on_disk(file: &[u8]) -> File {
    let mut disk = tempfile::tempfile().unwrap();
    disk.write_all(file).unwrap();
    disk
}

/// Reads a file in all our ways, which must agree.
fn read(file: &[u8], what: &str) -> Vec<u8> {
    let mut one = Vec::new();
    Reader::new(file, 1).read_to_end(&mut one).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut many = Vec::new();
    Reader::new(file, 3).read_to_end(&mut many).unwrap();
    let disk = Seekable::open(on_disk(file)).unwrap();
    let mut places = vec![0; disk.len() as usize];
    disk.read_at(0, &mut places).unwrap();
    assert!(one == many && one == places, "{what}: the three ways to read differ");
    one
}

fn write(content: &[u8], threads: usize) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), threads);
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

#[test]
fn all_levels_of_lzop_are_read() {
    for (what, content) in contents() {
        for level in LEVELS {
            let file = lzop(&[level], &content).unwrap();
            assert!(read(&file, &what) == content, "{what} at level {level}");
        }
    }
}

#[test]
fn lzop_reads_what_is_written() {
    for (what, content) in contents() {
        for threads in [1, 3] {
            let file = write(&content, threads);
            let found = lzop(&["-d"], &file).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(found == content, "{what}, {threads} threads");
            assert!(read(&file, &what) == content, "{what}, {threads} threads");
        }
    }
}

#[test]
fn packed_as_small_as_lzop_does() {
    for content in [text(4 * BLOCK), machine_code(8 * BLOCK), vec![0; 4 * BLOCK]] {
        let (ours, theirs) = (write(&content, 1).len(), lzop(&["-3"], &content).unwrap().len());
        assert!(ours <= theirs + theirs / 50, "{ours} bytes, lzop -3 makes {theirs}");
    }
}

#[test]
fn all_options_of_lzop_are_read_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (a, b) = (path("a file"), path("b"));
    let content = [text(BLOCK + 9), noise(700)];
    std::fs::write(Path::new(&a), &content[0]).unwrap();
    std::fs::write(Path::new(&b), &content[1]).unwrap();
    for options in [
        &["--crc32"][..],
        &["--no-checksum"],
        &["--checksum", "-9"],
        &["--crc32", "-9"],
        &["--no-name"],
        &["-P"],
        &["--no-time", "--no-mode"],
    ] {
        let file = lzop(&[options, &["-c", &a, &b]].concat(), b"").unwrap();
        assert!(read(&file, &options.concat()) == content.concat(), "{options:?}");
    }
    let mut appended = lzop(&["-c", &a], b"").unwrap();
    appended.extend(write(&content[1], 2));
    assert!(read(&appended, "appended") == content.concat());

    let filtered = lzop(&["--filter=3", "-c", &a], b"").unwrap();
    let error = Reader::new(filtered.as_slice(), 1).read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("filter 3 (lzop --filter) is not supported"), "{error}");
}
