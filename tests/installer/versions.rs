//! The order of versions, against dpkg itself.

use std::cmp::Ordering;
use std::process::Command;

use pve_diff_backup::host::Version;

/// Pairs that tell implementations apart: epochs, tildes, letters against other characters, zeros, hyphens.
const PAIRS: &[(&str, &str)] = &[
    ("1.0", "1.0"),
    ("1.0", "1.00"),
    ("1.0", "1.0-0"),
    ("1.0", "0:1.0"),
    ("1:1.0", "2.0"),
    ("0:1", "1:0"),
    ("1.0~rc1", "1.0"),
    ("1.0~", "1.0"),
    ("1.0~~", "1.0~"),
    ("1.0~~a", "1.0~"),
    ("1.0-1~bpo1", "1.0-1"),
    ("1.0a", "1.0"),
    ("1.0a", "1.0+"),
    ("1.0+", "1.0-"),
    ("1.0.a", "1.0a"),
    ("1.0a", "1.0.1"),
    ("1.0Z", "1.0a"),
    ("1.10", "1.9"),
    ("1.010", "1.10"),
    ("1.0-10", "1.0-9"),
    ("1.0-1.1", "1.0-1"),
    ("1.0-1", "1.0-1-1"),
    ("1.2.3-4-5", "1.2.3-4"),
    ("7.0-14+1", "7.0-14"),
    ("7.1-2", "7.1-12"),
    ("8.2.10", "8.2.9"),
    ("9.0.0~11", "9.0.0"),
    ("9.0.0~11", "8.4.21"),
    ("6.4-15", "7.0-1"),
    ("99999999999999999999", "100000000000000000000"),
    ("1.0+dfsg-1", "1.0-1"),
    ("1.0+b1", "1.0+b10"),
    ("0", "00"),
    ("0~", "0"),
    ("1a~", "1a"),
    ("1a~b", "1a"),
    ("1:1:1", "1:1"),
    ("1.", "1"),
    ("1..1", "1.1"),
    ("1+-1", "1+"),
    ("2147483647:1", "1"),
    ("1.0~0", "1.0~"),
];

/// A small generator of numbers (SplitMix64): the same versions in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    /// A version from few characters, so that many pairs differ late or not at all.
    fn version(&mut self) -> String {
        const PARTS: [&str; 14] = ["0", "1", "01", "10", "9", ".", ".", "~", "+", "-", "a", "B", "z", "~~"];
        let epoch = ["", "", "", "0:", "1:"][self.below(5)];
        let body: String = (0..self.below(7)).map(|_| PARTS[self.below(PARTS.len())]).collect();
        format!("{epoch}{}{body}", self.below(3))
    }
}

fn dpkg(a: &str, relation: &str, b: &str) -> bool {
    Command::new("dpkg").args(["--compare-versions", a, relation, b]).status().unwrap().success()
}

#[test]
fn the_order_is_dpkgs() {
    if !crate::support::has("dpkg") {
        println!("skipped: there is no dpkg here");
        return;
    }
    let mut numbers = Numbers(2026);
    let generated: Vec<(String, String)> = (0..400).map(|_| (numbers.version(), numbers.version())).collect();
    let pairs = PAIRS.iter().copied().chain(generated.iter().map(|(a, b)| (a.as_str(), b.as_str())));
    let mut compared = 0;
    for (a, b) in pairs {
        // A hyphen at the end is an error for both; dpkg only warns of some others that we refuse.
        let (Ok(x), Ok(y)) = (Version::parse(a), Version::parse(b)) else { continue };
        let theirs = match () {
            () if dpkg(a, "eq", b) => Ordering::Equal,
            () if dpkg(a, "lt", b) => Ordering::Less,
            () => Ordering::Greater,
        };
        assert_eq!(x.cmp(&y), theirs, "{a} and {b}");
        assert_eq!(y.cmp(&x), theirs.reverse(), "{b} and {a}");
        compared += 1;
    }
    assert!(compared > 300, "{compared} pairs only");
}

#[test]
fn what_we_refuse_dpkg_does_not_accept_silently() {
    if !crate::support::has("dpkg") {
        println!("skipped: there is no dpkg here");
        return;
    }
    for bad in ["1-", "a1", "x:1", "1 2", "1_2", "1:", "-1:1", "1.0-1_2"] {
        assert!(Version::parse(bad).is_err(), "{bad}");
        let output = Command::new("dpkg").args(["--validate-version", bad]).output().unwrap();
        assert!(!output.status.success() || !output.stderr.is_empty(), "{bad}: dpkg takes it without a word");
    }
}
