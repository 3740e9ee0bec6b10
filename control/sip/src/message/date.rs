//! The Date header (RFC 3261 section 20.17): always GMT.

use super::error::HeaderError;

/// A moment as the Date header tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SipDate {
    /// Seconds since 1970-01-01 UTC.
    pub unix_seconds: i64,
}

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

impl SipDate {
    /// Parses an RFC 1123 date.
    ///
    /// # Errors
    /// Another form, another zone than GMT, or no such day.
    pub fn parse(text: &str) -> Result<SipDate, HeaderError> {
        let error = |why| HeaderError::new("Date", why);
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [weekday, day, month, year, time, zone] = words[..] else {
            return Err(error("not an RFC 1123 date"));
        };
        if zone != "GMT" {
            return Err(error("zone is not GMT"));
        }
        let month = MONTHS.iter().position(|name| *name == month);
        let month = month.ok_or_else(|| error("no such month"))? as i64 + 1;
        let field = |text: &str, max: u32| super::cseq::number(text, max).map(i64::from);
        let (day, year) = (field(day, 31), field(year, 9999));
        let clock: Option<Vec<i64>> = time.split(':').map(|part| field(part, 60)).collect();
        let (Some(day), Some(year), Some(clock)) = (day, year, clock) else {
            return Err(error("bad number"));
        };
        let [hour @ 0..=23, minute @ 0..=59, second] = clock[..] else {
            return Err(error("bad time"));
        };
        let days = days_from_civil(year, month, day).ok_or_else(|| error("no such day"))?;
        if weekday.trim_end_matches(',') != DAYS[days.rem_euclid(7) as usize] {
            return Err(error("wrong weekday"));
        }
        Ok(SipDate {
            unix_seconds: days * 86_400 + hour * 3600 + minute * 60 + second,
        })
    }
}

/// Days since 1970-01-01 of a day of the Gregorian calendar; `None` when there is no such day.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day < 1 || day > length {
        return None;
    }
    // Years begin in March here, so that the leap day is a year's last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let seconds = |text: &str| SipDate::parse(text).map(|date| date.unix_seconds);
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Ok(0));
        assert_eq!(seconds("Sat, 13 Nov 2010 23:29:00 GMT"), Ok(1_289_690_940));
        for bad in [
            "Fri, 01 Jan 2010 16:00:00 EST",
            "Fri, 01 Jan 2010 16:00 GMT",
            "Sat, 01 Jan 2010 16:00:00 GMT",
            "Mon, 29 Feb 2010 16:00:00 GMT",
            "Fri, 32 Jan 2010 16:00:00 GMT",
            "Fri, 01 Jan 2010 24:00:00 GMT",
            "",
        ] {
            assert!(SipDate::parse(bad).is_err(), "{bad}");
        }
    }
}
