//! Shows a place's backups as a table for people.

use std::time::SystemTime;

use indicatif::BinaryBytes;

use super::super::say::count;
use super::Place;
use crate::backup::inventory::{Backup, Chain, GuestBackups, Inventory, Sums};
use crate::backup::unfinished::State;
use crate::backup::verified::Outcome;
use crate::text::{shown, shown_bytes};

/// The number of columns that are aligned. The text behind them is not.
const ALIGNED: usize = 6;
/// The number of characters of notes that are shown.
const NOTES: usize = 60;

/// A row: the aligned cells, then text.
type Row = [String; ALIGNED + 1];

/// Writes what is to be told of a place.
pub(super) fn place((place, found): &(Place, Result<Inventory, String>)) -> String {
    let inventory = match found {
        Ok(inventory) => inventory,
        Err(error) => return format!("{}\n  ! {error}\n", place.shown()),
    };
    let away = place.is_away().map_or(String::new(), |away| format!("  ! {away}\n"));
    if inventory.guests.is_empty() && inventory.unusable.is_empty() {
        return format!("{}\n{away}  no backups here\n", place.shown());
    }
    let head = ["", "date", "size", "of full", "saves", "verified", ""].map(str::to_owned);
    let rows: Vec<Vec<Row>> = inventory.guests.iter().map(rows).collect();
    let widths: [usize; ALIGNED] = std::array::from_fn(|at| {
        let cells = rows.iter().flatten().chain([&head]).map(|row| row[at].chars().count());
        cells.max().unwrap_or(0)
    });
    let mut text = format!("{}\n{away}{}", place.shown(), line(&head, &widths));
    for (guest, rows) in inventory.guests.iter().zip(&rows) {
        text += &format!("\n{}: {}\n", guest.guest, summary(&guest.sums()));
        text.extend(rows.iter().map(|row| line(row, &widths)));
        text.extend(guest.odd.iter().map(|odd| format!("  ! {}: {odd}\n", odd.file())));
    }
    if !inventory.unusable.is_empty() {
        text.push('\n');
    }
    let unusable = inventory.unusable.iter();
    text.extend(unusable.map(|it| format!("  ! {}: {}\n", shown(&it.name), it.reason)));
    text
}

fn line(row: &Row, widths: &[usize; ALIGNED]) -> String {
    let mut text = String::new();
    for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
        // Words and dates are aligned at their left, numbers at their right.
        text += &if at < 2 { format!("  {cell:<width$}") } else { format!("  {cell:>width$}") };
    }
    let text = format!("{text}  {}", row[ALIGNED]);
    format!("{}\n", text.trim_end())
}

fn summary(sums: &Sums) -> String {
    let stored = BinaryBytes(sums.full_size.saturating_add(sums.differential_size));
    let mut text = format!(
        "{}, {}, {stored} stored",
        count(sums.fulls, "full"),
        count(sums.differentials, "differential")
    );
    if sums.saved > 0 {
        text += &format!(", about {} saved", BinaryBytes(sums.saved));
    }
    text
}

fn rows(guest: &GuestBackups) -> Vec<Row> {
    let mut rows = Vec::new();
    for chain in &guest.chains {
        rows.push(row("full", &chain.full, None));
        rows.extend(chain.differentials.iter().map(|it| row("  differential", it, Some(chain))));
    }
    rows.extend(guest.stranded.iter().map(|it| row("stranded", it, None)));
    for it in &guest.unfinished {
        // Of unfinished backups that nobody writes, a line below tells.
        let state = if it.left.state == State::Written { "is being made" } else { "" };
        let size = BinaryBytes(it.size).to_string();
        let none = String::new;
        rows.push(["unfinished".into(), none(), size, none(), none(), none(), state.into()]);
    }
    rows
}

fn row(word: &str, backup: &Backup, of: Option<&Chain>) -> Row {
    let (share, saved) = match of {
        Some(chain) => (chain.share(backup).map(percent), Some(BinaryBytes(chain.saved(backup)).to_string())),
        None => (None, None),
    };
    let protected = backup.is_protected.then(|| "protected".to_owned());
    let notes = backup.notes.as_ref().map(|notes| quoted(notes));
    [
        word.to_owned(),
        backup.name.stamp().readable(),
        BinaryBytes(backup.size).to_string(),
        share.unwrap_or_default(),
        saved.unwrap_or_default(),
        backup.verified.as_ref().map(found).unwrap_or_default(),
        protected.into_iter().chain(notes).collect::<Vec<_>>().join("  "),
    ]
}

/// Writes a result like `good 3 d ago`, or `restored 3 d ago` where that was proved then.
fn found(outcome: &Outcome) -> String {
    let word = match outcome {
        Outcome { good: false, .. } => "FAILED",
        Outcome { restored: Some(restored), at, .. } if restored.at == *at => "restored",
        Outcome { .. } => "good",
    };
    let Some(age) = outcome.age(SystemTime::now()) else { return word.into() };
    match age.as_secs() / 86_400 {
        0 => format!("{word} today"),
        days => format!("{word} {days} d ago"),
    }
}

/// Writes a share like `0.4 %` or `37 %`.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 9.95 { format!("{percent:.1} %") } else { format!("{percent:.0} %") }
}

fn quoted(notes: &[u8]) -> String {
    let text = shown_bytes(notes);
    match text.chars().count() > NOTES {
        true => format!("\"{}...\"", text.chars().take(NOTES - 3).collect::<String>()),
        false => format!("\"{text}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_two_digits_or_so() {
        let texts = [0.0, 0.0042, 0.0994, 0.0996, 0.5, 1.234].map(percent);
        assert_eq!(texts, ["0.0 %", "0.4 %", "9.9 %", "10 %", "50 %", "123 %"]);
    }
}
