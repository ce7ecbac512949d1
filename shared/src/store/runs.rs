//! Runs over the whole stack in the ledger: the run in force of each action, its hints, the
//! progress of its parts, and its failures.
//!
//! | `name` | `entry` | what |
//! |---|---|---|
//! | `/rotation` | `run#ACTION` | the run in force, or the last one |
//! | `/rotation/RUN` | `hint#…` | a context or a dialect that the run was given |
//! | `/rotation/RUN` | `part#STAGE#NUMBER` | the progress of a part, with its counts |
//! | `/rotation/RUN` | `failure#…` | a version that was not changed, and why |
//!
//! No secret that Coffer puts has a name under `/rotation`.

use std::collections::BTreeMap;
use std::future::ready;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::stream::{StreamExt, TryStreamExt, iter};

use crate::backoff::Backoff;
use crate::error::Error;
use crate::row::{Attribute, Row};
use crate::timestamp::Timestamp;

use super::condition::Condition;
use super::item::{item_of, only, row_of};
use super::ledger::{Ledger, entry_of, key_item};
use super::progress::{FAILURE, Progress, RunFailure};
use super::transaction::{Committed, Transaction, WriteLabel};

/// The name of the runs in force.
const RUNS: &str = "/rotation";

/// The attributes of all these entries: what a role that reports on runs may read.
pub(super) const RUN: &[&str] = &[
    "after_name",
    "after_sort",
    "changed",
    "context",
    "dialect",
    "done",
    "dry_run",
    "ended_at",
    "entry",
    "execution",
    "failed",
    "home",
    "marks",
    "name",
    "of",
    "page",
    "parts",
    "progressed_at",
    "reason",
    "request",
    "run",
    "secret",
    "seen",
    "skipped",
    "started_at",
    "taken_at",
    "token",
    "ttl",
    "version",
];
/// The attributes by which a run that was read is compared with the one that is there.
const COMPARED: &[&str] = &["ended_at", "execution", "run", "token"];

/// A run: what was requested, and which execution works on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The id of the run.
    pub id: String,
    /// The execution that works on it now.
    pub execution: String,
    /// When that execution was started, in unix milliseconds.
    pub taken_at: u64,
    /// A hash of the request.
    pub request: Vec<u8>,
    /// Whether nothing is written.
    pub dry_run: bool,
    /// The number of parts of each stage.
    pub parts: u32,
    /// The token of the start that began the run or took it over.
    pub token: Option<String>,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

impl Run {
    fn of(row: &Row) -> Option<Self> {
        let text = |name: &str| row.get(name).and_then(Attribute::text).map(str::to_owned);
        let moment = |name: &str| row.get(name)?.integer().and_then(Timestamp::from_unix_seconds);
        let taken_at = row.get("taken_at").and_then(Attribute::integer);
        Some(Self {
            id: text("run")?,
            execution: text("execution")?,
            taken_at: taken_at.and_then(|at| at.try_into().ok()).unwrap_or(0),
            request: row.get("request")?.bytes()?.to_vec(),
            dry_run: row.get("dry_run").is_some_and(Attribute::is_set),
            parts: u32::try_from(row.get("parts")?.integer()?).ok()?,
            token: text("token"),
            started_at: moment("started_at")?,
            ended_at: moment("ended_at"),
        })
    }

    fn to_row(&self, action: &str) -> Row {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let number = |number: u64| Attribute::Number(number.to_string());
        let mut row = Row::from([
            ("name".to_owned(), text(RUNS)),
            ("entry".to_owned(), Attribute::Text(run_entry(action))),
            ("run".to_owned(), text(&self.id)),
            ("execution".to_owned(), text(&self.execution)),
            ("taken_at".to_owned(), number(self.taken_at)),
            ("request".to_owned(), Attribute::Bytes(self.request.clone())),
            ("dry_run".to_owned(), Attribute::Flag(self.dry_run)),
            ("parts".to_owned(), number(self.parts.into())),
            ("started_at".to_owned(), seconds(self.started_at)),
        ]);
        row.extend(self.token.as_deref().map(|token| ("token".to_owned(), text(token))));
        row.extend(self.ended_at.map(|end| ("ended_at".to_owned(), seconds(end))));
        row
    }
}

