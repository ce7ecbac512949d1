//! Prefixes, which select names.

use std::str::FromStr;

use crate::error::Error;

use super::{Name, check_characters};

/// A prefix that selects names.
///
/// | prefix | covers |
/// |---|---|
/// | `dev` | `dev`, and every name that begins with `dev/` or `dev.`, but not `development` |
/// | `dev/` | every name that begins with `dev/` |
/// | `/` | every name with a leading slash |
/// | `db_*` | every name that begins with `db_` |
/// | `*` | every name |
///
/// Every name that a prefix covers begins with the prefix itself, without the `*` at its end. So an
/// IAM policy on a path such as `.../bundle/dev/*` allows only names that begin with `dev/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Name);

/// The names that a [`Prefix`] covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage<'a> {
    /// Every name.
    All,
    /// Every name that begins with this text.
    Characters(&'a str),
    /// This name, and every name that begins with it and one of [`Prefix::SEPARATORS`].
    Segments(&'a str),
}

impl Prefix {
    /// The characters that end a segment of a name.
    pub const SEPARATORS: [char; 2] = ['/', '.'];

    const ALL: &str = "*";

    /// Returns the prefix that covers every name: `*`.
    #[must_use]
    pub fn all() -> Self {
        Self(Name(Self::ALL.to_owned()))
    }

    /// Returns the prefix as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns the prefix as a [`Name`], for the log.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0
    }

    /// Returns the names that the prefix covers.
    #[must_use]
    pub fn reach(&self) -> Coverage<'_> {
        match self.as_str().strip_suffix('*') {
            Some("") => Coverage::All,
            Some(characters) => Coverage::Characters(characters),
            None if self.as_str().ends_with('/') => Coverage::Characters(self.as_str()),
            None => Coverage::Segments(self.as_str()),
        }
    }

    /// Returns the text that every covered name begins with.
    #[must_use]
    pub fn literal(&self) -> &str {
        match self.reach() {
            Coverage::All => "",
            Coverage::Characters(text) | Coverage::Segments(text) => text,
        }
    }

    /// Returns whether the prefix covers this name.
    #[must_use]
    pub fn covers(&self, name: &Name) -> bool {
        let rest = name.as_str().strip_prefix(self.literal());
        rest.is_some_and(|rest| match self.reach() {
            Coverage::All | Coverage::Characters(_) => true,
            Coverage::Segments(_) => rest.is_empty() || rest.starts_with(Self::SEPARATORS),
        })
    }
}

impl FromStr for Prefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        check_characters(text)?;
        Ok(Self(Name(text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_names_as_documented() {
        for (prefix, covered, not_covered) in [
            ("dev", &["dev", "dev/db", "dev.db", "dev/a/b"][..], &["development", "d", "/dev"][..]),
            ("dev/", &["dev/db", "dev/a/b"], &["dev", "dev.db", "development", "/dev/db"]),
            ("dev/*", &["dev/db", "dev/a/b"], &["dev", "dev.db", "development"]),
            ("db_*", &["db_password", "db_", "db_/x"], &["db", "dbx", "a/db_x"]),
            ("a*b*", &["a*b", "a*bc"], &["ab", "aXb"]),
            ("*", &["a", "/a", "*"], &[]),
            ("/", &["/a", "/prod/db"], &["a", "prod/db"]),
            ("/prod", &["/prod", "/prod/db", "/prod.db"], &["prod/db", "/production"]),
        ] {
            let prefix: Prefix = prefix.parse().unwrap();
            let covers = |name: &str| prefix.covers(&Name::of_any_client(name).unwrap());
            assert!(covered.iter().all(|name| covers(name)), "{prefix:?}");
            assert!(!not_covered.iter().any(|name| covers(name)), "{prefix:?}");
        }
        assert_eq!(Prefix::all(), "*".parse().unwrap());
    }

    #[test]
    fn a_prefix_follows_the_rules_of_names() {
        for bad in ["", "a//b", "//", "a\nb", &"a".repeat(513)] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_name_that_a_prefix_covers_begins_with_its_literal_text(
            prefix in "[a-c./*]{1,4}", name in "[a-c./*]{1,6}",
        ) {
            let name = Name::of_any_client(&name).unwrap();
            if let Ok(prefix) = prefix.parse::<Prefix>() {
                let literal = prefix.as_str().strip_suffix('*').unwrap_or(prefix.as_str());
                proptest::prop_assert!(!prefix.covers(&name) || name.as_str().starts_with(literal));
            }
        }
    }
}
