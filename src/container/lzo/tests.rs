//! Hand-made streams of every instruction, a second decoder to compare with, and hostile input.

use proptest::prelude::*;

use super::*;

/// Decodes into a buffer of exactly `len` bytes.
fn decode(stream: &[u8], len: usize) -> Result<Vec<u8>, Error> {
    let mut out = vec![0; len];
    let found = decompress(stream, &mut out)?;
    out.truncate(found);
    Ok(out)
}

fn encode(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0; max_compressed_len(data.len())];
    let len = Encoder::new().compress(data, &mut out);
    out.truncate(len);
    out
}

/// Bytes without repetitions worth mentioning.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(step).collect()
}

/// Builds streams and, byte by byte, what they mean.
#[derive(Default)]
struct Model {
    stream: Vec<u8>,
    content: Vec<u8>,
    /// Literals after the last instruction; more than 3 for a run.
    before: usize,
}

impl Model {
    fn length(&mut self, bits: usize, value: usize) -> u8 {
        if value <= bits { value as u8 } else { 0 }
    }

    fn long(&mut self, bits: usize, value: usize) {
        if let Some(mut rest) = value.checked_sub(bits + 1) {
            while rest >= 255 {
                self.stream.push(0);
                rest -= 255;
            }
            self.stream.push(rest as u8 + 1);
        }
    }

    fn first(mut self, literals: &[u8]) -> Self {
        self.stream.push(17 + literals.len() as u8);
        self.before = literals.len();
        self.literals(literals)
    }

    fn literals(mut self, literals: &[u8]) -> Self {
        self.stream.extend(literals);
        self.content.extend(literals);
        self
    }

    fn run(mut self, literals: &[u8]) -> Self {
        let token = self.length(15, literals.len() - 3);
        self.stream.push(token);
        self.long(15, literals.len() - 3);
        self.before = 4;
        self.literals(literals)
    }

    /// The two-byte forms below 16: length 2 or 3 by what came before.
    fn tiny(mut self, d: usize, literals: &[u8]) -> Self {
        self.stream.extend([((d & 3) << 2 | literals.len()) as u8, (d >> 2) as u8]);
        let (len, distance) = if self.before > 3 { (3, d + 2049) } else { (2, d + 1) };
        self.copy(len, distance, literals)
    }

    fn near(mut self, len: usize, distance: usize, literals: &[u8]) -> Self {
        let d = distance - 1;
        self.stream.extend([((len - 1) << 5 | (d & 7) << 2 | literals.len()) as u8, (d >> 3) as u8]);
        self.copy(len, distance, literals)
    }

    fn far(mut self, len: usize, distance: usize, literals: &[u8]) -> Self {
        let (marker, bits, d) = match distance {
            ..=16384 => (32, 31, distance - 1),
            _ => (16 | ((distance - 16384) >> 14) << 3, 7, (distance - 16384) & 0x3fff),
        };
        let token = marker as u8 | self.length(bits, len - 2);
        self.stream.push(token);
        self.long(bits, len - 2);
        self.stream.extend(((d << 2 | literals.len()) as u16).to_le_bytes());
        self.copy(len, distance, literals)
    }

    fn copy(mut self, len: usize, distance: usize, literals: &[u8]) -> Self {
        for _ in 0..len {
            self.content.push(self.content[self.content.len() - distance]);
        }
        self.before = literals.len();
        self.literals(literals)
    }

    fn check(mut self) {
        self.stream.extend(END_MARK);
        assert_eq!(decode(&self.stream, self.content.len()).unwrap(), self.content);
        // Room behind the result lets the decoder copy in wide pieces; the result must be the same.
        assert_eq!(decode(&self.stream, self.content.len() + 64).unwrap(), self.content);
        if let Some(short) = self.content.len().checked_sub(1) {
            assert!(matches!(decode(&self.stream, short), Err(Error::OutputFull { .. })));
        }
        for cut in 0..self.stream.len().min(300) {
            let cut = &self.stream[..self.stream.len() - 1 - cut];
            assert!(matches!(decode(cut, self.content.len()), Err(Error::InputEnds { .. })), "{cut:?}");
        }
    }
}

#[test]
fn the_empty_stream() {
    assert_eq!(decode(&END_MARK, 0).unwrap(), b"");
    assert_eq!(encode(b""), END_MARK);
}

#[test]
fn first_bytes() {
    Model::default().first(b"a").check();
    Model::default().first(b"abc").near(3, 3, b"").check();
    Model::default().first(b"abcd").near(8, 1, b"xyz").check();
    Model::default().first(&noise(238)).check();
    Model::default().run(&noise(4)).check();
}

#[test]
fn run_lengths_at_their_edges() {
    for len in [4, 15, 16, 17, 18, 19, 255, 272, 273, 274, 527, 528, 529, 5000] {
        Model::default().run(&noise(len)).check();
        Model::default().run(&noise(len)).near(4, 4, b"").run(&noise(len)).check();
    }
}

#[test]
fn two_byte_copies_depend_on_the_literals_before() {
    Model::default().first(b"ab").tiny(1, b"c").tiny(2, b"de").check();
    for d in [0, 3, 4, 1023] {
        Model::default().run(&noise(3072)).tiny(d, b"").check();
        Model::default().run(&noise(3072)).near(3, 1, b"z").tiny(d, b"xy").check();
    }
}

