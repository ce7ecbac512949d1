//! Rotation policies in the ledger. All of them are under one name, so that one query finds the
//! ones that are due, however large the ledger is. No secret has that name.

use aws_sdk_dynamodb::types::AttributeValue;

use crate::error::Error;
use crate::name::Name;
use crate::row::{Attribute, Row};
use crate::timestamp::Timestamp;

use super::condition::Condition;
use super::item::{Item, item_of, only, row_of};
use super::ledger::{Ledger, entry_of, key_item};
use super::transaction::{Transaction, WriteLabel};

/// The name of all policies.
const POLICIES: &str = "/policies";
/// The prefix of the sort key of each; the name of its secret follows.
const POLICY: &str = "policy#";

/// The attributes of a policy.
pub(super) const ATTRIBUTES: &[&str] = &[
    "context",
    "due",
    "entry",
    "exclude_characters",
    "exclude_lowercase",
    "exclude_numbers",
    "exclude_punctuation",
    "exclude_uppercase",
    "length",
    "life",
    "name",
    "renewed_at",
    "require_each_included_type",
    "schedule",
    "sequence",
    "template",
    "template_key",
    "timezone",
    "ttl",
];

/// Returns the key of a name's policy.
#[must_use]
pub fn key(name: &str) -> [(&'static str, String); 2] {
    [("name", POLICIES.to_owned()), ("entry", format!("{POLICY}{name}"))]
}

/// Creates the entry that replaces a policy canceled by this event, until DynamoDB removes it. So a
/// role that may only put needs no permission to delete.
#[must_use]
pub fn canceled(name: &str, sequence: u64, now: Timestamp) -> Row {
    let mut row: Row = key(name)
        .map(|(attribute, value)| (attribute.to_owned(), Attribute::Text(value)))
        .into_iter()
        .collect();
    row.insert("sequence".to_owned(), Attribute::Number(sequence.to_string()));
    row.insert("ttl".to_owned(), Attribute::Number(now.unix().to_string()));
    row
}

/// Whether an entry is a canceled policy.
#[must_use]
pub fn is_canceled(row: &Row) -> bool {
    row.contains_key("ttl")
}

/// Returns the name of the secret from the sort key of its policy.
#[must_use]
pub fn name_of(entry: &str) -> Option<&str> {
    entry.strip_prefix(POLICY)
}

/// The entry that the put of a policy replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// There is none.
    Nothing,
    /// The one that the event of this number wrote.
    WrittenBy(u64),
    /// Any. An entry that was edited by hand can still be replaced.
    Any,
}

impl Replaces {
    /// Expects the entry that was read.
    #[must_use]
    pub fn read(row: Option<&Row>) -> Self {
        let Some(row) = row else { return Self::Nothing };
        let sequence = row.get("sequence").and_then(Attribute::integer);
        sequence.and_then(|sequence| sequence.try_into().ok()).map_or(Self::Any, Self::WrittenBy)
    }
}

impl Ledger {
    /// Returns the policy of a name, or what is left of a canceled one, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn policy(&self, name: &str) -> Result<Option<Row>, Error> {
        let [(_, policies), (_, entry)] = key(name);
        let query = only(ATTRIBUTES, self.entries(&policies, &entry, &entry));
        Ok(self.send(query).await?.0.into_iter().next().map(row_of))
    }

    /// Reads a page of all policies, sorted by name, strongly consistent. Returns the sort key of
    /// the last one as well if there may be more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn policies(
        &self,
        after: Option<String>,
        limit: i32,
    ) -> Result<(Vec<Row>, Option<String>), Error> {
        let query = self
            .entries(POLICIES, POLICY, "policy$")
            .limit(limit)
            .set_exclusive_start_key(after.map(|entry| key_item(POLICIES, entry)));
        let (items, last) = self.send(only(ATTRIBUTES, query)).await?;
        let last = last.as_ref().and_then(entry_of);
        let rows = items.into_iter().map(row_of);
        Ok((rows.filter(|row| !is_canceled(row)).collect(), last))
    }

    /// Adds the put of a policy.
    pub fn put_policy(&self, transaction: &mut Transaction, row: Row, replaces: Replaces) {
        let condition = match replaces {
            Replaces::Nothing => Condition::absent(),
            Replaces::WrittenBy(sequence) => Condition::sequence(sequence),
            Replaces::Any => Condition::present(),
        };
        transaction.put(WriteLabel::Policy, &self.table, item_of(row), Some(condition));
    }

    /// Adds the removal of a name's policy, unless it belongs to a later life of the name.
    pub fn remove_policy(&self, transaction: &mut Transaction, name: &Name, life: u64) {
        let key =
            key(name.as_str()).map(|(name, value)| (name.to_owned(), AttributeValue::S(value)));
        let condition = Condition::new("attribute_not_exists(#life) OR #life <= :life")
            .named("#life", "life")
            .valued(":life", AttributeValue::N(life.to_string()));
        transaction.delete(WriteLabel::Policy, &self.table, Item::from(key), condition);
    }
}
