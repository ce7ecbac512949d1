//! Deleted versions in the ledger, and the forms that versions had before a reseal. Both hold a
//! row under `row` and are removed when their recovery window ends.

use aws_sdk_dynamodb::types::AttributeValue;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::life::RowIdentity;
use crate::name::{Name, VersionKey};
use crate::timestamp::Timestamp;

use super::condition::{Condition, Projection};
use super::item::{Item, KeySchema, identity_of};
use super::ledger::{AFTER_HASH, Ledger, entry_of, key_item};
use super::transaction::{Transaction, WriteLabel};

/// The prefix of the sort key of every deleted version.
const DELETED: &str = "deleted#";
/// The length of a sort key that DynamoDB accepts. Source: AWS, DynamoDB quotas.
const MAX_SORT_KEY_BYTES: usize = 1024;
/// The attribute that marks the form of a version before a reseal.
pub(super) const BEFORE_RESEAL: &str = "before_reseal";

/// A version that can be restored.
#[derive(Debug)]
pub struct DeletedVersion {
    /// Its version, as it is restored.
    pub label: VersionKey,
    /// Its version as it is stored in the ledger.
    pub stored: VersionKey,
    /// When it was deleted, to the second, if that is known.
    pub deleted_at: Option<Timestamp>,
    /// The number of the event that records the delete. The later of two deletes has the higher
    /// number.
    pub sequence: u64,
    /// When it can no longer be restored.
    pub until: Timestamp,
    /// The life of the name that it belongs to, if that was recorded.
    pub life: Option<u64>,
    /// Whether this is the form of a version before a reseal. It is restored only on request.
    pub before_reseal: bool,
    item: Item,
}

impl DeletedVersion {
    fn of(item: Item) -> Option<Self> {
        let row = item.get("row")?.as_m().ok()?;
        let label = VersionKey::stored(row.get("version")?.as_s().ok()?);
        let number = |name: &str| item.get(name)?.as_n().ok()?.parse::<i64>().ok();
        let until = number("ttl").and_then(Timestamp::from_unix_seconds)?;
        let deleted_at = number("deleted_at").and_then(Timestamp::from_unix_seconds);
        let sequence = number("sequence").and_then(|number| number.try_into().ok()).unwrap_or(0);
        let before_reseal = item.get(BEFORE_RESEAL).is_some_and(|flag| flag.as_bool() == Ok(&true));
        let life = number("life").and_then(|number| number.try_into().ok());
        let stored = label.clone();
        Some(Self { label, stored, deleted_at, sequence, until, life, before_reseal, item })
    }

    /// Returns the identity of the row.
    pub(crate) fn identity(&self) -> Option<RowIdentity> {
        identity_of(self.item.get("row")?.as_m().ok()?)
    }

    /// Returns the row as it was in the table of secrets.
    pub(crate) fn to_live_item(&self) -> Item {
        let mut live = self.item.get("row").and_then(|row| row.as_m().ok()).cloned();
        if let (Some(live), Some(name)) = (&mut live, self.item.get("name")) {
            live.insert("name".to_owned(), name.clone());
        }
        live.unwrap_or_default()
    }

    /// Whether the row has a seal, which covers its version.
    pub(crate) fn is_sealed(&self) -> bool {
        let row = self.item.get("row").and_then(|row| row.as_m().ok());
        row.is_some_and(|row| row.contains_key("seal"))
    }

    /// The same version under its padded number.
    pub(crate) fn padded(mut self) -> Self {
        self.label = self.label.padded();
        if let Some(AttributeValue::M(row)) = self.item.get_mut("row") {
            let version = AttributeValue::S(self.label.as_str().to_owned());
            row.insert("version".to_owned(), version);
        }
        self
    }
}

/// Creates the entry of a deleted version: a live row of this `life` of its name, deleted by the
/// event `sequence` and restorable until `until`. A hash of the content separates two rows of one
/// version, of which the first was deleted before the second was put.
pub(crate) fn deleted_entry(row: &Item, sequence: u64, life: u64, until: Timestamp) -> Item {
    let mut inner = row.clone();
    let name = inner.remove("name");
    let text = |name: &str| row.get(name).and_then(|value| value.as_s().ok());
    let version = text("version").map(String::as_str).unwrap_or_default();
    let mut mark = Sha256::new();
    for part in ["contents", "hmac"] {
        match row.get(part) {
            Some(AttributeValue::S(text)) => mark.update(text),
            Some(AttributeValue::B(bytes)) => mark.update(bytes),
            _ => {}
        }
        mark.update([0]);
    }
    let mark = hex::encode(mark.finalize().get(..8).unwrap_or_default());
    let mut item = Item::from([
        ("entry".to_owned(), AttributeValue::S(format!("{DELETED}{version}#{mark}"))),
        ("sequence".to_owned(), AttributeValue::N(sequence.to_string())),
        ("deleted_at".to_owned(), AttributeValue::N(Timestamp::now().unix().to_string())),
        ("life".to_owned(), AttributeValue::N(life.to_string())),
        ("ttl".to_owned(), AttributeValue::N(until.unix().to_string())),
        ("row".to_owned(), AttributeValue::M(inner)),
    ]);
    item.extend(name.map(|name| ("name".to_owned(), name)));
    item
}

