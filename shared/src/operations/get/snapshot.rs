//! A consistent snapshot of the secrets under a prefix.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::description::{Description, name_of};
use crate::error::Error;
use crate::fields::MAX_LIMIT;
use crate::name::{Name, Prefix};
use crate::row::{self, Attribute, Row};
use crate::store::item::Key;
use crate::timestamp::Timestamp;

use super::super::Coffer;
use super::super::busy_retry::retry_while_busy;
use super::super::list::ListPage;
use super::bundle::{AT_ONCE, MAX_JSON, document_too_large};

/// How long secrets that keep changing are read again.
const UNSETTLED_TIME: Duration = Duration::from_secs(10);
/// A version that was sealed within this many seconds may have been put just now, with all its
/// tries. The index may not show yet what was put together with it, and gets time to catch up.
const NEW_SECONDS: i64 = 10;
const SETTLING_TIME: Duration = Duration::from_secs(1);
/// The most seconds by which two clocks of Lambda differ, plus one for dropped fractions.
const SKEW_SECONDS: u64 = 2;

impl Coffer {
    /// Reads the newest rows under a prefix as they were at one moment, as many as fit one
    /// response.
    ///
    /// The names are listed, each newest row is read, and the names are listed again. A row that is
    /// read as it was listed was the newest from then on. If all are, they were so together when
    /// the first listing ended, however far behind the index is, because rows are read strongly
    /// consistent. The second listing shows names that the first one missed. A new name may appear
    /// late: if something was put just now, the second listing waits for what may have been put
    /// together with it.
    pub(super) async fn snapshot(
        &self,
        prefix: &Prefix,
        after: Option<Key>,
        limit: Option<u32>,
        busy_end: Instant,
    ) -> Result<(Vec<Row>, Option<Key>), Error> {
        let end = Instant::now() + UNSETTLED_TIME;
        let mut backoff = Backoff::default();
        let mut before = self.list_under(prefix, after.clone(), limit, busy_end).await?;
        loop {
            let (listed, listed_at) = (Instant::now(), Timestamp::now());
            let rows = self.newest_of(&before, busy_end).await?;
            if rows.iter().any(|row| is_new(row, listed_at)) {
                tokio::time::sleep_until(listed + SETTLING_TIME).await;
            }
            let now = self.list_under(prefix, after.clone(), limit, busy_end).await?;
            if is_settled(&before, &rows, &now, listed_at) {
                let whole = rows.len() == before.descriptions.len();
                let next = if whole { before.next } else { rows.last().and_then(Key::of) };
                return Ok((rows, next));
            }
            if Instant::now() >= end {
                return Err(Error::Unavailable {
                    message: "The secrets under this prefix keep changing. Try again, or use \
                              longer prefixes."
                        .into(),
                    source: "the listing did not settle".into(),
                });
            }
            backoff.wait().await?;
            before = now;
        }
    }

    /// Reads the newest row of each name that was listed, in this order, as many as fit one
    /// response. The row of a name that is gone is empty.
    async fn newest_of(&self, listed: &ListPage, busy_end: Instant) -> Result<Vec<Row>, Error> {
        let names: Vec<_> = listed.descriptions.iter().map(|each| each.name.clone()).collect();
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for names in names.chunks(AT_ONCE) {
            let read = retry_while_busy(names.to_vec(), AT_ONCE, busy_end, |name| async {
                let row = self.newest_row(&name).await;
                (name, row)
            });
            for (_, row) in read.await {
                let row = row?.unwrap_or_default();
                let contents = row.get("contents").and_then(Attribute::text).map_or(0, str::len);
                bytes += row::size(&row) - contents / 4;
                if bytes > MAX_JSON && !rows.is_empty() {
                    return Ok(rows);
                }
                rows.push(row);
            }
        }
        Ok(rows)
    }

    async fn newest_row(&self, name: &str) -> Result<Option<Row>, Error> {
        let rows = self.table()?.newest(&Name::of_any_client(name)?, 1).await?;
        Ok(rows.into_iter().next())
    }

