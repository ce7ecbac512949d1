//! Runs over the whole stack in the ledger: which one is in force, how far each of its parts is,
//! and what it could not do.
//!
//! | `name` | `entry` | what |
//! |---|---|---|
//! | `/rotation` | `run#ACTION` | the run in force, or the last one |
//! | `/rotation/RUN` | `hint#…` | a context or dialect that it was given |
//! | `/rotation/RUN` | `part#STAGE#NUMBER` | how far a part is, and what it has counted |
//! | `/rotation/RUN` | `failure#…` | a version that was left as it is, and why |
//!
//! No secret that Coffer puts has a name that begins with a slash.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;

use futures_util::stream::{StreamExt, TryStreamExt, iter};

use crate::backoff::Backoff;
use crate::digest;
use crate::error::Error;
use crate::moment::Moment;
use crate::name::Label;
use crate::row::{Attribute, Row};

use super::scan::Location;
use super::transaction::{Committed, Transaction};
use super::{Key, Store, row_of};

/// Under which name the runs in force lie.
const RUNS: &str = "/rotation";

/// How many failures are noted at a time: with the progress, as many as a transaction has writes.
pub const MOST_FAILURES: usize = Transaction::MAX_WRITES - 1;

/// What the sort key of everything begins with that a run could not do.
pub const FAILURE: &str = "failure#";

/// The attributes of all these entries: what may be read by those who report on runs.
const RUN: &[&str] = &[
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

/// A run: what was asked for, and who works on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What tells it from every other run.
    pub id: String,
    /// The execution that works on it now.
    pub execution: String,
    /// When that one was started, in unix milliseconds.
    pub taken_at: u64,
    /// A hash of what was asked for.
    pub request: Vec<u8>,
    /// Whether nothing is written.
    pub dry_run: bool,
    /// In how many parts each stage is done.
    pub parts: u32,
    /// What the start was that it was begun or taken over with, so that it counts once.
    pub token: Option<String>,
    /// When it was begun.
    pub started_at: Moment,
    /// When it was over.
    pub ended_at: Option<Moment>,
}

impl Run {
    fn of(row: &Row) -> Option<Self> {
        let text = |name: &str| row.get(name).and_then(Attribute::text).map(str::to_owned);
        let moment = |name: &str| row.get(name)?.integer().and_then(Moment::from_unix);
        Some(Self {
            id: text("run")?,
            execution: text("execution")?,
            taken_at: {
                let taken_at = row.get("taken_at").and_then(Attribute::integer);
                taken_at.and_then(|at| at.try_into().ok()).unwrap_or(0)
            },
            request: row.get("request")?.bytes()?.to_vec(),
            dry_run: row.get("dry_run").is_some_and(Attribute::is_set),
            parts: u32::try_from(row.get("parts")?.integer()?).ok()?,
            token: text("token"),
            started_at: moment("started_at")?,
            ended_at: moment("ended_at"),
        })
    }

