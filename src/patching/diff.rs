//! Shows changes as unified diffs: plain ones for `patch`, coloured ones for people.

use std::borrow::Cow;
use std::io::{self, Write};

use similar::{Algorithm, ChangeTag, DiffTag, TextDiff};

use super::change::Change;
use crate::text::harmless_bytes;

/// Lines of context, as `diff -u` has them.
const CONTEXT: usize = 3;

/// The line that follows a last line without line end.
const NO_END: &str = "\\ No newline at end of file";

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const BOLD: &str = "\x1b[1m";
const INVERSE: &str = "\x1b[7m";
const RESET: &str = "\x1b[0m";

/// How a diff is shown; by default as patch(1) takes it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// In colour; changed words within changed lines are set off by inverse video.
    pub colour: bool,
    /// For a terminal: what would command it is escaped. Lines of files are anybody's.
    pub harmless: bool,
}

impl Look {
    fn text(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        match self.harmless {
            true => harmless_bytes(bytes).into_bytes().into(),
            false => bytes.into(),
        }
    }
}

/// Writes `change` as a unified diff with the paths `a/PATH` and `b/PATH` (`patch -p1`).
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, change: &Change, look: Look) -> io::Result<()> {
    let colour = look.colour;
    let paint = |code| if colour { code } else { "" };
    let reset = paint(RESET);
    let name = |side: &str, content: &Option<Vec<u8>>| match content {
        Some(_) => quoted(&format!("{side}/{}", change.path)),
        None => "/dev/null".to_owned(),
    };
    writeln!(out, "{}--- {}{reset}", paint(BOLD), name("a", &change.before))?;
    writeln!(out, "{}+++ {}{reset}", paint(BOLD), name("b", &change.after))?;

    let (before, after) = (split(&change.before), split(&change.after));
    let diff = compare(&before, &after);
    for group in diff.grouped_ops(CONTEXT) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let old = range(first.old_range().start, last.old_range().end);
        let new = range(first.new_range().start, last.new_range().end);
        writeln!(out, "{}@@ -{old} +{new} @@{reset}", paint(CYAN))?;
        for op in &group {
            let emphasise = colour && op.tag() == DiffTag::Replace;
            if emphasise {
                for change in diff.iter_inline_changes(op) {
                    let (sign, code) = sign(change.tag());
                    write!(out, "{code}{sign}")?;
                    for (strong, part) in change.values() {
                        let text = part.strip_suffix(b"\n").unwrap_or(part);
                        if *strong {
                            write!(out, "{INVERSE}")?;
                            out.write_all(&look.text(text))?;
                            write!(out, "{RESET}{code}")?;
                        } else {
                            out.write_all(&look.text(text))?;
                        }
                    }
                    writeln!(out, "{RESET}")?;
                    if change.missing_newline() {
                        writeln!(out, "{NO_END}")?;
                    }
                }
                continue;
            }
            for change in diff.iter_changes(op) {
                let (sign, code) = sign(change.tag());
                let text = change.value();
                let body = text.strip_suffix(b"\n").unwrap_or(text);
                let painted = colour && change.tag() != ChangeTag::Equal;
                write!(out, "{}{sign}", if painted { code } else { "" })?;
                out.write_all(&look.text(body))?;
                writeln!(out, "{}", if painted { RESET } else { "" })?;
                if body.len() == text.len() {
                    writeln!(out, "{NO_END}")?;
                }
            }
        }
    }
    Ok(())
}

/// How many lines `change` inserts and takes out.
pub fn lines(change: &Change) -> (usize, usize) {
    let (before, after) = (split(&change.before), split(&change.after));
    let diff = compare(&before, &after);
    let count = |tag| diff.iter_all_changes().filter(|change| change.tag() == tag).count();
    (count(ChangeTag::Insert), count(ChangeTag::Delete))
}

/// The lines of a file, with their ends.
fn split(content: &Option<Vec<u8>>) -> Vec<&[u8]> {
    content.as_deref().unwrap_or_default().split_inclusive(|byte| *byte == b'\n').collect()
}

fn compare<'a>(before: &[&'a [u8]], after: &[&'a [u8]]) -> TextDiff<'a, 'a, [u8]> {
    TextDiff::configure().algorithm(Algorithm::Myers).newline_terminated(true).diff_slices(before, after)
}

/// Writes `change` as a plain unified diff after proving, with another implementation, that the diff leads from one
/// side to the other and back: it is what people undo us with when we are gone.
///
/// # Errors
/// Those of `out`, and [`io::ErrorKind::Other`] where the diff does not do what it should (a bug).
pub fn write_proven(out: &mut impl Write, change: &Change) -> io::Result<()> {
    let mut patch = Vec::new();
    write(&mut patch, change, Look::default())?;
    let wrong = |what: String| io::Error::other(format!("the diff of {} is wrong: {what}", change.path));
    let parsed = diffy::Patch::from_bytes(&patch).map_err(|e| wrong(e.to_string()))?;
    let side = |content: &Option<Vec<u8>>| content.clone().unwrap_or_default();
    let (before, after) = (side(&change.before), side(&change.after));
    for (from, patch, to) in [(&before, &parsed, &after), (&after, &parsed.reverse(), &before)] {
        let made = diffy::apply_bytes(from, patch).map_err(|e| wrong(e.to_string()))?;
        if made != *to {
            return Err(wrong("it makes something else".to_owned()));
        }
    }
    out.write_all(&patch)
}

fn sign(tag: ChangeTag) -> (char, &'static str) {
    match tag {
        ChangeTag::Equal => (' ', ""),
        ChangeTag::Delete => ('-', RED),
        ChangeTag::Insert => ('+', GREEN),
    }
}

/// A range of lines as in `@@`: a range of none names the line before it.
fn range(start: usize, end: usize) -> String {
    match end - start {
        1 => format!("{}", start + 1),
        0 => format!("{start},0"),
        count => format!("{},{count}", start + 1),
    }
}

/// A file name as GNU diff writes it where it holds blanks or quotes.
fn quoted(name: &str) -> String {
    if name.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}
