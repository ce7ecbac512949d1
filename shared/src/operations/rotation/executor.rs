//! The executor: plans the changes of some items, applies them, and reads items again that others
//! have changed.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::BoxFuture;
use futures_util::stream::{StreamExt, TryStreamExt, iter};

use crate::backoff::Backoff;
use crate::error::Error;

use super::action::Reason;
use super::checkpoint::Checkpoint;
use super::plan::{Applied, Item, Job, MAX_TRIES, Outcome, Plan, Planned, Rotation};
use super::tally::Tally;

/// How many items are planned or written at a time.
const AT_ONCE: usize = 16;

/// Changes some items. What an interrupted try at the same page has changed counts as changed.
/// Returns `None` if another execution has written the checkpoint.
pub(super) async fn execute<R: Rotation>(
    job: &Job<'_>,
    items: Vec<R::Item>,
    checkpoint: &mut Checkpoint<'_>,
) -> Result<Option<Tally>, Error> {
    let (mut tally, mut items, mut backoff) = (Tally::default(), items, Backoff::default());
    let inherited = checkpoint.uncounted().clone();
    for tries in 0..MAX_TRIES {
        if items.is_empty() {
            return Ok(Some(tally));
        }
        if tries > 0 {
            backoff.wait().await?;
        }
        let changes = plan_all::<R>(job, items, checkpoint, &mut tally).await?;
        if changes.is_empty() {
            return Ok(Some(tally));
        }
        let marks: BTreeSet<_> = changes.iter().map(|planned| planned.mark.clone()).collect();
        if !checkpoint.begin_changes(marks).await? {
            return Ok(None);
        }
        items = Vec::new();
        for Applied { item, mark, outcome } in apply_all::<R>(job, changes).await? {
            // A crossed item may turn out to be changed, if the response was lost.
            if outcome != Outcome::Crossed {
                checkpoint.count(&mark);
            }
            match outcome {
                Outcome::Changed => tally.changed += 1,
                // Begun by an interrupted try, and done by it since.
                Outcome::Skipped if inherited.contains(&mark) => tally.changed += 1,
                Outcome::Skipped => tally.skipped += 1,
                Outcome::Failed(reason) => tally.failures.push(item.failure(reason)),
                Outcome::Crossed => match R::reread(job, &item).await? {
                    Some(item) => items.push(item),
                    None => tally.skipped += 1,
                },
            }
        }
    }
    if items.is_empty() {
        return Ok(Some(tally));
    }
    if job.is_run {
        tally.failures.extend(items.iter().map(|item| item.failure(Reason::Moving)));
        return Ok(Some(tally));
    }
    Err(Error::Unavailable {
        message: "Others keep changing the same versions. Try again.".into(),
        source: "rows were changed at every try".into(),
    })
}

/// Plans all items, counts those that are not changed, and returns the changes.
async fn plan_all<R: Rotation>(
    job: &Job<'_>,
    items: Vec<R::Item>,
    checkpoint: &mut Checkpoint<'_>,
    tally: &mut Tally,
) -> Result<Vec<Planned<R>>, Error> {
    let plans: Vec<BoxFuture<'_, Result<_, Error>>> =
        items.into_iter().map(|item| plan_one::<R>(job, item)).collect();
    let plans: Vec<WithPlan<R>> = iter(plans).buffered(AT_ONCE).try_collect().await?;
    let mut changes = Vec::new();
    for (item, plan) in plans {
        match plan {
            // Begun, and interrupted before it was counted.
            Plan::Skip if checkpoint.count(&R::mark(&item, None)) => tally.changed += 1,
            Plan::Skip => tally.skipped += 1,
            Plan::Fail(reason) => tally.failures.push(item.failure(reason)),
            Plan::Change(_) if job.dry_run => tally.changed += 1,
            Plan::Change(change) => {
                let mark = R::mark(&item, Some(&change));
                changes.push(Planned { item, change, mark });
            }
        }
    }
    Ok(changes)
}

/// An item with its plan.
type WithPlan<R> = (<R as Rotation>::Item, Plan<<R as Rotation>::Change>);

fn plan_one<'a, R: Rotation>(
    job: &'a Job<'a>,
    item: R::Item,
) -> BoxFuture<'a, Result<WithPlan<R>, Error>> {
    Box::pin(async move {
        let plan = R::plan(job, &item).await;
        let plan = plan.or_else(|error| job.reason(error).map(Plan::Fail))?;
        Ok((item, plan))
    })
}

/// Applies all changes, those of one name one after the other.
async fn apply_all<R: Rotation>(
    job: &Job<'_>,
    changes: Vec<Planned<R>>,
) -> Result<Vec<Applied<R>>, Error> {
    let mut groups: BTreeMap<String, Vec<Planned<R>>> = BTreeMap::new();
    for planned in changes {
        groups.entry(planned.item.name().to_owned()).or_default().push(planned);
    }
    let groups: Vec<_> = groups.into_values().map(|group| R::apply(job, group)).collect();
    let applied: Vec<Vec<_>> = iter(groups).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(applied.into_iter().flatten().collect())
}
