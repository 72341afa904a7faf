//! Several chains at the same time, priorities, and what belongs to no chain.

use std::collections::BTreeSet;
use std::fs;

use super::dump::{COMPRESSIONS, Dump, Verified, verify};

/// Directories of two chains each, one differential of which is cut.
fn dumps() -> Vec<Dump> {
    let dumps: Vec<_> = COMPRESSIONS.into_iter().map(Dump::new).collect();
    dumps[1].damage(&dumps[1].differential(&dumps[1].vm(), 21), |bytes| bytes.truncate(bytes.len() / 2));
    dumps
}

#[test]
fn as_many_jobs_as_wanted_find_the_same() {
    let dumps = dumps();
    let run = |options: &[&str]| {
        let found = Verified::new(verify().args(options).args(dumps.iter().map(|it| it.dir.path())));
        // What differs are times and their order.
        let told = |line: &String| line.rsplit_once(", ").map_or(line.as_str(), |(told, _)| told).to_owned();
        let (last, lines) = found.lines.split_last().unwrap();
        (found.code, lines.iter().map(told).collect::<BTreeSet<_>>(), last.clone())
    };
    let one = run(&["--all"]);
    assert_eq!((one.0, one.1.len(), one.2.as_str()), (1, 16, "16 checked, 1 NOT restorable"), "{one:#?}");
    for options in [&["--all", "--jobs=3"][..], &["--all", "--jobs=32", "--ionice=8", "--bwlimit=1000000"]] {
        assert_eq!(run(options), one, "{options:?}");
    }
    for wrong in ["--jobs=0", "--jobs=33", "--ionice=9"] {
        assert_eq!(verify().arg(wrong).output().unwrap().status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn each_line_of_json_is_whole_with_several_jobs() {
    let dumps = dumps();
    let paths = dumps.iter().map(|it| it.dir.path());
    let found = Verified::new(verify().args(["--all", "--json", "--jobs=4"]).args(paths));
    let lines = found.json();
    assert_eq!((lines.len(), &lines[16]["ok"], &lines[16]["failed"]), (17, &15.into(), &1.into()));
}

#[test]
fn what_belongs_to_no_chain_is_listed_and_stays() {
    let dump = Dump::new(COMPRESSIONS[0]);
    let none = dump.verify(&["--orphans"]);
    assert_eq!(
        (none.code, none.lines.as_slice()),
        (0, &["every backup here belongs to a chain".to_owned()][..])
    );
    let left = "vzdump-qemu-101-2026_11_22-01_00_02.vma.pve9-0badcafe.dat";
    fs::write(dump.path(left), "123").unwrap();
    fs::write(dump.path("odd\nname.vcdiff"), "").unwrap();
    fs::remove_file(dump.path(dump.vm())).unwrap();
    let before = fs::read_dir(dump.dir.path()).unwrap().count();
    let found = dump.verify(&["--orphans"]);
    assert_eq!((found.code, found.lines.len()), (1, 4), "{:#?}", found.lines);
    let gone = dump.differential(&dump.vm(), 21);
    for (word, name) in [("LEFTOVER", left), ("STRANDED", &gone), ("UNREADABLE", "odd\\nname.vcdiff")] {
        let line = found.line(name);
        assert!(line.starts_with(word) && line.contains(": "), "{line}");
    }
    let last = found.lines.last().unwrap();
    assert!(last.starts_with("3 files of no chain: 1 leftover, 1 stranded, 1 unreadable; "), "{last}");
    let json = dump.verify(&["--orphans", "--json"]);
    let lines = json.json();
    assert_eq!(
        (json.code, lines.len(), &lines[0]["kind"], &lines[0]["size"]),
        (1, 4, &"leftover".into(), &3.into())
    );
    assert_eq!(lines[3]["stranded"], 1);
    assert_eq!(fs::read_dir(dump.dir.path()).unwrap().count(), before);
    // The wrong place is not a good one, and what is not looked at is told.
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(Verified::new(verify().arg("--orphans").arg(empty.path())).code, 2);
    assert_eq!(dump.verify(&["--orphans", "/nowhere"]).code, 1);
    assert_eq!(dump.verify(&["--orphans", "--all"]).code, 2);
}
