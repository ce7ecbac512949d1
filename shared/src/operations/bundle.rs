//! get many: the current version of every secret under a prefix, all from one moment.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::context::Context;
use crate::error::Error;
use crate::moment::Moment;
use crate::name::{Name, Prefix, Stage};
use crate::row::{self, Attribute, Row};
use crate::store::Key;

use super::Coffer;
use super::busy_retry::retry_while_busy;
use super::get::OpenedSecret;
use super::legacy_hints::{LegacyHint, LegacyHints};
use super::list::{Description, ListPage, name_of};

/// The current versions of some secrets, and how to ask for the next ones.
#[derive(Debug)]
pub struct Bundle {
    /// What was opened, in the order of a listing.
    pub secrets: Vec<OpenedSecret>,
    /// Given back, it continues where this ended; none at the end.
    pub next: Option<Key>,
}

/// Which encryption context each secret of a bundle is opened with.
#[derive(Debug)]
pub struct BundleContexts {
    hints: LegacyHints,
    rest: Context,
    only: bool,
}

impl BundleContexts {
    /// The narrowest of `hints` decides, and `rest` where none is about a name. With `only`, a
    /// secret that was put with another context is left out.
    #[must_use]
    pub fn new(hints: Vec<LegacyHint>, rest: Context, only: bool) -> Self {
        Self { hints: LegacyHints::new(hints), rest, only }
    }

    fn of(&self, name: &str) -> &Context {
        self.hints.context(name).unwrap_or(&self.rest)
    }

    /// Whether the row says that it was sealed with another context, and is to be left out for it.
    /// A legacy row does not say: KMS decides.
    fn leaves_out(&self, row: &Row) -> bool {
        let sealed = row.contains_key("seal");
        let stored = row.get("context").and_then(Attribute::map);
        let context = self.of(name_of(row).unwrap_or_default());
        self.only && sealed && stored.is_some_and(|pairs| pairs != context.pairs())
    }

    /// Whether this is KMS's word that a legacy row was put with another context.
    fn forgives(&self, row: &Row, error: &Error) -> bool {
        self.only && !row.contains_key("seal") && matches!(error, Error::Forbidden(_))
    }
}

impl Coffer {
    /// How many versions are read and opened at a time.
    const OPENED: usize = 16;
    /// For how long calls that AWS throttles are made again. A call may take 8 seconds with its own
    /// retries, and the function has 29.
    const PATIENCE: Duration = Duration::from_secs(18);
    /// For how many seconds a bundle that is being written is read again.
    const UNSETTLED_SECONDS: u64 = 10;
    /// A version that was sealed so many seconds ago may have been put just now, with all the tries
    /// that takes: the index may not have caught up with what was put with it, and is given time.
    const NEW_SECONDS: i64 = 10;
    const SETTLED_AFTER: Duration = Duration::from_secs(1);
    /// By how many seconds two clocks of Lambda's may differ, and a second for what was cut off.
    const SKEW_SECONDS: u64 = 2;
    /// The most bytes of JSON in one answer. Lambda returns 6 MB; over HTTP, JSON within JSON has
    /// each quote and backslash escaped once more.
    const MOST_JSON: usize = 2_500_000;

    /// Opens the current version of every secret that the prefix covers: all from one moment, so
    /// several put at once are seen together or not at all. At most `limit` of them, fewer
    /// where they are large or left out; only an answer without `next` is the last.
    ///
    /// # Errors
    /// [`Error::Several`], with the names of those that cannot be opened, and nothing else;
    /// [`Error::Unavailable`], also where the secrets are written without pause.
    pub async fn bundle(
        &self,
        prefix: &Prefix,
        contexts: &BundleContexts,
        after: Option<Key>,
        limit: u32,
    ) -> Result<Bundle, Error> {
        let end = Instant::now() + Self::PATIENCE;
        let (rows, mut next) = self.settled(prefix, after, Some(limit), end).await?;
        let mut secrets = self.open_all(rows, contexts, end).await?;
        let mut bytes = 0;
        let fits = secrets.iter().take_while(|got| {
            bytes += got.json_len();
            bytes <= Self::MOST_JSON
        });
        let fits = fits.count().max(1);
        if fits < secrets.len() {
            secrets.truncate(fits);
            next = secrets.last().map(|got| Key {
                name: got.description.name.clone(),
                version: got.description.version.as_str().to_owned(),
            });
        }
        Ok(Bundle { secrets, next })
    }

