//! restore: versions come back from the ledger as they were.

use crate::chain::{Act, Caller, Change, State};
use crate::error::Error;
use crate::moment::Moment;
use crate::name::{Label, Name};
use crate::pause::Pause;
use crate::store::Store;
use crate::store::ledger::Buried;
use crate::store::transaction::{Committed, Transaction};

use super::delete::MOVED;
use super::{Coffer, for_name};

/// What is to be restored.
#[derive(Debug)]
pub struct Restore {
    /// The name of the secret.
    pub name: Name,
    /// The version, or all that await recovery if none.
    pub version: Option<Label>,
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
    /// of one version, the one that was deleted last comes back.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing awaits recovery; [`Error::Exists`] where the name was put
    /// anew since it was deleted, or the version is there; [`Error::Unavailable`].
    pub async fn restore(&self, restore: Restore, caller: &Caller) -> Result<Restored, Error> {
        let restored = Box::pin(self.unearth(&restore, caller)).await;
        restored.map_err(|error| for_name(&restore.name, error))
    }

    async fn unearth(&self, restore: &Restore, caller: &Caller) -> Result<Restored, Error> {
        let store = self.ledger()?;
        let name = &restore.name;
        let mut versions: Vec<Label> = Vec::new();
        let mut pause = Pause::default();
        loop {
            let (tail, buried, live) = tokio::try_join!(
                store.tail(name),
                awaiting(store, restore, versions.last()),
                store.highest(name, 1)
            )?;
            if buried.is_empty() {
                break;
            }
            // Somebody put it anew: another client, if the ledger knows nothing of it.
            let anew =
                tail.state == State::Anew || (tail.state == State::Deleted && !live.is_empty());
            if restore.version.is_none() && anew {
                return Err(put_anew());
            }
            let mut transaction = Transaction::default();
            for buried in &buried {
                transaction.unearth(store, buried.item(), buried.live());
            }
            let labels: Vec<_> = buried.into_iter().map(|buried| buried.label).collect();
            let state = if tail.state == State::Deleted { State::Live } else { tail.state };
            let change =
                Change { act: Act::Restore, versions: labels.clone(), forced: false, state };
            match self.tell(store, transaction, name, &tail, &change, caller).await? {
                Committed::Done => {
                    versions.extend(labels);
                    if restore.version.is_some() {
                        break;
                    }
                }
                // Its place is taken, and it is still in the ledger: nobody else has restored it.
                Committed::Refused(failed)
                    if (0..labels.len()).any(|index| {
                        failed.contains(&(2 * index)) && !failed.contains(&(2 * index + 1))
                    }) =>
                {
                    return Err(taken());
                }
                Committed::Refused(_) | Committed::Conflict => pause.wait().await?,
            }
        }
        if versions.is_empty() {
            return Err(nothing());
        }
        versions.reverse();
        Ok(Restored { name: name.clone(), versions })
    }
}

/// The next versions that await recovery, highest first: each once, the one deleted last, and none
/// from `above` on, for there a second row of a version that is back already may lie.
async fn awaiting(
    store: &Store,
    restore: &Restore,
    above: Option<&Label>,
) -> Result<Vec<Buried>, Error> {
    let now = Moment::now();
    let most = usize::try_from(MOVED).unwrap_or(usize::MAX);
    let padded = restore.version.as_ref().map(Label::padded);
    let mut label = padded.as_ref();
    let mut found: Vec<Buried> = Vec::new();
    let mut after = None;
    loop {
        let (page, more) = store.buried(&restore.name, label, after).await?;
        for buried in page {
            let back = above.is_some_and(|above| buried.label.as_str() >= above.as_str());
            if back || buried.until <= now {
                continue;
            }
            match found.last_mut().filter(|last| last.label == buried.label) {
                Some(last) if last.until < buried.until => *last = buried,
                Some(_) => {}
                None => found.push(buried),
            }
        }
        // The last one's other rows may be on the next page.
        if found.len() > most || (more.is_some() && found.len() > 1) {
            found.truncate(most.min(found.len().saturating_sub(usize::from(more.is_some()))));
            return Ok(found);
        }
        if more.is_some() {
            after = more;
        } else if found.is_empty() && label.is_some() && label != restore.version.as_ref() {
            // Written unpadded, before 2016.
            label = restore.version.as_ref();
            after = None;
        } else {
            return Ok(found);
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

fn put_anew() -> Error {
    Error::Exists(
        "This name was put anew since it was deleted. Restore single versions by `version`: each \
         comes back at its own number, below or above what is there now. Or delete what is there \
         now and restore then, which brings back both."
            .into(),
    )
}

fn taken() -> Error {
    Error::Exists(
        "A version of the same number is there: it was put since. Delete that one first, or \
         restore others by `version`. What was restored already stays."
            .into(),
    )
}
