//! Schedules: `rate(...)` and `cron(...)` expressions with the syntax of EventBridge Scheduler.
//!
//! A day of a rate is 24 hours. A cron expression is local time in its time zone: a time that does
//! not exist because clocks are set forward is skipped, and a time that occurs twice because clocks
//! are set back is used once, the first time.
//!
//! Source: AWS, EventBridge Scheduler User Guide, "Schedule types".

use croner::Cron;
use jiff::tz::TimeZone;

use crate::error::Error;
use crate::timestamp::Timestamp;

mod cron;

/// A schedule as it was given, with its time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    zone: Option<String>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// A fixed interval, in seconds.
    Rate(u64),
    /// Local times in a time zone.
    Cron(Box<Cron>, TimeZone),
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, &self.zone) == (&other.text, &other.zone)
    }
}

impl Eq for Schedule {}

impl Schedule {
    /// The maximum number of days between two times: ten years.
    pub const MAX_DAYS: u64 = 3650;
    /// The maximum size of an expression and of the name of a time zone, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Parses an expression. `zone` is the IANA name of a time zone, only for `cron`; the default
    /// is UTC.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the expression is not a schedule, or if it is never due.
    pub fn new(text: &str, zone: Option<&str>) -> Result<Self, Error> {
        let schedule = Self::parse(text, zone)?;
        match schedule.after(Timestamp::now()) {
            Some(_) => Ok(schedule),
            None => Err(Error::invalid(
                "`schedule` is never due again. Use one that is due in the future.",
            )),
        }
    }

    /// Parses an expression that was accepted before. It may no longer be due.
    #[must_use]
    pub fn stored(text: &str, zone: Option<&str>) -> Option<Self> {
        Self::parse(text, zone).ok()
    }

    /// Parses an expression, without checking whether it is due again.
    fn parse(text: &str, zone: Option<&str>) -> Result<Self, Error> {
        // Check before parsing, which expands an expression to more than 500 times its size.
        if text.len() > Self::MAX_BYTES || zone.is_some_and(|zone| zone.len() > Self::MAX_BYTES) {
            return Err(Error::invalid(
                "`schedule` and `timezone` must have at most 256 bytes each. Use ranges and steps \
                 instead of lists.",
            ));
        }
        let inner = |word: &str| text.strip_prefix(word)?.strip_prefix('(')?.strip_suffix(')');
        let kind = if let Some(rate) = inner("rate") {
            if zone.is_some() {
                return Err(Error::invalid(
                    "`timezone` is only allowed with `cron(...)`. Leave it out with `rate(...)`.",
                ));
            }
            Kind::Rate(seconds_of(rate).ok_or_else(invalid_rate)?)
        } else if let Some(fields) = inner("cron") {
            let zone = zone.map_or(Ok(TimeZone::UTC), TimeZone::get).map_err(|_| {
                Error::invalid(
                    "`timezone` must be a name from the IANA time zone database, such as \
                     Europe/Paris.",
                )
            })?;
            Kind::Cron(Box::new(cron::parse(fields).ok_or_else(invalid_cron)?), zone)
        } else {
            return Err(Error::invalid(
                "`schedule` must be `rate(...)`, such as `rate(30 days)`, or `cron(...)` with six \
                 fields, as in EventBridge Scheduler.",
            ));
        };
        Ok(Self { text: text.to_owned(), zone: zone.map(str::to_owned), kind })
    }

    /// Returns a schedule with a due time every `days` days.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0, or for more than [`Schedule::MAX_DAYS`].
    pub fn every(days: u64) -> Result<Self, Error> {
        Self::new(&format!("rate({days} {})", if days == 1 { "day" } else { "days" }), None)
    }

    /// Returns the expression as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the time zone, if one was given.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Returns the first due time after `moment`; `None` if there is none.
    #[must_use]
    pub fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        match &self.kind {
            Kind::Rate(seconds) => moment.after(*seconds),
            Kind::Cron(cron, zone) => cron::next(cron, zone, moment),
        }
    }
}

