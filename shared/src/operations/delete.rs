//! delete: versions leave the live table, for the ledger and its recovery window or for good.

use crate::backoff::Backoff;
use crate::chain::{Act, Caller, ChainHead, Change, Newest, State};
use crate::error::Error;
use crate::life::{Top, newest_after_delete};
use crate::moment::Moment;
use crate::name::{Label, Name};
use crate::store::ledger::soft_delete;
use crate::store::transaction::{Committed, Transaction};
use crate::store::{Live, Store};

use super::{Coffer, DAY_SECONDS, for_name, not_found, unless_reserved};

/// What is to be deleted, and how.
#[derive(Debug)]
pub struct Delete {
    /// The name of the secret.
    pub name: Name,
    /// The version, or all of them if none.
    pub version: Option<Label>,
    /// Whether it can be recovered.
    pub recovery: Recovery,
}

/// Whether what is deleted can be recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// For so many days.
    Days(u32),
    /// Not at all: what awaits recovery already is removed, too.
    None,
}

impl Recovery {
    /// The fewest days that can be asked for.
    pub const MIN_DAYS: u32 = 7;
    /// The most days that can be asked for, and how many there are if nothing is said.
    pub const MAX_DAYS: u32 = 30;
}

/// What was deleted.
#[derive(Debug)]
pub struct Deleted {
    /// The name of the secret.
    pub name: Name,
    /// The versions, lowest first.
    pub versions: Vec<Label>,
    /// The moment from which on nothing of it can be restored; none where that is so already.
    pub until: Option<Moment>,
}

/// How many versions one transaction moves, each in two writes, beside its event and the head.
pub(super) const MOVED: i32 = 49;
/// How many versions one transaction removes, beside its event and the head.
const REMOVED: i32 = 98;

impl Coffer {
    /// Deletes one version or all. The oldest go first, each transaction with its event, and the
    /// highest in the last one, so that the secret is there until it is gone; what was interrupted
    /// goes on when it is asked for again. A secret that awaits recovery already stays as it is,
    /// and is answered without versions.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for a name that the ledger reserves;
    /// [`Error::Forbidden`] where the stack refuses to delete for good;
    /// [`Error::TooLarge`] for another client's row that the ledger has no
    /// room for; [`Error::Unavailable`].
    pub async fn delete(&self, delete: Delete, caller: &Caller) -> Result<Deleted, Error> {
        unless_reserved(&delete.name)?;
        let found = match delete.recovery {
            Recovery::Days(days) => Box::pin(self.soft_delete(&delete, days, caller)).await,
            Recovery::None if !self.policy.forced_delete => Err(Error::Forbidden(
                "This stack refuses `force`. Delete without it: what is deleted goes by itself when \
                 its recovery window ends."
                    .into(),
            )),
            Recovery::None => Box::pin(self.remove(&delete, caller)).await,
        };
        found.map_err(|error| for_name(&delete.name, error))
    }

    async fn soft_delete(
        &self,
        delete: &Delete,
        days: u32,
        caller: &Caller,
    ) -> Result<Deleted, Error> {
        let store = self.ledger()?;
        let name = &delete.name;
        let version = form(store, delete).await?;
        let end = Moment::now().after(u64::from(days) * DAY_SECONDS).unwrap_or(Moment::now());
        let mut versions = Vec::new();
        let mut backoff = Backoff::default();
        loop {
            let tail = store.tail(name).await?;
            let batch = Batch::read(store, name, version.as_ref(), MOVED).await?;
            if batch.rows.is_empty() {
                if versions.is_empty() {
                    let until = awaiting(store, name, version.as_ref()).await?;
                    // Perhaps a restore has moved it from the one place to the other meanwhile.
                    if until.is_none() && store.tail(name).await? != tail {
                        backoff.wait().await?;
                        continue;
                    }
                    let until = Some(until.ok_or_else(not_found)?);
                    return Ok(Deleted { name: name.clone(), versions, until });
                }
                break;
            }
            let mut transaction = Transaction::default();
            let life = if batch.last { tail.life_when_deleted() } else { tail.life };
            for live in &batch.rows {
                let kept = soft_delete(live.item(), tail.sequence + 1, life, end);
                transaction.soft_delete(store, live.item(), kept);
            }
            let labels = batch.labels();
            let change = Change {
                recoverable_until: Some(end),
                ..batch.change(&tail, labels.clone(), false)
            };
            let told = self.tell(store, transaction, name, &tail, &change, caller).await?;
            if told == Committed::Done {
                versions.extend(labels);
                if batch.last || version.is_some() {
                    break;
                }
            } else {
                backoff.wait().await?;
            }
        }
        Ok(Deleted { name: name.clone(), versions, until: Some(end) })
    }

