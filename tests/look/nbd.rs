//! Disks over NBD, read by QEMU's and libnbd's programs.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Child;

use super::work::{DIFFERENTIAL, DISKS, PROGRAM, Running, Work};

fn uri(disk: &str) -> String {
    format!("nbd+unix:///{disk}?socket=socket")
}

fn serve(work: &Work, archive: &str) -> Running {
    work.start(&["vma", "nbd", archive, "--socket", "socket"])
}

#[test]
fn every_byte_of_every_disk_is_that_of_the_image() {
    let (work, backups) = Work::with_backups();
    for (archive, second) in backups {
        let running = serve(&work, &archive);
        for (disk, first, last) in DISKS {
            let image = fs::read(work.path(if second { last } else { first })).unwrap();
            work.run("nbdcopy", &[&uri(disk), "copy.raw"]);
            assert!(fs::read(work.path("copy.raw")).unwrap() == image, "{archive}: {disk} by nbdcopy");
            fs::remove_file(work.path("copy.raw")).unwrap();
            work.run("qemu-img", &["convert", "-O", "raw", &uri(disk), "copy.raw"]);
            let mut copy = fs::read(work.path("copy.raw")).unwrap();
            // QEMU counts in sectors.
            copy.truncate(image.len());
            assert!(copy == image, "{archive}: {disk} by qemu-img");
        }
        running.end();
        // Of what xdelta3 made, the name of the full backup is all that is known.
        let err = work.err();
        assert!(
            err.is_empty() || err.contains("whether first.vma is the right one") && err.lines().count() == 1,
            "{err}"
        );
        assert!(!work.path("socket").exists());
    }
}

#[test]
fn holes_and_names_are_told() {
    let (work, _) = Work::with_backups();
    for archive in ["map.vma.zst".to_owned(), format!("map.vma.zst{DIFFERENTIAL}")] {
        let _running = serve(&work, &archive);
        let list = work.run("nbdinfo", &["--list", "nbd+unix:///?socket=socket"]);
        for (disk, image, _) in DISKS {
            assert!(list.contains(&format!("export=\"{disk}\":")), "{list}");
            let size = fs::metadata(work.path(image)).unwrap().len();
            assert!(work.run("nbdinfo", &["--size", &uri(disk)]).trim() == size.to_string());
        }
        assert!(list.contains("is_read_only: true") && list.contains("base:allocation"), "{list}");
        // Exactly the blocks that hold anything are no holes.
        for (disk, image) in [("drive-tpmstate0-backup", "tpm.raw"), ("drive-scsi1", "scsi1.raw")] {
            let map = work.run("nbdinfo", &["--map", "--totals", &uri(disk)]);
            let data = map.lines().find(|line| line.contains(" 0 data")).unwrap_or_else(|| panic!("{map}"));
            let told: u64 = data.split_whitespace().next().unwrap().parse().unwrap();
            let image = fs::read(work.path(image)).unwrap();
            let is_data = |block: &&[u8]| block.iter().any(|b| *b != 0);
            let held: usize = image.chunks(4096).filter(is_data).map(<[u8]>::len).sum();
            assert_eq!(told, held as u64, "{archive}: {disk}");
        }
    }
}

#[test]
fn damage_is_an_error_where_it_is_and_nowhere_else() {
    let (work, _) = Work::with_backups();
    let full = fs::metadata(work.path("map.vma.zst")).unwrap().len();
    work.damage("map.vma.zst", full / 2);
    for (archive, image) in
        [("map.vma.zst".to_owned(), "scsi0.raw"), (format!("map.vma.zst{DIFFERENTIAL}"), "second.raw")]
    {
        let image = fs::read(work.path(image)).unwrap();
        let running = serve(&work, &archive);
        let (mut good, mut bad) = (0, 0);
        for at in (0..image.len()).step_by(256 << 10) {
            let mut client = old_client(&work);
            client.write_all(&request(0, at as u64, 256 << 10)).unwrap();
            let head = hear(&mut client, 16);
            match head[7] {
                0 => {
                    good += 1;
                    assert!(hear(&mut client, 256 << 10) == image[at..at + (256 << 10)], "{archive}: {at}");
                }
                error => {
                    bad += 1;
                    assert_eq!(error, 5, "{archive}: {at}");
                }
            }
        }
        assert!(bad > 0 && good > bad, "{archive}: {bad} of {} parts are bad", good + bad);
        let told = work.err();
        assert!(told.contains("the disk drive-scsi0 cannot be read from byte "), "{archive}: {told}");
        // A disk that is not concerned can be read as a whole.
        work.run("nbdcopy", &[&uri("drive-tpmstate0-backup"), "copy.raw"]);
        assert!(fs::read(work.path("copy.raw")).unwrap() == fs::read(work.path("tpm.raw")).unwrap());
        fs::remove_file(work.path("copy.raw")).unwrap();
        // nbdcopy stops at the damage: it copies nothing wrong.
        assert!(!work.output("nbdcopy", &[&uri("drive-scsi0"), "copy.raw"]).status.success());
        running.end();
    }
}

