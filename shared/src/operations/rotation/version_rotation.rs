//! What rewrap and reseal are: actions whose items are versions, in the table of secrets and in the
//! ledger.

use std::borrow::Cow;

use futures_util::future::BoxFuture;

use crate::audit_chain::EventKind;
use crate::error::Error;
use crate::row::Row;
use crate::store::condition::Projection;
use crate::store::item::Key;
use crate::store::scanned_version::ScannedVersion;

use super::super::legacy_hints::LegacyHints;
use super::action::Action;
use super::plan::{Applied, Job, Plan, Planned};

/// An action whose items are versions.
pub trait VersionRotation: Sized + Send + Sync + 'static {
    /// The action.
    const ACTION: Action;
    /// How much of each version is read.
    const PROJECTION: Projection;
    /// The events that may move a version past a part that is done.
    const MOVED_BY: &'static [EventKind];

    /// What a version becomes.
    type Change: Send;

    /// Plans the change of a version.
    fn plan<'a>(
        job: &'a Job<'a>,
        version: &'a ScannedVersion,
    ) -> BoxFuture<'a, Result<Plan<Self::Change>, Error>>;

    /// Returns the row and the wrapped key of a version after a change.
    fn changed<'a>(version: &ScannedVersion, change: &'a Self::Change) -> (Cow<'a, Row>, Vec<u8>);

    /// Applies the changes of one name.
    fn apply<'a>(
        job: &'a Job<'a>,
        changes: Vec<Planned<Self>>,
    ) -> BoxFuture<'a, Result<Vec<Applied<Self>>, Error>>;
}

/// Returns the first versions that can be tried with this many KMS requests, at least one, and where
/// the next ones begin. A legacy row may take a request for each context.
pub(super) fn within_requests(
    hints: &LegacyHints,
    mut versions: Vec<ScannedVersion>,
    next: Option<Key>,
    requests: i32,
) -> (Vec<ScannedVersion>, Option<Key>) {
    let mut left = usize::try_from(requests).unwrap_or(1);
    let fits = |version: &&ScannedVersion| {
        let tries = if version.is_sealed() { 1 } else { hints.contexts(&version.name).len() };
        let fits = tries <= left;
        left = left.saturating_sub(tries);
        fits
    };
    let count = versions.iter().take_while(fits).count().max(1);
    if count >= versions.len() {
        return (versions, next);
    }
    versions.truncate(count);
    let last = versions.last().map(ScannedVersion::key);
    (versions, last)
}
