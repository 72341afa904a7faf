//! Cuts files into lines of bytes, and finds our own lines among them.
//!
//! Upstream files are not promised to be UTF-8, to end in a line end or to use one kind of it. A line keeps its
//! own end, so taking our lines out gives back exactly the bytes that were there before.

use std::fmt;

/// The word by which our lines and files are known.
pub const TAG: &str = "pve-diff-backup";

/// One line of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The line without its end.
    pub body: &'a [u8],
    /// `\n`, `\r\n`, or nothing where the file ends without one.
    pub end: &'a [u8],
}

/// Cuts `content` into lines; their bodies and ends together are `content`.
pub fn lines(content: &[u8]) -> impl Iterator<Item = Line<'_>> {
    content.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let body = line.strip_suffix(b"\n").map_or(line, |rest| rest.strip_suffix(b"\r").unwrap_or(rest));
        Line { body, end: &line[body.len()..] }
    })
}

/// How the marker is written, by the language of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Comment {
    /// `# ...`
    Perl,
    /// `<!-- ... -->`
    Html,
    /// `// ...`
    Js,
}

impl Comment {
    const ALL: [Self; 3] = [Self::Perl, Self::Html, Self::Js];

    /// The comment of a file called `name`, where its ending tells.
    pub fn of_file(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "pm" | "pl" => Some(Self::Perl),
            "html" | "tpl" => Some(Self::Html),
            "js" => Some(Self::Js),
            _ => None,
        }
    }

    /// What comes before and after the marker.
    pub fn around(self) -> (&'static str, &'static str) {
        match self {
            Self::Perl => ("# ", ""),
            Self::Html => ("<!-- ", " -->"),
            Self::Js => ("// ", ""),
        }
    }
}

/// The end of each line of ours: which hunk of which version of a patch set it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Version of the patch set.
    pub version: u32,
    /// Id of the hunk.
    pub hunk: String,
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TAG}:{} {}", self.version, self.hunk)
    }
}

impl Marker {
    /// The marker as the comment that ends a line.
    pub fn comment(&self, style: Comment) -> String {
        let (before, after) = style.around();
        format!("{before}{self}{after}")
    }

    /// Finds the marker at the end of a line. Blanks behind it (an editor's doing) are ignored.
    pub fn find(body: &[u8]) -> Option<Self> {
        let body = body.trim_ascii_end();
        let start = body.windows(TAG.len()).rposition(|window| window == TAG.as_bytes())?;
        let (before, rest) = (&body[..start], &body[start + TAG.len()..]);
        let rest = std::str::from_utf8(rest).ok()?.strip_prefix(':')?;
        Comment::ALL.iter().find_map(|style| {
            let (open, close) = style.around();
            if !before.ends_with(open.as_bytes()) {
                return None;
            }
            let (version, hunk) = rest.strip_suffix(close)?.split_once(' ')?;
            Some(Self { version: version.parse().ok()?, hunk: is_id(hunk).then(|| hunk.to_owned())? })
        })
    }
}

/// Whether `text` may name a hunk: lower-case letters, digits and hyphens.
pub fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A file without our lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stripped {
    /// What is left: the pristine file, or the pristine file with others' edits.
    pub rest: Vec<u8>,
    /// The markers of the lines taken out, in their order.
    pub markers: Vec<Marker>,
}

/// Takes our lines out of `content`.
///
/// Insertion gives the last line of a file without final line end one, and leaves its own last
/// line without; so where the last line is ours and has none, the line before it had none either.
pub fn strip(content: &[u8]) -> Stripped {
    let mut rest = Vec::with_capacity(content.len());
    let mut markers = Vec::new();
    // Length of the last kept line's end.
    let mut kept_end = 0;
    let mut ours_is_unended = false;
    for line in lines(content) {
        if let Some(marker) = Marker::find(line.body) {
            markers.push(marker);
            ours_is_unended = line.end.is_empty();
        } else {
            rest.extend_from_slice(line.body);
            rest.extend_from_slice(line.end);
            kept_end = line.end.len();
        }
    }
    if ours_is_unended {
        rest.truncate(rest.len() - kept_end);
    }
    Stripped { rest, markers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn markers_are_found_in_every_style() {
        for style in Comment::ALL {
            let marker = Marker { version: 3, hunk: "archive-info".into() };
            let line = format!("    code(); {}", marker.comment(style));
            assert_eq!(Marker::find(line.as_bytes()), Some(marker.clone()), "{line}");
            assert_eq!(Marker::find(format!("{line}  \t").as_bytes()), Some(marker));
        }
    }

    #[test]
    fn mere_mentions_are_no_markers() {
        for line in [
            "# see pve-diff-backup",
            "x # pve-diff-backup:1",
            "x # pve-diff-backup:1 ",
            "x # pve-diff-backup:one id",
            "x # pve-diff-backup:1 two ids",
            "x pve-diff-backup:1 id",
            "<!-- pve-diff-backup:1 id",
            "x # pve-diff-backup:1 id;",
            "src=\"pve-diff-backup.js\"",
        ] {
            assert_eq!(Marker::find(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn stripping_gives_back_a_missing_final_line_end() {
        let stripped = strip(b"a\r\n1;\r\nx # pve-diff-backup:1 id");
        assert_eq!(stripped.rest, b"a\r\n1;");
        assert_eq!(stripped.markers.len(), 1);
    }

    proptest! {
        #[test]
        fn lines_hold_every_byte(content in proptest::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200)) {
            let mut whole = Vec::new();
            for line in lines(&content) {
                whole.extend_from_slice(line.body);
                whole.extend_from_slice(line.end);
            }
            prop_assert_eq!(whole, content);
        }
    }
}
