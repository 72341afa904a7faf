//! Our readers beside the programs that everybody else reads these formats with: Debian's xdelta3 and lzop.
//!
//! Two readers of one format must say the same of any file: both refuse it, or both read the same bytes from it. Where
//! they are known to differ, `XDELTA3_IS_LAXER` and its like say why; any other difference is a fault of one of them.

use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};

use pve_diff_backup::container::lzop;
use pve_diff_backup::vcdiff::{Error, Item, Limits, MAX_WINDOW, Reader};

use super::{ENOUGH, apply, seeds};

/// What xdelta3 restores although we refuse it, by our words for it.
const XDELTA3_IS_LAXER: &[&str] = &[
    // It knows neither our fields of the application header nor our end record.
    "the fields that describe the base are not as they were written",
    "without the end record that its header announces",
    "bytes follow the end record",
    "its length differs from the end record",
    // It builds no more of a Huffman code than it uses.
    "a DJW section has an impossible code",
];

/// What xdelta3 refuses although we restore it, by its words for it.
const XDELTA3_IS_STRICTER: &[&str] = &[
    // It wants each integer in as few bytes as possible; RFC 3284 section 2 does not.
    "incorrect encoding length (redundent)",
    // It never gives an empty target.
    "nothing to output",
];

/// What lzop reads although we refuse it, by our words for it.
const LZOP_IS_LAXER: &[&str] = &[
    // It warns that it leaves out what follows the last member, a part of a header too; a backup with more behind it is damaged to us.
    "or other data appended to one",
    "within a header",
];

/// What lzop refuses although we read it: nothing that is known.
const LZOP_IS_STRICTER: &[&str] = &[];

/// A delta, restored by us and by xdelta3; true where both do.
pub fn xdelta3(data: &[u8]) -> bool {
    let mut base = tempfile::NamedTempFile::new().expect("a temporary file");
    base.write_all(&seeds::base()).expect("a written file");
    let mut program = Command::new("timeout");
    // -D, -R: no other program, whatever the delta's header asks for.
    program.args(["10", "xdelta3", "-d", "-c", "-D", "-R", "-s"]).arg(base.path());
    let theirs = run(program, data, &[0]);
    agree(restore(data).map_err(|error| error.to_string()), theirs, XDELTA3_IS_LAXER, XDELTA3_IS_STRICTER)
}

/// An lzop file, read by us and by lzop; true where both do.
pub fn lzop(data: &[u8]) -> bool {
    let mut content = Vec::new();
    let ours = lzop::Reader::new(data, 1).take(ENOUGH).read_to_end(&mut content);
    let mut program = Command::new("timeout");
    program.args(["10", "lzop", "-d", "-c"]);
    // 2 is a warning, for instance of several members.
    let theirs = run(program, data, &[0, 2]);
    agree(ours.map(|_| content).map_err(|error| error.to_string()), theirs, LZOP_IS_LAXER, LZOP_IS_STRICTER)
}

/// Holds two readers' contents or refusals of one file against each other; true where both read it.
fn agree(
    ours: Result<Vec<u8>, String>,
    theirs: Result<Vec<u8>, String>,
    laxer: &[&str],
    stricter: &[&str],
) -> bool {
    let known = |list: &[&str], said: &str| list.iter().any(|known| said.contains(known));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert!(
                ours == theirs,
                "we read {} bytes, the other program {} others",
                ours.len(),
                theirs.len()
            );
            true
        }
        (Err(_), Err(_)) => false,
        (Ok(_), Err(theirs)) => {
            assert!(known(stricter, &theirs), "only we read it, the other program says: {theirs}");
            true
        }
        (Err(ours), Ok(theirs)) => {
            assert!(
                known(laxer, &ours),
                "only the other program reads it ({} bytes), we say: {ours}",
                theirs.len()
            );
            false
        }
    }
}

/// The target of a delta against the seeds' base, or its first [`ENOUGH`] bytes.
fn restore(data: &[u8]) -> Result<Vec<u8>, Error> {
    let source = seeds::base();
    let mut reader =
        Reader::new(data, Limits { window: MAX_WINDOW, app_header: 1 << 16, ..Limits::default() })?;
    let (mut out, mut content) = (Vec::new(), Vec::new());
    while (content.len() as u64) < ENOUGH
        && let Some(item) = reader.next_item()?
    {
        if let Item::Window(window) = item {
            apply(&window, &source, &mut out)?;
            content.extend_from_slice(&out);
        }
    }
    content.truncate(ENOUGH as usize);
    Ok(content)
}

/// What a program makes of `data` on its standard input: its output, of which [`ENOUGH`] bytes are waited for, or what
/// it says where it ends with another code than `good`.
fn run(mut program: Command, data: &[u8], good: &[i32]) -> Result<Vec<u8>, String> {
    let mut input = tempfile::tempfile().expect("a temporary file");
    input.write_all(data).and_then(|()| input.rewind()).expect("a written file");
    let said = tempfile::tempfile().expect("a temporary file");
    let mut child = program
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(said.try_clone().expect("a second handle"))
        .spawn()
        .expect("the program timeout of coreutils");
    let mut out = Vec::new();
    let pipe = child.stdout.take().expect("a pipe");
    pipe.take(ENOUGH).read_to_end(&mut out).expect("its output");
    let status = child.wait().expect("its end");
    assert!(status.code() != Some(127), "these tests need xdelta3 and lzop");
    if status.code().is_some_and(|code| good.contains(&code)) || out.len() as u64 == ENOUGH {
        return Ok(out);
    }
    let (mut said, mut text) = (said, Vec::new());
    said.rewind().and_then(|()| said.take(4096).read_to_end(&mut text)).expect("what it said");
    Err(format!("{status} {}", String::from_utf8_lossy(&text)))
}
