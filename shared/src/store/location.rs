//! Where versions are stored.

use super::item::KeySchema;

/// Where a version is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// In the table of secrets.
    Table,
    /// In the ledger, in the attribute `row` of an entry: deleted, and restorable.
    Ledger,
}

impl Location {
    /// The word for it in entries of the ledger and in cursors.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "live",
            Self::Ledger => "kept",
        }
    }

    /// The location with this word.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        [Self::Table, Self::Ledger].into_iter().find(|location| location.as_str() == text)
    }

    pub(super) fn keys(self) -> KeySchema {
        match self {
            Self::Table => KeySchema::SECRETS,
            Self::Ledger => KeySchema::LEDGER,
        }
    }
}