    /// As [`Coffer::bundle`], but all of them in one answer or none.
    ///
    /// # Errors
    /// As [`Coffer::bundle`], [`Error::TooLarge`], and [`Error::NotFound`] where there is no secret.
    pub async fn whole_bundle(
        &self,
        prefix: &Prefix,
        contexts: &BundleContexts,
    ) -> Result<Vec<OpenedSecret>, Error> {
        let end = Instant::now() + Self::PATIENCE;
        let (rows, next) = self.settled(prefix, None, None, end).await?;
        if next.is_some() {
            return Err(no_document());
        }
        if rows.is_empty() {
            return Err(Error::NotFound("No secret is under this prefix. List the names.".into()));
        }
        let secrets = self.open_all(rows, contexts, end).await?;
        if secrets.is_empty() {
            return Err(Error::NotFound(
                "No secret under this prefix was put with this context. List the names with their \
                 contexts."
                    .into(),
            ));
        }
        if secrets.iter().map(OpenedSecret::json_len).sum::<usize>() > Self::MOST_JSON {
            return Err(no_document());
        }
        Ok(secrets)
    }

    /// The newest rows under a prefix as they were at one moment, as many as fit one answer.
    ///
    /// Listed, each read, and listed again. A row that is read as it was listed was the newest from
    /// then on, so where all are, they were so together, when the first listing ended: however far
    /// the index is behind, for what is read is read strongly, and whatever is put afterwards. The
    /// second listing tells of names that the first one missed. A name that is new may come up
    /// late; where something was put just now, the second listing waits for what may have been put
    /// with it.
    async fn settled(
        &self,
        prefix: &Prefix,
        after: Option<Key>,
        limit: Option<u32>,
        patience: Instant,
    ) -> Result<(Vec<Row>, Option<Key>), Error> {
        let end = Instant::now() + Duration::from_secs(Self::UNSETTLED_SECONDS);
        let mut backoff = Backoff::default();
        let mut before = self.under(prefix, after.clone(), limit, patience).await?;
        loop {
            let (listed, listed_at) = (Instant::now(), Moment::now());
            let rows = self.newest_of(&before, patience).await?;
            let new = |row: &Row| {
                let created_at = row.get("created_at").and_then(Attribute::integer);
                created_at.is_some_and(|at| at >= listed_at.unix() - Self::NEW_SECONDS)
            };
            if rows.iter().any(new) {
                tokio::time::sleep_until(listed + Self::SETTLED_AFTER).await;
            }
            let now = self.under(prefix, after.clone(), limit, patience).await?;
            let as_listed = rows.iter().zip(&before.descriptions).all(|(row, listed)| {
                let version = Some(listed.version.as_str());
                (name_of(row), version_of(row)) == (Some(&listed.name), version)
            });
            // Of what was put after the listing nothing need be there.
            let later = listed_at.after(Self::SKEW_SECONDS);
            let known: BTreeSet<_> = before.descriptions.iter().map(|each| &each.name).collect();
            let missed = |each: &Description| {
                !known.contains(&each.name)
                    && (each.created_at.is_none() || each.created_at <= later)
            };
            if as_listed && !now.descriptions.iter().any(missed) {
                let whole = rows.len() == before.descriptions.len();
                let next = if whole { before.next } else { rows.last().and_then(Key::of) };
                return Ok((rows, next));
            }
            if Instant::now() >= end {
                return Err(Error::Unavailable {
                    message: "Secrets under this prefix come up without pause. Try again, or ask \
                              by longer prefixes."
                        .into(),
                    source: "the listing did not settle".into(),
                });
            }
            backoff.wait().await?;
            before = now;
        }
    }

    /// The newest row of each name that was listed, in this order, as many as fit one answer. An
    /// empty one is of a name that is gone.
    async fn newest_of(&self, listed: &ListPage, end: Instant) -> Result<Vec<Row>, Error> {
        let names: Vec<_> = listed.descriptions.iter().map(|each| each.name.clone()).collect();
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for names in names.chunks(Self::OPENED) {
            let read = retry_while_busy(names.to_vec(), Self::OPENED, end, |name| async {
                let row = self.newest_row(&name).await;
                (name, row)
            });
            for (_, row) in read.await {
                let row = row?.unwrap_or_default();
                let contents = row.get("contents").and_then(Attribute::text).map_or(0, str::len);
                bytes += row::size(&row) - contents / 4;
                if bytes > Self::MOST_JSON && !rows.is_empty() {
                    return Ok(rows);
                }
                rows.push(row);
            }
        }
        Ok(rows)
    }

    async fn newest_row(&self, name: &str) -> Result<Option<Row>, Error> {
        let rows = self.store()?.newest(&Name::of_any_client(name)?, 1).await?;
        Ok(rows.into_iter().next())
    }

    /// A page of a listing, or all of it: no more than fits one answer.
    async fn under(
        &self,
        prefix: &Prefix,
        after: Option<Key>,
        limit: Option<u32>,
        end: Instant,
    ) -> Result<ListPage, Error> {
        if let Some(limit) = limit {
            return self.listed(prefix, after, limit, end).await;
        }
        let mut all = self.listed(prefix, after, Self::MAX_LIMIT, end).await?;
        while let Some(next) = all.next.take() {
            if all.descriptions.iter().map(json_len).sum::<usize>() > Self::MOST_JSON {
                return Err(no_document());
            }
            let page = self.listed(prefix, Some(next), Self::MAX_LIMIT, end).await?;
            all.descriptions.extend(page.descriptions);
            all.next = page.next;
        }
        Ok(all)
    }

