//! The sort key of a version in the table of secrets, as any client wrote it.

use std::str::FromStr;

use super::Version;
use crate::error::Error;

/// The sort key of a row, as any client wrote it.
///
/// Coffer writes only padded numbers. Other clients wrote zeros, unpadded numbers and free text;
/// all of these can be requested and shown. An unpadded number is hidden if the same number exists
/// padded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionKey(String);

impl VersionKey {
    /// The maximum size of a sort key in DynamoDB, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// Returns the label of a row with this sort key, without checks.
    #[must_use]
    pub fn stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the sort key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the number, if the sort key consists of digits and is 0 or fits a version. Padding
    /// does not matter.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        let digits = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_digit());
        self.0.parse().ok().filter(|&number| digits && number <= Version::LAST.number())
    }

    /// Returns the number without padding, or the text if it is not a number.
    #[must_use]
    pub fn shown(&self) -> String {
        self.number().map_or_else(|| self.0.clone(), |number| number.to_string())
    }

    /// Returns the label with its number padded to 19 digits, as current clients write it; anything
    /// else unchanged.
    #[must_use]
    pub fn padded(&self) -> Self {
        self.number().map_or_else(|| self.clone(), |number| Self(format!("{number:019}")))
    }
}

impl From<Version> for VersionKey {
    fn from(version: Version) -> Self {
        Self(version.padded())
    }
}

impl FromStr for VersionKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = (1..=Self::MAX_BYTES).contains(&text.len());
        if fits && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid(NO_SUCH_VERSION))
        }
    }
}

impl serde::Serialize for VersionKey {
    /// Serializes as a number if it is one, otherwise as text.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.number() {
            Some(number) => serializer.serialize_u64(number),
            None => serializer.serialize_str(&self.0),
        }
    }
}

/// The message for a version that no row can have, whichever client wrote it.
pub(crate) const NO_SUCH_VERSION: &str = "There is no such version. `version` must be a number from \
     1 to 9999999999999999999, or the text that another client stored as the version: 1 to 1024 \
     bytes without control characters. List the versions to see which exist.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_other_clients_are_accepted() {
        let odd = |text: &str| VersionKey::stored(text);
        assert_eq!(odd("7").number(), Some(7));
        assert_eq!(odd("7").padded(), odd("0000000000000000007"));
        assert_eq!(odd("+7").number(), None);
        assert_eq!(odd("v2").padded(), odd("v2"));
        assert_eq!(odd("0000000000000000000").number(), Some(0));
        for text in ["", "a\nb", &"x".repeat(1025)] {
            let error = text.parse::<VersionKey>().unwrap_err();
            assert!(error.to_string().contains("or the text that another client"), "{error}");
        }
    }
}
