//! Seeds for what looks into backups: tar archives of every kind of member, and clients of the server of disks.

const BLOCK: usize = 512;

/// A header, with a checksum.
fn header(name: &str, kind: u8, size: usize, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0" as &[u8]);
    put(108, b"0001750\0");
    put(116, b"0001750\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"14712345670\0");
    put(257, b"ustar\x0000");
    block[156] = kind;
    change(&mut block);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn with(mut header: Vec<u8>, content: &[u8]) -> Vec<u8> {
    header.extend(content);
    header.resize(header.len().next_multiple_of(BLOCK), 0);
    header
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (name, value) in records {
        let rest = format!(" {name}={value}\n").len();
        let len = (rest + 1..).find(|len| len.to_string().len() + rest == *len).unwrap_or(rest + 3);
        text += &format!("{len} {name}={value}\n");
    }
    with(header("pax", b'x', text.len(), |_| {}), text.as_bytes())
}

fn link(name: &str, kind: u8, to: &str) -> Vec<u8> {
    header(name, kind, 0, |block| block[157..157 + to.len()].copy_from_slice(to.as_bytes()))
}

/// Archives in the forms of GNU tar: pax with sparse files and attributes, and its own.
pub fn archives() -> Vec<Vec<u8>> {
    let end = vec![0; 2 * BLOCK];
    let map = "2\n0\n5\n8192\n3\n";
    let in_front = with(with(Vec::new(), map.as_bytes()), b"firstend");
    let modern = [
        header("./", b'5', 0, |_| {}),
        with(header("./etc/hosts", b'0', 9, |_| {}), b"localhost"),
        link("./hard", b'1', "./etc/hosts"),
        link("./soft", b'2', "../etc/hosts"),
        header("./null", b'3', 0, |block| block[329..337].copy_from_slice(b"0000001\0")),
        pax(&[
            ("path", "./a name that is longer than a header has room for, with \u{e4}"),
            ("mtime", "1700000000.25"),
            ("SCHILY.xattr.user.note", "value"),
            ("SCHILY.acl.access", "user::rw-,user:7:r--,group::r--,mask::r--,other::---"),
        ]),
        with(header("./short", b'0', 3, |_| {}), b"abc"),
        pax(&[
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", "./hole"),
            ("GNU.sparse.realsize", "8195"),
        ]),
        [header("./GNUSparseFile.1/hole", b'0', in_front.len(), |_| {}), in_front.clone()].concat(),
        end.clone(),
    ];
    let old = [
        with(header("././@LongLink", b'L', 130, |_| {}), "long/".repeat(26).as_bytes()),
        with(header("long", b'0', 4, |_| {}), b"text"),
        with(header("././@LongLink", b'K', 110, |_| {}), "to/".repeat(36).as_bytes()),
        link("soft", b'2', "to"),
        with(
            header("sparse", b'S', 3, |block| {
                block[386..398].copy_from_slice(b"00000000000\0");
                block[398..410].copy_from_slice(b"00000000003\0");
                block[483..495].copy_from_slice(b"00000010000\0");
            }),
            b"abc",
        ),
        end,
    ];
    vec![modern.concat(), old.concat()]
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    [&b"IHAVEOPT"[..], &number.to_be_bytes(), &(data.len() as u32).to_be_bytes(), data].concat()
}

fn request(command: u16, flags: u16, offset: u64, len: u32) -> Vec<u8> {
    let head = [&0x2560_9513u32.to_be_bytes()[..], &flags.to_be_bytes(), &command.to_be_bytes(), &[9; 8]];
    [&head.concat()[..], &offset.to_be_bytes(), &len.to_be_bytes()].concat()
}

/// A client of today, and an old one.
pub fn clients() -> Vec<Vec<u8>> {
    let name = |name: &str| [&(name.len() as u32).to_be_bytes()[..], name.as_bytes()].concat();
    let disk = name("drive-scsi0");
    let context = [&disk[..], &1u32.to_be_bytes(), &name("base:allocation")].concat();
    let go = [&disk[..], &1u16.to_be_bytes(), &3u16.to_be_bytes()].concat();
    let today = [
        3u32.to_be_bytes().to_vec(),
        option(8, b""),
        option(3, b""),
        option(99, b"unknown"),
        option(9, &[&disk[..], &[0; 4]].concat()),
        option(10, &context),
        option(6, &go),
        option(7, &go),
        request(0, 0, 0, 4096),
        request(0, 0, 100, 60_000),
        request(7, 0, 0, 65_536),
        request(7, 8, 4096, 65_536 - 4096),
        request(3, 0, 0, 0),
        request(0, 0, 65_000, 4096),
        request(1, 0, 0, 3),
        b"abc".to_vec(),
        request(6, 0, 0, 4096),
        request(2, 0, 0, 0),
    ];
    let old = [
        1u32.to_be_bytes().to_vec(),
        option(1, b"drive-efidisk0"),
        request(0, 0, 0, 8192),
        request(0, 0, 5 * 4096, 512),
        request(2, 0, 0, 0),
    ];
    vec![today.concat(), old.concat()]
}
