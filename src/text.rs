//! Turns what others have written into words for people: names of files, their content, and what kind of file it is.
//!
//! Whoever can write to a storage chooses the names of its files and their content. Such text must not command a
//! terminal, turn the direction of a message, become a part of a web page, or fill a log.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::tar;

/// The number of characters of a text that are shown at most.
const MAX: usize = 255;
/// The text that stands for the characters that were left out.
const CUT: &str = "[...]";

/// Makes a text of others fit for a message: printable, and no longer than 255 characters. `tests/data/shown.json`
/// holds examples of what this function and the Perl side must both return.
pub fn shown(text: impl AsRef<OsStr>) -> String {
    let text = replaced(text.as_ref().as_bytes(), |c| steers(c) || matches!(c, '<' | '>' | '&' | '"'));
    let length = text.chars().count();
    if length <= MAX {
        return text;
    }
    let half = (MAX - CUT.len()) / 2;
    let (head, tail) = (text.chars().take(half), text.chars().skip(length - half));
    head.chain(CUT.chars()).chain(tail).collect()
}

/// Does the same for bytes.
pub fn shown_bytes(bytes: &[u8]) -> String {
    shown(OsStr::from_bytes(bytes))
}

/// Makes all of a text of others printable, for a terminal or a file.
pub fn escaped(bytes: &[u8]) -> String {
    replaced(bytes, steers)
}

/// Escapes what could command a terminal or turn the direction in a whole message. Its lines stay lines.
pub fn harmless(message: &str) -> String {
    harmless_bytes(message.as_bytes())
}

/// Does the same for the content of a file.
pub fn harmless_bytes(content: &[u8]) -> String {
    replaced(content, |c| steers(c) && !matches!(c, '\n' | '\t'))
}

/// Tells whether a character commands a terminal, turns the direction of text, or cannot be seen.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
        || matches!(u32::from(c), 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0xfe00..=0xfe0f)
        || matches!(u32::from(c), 0xfff9..=0xfffb | 0xe0000..=0xe0fff)
}

/// Writes bytes as hexadecimal digits, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes an error with its causes, the outermost first. No error of this crate repeats the text of its `source`, so
/// each cause is told once.
pub fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Replaces the unwanted characters of a text by escape sequences. If the bytes as a whole are not UTF-8, only the
/// ASCII characters among them count as text, and all other bytes are escaped.
fn replaced(bytes: &[u8], is_unwanted: impl Fn(char) -> bool) -> String {
    let escape = |byte| match byte {
        b'\n' => r"\n".into(),
        b'\r' => r"\r".into(),
        b'\t' => r"\t".into(),
        byte => format!(r"\x{byte:02x}"),
    };
    let letter = |c: char| match is_unwanted(c) {
        true => c.to_string().bytes().map(escape).collect(),
        false => String::from(c),
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => text.chars().map(letter).collect(),
        Err(_) => bytes.iter().map(|&b| if b.is_ascii() { letter(b.into()) } else { escape(b) }).collect(),
    }
}

/// Writes a number of things in words: `1 file`, `2 files`.
pub fn count(number: usize, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

/// Names the kind of a file that is not what it should be, by its first bytes. Four bytes suffice for most kinds.
pub fn what_it_is(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "an empty file",
        [b'V', b'M', b'A', 0, ..] => "a VMA archive (a VM's backup)",
        [0xd6, 0xc3, 0xc4, 0, ..] => "a differential (VCDIFF)",
        [0xd6, 0xc3, 0xc4, ..] => "a differential of another kind of VCDIFF",
        _ if tar::begins(bytes) => "a tar archive (a container's backup)",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "something compressed with zstd",
        [0x1f, 0x8b, ..] => "something compressed with gzip",
        [0xfd, b'7', b'z', b'X', ..] => "something compressed with xz",
        [0x89, b'L', b'Z', b'O', ..] => "something compressed with lzop",
        [b'B', b'Z', b'h', ..] => "something compressed with bzip2",
        [b'Q', b'F', b'I', 0xfb, ..] => "a disk image (qcow2)",
        [b'K', b'D', b'M', b'V', ..] => "a disk image (VMDK)",
        [b'P', b'K', 3, 4, ..] => "a ZIP archive",
        [0x7f, b'E', b'L', b'F', ..] => "a program",
        _ if bytes.iter().all(|&b| b == 0) => "something that begins with zeros",
        _ if bytes.iter().all(|b| matches!(b, b'\t' | b'\n' | b'\r' | b' '..=b'~')) => {
            "text, or what begins like it (a tar archive may)"
        }
        _ => "something unknown, or damaged",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_perl_shows_it() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/shown.json");
        let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let vectors = vectors["shown"].as_array().unwrap();
        assert!(vectors.len() > 10);
        for vector in vectors {
            let bytes = match (vector["text"].as_str(), vector["bytes"].as_str()) {
                (Some(text), _) => text.as_bytes().to_vec(),
                (_, hex) => hex
                    .unwrap()
                    .as_bytes()
                    .chunks(2)
                    .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                    .collect(),
            };
            assert_eq!(shown_bytes(&bytes), vector["expect"].as_str().unwrap(), "{}", vector["why"]);
        }
    }

    #[test]
    fn bytes_become_two_digits_each() {
        assert_eq!(hex(&[0, 0x0f, 0xff]), "000fff");
    }

    #[test]
    fn a_message_keeps_its_lines_and_quotes() {
        assert_eq!(harmless("a \"b\" <c>\n\td\x1b[2J\u{202e}"), "a \"b\" <c>\n\td\\x1b[2J\\xe2\\x80\\xae");
    }
}
