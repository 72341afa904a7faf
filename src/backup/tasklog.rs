//! Reads from the log of vzdump's task what became of each guest's backup. `docs/task-log.md` lists the phrases.
//!
//! Numbers and reasons are kept as the log has them, for people; a log is never more than text.

use serde::{Serialize, Serializer};

use super::names::{Guest, GuestKind};

/// What a backup was made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// A differential.
    Differential,
    /// A full backup, by this product.
    Full,
}

impl Made {
    /// Names in one word what a backup was made as. That of a job without the option is `stock`.
    pub fn word(made: Option<Made>) -> &'static str {
        match made {
            Some(Made::Differential) => "differential",
            Some(Made::Full) => "full",
            None => "stock",
        }
    }

    // serde passes a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn serialize<S: Serializer>(made: &Option<Made>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(Made::word(*made))
    }
}

/// The backup of one guest, as a task's log tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Run {
    /// When it began, in the node's time: `2026-11-20 01:00:02`.
    pub started: Option<String>,
    /// What it was made as, or was to be. It is `None` where the option was not set.
    #[serde(serialize_with = "Made::serialize")]
    pub made: Option<Made>,
    /// Why, and of a differential against which full.
    pub reason: Option<String>,
    /// Whether the log warns of it.
    #[serde(rename = "odd")]
    pub is_odd: bool,
    /// Why everything was read, where only what changed was asked for. A full backup always reads everything.
    pub all_read: Option<String>,
    /// How much of the guest was read: `4.2 GiB`.
    pub read: Option<String>,
    /// Which part of that had changed: `3.1%`.
    pub changed: Option<String>,
    /// How fast it was read: `110.0 MiB/s`.
    pub speed: Option<String>,
    /// How much is stored: `1.2 GiB`.
    pub stored: Option<String>,
    /// Which part of its full backup that is.
    pub share: Option<String>,
    /// How long it took: `00:01:02`.
    pub took: Option<String>,
    /// Why it failed. A run with neither this nor [`Run::took`] has no end in the log: it goes on, or it was killed.
    pub error: Option<String>,
}

/// Finds the backups of each guest in a task's log, in its order.
pub fn runs(log: &str) -> Vec<(Guest, Run)> {
    let mut found: Vec<(Guest, Run)> = Vec::new();
    let mut is_within = false;
    for line in log.lines() {
        let (level, text) = match line.trim_end().split_once(": ") {
            Some((level @ ("INFO" | "WARN" | "ERROR"), text)) => (level, text),
            _ => continue,
        };
        if let Some(guest) = text.strip_prefix("Starting Backup of VM ").and_then(guest) {
            found.push((guest, Run::default()));
            is_within = true;
            continue;
        }
        let Some((guest, run)) = found.last_mut().filter(|_| is_within) else { continue };
        if level == "ERROR" {
            let failed = format!("Backup of VM {} failed - ", guest.vmid);
            if let Some(error) = text.strip_prefix(&failed) {
                run.error = Some(error.to_owned());
                is_within = false;
            }
        } else if let Some(took) = text.strip_prefix(&format!("Finished Backup of VM {} (", guest.vmid)) {
            run.took = Some(took.strip_suffix(')').unwrap_or(took).to_owned());
            is_within = false;
        } else {
            run.learn(text, level == "WARN");
        }
    }
    found
}

/// Reads `100 (lxc)`.
fn guest(text: &str) -> Option<Guest> {
    let (vmid, kind) = text.split_once(' ')?;
    let kind = GuestKind::parse(kind.strip_prefix('(')?.strip_suffix(')')?)?;
    Some(Guest { kind, vmid: vmid.parse().ok()? })
}

impl Run {
    /// Changes each text of the log.
    pub fn map_texts(&mut self, change: impl Fn(&str) -> String) {
        let Run {
            started,
            made: _,
            reason,
            is_odd: _,
            all_read,
            read,
            changed,
            speed,
            stored,
            share,
            took,
            error,
        } = self;
        for text in [started, reason, all_read, read, changed, speed, stored, share, took, error]
            .into_iter()
            .flatten()
        {
            *text = change(text);
        }
    }

    /// Whether the log tells how it ended.
    pub fn has_end(&self) -> bool {
        self.took.is_some() || self.error.is_some()
    }

    fn learn(&mut self, text: &str, is_warning: bool) {
        let word = |text: &str| Some(text.to_owned());
        if let Some(started) = text.strip_prefix("Backup started at ") {
            self.started = word(started);
        } else if let Some(size) = text.strip_prefix("archive file size: ") {
            // A log of ours has a line of its own behind this one.
            self.stored = word(size);
        } else if let Some(why) = text.strip_prefix("no differential backup is possible: ") {
            self.decide(Made::Full, why, true);
        } else if let Some(text) = text.strip_prefix("differential backup: ") {
            self.tell(Made::Differential, text, is_warning);
        } else if let Some(text) = text.strip_prefix("full backup: ") {
            self.tell(Made::Full, text, is_warning);
        } else if let Some(why) = text.strip_prefix("everything is read: ") {
            self.all_read = word(why);
        } else if text.contains("could not serve as base any more") {
            self.decide(Made::Full, text, true);
        }
    }

    fn decide(&mut self, made: Made, reason: &str, is_odd: bool) {
        (self.made, self.reason, self.is_odd) = (Some(made), Some(reason.to_owned()), is_odd);
    }

