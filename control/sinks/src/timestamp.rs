//! Moments as the API writes them: RFC 3339 with milliseconds, UTC.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// A text that is no RFC 3339 date.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no RFC 3339 date such as 2026-11-21T09:30:00.000Z")]
pub struct NotADate(pub String);

impl Timestamp {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// From nanoseconds since the epoch.
    #[must_use]
    pub fn from_unix_ns(unix_ns: u64) -> Self {
        Self(i64::try_from(unix_ns / 1_000_000).unwrap_or(i64::MAX))
    }

    /// Milliseconds from `earlier` to here; 0 if `earlier` is later.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// Reads an RFC 3339 date of any offset. What is finer than a millisecond is cut off.
    ///
    /// # Errors
    /// The text is no such date.
    pub fn parse(text: &str) -> Result<Self, NotADate> {
        parse_ns(text)
            .map(|(ms, _)| Self(ms))
            .ok_or_else(|| NotADate(text.to_owned()))
    }

    /// As [`Timestamp::parse`], rounded up to the next millisecond.
    ///
    /// # Errors
    /// The text is no such date.
    pub fn parse_rounded_up(text: &str) -> Result<Self, NotADate> {
        parse_ns(text)
            .map(|(ms, finer)| Self(ms + i64::from(finer)))
            .ok_or_else(|| NotADate(text.to_owned()))
    }
}

/// Milliseconds, and whether digits below a millisecond were cut off.
fn parse_ns(text: &str) -> Option<(i64, bool)> {
    if !text.is_ascii() || text.len() < 20 {
        return None;
    }
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| {
        bytes[from..to].iter().try_fold(0i64, |value, byte| {
            byte.is_ascii_digit()
                .then(|| value * 10 + i64::from(byte - b'0'))
        })
    };
    let is = |at: usize, wanted: &[u8]| wanted.contains(&bytes[at]);
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (ms, finer, zone) = parse_fraction(&text[19..])?;
    let offset_minutes = parse_offset(zone)?;
    let minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    Some(((minutes * 60 + second) * 1000 + ms, finer))
}

/// Splits `.123456Z` into milliseconds, whether there was more, and the zone.
fn parse_fraction(rest: &str) -> Option<(i64, bool, &str)> {
    let Some(digits) = rest.strip_prefix('.') else {
        return Some((0, false, rest));
    };
    let end = digits
        .bytes()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(digits.len());
    if end == 0 {
        return None;
    }
    let digit = |at: usize| {
        digits.as_bytes()[..end]
            .get(at)
            .map_or(0, |byte| i64::from(byte - b'0'))
    };
    let finer = digits.as_bytes()[..end]
        .iter()
        .skip(3)
        .any(|byte| *byte != b'0');
    Some((
        digit(0) * 100 + digit(1) * 10 + digit(2),
        finer,
        &digits[end..],
    ))
}

fn parse_offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let bytes = zone.as_bytes();
    // A + in a query that was not escaped arrives as a space.
    let sign = match bytes.first()? {
        b'+' | b' ' => 1,
        b'-' => -1,
        _ => return None,
    };
    if bytes.len() != 6 || bytes[3] != b':' {
        return None;
    }
    let pair = |at: usize| {
        let (tens, units) = (bytes[at], bytes[at + 1]);
        (tens.is_ascii_digit() && units.is_ascii_digit())
            .then(|| i64::from(tens - b'0') * 10 + i64::from(units - b'0'))
    };
    let (hours, minutes) = (pair(1)?, pair(4)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar. The year is taken to begin
/// in March, so that the leap day is its last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(
            formatter,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        write!(formatter, ".{:03}Z", ms % 1000)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_written_and_read() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_253_400_007, "2026-11-21T09:30:00.007Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp(ms).to_string(), text);
            assert_eq!(Timestamp::parse(text), Ok(Timestamp(ms)));
        }
    }

    #[test]
    fn offsets_and_fractions_are_understood() {
        let noon = Timestamp::parse("2026-11-21T12:00:00Z").unwrap();
        for same in [
            "2026-11-21T13:30:00+01:30",
            "2026-11-21t10:00:00.0-02:00",
            "2026-11-21 12:00:00z",
        ] {
            assert_eq!(Timestamp::parse(same), Ok(noon), "{same}");
        }
        assert_eq!(
            Timestamp::parse("2026-11-21T12:00:00.1239Z")
                .unwrap()
                .ms_since(noon),
            123
        );
        assert_eq!(
            Timestamp::parse_rounded_up("2026-11-21T12:00:00.1239Z")
                .unwrap()
                .ms_since(noon),
            124
        );
        assert_eq!(
            Timestamp::parse_rounded_up("2026-11-21T12:00:00.1230Z")
                .unwrap()
                .ms_since(noon),
            123
        );
        assert_eq!(noon.ms_since(Timestamp(noon.0 + 5)), 0);
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-11-21",
            "2026-11-21T12:00:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T12:00:00.Z",
            "2026-11-21T12:00:00+1:00",
            "2026-11-21T12:00:00Zjunk",
            "2026-11-21T12:00:00+99:00",
            "2026-11-2\u{e9}T12:00:00Z",
            "+026-11-21T12:00:00Z",
        ] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }
}
