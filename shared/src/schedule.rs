//! When something is due again: `rate(...)` and `cron(...)` as EventBridge Scheduler writes and
//! reads them.
//!
//! Source: AWS, EventBridge Scheduler User Guide, "Schedule types". A day of a rate is 24 hours. A
//! cron expression is wall time: one that a clock skips when it is set forward is left out, one
//! that comes twice when it is set back is taken once, the first time.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::error::Error;
use crate::moment::Moment;

/// A schedule as it was given, with the time zone it is read in.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    zone: Option<String>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Every so many seconds.
    Rate(u64),
    /// Whenever the wall clock of a zone says so.
    Cron(Box<Cron>, TimeZone),
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, &self.zone) == (&other.text, &other.zone)
    }
}

impl Eq for Schedule {}

impl Schedule {
    /// The most days between two times: ten years.
    pub const MAX_DAYS: u64 = 3650;
    /// The most bytes that an expression or the name of a time zone may have.
    pub const MAX_BYTES: usize = 256;

    /// Reads an expression. `zone` is an IANA name, for `cron` alone; UTC if none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no schedule, or one that is never due.
    pub fn new(text: &str, zone: Option<&str>) -> Result<Self, Error> {
        let schedule = Self::read(text, zone)?;
        match schedule.after(Moment::now()) {
            Some(_) => Ok(schedule),
            None => Err(Error::invalid("`schedule` is never due again.")),
        }
    }

    /// Reads one that was taken before, and may be over.
    #[must_use]
    pub fn stored(text: &str, zone: Option<&str>) -> Option<Self> {
        Self::read(text, zone).ok()
    }

    fn read(text: &str, zone: Option<&str>) -> Result<Self, Error> {
        // Before parsing, which expands an expression to more than 500 times its size.
        if text.len() > Self::MAX_BYTES || zone.is_some_and(|zone| zone.len() > Self::MAX_BYTES) {
            return Err(Error::invalid(
                "`schedule` and `timezone` have at most 256 bytes each. Use ranges and steps in \
                 place of lists.",
            ));
        }
        let inner = |word: &str| text.strip_prefix(word)?.strip_prefix('(')?.strip_suffix(')');
        let kind = if let Some(rate) = inner("rate") {
            if zone.is_some() {
                return Err(Error::invalid("`timezone` goes with `cron`: a rate has none."));
            }
            Kind::Rate(seconds_of(rate).ok_or_else(no_rate)?)
        } else if let Some(cron) = inner("cron") {
            let zone = zone.map_or(Ok(TimeZone::UTC), TimeZone::get).map_err(|_| {
                Error::invalid("`timezone` is a name of the IANA time zone database: Europe/Paris.")
            })?;
            Kind::Cron(Box::new(cron_of(cron).ok_or_else(no_cron)?), zone)
        } else {
            return Err(Error::invalid(
                "`schedule` is `rate(30 days)`, or minutes or hours, or `cron(...)` with six \
                 fields, as EventBridge Scheduler has them.",
            ));
        };
        Ok(Self { text: text.to_owned(), zone: zone.map(str::to_owned), kind })
    }

    /// Every so many days.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none, or more than [`Schedule::MAX_DAYS`].
    pub fn every(days: u64) -> Result<Self, Error> {
        Self::new(&format!("rate({days} {})", if days == 1 { "day" } else { "days" }), None)
    }

    /// The expression as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The time zone, if one was given.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The first time that is due after `moment`; none if there is no more.
    #[must_use]
    pub fn after(&self, moment: Moment) -> Option<Moment> {
        match &self.kind {
            Kind::Rate(seconds) => moment.after(*seconds),
            Kind::Cron(cron, zone) => next(cron, zone, moment),
        }
    }
}

fn no_rate() -> Error {
    Error::invalid(
        "`rate` has a whole number and minute, minutes, hour, hours, day or days, at most 3650 \
         days: `rate(30 days)`.",
    )
}

fn no_cron() -> Error {
    Error::invalid(
        "`cron` has six fields: minutes, hours, day of month, month, day of week, year. One of the \
         two days is `?`. Noon on each Monday: `cron(0 12 ? * MON *)`.",
    )
}

