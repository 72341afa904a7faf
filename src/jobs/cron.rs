//! Reads and edits the option in `vzdump.cron`, a crontab with users (cron.d(5)). A line is taken apart into words as the
//! shell would do it.

use super::{OPTION, days};

/// The error for a line that ends inside quotes.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenQuote;

/// A line that runs vzdump, or would if it were enabled (`#vzdump`).
#[derive(Debug)]
pub struct Job<'a> {
    line: &'a [u8],
    words: Vec<Word>,
    /// The range of the line that holds the option, its value and the blanks before them.
    cuts: Vec<(usize, usize)>,
    /// The position behind the word vzdump.
    behind: usize,
    /// The option's value.
    pub days: Option<u32>,
    /// The only node that runs the job.
    pub node: Option<String>,
}

/// Finds the job in `line`. The result is `None` where the line runs no vzdump, and where the option has a value that is
/// no number of days, as no vzdump accepts that.
///
/// # Errors
/// [`OpenQuote`] where the option is in a line that cannot be taken apart.
pub fn parse(line: &[u8]) -> Result<Option<Job<'_>>, OpenQuote> {
    if line.trim_ascii_start().starts_with(b"#") {
        return Ok(None);
    }
    let Ok(words) = words(line) else {
        let mentioned = |word: &str| line.windows(word.len()).any(|part| part == word.as_bytes());
        return if mentioned("vzdump") && mentioned(OPTION) { Err(OpenQuote) } else { Ok(None) };
    };
    let Some(start) = words.iter().position(Word::is_vzdump) else { return Ok(None) };
    let mut job = Job { line, cuts: Vec::new(), behind: words[start].end, days: None, node: None, words };
    let mut index = start + 1;
    while let Some(word) = job.words.get(index).filter(|word| !word.ends_command()) {
        index += 1;
        let Some(name) = word.text.strip_prefix("--").or(word.text.strip_prefix('-')) else { continue };
        let (name, attached) = match name.split_once('=') {
            Some((name, value)) => (name.to_ascii_lowercase(), Some(value)),
            None => (name.to_ascii_lowercase(), None),
        };
        let (is_ours, is_node) = (is_option(&name), name == "node");
        if !is_ours && !is_node {
            continue;
        }
        let (value, end) = match (attached, job.words.get(index)) {
            (Some(value), _) => (value, word.end),
            (None, Some(next)) if !next.ends_command() => {
                index += 1;
                (next.text.as_str(), next.end)
            }
            (None, _) => return Ok(None),
        };
        if is_node {
            job.node = Some(value.to_owned());
            continue;
        }
        let Some(days) = days(value) else { return Ok(None) };
        job.days = Some(days);
        let blanks = line[..word.start].iter().rev().take_while(|byte| is_blank(**byte)).count();
        job.cuts.push((word.start - blanks, end));
    }
    Ok(Some(job))
}

impl Job<'_> {
    /// The line without the option.
    pub fn without(&self) -> Vec<u8> {
        let mut after = Vec::with_capacity(self.line.len());
        let mut done = 0;
        for (start, end) in &self.cuts {
            after.extend_from_slice(&self.line[done..*start]);
            done = *end;
        }
        after.extend_from_slice(&self.line[done..]);
        after
    }

    /// The line with the option, which must not be there.
    pub fn with(&self, days: u32) -> Vec<u8> {
        let (before, behind) = self.line.split_at(self.behind);
        [before, format!(" --{OPTION} {days}").as_bytes(), behind].concat()
    }

    /// Whether this is the same job as `other`. The order of options does not count, because Proxmox VE writes them in any
    /// order, nor does it count whether the job is enabled.
    pub fn is(&self, other: &str) -> bool {
        words(other.as_bytes()).is_ok_and(|other| sorted(&self.words) == sorted(&other))
    }
}

fn sorted(words: &[Word]) -> Vec<&str> {
    let plain = |word: &Word| word.is_vzdump();
    let mut sorted: Vec<&str> =
        words.iter().map(|word| if plain(word) { "vzdump" } else { word.text.as_str() }).collect();
    sorted.sort_unstable();
    sorted
}

/// vzdump takes options shortened and in any case (Getopt::Long); no other one begins with "fu".
fn is_option(name: &str) -> bool {
    name.len() >= 2 && OPTION.starts_with(name)
}

/// A word of the shell, or an operator.
#[derive(Debug)]
struct Word {
    start: usize,
    end: usize,
    /// The word without its quotes.
    text: String,
    /// An operator such as `;`, `|` or `&`, behind which another command may begin.
    is_operator: bool,
}

impl Word {
    fn is_vzdump(&self) -> bool {
        let name = self.text.rsplit('/').next().unwrap_or_default();
        !self.is_operator && matches!(name, "vzdump" | "#vzdump")
    }

