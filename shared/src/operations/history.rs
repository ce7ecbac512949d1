//! history: what was done to a secret, by whom and when, and whether the record is whole.

use crate::chain::{Broken, Check, EVENT};
use crate::error::Error;
use crate::moment::Moment;
use crate::name::{Label, Name};
use crate::row::{Attribute, Row};
use crate::store::Key;

use super::{Coffer, for_name, not_found};

/// An event as it is told.
#[derive(Debug, serde::Serialize)]
pub struct Event {
    /// put, delete or restore.
    operation: String,
    /// The version, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Label>,
    /// The versions, where they were several, lowest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<Vec<Label>>,
    /// True where a delete was for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    force: Option<bool>,
    /// Until when a delete can be undone by restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    recoverable_until: Option<String>,
    /// When, to the second.
    at: String,
    /// The IAM ARN that the API authenticated, or `direct`.
    who: String,
    /// Lambda's id of the request.
    request_id: String,
}

/// Some events, newest first, and how to ask for older ones.
#[derive(Debug)]
pub struct HistoryPage {
    /// What was found.
    pub events: Vec<Event>,
    /// Given back, it continues where this ended; none at the end.
    pub next: Option<Key>,
}

/// What became of a record.
#[derive(Debug)]
pub struct Verified {
    /// How many entries there are.
    pub entries: u64,
    /// Those that are not as they were written; none where the chain is whole.
    pub broken: Vec<Broken>,
}

impl Event {
    fn of(row: &Row) -> Self {
        let text = |name: &str| {
            row.get(name).and_then(Attribute::text).map(str::to_owned).unwrap_or_default()
        };
        let members = row.get("versions").and_then(Attribute::members);
        let mut versions: Vec<_> = members.into_iter().flatten().map(Label::stored).collect();
        versions.sort_by_key(|label| (label.number(), label.as_str().to_owned()));
        let several = versions.len() > 1;
        Self {
            operation: text("operation"),
            version: versions.first().filter(|_| !several).cloned(),
            versions: several.then_some(versions),
            force: row.get("force").filter(|force| force.is_set()).map(|_| true),
            recoverable_until: row
                .get("recoverable_until")
                .and_then(Attribute::text)
                .map(str::to_owned),
            at: text("at"),
            who: text("who"),
            request_id: text("request_id"),
        }
    }
}

impl Coffer {
    /// What was done to a secret, newest first; at most `limit` events. A secret that only other
    /// clients wrote has none.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there are neither events nor versions; [`Error::Invalid`] for a
    /// place to go on from that is none, or where nothing is found and the name is none that could
    /// be put; [`Error::Unavailable`].
    pub async fn history(
        &self,
        name: &Name,
        after: Option<Key>,
        limit: u32,
    ) -> Result<HistoryPage, Error> {
        let store = self.ledger()?;
        let first = after.is_none();
        let after = after.map(|key| key.version);
        if after.as_ref().is_some_and(|entry| !entry.starts_with(EVENT)) {
            return Err(Error::invalid("`next` is what an earlier answer gave, unchanged."));
        }
        let limit = i32::try_from(limit).unwrap_or(i32::MAX - 1);
        // One more than asked for, so that the last answer has no `next`.
        let (mut rows, mut last) = store.events(name, false, after, Some(limit + 1)).await?;
        if rows.is_empty() && first {
            let known = !store.versions(name, None, 1).await?.rows.is_empty();
            return if known {
                Ok(HistoryPage { events: Vec::new(), next: None })
            } else {
                Err(for_name(name, not_found()))
            };
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if rows.len() > limit {
            rows.truncate(limit);
            let key = |row: &Row| row.get("entry").and_then(Attribute::text).map(str::to_owned);
            last = rows.last().and_then(key);
        }
        let next = last.map(|version| Key { name: name.as_str().to_owned(), version });
        Ok(HistoryPage { events: rows.iter().map(Event::of).collect(), next })
    }

    /// Whether every event of a secret is still as it was written: see [`crate::chain`], also for
    /// what this cannot show. It does not find an event that somebody with write access to the
    /// ledger appended together with a new head, because the hashes have no key.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there are neither events nor versions; [`Error::Invalid`] as
    /// [`Coffer::history`]; [`Error::Unavailable`].
    pub async fn verify(&self, name: &Name) -> Result<Verified, Error> {
        let verified = self.check(name).await?;
        // A transaction that is being done may be seen in part. Not twice.
        if verified.broken.is_empty() { Ok(verified) } else { self.check(name).await }
    }

    async fn check(&self, name: &Name) -> Result<Verified, Error> {
        let store = self.ledger()?;
        // The head before and after: what the one tells of must be there, and what is there must
        // be told of by the other, whatever is put meanwhile.
        let head = store.head(name).await?;
        let mut check = Check::new(head.as_ref(), Moment::now());
        let mut after = None;
        loop {
            let (rows, last) = store.events(name, true, after, None).await?;
            for row in &rows {
                check.entry(row);
            }
            if last.is_none() {
                break;
            }
            after = last;
        }
        let (entries, broken) = check.finish(store.head(name).await?.as_ref());
        let unknown = entries == 0 && broken.is_empty() && head.is_none();
        if unknown && store.versions(name, None, 1).await?.rows.is_empty() {
            return Err(for_name(name, not_found()));
        }
        Ok(Verified { entries, broken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_shows_until_when_a_delete_can_be_undone() {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let mut row = Row::from([("operation".to_owned(), text("delete"))]);
        assert_eq!(Event::of(&row).recoverable_until, None);
        row.insert("recoverable_until".to_owned(), text("2026-02-03T04:05:06Z"));
        let told = serde_json::to_value(Event::of(&row)).unwrap();
        assert_eq!(told["recoverable_until"], "2026-02-03T04:05:06Z");
    }
}
