//! Inserts the lines of a hunk below its anchor line, of which there must be exactly one.

use std::collections::BTreeMap;

use super::candidates::{found_line, most_similar};
use super::patchset::{Hunk, Indent};
use super::pattern::Pattern;
use super::refusal::{Place, Refusal};
use super::text::{Line, Marker, lines};

/// Inserts the hunks into a file that holds none of our lines.
pub(super) fn insert(
    pristine: &[u8],
    hunks: &[&Hunk],
    version: u32,
    place: &dyn Fn(&Hunk, Option<&Pattern>) -> Box<Place>,
) -> Result<Vec<u8>, Vec<Refusal>> {
    let all: Vec<Line> = lines(pristine).collect();
    let mut refusals = Vec::new();
    // Hunks by the index of their anchor line, in the set's order.
    let mut below: BTreeMap<usize, Vec<&Hunk>> = BTreeMap::new();
    for hunk in hunks {
        match find_anchor(&all, hunk, place) {
            Ok(index) => below.entry(index).or_default().push(hunk),
            Err(refusal) => refusals.push(refusal),
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let mut out = Vec::with_capacity(pristine.len() + 4096);
    for (index, line) in all.iter().enumerate() {
        out.extend_from_slice(line.body);
        out.extend_from_slice(line.end);
        let Some(hunks) = below.get(&index) else { continue };
        // Where the file ends without a line end, its last line gets one and ours does without: see `strip`.
        let unended = line.end.is_empty();
        let end =
            if unended { index.checked_sub(1).map_or(&b"\n"[..], |above| all[above].end) } else { line.end };
        if unended {
            out.extend_from_slice(end);
        }
        for hunk in hunks {
            let comment = Marker { version, hunk: hunk.id.clone() }.comment(hunk.comment);
            let indent = indentation(&all, index, hunk.indent);
            for text in &hunk.lines {
                for part in [indent, text.as_bytes(), b" ", comment.as_bytes(), end] {
                    out.extend_from_slice(part);
                }
            }
        }
        if unended {
            out.truncate(out.len() - end.len());
        }
    }
    Ok(out)
}

/// Finds the index of the one line below which the hunk goes.
pub(super) fn find_anchor(
    all: &[Line],
    hunk: &Hunk,
    place: &dyn Fn(&Hunk, Option<&Pattern>) -> Box<Place>,
) -> Result<usize, Refusal> {
    let block = match &hunk.within {
        None => 0..all.len(),
        Some(within) => {
            let start = only_line(all, 0..all.len(), std::slice::from_ref(within), || place(hunk, None))?;
            let indent = leading_blanks(all[start].body);
            let end = (start + 1..all.len()).find(|index| {
                let body = all[*index].body;
                leading_blanks(body) == indent && closes_block(body)
            });
            match end {
                Some(end) => start..end,
                None => return Err(Refusal::BlockOpen { place: place(hunk, Some(within)), line: start + 1 }),
            }
        }
    };
    only_line(all, block, &hunk.anchors, || place(hunk, hunk.within.as_ref()))
}

/// Finds the one line in `range` that matches one of the patterns.
fn only_line(
    all: &[Line],
    range: std::ops::Range<usize>,
    patterns: &[Pattern],
    place: impl Fn() -> Box<Place>,
) -> Result<usize, Refusal> {
    let found: Vec<usize> =
        range.filter(|index| patterns.iter().any(|pattern| pattern.matches(all[*index].body))).collect();
    let wanted = || patterns.iter().map(Pattern::to_string).collect::<Vec<_>>().join("` or `");
    match found[..] {
        [index] => Ok(index),
        [] => {
            let candidates =
                most_similar(all, patterns).into_iter().map(|index| found_line(all, index)).collect();
            Err(Refusal::AnchorMissing { place: place(), wanted: wanted(), candidates })
        }
        _ => Err(Refusal::AnchorAmbiguous {
            place: place(),
            wanted: wanted(),
            lines: found.iter().map(|index| index + 1).collect(),
        }),
    }
}

/// The indentation of lines inserted below line `index`.
fn indentation<'a>(all: &[Line<'a>], index: usize, indent: Indent) -> &'a [u8] {
    let anchor = leading_blanks(all[index].body);
    let next = all[index + 1..].iter().find(|line| !line.body.trim_ascii().is_empty());
    match next {
        Some(next) if indent == Indent::Next && !closes_block(next.body) => leading_blanks(next.body),
        _ => anchor,
    }
}

