//! The counts of a page.

use crate::store::progress::RunFailure;

/// The counts of the items of a page.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// How many were changed.
    pub(super) changed: u64,
    /// How many needed no change.
    pub(super) skipped: u64,
    /// The items that were not changed.
    pub(super) failures: Vec<RunFailure>,
}
