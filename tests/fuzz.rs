//! Every parser on damaged input: the targets of `fuzz/`, on mutations of its seeds that are the same each time.
//!
//! FUZZ_ROUNDS sets how many mutations of each seed are tried.

mod counting;
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use counting::MEMORY;

/// Numbers that look random and are the same in each run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Values at the edges of what integers hold, in the encodings that the formats use.
const EDGES: [&[u8]; 14] = [
    &[0],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0xff, 0x7f],
    &[0, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0x80, 0, 0, 0],
    &[0x8f, 0xff, 0xff, 0xff, 0x7f],
    &[0x88, 0x80, 0x80, 0x80, 0x00],
    &[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
];

/// Changes an input in one to four ways.
fn mutate(data: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() + 1);
        let len = random.below(data.len() - at + 1).min(1 << random.below(8));
        match random.below(9) {
            0 => data.truncate(at),
            1 => _ = data.drain(at..at + len),
            2 => {
                let piece = data[at..at + len].to_vec();
                data.splice(at..at, piece);
            }
            3 => {
                // Where another seed of the kind goes on.
                let other = &others[random.below(others.len())];
                data.truncate(at);
                data.extend_from_slice(&other[random.below(other.len())..]);
            }
            4 => data[at..at + len].fill(random.next() as u8),
            5 | 6 => {
                let edge = EDGES[random.below(EDGES.len())];
                let end = (at + edge.len()).min(data.len());
                data.splice(at..end, edge.iter().copied());
            }
            7 => {
                let edge = EDGES[random.below(EDGES.len())];
                data.splice(at..at, edge.iter().copied());
            }
            _ if at < data.len() => data[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
}

fn run(name: &str, rounds: usize) {
    let _turn = counting::turn();
    let rounds =
        std::env::var("FUZZ_ROUNDS").map_or(rounds, |text| text.parse().expect("FUZZ_ROUNDS: a number"));
    let (_, target) = fuzz::TARGETS.iter().find(|(n, _)| *n == name).expect("a target of that name");
    let good = fuzz::seeds::seeds(name);
    let seeds = [&good[..], &fuzz::corpus::seeds(name)].concat();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (n, seed) in seeds.iter().enumerate() {
        let parsed = cheap(name, target, seed);
        assert!(parsed || n >= good.len(), "{name}: a seed is refused: {}", seed.escape_ascii());
        // Files that ask for too much serve to be mixed with others; a few changes of each are enough.
        let rounds = if n < good.len() { rounds } else { rounds / 20 };
        for len in 0..seed.len().min(rounds) {
            cheap(name, target, &seed[..len]);
        }
        for _ in 0..rounds {
            let mut data = seed.clone();
            mutate(&mut data, &seeds, &mut random);
            cheap(name, target, &data);
        }
    }
}

/// Runs a target, which must not panic, and not take much memory.
fn cheap(name: &str, target: &fn(&[u8]) -> bool, data: &[u8]) -> bool {
    let run = || {
        std::panic::catch_unwind(|| target(data)).unwrap_or_else(|panic| {
            eprintln!("{name} panicked on {} bytes: {}", data.len(), data.escape_ascii());
            std::panic::resume_unwind(panic);
        })
    };
    let (good, cost) = counting::cost(run);
    assert!(cost <= MEMORY, "{name} took {cost} bytes for {} bytes: {}", data.len(), data.escape_ascii());
    good
}

macro_rules! targets {
    ($($name:ident $rounds:literal,)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), $rounds);
        })*

        #[test]
        fn every_target_is_run() {
            assert!(fuzz::TARGETS.iter().map(|(name, _)| *name).eq([$(stringify!($name)),*]));
        }
    };
}

targets! {
    vcdiff 5_000,
    secondary 5_000,
    app_header 5_000,
    lzop 2_000,
    lzo 5_000,
    seekable 2_000,
    base 10,
    container 3_000,
    vma 3_000,
    names 5_000,
    nbd 500,
    compose 100,
    tar 3_000,
    nbd_server 1_000,
    peer_xdelta3 60,
    peer_lzop 60,
}
