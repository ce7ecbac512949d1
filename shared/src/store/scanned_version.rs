//! A version as a scan returns it, from the table of secrets or from the ledger.

use aws_sdk_dynamodb::types::AttributeValue;

use crate::name::VersionKey;
use crate::row::{Attribute, Row};
use crate::timestamp::Timestamp;

use super::condition::{Condition, Projection};
use super::item::{Item, Key, row_of};
use super::location::Location;

/// A version as it is stored somewhere.
#[derive(Clone, Debug)]
pub struct ScannedVersion {
    /// Where it is stored.
    pub location: Location,
    /// The name of the secret.
    pub name: String,
    /// Its version.
    pub label: VersionKey,
    /// How much of it was read.
    projection: Projection,
    pub(super) item: Item,
}

impl ScannedVersion {
    pub(crate) fn of(location: Location, projection: Projection, item: Item) -> Option<Self> {
        let name = item.get("name")?.as_s().ok()?.clone();
        let row = match location {
            Location::Table => &item,
            Location::Ledger => item.get("row")?.as_m().ok()?,
        };
        let label = VersionKey::stored(row.get("version")?.as_s().ok()?);
        Some(Self { location, name, label, projection, item })
    }

    /// Returns the key of the item in its table.
    #[must_use]
    pub fn key(&self) -> Key {
        let sort = self.item.get(self.location.keys().sort).and_then(|value| value.as_s().ok());
        Key { name: self.name.clone(), version: sort.cloned().unwrap_or_default() }
    }

    /// Returns the row with its name, wherever it is stored.
    #[must_use]
    pub fn row(&self) -> Row {
        let mut row = row_of(self.inner().cloned().unwrap_or_default());
        row.insert("name".to_owned(), Attribute::Text(self.name.clone()));
        row
    }

    /// Whether it has a seal, and with it its context.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.inner().is_some_and(|row| row.contains_key("seal"))
    }

    pub(super) fn inner(&self) -> Option<&Item> {
        match self.location {
            Location::Table => Some(&self.item),
            Location::Ledger => self.item.get("row").and_then(|row| row.as_m().ok()),
        }
    }

    /// Returns the item as it is, or was, in the table of secrets.
    pub(crate) fn to_live_item(&self) -> Item {
        let mut row = self.inner().cloned().unwrap_or_default();
        row.insert("name".to_owned(), AttributeValue::S(self.name.clone()));
        row
    }

    /// Returns when a version in the ledger can no longer be restored, if that is known.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        let ttl = self.item.get("ttl")?.as_n().ok()?.parse().ok()?;
        Timestamp::from_unix_seconds(ttl).filter(|_| self.location == Location::Ledger)
    }

    pub(super) fn unchanged(&self) -> Condition {
        match self.location {
            Location::Table => Condition::live_unchanged(&self.item, self.projection),
            Location::Ledger => Condition::entry_unchanged(&self.item, self.projection),
        }
    }
}