#[test]
fn copies_at_the_edges_of_every_form() {
    for distance in [1, 2, 7, 8, 15, 16, 17, 2047, 2048] {
        for len in 3..=8 {
            Model::default().run(&noise(2048)).near(len, distance, b"").near(len, distance, b"q").check();
        }
    }
    let lengths = [3, 4, 9, 10, 16, 17, 33, 34, 264, 265, 288, 289, 290, 70000];
    for distance in [1, 2, 3, 5, 16, 2049, 16384, 16385, 32767, 32768, 32769, MAX_DISTANCE] {
        for len in lengths {
            Model::default().run(&noise(MAX_DISTANCE)).far(len, distance, b"ab").check();
        }
    }
}

#[test]
fn damage_is_named_with_its_place() {
    assert_eq!(decode(b"", 9), Err(Error::InputEnds { at: 0 }));
    assert_eq!(decode(&[0x11, 0, 0, 7], 9), Err(Error::Trailing { at: 3 }));
    let before_start = [18, b'a', 0x40 | 1 << 2, 0, 0x11, 0, 0];
    assert_eq!(decode(&before_start, 9), Err(Error::Distance { at: 2, distance: 2, available: 1 }));
    let too_much = [18, b'a', 0x40, 0, 0x11, 0, 0];
    assert_eq!(decode(&too_much, 3), Err(Error::OutputFull { at: 2, len: 3 }));
    assert_eq!(decode(&[0; 1000], 9), Err(Error::InputEnds { at: 1000 }));
    // 255 million bytes asked for by a megabyte: refused at once, for there is no room.
    let mut bomb = vec![18, b'a', 32];
    bomb.resize(1 << 20, 0);
    bomb.extend([1, 0, 0, 0x11, 0, 0]);
    assert_eq!(decode(&bomb, 4096), Err(Error::OutputFull { at: 2, len: 4096 }));
}

/// Data of the kinds that lead the encoder into each of its forms.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (any::<u8>(), 0usize..1000).prop_map(|(value, len)| vec![value; len]),
        (0usize..30000).prop_map(noise),
        prop::collection::vec(0u8..3, 0..400),
        (prop::collection::vec(any::<u8>(), 1..20), 1usize..60).prop_map(|(part, times)| part.repeat(times)),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// A choice of instruction; its numbers are fitted to what is possible at its place.
fn instructions() -> impl Strategy<Value = Vec<(u8, usize, usize, Vec<u8>)>> {
    let literals = prop::collection::vec(any::<u8>(), 0..=3);
    prop::collection::vec((0u8..5, 0usize..600, 0usize..50000, literals), 1..60)
}

proptest! {
    #[test]
    fn what_is_packed_unpacks(data in data()) {
        let packed = encode(&data);
        prop_assert!(packed.len() <= max_compressed_len(data.len()));
        prop_assert_eq!(decode(&packed, data.len()).unwrap(), data);
    }

    #[test]
    fn any_valid_stream_is_read(list in instructions(), start in prop::collection::vec(any::<u8>(), 1..200)) {
        let mut model = Model::default().first(&start);
        for (kind, len, distance, literals) in list {
            let have = model.content.len();
            model = match kind {
                0 if model.before == 0 => model.run(&noise(4 + len)),
                1 if model.before > 3 && have >= 3072 => model.tiny(distance % 1024, &literals),
                1 if (1..=3).contains(&model.before) => model.tiny(distance % have.min(1024), &literals),
                2 | 3 => model.near(3 + len % 6, 1 + distance % have.min(2048), &literals),
                _ => model.far(3 + len, 1 + distance % have.min(MAX_DISTANCE), &literals),
            };
        }
        model.stream.extend(END_MARK);
        prop_assert_eq!(decode(&model.stream, model.content.len()).unwrap(), model.content);
    }

    #[test]
    fn any_bytes_are_safe(stream in prop::collection::vec(any::<u8>(), 0..300), room in 0usize..2000) {
        let mut out = vec![0; room];
        if let Ok(len) = decompress(&stream, &mut out) {
            prop_assert!(len <= room);
        }
    }

    #[test]
    fn damaged_streams_are_safe(data in data(), at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut packed = encode(&data);
        let at = at.index(packed.len());
        packed[at] = value;
        let mut out = vec![0; data.len()];
        if let Ok(len) = decompress(&packed, &mut out) {
            prop_assert!(len <= data.len());
        }
    }
}

#[test]
fn every_small_size_round_trips() {
    let zeros = vec![0; 600];
    let text: Vec<u8> = b"the same words and the same words ".iter().copied().cycle().take(600).collect();
    for kind in [zeros, text, noise(600)] {
        for len in 0..kind.len() {
            assert_eq!(decode(&encode(&kind[..len]), len).unwrap(), &kind[..len]);
        }
    }
}

#[test]
fn output_stays_within_its_bound() {
    for len in [1000, 65536, 262144] {
        assert!(encode(&noise(len)).len() <= max_compressed_len(len));
    }
}

#[test]
fn distances_beyond_the_format_or_the_table_are_not_used() {
    // 49151 is the most that can be said, at 65536 the positions in the table wrap.
    for distance in [49150, 49151, 49152, 65535, 65536, 65537, 131072] {
        let mark = noise(100);
        let data = [mark.as_slice(), &vec![0; distance - mark.len()], &mark].concat();
        let packed = encode(&data);
        assert_eq!(decode(&packed, data.len()).unwrap(), data);
        let zeros = distance / 255;
        assert_eq!(packed.len() < zeros + 150, distance <= MAX_DISTANCE, "{distance}: {}", packed.len());
    }
}

#[test]
fn an_encoder_may_be_kept() {
    let mut encoder = Encoder::new();
    let mut out = vec![0; max_compressed_len(100_000)];
    for data in [noise(100_000), vec![7; 90_000], noise(100_000)] {
        let len = encoder.compress(&data, &mut out);
        assert_eq!(out[..len], encode(&data));
    }
}
