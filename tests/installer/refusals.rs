//! Each reason not to patch a host: a message that names package, version, file, place, what was looked for and the next
//! step, an exit code of its own, and nothing changed.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{CREATE, Host, INDEX, PATCHSET, PAYLOAD, STORAGE, VZDUMP};

struct Case {
    /// What is wrong with the host.
    what: &'static str,
    spoil: fn(&Host),
    code: i32,
    /// What the message must hold.
    words: &'static [&'static str],
}

/// Changes a file as a new release of its package would.
fn release(host: &Host, package: &str, path: &str, from: &str, to: &str) {
    host.edit(path, from, to);
    let files: Vec<(&str, Vec<u8>)> = match package {
        "pve-manager" => vec![(VZDUMP, host.read(VZDUMP)), (INDEX, host.read(INDEX))],
        _ => vec![(path, host.read(path))],
    };
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, content)| (*path, &content[..])).collect();
    host.install(package, "9.2", &files);
}

const CASES: [Case; 18] = [
    Case {
        what: "not installed",
        spoil: |host| host.remove("pve-manager", &[VZDUMP, INDEX]),
        code: 6,
        words: &["package pve-manager is not installed", "--root"],
    },
    Case {
        what: "no set for these files",
        spoil: |host| release(host, "libpve-storage-perl", STORAGE, "our $RE", "our $OTHER"),
        code: 5,
        words: &[
            "demo",
            "libpve-storage-perl",
            STORAGE,
            "`^our $RE = ...`",
            "Install a pve-diff-backup that knows",
        ],
    },
    Case {
        what: "two sets for the same files",
        spoil: |host| {
            host.write_patches("other/patchset.yaml", PATCHSET.replace("name: demo", "name: other"))
        },
        code: 5,
        words: &["demo, other", "contradict"],
    },
    Case {
        what: "a file that is gone",
        spoil: |host| fs::remove_file(host.path(STORAGE)).unwrap(),
        code: 7,
        words: &["libpve-storage-perl 9.1.0", STORAGE, "hunk extension", "missing", "reinstall"],
    },
    Case {
        what: "a release without a file",
        spoil: |host| {
            fs::remove_file(host.path(CREATE)).unwrap();
            host.install("pve-container", "9.2", &[]);
        },
        code: 7,
        words: &["pve-container 9.2", CREATE, "does not ship it", "install a newer pve-diff-backup"],
    },
    Case {
        what: "a release without an anchor",
        spoil: |host| release(host, "pve-manager", VZDUMP, "$task->{vmtype} = 'x';", "$task->{kind} = 'x';"),
        code: 8,
        words: &[
            "pve-manager 9.2",
            VZDUMP,
            "hunk choose",
            "in the block `sub exec_backup_task {`",
            "`$task->{vmtype} = ...`",
            "install a newer pve-diff-backup",
        ],
    },
    Case {
        what: "an anchor outside its block",
        spoil: |host| {
            let (from, to) = ("    my ($archive) = @_;\n    return {", "    return {");
            release(host, "libpve-storage-perl", STORAGE, from, to);
        },
        code: 8,
        words: &[
            "libpve-storage-perl 9.2",
            STORAGE,
            "hunk archive-info",
            "in the block `sub archive_info {`",
        ],
    },
    Case {
        what: "a release without a block",
        spoil: |host| release(host, "pve-manager", VZDUMP, "sub exec_backup_task", "sub backup_task"),
        code: 8,
        words: &["hunk choose", "looked for the line `sub exec_backup_task {` and found none"],
    },
    Case {
        what: "a block without an end",
        spoil: |host| release(host, "pve-manager", VZDUMP, "    return 1;\n}\n", ""),
        code: 8,
        words: &["pve-manager 9.2", VZDUMP, "the block that begins in line 6 does not end"],
    },
    Case {
        what: "a release with two anchors",
        spoil: |host| {
            release(host, "pve-container", CREATE, "1;\n}\n1;\n", "1;\n}\n\nsub restore {\n}\n1;\n");
        },
        code: 9,
        words: &["pve-container 9.2", CREATE, "`^sub restore {`", "found 2: lines 4, 8", "install a newer"],
    },
    Case {
        what: "somebody's edit of an anchor",
        spoil: |host| host.edit(VZDUMP, "$task->{vmtype} = 'x';", "$task->{kind} = 'x';"),
        code: 18,
        words: &["pve-manager 9.1.2", VZDUMP, "hunk choose", "Somebody edited this file", "reinstall"],
    },
    Case {
        what: "somebody's second anchor",
        spoil: |host| host.edit(CREATE, "1;\n}\n1;\n", "1;\n}\n\nsub restore {\n}\n1;\n"),
        code: 18,
        words: &[
            "pve-container 6.0.1",
            CREATE,
            "found 2: lines 4, 8",
            "Somebody edited this file",
            "reinstall",
        ],
    },
    Case {
        what: "a file in the way of ours",
        spoil: |host| host.write(PAYLOAD, "package Something::Else;\n1;\n"),
        code: 10,
        words: &[PAYLOAD, "not ours", "`mv /"],
    },
    Case {
        what: "lines that break a module",
        spoil: |host| {
            host.write_patches("demo/patchset.yaml", PATCHSET.replace("my $ours = 1;", "my $ours = ;"));
        },
        code: 11,
        words: &["pve-container 6.0.1", CREATE, "syntax error", "report it"],
    },
    Case {
        what: "lines that break a module for lack of another one",
        spoil: |host| {
            host.write_patches("demo/patchset.yaml", PATCHSET.replace("my $ours = 1;", "my $ours = ;"));
            host.edit(CREATE, "use strict;", "use strict;\nuse PVE::NoSuchModule;");
        },
        code: 11,
        words: &[CREATE, "syntax error"],
    },
    Case {
        what: "lines that break a page",
        spoil: |host| release(host, "pve-manager", INDEX, "<html>", "<html><!-- a comment"),
        code: 11,
        words: &["pve-manager 9.2", INDEX, "line 3 is inside of a `<!--`"],
    },
    Case {
        what: "the originals' patch",
        spoil: |host| host.edit(VZDUMP, "return 1;", "return $opts->{fullbackup};"),
        code: 17,
        words: &[
            "ayufan/pve-patches",
            "pve-manager 9.1.2",
            VZDUMP,
            "from line 11 on",
            "apt install --reinstall pve-manager=9.1.2",
        ],
    },
    Case {
        what: "a carriage return at the very end",
        spoil: |host| {
            let content = "sub archive_info {\n    my ($archive) = @_;\n}\nour $RE = 1;\r";
            host.install("libpve-storage-perl", "9.1.0", &[(STORAGE, content.as_bytes())]);
        },
        code: 19,
        words: &["libpve-storage-perl 9.1.0", STORAGE, "byte for byte", "reinstall"],
    },
];

