//! Deltas made to attack a decoder, in the shapes that other decoders had to learn to refuse: open-vcdiff's tests
//! list most of them, CVE-2014-9765 is one. Each must end in an error that says what is wrong, before anything
//! is written out, and cost little memory.

mod counting;

use std::io::{Cursor, Read, Write};

use pve_diff_backup::matching::base::Base;
use pve_diff_backup::matching::restore::{Differential, Options};
use pve_diff_backup::text::told;
use pve_diff_backup::vcdiff::{MAX_WINDOW, varint};
use pve_diff_backup::vma;

const BASE: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const TARGET: &[u8] = b"newghijkhijkhijkghijxxxxxx";

/// Integers at the edges: 0, the largest of 31, 32, 63 and 64 bits, one beyond, and one that never ends.
const ZERO: &[u8] = &[0];
const MAX_31: &[u8] = &[0x87, 0xff, 0xff, 0xff, 0x7f];
const MAX_32: &[u8] = &[0x8f, 0xff, 0xff, 0xff, 0x7f];
const MAX_63: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
const MAX_64: &[u8] = &[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
const TOO_LARGE: &[u8] = &[0x82, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00];
const ENDLESS: &[u8] = &[0xff; 11];

/// RFC 3284 section 5.6: opcodes that take their size from what follows, or carry it.
const RUN: u8 = 0;
const ADD: u8 = 1;
const fn copy(mode: u8) -> u8 {
    19 + 16 * mode
}
const SELF: u8 = 0;
const HERE: u8 = 1;
const NEAR: u8 = 2;
const SAME: u8 = 6;

/// Places of the sections in [`Shape::sizes`], and their bits in the delta indicator.
const DATA: usize = 0;
const INST: usize = 1;
const ADDR: usize = 2;

/// A delta of one window, as the parts it is written from.
struct Shape {
    magic: Vec<u8>,
    /// Header indicator, and what it announces.
    header: Vec<u8>,
    window: u8,
    /// Length and place.
    segment: Option<[Vec<u8>; 2]>,
    /// Else that of what follows, as declared.
    length: Option<Vec<u8>>,
    target: Vec<u8>,
    delta: u8,
    /// Else those of the sections.
    sizes: [Option<Vec<u8>>; 3],
    sum: Option<Vec<u8>>,
    data: Vec<u8>,
    inst: Vec<u8>,
    addr: Vec<u8>,
}

fn number(n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    varint::write(&mut bytes, n as u64);
    bytes
}

impl Shape {
    /// [`TARGET`] from [`BASE`], by every kind of instruction and of address.
    fn good() -> Shape {
        Shape {
            magic: vec![0xd6, 0xc3, 0xc4, 0],
            header: vec![0],
            window: 1,
            segment: Some([number(20), number(2)]),
            length: None,
            target: number(TARGET.len()),
            delta: 0,
            sizes: [None, None, None],
            sum: None,
            data: b"newx".to_vec(),
            // ADD 3; COPY 5, 4 and 4 by address, distance and neighbour; COPY 4 from the same; RUN 6.
            inst: vec![ADD + 3, copy(SELF) + 2, copy(HERE) + 1, copy(NEAR) + 1, copy(SAME) + 1, RUN, 6],
            addr: vec![4, 4, 1, 4],
        }
    }

    /// Nothing but these instructions, for a target of so many bytes.
    fn only(&mut self, target: usize, data: &[u8], inst: &[&[u8]], addr: &[u8]) {
        self.target = number(target);
        (self.data, self.inst, self.addr) = (data.to_vec(), inst.concat(), addr.to_vec());
    }

    /// The window alone.
    fn window(&self) -> Vec<u8> {
        let sections = [&self.data, &self.inst, &self.addr];
        let mut body = self.target.clone();
        body.push(self.delta);
        let mut declared = 0;
        for (size, section) in self.sizes.iter().zip(sections) {
            let size = size.clone().unwrap_or_else(|| number(section.len()));
            // A lie is made to fit where it can be.
            declared += varint::read(&mut &size[..]).unwrap_or(0).min(1 << 40) as usize;
            body.extend(size);
        }
        body.extend(self.sum.iter().flatten());
        let length = self.length.clone().unwrap_or_else(|| number(body.len() + declared));
        let segment = self.segment.iter().flatten().flatten().copied();
        let mut out = vec![self.window];
        out.extend(segment);
        out.extend(length);
        out.extend(body);
        sections.iter().for_each(|section| out.extend_from_slice(section));
        out
    }

    fn delta(&self) -> Vec<u8> {
        [&self.magic[..], &self.header, &self.window()].concat()
    }
}

/// Restores; what came out before the error, and the error.
fn restore(delta: impl Read + Send + 'static) -> (Vec<u8>, Result<(), String>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(BASE).unwrap();
    let options = Options { threads: 1, window: 1 << 20, check_base: true };
    let mut out = Vec::new();
    let result = Differential::new(Box::new(delta)).and_then(|delta| {
        delta.restore(Some(Base::open_source(file.path(), false)?.unwrap()), options, |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        })
    });
    (out, result.map(drop).map_err(|e| told(&e)))
}

