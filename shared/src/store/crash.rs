//! Ends the process at a chosen write: for tests alone, and in no binary that is deployed.

use std::sync::atomic::{AtomicI64, Ordering};

static LEFT: AtomicI64 = AtomicI64::new(-1);

/// Lets `points` more points pass and ends the process at the next one. Each write has two: one
/// before it is sent and one after it was answered.
pub fn after(points: i64) {
    LEFT.store(points, Ordering::SeqCst);
}

pub(super) fn point() {
    if LEFT.fetch_sub(1, Ordering::SeqCst) == 0 {
        std::process::abort();
    }
}
