//! The second stage of a part: names of which a version moved since the run began are done again,
//! each as a whole.

use tokio::time::Instant;

use crate::audit_chain::{self, EventKind};
use crate::error::Error;
use crate::name::Name;
use crate::row::{Attribute, Row};
use crate::store::item::Key;
use crate::store::ledger::{Ledger, Part};
use crate::store::location::Location;
use crate::store::runs::Run;
use crate::timestamp::Timestamp;

use super::action::Reason;
use super::checkpoint::Checkpoint;
use super::executor::execute;
use super::plan::{Job, failure_of_name};
use super::run::CLOCK_SECONDS;
use super::tally::Tally;
use super::version_rotation::{VersionRotation, within_requests};

/// How many reads of the ledger there are for one page. Most entries are not moves.
const MAX_READS: u32 = 8;
/// How often all versions of a name are done again while others move them.
const MAX_PASSES: u32 = 5;

/// Does one page of the second stage.
pub(super) async fn recheck<V: VersionRotation>(
    job: &Job<'_>,
    run: &Run,
    part: Part,
    mut checkpoint: Checkpoint<'_>,
    until: Instant,
) -> Result<(), Error> {
    let ledger = job.stores.ledger;
    // An event from before the run may belong to a later transaction: its call was tried again, or
    // another clock was behind.
    let since = run.started_at.unix() - CLOCK_SECONDS;
    let since = Timestamp::from_unix_seconds(since).unwrap_or(run.started_at);
    let (mut keys, mut next) = (Vec::new(), resume_key(checkpoint.progress().after.clone()));
    for _ in 0..MAX_READS {
        let limit = job.coffer.page_limit() * 10;
        (keys, next) = ledger.events_since(V::MOVED_BY, since, part, next, limit).await?;
        if next.is_none() || !keys.is_empty() {
            break;
        }
    }
    for last in last_of_each(keys) {
        let recheck = recheck_name::<V>(job, &last.name, &mut checkpoint, until).await?;
        let Some(tally) = recheck else { return Ok(()) };
        // The part continues behind the events of the name that were found, at a key that the scan
        // returned: DynamoDB need not accept any other in a part. Later events of the name are
        // found again, and then nothing is left to do for it.
        if !checkpoint.finish_name(tally, last).await? || Instant::now() >= until {
            return Ok(());
        }
    }
    checkpoint.finish_names(next).await
}

/// Does all versions of a name, again until none of them moved meanwhile, up to [`MAX_PASSES`]
/// times. Returns `None` if another execution has written the checkpoint.
async fn recheck_name<V: VersionRotation>(
    job: &Job<'_>,
    text: &str,
    checkpoint: &mut Checkpoint<'_>,
    until: Instant,
) -> Result<Option<Tally>, Error> {
    let ledger = job.stores.ledger;
    let name = Name::of_any_client(text)?;
    let (mut changed, mut failures) = (0, Vec::new());
    for _ in 0..MAX_PASSES {
        let before = match ledger.chain_head(&name).await {
            Ok(head) => head,
            Err(Error::UnreadableChain) => {
                let failures = vec![failure_of_name(text, Reason::UnreadableChain)];
                return Ok(Some(Tally { changed, failures, ..Tally::default() }));
            }
            Err(error) => return Err(error),
        };
        failures.clear();
        for location in [Location::Table, Location::Ledger] {
            let tally = change_all::<V>(job, location, text, checkpoint).await?;
            let Some(tally) = tally else { return Ok(None) };
            changed += tally.changed;
            failures.extend(tally.failures);
        }
        if !has_moved(ledger, V::MOVED_BY, &name, before.sequence).await? {
            return Ok(Some(Tally { changed, failures, ..Tally::default() }));
        }
        if Instant::now() >= until {
            break;
        }
    }
    failures.push(failure_of_name(text, Reason::Moving));
    Ok(Some(Tally { changed, failures, ..Tally::default() }))
}

/// Does all versions of a name in one location.
async fn change_all<V: VersionRotation>(
    job: &Job<'_>,
    location: Location,
    name: &str,
    checkpoint: &mut Checkpoint<'_>,
) -> Result<Option<Tally>, Error> {
    let mut sum = Tally::default();
    let mut after = None;
    loop {
        let limit = job.coffer.page_limit();
        let (found, next) =
            job.stores.scan_name(location, V::PROJECTION, name, after, limit).await?;
        let (found, next) = within_requests(job.hints, found, next, limit);
        let Some(tally) = execute::<V>(job, found, checkpoint).await? else { return Ok(None) };
        sum.changed += tally.changed;
        sum.failures.extend(tally.failures);
        if next.is_none() {
            return Ok(Some(sum));
        }
        after = next;
    }
}

/// Whether a version of a name moved after the event of this number.
async fn has_moved(
    ledger: &Ledger,
    moves: &[EventKind],
    name: &Name,
    sequence: u64,
) -> Result<bool, Error> {
    let mut after = Some(audit_chain::key(sequence));
    loop {
        let (rows, more) = ledger.events(name, true, after, None).await?;
        let is_move = |row: &Row| {
            let operation = row.get("operation").and_then(Attribute::text);
            moves.iter().any(|kind| operation == Some(kind.as_str()))
        };
        if rows.iter().any(is_move) {
            return Ok(true);
        }
        if more.is_none() {
            return Ok(false);
        }
        after = more;
    }
}

/// Returns where the second stage of a part continues. An earlier release wrote a key of its own,
/// behind all entries of a name, which DynamoDB need not accept. Then the part begins again. What is
/// done is not changed, counted or recorded twice.
fn resume_key(after: Option<Key>) -> Option<Key> {
    after.filter(|key| key.version != char::MAX.to_string())
}

/// Returns the last key of each name. A scan returns the keys of a name together.
fn last_of_each(keys: Vec<Key>) -> Vec<Key> {
    let mut last: Vec<Key> = Vec::new();
    for key in keys {
        match last.last_mut().filter(|last| last.name == key.name) {
            Some(last) => *last = key,
            None => last.push(key),
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_continues_only_at_keys_that_were_read() {
        let key = |name: &str, entry: &str| Key { name: name.into(), version: entry.into() };
        let keys = vec![key("a", "event#1"), key("a", "event#2"), key("b", "event#1")];
        assert_eq!(last_of_each(keys), [key("a", "event#2"), key("b", "event#1")]);
        assert_eq!(last_of_each(Vec::new()), []);
        assert_eq!(resume_key(Some(key("a", "event#2"))), Some(key("a", "event#2")));
        // Written by an earlier release.
        assert_eq!(resume_key(Some(key("a", "\u{10ffff}"))), None);
        assert_eq!(resume_key(None), None);
    }
}
