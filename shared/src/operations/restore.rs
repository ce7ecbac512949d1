//! restore: versions come back from the ledger as they were.

use crate::backoff::Backoff;
use crate::chain::{Act, Caller, ChainHead, Change, State};
use crate::error::Error;
use crate::life::{Top, after_restore, life_of_deleted};
use crate::moment::Moment;
use crate::name::{Label, Name};
use crate::store::Store;
use crate::store::ledger::DeletedVersion;
use crate::store::transaction::{Committed, Transaction};

use super::delete::MOVED;
use super::{Coffer, for_name, unless_reserved};

/// What is to be restored.
#[derive(Debug)]
pub struct Restore {
    /// The name of the secret.
    pub name: Name,
    /// The version, or all that await recovery if none.
    pub version: Option<Label>,
    /// Only what was deleted by this second.
    pub deleted_before: Option<Moment>,
    /// Whether what the version was before it was sealed again is to come back, which a wrong hint
    /// to reseal may have damaged. Then `version` is there.
    pub before_reseal: bool,
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The name of the secret.
    pub name: Name,
    /// The versions, lowest first.
    pub versions: Vec<Label>,
}

impl Coffer {
    /// Brings back what awaits recovery, the highest version first, so that `AWSCURRENT` is right
    /// from the first moment. What was interrupted goes on when it is asked for again. Of two rows
    /// of one version, the one that was deleted last comes back, and where the place of a version
    /// is taken it stays where it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing awaits recovery; [`Error::Invalid`] for a name that the
    /// ledger reserves; [`Error::Exists`] where the name was put
    /// anew since it was deleted, or the version is there; [`Error::Unavailable`].
    pub async fn restore(&self, restore: Restore, caller: &Caller) -> Result<Restored, Error> {
        unless_reserved(&restore.name)?;
        let restored = Box::pin(self.undelete(&restore, caller)).await;
        restored.map_err(|error| for_name(&restore.name, error))
    }

    async fn undelete(&self, restore: &Restore, caller: &Caller) -> Result<Restored, Error> {
        let store = self.ledger()?;
        let name = &restore.name;
        let mut versions: Vec<Label> = Vec::new();
        // Those whose place is taken: by what was put since, or by another row of the number.
        let mut taken: Vec<Label> = Vec::new();
        // Whether one would come back above a version that is current.
        let mut hidden = false;
        let mut backoff = Backoff::default();
        loop {
            let gone = [versions.as_slice(), taken.as_slice()].concat();
            // The end of the chain first: what Coffer writes after it was read makes this fail.
            let tail = store.tail(name).await?;
            let ((buried, more), live) =
                tokio::try_join!(awaiting(store, restore, &gone), store.tops(name, 1))?;
            if buried.is_empty() {
                break;
            }
            let top = live.first();
            if restore.version.is_none() && versions.is_empty() && is_anew(&tail, &buried, top) {
                return Err(put_anew());
            }
            let (above, buried) = in_order(buried, top);
            if buried.is_empty() {
                hidden = true;
                taken.extend(above);
                continue;
            }
            let mut transaction = Transaction::default();
            for buried in &buried {
                transaction.undelete(store, buried.item(), buried.live());
            }
            let highest = buried.first().and_then(|buried| {
                Some((buried.identity()?, life_of_deleted(&tail, buried.life, buried.sequence)))
            });
            let highest = highest.as_ref().map(|(identity, life)| (identity, *life));
            let (state, newest) = after_restore(&tail, highest, top);
            let labels: Vec<_> = buried.into_iter().map(|buried| buried.label).collect();
            let change = Change {
                act: Act::Restore,
                versions: labels.clone(),
                forced: false,
                state,
                recoverable_until: None,
                newest,
            };
            match self.tell(store, transaction, name, &tail, &change, caller).await? {
                Committed::Done => {
                    versions.extend(labels);
                    if !more {
                        break;
                    }
                }
                Committed::Refused(failed) => {
                    // Its place is taken, and it is still in the ledger: nobody else restored it.
                    let stays = |(index, label): (usize, Label)| {
                        let (put, remove) = (2 * index, 2 * index + 1);
                        (failed.contains(&put) && !failed.contains(&remove)).then_some(label)
                    };
                    let before = taken.len();
                    taken.extend(labels.into_iter().enumerate().filter_map(stays));
                    if taken.len() == before {
                        backoff.wait().await?;
                    }
                }
                Committed::Conflict => backoff.wait().await?,
            }
        }
        if versions.is_empty() {
            if hidden {
                return Err(would_be_current());
            }
            return Err(match (taken.is_empty(), restore.before_reseal) {
                (true, false) => nothing(),
                (true, true) => nothing_before(),
                (false, false) => is_there(),
                (false, true) => resealed_is_there(),
            });
        }
        versions.reverse();
        Ok(Restored { name: name.clone(), versions })
    }
}