#[test]
fn every_reason_is_named_and_has_its_code() {
    for Case { what, spoil, code, words } in CASES {
        let host = Host::new();
        spoil(&host);
        let before = host.snapshot();
        for command in ["test", "apply"] {
            let ran = host.run(&[command]);
            assert_eq!(ran.code, code, "{what}: {ran:#?}");
            words.iter().for_each(|word| assert!(ran.err.contains(word), "{what}: no {word:?} in {ran:#?}"));
        }
        let json = host.run(&["test", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!((&json["exit"], &json["ok"]), (&code.into(), &false.into()), "{what}");
        assert!(json["reasons"][0].as_str().unwrap().contains(words[0]), "{what}: {json}");
        // What only a module's load tells, status does not know.
        if code != 11 {
            let status = host.run(&["status"]);
            assert_eq!(status.code, code, "{what}: {status:#?}");
            words.iter().for_each(|word| assert!(status.out.contains(word), "{what}: {word:?}: {status:#?}"));
        }
        assert!(host.snapshot() == before, "{what}: something was changed");
    }
}

/// 13 (not writable) and 12 (another run) depend on what is outside of files: see `rights` and `errors`.
#[test]
fn every_code_of_a_refusal_occurs() {
    let codes: BTreeSet<i32> = CASES.iter().map(|case| case.code).collect();
    assert_eq!(codes, BTreeSet::from([5, 6, 7, 8, 9, 10, 11, 17, 18, 19]));
}

#[test]
fn all_reasons_are_given_at_once() {
    let host = Host::new();
    fs::remove_file(host.path(INDEX)).unwrap();
    host.edit(CREATE, "sub restore {", "sub restored {");
    host.run(&["apply"]).code(18).says(&[INDEX, CREATE]);
}

/// A host that cannot be patched can always be reverted: nothing of ours must be stuck in it.
#[test]
fn revert_works_whatever_speaks_against_apply() {
    for Case { what, spoil, code, .. } in CASES {
        // Ours must be there first; these are about what is there before.
        if code == 10 || code == 6 {
            continue;
        }
        let host = Host::new();
        host.run(&["apply"]).ok();
        let pristine = Host::new();
        spoil(&pristine);
        // The same as after an upgrade that brings these files, or an editor that does not touch our lines.
        for path in [STORAGE, CREATE, VZDUMP, INDEX] {
            if !pristine.path(path).exists() {
                fs::remove_file(host.path(path)).unwrap();
            } else if pristine.read(path) != Host::new().read(path) {
                host.write(path, pristine.read(path));
            }
        }
        host.run(&["revert"]).ok();
        for path in [STORAGE, CREATE, VZDUMP, INDEX] {
            let read = |host: &Host| fs::read(host.path(path)).ok();
            assert_eq!(read(&host), read(&pristine), "{what}: {path}");
        }
        assert!(!host.path(PAYLOAD).exists(), "{what}");
    }
}