/// What a shape is, how it is made of the good one, and what the error must name.
type Row = (&'static str, fn(&mut Shape), &'static str);

const TRUNCATED: &str = "the delta is truncated";
const SIZE: &str = "more than the limit";
const PARTS: &str = "the length of a window is not that of its parts";
const INTEGER: &str = "an integer exceeds 64 bits";
const WINDOW: &str = "they describe more than the window";
const LESS: &str = "they describe less than the window";
const UNKNOWN: &str = "an address points to bytes not yet known";
const BAD_SIZE: &str = "a size is cut or too large";
const BAD_ADDRESS: &str = "an address is cut or too large";

#[rustfmt::skip]
const SHAPES: &[Row] = &[
    ("nothing", |s| (s.magic, s.header) = (vec![], vec![]), "not a VCDIFF delta"),
    ("another magic", |s| s.magic[1] ^= 1, "not a VCDIFF delta"),
    ("another version", |s| s.magic[3] = 1, "not a VCDIFF delta"),
    ("the interleaved form of SDCH", |s| s.magic[3] = b'S', "not a VCDIFF delta"),
    ("unknown header bits", |s| s.header = vec![0x40], "unknown header indicator bits"),
    ("an unknown compressor", |s| s.header = vec![1, 77], "an unknown secondary compressor"),
    ("a code table of its own", |s| s.header = vec![2, 4, 3, 4, 0xd6, 0xc3, 0xc4, 0], "VCD_CODETABLE"),
    ("a code table with caches of no size", |s| s.header = vec![2, 2, 0, 0], "VCD_CODETABLE"),
    ("a code table with huge caches", |s| s.header = [&[2][..], MAX_32, MAX_31, MAX_31].concat(), "VCD_CODETABLE"),
    ("an application header of 4 GiB", |s| s.header = [&[4], MAX_32].concat(), SIZE),
    ("an application header of 2^64 bytes", |s| s.header = [&[4], MAX_64].concat(), SIZE),
    ("an application header of more than 64 bits", |s| s.header = [&[4], TOO_LARGE].concat(), INTEGER),
    ("an application header without end", |s| s.header = [&[4], ENDLESS].concat(), INTEGER),
    ("an application header that is not there", |s| s.header = [&[4][..], &number(1 << 19)].concat(), TRUNCATED),

    ("source and target at once", |s| s.window = 3, "VCD_TARGET"),
    ("a segment of the target", |s| s.window = 2, "VCD_TARGET"),
    ("unknown window bits", |s| s.window = 0x81, "unknown window indicator bits"),
    ("copies, but no segment", |s| (s.window, s.segment) = (0, None), UNKNOWN),
    ("a segment of nothing", |s| s.segment = Some([number(0), number(0)]), UNKNOWN),
    ("a segment that begins behind the base", |s| s.segment = Some([number(20), number(27)]), "reading the base failed"),
    ("a segment that ends behind the base", |s| s.segment = Some([number(20), number(18)]), "reading the base failed"),
    ("a segment at 4 GiB", |s| s.segment = Some([number(20), MAX_32.into()]), "reading the base failed"),
    ("a segment at 2^63", |s| s.segment = Some([number(20), MAX_63.into()]), "reading the base failed"),
    ("a segment that ends behind 2^64", |s| s.segment = Some([number(20), MAX_64.into()]), "the segment ends beyond"),
    ("a segment of 2^64 bytes", |s| s.segment = Some([MAX_64.into(), number(2)]), "the segment ends beyond"),
    ("segment and window beyond 2^64", |s| s.segment = Some([MAX_64.into(), number(0)]), "exceed 2^64"),
    ("a segment of more than 64 bits", |s| s.segment = Some([TOO_LARGE.into(), number(2)]), INTEGER),
    ("a place of more than 64 bits", |s| s.segment = Some([number(20), TOO_LARGE.into()]), INTEGER),
    ("a segment without end", |s| s.segment = Some([ENDLESS.into(), number(2)]), INTEGER),

    ("length 0", |s| s.length = Some(number(0)), PARTS),
    ("length one more", |s| s.length = Some(number(21)), PARTS),
    ("length one less", |s| s.length = Some(number(19)), PARTS),
    ("length 2^32", |s| s.length = Some(MAX_32.into()), PARTS),
    ("length 2^64", |s| s.length = Some(MAX_64.into()), PARTS),
    ("length of more than 64 bits", |s| s.length = Some(TOO_LARGE.into()), INTEGER),

    ("a window of nothing", |s| s.target = number(0), WINDOW),
    ("a window one byte longer", |s| s.target = number(27), LESS),
    ("a window one byte shorter", |s| s.target = number(25), WINDOW),
    ("a window of the limit", |s| s.target = number(MAX_WINDOW), LESS),
    ("a window above the limit", |s| s.target = number(MAX_WINDOW + 1), SIZE),
    ("a window of 2 GiB", |s| s.target = MAX_31.into(), SIZE),
    ("a window of 2^64 bytes", |s| s.target = MAX_64.into(), SIZE),
    ("a window of more than 64 bits", |s| s.target = TOO_LARGE.into(), INTEGER),

    ("unknown delta bits", |s| s.delta = 8, "delta indicator bits"),
    ("compressed data, but no compressor", |s| s.delta = 1, "delta indicator bits"),
    ("compressed instructions, but no compressor", |s| s.delta = 2, "delta indicator bits"),
    ("compressed addresses, but no compressor", |s| s.delta = 4, "delta indicator bits"),
    ("data that is not as compressed", |s| (s.header, s.delta) = (vec![1, 1], 1), "the delta is damaged"),
    ("data that swells to 4 GiB", |s| {
        (s.header, s.delta, s.data) = (vec![1, 1], 1, [MAX_32, b"newx"].concat());
    }, "the delta is damaged"),

    ("no data", |s| s.data.clear(), "data is missing"),
    ("no data, the bytes are there", |s| s.sizes[DATA] = Some(number(0)), "the delta is damaged"),
    ("data one byte longer", |s| s.sizes[DATA] = Some(number(5)), TRUNCATED),
    ("data one byte too long", |s| s.data.push(b'y'), "data is left over"),
    ("data one byte too short", |s| _ = s.data.pop(), "data is missing"),
    ("data of 2 GiB", |s| s.sizes[DATA] = Some(MAX_31.into()), SIZE),
    ("data of 2^64 bytes", |s| s.sizes[DATA] = Some(MAX_64.into()), SIZE),
    ("data of more than 64 bits", |s| s.sizes[DATA] = Some(TOO_LARGE.into()), INTEGER),
    ("no instructions", |s| s.inst.clear(), LESS),
    ("no instructions for nothing", |s| s.only(0, b"x", &[], &[]), "data is left over"),
    ("instructions that end early", |s| s.inst.truncate(4), LESS),
    ("an instruction too many", |s| s.inst.extend([ADD, 0, RUN, 1]), WINDOW),
    ("instructions one byte longer", |s| s.sizes[INST] = Some(number(8)), TRUNCATED),
    ("instructions of 2 GiB", |s| s.sizes[INST] = Some(MAX_31.into()), SIZE),
    ("instructions of 2^64 bytes", |s| s.sizes[INST] = Some(MAX_64.into()), SIZE),
    ("instructions of more than 64 bits", |s| s.sizes[INST] = Some(ENDLESS.into()), INTEGER),
    ("no addresses", |s| s.addr.clear(), BAD_ADDRESS),
    ("addresses one byte longer", |s| s.sizes[ADDR] = Some(number(5)), TRUNCATED),
    ("addresses one byte too long", |s| s.addr.push(0), "addresses are left over"),
    ("addresses one byte too short", |s| _ = s.addr.pop(), "an address is missing"),
    ("addresses of 2 GiB", |s| s.sizes[ADDR] = Some(MAX_31.into()), SIZE),
    ("addresses of 2^64 bytes", |s| s.sizes[ADDR] = Some(MAX_64.into()), SIZE),
    ("addresses of more than 64 bits", |s| s.sizes[ADDR] = Some(TOO_LARGE.into()), INTEGER),

    ("COPY of nothing", |s| s.only(5, b"", &[&[copy(SELF)], ZERO], &[0]), LESS),
    ("COPY one byte longer", |s| s.only(5, b"", &[&[copy(SELF), 6]], &[0]), WINDOW),
    ("COPY one byte shorter", |s| s.only(5, b"", &[&[copy(SELF), 4]], &[0]), LESS),
    ("COPY of 2 GiB", |s| s.only(5, b"", &[&[copy(SELF)], MAX_31], &[0]), WINDOW),
    ("COPY of 2^64 bytes", |s| s.only(5, b"", &[&[copy(SELF)], MAX_64], &[0]), WINDOW),
    ("COPY of more than 64 bits", |s| s.only(5, b"", &[&[copy(SELF)], TOO_LARGE], &[0]), BAD_SIZE),
    ("COPY without size", |s| s.only(5, b"", &[&[copy(SELF)]], &[0]), BAD_SIZE),
    ("COPY of a size cut short", |s| s.only(5, b"", &[&[copy(SELF), 0x81]], &[0]), BAD_SIZE),
    ("a sum of sizes beyond 2^64", |s| s.only(5, b"x", &[&[ADD, 1], &[copy(SELF)], MAX_64], &[0]), WINDOW),
    ("COPY from here", |s| s.only(5, b"", &[&[copy(SELF), 5]], &[20]), UNKNOWN),
    ("COPY from beyond", |s| s.only(5, b"", &[&[copy(SELF), 5]], &[21]), UNKNOWN),
    ("COPY from 2 GiB", |s| s.only(5, b"", &[&[copy(SELF), 5]], MAX_31), UNKNOWN),
    ("COPY from 2^64", |s| s.only(5, b"", &[&[copy(SELF), 5]], MAX_64), UNKNOWN),
    ("COPY from more than 64 bits", |s| s.only(5, b"", &[&[copy(SELF), 5]], TOO_LARGE), BAD_ADDRESS),
    ("COPY from an address cut short", |s| s.only(5, b"", &[&[copy(SELF), 5]], &[0x81]), BAD_ADDRESS),
    ("COPY from 0 back", |s| s.only(5, b"", &[&[copy(HERE), 5]], &[0]), UNKNOWN),
    ("COPY from before the segment", |s| s.only(5, b"", &[&[copy(HERE), 5]], &[21]), "an address lies before"),
    ("COPY from 2^64 back", |s| s.only(5, b"", &[&[copy(HERE), 5]], MAX_64), "an address lies before"),
    ("COPY from nearly here", |s| s.only(9, b"", &[&[copy(SELF), 4], &[copy(NEAR), 5]], &[19, 5]), UNKNOWN),
    ("COPY from near and 2^64", |s| {
        s.only(9, b"", &[&[copy(SELF), 4], &[copy(NEAR), 5]], &[&[19], MAX_64].concat());
    }, "an address is too large"),
    ("COPY from the same, nothing known", |s| {
        (s.window, s.segment) = (0, None);
        s.only(4, b"", &[&[copy(SAME), 4]], &[9]);
    }, UNKNOWN),
    ("COPY from the same, no byte", |s| s.only(4, b"", &[&[copy(SAME), 4]], &[]), "an address is missing"),

    ("ADD of nothing", |s| s.only(5, b"", &[&[ADD], ZERO], &[]), LESS),
    ("ADD one byte longer", |s| s.only(5, b"abcdef", &[&[ADD, 6]], &[]), WINDOW),
    ("ADD one byte shorter", |s| s.only(5, b"abcd", &[&[ADD, 4]], &[]), LESS),
    ("ADD of what is not there", |s| s.only(5, b"abcd", &[&[ADD, 5]], &[]), "data is missing"),
    ("ADD of 2 GiB", |s| s.only(5, b"abcde", &[&[ADD], MAX_31], &[]), WINDOW),
    ("ADD of 2^64 bytes", |s| s.only(5, b"abcde", &[&[ADD], MAX_64], &[]), WINDOW),
    ("ADD of more than 64 bits", |s| s.only(5, b"abcde", &[&[ADD], TOO_LARGE], &[]), BAD_SIZE),
    ("RUN of nothing", |s| s.only(5, b"a", &[&[RUN], ZERO], &[]), LESS),
    ("RUN one byte longer", |s| s.only(5, b"a", &[&[RUN, 6]], &[]), WINDOW),
    ("RUN one byte shorter", |s| s.only(5, b"a", &[&[RUN, 4]], &[]), LESS),
    ("RUN of no byte", |s| s.only(5, b"", &[&[RUN, 5]], &[]), "data is missing"),
    ("RUN of 2 GiB", |s| s.only(5, b"a", &[&[RUN], MAX_31], &[]), WINDOW),
    ("RUN of 2^64 bytes", |s| s.only(5, b"a", &[&[RUN], MAX_64], &[]), WINDOW),
    ("RUN of more than 64 bits", |s| s.only(5, b"a", &[&[RUN], ENDLESS], &[]), BAD_SIZE),
    ("many instructions that do nothing", |s| {
        s.only(1000, b"", &[&[ADD, 0].repeat(1500)], &[]);
    }, LESS),
    ("more of them than a window may have", |s| s.only(1000, b"", &[&[ADD, 0].repeat(9000)], &[]), SIZE),
    ("a window of the limit, by single bytes, one too many", |s| {
        s.only(1 << 20, &[b'a'; 1 << 20], &[&[ADD + 1].repeat((1 << 20) + 1)], &[]);
    }, WINDOW),

    ("another checksum", |s| (s.window, s.sum) = (5, Some(vec![1, 2, 3, 4])), "checksum of window 0"),
    ("a checksum that is not there", |s| s.window = 5, "window"),
    ("a checksum of 64 bits", |s| (s.window, s.sum) = (5, Some(MAX_64.into())), "the delta is damaged"),
];

