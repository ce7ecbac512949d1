//! The random identifier of a version.

use std::str::FromStr;

use rand::TryRng;
use rand::rngs::SysRng;

use crate::error::Error;

/// The random identifier of one version, never reused. ASCII hexadecimal: 16 characters if Coffer
/// wrote it, 7 or more if Haskell's `credentials` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// Returns a new revision from the operating system's random number generator. It has 64 bits:
    /// two are equal by chance only after about 2^32 versions.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the operating system provides no random numbers.
    pub fn random() -> Result<Self, Error> {
        let number = SysRng.try_next_u64().map_err(Error::no_randomness)?;
        Ok(Self(format!("{number:016x}")))
    }

    /// Returns the revision with these stored bytes; `None` if they are not text.
    #[must_use]
    pub fn stored(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(|text| Self(text.to_owned()))
    }

    /// Returns the revision as text.
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
            Err(Error::invalid(
                "`revision` must be 1 to 64 hexadecimal digits, as put and list return it.",
            ))
        }
    }
}

impl serde::Serialize for Revision {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_hexadecimal_and_unique() {
        let first = Revision::random().unwrap();
        assert_eq!(first.as_str().len(), 16);
        assert_ne!(first, Revision::random().unwrap());
        assert!("not hex".parse::<Revision>().is_err());
    }
}
