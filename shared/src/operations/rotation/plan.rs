//! The trait that the actions implement, and its types.

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::audit_chain::Caller;
use crate::error::Error;
use crate::store::item::Key;
use crate::store::ledger::Part;
use crate::store::location::Location;
use crate::store::progress::{Progress, RunFailure};
use crate::store::runs::Run;
use crate::store::scan::Stores;

use super::super::Coffer;
use super::super::legacy_hints::LegacyHints;
use super::action::{Action, Reason};
use super::checkpoint::Checkpoint;

/// How often an item is read again that others keep changing.
pub(super) const MAX_TRIES: u32 = 20;

/// An action of a rotation. It lists items, plans the change of each, which takes KMS, and applies
/// the changes, which takes DynamoDB.
pub trait Rotation: Sized + Send + Sync + 'static {
    /// The action.
    const ACTION: Action;
    /// Whether a run is divided into parts, and whether its second stage checks again what moved.
    const HAS_PARTS: bool;

    /// A version, or a policy.
    type Item: Item;
    /// What an item becomes.
    type Change: Send;

    /// Lists the next items of a part: as many as `limit` KMS requests are for.
    fn list_page<'a>(
        job: &'a Job<'a>,
        part: Part,
        progress: &'a Progress,
        limit: i32,
    ) -> BoxFuture<'a, Result<ItemPage<Self::Item>, Error>>;

    /// Plans the change of an item.
    fn plan<'a>(
        job: &'a Job<'a>,
        item: &'a Self::Item,
    ) -> BoxFuture<'a, Result<Plan<Self::Change>, Error>>;

    /// Returns a mark of an item as it is, or as it will be after a change. If the two are the same,
    /// the change was made.
    fn mark(item: &Self::Item, change: Option<&Self::Change>) -> String;

    /// Applies the changes of one name, one after the other: each event follows the one before.
    fn apply<'a>(
        job: &'a Job<'a>,
        changes: Vec<Planned<Self>>,
    ) -> BoxFuture<'a, Result<Vec<Applied<Self>>, Error>>;

    /// Reads an item again that others have changed; `None` if it is gone.
    fn reread<'a>(
        job: &'a Job<'a>,
        item: &'a Self::Item,
    ) -> BoxFuture<'a, Result<Option<Self::Item>, Error>>;

    /// Checks again, in the second stage, what may have moved past a part of the first.
    fn recheck<'a>(
        job: &'a Job<'a>,
        run: &'a Run,
        part: Part,
        checkpoint: Checkpoint<'a>,
        until: Instant,
    ) -> BoxFuture<'a, Result<(), Error>>;
}

/// What a rotation changes: a version or a policy.
pub trait Item: Send + Sync {
    /// The name of the secret.
    fn name(&self) -> &str;

    /// Returns the failure to report if the item is not changed.
    fn failure(&self, reason: Reason) -> RunFailure;
}

/// Shortens a hash to a mark.
pub(super) fn short_mark(hash: &[u8]) -> String {
    hex::encode(hash.get(..8).unwrap_or_default())
}

/// Returns a failure that is about a whole name.
pub(super) fn failure_of_name(name: &str, reason: Reason) -> RunFailure {
    let (name, reason) = (name.to_owned(), reason.as_str().to_owned());
    RunFailure { name, label: None, location: Location::Table, mark: Vec::new(), reason }
}

/// The context in which items are planned and changed.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    pub(super) coffer: &'a Coffer,
    pub(super) stores: Stores<'a>,
    /// Whether nothing is written.
    pub(super) dry_run: bool,
    pub(super) hints: &'a LegacyHints,
    pub(super) caller: &'a Caller,
    /// Whether this is a run. Then a name that KMS denies does not stop the others.
    pub(super) is_run: bool,
}

impl Job<'_> {
    /// Returns why an item was not changed, if the error is about the item.
    pub(super) fn reason(&self, error: Error) -> Result<Reason, Error> {
        if let Some(reason) = Reason::of(&error) {
            return Ok(reason);
        }
        if self.is_run && error.is_denied_by_kms() {
            return Ok(Reason::Denied);
        }
        Err(error)
    }
}

/// A page of items.
pub struct ItemPage<I> {
    pub(super) items: Vec<I>,
    /// Where the part continues in the same location.
    pub(super) next: Option<Key>,
    /// Whether this is the last location of the part.
    pub(super) last_location: bool,
}

/// What to do with an item.
pub enum Plan<C> {
    /// It needs no change.
    Skip,
    /// It is not changed, for this reason.
    Fail(Reason),
    /// It is changed.
    Change(C),
}

/// A planned change.
pub struct Planned<R: Rotation> {
    pub(super) item: R::Item,
    pub(super) change: R::Change,
    /// The mark of the item after the change.
    pub(super) mark: String,
}

/// A change that was applied, or not.
pub struct Applied<R: Rotation> {
    pub(super) item: R::Item,
    pub(super) mark: String,
    pub(super) outcome: Outcome,
}

/// The outcome of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The item was changed.
    Changed,
    /// Somebody else has changed the item since it was read.
    Crossed,
    /// The item no longer needs a change.
    Skipped,
    /// The item was not changed, for this reason.
    Failed(Reason),
}

/// What came of the contexts that KMS did not accept.
#[derive(Default)]
pub(super) struct FailedContexts {
    /// Whether KMS refused one: it was checked, and is wrong.
    pub(super) refused: bool,
    denied: Option<Error>,
}

impl FailedContexts {
    /// Continues with the next context if KMS denies this one.
    pub(super) fn add(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_denied_by_kms() {
            return Err(error);
        }
        self.denied = Some(error);
        Ok(())
    }

    /// Returns the plan of the version: a failure for `reason`, unless KMS only denied.
    pub(super) fn plan<C>(self, reason: Reason) -> Result<Plan<C>, Error> {
        match self.denied {
            Some(error) if !self.refused => Err(error),
            _ => Ok(Plan::Fail(reason)),
        }
    }
}
