//! The table at the end.

use std::time::Duration;

/// What is told of a guest.
#[derive(Debug, Clone)]
pub struct Row {
    /// The guest.
    pub title: String,
    /// Bytes of its data.
    pub data: u64,
    /// Bytes of each backup, the full one first.
    pub backups: Vec<u64>,
    /// Time for all of them.
    pub took: Duration,
}

/// Bytes as MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The table: a guest per line, sizes in MiB.
pub fn render(rows: &[Row]) -> String {
    let nights = rows.iter().map(|row| row.backups.len()).max().unwrap_or(0);
    let mut lines = vec![vec!["sizes in MiB".to_owned(), "data".into(), "full".into()]];
    lines[0].extend((1..nights).map(|day| format!("diff day {day}")));
    lines[0].push("time".into());
    for row in rows {
        let mut line = vec![row.title.clone(), format!("{:.2}", mib(row.data))];
        line.extend(row.backups.iter().map(|bytes| format!("{:.2}", mib(*bytes))));
        line.push(format!("{:.1} s", row.took.as_secs_f64()));
        lines.push(line);
    }
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for line in &lines {
        text += &format!("{:<1$}", line[0], width(0));
        for (column, cell) in line.iter().enumerate().skip(1) {
            text += &format!("  {cell:>0$}", width(column));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_below_each_other() {
        let row = |title: &str, factor: u64| Row {
            title: title.into(),
            data: 64 << 20,
            backups: vec![factor << 20, factor << 18, 1 << 14],
            took: Duration::from_millis(1234),
        };
        let expected = "\
sizes in MiB    data    full  diff day 1  diff day 2   time
VM 101         64.00    9.00        2.25        0.02  1.2 s
container 102  64.00  123.00       30.75        0.02  1.2 s
";
        assert_eq!(render(&[row("VM 101", 9), row("container 102", 123)]), expected);
    }
}
