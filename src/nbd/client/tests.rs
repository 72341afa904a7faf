use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::*;

/// Makes limits for tests with servers that are slow on purpose.
fn brief() -> Limits {
    Limits { timeout: Duration::from_millis(300), in_flight: 4, throttle: None }
}

/// Talks to a server that sends these bytes, whatever it is asked, and then waits (`stay`) or closes the connection.
fn against<T>(bytes: Vec<u8>, stay: bool, talk: impl FnOnce(UnixStream) -> T) -> T {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let asked = theirs.try_clone().unwrap();
    let server = thread::spawn(move || {
        let _ = theirs.write_all(&bytes);
        if !stay {
            let _ = theirs.shutdown(std::net::Shutdown::Write);
        }
        let mut all = Vec::new();
        let _ = (&asked).read_to_end(&mut all);
    });
    let done = talk(ours);
    server.join().unwrap();
    done
}

fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = 0x0003_e889_0455_65a9u64.to_be_bytes().to_vec();
    [option, kind, data.len() as u32].iter().for_each(|n| out.extend(n.to_be_bytes()));
    out.extend(data);
    out
}

fn chunk(done: u16, kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
    let mut out = 0x668e_33efu32.to_be_bytes().to_vec();
    out.extend(done.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out.extend((data.len() as u32).to_be_bytes());
    out.extend(data);
    out
}

/// The bytes of a handshake for a bitmap `b` of an export of this size.
fn handshake(size: u64) -> Vec<u8> {
    let info = [&[0, 0][..], &size.to_be_bytes(), &[0, 3]].concat();
    [
        b"NBDMAGICIHAVEOPT\0\x03".to_vec(),
        reply(8, 1, b""),
        reply(10, 4, b"\0\0\0\x01qemu:dirty-bitmap:b"),
        reply(10, 1, b""),
        reply(7, 3, &info),
        reply(7, 3, b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0"),
        reply(7, 1, b""),
    ]
    .concat()
}

fn connect(socket: UnixStream) -> Result<Client, Error> {
    Client::over(socket, "disk", Some("b"), brief())
}

fn ranges(list: &[(u32, u32)]) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 1];
    list.iter().for_each(|(len, flags)| out.extend([len.to_be_bytes(), flags.to_be_bytes()].concat()));
    out
}

#[test]
fn a_bitmap_is_asked_for_in_parts_and_joined() {
    let answers = [
        handshake((1 << 30) + 8192),
        chunk(1, 5, 1, &ranges(&[(65536, 0), (65536, 1)])),
        chunk(0, 5, 2, &ranges(&[(4096, 1), ((1 << 30) - 135_168, 0)])),
        chunk(1, 0, 2, b""),
        // Further than was asked, and further than there is.
        chunk(1, 5, 3, &ranges(&[(4096, 1), (1 << 20, 1)])),
    ];
    let found = against(answers.concat(), true, |socket| connect(socket)?.dirty());
    assert_eq!(found.unwrap(), [65536..135_168, 1 << 30..(1 << 30) + 8192]);
}

#[test]
fn reads_come_in_order_whatever_the_order_of_answers() {
    let at = |n: u64| n.to_be_bytes();
    let answers = [
        handshake(65536),
        chunk(0, 1, 2, &[&at(8192)[..], &[2; 4096]].concat()),
        chunk(0, 2, 1, &[&at(100)[..], &156u32.to_be_bytes()].concat()),
        chunk(1, 0, 2, b""),
        chunk(1, 1, 1, &[&at(0)[..], &[1; 100]].concat()),
    ];
    let read = against(answers.concat(), true, |socket| {
        let reads = connect(socket)?.reads([0..256, 8192..12288].into_iter());
        reads.collect::<Result<Vec<_>, _>>()
    });
    let first: Vec<u8> = (0..256).map(|n| u8::from(n < 100)).collect();
    assert_eq!(read.unwrap(), [first, vec![2; 4096]]);
}

