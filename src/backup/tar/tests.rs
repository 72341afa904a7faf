use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// A guest's files: long names, links, a sparse file, an extended attribute where the file system has them.
fn tree(dir: &Path) {
    let long = "directory-with-a-long-name/".repeat(8);
    fs::create_dir_all(dir.join(&long)).unwrap();
    fs::write(dir.join(&long).join("f".repeat(150)), "long").unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    fs::write(dir.join("odd"), vec![b'x'; 1025]).unwrap();
    fs::hard_link(dir.join("odd"), dir.join("hard")).unwrap();
    symlink("l".repeat(180), dir.join("soft")).unwrap();
    // more pieces than the header of GNU's old sparse format can hold (4, then 21 per block)
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    for i in 0..40 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[1; 4096], i * (1 << 16)).unwrap();
    }
}

fn real(options: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let tar = Command::new("tar")
        .args(["cf", "-"])
        .args(options)
        .arg("-C")
        .arg(dir.path())
        .arg(".")
        .output()
        .unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    tar.stdout
}

fn header(name: &str, kind: u8, size: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..124 + size.len()].copy_from_slice(size);
    block[148..156].fill(b' ');
    block[156] = kind;
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn data(bytes: &[u8]) -> Vec<u8> {
    let mut data = bytes.to_vec();
    data.resize(data.len().next_multiple_of(BLOCK), 0);
    data
}

fn message(bytes: &[u8]) -> String {
    check(bytes).unwrap_err().to_string()
}

#[test]
fn archives_of_gnu_tar_in_all_its_formats() {
    for format in ["gnu", "pax", "oldgnu"] {
        for options in [&[][..], &["--sparse"], &["--sparse", "--xattrs", "--acls", "--numeric-owner"]] {
            let format = format!("--format={format}");
            let options = [&[format.as_str()], options].concat();
            // ACLs make tar switch to pax, which the other formats forbid
            if options.contains(&"--acls") && format != "--format=pax" {
                continue;
            }
            let bytes = real(&options);
            let summary = check(&bytes[..]).unwrap_or_else(|e| panic!("{options:?}: {e}"));
            // 8 nested directories and their parent, 7 other members
            assert_eq!((summary.members, summary.bytes), (9 + 6, bytes.len() as u64), "{options:?}");
        }
    }
}

#[test]
fn archives_cut_anywhere_are_refused() {
    let bytes = real(&["--format=pax", "--sparse", "--blocking-factor=1"]);
    for cut in (0..bytes.len()).step_by(389).chain([bytes.len() - 1, bytes.len() - 512, bytes.len() - 513]) {
        let error = check(&bytes[..cut]).unwrap_err();
        assert!(
            matches!(error, TarError::Truncated { offset, .. } if offset == cut as u64),
            "{cut}: {error}"
        );
    }
}

#[test]
fn flipped_bits_in_headers_are_noticed() {
    let bytes = real(&["--format=gnu"]);
    for at in (0..BLOCK).filter(|at| !(154..156).contains(at)) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(check(&bad[..]).is_err(), "byte {at}");
    }
}

#[test]
fn sizes_come_in_base_256_and_in_pax_records() {
    let end = [0; 2 * BLOCK];
    let mut binary = [0; 12];
    binary[0] = 0x80;
    binary[10..].copy_from_slice(&700u16.to_be_bytes());
    let archive = [&header("big", b'0', &binary)[..], &data(&[1; 700]), &end].concat();
    assert_eq!(check(&archive[..]).unwrap().members, 1);

    let records = "30 mtime=1763766000.123456789\n12 size=700\n";
    let pax = |records: &str| {
        let head = header("pax", b'x', format!("{:o}", records.len()).as_bytes());
        [&head[..], &data(records.as_bytes()), &header("big", b'0', b"0"), &data(&[1; 700]), &end].concat()
    };
    assert_eq!(check(&pax(records)[..]).unwrap().members, 1);
    // a value longer than what is looked at
    let long = format!("218 comment={}\n12 size=700\n", "x".repeat(205));
    assert_eq!(check(&pax(&long)[..]).unwrap().members, 1);
    for (records, what) in [
        ("12 size=7x0\n", "size is no number"),
        ("13 size=700\n", "length is wrong"),
        ("99999999999999999999 size=700\n", "length is wrong"),
        ("99999999999999999999999999 size=700\n", "length is wrong"),
        ("size=700\n", "length is wrong"),
        ("12 size=700 12 mtime=111\n", "does not end where it says"),
    ] {
        assert!(message(&pax(records)).contains(what), "{records:?}: {}", message(&pax(records)));
    }
}

#[test]
fn a_hard_link_has_no_data() {
    let archive =
        [&header("a", b'0', b"3")[..], &data(b"abc"), &header("b", b'1', b"3"), &[0; 2 * BLOCK]].concat();
    assert_eq!(check(&archive[..]).unwrap().members, 2);
}

#[test]
fn malformed_ends_are_refused() {
    let member = [&header("a", b'0', b"3")[..], &data(b"abc")].concat();
    let zeros = [0; BLOCK];
    assert!(message(&[&member[..], &zeros, &member].concat()).contains("single block of zeros"));
    assert!(message(&[&member[..], &zeros, &zeros, &member].concat()).contains("data behind the end"));
    assert!(message(&[zeros, zeros].concat()).contains("empty"));
    assert!(
        message(&[&member[..], &header("l", b'L', b"3"), &data(b"x\0\0"), &zeros, &zeros].concat())
            .contains("announced")
    );
    assert!(message(&member).contains("where a header is due, after \"a\""));
    assert!(message(&[]).contains("truncated: it ends at byte 0"));
    assert!(message(b"VMA\0").contains("truncated"));
    assert!(message(&[b'x'; 1024]).contains("not a tar header"));
}

#[test]
fn impossible_sizes_end_in_errors() {
    let mut huge = [0xff; 12];
    huge[0] = 0x80;
    assert!(message(&header("a", b'0', &huge)).contains("size is no number"));
    let mut almost = [0; 12];
    almost[0] = 0x80;
    almost[4..].copy_from_slice(&u64::MAX.to_be_bytes());
    assert!(message(&header("a", b'0', &almost)).contains("size is impossible"));
    assert!(message(&header("a", b'0', b"777777777777")).contains("in the data of a member"));
    assert!(message(&header("a", b'0', b"12 34")).contains("size is no number"));
}
