//! The encryption context: what KMS binds a data key to, and what a caller must know to open it.

use std::collections::BTreeMap;

use crate::error::Error;

/// Pairs of a non-empty key and a value, at most 8,192 bytes of both together, which is what KMS
/// takes. Sorted by key; no pair is the same as no context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<String, String>);

impl Context {
    /// KMS's limit on keys and values together, in bytes.
    pub const MAX_BYTES: usize = 8192;

    /// Checks the pairs against KMS's rules.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty key or too many bytes.
    pub fn new(pairs: BTreeMap<String, String>) -> Result<Self, Error> {
        if pairs.keys().any(String::is_empty) {
            return Err(Error::invalid("A key of `context` is not empty."));
        }
        if pairs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > Self::MAX_BYTES
        {
            return Err(Error::invalid(
                "The keys and values of `context` have at most 8192 bytes together.",
            ));
        }
        Ok(Self(pairs))
    }

    /// The pairs, sorted by key.
    #[must_use]
    pub fn pairs(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_kms_limits() {
        let pairs = |key: &str, bytes: usize| BTreeMap::from([(key.to_owned(), "v".repeat(bytes))]);
        assert!(Context::new(pairs("k", 8191)).is_ok());
        assert!(Context::new(pairs("k", 8192)).is_err());
        assert!(Context::new(pairs("", 1)).is_err());
        assert!(Context::new(BTreeMap::new()).unwrap().is_empty());
    }
}