impl Ledger {
    /// Returns the run of this action that is in force, or the last one, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn run(&self, action: &str) -> Result<Option<Run>, Error> {
        let entry = run_entry(action);
        let rows = self.run_entries(RUNS, &entry, &entry, None, None).await?.0;
        Ok(rows.first().and_then(Run::of))
    }

    /// Puts a run in force, if the one that is there is still `before`: the same run of the same
    /// execution with the same token, and not ended since. Returns whether it was.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn put_run(
        &self,
        action: &str,
        run: &Run,
        before: Option<&Run>,
    ) -> Result<bool, Error> {
        let mut transaction = Transaction::default();
        self.add_run(&mut transaction, action, run, before);
        Ok(self.commit(&transaction).await? == Committed::Done)
    }

    fn add_run(
        &self,
        transaction: &mut Transaction,
        action: &str,
        run: &Run,
        before: Option<&Run>,
    ) {
        let condition = match before {
            None => Condition::absent(),
            Some(before) => {
                let mut before = before.to_row(action);
                before.retain(|name, _| COMPARED.contains(&name.as_str()));
                Condition::present().and_same('r', &item_of(before), COMPARED, None)
            }
        };
        let item = item_of(run.to_row(action));
        transaction.put(WriteLabel::Run, &self.table, item, Some(condition));
    }

    /// Stores the hints of a run, in the order of `hints`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn put_hints(
        &self,
        run: &str,
        hints: Vec<Row>,
        ttl: Option<Timestamp>,
    ) -> Result<(), Error> {
        let rows = hints.into_iter().enumerate().map(|(index, mut row)| {
            row.insert("name".to_owned(), Attribute::Text(name_of(run)));
            row.insert("entry".to_owned(), Attribute::Text(format!("hint#{index:04}")));
            row.extend(ttl.map(|ttl| ("ttl".to_owned(), seconds(ttl))));
            row
        });
        let rows: Vec<Row> = rows.collect();
        for rows in rows.chunks(Transaction::MAX_WRITES) {
            let mut transaction = Transaction::default();
            for row in rows {
                let item = item_of(row.clone());
                transaction.put(WriteLabel::RunEntry, &self.table, item, None);
            }
            // A conflict is with another writer of the same hints.
            let mut backoff = Backoff::default();
            while self.commit(&transaction).await? == Committed::Conflict {
                backoff.wait().await?;
            }
        }
        Ok(())
    }

    /// Returns the hints of a run.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn hints(&self, run: &str) -> Result<Vec<Row>, Error> {
        self.all_run_entries(&name_of(run), "hint").await
    }

    /// Returns the progress of a part; the default if it has not begun.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn progress(&self, run: &str, part: &str) -> Result<Progress, Error> {
        let entry = format!("part#{part}");
        let rows = self.run_entries(&name_of(run), &entry, &entry, None, None).await?.0;
        Ok(rows.first().map(Progress::of).unwrap_or_default())
    }

    /// Returns the progress of every part that has begun.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn all_progress(&self, run: &str) -> Result<Vec<Progress>, Error> {
        Ok(self.all_run_entries(&name_of(run), "part").await?.iter().map(Progress::of).collect())
    }

    /// Writes the progress of a part and at most [`super::progress::MAX_FAILURES`] failures, all or
    /// none, if the part was written `page` times before. Returns whether it was.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn put_progress(
        &self,
        run: &str,
        part: &str,
        progress: &Progress,
        page: u64,
        failures: &[RunFailure],
        ttl: Option<Timestamp>,
    ) -> Result<bool, Error> {
        let condition = match page {
            0 => Condition::absent(),
            page => Condition::new("#page = :page")
                .named("#page", "page")
                .valued(":page", AttributeValue::N(page.to_string())),
        };
        let entry = |mut row: Row, entry: String| {
            row.insert("name".to_owned(), Attribute::Text(name_of(run)));
            row.insert("entry".to_owned(), Attribute::Text(entry));
            row.extend(ttl.map(|ttl| ("ttl".to_owned(), seconds(ttl))));
            item_of(row)
        };
        let mut transaction = Transaction::default();
        let item = entry(progress.to_row(), format!("part#{part}"));
        transaction.put(WriteLabel::Progress, &self.table, item, Some(condition));
        for failure in failures {
            let item = entry(failure.to_row(), failure.entry());
            transaction.put(WriteLabel::RunEntry, &self.table, item, None);
        }
        Ok(self.commit(&transaction).await? == Committed::Done)
    }

    /// Returns those failures that a run has not recorded yet, each once.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn unrecorded(
        &self,
        run: &str,
        failures: Vec<RunFailure>,
    ) -> Result<Vec<RunFailure>, Error> {
        let mut each = BTreeMap::new();
        for failure in failures {
            each.entry(failure.entry()).or_insert(failure);
        }
        let name = &name_of(run);
        let unrecorded = iter(each).map(|(entry, failure)| async move {
            let recorded = self.run_entries(name, &entry, &entry, None, None).await?.0;
            Ok::<_, Error>(recorded.is_empty().then_some(failure))
        });
        unrecorded.buffered(16).try_filter_map(|failure| ready(Ok(failure))).try_collect().await
    }

    /// Reads a page of a run's failures. Returns the sort key of the last one as well if there may
    /// be more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn failures(
        &self,
        run: &str,
        after: Option<String>,
        limit: Option<i32>,
    ) -> Result<(Vec<RunFailure>, Option<String>), Error> {
        let name = name_of(run);
        let (rows, last) = self.run_entries(&name, FAILURE, "failure$", after, limit).await?;
        Ok((rows.iter().filter_map(RunFailure::of).collect(), last))
    }

    async fn all_run_entries(&self, name: &str, kind: &str) -> Result<Vec<Row>, Error> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (first, last) = (format!("{kind}#"), format!("{kind}$"));
            let (rows, more) = self.run_entries(name, &first, &last, after, None).await?;
            all.extend(rows);
            if more.is_none() {
                return Ok(all);
            }
            after = more;
        }
    }

    async fn run_entries(
        &self,
        name: &str,
        first: &str,
        last: &str,
        after: Option<String>,
        limit: Option<i32>,
    ) -> Result<(Vec<Row>, Option<String>), Error> {
        let query = self
            .entries(name, first, last)
            .set_limit(limit)
            .set_exclusive_start_key(after.map(|entry| key_item(name, entry)));
        let (items, last) = self.send(only(RUN, query)).await?;
        let last = last.as_ref().and_then(entry_of);
        Ok((items.into_iter().map(row_of).collect(), last))
    }
}

