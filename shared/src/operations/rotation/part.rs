//! A part of a run, one step of the state machine at a time.

use tokio::time::{Duration, Instant};

use crate::error::Error;
use crate::store::ledger::Part;

use super::super::Coffer;
use super::super::legacy_hints::LegacyHints;
use super::checkpoint::Checkpoint;
use super::executor::execute;
use super::plan::{Job, Rotation};
use super::run::ExecutionId;

/// The most items of one page, which KMS does again after an interruption. If all of them fail, the
/// failures fit one transaction.
pub(super) const MAX_PAGE: i32 = 99;
const PAGE_TIME: Duration = Duration::from_secs(2);

/// A stage of a run. The second stage begins when all parts of the first are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Everything, where it is stored.
    All,
    /// What moved between the two tables meanwhile, and may have been missed.
    Moved,
}

impl Stage {
    /// Returns the stage as steps and entries of the ledger have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Moved => "moved",
        }
    }
}

impl std::str::FromStr for Stage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = [Self::All, Self::Moved].into_iter().find(|stage| stage.as_str() == text);
        found.ok_or(Error::invalid("`stage` must be all or moved."))
    }
}

/// A request to do a part of a run.
#[derive(Clone, Copy, Debug)]
pub struct PartStep {
    /// The stage.
    pub stage: Stage,
    /// The number of the part.
    pub number: u32,
    /// How long to work on it.
    pub time: Duration,
}

/// The status of a part after a step.
#[derive(Debug, serde::Serialize)]
pub struct PartStatus {
    /// Whether the part is done, or is no longer this execution's.
    pub done: bool,
}

impl Coffer {
    /// Does a part of a run until its time is over or it is done. A part that was interrupted
    /// continues at its checkpoint.
    ///
    /// # Errors
    /// [`Error::Unavailable`]. The next step continues.
    pub(super) async fn run_part<R: Rotation>(
        &self,
        execution: &ExecutionId,
        step: PartStep,
        request_id: &str,
    ) -> Result<PartStatus, Error> {
        let stores = self.stores()?;
        let PartStep { stage, number, time } = step;
        let until = Instant::now() + time;
        let caller = execution.caller(request_id);
        let (mut hints, mut began) = (LegacyHints::default(), false);
        let part_key = format!("{}#{number:03}", stage.as_str());
        loop {
            let run = stores.ledger.run(R::ACTION.as_str()).await?;
            // Otherwise another execution has taken the run over.
            let Some(run) = run.filter(|run| execution.owns(run)) else {
                return Ok(PartStatus { done: true });
            };
            let checkpoint = Checkpoint::read(stores.ledger, &run.id, &part_key).await?;
            if checkpoint.progress().done {
                return Ok(PartStatus { done: true });
            }
            if began && Instant::now() >= until {
                return Ok(PartStatus { done: false });
            }
            if !began {
                hints = LegacyHints::of_rows(&stores.ledger.hints(&run.id).await?);
                self.limit_rate(f64::from(run.parts), until);
                began = true;
            }
            let (dry_run, hints, caller) = (run.dry_run, &hints, &caller);
            let job = Job { coffer: self, stores, dry_run, hints, caller, is_run: true };
            let part = Part { number, of: run.parts };
            match stage {
                Stage::All => run_page::<R>(&job, part, checkpoint).await?,
                Stage::Moved => R::recheck(&job, &run, part, checkpoint, until).await?,
            }
        }
    }

    /// Limits the rate of KMS requests to the share of one part.
    fn limit_rate(&self, parts: f64, until: Instant) {
        if let Ok(keys) = self.keys() {
            let rate = f64::from(self.options.kms_requests_per_second);
            keys.rate_limit().set(rate / parts, until);
        }
    }

    /// Limits the rate of KMS requests of a call about one name.
    pub(super) fn limit_rate_of_one(&self) {
        self.limit_rate(1.0, Instant::now());
    }

    /// Returns the number of KMS requests that the current rate allows for in two seconds: the size
    /// of a page.
    pub(super) fn page_limit(&self) -> i32 {
        let calls = self.keys().map_or(None, |keys| keys.rate_limit().calls_within(PAGE_TIME));
        calls.map_or(MAX_PAGE, |calls| i32::try_from(calls).unwrap_or(i32::MAX)).clamp(1, MAX_PAGE)
    }
}

/// Does one page of the first stage.
async fn run_page<R: Rotation>(
    job: &Job<'_>,
    part: Part,
    mut checkpoint: Checkpoint<'_>,
) -> Result<(), Error> {
    let limit = job.coffer.page_limit();
    let page = R::list_page(job, part, checkpoint.progress(), limit).await?;
    let Some(tally) = execute::<R>(job, page.items, &mut checkpoint).await? else { return Ok(()) };
    checkpoint.finish_page(tally, page.next, page.last_location).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::progress::MAX_FAILURES;

    #[test]
    fn the_failures_of_a_page_fit_one_transaction() {
        assert!(usize::try_from(MAX_PAGE).unwrap() <= MAX_FAILURES);
    }
}
