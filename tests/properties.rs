//! What must hold of any pair of streams: whatever the form of the full backup, a differential gives back its target;
//! and a changed or cut byte, in it or in the full, gives the same target or an error.

use std::io::{self, Cursor, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use pve_diff_backup::container::{self, Compression};
use pve_diff_backup::matching::base::Base;
use pve_diff_backup::matching::restore::{Differential, Options};
use pve_diff_backup::matching::{Error, differential, full};

/// Bytes written by another thread.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Write for Shared {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A form of full backup: written by us, or by a program.
#[derive(Clone, Copy, Debug)]
enum Form {
    Ours(Compression),
    Of(&'static str),
}

const FORMS: [Form; 9] = [
    Form::Ours(Compression::None),
    Form::Ours(Compression::Zstd(1)),
    Form::Ours(Compression::Lzo),
    Form::Ours(Compression::Gzip(6)),
    Form::Of("zstd"),
    Form::Of("lzop"),
    Form::Of("gzip"),
    Form::Of("xz"),
    Form::Of("bzip2"),
];

fn packed(form: Form, content: &[u8]) -> Vec<u8> {
    match form {
        Form::Ours(how) => {
            let out = Shared::default();
            full::compress(Cursor::new(content.to_vec()), out.clone(), how, 2).unwrap();
            out.take()
        }
        Form::Of(program) => {
            let mut child = Command::new(program)
                .args(["-c", "-q"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap_or_else(|e| panic!("{program}: {e}; see tests/setup.sh"));
            // Small enough for the pipe.
            child.stdin.take().unwrap().write_all(content).unwrap();
            child.wait_with_output().unwrap().stdout
        }
    }
}

fn diff(base: &Path, target: &[u8], how: Compression) -> Result<Vec<u8>, Error> {
    let out = Shared::default();
    let encoder = container::encoder(Box::new(out.clone()), how, 2).unwrap();
    differential::diff(
        Cursor::new(target.to_vec()),
        Base::open(base)?,
        encoder,
        differential::Options { threads: 2, ..differential::Options::default() },
    )?;
    Ok(out.take())
}

fn restore(base: &Path, delta: &[u8]) -> Result<Vec<u8>, Error> {
    let options = Options { threads: 2, window: 1 << 20, check_base: true };
    let mut out = Vec::new();
    let delta = Differential::open(Box::new(Cursor::new(delta.to_vec())))?;
    delta.restore(Some(Base::open(base)?), options, |bytes| {
        out.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(out)
}

/// A stream of pieces: noise, text, runs.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..5000),
        (any::<u8>(), 1..9000usize).prop_map(|(byte, len)| vec![byte; len]),
        (0..1000u32, 1..700usize).prop_map(|(from, n)| (from..)
            .flat_map(|n| format!("line {n}\n").into_bytes())
            .take(n * 8)
            .collect()),
    ];
    prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

/// A change: where (in 1/65536 of the stream), how many bytes go, what comes.
fn changes() -> impl Strategy<Value = Vec<(u16, usize, Vec<u8>)>> {
    prop::collection::vec((any::<u16>(), 0..3000usize, prop::collection::vec(any::<u8>(), 0..300)), 0..6)
}

fn changed(mut data: Vec<u8>, changes: Vec<(u16, usize, Vec<u8>)>) -> Vec<u8> {
    for (at, gone, new) in changes {
        let at = data.len() * usize::from(at) / 65536;
        let end = (at + gone).min(data.len());
        data.splice(at..end, new);
    }
    data
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn any_pair_comes_back(base in stream(), changes in changes(), other in stream(), related in 0..4) {
        let target = if related > 0 { changed(base.clone(), changes) } else { other };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        for (n, form) in FORMS.into_iter().enumerate() {
            std::fs::write(&path, packed(form, &base)).unwrap();
            let how = [Compression::Zstd(1), Compression::None, Compression::Lzo, Compression::Gzip(1)][n % 4];
            let delta = diff(&path, &target, how).unwrap();
            prop_assert!(restore(&path, &delta).unwrap() == target, "{:?}, {:?}", form, how);
        }
    }
}

/// Some hundred bytes with something in common.
fn small() -> (Vec<u8>, Vec<u8>) {
    let base: Vec<u8> = (0..60u32).flat_map(|n| format!("{} ", n * n * 7919).into_bytes()).collect();
    let target = [&base[150..], b"new", &base[..200]].concat();
    (base, target)
}

/// What damage is done at a place.
fn damaged(data: &[u8], at: usize) -> [Vec<u8>; 2] {
    let mut flipped = data.to_vec();
    flipped[at] ^= 1 << (at % 8);
    [flipped, data[..at].to_vec()]
}

fn same_or_error(result: Result<Vec<u8>, Error>, target: &[u8], what: &str) -> usize {
    match result {
        Ok(out) => assert!(out == target, "wrong output: {what}"),
        Err(Error::Internal(text)) => panic!("{what}: {text}"),
        Err(_) => return 1,
    }
    0
}

#[test]
fn a_byte_of_the_differential() {
    let (base, target) = small();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("base");
    std::fs::write(&path, &base).unwrap();
    for how in [Compression::None, Compression::Zstd(1), Compression::Gzip(6), Compression::Lzo] {
        let delta = diff(&path, &target, how).unwrap();
        let mut refused = 0;
        for at in 0..delta.len() {
            for bad in damaged(&delta, at) {
                refused += same_or_error(restore(&path, &bad), &target, &format!("{how:?}, byte {at}"));
            }
        }
        // Few bytes mean nothing, such as those of gzip's header.
        assert!(refused > delta.len() * 3 / 2, "{how:?}: {refused} of {}", delta.len() * 2);
    }
}

#[test]
fn a_byte_of_the_full() {
    let (base, target) = small();
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("base"), dir.path().join("bad"));
    for form in FORMS {
        let file = packed(form, &base);
        std::fs::write(&good, &file).unwrap();
        let delta = diff(&good, &target, Compression::None).unwrap();
        let mut refused = 0;
        for at in 0..file.len() {
            for bytes in damaged(&file, at) {
                std::fs::write(&bad, &bytes).unwrap();
                refused += same_or_error(restore(&bad, &delta), &target, &format!("{form:?}, byte {at}"));
            }
        }
        assert!(refused > file.len() * 3 / 2, "{form:?}: {refused} of {}", file.len() * 2);
    }
}
