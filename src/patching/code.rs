//! Checks that a line of ours in a Perl module stands where perl takes it for code.
//!
//! A module loads as well where our line is part of its documentation or of a text, and then does nothing. Here it is only read:
//! this holds too where a module must not be loaded. What is told apart is what spans lines: documentation
//! (perlpod(1)), here-documents (perlop(1)), and all behind `__END__` or `__DATA__`.

use super::text::{Comment, Marker, lines};

/// Why a patched module is wrong; `None` where it is not.
pub fn fault(patched: &[u8]) -> Option<String> {
    let all: Vec<&[u8]> = lines(patched).map(|line| line.body).collect();
    // A line of HTML belongs into a text: old releases make the web page in a module.
    let is_html = |index: usize| all[index].trim_ascii_end().ends_with(Comment::Html.around().1.as_bytes());
    let ours = |index: usize| Marker::find(all[index]).is_some() && !is_html(index);
    let mut index = 0;
    while index < all.len() {
        let line = all[index];
        let (what, end) = match () {
            () if is_end(line) => ("what follows the end of the code", all.len()),
            () if is_pod(line) => {
                let cut = (index + 1..all.len()).find(|at| all[*at].starts_with(b"=cut"));
                ("a piece of documentation", cut.unwrap_or(all.len()))
            }
            () => match here_document(line).and_then(|mark| Some((mark, find_end(&all, index + 1, mark)?))) {
                Some((_, end)) => ("a text", end),
                None => {
                    index += 1;
                    continue;
                }
            },
        };
        if let Some(at) = (index + 1..end).find(|at| ours(*at)) {
            return Some(format!("line {} is inside of {what} that begins in line {}", at + 1, index + 1));
        }
        index = end.max(index + 1);
    }
    None
}

fn is_end(line: &[u8]) -> bool {
    [&b"__END__"[..], b"__DATA__"].contains(&line.trim_ascii_end())
}

fn is_pod(line: &[u8]) -> bool {
    line.first() == Some(&b'=')
        && line.get(1).is_some_and(u8::is_ascii_alphabetic)
        && !line.starts_with(b"=cut")
}

/// The word that ends the here-document which `line` begins, and whether that may be indented.
fn here_document(line: &[u8]) -> Option<(&[u8], bool)> {
    let begin = line.windows(2).position(|two| two == b"<<")?;
    if line[..begin].contains(&b'#') {
        return None;
    }
    let rest = &line[begin + 2..];
    let (rest, indented) = rest.strip_prefix(b"~").map_or((rest, false), |rest| (rest, true));
    let quote = rest.first().copied().filter(|byte| matches!(byte, b'\'' | b'"'));
    let word = &rest[usize::from(quote.is_some())..];
    let length = match quote {
        Some(quote) => word.iter().position(|byte| *byte == quote)?,
        None => word.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count(),
    };
    let named = quote.is_some() || word.first().is_some_and(|byte| !byte.is_ascii_digit());
    (length > 0 && named).then_some((&word[..length], indented))
}

/// Finds the line that ends a here-document. Where there is none, the line before did not begin one.
fn find_end(all: &[&[u8]], from: usize, (word, indented): (&[u8], bool)) -> Option<usize> {
    let text = |line: &'_ [u8]| if indented { line.trim_ascii_start().to_vec() } else { line.to_vec() };
    (from..all.len()).find(|at| text(all[*at]) == word)
}

#[cfg(test)]
mod tests {
    use super::fault;

    const OURS: &str = "    my $x = 1; # pve-diff-backup:1 x\n";

    #[test]
    fn ours_is_fine_in_code() {
        for (above, below) in [
            ("sub f {\n", "}\n1;\n"),
            ("=head1 X\n\ntext\n\n=cut\nsub f {\n", "}\n__END__\ntext\n"),
            ("print <<EOT;\ntext\nEOT\n", "1;\n"),
            ("print <<~'E T';\n  text\n  E T\n", "1;\n"),
            ("my $x = 1 << 20; my $y = $x <<NOT;\n", "1;\n"),
            ("# see <<EOT\n", "EOT\n"),
        ] {
            assert_eq!(fault(format!("{above}{OURS}{below}").as_bytes()), None, "{above}");
        }
    }

    #[test]
    fn a_line_of_html_is_fine_in_text() {
        let page = "print <<EOT;\n<p>\n<script></script> <!-- pve-diff-backup:1 script -->\nEOT\n";
        assert_eq!(fault(page.as_bytes()), None);
    }

    #[test]
    fn ours_is_not_fine_in_text() {
        for (above, below, what) in [
            ("1;\n__END__\n", "", "line 3 is inside of what follows"),
            ("=pod\n\n", "\n=cut\n", "line 3 is inside of a piece of documentation that begins in line 1"),
            ("=head1 X\n\n", "", "documentation"),
            ("print <<EOT;\n", "EOT\n", "a text that begins in line 1"),
            ("f(<<\"END\", 1);\n\n", "END\n", "line 3 is inside of a text"),
        ] {
            let said = fault(format!("{above}{OURS}{below}").as_bytes()).unwrap_or_default();
            assert!(said.contains(what), "{above}: {said}");
        }
    }
}
