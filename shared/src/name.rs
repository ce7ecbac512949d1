//! What a secret, its versions and its callers' filters are called, checked once on the way in.

use std::fmt;
use std::str::FromStr;

use rand::TryRng;
use rand::rngs::SysRng;

use crate::error::Error;

pub use prefix::{Prefix, Reach};

mod prefix;

/// The name of a secret: 1 to 512 bytes of UTF-8 without control characters, without a trailing or
/// doubled `/`. A leading `/` is part of the name, and dots, spaces and quotes are ordinary
/// characters: a name is a key in a table, never a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The most bytes a name may have.
    pub const MAX_BYTES: usize = 512;

    /// DynamoDB's limit for a hash key, in bytes: what another client may have used.
    pub const MAX_STORED_BYTES: usize = 2048;

    /// The names under which the ledger keeps records that belong to no secret.
    const RESERVED: [&str; 3] = ["/policies", "/rotation", "/token"];

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns a name as another client may have written it: anything that DynamoDB takes as a hash
    /// key. Such a name can be read and listed, even if [`Name::check`] refuses it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty name, or more than 2,048 bytes.
    pub fn of_any_client(text: &str) -> Result<Self, Error> {
        let name = Self(text.to_owned());
        if (1..=Self::MAX_STORED_BYTES).contains(&text.len()) {
            Ok(name)
        } else {
            name.check().map(|()| name)
        }
    }

    /// Checks that this is a name that can be put.
    ///
    /// # Errors
    /// [`Error::Invalid`], with the rule that it breaks.
    pub fn check(&self) -> Result<(), Error> {
        let Self(text) = self;
        check_characters(text)?;
        if text.ends_with('/') {
            return Err(Error::invalid("A name must not end with a slash."));
        }
        if self.is_reserved() {
            return Err(Error::invalid(
                "/policies, /rotation, /token and all names under them are reserved for the \
                 ledger. Use another name.",
            ));
        }
        Ok(())
    }

    /// Whether the ledger uses this name, or may use it, for records that belong to no secret.
    pub(crate) fn is_reserved(&self) -> bool {
        let under = |rest: &str| rest.is_empty() || rest.starts_with('/');
        Self::RESERVED.iter().any(|each| self.0.strip_prefix(each).is_some_and(under))
    }
}

/// The rules that names and prefixes share.
fn check_characters(text: &str) -> Result<(), Error> {
    if text.is_empty() || text.len() > Name::MAX_BYTES {
        return Err(Error::invalid("A name or prefix must have 1 to 512 bytes of UTF-8."));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid("A name or prefix must not contain control characters."));
    }
    if text.contains("//") {
        return Err(Error::invalid("A name or prefix must not contain two slashes in a row."));
    }
    Ok(())
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let name = Self(text.to_owned());
        name.check().map(|()| name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The version of a secret: 1 to 10^19-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// The first version of every secret.
    pub const FIRST: Self = Self(1);
    /// The greatest version that credstash's 19 characters hold.
    pub const LAST: Self = Self(9_999_999_999_999_999_999);

    /// `None` for 0 and for 10^19 and above.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        (Self::FIRST.0..=Self::LAST.0).contains(&number).then_some(Self(number))
    }

    /// As [`Version::new`], for a number that a caller gave.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn checked(number: u64) -> Result<Self, Error> {
        Self::new(number).ok_or(Error::invalid(OUT_OF_RANGE))
    }

    /// The version as a number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// As the sort key of the table: 19 digits, padded with zeros on the left.
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

/// What to say of a version that cannot be put.
pub(crate) const OUT_OF_RANGE: &str = "`version` is a number from 1 to 9999999999999999999.";

/// What to say of a version that no row can have, whoever wrote it.
pub(crate) const NO_SUCH_LABEL: &str = "There is no such version. `version` is a number from 1 to \
     9999999999999999999, or the text that another client stored as the version: 1 to 1024 bytes \
     without control characters. List the versions.";

/// The sort key of a row that is there, whoever wrote it. Coffer writes only padded numbers; other
/// clients wrote zeros, unpadded numbers and free text, all of which can be asked for and shown.
/// (An unpadded number hides behind the same number padded.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(String);

impl Label {
    /// DynamoDB's limit for a sort key, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// Takes the sort key of a row as it is.
    #[must_use]
    pub fn stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The sort key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number, if these are digits that fit a version or zero, padded or not.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        let digits = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_digit());
        self.0.parse().ok().filter(|&number| digits && number <= Version::LAST.number())
    }

    /// The number as people write it, or the text.
    #[must_use]
    pub fn shown(&self) -> String {
        self.number().map_or_else(|| self.0.clone(), |number| number.to_string())
    }

    /// The same number padded to 19 digits, which is how current clients write it; anything else
    /// as it is.
    #[must_use]
    pub fn padded(&self) -> Self {
        self.number().map_or_else(|| self.clone(), |number| Self(format!("{number:019}")))
    }
}

