//! The writing of resealed rows, with the event that records them.

use std::mem;

use crate::audit_chain::{ChainHead, EventKind, NewEvent};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::life::newest_after_rewrite;
use crate::name::Name;
use crate::row::Attribute;
use crate::store::location::Location;
use crate::store::scan::Stores;
use crate::store::transaction::{Committed, Transaction, WriteLabel};

use super::super::action::Reason;
use super::super::pad;
use super::super::plan::{Applied, Job, MAX_TRIES, Outcome, Planned};
use super::Reseal;
use super::earlier_form::{earlier_form, has_new_key};

/// How many rows of one name one transaction writes, earlier forms included: at most 3.2 MB.
const MAX_WRITTEN: usize = 8;

/// Applies the changes of one name: first the rows that stay where they are, then those that move to
/// their padded number.
pub(super) async fn apply(
    job: &Job<'_>,
    changes: Vec<Planned<Reseal>>,
) -> Result<Vec<Applied<Reseal>>, Error> {
    let (moved, in_place) = changes.into_iter().partition(|planned| {
        let number = planned.change.get("version").and_then(Attribute::text);
        number.is_some_and(|number| number != planned.item.label.as_str())
    });
    let mut applied = apply_in_place(job, in_place).await?;
    applied.extend(apply_padded(job, moved).await?);
    Ok(applied)
}

async fn apply_in_place(
    job: &Job<'_>,
    mut rows: Vec<Planned<Reseal>>,
) -> Result<Vec<Applied<Reseal>>, Error> {
    let mut applied = Vec::new();
    while !rows.is_empty() {
        let rest = rows.split_off(batch_len(&rows).max(1));
        let all: Vec<_> =
            rows.iter().map(|planned| (planned.item.clone(), planned.mark.clone())).collect();
        match write(job, rows).await {
            Ok(written) => applied.extend(written),
            Err(error) => {
                let outcome = Outcome::Failed(job.reason(error)?);
                let failed = all.into_iter();
                applied.extend(failed.map(|(item, mark)| Applied { item, mark, outcome }));
            }
        }
        rows = rest;
    }
    Ok(applied)
}

/// Moves rows to their padded numbers, the lowest first: a version may be padded only after those
/// below it. Behind a crossed one, the others wait.
async fn apply_padded(
    job: &Job<'_>,
    mut rows: Vec<Planned<Reseal>>,
) -> Result<Vec<Applied<Reseal>>, Error> {
    rows.sort_by_key(|planned| planned.item.label.number());
    let (mut applied, mut waiting) = (Vec::new(), false);
    for Planned { item, change, mark } in rows {
        let outcome = if waiting {
            Outcome::Crossed
        } else {
            let outcome = Box::pin(pad::apply(job, &item, &change)).await;
            outcome.or_else(|error| job.reason(error).map(Outcome::Failed))?
        };
        waiting = waiting || outcome == Outcome::Crossed;
        applied.push(Applied { item, mark, outcome });
    }
    Ok(applied)
}

/// Writes rows of one name and the event that records them, all or none. Leaves those out that are
/// no longer what was read.
async fn write(
    job: &Job<'_>,
    mut rows: Vec<Planned<Reseal>>,
) -> Result<Vec<Applied<Reseal>>, Error> {
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let name = Name::of_any_client(&first.item.name)?;
    let mut applied = Vec::new();
    let mut backoff = Backoff::default();
    for _ in 0..MAX_TRIES {
        if rows.is_empty() {
            break;
        }
        let head = job.stores.ledger.chain_head(&name).await?;
        let transaction = writes(job.stores, &rows, head.sequence + 1);
        let event = event(&head, &rows);
        match job.coffer.record(transaction, &name, &head, &event, job.caller).await {
            Ok(Committed::Done) => applied.extend(all(&mut rows, Outcome::Changed)),
            Ok(Committed::Refused(failed)) => {
                let (mut crossed, left) = split_crossed(rows, &failed);
                rows = left;
                applied.extend(all(&mut crossed, Outcome::Crossed));
                backoff.wait().await?;
            }
            Ok(Committed::Conflict) => backoff.wait().await?,
            // DynamoDB does not say which row is too large. One by one, it is the one.
            Err(Error::TooLarge(_)) if rows.len() > 1 => {
                for row in mem::take(&mut rows) {
                    applied.extend(Box::pin(write(job, vec![row])).await?);
                }
            }
            Err(Error::TooLarge(_)) => {
                applied.extend(all(&mut rows, Outcome::Failed(Reason::TooLarge)));
            }
            Err(error) => return Err(error),
        }
    }
    // Others keep writing the name.
    applied.extend(all(&mut rows, Outcome::Crossed));
    Ok(applied)
}

fn all(rows: &mut Vec<Planned<Reseal>>, outcome: Outcome) -> Vec<Applied<Reseal>> {
    let applied = |Planned { item, mark, .. }| Applied { item, mark, outcome };
    rows.drain(..).map(applied).collect()
}

/// Splits off the rows that are no longer what was read.
fn split_crossed(
    rows: Vec<Planned<Reseal>>,
    failed: &[WriteLabel],
) -> (Vec<Planned<Reseal>>, Vec<Planned<Reseal>>) {
    let (mut crossed, mut left) = (Vec::new(), Vec::new());
    for (index, row) in rows.into_iter().enumerate() {
        let list =
            if failed.contains(&WriteLabel::Version(index)) { &mut crossed } else { &mut left };
        list.push(row);
    }
    (crossed, left)
}

/// Returns the writes of the rows, then those of the earlier forms.
fn writes(stores: Stores<'_>, rows: &[Planned<Reseal>], sequence: u64) -> Transaction {
    let mut transaction = Transaction::default();
    for (index, Planned { item, change, .. }) in rows.iter().enumerate() {
        stores.reseal(&mut transaction, index, item, change.clone());
    }
    for (index, Planned { item, change, .. }) in rows.iter().enumerate() {
        if let Some(entry) = earlier_form(item, change, sequence) {
            stores.ledger.put_before_reseal(&mut transaction, index, entry);
        }
    }
    transaction
}

fn event(head: &ChainHead, rows: &[Planned<Reseal>]) -> NewEvent {
    let live = rows.iter().filter(|planned| planned.item.location == Location::Table);
    let live: Vec<_> = live.map(|planned| (planned.item.row(), &planned.change)).collect();
    NewEvent {
        kind: EventKind::Reseal,
        versions: rows.iter().map(|planned| planned.item.label.clone()).collect(),
        forced: false,
        state: head.state,
        recoverable_until: None,
        newest: newest_after_rewrite(head, live.iter().map(|(old, new)| (old, *new))),
    }
}

/// Returns how many of these rows one transaction writes.
fn batch_len(rows: &[Planned<Reseal>]) -> usize {
    let mut left = MAX_WRITTEN;
    let fits = |planned: &&Planned<Reseal>| {
        let writes = 1 + usize::from(has_new_key(&planned.item, &planned.change));
        let fits = writes <= left;
        left = left.saturating_sub(writes);
        fits
    };
    rows.iter().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::super::earlier_form::tests::{row, scanned};
    use super::*;

    #[test]
    fn a_transaction_has_room_for_the_earlier_forms() {
        let rows = |key: &str| -> Vec<_> {
            let planned = || Planned {
                item: scanned(Location::Table),
                change: row(key, "7"),
                mark: String::new(),
            };
            std::iter::repeat_with(planned).take(10).collect()
        };
        assert_eq!((batch_len(&rows("old")), batch_len(&rows("new")), batch_len(&[])), (8, 4, 0));
    }
}