/// Creates the entry that keeps a row until `until` as it was before the event `sequence` resealed
/// it as version `label`. Its sort key is next to the one that the version would have if it were
/// deleted.
pub(crate) fn before_reseal_entry(
    row: &Item,
    label: &VersionKey,
    sequence: u64,
    until: Timestamp,
) -> Item {
    let mut item = deleted_entry(row, sequence, 0, until);
    // The ledger may not know the life of the earlier form.
    item.remove("life");
    let entry = entry_of(&item).unwrap_or_default();
    let mark = entry.rsplit('#').next().unwrap_or_default();
    let entry = format!("{DELETED}{}#{mark}-{sequence}", label.as_str());
    item.insert("entry".to_owned(), AttributeValue::S(entry));
    item.insert(BEFORE_RESEAL.to_owned(), AttributeValue::Bool(true));
    item
}

impl Ledger {
    /// Reads a page of a name's deleted versions and of the forms before a reseal, of one version
    /// if a label is given, highest first, strongly consistent. The page is empty only if there are
    /// none. Returns the sort key of the last one as well if there may be more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn deleted_versions(
        &self,
        name: &Name,
        label: Option<&VersionKey>,
        after: Option<String>,
    ) -> Result<(Vec<DeletedVersion>, Option<String>), Error> {
        let (first, last) = match label {
            Some(label) => {
                let first = format!("{DELETED}{}#", label.as_str());
                let last = format!("{DELETED}{}{AFTER_HASH}", label.as_str());
                (first, last)
            }
            None => (DELETED.to_owned(), format!("deleted{AFTER_HASH}")),
        };
        // The ledger has no room for the longest versions of other clients, and DynamoDB rejects a
        // query about them.
        if first.len() > MAX_SORT_KEY_BYTES {
            return Ok((Vec::new(), None));
        }
        let mut after = after;
        loop {
            let query = self
                .entries(name.as_str(), &first, &last)
                .scan_index_forward(false)
                .set_exclusive_start_key(after.map(|entry| key_item(name.as_str(), entry)));
            let (items, last) = self.send(query).await?;
            after = last.as_ref().and_then(entry_of);
            let deleted = items.into_iter().filter_map(DeletedVersion::of);
            // A version that contains `#` is in the range of another. The earlier form of a version
            // that a reseal padded has the sort key of the padded number.
            let deleted = deleted.filter(|deleted| {
                label.is_none_or(|label| {
                    let padded = || deleted.before_reseal && deleted.label.padded() == *label;
                    deleted.label == *label || padded()
                })
            });
            let deleted: Vec<_> = deleted.collect();
            if !deleted.is_empty() || after.is_none() {
                return Ok((deleted, after));
            }
        }
    }

    /// Adds the put of a deleted version, whatever is there.
    pub(crate) fn put_deleted(&self, transaction: &mut Transaction, index: usize, entry: Item) {
        transaction.put(WriteLabel::Copy(index), &self.table, entry, None);
    }

    /// Adds the put of the form of a version before a reseal, if its sort key is free.
    pub(crate) fn put_before_reseal(
        &self,
        transaction: &mut Transaction,
        index: usize,
        entry: Item,
    ) {
        let absent = Some(Condition::absent());
        transaction.put(WriteLabel::Copy(index), &self.table, entry, absent);
    }

    /// Adds the removal of a deleted version, if its entry is still what was read.
    pub fn remove_deleted(
        &self,
        transaction: &mut Transaction,
        index: usize,
        deleted: &DeletedVersion,
    ) {
        let unchanged = Condition::entry_unchanged(&deleted.item, Projection::Whole);
        let key = KeySchema::LEDGER.key_of(&deleted.item);
        transaction.delete(WriteLabel::Removal(index), &self.table, key, unchanged);
    }
}