#[test]
fn single_blocks_are_right_or_an_error_whatever_is_damaged() {
    let (work, _) = Work::with_backups();
    let good = fs::read(work.path("map.vma.zst")).unwrap();
    let image = fs::read(work.path("scsi0.raw")).unwrap();
    let (mut bad, blocks) = (0, 2000);
    for round in 0..3usize {
        let mut bytes = good.clone();
        // Single bits, so that what is decompressed looks well. The first frame, without which nothing is known, and the seek
        // table at the end stay.
        for n in 0..60 {
            let at = (n * 3 + round) * (bytes.len() - (3 << 20) - 20_000) / 180;
            bytes[at + (3 << 20)] ^= 1 << (n % 8);
        }
        fs::remove_file(work.path("map.vma.zst")).unwrap();
        fs::write(work.path("map.vma.zst"), &bytes).unwrap();
        let mut child = work.command(PROGRAM, &["vma", "nbd", "map.vma.zst", "--socket", "socket"]);
        let child = child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        let mut running = Running(child.spawn().unwrap());
        // Where the damage is in the map, it may be refused as a whole.
        if running.0.stdout.as_mut().unwrap().read(&mut [0]).unwrap() == 0 {
            continue;
        }
        let mut client = old_client(&work);
        for n in 0..blocks {
            let at = n * 7919 % (image.len() / 4096) * 4096;
            client.write_all(&request(0, at as u64, 4096)).unwrap();
            match hear(&mut client, 16)[7] {
                0 => assert!(hear(&mut client, 4096) == image[at..at + 4096], "{round}: {at}"),
                error => {
                    bad += 1;
                    assert_eq!(error, 5);
                }
            }
        }
        running.end();
    }
    assert!(bad > 0 && bad < 2 * blocks, "{bad}");
}

#[test]
fn a_file_that_is_cut_while_it_is_served_is_an_error() {
    let (work, _) = Work::with_backups();
    let image = fs::read(work.path("scsi0.raw")).unwrap();
    // The other tests have the same files under other names.
    let bytes = fs::read(work.path("map.vma.zst")).unwrap();
    fs::remove_file(work.path("map.vma.zst")).unwrap();
    fs::write(work.path("map.vma.zst"), &bytes).unwrap();
    let running = serve(&work, "map.vma.zst");
    let file = fs::File::options().write(true).open(work.path("map.vma.zst")).unwrap();
    file.set_len(bytes.len() as u64 / 3).unwrap();
    let (mut good, mut bad) = (0, 0);
    for at in (0..image.len()).step_by(1 << 20) {
        let mut client = old_client(&work);
        client.write_all(&request(0, at as u64, 65_536)).unwrap();
        match hear(&mut client, 16)[7] {
            0 => {
                good += 1;
                assert!(hear(&mut client, 65_536) == image[at..at + 65_536]);
            }
            error => {
                bad += 1;
                assert_eq!(error, 5);
            }
        }
    }
    assert!(good > 0 && bad > 0, "{good} {bad}");
    running.end();
    assert!(work.err().contains("the disk drive-scsi0 cannot be read from byte "), "{}", work.err());
    // One that is removed is there as long as it is open.
    fs::write(work.path("map.vma.zst"), &bytes).unwrap();
    let running = serve(&work, "map.vma.zst");
    fs::remove_file(work.path("map.vma.zst")).unwrap();
    work.run("nbdcopy", &[&uri("drive-scsi0"), "copy.raw"]);
    assert!(fs::read(work.path("copy.raw")).unwrap() == image);
    running.end();
}

#[test]
fn what_a_killed_program_left_goes_and_what_another_one_writes_stays() {
    let (work, _) = Work::with_backups();
    let cache = work.path("cache/pve-xdelta3");
    fs::create_dir_all(&cache).unwrap();
    for name in ["cache", "cache/pve-xdelta3"] {
        fs::set_permissions(work.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
    fs::write(cache.join("new-left.tmp"), "left").unwrap();
    fs::write(cache.join("another"), "not ours").unwrap();
    let written = fs::File::create(cache.join("new-written.tmp")).unwrap();
    rustix::fs::flock(&written, rustix::fs::FlockOperation::LockExclusive).unwrap();
    serve(&work, "stock.vma.zst").end();
    let mut names: Vec<_> = fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".copy"))
        .collect();
    names.sort();
    assert_eq!(names, ["another", "new-written.tmp"]);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 3, "the copy is kept");
    drop(written);
    serve(&work, "map.vma.zst").end();
    assert!(!cache.join("new-written.tmp").exists());
}