fn invalid_rate() -> Error {
    Error::invalid(
        "`rate(...)` must have a whole number and a unit, at most 3650 days, such as `rate(30 \
         days)`. Allowed units: minute, minutes, hour, hours, day, days.",
    )
}

fn invalid_cron() -> Error {
    Error::invalid(
        "`cron(...)` must have six fields: minutes, hours, day of month, month, day of week, year. \
         One of the two days must be `?`. For example, noon on every Monday: `cron(0 12 ? * MON \
         *)`.",
    )
}

/// Returns the seconds of a rate such as `30 days`; `None` if it is invalid.
fn seconds_of(rate: &str) -> Option<u64> {
    let (number, unit) = rate.split_once(' ')?;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|number| digits && *number > 0)?;
    // EventBridge requires the singular for 1 and the plural otherwise; EventBridge Scheduler
    // accepts both.
    let seconds = match unit {
        "minute" | "minutes" => 60,
        "hour" | "hours" => 60 * 60,
        "day" | "days" => 24 * 60 * 60,
        _ => return None,
    };
    number.checked_mul(seconds).filter(|all| *all <= Schedule::MAX_DAYS * 24 * 60 * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn moment(text: &str) -> Timestamp {
        Timestamp::from_rfc3339(text).unwrap()
    }

    /// Returns the next due times, in UTC.
    fn times(text: &str, zone: Option<&str>, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::new(text, zone).unwrap();
        let mut at = moment(from);
        let mut times = Vec::new();
        for _ in 0..count {
            at = schedule.after(at).unwrap();
            times.push(at.to_string());
        }
        times
    }

    const NEW_YORK: Option<&str> = Some("America/New_York");

    #[test]
    fn a_day_of_a_rate_is_24_hours() {
        // Clocks in New York are set forward on 2026-03-08. A day is still 24 hours.
        assert_eq!(
            times("rate(1 day)", None, "2026-03-07T12:00:00Z", 2),
            ["2026-03-08T12:00:00Z", "2026-03-09T12:00:00Z"]
        );
        assert_eq!(
            times("rate(5 minutes)", None, "2026-01-01T00:00:00Z", 1),
            ["2026-01-01T00:05:00Z"]
        );
        assert_eq!(
            times("rate(366 days)", None, "2028-01-01T00:00:00Z", 1),
            ["2029-01-01T00:00:00Z"]
        );
        assert_eq!(Schedule::every(30).unwrap().as_str(), "rate(30 days)");
    }

    #[test]
    fn a_local_time_that_does_not_exist_is_skipped() {
        // 02:30 does not exist on 2026-03-08 in New York.
        assert_eq!(
            times("cron(30 2 * * ? *)", NEW_YORK, "2026-03-07T00:00:00Z", 3),
            ["2026-03-07T07:30:00Z", "2026-03-09T06:30:00Z", "2026-03-10T06:30:00Z"]
        );
    }

    #[test]
    fn a_local_time_that_occurs_twice_is_used_once() {
        // 01:30 occurs twice on 2026-11-01 in New York: at 05:30 and 06:30 UTC.
        assert_eq!(
            times("cron(30 1 * * ? *)", NEW_YORK, "2026-10-31T06:00:00Z", 2),
            ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
        );
        // Between the two, the next time is on the next day.
        assert_eq!(
            times("cron(30 1 * * ? *)", NEW_YORK, "2026-11-01T06:00:00Z", 1),
            ["2026-11-02T06:30:00Z"]
        );
    }

    #[test]
    fn noon_is_noon_in_summer_and_winter() {
        assert_eq!(
            times("cron(0 12 ? * SUN *)", Some("Europe/Paris"), "2026-10-18T00:00:00Z", 3),
            ["2026-10-18T10:00:00Z", "2026-10-25T11:00:00Z", "2026-11-01T11:00:00Z"]
        );
    }

    #[test]
    fn leap_years_are_correct_in_2100_too() {
        assert_eq!(
            times("cron(0 0 29 2 ? *)", None, "2027-01-01T00:00:00Z", 2),
            ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]
        );
        assert_eq!(
            times("cron(0 0 29 2 ? *)", None, "2096-03-01T00:00:00Z", 1),
            ["2104-02-29T00:00:00Z"]
        );
        assert_eq!(
            times("cron(0 0 L 2 ? *)", None, "2027-01-01T00:00:00Z", 2),
            ["2027-02-28T00:00:00Z", "2028-02-29T00:00:00Z"]
        );
    }

    #[test]
    fn special_characters_have_the_meaning_that_aws_documents() {
        for (fields, expected) in [
            ("15 10 ? * 6L 2026-2027", "2026-11-27T10:15:00Z"),
            ("0 0 ? * 3#2 *", "2026-12-08T00:00:00Z"),
            ("0 0 ? * FRIL *", "2026-11-27T00:00:00Z"),
            ("0 0 ? * L *", "2026-11-21T00:00:00Z"),
            ("0 0 LW * ? *", "2026-11-30T00:00:00Z"),
            ("0 0 1W * ? *", "2026-12-01T00:00:00Z"),
            ("0 18 ? * MON-FRI *", "2026-11-20T18:00:00Z"),
            ("0 18 ? * 1 *", "2026-11-22T18:00:00Z"),
            ("0/30 20-2 ? * mon-fri *", "2026-11-20T00:30:00Z"),
            ("0 18 ? * FRI-MON *", "2026-11-20T18:00:00Z"),
            ("0 0 1/3 * ? 2028/2", "2028-01-01T00:00:00Z"),
        ] {
            let text = format!("cron({fields})");
            assert_eq!(times(&text, None, "2026-11-20T00:00:00Z", 1), [expected], "{fields}");
        }
    }

    #[test]
    fn an_invalid_schedule_is_refused() {
        for text in [
            "",
            "30 days",
            "rate()",
            "rate(0 days)",
            "rate(-1 days)",
            "rate(1)",
            "rate(1 weeks)",
            "rate(3651 days)",
            "rate(18446744073709551615 days)",
            "rate( 1 day)",
            "at(2030-01-01T00:00:00)",
            "cron()",
            "cron(* * * * *)",
            "cron(0 0 * * * *)",
            "cron(0 0 ? * ? *)",
            "cron(60 0 * * ? *)",
            "cron(0 24 * * ? *)",
            "cron(0 0 32 * ? *)",
            "cron(0 0 ? * 0 *)",
            "cron(0 0 ? * 8 *)",
            "cron(0 0 ? * 2/2 *)",
            "cron(0 0 ? * 2#6 *)",
            "cron(0 0 ? * 2#1,3#1 *)",
            "cron(0 0 * * ? 2200)",
            "cron(0 0 * * ? 2199-1970)",
            "cron(0/0 0 * * ? *)",
            "cron(, 0 * * ? *)",
            "cron(0 0 30 2 ? *)",
            "cron(0 0 1 1 ? 2001)",
            "cron(0 0 * FOO ? *)",
            "cron(0 0 ? * é *)",
        ] {
            assert_eq!(Schedule::new(text, None).unwrap_err().code().name, "Invalid", "{text}");
        }
        assert!(Schedule::new("cron(0 0 * * ? *)", Some("Mars/Olympus")).is_err());
        assert!(Schedule::new("rate(1 day)", Some("Europe/Paris")).is_err());
        assert!(Schedule::every(0).is_err() && Schedule::every(3651).is_err());
    }

    #[test]
    fn a_schedule_that_is_too_long_is_neither_accepted_nor_read() {
        let padded = |bytes: usize| {
            let list = "*,".repeat(bytes);
            format!("cron({}* 0 * * ? *)", &list[..bytes - "cron(* 0 * * ? *)".len()])
        };
        for (text, zone, taken) in [
            (padded(255).as_str(), None, true),
            (padded(257).as_str(), None, false),
            // This one would expand to 34 MB.
            (padded(60_001).as_str(), None, false),
            ("cron(0 3 * * ? *)", Some("U".repeat(257).as_str()), false),
        ] {
            assert_eq!(Schedule::new(text, zone).is_ok(), taken, "{}", text.len());
            assert_eq!(Schedule::stored(text, zone).is_some(), taken, "{}", text.len());
        }
    }
}