    /// Learns from a line of ours: the reason, or one of the two lines of numbers.
    fn tell(&mut self, made: Made, text: &str, is_warning: bool) {
        // A number begins with a digit; a reason never does, as it names a file or says a sentence.
        if is_warning || !text.starts_with(|c: char| c.is_ascii_digit()) || self.made.is_none() {
            return self.decide(made, text, is_warning);
        }
        for part in text.split(", ") {
            if let Some(size) = part.strip_suffix(" read") {
                self.read = Some(size.to_owned());
            } else if let Some(speed) = part.strip_prefix("at ") {
                self.speed = Some(speed.to_owned());
            } else if let Some(size) = part.strip_suffix(" stored") {
                self.stored = Some(size.to_owned());
            } else if let Some(share) = part.strip_suffix(" of its full backup") {
                self.share = Some(share.to_owned());
            } else if let Some((_, share)) = part.split_once(" changed (") {
                self.changed = share.strip_suffix(')').map(str::to_owned);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
INFO: starting new backup job: vzdump 100 101 102 103 --storage nas --fullbackup 7 --mode snapshot
INFO: Starting Backup of VM 100 (lxc)
INFO: Backup started at 2026-11-20 01:00:02
INFO: status = running
INFO: CT Name: web.example.com
INFO: differential backup: 'vzdump-lxc-100-2026_11_19-01_00_02.tar.zst' is 24.0 hours old
INFO: creating vzdump archive '/mnt/pve/nas/dump/x'
INFO: everything is read: the VM does not run
INFO: Total bytes written: 12345 (12KiB, 3MiB/s)
INFO: archive file size: 2.10MB
INFO: differential backup: 4.2 GiB read, 4.1 GiB unchanged, 133.0 MiB changed (3.1%), at 110.0 MiB/s
INFO: differential backup: 52.1 MiB stored, 2.4% of its full backup, ratio 82.5
INFO: Finished Backup of VM 100 (00:00:41)
INFO: Backup finished at 2026-11-20 01:00:43
INFO: Starting Backup of VM 101 (qemu)
INFO: Backup started at 2026-11-20 01:00:44
WARN: full backup: the full backup of 2 differential backup(s) is not there: put 'x' back
INFO: full backup: 1.0 GiB read, at 90.1 MiB/s
INFO: full backup: 0.5 GiB stored, ratio 2.0
INFO: Finished Backup of VM 101 (00:01:00)
INFO: Starting Backup of VM 102 (qemu)
INFO: Backup started at 2026-11-20 01:02:00
INFO: full backup: the last one, 'y', is 7 days old
ERROR: Backup of VM 102 failed - no space left
INFO: full backup: not of this guest
INFO: Starting Backup of VM 103 (qemu)
INFO: archive file size: 1.02GB
INFO: Finished Backup of VM 103 (00:00:10)
INFO: Starting Backup of VM junk
INFO: Starting Backup of VM 99999999999 (qemu)
INFO: full backup: after the last one
TASK ERROR: job errors
";

    #[test]
    fn the_phrases_are_read() {
        let found = runs(LOG);
        let of = |vmid| &found.iter().find(|(guest, _)| guest.vmid == vmid).unwrap().1;
        assert_eq!(found.len(), 4);
        assert_eq!(found[0].0.to_string(), "lxc/100");
        let text = |text: &str| Some(text.to_owned());
        let differential = Run {
            started: text("2026-11-20 01:00:02"),
            made: Some(Made::Differential),
            reason: text("'vzdump-lxc-100-2026_11_19-01_00_02.tar.zst' is 24.0 hours old"),
            is_odd: false,
            all_read: text("the VM does not run"),
            read: text("4.2 GiB"),
            changed: text("3.1%"),
            speed: text("110.0 MiB/s"),
            stored: text("52.1 MiB"),
            share: text("2.4%"),
            took: text("00:00:41"),
            error: None,
        };
        assert_eq!(*of(100), differential);
        let full = of(101);
        assert_eq!((full.made, full.is_odd, &full.read), (Some(Made::Full), true, &text("1.0 GiB")));
        assert_eq!(
            full.reason,
            text("the full backup of 2 differential backup(s) is not there: put 'x' back")
        );
        let failed = of(102);
        assert_eq!((&failed.error, &failed.took), (&text("no space left"), &None));
        assert_eq!(failed.reason, text("the last one, 'y', is 7 days old"));
        assert!(found.iter().all(|(_, run)| run.has_end()));
        let killed = LOG.split("INFO: Finished Backup of VM 101").next().unwrap();
        assert_eq!(runs(killed).iter().map(|(_, run)| run.has_end()).collect::<Vec<_>>(), [true, false]);
        let stock = of(103);
        assert_eq!((stock.made, &stock.stored), (None, &text("1.02GB")));
    }

    #[test]
    fn every_reason_of_the_docs_is_taken_for_one() {
        let docs = include_str!("../../docs/task-log.md");
        let why = docs.split("## Whether only what changed is read").next().unwrap();
        let mut count = 0;
        for line in why.lines().filter(|line| line.starts_with("INFO: ") || line.starts_with("WARN: ")) {
            let log = format!("INFO: Starting Backup of VM 100 (lxc)\n{line}\n");
            let (_, run) = runs(&log).pop().unwrap();
            assert!(run.made.is_some() && run.reason.is_some(), "{line}");
            assert_eq!(run.is_odd, line.starts_with("WARN"), "{line}");
            count += 1;
        }
        assert!(count > 8, "{count}");
    }
}
