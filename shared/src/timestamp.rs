//! Timestamps: whole Unix seconds in rows, RFC 3339 in responses.

use std::fmt;

/// A timestamp in whole seconds, from 1970-01-01T00:00:00Z to the end of the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// Returns the current time.
    #[must_use]
    pub fn now() -> Self {
        let now = jiff::Timestamp::now();
        Self::from_unix_seconds(now.as_second()).unwrap_or(Self(now))
    }

    /// Returns the timestamp with these Unix seconds; `None` outside the range of RFC 3339.
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        jiff::Timestamp::from_second(seconds).ok().filter(|_| seconds >= 0).map(Self)
    }

    /// Parses RFC 3339 with any offset. Fractions of a second are dropped.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        Self::from_unix_seconds(text.parse::<jiff::Timestamp>().ok()?.as_second())
    }

    /// Returns the Unix seconds.
    #[must_use]
    pub fn unix(self) -> i64 {
        self.0.as_second()
    }

    /// Returns the timestamp `seconds` later; `None` if it is out of range.
    #[must_use]
    pub fn after(self, seconds: u64) -> Option<Self> {
        Self::from_unix_seconds(self.unix().checked_add(i64::try_from(seconds).ok()?)?)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_is_parsed_and_shown() {
        let moment = Timestamp::from_rfc3339("2026-02-03T04:05:06.789+01:00").unwrap();
        assert_eq!(moment.to_string(), "2026-02-03T03:05:06Z");
        assert_eq!(Timestamp::from_unix_seconds(moment.unix()), Some(moment));
        assert_eq!(moment.after(60).unwrap().to_string(), "2026-02-03T03:06:06Z");
        for bad in ["", "tomorrow", "2026-02-30T00:00:00Z", "1969-12-31T23:59:59Z", "2026-01-01"] {
            assert!(Timestamp::from_rfc3339(bad).is_none(), "{bad}");
        }
        assert!(moment.after(u64::MAX).is_none());
        assert!(moment.after(1 << 40).is_none());
    }
}