/// Whatever is wrong with the first window, and whatever follows it, nothing of it comes out.
#[test]
fn every_shape_is_refused_by_name_and_cheaply() {
    let _turn = counting::turn();
    let (out, result) = restore(Cursor::new(Shape::good().delta()));
    assert_eq!((out, result), (TARGET.to_vec(), Ok(())));
    for (name, make, names) in SHAPES {
        let mut shape = Shape::good();
        make(&mut shape);
        let delta = if shape.magic.is_empty() { Vec::new() } else { shape.delta() };
        let followed = [&delta[..], &Shape::good().window().repeat(3)].concat();
        for (delta, named) in [(delta, *names), (followed, "")] {
            let len = delta.len();
            let ((out, result), cost) = counting::cost(|| restore(Cursor::new(delta)));
            let error = result.expect_err(name);
            assert!(error.contains(named), "{name}: {error}");
            assert!(out.is_empty(), "{name}: {} bytes came out", out.len());
            assert!(cost < counting::MEMORY, "{name}: {len} bytes took {cost}");
        }
    }
}

/// The same behind a good window: that one is whole, and nothing else comes out.
#[test]
fn what_was_good_before_stays_good() {
    let _turn = counting::turn();
    for (name, make, _) in SHAPES {
        let mut shape = Shape::good();
        make(&mut shape);
        if shape.magic != Shape::good().magic || shape.header != [0] {
            continue;
        }
        let (out, result) = restore(Cursor::new([Shape::good().delta(), shape.window()].concat()));
        assert!(result.is_err(), "{name}");
        assert!(out.is_empty() || out == TARGET, "{name}: {} bytes came out", out.len());
    }
}