fn seconds_of(rate: &str) -> Option<u64> {
    let (number, unit) = rate.split_once(' ')?;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|number| digits && *number > 0)?;
    // EventBridge wants the singular for 1 and the plural else, its Scheduler takes either.
    let seconds = match unit {
        "minute" | "minutes" => 60,
        "hour" | "hours" => 60 * 60,
        "day" | "days" => 24 * 60 * 60,
        _ => return None,
    };
    number.checked_mul(seconds).filter(|all| *all <= Schedule::MAX_DAYS * 24 * 60 * 60)
}

/// The search goes by wall time, and the zone is applied here: what the crate does with a clock
/// that is set back is not what AWS does.
fn next(cron: &Cron, zone: &TimeZone, moment: Moment) -> Option<Moment> {
    let after = Timestamp::from_second(moment.unix()).ok()?;
    let mut wall = zone.to_datetime(after);
    loop {
        wall = match cron.find_next_occurrence(&wall, false) {
            Ok(wall) => wall,
            Err(_) => return None,
        };
        let there = zone.to_ambiguous_timestamp(wall);
        if matches!(there.offset(), AmbiguousOffset::Gap { .. }) {
            continue;
        }
        let time = there.earlier().ok()?;
        if time > after {
            return Moment::from_unix(time.as_second());
        }
    }
}

/// What AWS's fields may hold.
struct Field {
    low: u16,
    high: u16,
    names: &'static [&'static str],
}

const MINUTES: Field = Field { low: 0, high: 59, names: &[] };
const HOURS: Field = Field { low: 0, high: 23, names: &[] };
const DAYS: Field = Field { low: 1, high: 31, names: &[] };
const MONTHS: Field = Field {
    low: 1,
    high: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
const WEEKDAYS: Field =
    Field { low: 1, high: 7, names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] };
const YEARS: Field = Field { low: 1970, high: 2199, names: &[] };

/// AWS's six fields in the crate's seven: numbers for names, ranges spelled out, nothing that the
/// one takes and the other does not.
fn cron_of(text: &str) -> Option<Cron> {
    let text = text.to_ascii_uppercase();
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let &[minutes, hours, day, month, weekday, year] = fields.as_slice() else { return None };
    let one_of_two = (day == "?") != (weekday == "?");
    let odd = weekday.contains('/') || (weekday.contains('#') && weekday.contains(','));
    if !one_of_two || odd {
        return None;
    }
    let fields = [
        MINUTES.spelled_out(minutes)?,
        HOURS.spelled_out(hours)?,
        spelled_out_but(&DAYS, day, |item| match item {
            "L" | "LW" => Some(item.to_owned()),
            _ => Some(format!("{}W", DAYS.number(item.strip_suffix('W')?)?)),
        })?,
        MONTHS.spelled_out(month)?,
        spelled_out_but(&WEEKDAYS, weekday, |item| match item.split_once('#') {
            Some((weekday, count @ ("1" | "2" | "3" | "4" | "5"))) => {
                Some(format!("{}#{count}", WEEKDAYS.number(weekday)?))
            }
            // The last day of the week is Saturday.
            _ if item == "L" => Some("7".to_owned()),
            _ => Some(format!("{}L", WEEKDAYS.number(item.strip_suffix('L')?)?)),
        })?,
        YEARS.spelled_out(year)?,
    ];
    let pattern = format!("0 {}", fields.join(" "));
    let parser = CronParser::builder()
        .seconds(Seconds::Required)
        .year(Year::Required)
        .alternative_weekdays(true)
        .build();
    parser.parse(&pattern).ok()
}

/// A field of days: `?` is any, and its own signs come first.
fn spelled_out_but(
    field: &Field,
    text: &str,
    own: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    if text == "?" {
        return Some("*".to_owned());
    }
    let items = text.split(',').map(|item| own(item).or_else(|| field.item(item)));
    Some(items.collect::<Option<Vec<_>>>()?.join(","))
}

impl Field {
    fn spelled_out(&self, text: &str) -> Option<String> {
        let items = text.split(',').map(|item| self.item(item));
        Some(items.collect::<Option<Vec<_>>>()?.join(","))
    }