fn run_entry(action: &str) -> String {
    format!("run#{action}")
}

fn name_of(run: &str) -> String {
    format!("{RUNS}/{run}")
}

fn seconds(moment: Timestamp) -> Attribute {
    Attribute::Number(moment.unix().to_string())
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::{Client, Config};

    use super::super::condition::tests::clauses;
    use super::*;

    #[test]
    fn a_run_is_taken_over_only_as_it_was_read() {
        let config = Config::builder().behavior_version_latest().build();
        let ledger = Ledger::new(Client::from_conf(config), "ledger".to_owned());
        let before = Run {
            id: "one/7".to_owned(),
            execution: "one".to_owned(),
            taken_at: 0,
            request: Vec::new(),
            dry_run: false,
            parts: 1,
            token: None,
            started_at: Timestamp::from_unix_seconds(7).unwrap(),
            ended_at: None,
        };
        let mut transaction = Transaction::default();
        ledger.add_run(&mut transaction, "rewrap", &before, Some(&before));
        let put = transaction.writes()[0].put().unwrap();
        let said = clauses(put.condition_expression().unwrap(), put.expression_attribute_names());
        // A run that has ended since is not begun again.
        assert!(said.contains(&"attribute_not_exists(ended_at)".to_owned()), "{said:?}");
        assert!(said.iter().any(|clause| clause.starts_with("execution = ")), "{said:?}");
    }

    #[test]
    fn every_attribute_that_is_written_may_be_read() {
        let progress =
            Progress { progressed_at: Timestamp::from_unix_seconds(9), ..Progress::default() };
        assert!(progress.to_row().keys().all(|name| RUN.contains(&name.as_str())));
    }
}