#[test]
fn a_hundred_clients_at_once_and_killed_ones() {
    let (work, _) = Work::with_backups();
    let running = serve(&work, &format!("map.vma.zst{DIFFERENTIAL}"));
    // Some copy the large disk, most the small one.
    let disk =
        |n: usize| if n % 10 < 2 { ("drive-scsi0", "second.raw") } else { ("drive-scsi1", "scsi1.raw") };
    let copy = |n: usize| {
        let to = format!("copy-{n}");
        work.command("nbdcopy", &[&uri(disk(n).0), &to]).spawn().unwrap()
    };
    let mut clients: Vec<(usize, Child)> = (0..100).map(|n| (n, copy(n))).collect();
    for (n, client) in &mut clients {
        if *n % 5 == 0 {
            client.kill().unwrap();
        }
    }
    for (n, client) in &mut clients {
        let status = client.wait().unwrap();
        let path = work.path(&format!("copy-{n}"));
        if *n % 5 != 0 {
            assert!(status.success(), "{status}: {}", work.err());
            assert!(fs::read(&path).unwrap() == fs::read(work.path(disk(*n).1)).unwrap(), "client {n}");
        }
        let _ = fs::remove_file(path);
    }
    work.run("nbdcopy", &[&uri("drive-scsi0"), "copy.raw"]);
    running.end();
    assert_eq!(work.err(), "");
}