/// Returns the error of a client to whom a server sends these bytes after a handshake.
fn said(bytes: &[u8], read: bool) -> String {
    let all = [&handshake(1 << 20), bytes].concat();
    let error = against(all, true, |socket| {
        let mut client = connect(socket)?;
        if !read {
            return client.dirty().map(drop);
        }
        client.reads([0..4096, 4096..8192].into_iter()).collect::<Result<Vec<_>, _>>().map(drop)
    });
    error.unwrap_err().to_string()
}

#[test]
fn answers_that_make_no_sense_are_errors() {
    let at = |n: u64, data: &[u8]| [&n.to_be_bytes()[..], data].concat();
    let status = |list: &[(u32, u32)]| chunk(1, 5, 1, &ranges(list));
    for (bytes, read, expected) in [
        (status(&[(65536, 1), (0, 1)]), false, "without length"),
        (chunk(1, 5, 9, &ranges(&[(1 << 20, 1)])), false, "belongs to no question"),
        (chunk(1, 5, 1, b"\0\0\0\x02\0\x10\0\0\0\0\0\0"), false, "does not fit its question"),
        (chunk(1, 0, 1, b""), false, "had no answer"),
        (chunk(1, 5, 1, b"\0\0\0\x01"), false, "impossible length"),
        (chunk(1, 1, 1, &at(0, &[7; 4096])), false, "does not fit its question"),
        (chunk(1, 0x8001, 1, b"\0\0\0\x05\0\x04oops"), false, "Input/output error"),
        (chunk(1, 1, 3, &at(0, &[7; 4096])), true, "belongs to no question"),
        (chunk(1, 1, 1, &at(1, &[7; 4096])), true, "nobody asked for"),
        (chunk(1, 1, 1, &at(u64::MAX, &[7; 4096])), true, "nobody asked for"),
        (chunk(1, 1, 1, &at(0, &[7; 4095])), true, "before all of its data"),
        (chunk(0, 1, 1, &at(0, &[7; 100])).repeat(2), true, "nobody asked for"),
        (chunk(1, 2, 1, &at(0, &0u32.to_be_bytes())), true, "nobody asked for"),
        (chunk(1, 0, 1, b"").repeat(2), true, "before all of its data"),
        (chunk(1, 0x8001, 2, b"\0\0\0\x16\0\0"), true, "Invalid argument"),
        (b"\x67\x44\x66\x98".repeat(9), true, "is not structured"),
        // It announces more than anybody would take, and one byte follows.
        (b"\x66\x8e\x33\xef\0\x01\0\x01\0\0\0\0\0\0\0\x01\xff\xff\xff\xffx".to_vec(), true, "too long"),
    ] {
        let said = said(&bytes, read);
        assert!(said.contains(expected), "{said:?} instead of {expected:?}");
    }
}

#[test]
fn handshakes_that_fail() {
    let greeting = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    let structured = [greeting.clone(), reply(8, 1, b"")].concat();
    let context = [&structured[..], &reply(10, 4, b"\0\0\0\x01qemu:dirty-bitmap:b")].concat();
    let no_size = [&context[..], &reply(10, 1, b""), &reply(7, 1, b"")].concat();
    for (bytes, expected) in [
        (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "no NBD server"),
        ([greeting.clone(), reply(8, 0x8000_0001, b"")].concat(), "refused structured replies"),
        ([&structured[..], &reply(10, 1, b"")].concat(), "has no dirty bitmap \"b\""),
        ([&structured[..], &reply(10, 4, b"\0\0\0\x01other")].concat(), "nobody asked for"),
        ([&structured[..], &reply(10, 0x8000_0006, b"x")].concat(), "no such export (x)"),
        ([&structured[..], &reply(7, 1, b"")].concat(), "belongs to no question"),
        (no_size, "does not tell the export's size"),
        ([&structured[..], &reply(10, 99, b"").repeat(99)].concat(), "has no end"),
    ] {
        let error = against(bytes, true, connect).err().unwrap().to_string();
        assert!(error.contains(expected), "{error:?} instead of {expected:?}");
    }
    let good = handshake(4096);
    for cut in [0, 5, 18, 30, 60, good.len() - 1] {
        let error = against(good[..cut].to_vec(), false, connect).err().unwrap().to_string();
        assert!(error.contains("closed the connection"), "{cut}: {error}");
        let error = against(good[..cut].to_vec(), true, connect).err().unwrap().to_string();
        assert!(error.contains("within"), "{cut}: {error}");
    }
}

