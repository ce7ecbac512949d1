//! The identity of a row, by which the audit chain recognizes the newest version.

use super::{Attribute, Row};
use crate::hash;

/// The identity of a row, as `VERSION#HASH`. Re-encrypting the data key, deleting and restoring do
/// not change it.
///
/// HASH is the first 16 hexadecimal digits of SHA-256 over the version and the text of the MAC in
/// lower case, each after its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowIdentity(String);

impl RowIdentity {
    /// Computes the identity of a row. `None` if it has no version, which no table allows.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        let version = row.get("version")?.text()?;
        let mac = match row.get("hmac") {
            Some(Attribute::Text(text)) => text.as_bytes(),
            Some(Attribute::Bytes(bytes)) => bytes,
            _ => &[],
        };
        let hash = hash::of_parts([version.as_bytes(), &mac.to_ascii_lowercase()]);
        let hash = hex::encode(hash.get(..8).unwrap_or_default());
        Some(Self(format!("{version}#{hash}")))
    }

    /// Returns an identity that the ledger stores, without checks.
    #[must_use]
    pub fn stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the identity as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the version of the row, as the table stores it.
    #[must_use]
    pub fn version(&self) -> &str {
        self.0.rsplit_once('#').map_or(self.0.as_str(), |(version, _)| version)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(version: &str, mac: Attribute) -> Row {
        Row::from([
            ("version".to_owned(), Attribute::Text(version.to_owned())),
            ("hmac".to_owned(), mac),
        ])
    }

    pub(crate) fn mac(text: &str) -> Attribute {
        Attribute::Text(text.to_owned())
    }

    #[test]
    fn the_spelling_of_a_mac_does_not_change_an_identity() {
        let one = RowIdentity::of(&row("1", mac("ab12"))).unwrap();
        assert_eq!(one.version(), "1");
        assert_eq!(one.as_str().len(), "1#".len() + 16);
        let bytes = Attribute::Bytes(b"ab12".to_vec());
        for same in [mac("AB12"), bytes] {
            assert_eq!(RowIdentity::of(&row("1", same)), Some(one.clone()));
        }
        for other in [row("2", mac("ab12")), row("1", mac("ab13")), row("1", Attribute::Foreign)] {
            assert_ne!(RowIdentity::of(&other), Some(one.clone()));
        }
        assert_eq!(RowIdentity::of(&Row::new()), None);
        let odd = RowIdentity::of(&row("a#b", mac("ab12"))).unwrap();
        assert_eq!(RowIdentity::stored(odd.as_str()).version(), "a#b");
    }
}
