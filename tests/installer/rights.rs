//! Owners, modes, attributes, links, and folders that may not be written.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

use crate::support::{Host, INDEX, Ran, STORAGE, VZDUMP, chmod};

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: not root");
    }
    root
}

#[test]
fn owner_mode_and_attributes_are_kept() {
    let host = Host::new();
    if is_root() {
        chown(host.path(STORAGE), Some(12), Some(34)).unwrap();
    }
    chmod(&host.path(STORAGE), 0o4750);
    let attribute = |value: &mut [u8]| rustix::fs::getxattr(host.path(STORAGE), "user.note", value).ok();
    let flags = rustix::fs::XattrFlags::empty();
    let has_attributes = rustix::fs::setxattr(host.path(STORAGE), "user.note", b"mine", flags).is_ok();
    let before = host.snapshot();
    for command in ["apply", "revert"] {
        host.run(&[command]).ok();
        let now = host.snapshot();
        let about = |snapshot: &crate::support::Snapshot| {
            let (mode, user, group, _) = &snapshot[STORAGE];
            (*mode, *user, *group)
        };
        assert_eq!(about(&now), about(&before), "{command}");
        if has_attributes {
            let mut value = [0; 16];
            assert_eq!(attribute(&mut value), Some(4), "{command}");
        }
    }
    assert_eq!(host.snapshot(), before);
}

#[test]
fn other_names_of_a_file_are_left_alone() {
    let host = Host::new();
    fs::hard_link(host.path(STORAGE), host.path("copy")).unwrap();
    let before = host.snapshot();
    host.run(&["apply"]).ok();
    assert_eq!(host.read("copy"), before[STORAGE].3);
    host.run(&["revert"]).ok();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn a_folder_that_may_not_be_written() {
    if !is_root() {
        return;
    }
    // Everything is nobody's but one folder: the first files are staged already when it is reached.
    let host = Host::new();
    let nobody = 65534;
    for entry in walkdir::WalkDir::new(host.root().parent().unwrap()) {
        chown(entry.unwrap().path(), Some(nobody), Some(nobody)).unwrap();
    }
    let dir = host.path(INDEX).parent().unwrap().to_owned();
    chown(&dir, Some(0), Some(0)).unwrap();
    chmod(&dir, 0o755);
    let as_nobody = |command: &str| {
        let program = host.command(&[command]);
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        Ran::of(setpriv.arg(program.get_program()).args(program.get_args()).output().unwrap())
    };
    let reachable = as_nobody("status");
    if reachable.code != 3 {
        println!("skipped: the program cannot be run as nobody: {reachable:?}");
        return;
    }
    let before = host.snapshot();
    as_nobody("test").code(13).says(&["pve-manager", "Permission denied", "root"]);
    as_nobody("apply").code(13).says(&["pve-manager", "Nothing was changed", "run it as root"]);
    assert_eq!(host.snapshot(), before);
    // And with nothing writable at all.
    chown(host.path("var/lib"), Some(0), Some(0)).unwrap();
    as_nobody("apply").code(13).says(&["var/lib/pve-diff-backup", "Nothing was changed"]);
}

#[test]
fn an_immutable_file_stops_the_swap_half_way_and_all_comes_back() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let before = host.snapshot();
    let inode = fs::metadata(host.path(VZDUMP)).unwrap().ino();
    let chattr = |flag: &str| {
        Command::new("chattr")
            .arg(flag)
            .arg(host.path(STORAGE))
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if !chattr("+i") {
        println!("skipped: no immutable files here");
        return;
    }
    let ran = host.run(&["apply"]);
    let now = host.snapshot();
    assert!(chattr("-i"));
    ran.code(13).says(&["Storage.pm", "Nothing was changed", "lsattr"]);
    assert_eq!(now, before);
    assert_eq!(fs::metadata(host.path(VZDUMP)).unwrap().ino(), inode, "not the very file that was there");
    host.run(&["apply"]).ok();
}