/// Whether somebody put the name again since some of these were deleted: another client, if the
/// ledger knows nothing of it.
fn is_anew(tail: &ChainHead, buried: &[DeletedVersion], top: Option<&Top>) -> bool {
    let earlier =
        |each: &DeletedVersion| life_of_deleted(tail, each.life, each.sequence) != Some(tail.life);
    top.is_some()
        && (tail.state == State::Deleted || tail.is_unnumbered() || buried.iter().any(earlier))
}

/// What can come back below the version that is current, and the labels of what cannot. A number
/// without its zeros sorts above every padded one. A row without a seal comes back with them; a seal
/// covers the version.
fn in_order(buried: Vec<DeletedVersion>, top: Option<&Top>) -> (Vec<Label>, Vec<DeletedVersion>) {
    let counts = |label: &Label| label.number().is_some();
    let padded = top.is_some_and(|top| counts(&top.label) && top.label.padded() == top.label);
    let (mut above, mut below) = (Vec::new(), Vec::new());
    for each in buried {
        if !padded || each.label.padded() == each.label {
            below.push(each);
        } else if each.is_sealed() {
            above.push(each.label);
        } else {
            below.push(each.padded());
        }
    }
    (above, below)
}

/// The next versions that await recovery, highest first: each once, the one deleted last, and none
/// of those that are dealt with, for of these a second row may lie there. Whether there may be more.
async fn awaiting(
    store: &Store,
    restore: &Restore,
    done: &[Label],
) -> Result<(Vec<DeletedVersion>, bool), Error> {
    let now = Moment::now();
    let most = usize::try_from(MOVED).unwrap_or(usize::MAX);
    let padded = restore.version.as_ref().map(Label::padded);
    let mut label = padded.as_ref();
    let mut found: Vec<DeletedVersion> = Vec::new();
    let mut after = None;
    loop {
        let (page, more) = store.buried(&restore.name, label, after).await?;
        for buried in page {
            let done = done.contains(&buried.label);
            let later =
                restore.deleted_before.is_some_and(|before| buried.deleted_at > Some(before));
            let other = buried.before_reseal != restore.before_reseal;
            if done || later || other || buried.until <= now {
                continue;
            }
            // Under the number that it has by now. It has no seal, and a MAC covers no version.
            let buried = if buried.before_reseal { buried.padded() } else { buried };
            match found.last_mut().filter(|last| last.label == buried.label) {
                Some(last) if last.sequence < buried.sequence => *last = buried,
                Some(_) => {}
                None => found.push(buried),
            }
        }
        // The last one's other rows may be on the next page.
        if found.len() > most || (more.is_some() && found.len() > 1) {
            found.truncate(most.min(found.len().saturating_sub(usize::from(more.is_some()))));
            return Ok((found, true));
        }
        if more.is_some() {
            after = more;
        } else if found.is_empty() && label.is_some() && label != restore.version.as_ref() {
            // Written unpadded, before 2016.
            label = restore.version.as_ref();
            after = None;
        } else {
            return Ok((found, false));
        }
    }
}

fn nothing() -> Error {
    Error::NotFound(
        "Nothing of this secret awaits recovery: it was not deleted, its recovery window is over, \
         or it was deleted with `force`. Its history tells."
            .into(),
    )
}

fn nothing_before() -> Error {
    Error::NotFound(
        "Nothing is kept of this version from before it was sealed again: that was not done, or \
         its recovery window is over. Restore without `before_reseal` what was deleted."
            .into(),
    )
}

fn resealed_is_there() -> Error {
    Error::Exists(
        "The version is there. Delete it first, then restore with `before_reseal` again.".into(),
    )
}

fn would_be_current() -> Error {
    Error::Exists(
        "This version has a number without leading zeros, so it would sort above the current \
         version and replace it. Get it from a backup, or delete what is live, restore this one, \
         and rotate the name with action reseal."
            .into(),
    )
}

fn put_anew() -> Error {
    Error::Exists(
        "This name was put anew since it was deleted. Restore single versions by `version`: each \
         comes back at its own number, if that is free. Or delete what is there now and restore \
         then, which brings back both; of two rows of one number, the one deleted last."
            .into(),
    )
}

fn is_there() -> Error {
    Error::Exists(
        "A version of the same number is there: it was put since. Restore others by `version`, or \
         delete that one and restore with `deleted_before`, a time before you did."
            .into(),
    )
}
