//! Rotation policies in the ledger: under one name, so that those that are due are found by one
//! Query, however large the ledger is. No secret that Coffer puts has that name.

use crate::error::Error;
use crate::moment::Moment;
use crate::row::{Attribute, Row};

use super::ledger::{entry_of, only, place};
use super::{Store, row_of};

/// Under which name all policies lie.
const POLICIES: &str = "/policies";
/// What the sort key of each begins with; the name of its secret follows.
const POLICY: &str = "policy#";

/// The attributes of a policy.
const ATTRIBUTES: &[&str] = &[
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

/// The key of a name's policy.
#[must_use]
pub fn key(name: &str) -> [(&'static str, String); 2] {
    [("name", POLICIES.to_owned()), ("entry", format!("{POLICY}{name}"))]
}

/// What is left in the place of a policy that was cancelled by this event, until DynamoDB removes
/// it: so that nobody who only may put needs to delete.
#[must_use]
pub fn cancelled(name: &str, sequence: u64, now: Moment) -> Row {
    let mut row: Row = key(name)
        .map(|(attribute, value)| (attribute.to_owned(), Attribute::Text(value)))
        .into_iter()
        .collect();
    row.insert("sequence".to_owned(), Attribute::Number(sequence.to_string()));
    row.insert("ttl".to_owned(), Attribute::Number(now.unix().to_string()));
    row
}

/// Whether that is all there is.
#[must_use]
pub fn is_cancelled(row: &Row) -> bool {
    row.contains_key("ttl")
}

/// The name that a policy is of.
#[must_use]
pub fn name_of(entry: &str) -> Option<&str> {
    entry.strip_prefix(POLICY)
}

impl Store {
    /// The policy of a name, or what is left of it, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn policy(&self, name: &str) -> Result<Option<Row>, Error> {
        let [(_, policies), (_, entry)] = key(name);
        let query = only(ATTRIBUTES, self.entries(&policies, &entry, &entry));
        Ok(self.send_ledger(query).await?.0.into_iter().next().map(row_of))
    }

    /// A page of all policies, in the order of their names, strongly consistent; the sort key of
    /// the last one if there may be more.
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
            .set_exclusive_start_key(after.map(|entry| place(POLICIES, entry)));
        let (items, last) = self.send_ledger(only(ATTRIBUTES, query)).await?;
        let last = last.as_ref().and_then(entry_of);
        let rows = items.into_iter().map(row_of);
        Ok((rows.filter(|row| !is_cancelled(row)).collect(), last))
    }
}