fn leading_blanks(body: &[u8]) -> &[u8] {
    &body[..body.iter().take_while(|b| matches!(b, b' ' | b'\t')).count()]
}

fn closes_block(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'}' | b']' | b')'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patching::text::{Comment, strip};
    use proptest::prelude::*;

    fn hunk(id: &str, anchor: &str, indent: Indent, texts: &[&str]) -> Hunk {
        Hunk {
            id: id.to_owned(),
            package: "p".to_owned(),
            file: "f".to_owned(),
            generations: 0..=0,
            within: None,
            anchors: vec![Pattern::parse(anchor).unwrap()],
            indent,
            comment: Comment::Perl,
            lines: texts.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    fn inserted(content: &[u8], hunks: &[&Hunk]) -> Result<Vec<u8>, Vec<Refusal>> {
        insert(content, hunks, 1, &|hunk, block| {
            Box::new(Place {
                package: hunk.package.clone(),
                version: "1".to_owned(),
                file: hunk.file.clone(),
                hunk: hunk.id.clone(),
                block: block.map(Pattern::to_string),
                origin: None,
            })
        })
    }

    fn text(content: &str, hunks: &[&Hunk]) -> String {
        String::from_utf8(inserted(content.as_bytes(), hunks).unwrap()).unwrap()
    }

    #[test]
    fn lines_go_below_the_anchor_with_the_wanted_indentation() {
        let next = hunk("n", "sub f {", Indent::Next, &["a", "  b"]);
        assert_eq!(
            text("sub f {\n\n\tx;\n}\n", &[&next]),
            "sub f {\n\ta # pve-diff-backup:1 n\n\t  b # pve-diff-backup:1 n\n\n\tx;\n}\n"
        );
        // An empty block gives no example.
        assert_eq!(text("  sub f {\n  }\n", &[&next]).lines().nth(1), Some("  a # pve-diff-backup:1 n"));
        let anchor = hunk("a", "x;", Indent::Anchor, &["a"]);
        assert_eq!(text("  x;\n\t}\n", &[&anchor]).lines().nth(1), Some("  a # pve-diff-backup:1 a"));
    }

    #[test]
    fn hunks_at_the_same_anchor_keep_the_order_of_the_set() {
        let (one, two) = (hunk("one", "x", Indent::Anchor, &["1"]), hunk("two", "x", Indent::Anchor, &["2"]));
        assert_eq!(text("x", &[&one, &two]), "x\n1 # pve-diff-backup:1 one\n2 # pve-diff-backup:1 two");
    }

    #[test]
    fn a_block_ends_at_its_own_indentation() {
        let mut inner = hunk("i", "x", Indent::Anchor, &["y"]);
        inner.within = Some(Pattern::parse("sub f {").unwrap());
        let content = "sub f {\n  if (1) {\n  }\n  x\n}\nx\n";
        assert!(text(content, &[&inner]).starts_with("sub f {\n  if (1) {\n  }\n  x\n  y # pve"));
        let refusals = inserted(b"sub f {\n}\nx\n", &[&inner]).unwrap_err();
        assert!(matches!(refusals[..], [Refusal::AnchorMissing { .. }]));
    }

    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"  ".to_vec()),
            Just(b"\t".to_vec()),
            Just(b"}".to_vec()),
            Just(b"text".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn what_is_inserted_can_be_taken_out(before in pieces(), end in "(\n|\r\n|)", after in pieces()) {
            let mut content = before;
            content.extend_from_slice(b"\nANCHOR");
            content.extend_from_slice(end.as_bytes());
            if !end.is_empty() {
                content.extend_from_slice(&after);
            }
            let (one, two) = (hunk("one", "ANCHOR", Indent::Anchor, &["1"]), hunk("two", "ANCHOR", Indent::Next, &["2"]));
            let patched = inserted(&content, &[&one, &two]).unwrap();
            let stripped = strip(&patched);
            prop_assert_eq!(stripped.rest, content);
            prop_assert_eq!(stripped.markers.len(), 2);
        }
    }
}
