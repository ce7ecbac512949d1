//! The cron expressions of EventBridge Scheduler: parsing, and the next time in a time zone.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::timestamp::Timestamp;

/// Parses the six fields of a cron expression of AWS; `None` if they are invalid.
///
/// They become the seven fields of the `croner` crate: names become numbers and ranges become
/// lists, so that the crate sees nothing that it reads differently.
pub(super) fn parse(text: &str) -> Option<Cron> {
    let text = text.to_ascii_uppercase();
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let &[minutes, hours, day, month, weekday, year] = fields.as_slice() else { return None };
    let one_of_two = (day == "?") != (weekday == "?");
    let odd = weekday.contains('/') || (weekday.contains('#') && weekday.contains(','));
    if !one_of_two || odd {
        return None;
    }
    let fields = [
        MINUTES.expand(minutes)?,
        HOURS.expand(hours)?,
        expand_days(&DAYS, day, |item| match item {
            "L" | "LW" => Some(item.to_owned()),
            _ => Some(format!("{}W", DAYS.number(item.strip_suffix('W')?)?)),
        })?,
        MONTHS.expand(month)?,
        expand_days(&WEEKDAYS, weekday, |item| match item.split_once('#') {
            Some((weekday, count @ ("1" | "2" | "3" | "4" | "5"))) => {
                Some(format!("{}#{count}", WEEKDAYS.number(weekday)?))
            }
            // The last day of the week is Saturday.
            _ if item == "L" => Some("7".to_owned()),
            _ => Some(format!("{}L", WEEKDAYS.number(item.strip_suffix('L')?)?)),
        })?,
        YEARS.expand(year)?,
    ];
    let pattern = format!("0 {}", fields.join(" "));
    let parser = CronParser::builder()
        .seconds(Seconds::Required)
        .year(Year::Required)
        .alternative_weekdays(true)
        .build();
    parser.parse(&pattern).ok()
}

/// Returns the first time after `moment` that matches `cron` in the time zone `zone`.
///
/// The search uses local times, and this function applies the time zone: when clocks are set back,
/// the `croner` crate does not do what AWS does.
pub(super) fn next(cron: &Cron, zone: &TimeZone, moment: Timestamp) -> Option<Timestamp> {
    let after = jiff::Timestamp::from_second(moment.unix()).ok()?;
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
            return Timestamp::from_unix_seconds(time.as_second());
        }
    }
}

/// The values that AWS allows in a field.
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

impl Field {
    /// Expands a field, which has items that are separated by commas.
    fn expand(&self, text: &str) -> Option<String> {
        let items = text.split(',').map(|item| self.expand_item(item));
        Some(items.collect::<Option<Vec<_>>>()?.join(","))
    }

    /// Expands a value, a range or a step to the numbers that it matches.
    fn expand_item(&self, item: &str) -> Option<String> {
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
        // A range may wrap around, such as 20-2 or FRI-MON, except one of years.
        match (first <= last, self.low == YEARS.low) {
            (true, _) => Some(numbers(&mut (first..=last))),
            (false, false) => Some(numbers(&mut (first..=self.high).chain(self.low..=last))),
            (false, true) => None,
        }
    }

    /// Returns the number of a value or of a name such as `JAN`.
    fn number(&self, text: &str) -> Option<u16> {
        if let Some(index) = self.names.iter().position(|name| *name == text) {
            return u16::try_from(index + 1).ok();
        }
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && (self.low..=self.high).contains(number))
    }
}

/// Expands a field of days: `?` matches every day, and `special` expands the items that only this
/// field has.
fn expand_days(
    field: &Field,
    text: &str,
    special: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    if text == "?" {
        return Some("*".to_owned());
    }
    let items = text.split(',').map(|item| special(item).or_else(|| field.expand_item(item)));
    Some(items.collect::<Option<Vec<_>>>()?.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::tests::moment;
    use super::*;

    /// Checks every minute around both clock changes of 2026 in New York: the next time is later,
    /// and no due time in between is missed.
    #[test]
    fn no_time_is_missed_or_used_twice() {
        let zone = TimeZone::get("America/New_York").unwrap();
        for text in ["0/7 * * * ? *", "30 1,2 * * ? *", "15 0/1 * * ? *"] {
            let cron = parse(text).unwrap();
            for from in ["2026-03-08T04:00:00Z", "2026-11-01T03:00:00Z"] {
                let mut minute = moment(from);
                for _ in 0..6 * 60 {
                    let next = next(&cron, &zone, minute).unwrap();
                    assert!(next > minute);
                    let mut between = minute.after(60).unwrap();
                    while between < next {
                        let time = jiff::Timestamp::from_second(between.unix()).unwrap();
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