    /// A page of a listing, asked for again where DynamoDB is busy.
    async fn listed(
        &self,
        prefix: &Prefix,
        after: Option<Key>,
        limit: u32,
        end: Instant,
    ) -> Result<ListPage, Error> {
        let pages = retry_while_busy(vec![after], 1, end, |after| async {
            let page = self.list(Some(prefix), after.clone(), limit).await;
            (after, page)
        });
        let page = pages.await.into_iter().next();
        page.map_or(Ok(ListPage { descriptions: Vec::new(), next: None }), |(_, page)| page)
    }

    async fn open_all(
        &self,
        mut rows: Vec<Row>,
        contexts: &BundleContexts,
        end: Instant,
    ) -> Result<Vec<OpenedSecret>, Error> {
        rows.retain(|row| !contexts.leaves_out(row));
        let opened = retry_while_busy(rows, Self::OPENED, end, |row: Row| async move {
            let context = contexts.of(name_of(&row).unwrap_or_default());
            let got = self.open_row(&row, context).await;
            let got = got.map(|(description, secret, dialect)| OpenedSecret {
                description,
                secret,
                stages: Some(vec![Stage::Current]),
                dialect,
            });
            (row, got)
        });
        let (mut secrets, mut failed) = (Vec::new(), Vec::new());
        for (row, got) in opened.await {
            match got {
                Ok(got) => secrets.push(got),
                Err(error) if contexts.forgives(&row, &error) => {}
                Err(error) => failed.push((name_of(&row).unwrap_or_default().to_owned(), error)),
            }
        }
        if failed.is_empty() { Ok(secrets) } else { Err(Error::several(failed)) }
    }
}

impl OpenedSecret {
    /// About how long this is as JSON, in bytes; never less.
    fn json_len(&self) -> usize {
        json_len(&self.description) + self.secret.json_len()
    }
}

fn json_len(description: &Description) -> usize {
    const REST: usize = 512;
    let Description { name, comment, .. } = description;
    REST + 6 * (name.len() + comment.as_ref().map_or(0, String::len))
}

fn no_document() -> Error {
    Error::TooLarge(
        "The secrets under this prefix do not fit one answer. Leave `format` out and page by \
         `next`, or ask by longer prefixes."
            .into(),
    )
}

fn version_of(row: &Row) -> Option<&str> {
    row.get("version").and_then(Attribute::text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::operations::legacy_hints::Scope;

    fn context(app: &str) -> Context {
        Context::new(BTreeMap::from([("app".to_owned(), app.to_owned())])).unwrap()
    }

    fn contexts(only: bool) -> BundleContexts {
        let hint =
            |whose, app: &str| LegacyHint { whose, context: Some(context(app)), dialect: None };
        let hints = vec![
            hint(Scope::Prefix("dev".parse().unwrap()), "dev"),
            hint(Scope::Name("dev/db".parse().unwrap()), "db"),
            hint(Scope::Prefix("dev/d*".parse().unwrap()), "d"),
        ];
        BundleContexts::new(hints, context("rest"), only)
    }

    fn row(name: &str, sealed_with: Option<&str>) -> Row {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let mut row = Row::from([("name".to_owned(), text(name))]);
        if let Some(app) = sealed_with {
            row.insert("seal".to_owned(), text("AAAA"));
            row.insert("context".to_owned(), Attribute::Map(context(app).pairs().clone()));
        }
        row
    }

    #[test]
    fn the_narrowest_context_is_the_one() {
        for (name, app) in
            [("dev/db", "db"), ("dev/dx", "d"), ("dev/x", "dev"), ("development", "rest")]
        {
            assert_eq!(contexts(false).of(name), &context(app), "{name}");
        }
    }

    #[test]
    fn only_what_says_that_it_has_another_context_is_left_out_and_only_if_asked() {
        assert!(contexts(true).leaves_out(&row("dev/db", Some("dev"))));
        assert!(!contexts(true).leaves_out(&row("dev/db", Some("db"))));
        assert!(!contexts(true).leaves_out(&row("dev/db", None)));
        assert!(!contexts(false).leaves_out(&row("dev/db", Some("dev"))));
        let refused = Error::Forbidden("".into());
        assert!(contexts(true).forgives(&row("x", None), &refused));
        assert!(!contexts(false).forgives(&row("x", None), &refused));
        assert!(!contexts(true).forgives(&row("x", Some("rest")), &refused));
        assert!(!contexts(true).forgives(&row("x", None), &Error::Integrity));
    }
}
