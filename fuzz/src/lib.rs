//! What is fuzzed: one function for each parser. Whatever the bytes, it must not panic, and what it claims of them
//! must hold. It tells whether the input was good.
//!
//! The functions are run in two ways: by `tests/fuzz.rs` with every `cargo test`, on the seeds and on mutations that
//! are the same each time; and by libFuzzer, which learns what leads into new code and can run for days:
//! ```text
//! fuzz/run.sh 600 vcdiff
//! ```

#[path = "../../tests/bounds/corpus.rs"]
pub mod corpus;
pub mod dirty;
pub mod look;
pub mod peers;
pub mod seeds;

use std::fs::File;
use std::io::{self, Cursor, Read, Write};

use pve_diff_backup::backup::names::{self, BackupName};
use pve_diff_backup::container::seekable::{ReadOptions, Seekable};
use pve_diff_backup::container::{self, Compression, ReadAt, lzo, lzop};
use pve_diff_backup::matching::base::Base;
use pve_diff_backup::matching::restore::{Differential, Options};
use pve_diff_backup::matching::{Error, differential};
use pve_diff_backup::vcdiff::{
    self, AppHeader, Item, Limits, Reader, Secondary, TargetHasher, Window, varint, write_header,
};
use pve_diff_backup::vma;

/// What a fuzzer calls with an input; true where it parsed.
pub type Target = fn(&[u8]) -> bool;

/// All targets, by the names of their folders.
pub const TARGETS: &[(&str, Target)] = &[
    ("vcdiff", vcdiff),
    ("secondary", secondary),
    ("app_header", app_header),
    ("lzop", lzop),
    ("lzo", lzo),
    ("seekable", seekable),
    ("base", base),
    ("container", container),
    ("vma", vma),
    ("names", names),
    ("nbd", dirty::nbd),
    ("compose", dirty::compose),
    ("tar", look::tar),
    ("nbd_server", look::nbd_server),
    ("peer_xdelta3", peers::xdelta3),
    ("peer_lzop", peers::lzop),
];

/// What is decompressed of an input at most: more would only take time.
const ENOUGH: u64 = 1 << 20;

/// Deltas: everything that can be applied has the length its header says, and says the same encoded anew.
pub fn vcdiff(data: &[u8]) -> bool {
    let limits = Limits { window: 1 << 16, app_header: 1 << 16, ..Limits::default() };
    let source = seeds::base();
    let Ok(mut reader) = Reader::new(data, limits) else { return false };
    let (mut out, mut hasher, mut total) = (Vec::new(), TargetHasher::new(), 0);
    let mut good = true;
    while total < ENOUGH {
        let window = match reader.next_item() {
            Ok(Some(Item::Window(window))) => window,
            Ok(Some(Item::End(end))) => return good && end.check(&hasher.finish()).is_ok(),
            Ok(None) => return good,
            Err(_) => return false,
        };
        assert_eq!(window.target_pos, total);
        total += window.target_len as u64;
        if apply(&window, &source, &mut out).is_err() {
            good = false;
            continue;
        }
        hasher.update(&out);
        let mut again = write_header(None, None);
        window.encode(None, &mut again);
        let mut reader = Reader::new(&again[..], limits).expect("a header of our own");
        let Ok(Some(Item::Window(again))) = reader.next_item() else {
            panic!("encoded anew, it is no window")
        };
        let mut same = Vec::new();
        assert!(
            apply(&again, &source, &mut same).is_ok() && out == same,
            "encoded anew, it is another window"
        );
    }
    good
}

