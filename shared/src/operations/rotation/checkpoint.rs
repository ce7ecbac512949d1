//! The checkpoint of a part of a run: its progress, and marks of the changes that have begun.
//!
//! Before the changes of a page are written, their marks are. If the page is interrupted and done
//! again, an item with such a mark needs no change any more and counts as changed.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::store::item::Key;
use crate::store::ledger::Ledger;
use crate::store::location::Location;
use crate::store::progress::{MAX_FAILURES, Progress, RunFailure};
use crate::timestamp::Timestamp;

use super::super::DAY_SECONDS;
use super::tally::Tally;

/// How long a run is kept.
pub(super) const KEPT_SECONDS: u64 = 90 * DAY_SECONDS;

/// Returns when the entries of a run are removed.
pub(super) fn end_of_run() -> Option<Timestamp> {
    Timestamp::now().after(KEPT_SECONDS)
}

/// The progress of a part and the marks of its changes.
pub struct Checkpoint<'a> {
    stored: Option<Stored<'a>>,
    progress: Progress,
    /// The marks of changes that have begun and are not counted yet.
    uncounted: BTreeSet<String>,
}

/// Where a checkpoint is stored.
struct Stored<'a> {
    ledger: &'a Ledger,
    run: &'a str,
    part: &'a str,
}

impl<'a> Checkpoint<'a> {
    /// Creates a checkpoint that is not stored.
    pub(super) fn in_memory() -> Self {
        Self { stored: None, progress: Progress::default(), uncounted: BTreeSet::new() }
    }

    /// Reads the checkpoint of a part.
    pub(super) async fn read(
        ledger: &'a Ledger,
        run: &'a str,
        part: &'a str,
    ) -> Result<Self, Error> {
        let progress = ledger.progress(run, part).await?;
        let uncounted = progress.marks.clone();
        Ok(Self { stored: Some(Stored { ledger, run, part }), progress, uncounted })
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns the marks of changes that have begun and are not counted yet.
    pub(super) fn uncounted(&self) -> &BTreeSet<String> {
        &self.uncounted
    }

    /// Removes a mark from the uncounted ones. Returns whether it was one of them.
    pub(super) fn count(&mut self, mark: &str) -> bool {
        self.uncounted.remove(mark)
    }

    /// Writes the marks of changes that begin now. Returns false if another execution has written
    /// the checkpoint.
    pub(super) async fn begin_changes(&mut self, marks: BTreeSet<String>) -> Result<bool, Error> {
        self.uncounted.extend(marks.iter().cloned());
        self.progress.marks.extend(marks);
        self.write(&[]).await
    }

    /// Writes the progress of a page of the first stage. If another execution was first, its
    /// progress stays, and is read next.
    pub(super) async fn finish_page(
        &mut self,
        tally: Tally,
        next: Option<Key>,
        last_location: bool,
    ) -> Result<(), Error> {
        let failures = self.unrecorded(tally.failures).await?;
        let progress = &mut self.progress;
        progress.seen += tally.changed + tally.skipped;
        progress.changed += tally.changed;
        progress.skipped += tally.skipped;
        count_failures(progress, &failures);
        // If the page is not the interrupted one, the rest of that is still to come.
        progress.marks = std::mem::take(&mut self.uncounted);
        progress.after = next;
        if progress.after.is_none() {
            progress.done = last_location;
            progress.location = Some(Location::Ledger);
        }
        self.write(&failures).await.map(drop)
    }

    /// Writes the progress of the second stage after a name. Only what the first stage missed is
    /// counted. Returns false if another execution has written the checkpoint.
    pub(super) async fn finish_name(&mut self, tally: Tally, last: Key) -> Result<bool, Error> {
        // The first stage has recorded most of the failures.
        let failures = self.unrecorded(tally.failures).await?;
        let mut left = failures.as_slice();
        while let Some((some, rest)) = left.split_at_checked(MAX_FAILURES) {
            count_failures(&mut self.progress, some);
            if !self.write(some).await? {
                return Ok(false);
            }
            left = rest;
        }
        count_failures(&mut self.progress, left);
        self.progress.seen += tally.changed;
        self.progress.changed += tally.changed;
        self.progress.marks.clone_from(&self.uncounted);
        self.progress.after = Some(last);
        self.write(left).await
    }

    /// Writes the progress of the second stage after a page of names.
    pub(super) async fn finish_names(&mut self, next: Option<Key>) -> Result<(), Error> {
        self.progress.done = next.is_none();
        self.progress.after = next;
        self.write(&[]).await.map(drop)
    }

    async fn unrecorded(&self, failures: Vec<RunFailure>) -> Result<Vec<RunFailure>, Error> {
        match &self.stored {
            Some(Stored { ledger, run, .. }) => ledger.unrecorded(run, failures).await,
            None => Ok(failures),
        }
    }

    async fn write(&mut self, failures: &[RunFailure]) -> Result<bool, Error> {
        let Some(Stored { ledger, run, part }) = &self.stored else { return Ok(true) };
        let before = self.progress.page;
        self.progress.page += 1;
        self.progress.progressed_at = Some(Timestamp::now());
        ledger.put_progress(run, part, &self.progress, before, failures, end_of_run()).await
    }
}

fn count_failures(progress: &mut Progress, failures: &[RunFailure]) {
    progress.seen += failures.len() as u64;
    for failure in failures {
        *progress.failed.entry(failure.reason.clone()).or_default() += 1;
    }
}
