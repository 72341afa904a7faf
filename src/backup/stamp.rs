//! The time in the name of a backup.

use std::fmt;

/// A calendar date and time of day as it stands in a name, `YYYY_MM_DD-HH_MM_SS`.
///
/// It is the local time of the node that made the backup, without a time zone. Its order is that of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Stamp {
    /// The length of the text form in bytes.
    pub const LEN: usize = 19;

    /// Reads the text form. The result is `None` where the text has another form, is no real date and time, or lies
    /// before 1970. Second 60 (a leap second) is not accepted, since Perl's `timelocal`, which Proxmox uses, dies of
    /// it.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let form = text.len() == Self::LEN
            && text.iter().zip(b"dddd_dd_dd-dd_dd_dd").all(|(c, form)| match form {
                b'd' => c.is_ascii_digit(),
                _ => c == form,
            });
        if !form {
            return None;
        }
        let two = |at: usize| (text[at] - b'0') * 10 + (text[at + 1] - b'0');
        let year = u16::from(two(0)) * 100 + u16::from(two(2));
        let stamp =
            Stamp { year, month: two(5), day: two(8), hour: two(11), minute: two(14), second: two(17) };
        let real = year >= 1970
            && (1..=12).contains(&stamp.month)
            && (1..=days_in_month(year, stamp.month)).contains(&stamp.day)
            && stamp.hour < 24
            && stamp.minute < 60
            && stamp.second < 60;
        real.then_some(stamp)
    }

    /// Converts a time in seconds since 1970, in UTC. The result is `None` outside of the years 0 to 9999.
    pub fn from_unix_utc(seconds: i64) -> Option<Self> {
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400) as u32);
        // Days since 0000-03-01, so that leap days end a year; 146097 days are 400 years.
        let days = days.checked_add(719_468)?;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        Some(Stamp {
            year: u16::try_from(year).ok().filter(|y| *y <= 9999)?,
            month: month as u8,
            day: day as u8,
            hour: (rest / 3600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        })
    }
}

impl Stamp {
    /// The form for people, `2026-11-21 23:05:00`, whose order is that of time as well.
    pub fn readable(self) -> String {
        let Stamp { year, month, day, hour, minute, second } = self;
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }

    /// Shows a time in seconds since 1970 to people: `2026-11-21 23:05 UTC`.
    pub fn shown_utc(seconds: u64) -> String {
        match i64::try_from(seconds).ok().and_then(Self::from_unix_utc) {
            // Without the seconds.
            Some(stamp) => format!("{} UTC", &stamp.readable()[..16]),
            None => format!("{seconds} s after 1970"),
        }
    }
}

/// Writes the form that stands in names: `2026_11_21-23_05_00`.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stamp { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}_{month:02}_{day:02}-{hour:02}_{minute:02}_{second:02}")
    }
}

fn days_in_month(year: u16, month: u8) -> u8 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_dates_in_the_exact_form() {
        for good in
            ["2013_12_01-00_00_01", "2024_02_29-23_59_59", "2000_02_29-00_00_00", "9999_12_31-23_59_59"]
        {
            assert_eq!(Stamp::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "2013_12_01",
            "2013-12-01-00_00_01",
            "2013_12_01-00_00_010",
            "2013_13_01-00_00_01",
            "2013_00_01-00_00_01",
            "2013_02_29-00_00_01",
            "1900_02_28-00_00_01",
            "2100_02_29-00_00_01",
            "2013_04_31-00_00_01",
            "2013_12_00-00_00_01",
            "2013_12_01-24_00_00",
            "2013_12_01-00_60_00",
            "2013_12_01-00_00_60",
            "+013_12_01-00_00_01",
            "2013_1é_01-00_00_1",
        ] {
            assert_eq!(Stamp::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn unix_time_becomes_the_date_of_utc() {
        // date -u -d @N +%Y_%m_%d-%H_%M_%S
        for (seconds, text) in [
            (0, "1970_01_01-00_00_00"),
            (951_782_400, "2000_02_29-00_00_00"),
            (1_709_251_199, "2024_02_29-23_59_59"),
            (1_763_766_000, "2025_11_21-23_00_00"),
            (-1, "1969_12_31-23_59_59"),
            (4_107_542_400, "2100_03_01-00_00_00"),
        ] {
            assert_eq!(Stamp::from_unix_utc(seconds).unwrap().to_string(), text);
        }
        assert_eq!(Stamp::shown_utc(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(Stamp::from_unix_utc(i64::MAX), None);
        assert_eq!(Stamp::from_unix_utc(i64::MIN), None);
    }

    #[test]
    fn stamps_order_by_time() {
        let mut stamps =
            ["2026_01_02-00_00_00", "2025_12_31-23_59_59", "2026_01_01-10_00_00"].map(Stamp::parse);
        stamps.sort();
        assert_eq!(stamps[0], Stamp::parse("2025_12_31-23_59_59"));
        assert_eq!(stamps[2], Stamp::parse("2026_01_02-00_00_00"));
    }
}