impl From<Version> for Label {
    fn from(version: Version) -> Self {
        Self(version.padded())
    }
}

impl FromStr for Label {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = (1..=Self::MAX_BYTES).contains(&text.len());
        if fits && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid(NO_SUCH_LABEL))
        }
    }
}

impl serde::Serialize for Label {
    /// A number wherever it is one.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.number() {
            Some(number) => serializer.serialize_u64(number),
            None => serializer.serialize_str(&self.0),
        }
    }
}

/// The opaque, random mark of one version: ASCII hexadecimal, 16 characters where Coffer made it,
/// 7 or more where Haskell's `credentials` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// A fresh one, from the operating system's generator. 64 bits: two versions that collide
    /// would have to be drawn about 2^32 times.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where the operating system has no random numbers to give.
    pub fn random() -> Result<Self, Error> {
        let number = SysRng.try_next_u64().map_err(Error::no_randomness)?;
        Ok(Self(format!("{number:016x}")))
    }

    /// Reads the bytes of a stored revision; `None` if they are not text.
    #[must_use]
    pub fn stored(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(|text| Self(text.to_owned()))
    }

    /// The revision as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Revision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid("`revision` is the hexadecimal mark that put and list answer."))
        }
    }
}

impl serde::Serialize for Revision {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Where a version stands among the versions of its secret (the terms are AWS Secrets Manager's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The highest version.
    Current,
    /// The version below the highest.
    Previous,
    /// The value of a rotation that has not ended.
    Pending,
}

impl Stage {
    /// The stage as it is asked for and answered.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "AWSCURRENT",
            Self::Previous => "AWSPREVIOUS",
            Self::Pending => "AWSPENDING",
        }
    }
}

impl FromStr for Stage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Current, Self::Previous, Self::Pending]
            .into_iter()
            .find(|stage| stage.as_str() == text)
            .ok_or(Error::invalid("`stage` is AWSCURRENT, AWSPREVIOUS or AWSPENDING."))
    }
}

impl serde::Serialize for Stage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_keys_not_paths() {
        let longest = "n".repeat(512);
        for good in
            ["a", "dev/db", "..", "a/../b", "a b", "'\"", "ключ/鍵", "%2F", "~/a", "*", &longest]
        {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        let long = "ä".repeat(257);
        for bad in ["", "a/", "/a/", "a//b", "//a", "/", "a\nb", "a\u{0}", "\u{85}", &long] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_leading_slash_is_part_of_a_name() {
        for good in ["/a", "/prod/db", "/..", "/*", "/tokens", "/policies.x", "token/a"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn names_that_the_ledger_uses_are_reserved() {
        for reserved in ["/policies", "/rotation", "/token", "/policies/a", "/token/a/b"] {
            let error = reserved.parse::<Name>().unwrap_err();
            assert_eq!(error.code().name, "Invalid");
            assert!(error.to_string().contains("reserved"), "{error}");
        }
    }

    #[test]
    fn versions_run_from_1_to_19_nines() {
        assert!(Version::new(0).is_none());
        assert!(Version::new(10_000_000_000_000_000_000).is_none());
        assert_eq!(Version::new(42).unwrap().padded(), "0000000000000000042");
        assert_eq!(Version::LAST.padded(), "9".repeat(19));
    }

    #[test]
    fn labels_of_other_clients_are_kept() {
        let odd = |text: &str| Label::stored(text);
        assert_eq!(odd("7").number(), Some(7));
        assert_eq!(odd("7").padded(), odd("0000000000000000007"));
        assert_eq!(odd("+7").number(), None);
        assert_eq!(odd("v2").padded(), odd("v2"));
        assert_eq!(odd("0000000000000000000").number(), Some(0));
        for text in ["", "a\nb", &"x".repeat(1025)] {
            let error = text.parse::<Label>().unwrap_err();
            assert!(error.to_string().contains("or the text that another client"), "{error}");
        }
    }

    #[test]
    fn revisions_are_hexadecimal_and_differ() {
        let first = Revision::random().unwrap();
        assert_eq!(first.as_str().len(), 16);
        assert_ne!(first, Revision::random().unwrap());
        assert!("not hex".parse::<Revision>().is_err());
    }
}