    /// Lists a page of names or, without a limit, all of them, but no more than fit one response.
    async fn list_under(
        &self,
        prefix: &Prefix,
        after: Option<Key>,
        limit: Option<u32>,
        busy_end: Instant,
    ) -> Result<ListPage, Error> {
        if let Some(limit) = limit {
            return self.list_page(prefix, after, limit, busy_end).await;
        }
        let mut all = self.list_page(prefix, after, MAX_LIMIT, busy_end).await?;
        while let Some(next) = all.next.take() {
            if all.descriptions.iter().map(Description::json_len).sum::<usize>() > MAX_JSON {
                return Err(document_too_large());
            }
            let page = self.list_page(prefix, Some(next), MAX_LIMIT, busy_end).await?;
            all.descriptions.extend(page.descriptions);
            all.next = page.next;
        }
        Ok(all)
    }

    /// Lists a page of names, again while DynamoDB is busy.
    async fn list_page(
        &self,
        prefix: &Prefix,
        after: Option<Key>,
        limit: u32,
        busy_end: Instant,
    ) -> Result<ListPage, Error> {
        let pages = retry_while_busy(vec![after], 1, busy_end, |after| async {
            let page = self.list_names(Some(prefix), after.clone(), limit).await;
            (after, page)
        });
        let page = pages.await.into_iter().next();
        page.map_or(Ok(ListPage { descriptions: Vec::new(), next: None }), |(_, page)| page)
    }
}

fn is_new(row: &Row, listed_at: Timestamp) -> bool {
    let created_at = row.get("created_at").and_then(Attribute::integer);
    created_at.is_some_and(|at| at >= listed_at.unix() - NEW_SECONDS)
}

/// Whether the rows are what was listed `before`, and the listing `now` has no name that it missed.
fn is_settled(before: &ListPage, rows: &[Row], now: &ListPage, listed_at: Timestamp) -> bool {
    let as_listed = rows.iter().zip(&before.descriptions).all(|(row, listed)| {
        let version = row.get("version").and_then(Attribute::text);
        (name_of(row), version) == (Some(&listed.name), Some(listed.version.as_str()))
    });
    // A name that was put after the listing need not be in it.
    let later = listed_at.after(SKEW_SECONDS);
    let known: BTreeSet<_> = before.descriptions.iter().map(|each| &each.name).collect();
    let missed = |each: &Description| {
        !known.contains(&each.name) && (each.created_at.is_none() || each.created_at <= later)
    };
    as_listed && !now.descriptions.iter().any(missed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::VersionKey;

    fn description(name: &str, version: &str, created_at: i64) -> Description {
        Description {
            name: name.to_owned(),
            version: VersionKey::stored(version),
            revision: None,
            comment: None,
            created_at: Timestamp::from_unix_seconds(created_at),
            expires_at: None,
            context: None,
        }
    }

    fn page(descriptions: Vec<Description>) -> ListPage {
        ListPage { descriptions, next: None }
    }

    #[test]
    fn a_snapshot_is_settled_once_nothing_changed_while_it_was_read() {
        let row = |name: &str, version: &str| {
            let pairs = [("name", name), ("version", version)];
            Row::from(pairs.map(|(name, text)| (name.to_owned(), Attribute::Text(text.into()))))
        };
        let at = Timestamp::from_unix_seconds(100).unwrap();
        let before = page(vec![description("a", "1", 1)]);
        let settled =
            |rows: &[Row], now: Vec<Description>| is_settled(&before, rows, &page(now), at);
        assert!(settled(&[row("a", "1")], vec![description("a", "1", 1)]));
        // A newer version was put, or the name was deleted.
        assert!(!settled(&[row("a", "2")], vec![description("a", "1", 1)]));
        assert!(!settled(&[Row::new()], Vec::new()));
        // The first listing missed a name.
        let missed = |created_at| vec![description("a", "1", 1), description("b", "1", created_at)];
        assert!(!settled(&[row("a", "1")], missed(102)));
        assert!(settled(&[row("a", "1")], missed(103)));
    }
}