/// What a client of our own hears.
fn hear(stream: &mut UnixStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// A connection without structured replies, as old clients make it.
fn old_client(work: &Work) -> UnixStream {
    let mut stream = UnixStream::connect(work.path("socket")).unwrap();
    hear(&mut stream, 18);
    stream.write_all(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x0bdrive-scsi0").unwrap();
    let answer = hear(&mut stream, 10);
    assert_eq!(answer, [&(32u64 << 20).to_be_bytes()[..], &[1, 3]].concat());
    stream
}

fn request(command: u8, offset: u64, len: u32) -> Vec<u8> {
    let head = [&b"\x25\x60\x95\x13\0\0\0"[..], &[command], &[9; 8]].concat();
    [&head[..], &offset.to_be_bytes(), &len.to_be_bytes()].concat()
}

#[test]
fn nothing_is_written_and_nothing_else_harms() {
    let (work, _) = Work::with_backups();
    let running = serve(&work, "map.vma.zst");
    let image = fs::read(work.path("scsi0.raw")).unwrap();
    let mut stream = old_client(&work);
    let answer = |error: u8| [&b"\x67\x44\x66\x98\0\0\0"[..], &[error], &[9; 8]].concat();
    // A write, a trim, write-zeroes; then reads, inside and outside.
    stream.write_all(&[request(1, 0, 5), b"12345".to_vec()].concat()).unwrap();
    assert_eq!(hear(&mut stream, 16), answer(1));
    for command in [4, 6] {
        stream.write_all(&request(command, 0, 4096)).unwrap();
        assert_eq!(hear(&mut stream, 16), answer(1));
    }
    for (offset, len) in [(u64::MAX, 2), (32 << 20, 1), ((32 << 20) - 1, 2), (0, 33 << 20), (0, 0)] {
        stream.write_all(&request(0, offset, len)).unwrap();
        assert_eq!(hear(&mut stream, 16), answer(22), "{offset} {len}");
    }
    for len in [1, 4095, 300_000, 5 << 20] {
        stream.write_all(&request(0, 77, len)).unwrap();
        assert_eq!(hear(&mut stream, 16), answer(0));
        assert!(hear(&mut stream, len as usize) == image[77..77 + len as usize], "{len}");
    }
    // Whoever speaks nonsense is cut off, and others go on.
    for nonsense in
        [&b"GET / HTTP/1.0\r\n\r\n________"[..], &[0xff; 64], b"\0\0\0\x03IHAVEOPT\xff\xff\xff\xff\0\0\0\0"]
    {
        let mut other = UnixStream::connect(work.path("socket")).unwrap();
        let _ = other.write_all(nonsense);
        let _ = other.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = other.read_to_end(&mut rest);
    }
    stream.write_all(b"this is no request, and not one").unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    old_client(&work);
    running.end();
}

#[test]
fn no_cache_leads_to_wrong_bytes() {
    let (work, _) = Work::with_backups();
    let image = fs::read(work.path("scsi0.raw")).unwrap();
    let cache = work.path("cache/pve-xdelta3");
    let copies = || -> Vec<_> { fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let whole = |work: &Work| {
        let running = serve(work, "stock.vma.zst");
        let _ = fs::remove_file(work.path("copy.raw"));
        let copied = work.output("nbdcopy", &[&uri("drive-scsi0"), "copy.raw"]);
        running.end();
        copied.status.success().then(|| fs::read(work.path("copy.raw")).unwrap())
    };
    assert!(whole(&work).unwrap() == image);
    let [copy] = &copies()[..] else { panic!("one copy is kept") };
    let good = fs::read(copy).unwrap();
    for at in (0..16).map(|n| n * (good.len() - 1) / 15) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        fs::write(copy, &bad).unwrap();
        // It is made anew, or what is damaged is an error, or that byte says nothing.
        let first = work.output(PROGRAM, &["vma", "nbd", "stock.vma.zst", "--socket", "no/folder"]);
        let err = String::from_utf8_lossy(&first.stderr);
        assert!(
            err.contains("cannot listen on") || err.contains("was damaged, and is removed: try again"),
            "{err}"
        );
        if let Some(read) = whole(&work) {
            assert!(read == image, "byte {at}");
        }
        fs::write(copy, &good).unwrap();
    }
    for cut in [0, 1, 100, good.len() / 2, good.len() - 1] {
        fs::write(copy, &good[..cut]).unwrap();
        assert!(whole(&work).unwrap() == image, "{cut}");
    }
    // Another file under the same name has another copy.
    fs::remove_file(work.path("stock.vma.zst")).unwrap();
    work.run("zstd", &["-q", "second.vma", "-o", "stock.vma.zst"]);
    assert!(whole(&work).unwrap() == fs::read(work.path("second.raw")).unwrap());
    // In a folder where others can write, nothing is kept.
    copies().iter().for_each(|copy| fs::remove_file(copy).unwrap());
    fs::set_permissions(&cache, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    assert!(whole(&work).unwrap() == fs::read(work.path("second.raw")).unwrap());
    assert!(copies().is_empty());
}

#[test]
fn mistakes_are_named() {
    let (work, _) = Work::with_backups();
    fs::write(work.path("there"), "text ".repeat(99)).unwrap();
    fs::copy(work.path(&format!("map.vma.zst{DIFFERENTIAL}")), work.path("other.vcdiff.zst")).unwrap();
    work.run("tar", &["cf", "c.tar", "there"]);
    let bytes = fs::read(work.path("first.vma")).unwrap();
    fs::write(work.path("half.vma"), &bytes[..bytes.len() / 2]).unwrap();
    for (args, expected) in [
        (&["map.vma.zst"][..], "--socket"),
        (&["map.vma.zst", "--socket", "there"], "there exists already: choose another name"),
        (&["map.vma.zst", "--socket", "no/where"], "cannot listen on no/where"),
        (&["map.vma.zst", "--listen", "nowhere"], "an address is 127.0.0.1"),
        (
            &["map.vma.zst", "--socket", "s", "-d", "drive-ide0"],
            "no disk \"drive-ide0\" (there is: drive-efidisk0, ",
        ),
        (&["missing", "--socket", "s"], "missing"),
        (&["-", "--socket", "s"], "standard input can be read only once"),
        (&["there", "--socket", "s"], "not a VMA archive"),
        (&["c.tar", "--socket", "s"], "c.tar is a container's backup"),
        (&["half.vma", "--socket", "s"], "truncated"),
        (&["other.vcdiff.zst", "--socket", "s"], "is a differential: its full backup is found by the name"),
        (&["other.vcdiff.zst", "--base", "stock.vma.gz", "--socket", "s", "-d", "x"], "no disk"),
        (&["other.vcdiff.zst", "--base", "second.vma", "--socket", "s"], "is not the one"),
    ] {
        let output = work.output(PROGRAM, &[&["vma", "nbd"], args].concat());
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && err.contains(expected), "{args:?}: {err}");
        assert!(!work.path("s").exists());
    }
}

#[test]
fn a_port_of_this_machine_serves_too() {
    let (work, _) = Work::with_backups();
    let mut running =
        work.start(&["vma", "nbd", "map.vma.zst", "--listen", "0", "-d", "drive-scsi1", "--json"]);
    let mut text = String::from("{");
    let mut byte = [0];
    while !text.ends_with('\n') && running.0.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1 {
        text.push(byte[0].into());
    }
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let uri = told["exports"][0]["uri"].as_str().unwrap();
    assert!(uri.starts_with("nbd://127.0.0.1:") && uri.ends_with("/drive-scsi1"), "{uri}");
    work.run("nbdcopy", &[uri, "copy.raw"]);
    assert!(fs::read(work.path("copy.raw")).unwrap() == fs::read(work.path("scsi1.raw")).unwrap());
    running.end();
}