/// Gives the same bytes for ever.
struct Forever(Vec<u8>, usize);

impl Read for Forever {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        for byte in buf.iter_mut() {
            *byte = self.0[self.1 % self.0.len()];
            self.1 += 1;
        }
        Ok(buf.len())
    }
}

/// A decoder that makes no progress must stop by itself, however long its input goes on.
#[test]
fn streams_without_end_end() {
    let _turn = counting::turn();
    let mut empty = Shape::good();
    (empty.window, empty.segment) = (0, None);
    empty.only(0, b"", &[], &[]);
    let mut idle = Shape::good();
    idle.only(0, b"", &[&[copy(SELF), 0].repeat(100), &[ADD, 0].repeat(100)], &[0; 100]);
    let header = Cursor::new(Shape::good().delta());
    for (name, rest, names) in [
        ("empty windows", empty.window(), "too many empty windows"),
        ("windows of instructions that do nothing", idle.window(), "too many empty windows"),
        ("zeros", vec![0], "the length of a window"),
        ("an integer", vec![0xf9], "unknown window indicator"),
        ("a header, as if it were a window", Shape::good().delta(), "VCD_TARGET"),
    ] {
        let endless = header.clone().chain(Forever(rest, 0));
        let ((out, result), cost) = counting::cost(|| restore(endless));
        let error = result.expect_err(name);
        assert!(error.contains(names), "{name}: {error}");
        assert_eq!(out, TARGET, "{name}");
        assert!(cost < counting::MEMORY, "{name} took {cost}");
    }
}