#[test]
fn who_sends_a_byte_now_and_then_is_late_too() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let greeting = handshake(1 << 20);
        for byte in greeting {
            thread::sleep(Duration::from_millis(30));
            if theirs.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    let began = Instant::now();
    let error = connect(ours).err().unwrap();
    assert!(matches!(error, Error::Late { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20));
    server.join().unwrap();
}

/// A real server, which is ended when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn qemu(program: &str, args: &[&str], dir: &Path) {
    let done = Command::new(program).args(args).current_dir(dir).stdout(Stdio::null()).status().unwrap();
    assert!(done.success(), "{program} {args:?}");
}

#[test]
fn qemus_own_server_is_understood() {
    if !Path::new("/usr/bin/qemu-nbd").exists() {
        eprintln!("skipped: no program qemu-nbd (package qemu-utils)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    qemu("qemu-img", &["create", "-q", "-f", "qcow2", "disk", "10486272"], at);
    qemu("qemu-io", &["-c", "write -P 1 0 10486272", "disk"], at);
    qemu("qemu-img", &["bitmap", "--add", "-g", "65536", "disk", "b"], at);
    let changes = ["-c", "write -P 7 70000 4096", "-c", "write -z 1M 128k", "-c", "write -P 9 10485760 512"];
    qemu("qemu-io", &[&changes[..], &["disk"]].concat(), at);
    let args = ["-r", "-t", "-f", "qcow2", "-x", "drive", "-B", "b", "-e", "9", "-k"];
    let socket = at.join("socket");
    let _server =
        Server(Command::new("qemu-nbd").args(args).arg(&socket).arg(at.join("disk")).spawn().unwrap());
    let uri = Uri { socket, export: "drive".into() };
    for _ in 0..1000 {
        if uri.socket.exists() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let limits = Limits { timeout: Duration::from_secs(60), ..Limits::default() };

    let mut client = Client::connect(&uri, Some("b"), limits.clone()).unwrap();
    assert_eq!(client.size(), 10_486_272);
    let dirty = client.dirty().unwrap();
    assert_eq!(dirty, [65536..131_072, 1 << 20..(1 << 20) + 131_072, 10_485_760..10_486_272]);
    // Many at once, in a wild order, with holes.
    let wanted: Vec<_> = (0..100u64).map(|n| n * 37 % 160 * 65536..n * 37 % 160 * 65536 + 65536).collect();
    let read: Vec<_> = client.reads(wanted.iter().cloned()).collect::<Result<_, _>>().unwrap();
    let mut disk = vec![1; 10_486_272];
    disk[70000..74096].fill(7);
    disk[1 << 20..(1 << 20) + 131_072].fill(0);
    disk[10_485_760..].fill(9);
    for (range, data) in wanted.iter().zip(&read) {
        assert!(data[..] == disk[range.start as usize..range.end as usize], "{range:?}");
    }
    let client = Client::connect(&uri, None, limits.clone()).unwrap();
    let end = client.reads(std::iter::once(10_485_760..10_486_272)).next().unwrap().unwrap();
    assert_eq!(end, [9; 512]);
    let mut all = Client::connect(&uri, None, limits.clone()).unwrap();
    assert_eq!(all.dirty().unwrap(), vec![0..10_486_272; 1]);

    let refused =
        |uri: &Uri, bitmap| Client::connect(uri, Some(bitmap), limits.clone()).err().unwrap().to_string();
    assert!(refused(&uri, "other").contains("\"other\""));
    let other = Uri { export: "other".into(), ..uri.clone() };
    assert!(refused(&other, "b").contains("no such export"), "{}", refused(&other, "b"));
    let nowhere = Uri { socket: at.join("nowhere"), ..uri };
    assert!(refused(&nowhere, "b").contains("cannot connect"));
}