fn apply(window: &Window, source: &[u8], out: &mut Vec<u8>) -> Result<(), vcdiff::Error> {
    let mut read = |pos: u64, buf: &mut [u8]| {
        let from = usize::try_from(pos).ok().and_then(|pos| source.get(pos..)?.get(..buf.len()));
        buf.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    window.apply(&mut read, out)?;
    assert!(out.len() == window.target_len);
    Ok(())
}

/// Compressed sections: the first byte tells the compressor and where the bytes are parted into two windows.
pub fn secondary(data: &[u8]) -> bool {
    let Some((&head, sections)) = data.split_first() else { return false };
    let kind = [Secondary::Djw, Secondary::Lzma, Secondary::Fgk][usize::from(head % 3)];
    let mut delta = write_header(None, Some(kind));
    // From 252 on, all of it in the first.
    let part = (sections.len() * usize::from(head) / 252).min(sections.len());
    let (first, second) = sections.split_at(part);
    for section in [first, second] {
        if section.is_empty() {
            continue;
        }
        // A window of one ADD, of what the section says it holds.
        let Ok(len) = varint::read(&mut &section[..]) else { return false };
        let mut inst = vec![1];
        varint::write(&mut inst, len);
        let mut body = Vec::new();
        varint::write(&mut body, len);
        // Only the data section is compressed.
        body.push(1);
        [section.len(), inst.len(), 0].iter().for_each(|&len| varint::write(&mut body, len as u64));
        body.extend([section, &inst].concat());
        delta.push(0);
        varint::write(&mut delta, body.len() as u64);
        delta.extend(body);
    }
    vcdiff(&delta)
}

/// Application headers: what was understood is still understood when written anew.
pub fn app_header(data: &[u8]) -> bool {
    let encoded = AppHeader::parse(data).encode();
    let again = AppHeader::parse(&encoded);
    assert!(!again.damaged);
    assert_eq!(again.encode(), encoded);
    true
}

/// lzop files: read as a stream and at random places, they hold the same.
pub fn lzop(data: &[u8]) -> bool {
    let mut content = Vec::new();
    let streamed = lzop::Reader::new(data, 1).take(ENOUGH).read_to_end(&mut content).is_ok();
    let Ok(file) = lzop::Seekable::open(file(data)) else { return false };
    if file.len() >= ENOUGH {
        return false;
    }
    let mut at_once = vec![0; file.len() as usize];
    let sought = file.read_at(0, &mut at_once).is_ok();
    assert_eq!(streamed, sought, "one way it can be read, the other way not");
    assert!(!sought || content == at_once, "read in two ways, it holds two things");
    streamed
}

/// LZO1X itself; and any bytes can be packed.
pub fn lzo(data: &[u8]) -> bool {
    let mut out = vec![0; 1 << 16];
    let good = lzo::decompress(data, &mut out).is_ok_and(|len| len <= out.len());
    let data = &data[..data.len().min(out.len())];
    let mut packed = vec![0; data.len() + data.len() / 16 + 67];
    let len = lzo::Encoder::new().compress(data, &mut packed);
    let unpacked = lzo::decompress(&packed[..len], &mut out);
    assert!(unpacked.is_ok_and(|len| out[..len] == *data), "packed, it is something else");
    good
}

/// zstd with a seek table and side frames.
pub fn seekable(data: &[u8]) -> bool {
    let Ok(Some(file)) = Seekable::open(file(data)) else { return false };
    let file = std::sync::Arc::new(file);
    let reader = file.reader(ReadOptions::default());
    let mut good = (0..file.sides()).filter(|&n| file.side(n, 1 << 16).is_err()).count() == 0;
    let mut buf = vec![0; 5000];
    for at in [0, 1, file.size() / 2, file.size().saturating_sub(5000), u64::MAX - 10] {
        let len = file.size().saturating_sub(at).min(5000) as usize;
        good &= reader.read_at(at, &mut buf[..len]).is_ok() || at > file.size();
    }
    good
}

/// Files of any form as base: what is encoded against it is restored from it, or refused.
pub fn base(data: &[u8]) -> bool {
    let mut path = tempfile::NamedTempFile::new().expect("a temporary file");
    path.write_all(data).expect("a written file");
    let Ok(opened) = Base::open(path.path()) else { return false };
    let delta = Shared::default();
    let target = seeds::target();
    let out = container::encoder(Box::new(delta.clone()), Compression::None, 1).expect("no compression");
    match differential::diff(Cursor::new(target.clone()), opened, out, differential::Options::default()) {
        Ok(_) => {}
        Err(Error::Internal(what)) => panic!("{what}"),
        Err(_) => return false,
    }
    let Ok(opened) = Base::open(path.path()) else { return false };
    let options = Options { threads: 1, window: 1 << 20, check_base: true };
    let mut restored = Vec::new();
    let outcome = Differential::new(Box::new(Cursor::new(delta.take())))
        .expect("a header of our own")
        .restore(Some(opened), options, |bytes| {
            restored.extend_from_slice(bytes);
            Ok(())
        });
    match outcome {
        Ok(_) => assert!(restored == target, "restored, it is something else"),
        Err(Error::Internal(what)) => panic!("{what}"),
        Err(_) => {
            assert!(target.starts_with(&restored), "what was restored before the damage is something else");
            return false;
        }
    }
    true
}

/// Compressed streams of all kinds.
pub fn container(data: &[u8]) -> bool {
    let Ok((_, stream)) = container::decoder(Box::new(Cursor::new(data.to_vec()))) else { return false };
    io::copy(&mut stream.take(ENOUGH), &mut io::sink()).is_ok()
}

/// VMA archives.
pub fn vma(data: &[u8]) -> bool {
    if let Ok(header) = vma::Header::parse(data) {
        let _ = header.encode();
    }
    vma::verify(data).is_ok()
}

/// Names of backups.
pub fn names(data: &[u8]) -> bool {
    let Some(name) = BackupName::parse(data) else { return false };
    assert_eq!(name.as_str().as_bytes(), data);
    assert!(!data.contains(&b'/') && !data.contains(&0));
    assert_eq!(matches!(name, BackupName::Differential(_)), names::looks_like_differential(data));
    let full = name.full().as_str();
    assert!(data.starts_with(full.as_bytes()));
    assert!(BackupName::parse(full.as_bytes()).is_some());
    for other in [name.log_name(), name.notes_name(), name.protected_name()] {
        assert!(BackupName::parse(other.as_bytes()).is_none(), "{other} is no backup");
    }
    true
}

/// A file on disk that has no name any more.
fn file(data: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(data).expect("a written file");
    file
}

/// Bytes that are written here and read there.
#[derive(Clone, Default)]
struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Shared {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().expect("no panic before"))
    }
}

impl Write for Shared {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic before").extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
