//! The application header: which base a delta needs.
//!
//! xdelta3 writes `target/compressor/source/compressor`, or only the first two when there is no source, and
//! uses the names as defaults when decoding; its 3.2 appends `#` and a BLAKE3 hash to the names ("armor"). We
//! write the same four fields, the compressors empty so that any compressed form of the base will do (xdelta3
//! believes a compressor named here more than the file), then a NUL byte and fields of our own. xdelta3 and
//! HDiffPatch treat the header as a C string or not at all, so they never see what follows the NUL.
//!
//! ```text
//! vzdump-qemu-101.vma//vzdump-qemu-100.vma.zst/\0pve-xdelta3 end=1 len=2343501824 id=00112233445566778899aabbccddeeff form=map head=… sum=1a2b3c4d
//! ```
//! The names are information for people. We never open a file that a header names.

use crate::text::hex;

const OURS: &[u8] = b"pve-xdelta3";

/// Contents of an application header. Unknown fields of ours are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppHeader {
    /// Name of the target without directories; `-` if it was a stream, which is also what an empty name
    /// is written as.
    pub target_name: Vec<u8>,
    /// Name of the base without directories; empty if there is no base.
    pub base_name: Vec<u8>,
    /// Compressors xdelta3 names for target and base: one letter, or empty. Kept for the record.
    pub compressors: [Vec<u8>; 2],
    /// Length of the decompressed base in bytes, if known.
    pub base_len: Option<u64>,
    /// Identity of the base. Only the program that wrote it knows what it is computed from.
    pub base_identity: Option<[u8; 16]>,
    /// Form of the file that has this identity, in one word: `map`, or the name of a compression.
    pub base_form: Option<String>,
    /// Checksum of the first bytes of the decompressed base. It does not depend on the form.
    pub base_head: Option<[u8; 16]>,
    /// How many bytes back the delta copies, where the base can be read from its front only. Whoever restores keeps as many.
    pub base_window: Option<u64>,
    /// Whether it also copies from further back.
    pub base_far: bool,
    /// Whether the delta ends in an [`EndRecord`](super::EndRecord). If it lacks one then, it was cut short.
    pub end_record: bool,
    /// Whether the hash in the end record is that of the delta itself, not that of its target. Windows may lack checksums then.
    pub end_of_delta: bool,
    /// Whether fields of ours are there, but not as they were written.
    pub damaged: bool,
    /// BLAKE3 of the target and of the base, as xdelta3 3.2 stores them. Not checked by us.
    pub blake3: [Option<[u8; 32]>; 2],
}

impl AppHeader {
    /// Reads any application header. A field that cannot be understood gets its default value, because an application header
    /// can hold anything, and nothing in it is needed to decode.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut header = AppHeader::default();
        let (names, ours) = match bytes.iter().position(|&b| b == 0) {
            Some(nul) => (&bytes[..nul], &bytes[nul + 1..]),
            None => (bytes, &[][..]),
        };
        let fields: Vec<&[u8]> = names.splitn(4, |&b| b == b'/').collect();
        if let [target, compressor, ..] = fields[..] {
            (header.target_name, header.blake3[0]) = split_armor(target);
            header.compressors[0] = compressor.to_vec();
        }
        if let [_, _, base, compressor] = fields[..] {
            (header.base_name, header.blake3[1]) = split_armor(base);
            header.compressors[1] = compressor.to_vec();
        }
        let mut words = ours.split(|&b| b == b' ');
        if words.next() == Some(OURS) {
            // The checksum is the last field and covers all before it.
            let sum = bytes.len().checked_sub(SUM_LEN).map(|at| bytes.split_at(at));
            header.damaged = sum.is_none_or(|(before, sum)| sum != sum_field(before).as_bytes());
            for word in words.filter_map(|w| std::str::from_utf8(w).ok()) {
                match word.split_once('=') {
                    Some(("end", value)) => header.end_record = value == "1",
                    Some(("own", value)) => header.end_of_delta = value == "1",
                    Some(("len", value)) => header.base_len = value.parse().ok(),
                    Some(("window", value)) => header.base_window = value.parse().ok(),
                    Some(("far", value)) => header.base_far = value == "1",
                    Some(("id", value)) => header.base_identity = unhex(value.as_bytes()),
                    Some(("form", value)) => header.base_form = Some(value.into()),
                    Some(("head", value)) => header.base_head = unhex(value.as_bytes()),
                    _ => {}
                }
            }
        }
        header
    }

    /// The header in the form above. Of the names, everything up to the last `/` is dropped, as xdelta3
    /// does, and everything from a NUL on.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let target = last_component(&self.target_name);
        out.extend_from_slice(if target.is_empty() { b"-" } else { target });
        push_armor(&mut out, &self.blake3[0]);
        out.push(b'/');
        out.extend(field(&self.compressors[0]));
        let base = last_component(&self.base_name);
        if !base.is_empty() {
            out.push(b'/');
            out.extend_from_slice(base);
            push_armor(&mut out, &self.blake3[1]);
            out.push(b'/');
            out.extend(field(&self.compressors[1]));
        }
        let fields = [
            self.end_record.then(|| " end=1".to_owned()),
            self.end_of_delta.then(|| " own=1".to_owned()),
            self.base_len.map(|len| format!(" len={len}")),
            self.base_identity.map(|id| format!(" id={}", hex(&id))),
            self.base_form.as_ref().map(|form| format!(" form={form}")),
            self.base_window.map(|window| format!(" window={window}")),
            self.base_far.then(|| " far=1".to_owned()),
            self.base_head.map(|head| format!(" head={}", hex(&head))),
        ];
        let fields: String = fields.into_iter().flatten().collect();
        if !fields.is_empty() {
            out.push(0);
            out.extend_from_slice(OURS);
            out.extend_from_slice(fields.as_bytes());
            out.extend(sum_field(&out).into_bytes());
        }
        out
    }
}

