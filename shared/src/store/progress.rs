//! The progress of a part of a run, and the versions that a run did not change.

use std::collections::{BTreeMap, BTreeSet};

use crate::hash;
use crate::name::VersionKey;
use crate::row::{Attribute, Row};
use crate::timestamp::Timestamp;

use super::item::Key;
use super::location::Location;
use super::transaction::Transaction;

/// The most failures that are written at once: a transaction has room for these and the progress.
pub const MAX_FAILURES: usize = Transaction::MAX_WRITES - 1;

/// The prefix of the sort key of every failure.
pub const FAILURE: &str = "failure#";

/// The progress of a part of a run. It is written once for each page, on the condition that nobody
/// else has written it since it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many times it was written.
    pub page: u64,
    /// Where the part continues.
    pub location: Option<Location>,
    /// The last key that is done.
    pub after: Option<Key>,
    /// Marks of the changes of the current page, written before any of the changes.
    pub marks: BTreeSet<String>,
    /// How many versions were seen.
    pub seen: u64,
    /// How many of these were changed.
    pub changed: u64,
    /// How many of these needed no change.
    pub skipped: u64,
    /// How many were not changed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Whether the part is done.
    pub done: bool,
    /// When it was last written; `None` if an earlier release wrote it.
    pub progressed_at: Option<Timestamp>,
}

impl Progress {
    pub(super) fn of(row: &Row) -> Self {
        let count = |name: &str| {
            let count = row.get(name).and_then(Attribute::integer);
            count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
        };
        let text = |name: &str| row.get(name).and_then(Attribute::text).map(str::to_owned);
        let after = text("after_name").zip(text("after_sort"));
        let failed = row.get("failed").and_then(Attribute::map).into_iter().flatten();
        let failed =
            failed.filter_map(|(reason, count)| Some((reason.clone(), count.parse().ok()?)));
        let progressed_at = row.get("progressed_at").and_then(Attribute::integer);
        Self {
            page: count("page"),
            location: text("home").as_deref().and_then(Location::named),
            after: after.map(|(name, version)| Key { name, version }),
            marks: row.get("marks").and_then(Attribute::members).cloned().unwrap_or_default(),
            seen: count("seen"),
            changed: count("changed"),
            skipped: count("skipped"),
            failed: failed.collect(),
            done: row.get("done").is_some_and(Attribute::is_set),
            progressed_at: progressed_at.and_then(Timestamp::from_unix_seconds),
        }
    }

    /// Writes everything except the key and the end.
    pub(super) fn to_row(&self) -> Row {
        let number = |number: u64| Attribute::Number(number.to_string());
        let text = |text: &str| Attribute::Text(text.to_owned());
        let mut row = Row::from([
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
        row.extend(self.location.map(|location| ("home".to_owned(), text(location.as_str()))));
        if let Some(Key { name, version }) = &self.after {
            row.insert("after_name".to_owned(), text(name));
            row.insert("after_sort".to_owned(), text(version));
        }
        if !self.marks.is_empty() {
            row.insert("marks".to_owned(), Attribute::Set(self.marks.clone()));
        }
        let at = self.progressed_at.map(|at| Attribute::Number(at.unix().to_string()));
        row.extend(at.map(|at| ("progressed_at".to_owned(), at)));
        row
    }
}

/// A version or policy that a run did not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFailure {
    /// The name of the secret.
    pub name: String,
    /// The version; `None` if the failure is about the whole name.
    pub label: Option<VersionKey>,
    /// Where the version is stored.
    pub location: Location,
    /// Separates it from other rows of its name and version, wherever they are stored.
    pub mark: Vec<u8>,
    /// Why it was not changed.
    pub reason: String,
}

impl RunFailure {
    /// Returns the sort key of the entry: the same for the same version, also after a delete or a
    /// restore, so that it is recorded once.
    pub(super) fn entry(&self) -> String {
        let label = self.label.as_ref().map_or("", VersionKey::as_str);
        let hash = hash::of_parts([self.name.as_bytes(), label.as_bytes(), &self.mark]);
        format!("{FAILURE}{}", hex::encode(hash))
    }

    pub(super) fn of(row: &Row) -> Option<Self> {
        let text = |name: &str| row.get(name).and_then(Attribute::text).map(str::to_owned);
        Some(Self {
            name: text("secret")?,
            label: text("version").map(VersionKey::stored),
            location: Location::named(&text("home")?).unwrap_or(Location::Table),
            mark: Vec::new(),
            reason: text("reason")?,
        })
    }

    /// Writes everything except the key and the end.
    pub(super) fn to_row(&self) -> Row {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let mut row = Row::from([
            ("secret".to_owned(), text(&self.name)),
            ("home".to_owned(), text(self.location.as_str())),
            ("reason".to_owned(), text(&self.reason)),
        ]);
        let label = self.label.as_ref().filter(|label| !label.as_str().is_empty());
        row.extend(label.map(|label| ("version".to_owned(), text(label.as_str()))));
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_as_it_was_written() {
        let progress = Progress {
            page: 3,
            location: Some(Location::Ledger),
            seen: 7,
            progressed_at: Timestamp::from_unix_seconds(9),
            ..Progress::default()
        };
        assert_eq!(Progress::of(&progress.to_row()), progress);
        // An earlier release did not write the time.
        let older = Row::from([("page".to_owned(), Attribute::Number("3".to_owned()))]);
        assert_eq!(Progress::of(&older).progressed_at, None);
    }
}
