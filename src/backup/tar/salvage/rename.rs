//! Gives a member another name.

use super::walk::{Member, records};
use crate::tar::BLOCK;

/// Makes the headers of a member under another name: GNU tar's headers for long names, and what else was said before, but for
/// the old names. If `cut`, its content is this many bytes.
pub(super) fn renamed(member: &Member, name: &[u8], link: Option<&[u8]>, cut: Option<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut front = &member.front[..];
    while let Some((header, rest)) = front.split_first_chunk::<BLOCK>() {
        let size = crate::tar::size(header).and_then(|it| usize::try_from(it).ok()).unwrap_or(0);
        let (content, rest) = rest.split_at(size.next_multiple_of(BLOCK).min(rest.len()));
        front = rest;
        match crate::tar::kind(header) {
            b'L' => {}
            b'K' if link.is_some() => {}
            b'x' | b'X' => {
                let is_kept = |key: &[u8]| {
                    key != b"path"
                        && !(link.is_some() && key == b"linkpath")
                        && !(cut.is_some() && key == b"size")
                };
                let records = records(&content[..size.min(content.len())]);
                let kept: Vec<u8> = records
                    .into_iter()
                    .filter(|(key, _)| is_kept(key))
                    .flat_map(|(k, v)| record(k, v))
                    .collect();
                if !kept.is_empty() {
                    let mut header = *header;
                    set_size(&mut header, kept.len() as u64);
                    push(&mut out, header, &kept);
                }
            }
            _ => {
                out.extend_from_slice(header);
                out.extend_from_slice(content);
            }
        }
    }
    for (kind, text) in [(b'L', Some(name)), (b'K', link)] {
        let Some(text) = text else { continue };
        let mut header = [0; BLOCK];
        header[..13].copy_from_slice(b"././@LongLink");
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[136..148].copy_from_slice(b"00000000000\0");
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar  \0");
        let text = [text, b"\0"].concat();
        set_size(&mut header, text.len() as u64);
        push(&mut out, header, &text);
    }
    let mut block = member.block;
    block[..100].fill(0);
    let short = &name[..name.len().min(99)];
    block[..short.len()].copy_from_slice(short);
    // The rest of a long name; GNU tar keeps times and sparse maps in this field.
    if &block[257..263] == b"ustar\0" {
        block[345..500].fill(0);
    }
    if let Some(link) = link {
        block[157..257].fill(0);
        let short = &link[..link.len().min(99)];
        block[157..157 + short.len()].copy_from_slice(short);
    }
    if let Some(size) = cut {
        set_size(&mut block, size);
    }
    set_checksum(&mut block);
    out.extend_from_slice(&block);
    out
}

/// Makes a record of a pax header. Its length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn set_size(header: &mut [u8; BLOCK], size: u64) {
    match size >> 33 {
        0 => header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes()),
        // As GNU tar writes what has more than eleven octal digits.
        _ => {
            header[124..128].copy_from_slice(&[0x80, 0, 0, 0]);
            header[128..136].copy_from_slice(&size.to_be_bytes());
        }
    }
}

fn set_checksum(header: &mut [u8; BLOCK]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn push(out: &mut Vec<u8>, mut header: [u8; BLOCK], content: &[u8]) {
    set_checksum(&mut header);
    out.extend_from_slice(&header);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}
