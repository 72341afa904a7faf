//! A naive encoder, an in-memory decoder, test data, and the xdelta3 program.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use pve_diff_backup::vcdiff::*;

/// Numbers that look random and are the same in each run (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Words of a small vocabulary: compressible, full of short repeats.
    pub fn text(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 16);
        while out.len() < len {
            let word = self.below(300);
            out.extend_from_slice(format!("word{:x} ", word * word).as_bytes());
        }
        out.truncate(len);
        out
    }
}

/// A base and a target made from it by the edits a backup sees: changed, inserted, moved, cleared places.
pub fn pair(seed: u64, len: usize) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random::new(seed);
    let mut base = random.bytes(len / 2);
    base.extend(random.text(len - len / 2));
    let mut target = base.clone();
    for _ in 0..20 {
        if target.len() < 100 {
            break;
        }
        let at = random.below(target.len() - 90);
        match random.below(5) {
            0 => target[at..at + 40].fill(0),
            1 => {
                let piece = random.text(77);
                target.splice(at..at, piece);
            }
            2 => {
                let end = at + 90;
                let moved: Vec<u8> = target.drain(at..end).collect();
                let to = random.below(target.len());
                target.splice(to..to, moved);
            }
            3 => target[at] ^= 0x55,
            _ => {
                let repeated = target[at..at + 7].repeat(9);
                target.splice(at..at, repeated);
            }
        }
    }
    (base, target)
}

/// How the naive encoder writes.
#[derive(Clone)]
pub struct Encode {
    pub window: usize,
    pub adler: bool,
    pub app: Option<AppHeader>,
    pub end: bool,
    /// As after `-S`, with LZMA's or DJW's level.
    pub secondary: Option<(Secondary, u32)>,
}

impl Default for Encode {
    fn default() -> Self {
        Encode { window: 1 << 16, adler: true, app: None, end: false, secondary: None }
    }
}

impl Encode {
    /// Greedy matching on all 16-byte strings at multiples of 4 of the base, and of 8 of the window.
    pub fn run(&self, base: &[u8], target: &[u8]) -> Vec<u8> {
        const KEY: usize = 16;
        let app = self.app.as_ref().map(AppHeader::encode);
        let mut encoder = self.secondary.map(|(kind, level)| match kind {
            Secondary::Lzma => secondary::Encoder::lzma(level),
            Secondary::Djw => secondary::Encoder::djw(level),
            Secondary::Fgk => secondary::Encoder::fgk(),
        });
        let mut out = write_header(app.as_deref(), encoder.as_ref().map(|e| e.kind()));
        let mut hasher = TargetHasher::new();
        let known: HashMap<&[u8], usize> =
            base.windows(KEY).enumerate().step_by(4).map(|(i, key)| (key, i)).collect();
        let mut builder = WindowBuilder::new();
        for window in target.chunks(self.window) {
            hasher.update(window);
            let mut own: HashMap<&[u8], usize> = HashMap::new();
            let (mut at, mut added) = (0, 0);
            while at < window.len() {
                let rest = &window[at..];
                let equal = |a: &[u8]| a.iter().zip(rest).take_while(|(x, y)| x == y).count();
                let run = rest.iter().take_while(|&&b| b == rest[0]).count();
                let key = rest.get(..KEY);
                let from_base = key.and_then(|k| known.get(k)).map(|&pos| (pos, equal(&base[pos..])));
                let from_own = key.and_then(|k| own.get(k)).map(|&pos| (pos, equal(&window[pos..])));
                if at % 8 == 0 {
                    key.map(|k| own.insert(k, at));
                }
                let longest =
                    run.max(from_base.map_or(0, |(_, len)| len)).max(from_own.map_or(0, |(_, len)| len));
                if longest < 4 {
                    at += 1;
                    continue;
                }
                builder.add(&window[added..at]);
                match (from_base, from_own) {
                    (Some((pos, len)), _) if len == longest => builder.copy_source(pos as u64, len),
                    (_, Some((pos, len))) if len == longest => builder.copy_target(pos, len),
                    _ => builder.run(rest[0], run),
                }
                at += longest;
                added = at;
            }
            builder.add(&window[added..]);
            assert_eq!(builder.target_len(), window.len());
            let adler = self.adler.then(|| simd_adler32::adler32(&window));
            builder.finish_with(adler, encoder.as_mut(), &mut out);
        }
        if self.end {
            out.extend(hasher.finish().encode());
        }
        out
    }
}

/// Decodes in memory, as strictly as a restore must.
pub fn decode(delta: &[u8], base: &[u8]) -> Result<Vec<u8>> {
    decode_with(delta, base, Limits::default())
}

pub fn decode_with(delta: &[u8], base: &[u8], limits: Limits) -> Result<Vec<u8>> {
    let mut reader = Reader::new(delta, limits)?;
    let (mut target, mut out, mut hasher) = (Vec::new(), Vec::new(), TargetHasher::new());
    let mut read = |pos: u64, buf: &mut [u8]| {
        let range = usize::try_from(pos).ok().and_then(|pos| base.get(pos..)?.get(..buf.len()));
        buf.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Window(window) => {
                assert_eq!(window.target_pos, target.len() as u64);
                window.apply(&mut read, &mut out)?;
                hasher.update(&out);
                target.extend_from_slice(&out);
            }
            Item::End(end) => end.check(&hasher.finish())?,
        }
    }
    Ok(target)
}

/// A directory of files that vanishes.
pub struct Dir(tempfile::TempDir);

impl Dir {
    pub fn new() -> Self {
        Dir(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).unwrap()
    }

    /// Runs our program in the directory.
    pub fn ours(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pve-xdelta3"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null()).env_remove("XDELTA");
        command.output().unwrap()
    }

    pub fn ours_ok(&self, args: &[&str]) -> Output {
        let output = self.ours(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Runs our program, which must fail with status 1; returns its message.
    pub fn ours_fails(&self, args: &[&str]) -> String {
        let output = self.ours(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs xdelta3 in the directory.
    pub fn xdelta3(&self, args: &[&str]) -> Output {
        let mut command = Command::new("xdelta3");
        command.args(args).current_dir(self.path()).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Runs xdelta3, which must succeed.
    pub fn xdelta3_ok(&self, args: &[&str]) -> Output {
        let output = self.xdelta3(args);
        assert!(output.status.success(), "xdelta3 {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }
}

/// Whether the xdelta3 program is here; says so if not.
pub fn have_xdelta3() -> bool {
    let found = Command::new("xdelta3").arg("-V").stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: the xdelta3 program is not installed");
    }
    found
}
