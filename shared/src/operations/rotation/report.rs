//! The report of a run, or of a rotation of one name.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::name::VersionKey;
use crate::store::item::Key;
use crate::store::location::Location;
use crate::store::progress::{FAILURE, Progress, RunFailure};
use crate::store::runs::Run;
use crate::timestamp::Timestamp;

use super::super::Coffer;
use super::super::errors::invalid_next;
use super::action::Action;
use super::checkpoint::KEPT_SECONDS;
use super::tally::Tally;

/// The most failures in the output of an execution, which has at most 256 KiB.
pub(super) const MAX_FAILURES_AT_END: u32 = 50;

/// A report.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    /// The action.
    pub action: &'static str,
    /// The id of the run; `None` for one name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// `running`, `done`, or `replaced` by another start; `None` for one name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// When the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the progress of the run was last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progressed_at: Option<Timestamp>,
    /// When the run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How many versions or policies were seen.
    pub seen: u64,
    /// How many of these were changed or, in a dry run, would be.
    pub changed: u64,
    /// How many of these needed no change.
    pub skipped: u64,
    /// How many of these were not changed for a reason.
    pub failed: u64,
    /// How many, for each reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, u64>,
    /// A page of those that were not changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailedItem>,
    /// Where the failures, or the rotation of one name, continue; `None` at the end.
    #[serde(skip)]
    pub next: Option<Key>,
}

/// A version or policy that was not changed.
#[derive(Debug, serde::Serialize)]
pub struct FailedItem {
    /// The name of the secret.
    pub name: String,
    /// The version; `None` for a policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionKey>,
    /// True for a deleted version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
    /// The reason.
    pub reason: String,
}

impl From<RunFailure> for FailedItem {
    fn from(failure: RunFailure) -> Self {
        let RunFailure { name, label, location, reason, .. } = failure;
        let deleted = (location == Location::Ledger).then_some(true);
        Self { name, version: label, deleted, reason }
    }
}

impl Report {
    /// Creates the report of a rotation of one name.
    pub(super) fn of_name(action: Action, dry_run: bool) -> Self {
        Self {
            action: action.as_str(),
            run: None,
            state: None,
            dry_run,
            started_at: None,
            progressed_at: None,
            ended_at: None,
            seen: 0,
            changed: 0,
            skipped: 0,
            failed: 0,
            reasons: BTreeMap::new(),
            failures: Vec::new(),
            next: None,
        }
    }

    pub(super) fn add(&mut self, tally: Tally) {
        let failed = tally.failures.len() as u64;
        self.seen += tally.changed + tally.skipped + failed;
        self.changed += tally.changed;
        self.skipped += tally.skipped;
        self.failed += failed;
        for failure in tally.failures {
            *self.reasons.entry(failure.reason.clone()).or_default() += 1;
            self.failures.push(failure.into());
        }
    }
}

impl Coffer {
    /// Returns the report of the run of an action that is in force, or of the last one, with a page
    /// of its failures.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there was no run; [`Error::Invalid`] for an invalid cursor;
    /// [`Error::Unavailable`].
    pub(in super::super) async fn report(
        &self,
        action: Action,
        after: Option<Key>,
        limit: u32,
    ) -> Result<Report, Error> {
        let run = self.ledger()?.run(action.as_str()).await?;
        let kept = |run: &Run| run.started_at.after(KEPT_SECONDS) > Some(Timestamp::now());
        self.report_of(action, run.filter(kept).ok_or_else(no_run)?, after, limit).await
    }

    pub(super) async fn report_of(
        &self,
        action: Action,
        run: Run,
        after: Option<Key>,
        limit: u32,
    ) -> Result<Report, Error> {
        let ledger = self.ledger()?;
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let after = after.map(|key| key.version);
        if after.as_ref().is_some_and(|entry| !entry.starts_with(FAILURE)) {
            return Err(invalid_next());
        }
        let (parts, (failures, last)) = tokio::try_join!(
            ledger.all_progress(&run.id),
            ledger.failures(&run.id, after, Some(limit))
        )?;
        let sum = |of: fn(&Progress) -> u64| parts.iter().map(of).sum::<u64>();
        let mut reasons = BTreeMap::new();
        for (reason, count) in parts.iter().flat_map(|part| &part.failed) {
            *reasons.entry(reason.clone()).or_default() += count;
        }
        Ok(Report {
            action: action.as_str(),
            state: Some(if run.ended_at.is_some() { "done" } else { "running" }),
            dry_run: run.dry_run,
            started_at: Some(run.started_at),
            progressed_at: parts.iter().filter_map(|part| part.progressed_at).max(),
            ended_at: run.ended_at,
            seen: sum(|part| part.seen),
            changed: sum(|part| part.changed),
            skipped: sum(|part| part.skipped),
            failed: reasons.values().sum(),
            reasons,
            failures: failures.into_iter().map(FailedItem::from).collect(),
            next: last.map(|version| Key { name: action.as_str().to_owned(), version }),
            run: Some(run.id),
        })
    }
}

fn no_run() -> Error {
    Error::NotFound(
        "There was no such run within 90 days. Start the state machine with this `action`.".into(),
    )
}