    async fn remove(&self, delete: &Delete, caller: &Caller) -> Result<Deleted, Error> {
        let store = self.ledger()?;
        let name = &delete.name;
        let version = form(store, delete).await?;
        let mut versions = Vec::new();
        let mut backoff = Backoff::default();
        loop {
            let tail = store.tail(name).await?;
            let batch = Batch::read(store, name, version.as_ref(), REMOVED).await?;
            let mut buried = store.buried(name, version.as_ref(), None).await?.0;
            // The same number may lie there padded, as it was sealed again, and unpadded.
            let forms = [version.as_ref().map(Label::padded), delete.version.clone()];
            for form in forms.into_iter().flatten() {
                if buried.is_empty() && version.as_ref() != Some(&form) {
                    buried = store.buried(name, Some(&form), None).await?.0;
                }
            }
            let mut transaction = Transaction::default();
            // What awaits recovery goes first: the secret is there until the last of it is gone.
            let (labels, live) = if buried.is_empty() {
                for live in &batch.rows {
                    transaction.remove_version(store, live.item());
                }
                (batch.labels(), true)
            } else {
                buried.truncate(usize::try_from(REMOVED).unwrap_or(usize::MAX));
                for buried in &buried {
                    transaction.remove_entry(store, buried.item());
                }
                (buried.into_iter().map(|buried| buried.label).collect(), false)
            };
            if labels.is_empty() {
                // Perhaps another delete or a restore has moved it meanwhile.
                if versions.is_empty() && store.tail(name).await? != tail {
                    backoff.wait().await?;
                    continue;
                }
                // This also completes a delete that was interrupted after its last version.
                if version.is_none() && tail.sequence > 0 {
                    remove_policy(store, name, tail.life).await?;
                }
                break;
            }
            let change = if live {
                batch.change(&tail, labels.clone(), true)
            } else {
                change(labels.clone(), true, tail.state, Newest::Kept)
            };
            let told = self.tell(store, transaction, name, &tail, &change, caller).await?;
            if told == Committed::Done {
                versions.extend(labels);
                if live && batch.last {
                    remove_policy(store, name, tail.life).await?;
                }
                if live && (batch.last || version.is_some()) {
                    break;
                }
            } else {
                backoff.wait().await?;
            }
        }
        if versions.is_empty() {
            return Err(not_found());
        }
        versions.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        versions.dedup();
        Ok(Deleted { name: name.clone(), versions, until: None })
    }

    /// Commits a transaction together with the event that tells of it.
    pub(super) async fn tell(
        &self,
        store: &Store,
        mut transaction: Transaction,
        name: &Name,
        tail: &ChainHead,
        change: &Change,
        caller: &Caller,
    ) -> Result<Committed, Error> {
        let (event, next) = tail.follow(name, change, caller, self.end_of_history(), false);
        transaction.put_entry(store, event);
        transaction.put_head(store, next.to_head(name));
        store.commit(transaction).await
    }
}

