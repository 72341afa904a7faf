//! What the next backups will take, as the backups that are there tell.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::backup::chain::{Chain, Directory};
use crate::backup::names::Guest;
use crate::backup::{Differential, Full, Stamp};

/// A guest without a backup for so long is no longer backed up here.
const ALIVE: Duration = Duration::from_secs(31 * 86_400);

/// One more backup of each guest that is backed up here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Round {
    /// The number of guests that were backed up here within 31 days.
    pub guests: usize,
    /// The number of bytes that it takes: of each guest as many as its last differential, and as many more as that one was
    /// larger than the one before; where it has none, as many as its last full backup.
    pub next: u64,
    /// The number of bytes that it takes where all are full backups.
    pub all_full: u64,
}

/// The newest chain of each guest.
pub(super) fn newest(directory: &Directory) -> impl Iterator<Item = &Chain> {
    // Chains are ordered by time, and the last one stays.
    let newest: BTreeMap<Guest, &Chain> =
        directory.chains.iter().map(|chain| (chain.full.guest(), chain)).collect();
    newest.into_values()
}

impl Round {
    /// Reckons by what is there.
    pub(super) fn expected(directory: &Directory, now: SystemTime) -> Round {
        let since = now.checked_sub(ALIVE).and_then(|it| it.duration_since(UNIX_EPOCH).ok());
        let since = since.and_then(|it| Stamp::from_unix_utc(it.as_secs() as i64));
        let last = |chain: &Chain| chain.differentials.last().map_or(chain.full.stamp(), Differential::stamp);
        let size = |name: &str| directory.size_of(name);
        let mut round = Round::default();
        for chain in newest(directory).filter(|chain| Some(last(chain)) >= since) {
            let full = size(Full::as_str(&chain.full));
            let next = match &chain.differentials[..] {
                [] => full,
                [one] => size(one.as_str()),
                [.., before, last] => {
                    let (before, last) = (size(before.as_str()), size(last.as_str()));
                    last.saturating_add(last.saturating_sub(before))
                }
            };
            round.guests += 1;
            round.next = round.next.saturating_add(next);
            round.all_full = round.all_full.saturating_add(full);
        }
        round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_and_how_they_grew_tell_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, size: usize| std::fs::write(dir.path().join(name), vec![0; size]).unwrap();
        let full = |guest: &str, day: &str| format!("vzdump-{guest}-2026_11_{day}-01_00_02");
        let one = full("qemu-101", "20") + ".vma.zst";
        for (day, size) in [("21", 10), ("22", 30)] {
            write(&format!("{one}--differential-2026_11_{day}-01_00_02.vcdiff.zst"), size);
        }
        write(&one, 1000);
        write(&(full("qemu-101", "13") + ".vma.zst"), 5000);
        write(&(full("lxc-102", "22") + ".tar.zst"), 200);
        // This one is no longer backed up.
        write(&full("lxc-103", "22").replace("2026_11", "2026_06").replace("02", "03"), 1);
        write("vzdump-lxc-104-2026_06_01-01_00_02.tar.zst", 7000);
        let directory = Directory::scan(dir.path()).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_795_392_000);
        assert_eq!(Round::expected(&directory, now), Round { guests: 2, next: 50 + 200, all_full: 1200 });
        assert_eq!(newest(&directory).count(), 3);
    }
}