/// CVE-2014-9765: xdelta3 before 3.0.9 wrote the parts of an application header behind the end of an array, one for
/// each slash. The header is only text: whatever is in it, the window decides.
#[test]
fn application_headers_with_any_number_of_parts() {
    let _turn = counting::turn();
    let texts = ["/".repeat(5), "/".repeat(1 << 19), "name//".repeat(1000), "a/b/c/d/e/f/g/h".into()];
    let long =
        ["x".repeat((1 << 20) - 1), "../../etc/passwd//../../etc/shadow/".into(), "/G/L/Z/|cat".into()];
    for text in texts.iter().chain(&long) {
        let mut shape = Shape::good();
        shape.header = [&[4][..], &number(text.len()), text.as_bytes()].concat();
        let ((out, result), cost) = counting::cost(|| restore(Cursor::new(shape.delta())));
        let short = &text[..text.len().min(20)];
        assert_eq!((&out[..], result), (TARGET, Ok(())), "{short}");
        assert!(cost < counting::MEMORY, "{short} took {cost}");
    }
}

/// Disks of this many GiB each, as the header of an archive names them.
fn disks(count: u8, gib: u64) -> vma::Header {
    let device = |id: u8| vma::Device { id: id + 1, name: format!("drive-scsi{id}"), size: gib << 30 };
    vma::Header { uuid: [1; 16], ctime: 0, configs: Vec::new(), devices: (0..count).map(device).collect() }
}

#[test]
fn disks_of_any_size_cost_no_more_than_their_file() {
    let _turn = counting::turn();
    // Zeros of 80 TiB in a file of 10 kB, which is never an honest one; and 64 GiB with some data.
    let content = 20 << 30;
    let (hostile, cost) = counting::cost(|| vma::Index::new(disks(40, 2048), content, 10_000).is_err());
    assert!(hostile && cost < counting::MEMORY, "{cost}");
    let honest = || {
        let mut index = vma::Index::new(disks(1, 64), content, 200 << 20).unwrap();
        for number in 0..1 << 20 {
            let mask = if number % 1000 < 50 { 0xffff } else { 0 };
            index.insert(u64::from(number) * 65_536, vma::Cluster { device: 1, number, mask }).unwrap();
        }
        let again = vma::Cluster { device: 1, number: 7, mask: 0 };
        assert!(index.insert(0, again).is_err());
        index.finish(std::sync::Arc::new(Vec::new())).unwrap().len()
    };
    let (disks, cost) = counting::cost(honest);
    assert!(disks == 1 && cost < 2 << 20, "{cost}");
}
