//! Names of secrets, prefixes, and the identifiers of versions. Each type checks its rules once,
//! when a value is created.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

pub use prefix::{Coverage, Prefix};
pub use revision::Revision;
pub use stage::Stage;
pub use version::Version;
pub(crate) use version_key::NO_SUCH_VERSION;
pub use version_key::VersionKey;

mod prefix;
mod revision;
mod stage;
mod version;
mod version_key;

/// The name of a secret: 1 to 512 bytes of UTF-8 without control characters, and without a trailing
/// or doubled `/`.
///
/// A leading `/` is part of the name. Dots, spaces and quotes are ordinary characters: a name is a
/// key in a table, not a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The maximum size of a name, in bytes.
    pub const MAX_BYTES: usize = 512;

    /// The maximum size of a partition key in DynamoDB, in bytes. Other clients may have written
    /// names up to this size.
    pub const MAX_STORED_BYTES: usize = 2048;

    /// The names that the ledger reserves for records that belong to no secret.
    const RESERVED: [&str; 3] = ["/policies", "/rotation", "/token"];

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns a name that another client may have written: any partition key that DynamoDB
    /// accepts. Such a name can be read and listed, even if [`Name::check`] refuses it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty name, or for more than 2,048 bytes.
    pub fn of_any_client(text: &str) -> Result<Self, Error> {
        let name = Self(text.to_owned());
        if (1..=Self::MAX_STORED_BYTES).contains(&text.len()) {
            Ok(name)
        } else {
            name.check().map(|()| name)
        }
    }

    /// Checks that a secret with this name can be put.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the rule that the name violates.
    pub fn check(&self) -> Result<(), Error> {
        let Self(text) = self;
        check_characters(text)?;
        if text.ends_with('/') {
            return Err(Error::invalid(
                "A name must not end with a slash. Remove the slash at the end.",
            ));
        }
        if self.is_reserved() {
            return Err(Error::invalid(
                "/policies, /rotation, /token and all names under them are reserved for the \
                 ledger. Use another name.",
            ));
        }
        Ok(())
    }

    /// Returns whether the ledger reserves this name for records that belong to no secret.
    pub(crate) fn is_reserved(&self) -> bool {
        let under = |rest: &str| rest.is_empty() || rest.starts_with('/');
        Self::RESERVED.iter().any(|each| self.0.strip_prefix(each).is_some_and(under))
    }
}

/// Checks the rules that names and prefixes share.
fn check_characters(text: &str) -> Result<(), Error> {
    if text.is_empty() || text.len() > Name::MAX_BYTES {
        return Err(Error::invalid("A name or prefix must have 1 to 512 bytes of UTF-8."));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(
            "A name or prefix must not contain control characters. Remove them.",
        ));
    }
    if text.contains("//") {
        return Err(Error::invalid(
            "A name or prefix must not contain two slashes in a row. Use a single slash.",
        ));
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
}