fn change(versions: Vec<Label>, forced: bool, state: State, newest: Newest) -> Change {
    Change { act: Act::Delete, versions, forced, state, recoverable_until: None, newest }
}

/// Removes the policy of a secret that is gone for good. If this is interrupted, a suspended policy
/// remains, which renews nothing. It is a transaction of its own because the role may delete
/// policies but not put them, and IAM checks every key of a transaction.
async fn remove_policy(store: &Store, name: &Name, life: u64) -> Result<(), Error> {
    // No other name has a policy.
    if name.check().is_err() {
        return Ok(());
    }
    let mut backoff = Backoff::default();
    loop {
        let mut transaction = Transaction::default();
        transaction.remove_policy(store, name, life);
        match store.commit(transaction).await? {
            // Refused: the name was put again and has a new policy.
            Committed::Done | Committed::Refused(_) => return Ok(()),
            Committed::Conflict => backoff.wait().await?,
        }
    }
}

/// The live rows that the next transaction is about.
struct Batch {
    rows: Vec<Live>,
    /// Whether no version is left without them.
    last: bool,
    /// The highest version that remains, if a single version is deleted.
    left: Option<Top>,
}

impl Batch {
    async fn read(
        store: &Store,
        name: &Name,
        version: Option<&Label>,
        most: i32,
    ) -> Result<Self, Error> {
        let Some(label) = version else {
            let (mut rows, more) = store.lowest(name, most + 1).await?;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            // A page that was cut at 1 MB may have cut nothing off: one row stays behind, or the
            // highest could go before the last transaction.
            let kept = if more { rows.len().saturating_sub(1).max(1) } else { rows.len() };
            let last = !more && kept <= most;
            rows.truncate(kept.min(most));
            return Ok(Self { rows, last, left: None });
        };
        let (found, tops) = tokio::try_join!(store.live(name, label), store.tops(name, 2))?;
        let last = found.is_some() && tops.len() == 1;
        let left = tops.into_iter().find(|top| top.label != *label);
        Ok(Self { rows: found.into_iter().collect(), last, left })
    }

    /// The event of a delete of these rows.
    fn change(&self, tail: &ChainHead, labels: Vec<Label>, forced: bool) -> Change {
        let state = if self.last { State::Deleted } else { tail.state };
        let deleted: Vec<_> = self.rows.iter().filter_map(Live::identity).collect();
        let newest = newest_after_delete(tail, &deleted, self.left.as_ref());
        change(labels, forced, state, newest)
    }

    fn labels(&self) -> Vec<Label> {
        self.rows.iter().map(|live| live.label.clone()).collect()
    }
}

/// The version that is meant, as it is written where it lies: padded, or, before 2016, not. A live
/// one comes before one that awaits recovery.
async fn form(store: &Store, delete: &Delete) -> Result<Option<Label>, Error> {
    let Some(label) = &delete.version else { return Ok(None) };
    let padded = label.padded();
    let name = &delete.name;
    if padded == *label || store.live(name, &padded).await?.is_some() {
        return Ok(Some(padded));
    }
    if store.live(name, label).await?.is_some() {
        return Ok(Some(label.clone()));
    }
    let buried = store.buried(name, Some(&padded), None).await?.0;
    let known = buried.iter().any(|each| !each.before_reseal);
    Ok(Some(if known { padded } else { label.clone() }))
}

/// Until when what was asked for awaits recovery already, if it does.
async fn awaiting(
    store: &Store,
    name: &Name,
    label: Option<&Label>,
) -> Result<Option<Moment>, Error> {
    let (mut until, mut after) = (None, None);
    loop {
        let (buried, more) = store.buried(name, label, after).await?;
        let awaiting = buried.into_iter().filter(|buried| !buried.before_reseal);
        until = awaiting.map(|buried| buried.until).chain(until).max();
        if more.is_none() {
            break;
        }
        after = more;
    }
    Ok(until.filter(|until| *until > Moment::now()))
}