    fn to_row(&self, action: &str) -> Row {
        let mut row = Row::from([
            ("name".to_owned(), text(RUNS)),
            ("entry".to_owned(), text(&place(action))),
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

/// How far a part of a run is. Written once for each page, under the condition that nobody else
/// has written it since it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many times it was written.
    pub page: u64,
    /// Where it goes on.
    pub home: Option<Location>,
    /// The last key that is done.
    pub after: Option<Key>,
    /// Marks of what the page that is being done changes, from before any of it is written.
    pub marks: BTreeSet<String>,
    /// Versions seen.
    pub seen: u64,
    /// Of these, changed.
    pub changed: u64,
    /// Of these, left because there was nothing to change.
    pub skipped: u64,
    /// How many were left as they are, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Whether nothing is left to do.
    pub done: bool,
    /// When it was written last; none for what an earlier release wrote.
    pub progressed_at: Option<Moment>,
}

impl Progress {
    fn of(row: &Row) -> Self {
        let count = |name: &str| {
            let count = row.get(name).and_then(Attribute::integer);
            count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
        };
        let text = |name: &str| row.get(name).and_then(Attribute::text).map(str::to_owned);
        let after = text("after_name").zip(text("after_sort"));
        Self {
            page: count("page"),
            home: text("home").as_deref().and_then(Location::named),
            after: after.map(|(name, version)| Key { name, version }),
            marks: row.get("marks").and_then(Attribute::members).cloned().unwrap_or_default(),
            seen: count("seen"),
            changed: count("changed"),
            skipped: count("skipped"),
            failed: {
                let pairs = row.get("failed").and_then(Attribute::map).into_iter().flatten();
                let count = |(reason, count): (&String, &String)| {
                    Some((reason.clone(), count.parse().ok()?))
                };
                pairs.filter_map(count).collect()
            },
            done: row.get("done").is_some_and(Attribute::is_set),
            progressed_at: {
                let at = row.get("progressed_at").and_then(Attribute::integer);
                at.and_then(Moment::from_unix)
            },
        }
    }

    fn to_row(&self, run: &str, part: &str, ttl: Option<Moment>) -> Row {
        let mut row = Row::from([
            ("name".to_owned(), text(&name_of(run))),
            ("entry".to_owned(), text(&format!("part#{part}"))),
            ("page".to_owned(), number(self.page)),
            ("seen".to_owned(), number(self.seen)),
            ("changed".to_owned(), number(self.changed)),
            ("skipped".to_owned(), number(self.skipped)),
            ("done".to_owned(), Attribute::Flag(self.done)),
        ]);
        if !self.failed.is_empty() {
            let counts = self.failed.iter().map(|(reason, n)| (reason.clone(), n.to_string()));
            row.insert("failed".to_owned(), Attribute::Map(counts.collect()));
        }
        row.extend(self.home.map(|home| ("home".to_owned(), text(home.as_str()))));
        if let Some(Key { name, version }) = &self.after {
            row.insert("after_name".to_owned(), text(name));
            row.insert("after_sort".to_owned(), text(version));
        }
        if !self.marks.is_empty() {
            row.insert("marks".to_owned(), Attribute::Set(self.marks.clone()));
        }
        row.extend(self.progressed_at.map(|at| ("progressed_at".to_owned(), seconds(at))));
        row.extend(ttl.map(|ttl| ("ttl".to_owned(), seconds(ttl))));
        row
    }
}

/// A version that a run left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFailure {
    /// The name of the secret.
    pub name: String,
    /// The version; none where it is about the name.
    pub label: Option<Label>,
    /// Where it lies.
    pub home: Location,
    /// What tells it from others of its name and version, wherever it lies.
    pub mark: Vec<u8>,
    /// Why.
    pub reason: String,
}

impl RunFailure {
    /// The sort key of its entry: the same for the same version, also when that has been deleted or
    /// restored meanwhile, so that it is told of once.
    fn entry(&self) -> String {
        let label = self.label.as_ref().map_or("", Label::as_str);
        let hash = digest::of_parts([self.name.as_bytes(), label.as_bytes(), &self.mark]);
        format!("{FAILURE}{}", hex::encode(hash))
    }

    fn of(row: &Row) -> Option<Self> {
        let text = |name: &str| row.get(name).and_then(Attribute::text).map(str::to_owned);
        Some(Self {
            name: text("secret")?,
            label: text("version").map(Label::stored),
            home: Location::named(&text("home")?).unwrap_or(Location::Table),
            mark: Vec::new(),
            reason: text("reason")?,
        })
    }

    fn to_row(&self, run: &str, ttl: Option<Moment>) -> Row {
        let mut row = Row::from([
            ("name".to_owned(), text(&name_of(run))),
            ("entry".to_owned(), text(&self.entry())),
            ("secret".to_owned(), text(&self.name)),
            ("home".to_owned(), text(self.home.as_str())),
            ("reason".to_owned(), text(&self.reason)),
        ]);
        let label = self.label.as_ref().filter(|label| !label.as_str().is_empty());
        row.extend(label.map(|label| ("version".to_owned(), text(label.as_str()))));
        row.extend(ttl.map(|ttl| ("ttl".to_owned(), seconds(ttl))));
        row
    }
}

impl Store {
    /// The run of this action that is in force, or was the last one, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn run(&self, action: &str) -> Result<Option<Run>, Error> {
        let rows = self.run_entries(RUNS, &place(action), &place(action), None, None).await?.0;
        Ok(rows.first().and_then(Run::of))
    }

    /// Puts a run in force, if the one that is there is still `before`; whether it was.
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
        let before = before.map(|run| run.to_row(action));
        transaction.put_run(self, run.to_row(action), before.as_ref());
        Ok(self.commit(transaction).await? == Committed::Done)
    }