    fn ends_command(&self) -> bool {
        self.is_operator || self.text.starts_with('#')
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn words(line: &[u8]) -> Result<Vec<Word>, OpenQuote> {
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<(usize, Vec<u8>)> = None;
    let mut at = 0;
    let close = |word: Option<(usize, Vec<u8>)>, end: usize, words: &mut Vec<Word>| {
        if let Some((start, text)) = word {
            let text = String::from_utf8_lossy(&text).into_owned();
            words.push(Word { start, end, text, is_operator: false });
        }
    };
    while let Some(&byte) = line.get(at) {
        match byte {
            byte if is_blank(byte) => close(word.take(), at, &mut words),
            b';' | b'|' | b'&' | b'<' | b'>' | b'(' | b')' => {
                close(word.take(), at, &mut words);
                let text = char::from(byte).to_string();
                words.push(Word { start: at, end: at + 1, text, is_operator: true });
            }
            b'\'' | b'"' => {
                let text = &mut word.get_or_insert((at, Vec::new())).1;
                loop {
                    at += 1;
                    match *line.get(at).ok_or(OpenQuote)? {
                        end if end == byte => break,
                        b'\\' if byte == b'"' => {
                            at += 1;
                            text.push(*line.get(at).ok_or(OpenQuote)?);
                        }
                        other => text.push(other),
                    }
                }
            }
            b'\\' => {
                at += 1;
                let next = *line.get(at).ok_or(OpenQuote)?;
                word.get_or_insert((at - 1, Vec::new())).1.push(next);
            }
            byte => word.get_or_insert((at, Vec::new())).1.push(byte),
        }
        at += 1;
    }
    close(word, line.len(), &mut words);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(line: &str) -> Option<(String, u32)> {
        let job = parse(line.as_bytes()).unwrap()?;
        Some((String::from_utf8(job.without()).unwrap(), job.days?))
    }

    #[test]
    fn the_option_is_taken_out_in_all_its_forms() {
        for option in [
            "--fullbackup 7",
            "-fullbackup 7",
            "--fullbackup=7",
            "--fullbackup '7'",
            "--FullBackup \"7\"",
            "--fullb 7",
        ] {
            for (before, behind) in [("100", " --mode snapshot\n"), ("100 101", "\n"), ("--all 1", "")] {
                let head = "0 2 * * 1,2    root vzdump ";
                let line = format!("{head}{before} {option}{behind}");
                assert_eq!(without(&line), Some((format!("{head}{before}{behind}"), 7)), "{line}");
            }
        }
        let twice = "0 2 * * * root /usr/bin/#vzdump --fullbackup 1 5 --fullbackup 2 >/dev/null 2>&1\n";
        assert_eq!(without(twice), Some(("0 2 * * * root /usr/bin/#vzdump 5 >/dev/null 2>&1\n".into(), 2)));
    }

    #[test]
    fn nothing_else_is_taken_for_it() {
        for line in [
            "# 0 2 * * * root vzdump 100 --fullbackup 7\n",
            "PATH=\"/usr/sbin:/usr/bin\"\n",
            "\n",
            "0 2 * * * root backup-all --fullbackup 7\n",
            "0 2 * * * root vzdump 100 --exclude-path '/x --fullbackup 7'\n",
            "0 2 * * * root vzdump 100; other --fullbackup 7\n",
            "0 2 * * * root vzdump 100 # --fullbackup 7\n",
            "0 2 * * * root vzdump 100 --fullbackup\n",
            "0 2 * * * root vzdump 100 --fullbackup many\n",
            "0 2 * * * root vzdump 100 --fullbackups 7 --f 7\n",
            "0 2 * * * root vzdump 100 --script 'x --fullbackup 7\\'\n",
        ] {
            assert_eq!(without(line), None, "{line}");
        }
        assert!(parse(b"0 2 * * * root vzdump 100 --fullbackup 7 --script 'x\n").is_err());
        assert!(parse(b"0 2 * * * root vzdump 100 --script 'x\n").is_ok());
    }

    #[test]
    fn a_line_is_known_again() {
        let line = "0 2 * * * root vzdump 100 --mode snapshot --exclude-path '/a b' --storage nas";
        let other =
            "0 2 * * *           root #vzdump 100 --storage nas --exclude-path \"/a b\" --mode snapshot\n";
        let job = parse(other.as_bytes()).unwrap().unwrap();
        assert!(job.is(line));
        assert!(!job.is(&line.replace("100", "101")));
        assert!(!job.is("an 'open quote"));
        let with = String::from_utf8(job.with(7)).unwrap();
        assert_eq!(with, other.replace("#vzdump 100", "#vzdump --fullbackup 7 100"));
        assert_eq!(without(&with), Some((other.to_owned(), 7)));
    }

    #[test]
    fn the_node_that_runs_it() {
        for (line, node) in [
            ("0 2 * * * root vzdump --all 1 --node pve2 --fullbackup 7", Some("pve2")),
            ("0 2 * * * root vzdump --all 1 --node=pve2", Some("pve2")),
            ("0 2 * * * root vzdump --all 1", None),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap().unwrap().node.as_deref(), node);
        }
    }
}
