//! The number of a version.

use crate::error::Error;

/// The number of a version: 1 to 10^19-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// The first version of every secret.
    pub const FIRST: Self = Self(1);
    /// The highest version that fits into the 19 characters of credstash's sort key.
    pub const LAST: Self = Self(9_999_999_999_999_999_999);

    /// Returns the version with this number; `None` for 0 and for 10^19 and above.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        (Self::FIRST.0..=Self::LAST.0).contains(&number).then_some(Self(number))
    }

    /// Returns the version with this number, for a number from a request.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0 and for 10^19 and above.
    pub fn checked(number: u64) -> Result<Self, Error> {
        Self::new(number).ok_or(Error::invalid(OUT_OF_RANGE))
    }

    /// Returns the number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// Returns the sort key in the table of secrets: 19 digits, padded with zeros on the left.
    #[must_use]
    pub fn padded(self) -> String {
        format!("{:019}", self.0)
    }
}

impl serde::Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// The message for a version that cannot be put.
const OUT_OF_RANGE: &str = "`version` must be a number from 1 to 9999999999999999999.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_range_from_1_to_19_nines() {
        assert!(Version::new(0).is_none());
        assert!(Version::new(10_000_000_000_000_000_000).is_none());
        assert_eq!(Version::new(42).unwrap().padded(), "0000000000000000042");
        assert_eq!(Version::LAST.padded(), "9".repeat(19));
    }
}
