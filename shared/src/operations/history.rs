//! The history of a secret: its events, and whether they are as they were written.

use crate::audit_chain::{Broken, Check, EVENT};
use crate::error::Error;
use crate::name::{Name, VersionKey};
use crate::row::{Attribute, Row};
use crate::store::item::Key;
use crate::timestamp::Timestamp;

use super::Coffer;
use super::errors::{for_name, invalid_next, not_found};

/// An event of a history, as list returns it.
#[derive(Debug, serde::Serialize)]
pub struct Event {
    /// The operation: put, delete, restore, renew, reseal, policy or cancel.
    operation: String,
    /// The version, if the event is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<VersionKey>,
    /// The versions, lowest first, if the event is about several.
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<Vec<VersionKey>>,
    /// True for a forced delete.
    #[serde(skip_serializing_if = "Option::is_none")]
    force: Option<bool>,
    /// Until when deleted versions can be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    recoverable_until: Option<String>,
    /// The time, to the second.
    at: String,
    /// The IAM ARN that the API authenticated, or `direct`.
    who: String,
    /// Lambda's id of the request.
    request_id: String,
}

/// A page of a history, newest first.
#[derive(Debug)]
pub(super) struct HistoryPage {
    pub(super) events: Vec<Event>,
    /// Where the history continues; `None` at the end.
    pub(super) next: Option<Key>,
}

/// The result of verifying a history.
#[derive(Debug)]
pub(super) struct Verified {
    /// The number of entries.
    pub(super) entries: u64,
    /// The entries that are not as they were written.
    pub(super) broken: Vec<Broken>,
}

impl Event {
    fn of(row: &Row) -> Self {
        let optional = |name: &str| row.get(name).and_then(Attribute::text).map(str::to_owned);
        let text = |name: &str| optional(name).unwrap_or_default();
        let members = row.get("versions").and_then(Attribute::members);
        let mut versions: Vec<_> = members.into_iter().flatten().map(VersionKey::stored).collect();
        versions.sort_by_key(|label| (label.number(), label.as_str().to_owned()));
        let several = versions.len() > 1;
        Self {
            operation: text("operation"),
            version: versions.first().filter(|_| !several).cloned(),
            versions: several.then_some(versions),
            force: row.get("force").filter(|force| force.is_set()).map(|_| true),
            recoverable_until: optional("recoverable_until"),
            at: text("at"),
            who: text("who"),
            request_id: text("request_id"),
        }
    }
}

impl Coffer {
    /// Returns at most `limit` events of a secret, newest first. A secret that only other clients
    /// wrote has none.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there are neither events nor versions; [`Error::Invalid`] for an
    /// invalid cursor, or if nothing is found and the name breaks the rules;
    /// [`Error::Unavailable`].
    pub(super) async fn history(
        &self,
        name: &Name,
        after: Option<Key>,
        limit: u32,
    ) -> Result<HistoryPage, Error> {
        let stores = self.stores()?;
        let first = after.is_none();
        let after = after.map(|key| key.version);
        if after.as_ref().is_some_and(|entry| !entry.starts_with(EVENT)) {
            return Err(invalid_next());
        }
        let limit = i32::try_from(limit).unwrap_or(i32::MAX - 1);
        // One more, so that the last page has no `next`.
        let (mut rows, mut last) =
            stores.ledger.events(name, false, after, Some(limit + 1)).await?;
        if rows.is_empty() && first {
            if stores.table.versions(name, None, 1).await?.rows.is_empty() {
                return Err(for_name(name, not_found()));
            }
            return Ok(HistoryPage { events: Vec::new(), next: None });
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if rows.len() > limit {
            rows.truncate(limit);
            let entry = |row: &Row| row.get("entry").and_then(Attribute::text).map(str::to_owned);
            last = rows.last().and_then(entry);
        }
        let next = last.map(|version| Key { name: name.as_str().to_owned(), version });
        Ok(HistoryPage { events: rows.iter().map(Event::of).collect(), next })
    }

    /// Checks whether every event of a secret is as it was written: see [`crate::audit_chain`], also for
    /// what this cannot detect. An event that somebody with write access to the ledger appended
    /// together with a new chain head is not detected, because the hashes have no key.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there are neither events nor versions; [`Error::Invalid`] if nothing
    /// is found and the name breaks the rules; [`Error::Unavailable`].
    pub(super) async fn verify(&self, name: &Name) -> Result<Verified, Error> {
        let verified = self.check_history(name).await?;
        // A read during a transaction may return a part of it, but not twice.
        if verified.broken.is_empty() { Ok(verified) } else { self.check_history(name).await }
    }

    async fn check_history(&self, name: &Name) -> Result<Verified, Error> {
        let stores = self.stores()?;
        // The head's entry before and after: the events must reach the first one, and must not go
        // beyond the second one, whatever is put in between.
        let head = stores.ledger.head_entry(name).await?;
        let mut check = Check::new(head.as_ref(), Timestamp::now());
        let mut after = None;
        loop {
            let (rows, last) = stores.ledger.events(name, true, after, None).await?;
            for row in &rows {
                check.entry(row);
            }
            if last.is_none() {
                break;
            }
            after = last;
        }
        let (entries, broken) = check.finish(stores.ledger.head_entry(name).await?.as_ref());
        let unknown = entries == 0 && broken.is_empty() && head.is_none();
        if unknown && stores.table.versions(name, None, 1).await?.rows.is_empty() {
            return Err(for_name(name, not_found()));
        }
        Ok(Verified { entries, broken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_of_a_delete_shows_until_when_it_can_be_undone() {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let mut row = Row::from([("operation".to_owned(), text("delete"))]);
        assert_eq!(Event::of(&row).recoverable_until, None);
        row.insert("recoverable_until".to_owned(), text("2026-02-03T04:05:06Z"));
        let event = serde_json::to_value(Event::of(&row)).unwrap();
        assert_eq!(event["recoverable_until"], "2026-02-03T04:05:06Z");
    }
}
