//! Checks that a line of ours in a web page's template stands where a browser takes it for an element.
//!
//! A page is no program that could be loaded for a test. But only little can go wrong: a line that is inserted within a
//! directive of the Template Toolkit (`[% ... %]`), an HTML comment, a script or a style is not the element it should be.

use super::text::{Marker, lines};

/// Pairs of words that open and close a part of a page in which elements have no effect.
const PLACES: [(&str, &str); 4] =
    [("[%", "%]"), ("<!--", "-->"), ("<script", "</script>"), ("<style", "</style>")];

/// Why a patched template is wrong; `None` where it is not.
pub fn fault(patched: &[u8]) -> Option<String> {
    let mut above = Vec::new();
    for (index, line) in lines(patched).enumerate() {
        if Marker::find(line.body).is_some() {
            if let Some((open, _)) = PLACES.iter().find(|(open, close)| is_open(&above, open, close)) {
                return Some(format!("line {} is inside of a `{open}`", index + 1));
            }
            let mut with = above.clone();
            with.extend_from_slice(line.body);
            if let Some((open, _)) = PLACES.iter().find(|(open, close)| is_open(&with, open, close)) {
                return Some(format!("line {} opens a `{open}` and does not close it", index + 1));
            }
        }
        above.extend_from_slice(line.body);
        above.push(b'\n');
    }
    None
}

/// Whether `text` ends between an `open` and its `close`.
fn is_open(text: &[u8], open: &str, close: &str) -> bool {
    let last = |word: &str| text.windows(word.len()).rposition(|w| w.eq_ignore_ascii_case(word.as_bytes()));
    match (last(open), last(close)) {
        (Some(open), Some(close)) => open > close,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::fault;

    const OURS: &str = "<script src=\"/x.js\"></script> <!-- pve-diff-backup:1 script -->\n";

    #[test]
    fn ours_is_fine_between_elements() {
        for (above, below) in [
            ("<html>\n<script src=\"a.js\"></script>\n", "<body></body>\n"),
            ("[% IF a %]\n<SCRIPT>x</SCRIPT>\n", "[% END %]\n"),
        ] {
            assert_eq!(fault(format!("{above}{OURS}{below}").as_bytes()), None);
        }
        assert_eq!(fault(b"<!-- no line of ours, and no end\n"), None);
    }

    #[test]
    fn ours_is_not_fine_inside_of_something_else() {
        for above in
            ["<script>\n", "[% INCLUDE\n", "<!-- a\n", "<style>\na {}\n", "<script></script><script>\n"]
        {
            let said = fault(format!("{above}{OURS}").as_bytes()).unwrap();
            assert!(said.contains("line ") && said.contains("inside of"), "{above}: {said}");
        }
        let said = fault(b"<p>\n<script>x <!-- pve-diff-backup:1 script -->\n").unwrap();
        assert!(said.contains("does not close"), "{said}");
    }
}
