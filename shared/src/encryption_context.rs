//! The encryption context: the pairs that KMS binds to a wrapped key. A caller must give the same
//! pairs to open a version.

use std::collections::BTreeMap;

use crate::error::Error;

/// Pairs of a key and a value, sorted by key. No pairs are the same as no context.
///
/// KMS requires keys that are not empty, and at most 8,192 bytes of keys and values together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncryptionContext(BTreeMap<String, String>);

impl EncryptionContext {
    /// The maximum size of keys and values together, in bytes.
    pub const MAX_BYTES: usize = 8192;

    /// Checks the pairs against the rules of KMS.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty key, or for too many bytes.
    pub fn new(pairs: BTreeMap<String, String>) -> Result<Self, Error> {
        if pairs.keys().any(String::is_empty) {
            return Err(Error::invalid(
                "A key of `context` is empty. Give every key at least one character.",
            ));
        }
        if pairs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > Self::MAX_BYTES
        {
            return Err(Error::invalid(
                "The keys and values of `context` must have at most 8192 bytes together.",
            ));
        }
        Ok(Self(pairs))
    }

    /// Returns the pairs, sorted by key.
    #[must_use]
    pub fn pairs(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Returns whether there are no pairs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_of_kms() {
        let pairs = |key: &str, bytes: usize| BTreeMap::from([(key.to_owned(), "v".repeat(bytes))]);
        assert!(EncryptionContext::new(pairs("k", 8191)).is_ok());
        assert!(EncryptionContext::new(pairs("k", 8192)).is_err());
        assert!(EncryptionContext::new(pairs("", 1)).is_err());
        assert!(EncryptionContext::new(BTreeMap::new()).unwrap().is_empty());
    }
}