/// Length of [`sum_field`].
const SUM_LEN: usize = 13;

/// The field that ends ours: Adler-32 of the application header before it.
fn sum_field(before: &[u8]) -> String {
    format!(" sum={:08x}", simd_adler32::adler32(&before))
}

/// Returns a compressor's letter, and never anything that would read as a further field.
fn field(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().copied().filter(|&b| b != b'/' && b != 0)
}

fn last_component(name: &[u8]) -> &[u8] {
    let name = name.split(|&b| b == 0).next().unwrap_or_default();
    name.rsplit(|&b| b == b'/').next().unwrap_or_default()
}

/// Splits `name#<64 hex digits>`.
fn split_armor(field: &[u8]) -> (Vec<u8>, Option<[u8; 32]>) {
    let split = field.iter().rposition(|&b| b == b'#');
    match split.and_then(|at| Some((at, unhex::<32>(&field[at + 1..])?))) {
        Some((at, hash)) => (field[..at].to_vec(), Some(hash)),
        None => (field.to_vec(), None),
    }
}

fn push_armor(out: &mut Vec<u8>, hash: &Option<[u8; 32]>) {
    if let Some(hash) = hash {
        out.push(b'#');
        out.extend_from_slice(hex(hash).as_bytes());
    }
}

fn unhex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |d: u8| char::from(d).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_xdelta3_writes() {
        let header = AppHeader::parse(b"target.vma//full.vma.zst/S");
        assert_eq!(header.target_name, b"target.vma");
        assert_eq!(header.base_name, b"full.vma.zst");
        assert_eq!(header.compressors, [b"".to_vec(), b"S".to_vec()]);
        assert!(!header.end_record);

        let no_source = AppHeader::parse(b"-/G");
        assert_eq!((&no_source.target_name[..], &no_source.base_name[..]), (&b"-"[..], &b""[..]));

        let hash = "0f".repeat(32);
        let armor = AppHeader::parse(format!("t#x#{hash}//s#{hash}/").as_bytes());
        assert_eq!((&armor.target_name[..], &armor.base_name[..]), (&b"t#x"[..], &b"s"[..]));
        assert_eq!(armor.blake3, [Some([15; 32]); 2]);

        for other in [
            &b"free text"[..],
            b"",
            b"\0",
            b"/",
            b"a/b/c",
            b"\0pve-xdelta3",
            b"\0pve-xdelta3 len=-1 id=0 end",
        ] {
            let header = AppHeader::parse(other);
            assert!(!header.end_record && header.base_len.is_none() && header.base_identity.is_none());
        }
    }

    #[test]
    fn ignores_unknown_fields() {
        let header = AppHeader::parse(b"a//b/\0pve-xdelta3 new=1 end=1 flag len=7 other");
        assert!(header.end_record);
        assert_eq!(header.base_len, Some(7));
    }

    #[test]
    fn drops_directories() {
        let header = AppHeader {
            target_name: b"/tmp/x\0y".to_vec(),
            base_name: b"../b".to_vec(),
            ..Default::default()
        };
        assert_eq!(header.encode(), b"x//b/");
        assert_eq!(AppHeader::default().encode(), b"-/");
    }

    proptest! {
        #[test]
        fn round_trip(
            target in "[^/#\0]{1,20}", base in "[^/#\0]{0,20}", base_len: Option<u64>, base_identity: Option<[u8; 16]>,
            form in "[a-z]{1,8}", base_window: Option<u64>, base_head: Option<[u8; 16]>, end_record: bool, blake3: Option<[u8; 32]>,
        ) {
            let header = AppHeader {
                blake3: [blake3, blake3.filter(|_| !base.is_empty())],
                target_name: target.into(), base_name: base.into(), compressors: Default::default(),
                base_len, base_identity, base_form: Some(form), base_window, base_head, base_far: end_record, end_record, end_of_delta: !end_record,
                damaged: false,
            };
            prop_assert_eq!(AppHeader::parse(&header.encode()), header);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = AppHeader::parse(&bytes).encode();
        }
    }
}