    /// Keeps what a run was given, by the order of `hints`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn put_hints(
        &self,
        run: &str,
        hints: Vec<Row>,
        ttl: Option<Moment>,
    ) -> Result<(), Error> {
        let rows = hints.into_iter().enumerate().map(|(index, mut row)| {
            row.insert("name".to_owned(), text(&name_of(run)));
            row.insert("entry".to_owned(), text(&format!("hint#{index:04}")));
            row.extend(ttl.map(|ttl| ("ttl".to_owned(), seconds(ttl))));
            row
        });
        let rows: Vec<Row> = rows.collect();
        for rows in rows.chunks(Transaction::MAX_WRITES) {
            let mut transaction = Transaction::default();
            for row in rows {
                transaction.put_over(self, row.clone());
            }
            // Another writes the very same.
            let mut backoff = Backoff::default();
            while self.commit(transaction.clone()).await? == Committed::Conflict {
                backoff.wait().await?;
            }
        }
        Ok(())
    }

    /// What a run was given.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn hints(&self, run: &str) -> Result<Vec<Row>, Error> {
        self.all_entries(&name_of(run), "hint").await
    }

    /// How far a part is; not begun if nothing is known.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn progress(&self, run: &str, part: &str) -> Result<Progress, Error> {
        let entry = format!("part#{part}");
        let rows = self.run_entries(&name_of(run), &entry, &entry, None, None).await?.0;
        Ok(rows.first().map(Progress::of).unwrap_or_default())
    }

    /// How far all parts are that were begun.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn all_progress(&self, run: &str) -> Result<Vec<Progress>, Error> {
        Ok(self.all_entries(&name_of(run), "part").await?.iter().map(Progress::of).collect())
    }

    /// Notes how far a part is, one page on, and what it has left, both or neither, if it is still
    /// where `progress` was read; whether it was. `progress` counts on then. At most
    /// [`MOST_FAILURES`] at a time.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn advance(
        &self,
        run: &str,
        part: &str,
        progress: &mut Progress,
        failures: &[RunFailure],
        ttl: Option<Moment>,
    ) -> Result<bool, Error> {
        let before = progress.page;
        progress.page += 1;
        progress.progressed_at = Some(Moment::now());
        let mut transaction = Transaction::default();
        transaction.put_progress(self, progress.to_row(run, part, ttl), before);
        for failure in failures {
            transaction.put_over(self, failure.to_row(run, ttl));
        }
        Ok(self.commit(transaction).await? == Committed::Done)
    }

    /// Those of some failures that a run has not told of yet, each once.
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
            let told = self.run_entries(name, &entry, &entry, None, None).await?.0;
            Ok::<_, Error>(told.is_empty().then_some(failure))
        });
        unrecorded.buffered(16).try_filter_map(|failure| ready(Ok(failure))).try_collect().await
    }

    /// A page of what a run could not do, and the sort key of the last one if there may be more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn failures(
        &self,
        run: &str,
        after: Option<String>,
        limit: Option<i32>,
    ) -> Result<(Vec<RunFailure>, Option<String>), Error> {
        let (rows, last) =
            self.run_entries(&name_of(run), FAILURE, "failure$", after, limit).await?;
        Ok((rows.iter().filter_map(RunFailure::of).collect(), last))
    }

    async fn all_entries(&self, name: &str, kind: &str) -> Result<Vec<Row>, Error> {
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
            .set_exclusive_start_key(after.map(|entry| super::ledger::place(name, entry)));
        let (items, last) = self.send_ledger(super::ledger::only(RUN, query)).await?;
        let last = last.as_ref().and_then(super::ledger::entry_of);
        Ok((items.into_iter().map(row_of).collect(), last))
    }
}

fn place(action: &str) -> String {
    format!("run#{action}")
}

fn name_of(run: &str) -> String {
    format!("{RUNS}/{run}")
}

fn text(text: &str) -> Attribute {
    Attribute::Text(text.to_owned())
}

fn number(number: u64) -> Attribute {
    Attribute::Number(number.to_string())
}

fn seconds(moment: Moment) -> Attribute {
    Attribute::Number(moment.unix().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_comes_back_as_it_was_written_with_its_time() {
        let progress = Progress {
            page: 3,
            home: Some(Location::Ledger),
            seen: 7,
            progressed_at: Moment::from_unix(9),
            ..Progress::default()
        };
        let row = progress.to_row("run", "all#000", None);
        assert_eq!(Progress::of(&row), progress);
        // What an earlier release wrote says nothing of it.
        let older = Row::from([("page".to_owned(), number(3))]);
        assert_eq!(Progress::of(&older).progressed_at, None);
        // What is written is also read: the roles allow no other attribute.
        assert!(row.keys().all(|name| RUN.contains(&name.as_str())), "{row:?}");
    }
}