    /// A value, a range or steps, as the numbers they stand for.
    fn item(&self, item: &str) -> Option<String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u16>().ok().filter(|n| *n > 0)?)),
            None => (item, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.low, self.high),
            Some((first, last)) => (self.number(first)?, self.number(last)?),
            None => {
                let first = self.number(range)?;
                (first, if step.is_some() { self.high } else { first })
            }
        };
        let step = usize::from(step.unwrap_or(1));
        let numbers = |all: &mut dyn Iterator<Item = u16>| {
            all.step_by(step).map(|number| number.to_string()).collect::<Vec<_>>().join(",")
        };
        // From the evening to the morning, from Friday to Monday; years do not come round.
        match (first <= last, self.low == YEARS.low) {
            (true, _) => Some(numbers(&mut (first..=last))),
            (false, false) => Some(numbers(&mut (first..=self.high).chain(self.low..=last))),
            (false, true) => None,
        }
    }

    fn number(&self, text: &str) -> Option<u16> {
        if let Some(index) = self.names.iter().position(|name| *name == text) {
            return u16::try_from(index + 1).ok();
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && (self.low..=self.high).contains(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Moment {
        Moment::from_rfc3339(text).unwrap()
    }

    /// The next times, in UTC.
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
    fn a_rate_counts_hours_not_days_of_the_calendar() {
        // Clocks in New York are set forward on 2026-03-08: a day is 24 hours all the same.
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
    fn a_time_that_a_clock_skips_is_left_out() {
        // 02:30 is not there on 2026-03-08 in New York.
        assert_eq!(
            times("cron(30 2 * * ? *)", NEW_YORK, "2026-03-07T00:00:00Z", 3),
            ["2026-03-07T07:30:00Z", "2026-03-09T06:30:00Z", "2026-03-10T06:30:00Z"]
        );
    }

    #[test]
    fn a_time_that_comes_twice_is_taken_once() {
        // 01:30 is there twice on 2026-11-01 in New York: 05:30 and 06:30 UTC.
        assert_eq!(
            times("cron(30 1 * * ? *)", NEW_YORK, "2026-10-31T06:00:00Z", 2),
            ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
        );
        // Asked for between the two: the next day.
        assert_eq!(
            times("cron(30 1 * * ? *)", NEW_YORK, "2026-11-01T06:00:00Z", 1),
            ["2026-11-02T06:30:00Z"]
        );
    }

    #[test]
    fn noon_stays_noon_when_clocks_are_set() {
        assert_eq!(
            times("cron(0 12 ? * SUN *)", Some("Europe/Paris"), "2026-10-18T00:00:00Z", 3),
            ["2026-10-18T10:00:00Z", "2026-10-25T11:00:00Z", "2026-11-01T11:00:00Z"]
        );
    }

    #[test]
    fn leap_years_are_known_and_so_is_2100() {
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
    fn the_signs_are_aws_own() {
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
    fn what_is_no_schedule_is_refused() {
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
    fn what_is_too_long_is_refused_when_given_and_when_read() {
        let padded = |bytes: usize| {
            let list = "*,".repeat(bytes);
            format!("cron({}* 0 * * ? *)", &list[..bytes - "cron(* 0 * * ? *)".len()])
        };
        for (text, zone, taken) in [
            (padded(255).as_str(), None, true),
            (padded(257).as_str(), None, false),
            // This one expands to 34 MB.
            (padded(60_001).as_str(), None, false),
            ("cron(0 3 * * ? *)", Some("U".repeat(257).as_str()), false),
        ] {
            assert_eq!(Schedule::new(text, zone).is_ok(), taken, "{}", text.len());
            assert_eq!(Schedule::stored(text, zone).is_some(), taken, "{}", text.len());
        }
    }

    /// Minute by minute over both changes of 2026 in New York: the next time is after now, and
    /// nothing that is due in between is left out.
    #[test]
    fn nothing_is_missed_and_nothing_comes_twice() {
        let zone = TimeZone::get("America/New_York").unwrap();
        for text in ["0/7 * * * ? *", "30 1,2 * * ? *", "15 0/1 * * ? *"] {
            let cron = cron_of(text).unwrap();
            for from in ["2026-03-08T04:00:00Z", "2026-11-01T03:00:00Z"] {
                let mut minute = moment(from);
                for _ in 0..6 * 60 {
                    let next = next(&cron, &zone, minute).unwrap();
                    assert!(next > minute);
                    let mut between = minute.after(60).unwrap();
                    while between < next {
                        let time = Timestamp::from_second(between.unix()).unwrap();
                        let wall = zone.to_datetime(time);
                        let first = zone.to_ambiguous_timestamp(wall).earlier().unwrap();
                        assert!(first != time || !cron.is_time_matching(&wall).unwrap());
                        between = between.after(60).unwrap();
                    }
                    minute = minute.after(60).unwrap();
                }
            }
        }
    }
}
