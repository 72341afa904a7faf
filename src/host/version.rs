//! Debian package versions and their order (deb-version(7)).

use std::cmp::Ordering;
use std::fmt;

/// A Debian package version: `[epoch:]upstream[-revision]`.
///
/// Parsed once, then ordered exactly as `dpkg --compare-versions` does. Two versions that are spelled
/// differently may be equal (`1.0` and `1.00`, `1.0` and `0:1.0-0`), so equality follows the order.
#[derive(Debug, Clone)]
pub struct Version {
    text: String,
    epoch: u32,
    upstream: String,
    revision: String,
}

/// Why a text is no Debian version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' is no Debian package version: {reason}")]
pub struct VersionError {
    text: String,
    reason: &'static str,
}

impl Version {
    /// Parses `text` by the rules `dpkg` applies: the epoch ends at the first colon, the revision begins
    /// after the last hyphen, the upstream part begins with a digit.
    ///
    /// # Errors
    /// [`VersionError`] for an empty text, an epoch that is no number (at most 2^31 - 1), an upstream part
    /// that does not begin with a digit, an empty revision and characters dpkg does not allow.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let fail = |reason| Err(VersionError { text: text.to_owned(), reason });
        let (epoch, rest) = match text.split_once(':') {
            None => (0, text),
            Some((epoch, rest)) => match epoch.parse::<u32>() {
                Ok(number) if epoch.bytes().all(|b| b.is_ascii_digit()) && number <= i32::MAX as u32 => {
                    (number, rest)
                }
                _ => return fail("the epoch before the colon is not a number"),
            },
        };
        let (upstream, revision) = match rest.rsplit_once('-') {
            None => (rest, ""),
            Some((_, "")) => return fail("nothing follows the hyphen"),
            Some(pair) => pair,
        };
        if !upstream.starts_with(|c: char| c.is_ascii_digit()) {
            return fail("it does not begin with a digit");
        }
        let allowed = |extra: &'static [u8]| move |b: u8| b.is_ascii_alphanumeric() || extra.contains(&b);
        if !upstream.bytes().all(allowed(b".+-:~")) || !revision.bytes().all(allowed(b".+~")) {
            return fail("it holds a character that is not allowed there");
        }
        Ok(Self {
            text: text.to_owned(),
            epoch,
            upstream: upstream.to_owned(),
            revision: revision.to_owned(),
        })
    }

    /// The first two numbers. Releases of a Proxmox package that share them were published within a few months.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.upstream.split('.').take(2)
    }

    /// The version as it was written, without the epoch: what a package counts that took another one's name.
    pub fn without_epoch(&self) -> &str {
        self.text.split_once(':').map_or(&self.text, |(_, version)| version)
    }

    /// The version as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare_part(&self.upstream, &other.upstream))
            .then_with(|| compare_part(&self.revision, &other.revision))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

/// Compares an upstream part or a revision: alternately a run of non-digits in the modified alphabet of
/// [`weight`], then a run of digits by value (of any length, so compared as text without leading zeros).
fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        loop {
            let (x, y) = (weight(a), weight(b));
            if x != y {
                return x.cmp(&y);
            }
            if x == 0 {
                break;
            }
            (a, b) = (&a[1..], &b[1..]);
        }
        let (x, y) = (take_number(&mut a), take_number(&mut b));
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// The rank by which the first character sorts: `~` comes before the end of the text, the end (or a digit) before letters,
/// and letters before everything else.
fn weight(text: &[u8]) -> i32 {
    match text.first() {
        None => 0,
        Some(b) if b.is_ascii_digit() => 0,
        Some(b'~') => -1,
        Some(b) if b.is_ascii_alphabetic() => i32::from(*b),
        Some(b) => i32::from(*b) + 256,
    }
}

/// Cuts the leading run of digits off `text` and gives it back without leading zeros.
fn take_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    &digits[digits.iter().take_while(|b| **b == b'0').count()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn order_of_proxmox_releases() {
        let sorted =
            ["5.0-1", "6.4-9", "6.4-13", "7.0-14+1", "7.1-2", "7.1-13", "7.2-1", "8.0.3", "8.4.21", "9.2.11"];
        for pair in sorted.windows(2) {
            assert!(v(pair[0]) < v(pair[1]), "{} < {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn what_dpkg_refuses_is_refused() {
        for bad in [
            "",
            "1-",
            "a1",
            "x:1",
            "-1:1",
            ":1",
            "1 2",
            "1_2",
            "1.0-1_2",
            "-1",
            "99999999999:1",
            "1:",
            "+1:2",
        ] {
            assert!(Version::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn equal_though_spelled_differently() {
        assert_eq!(v("1.0"), v("0:1.00"));
        assert_eq!(v("1.0"), v("1.0-0"));
        assert_ne!(v("1.0"), v("1.0-0a"));
    }
}
