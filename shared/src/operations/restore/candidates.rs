//! The deleted versions that a restore moves next.

use crate::error::Error;
use crate::life::HighestVersion;
use crate::name::VersionKey;
use crate::store::deleted::DeletedVersion;
use crate::store::ledger::Ledger;
use crate::timestamp::Timestamp;

use super::super::delete::MAX_MOVED;
use super::Restore;

/// Returns the next versions that can be restored, highest first, each once, the row that was
/// deleted last, without those in `done`: a second row of them may be in the ledger. Returns true
/// as well if there may be more.
pub(super) async fn candidates(
    ledger: &Ledger,
    restore: &Restore,
    done: &[VersionKey],
) -> Result<(Vec<DeletedVersion>, bool), Error> {
    let now = Timestamp::now();
    let most = usize::try_from(MAX_MOVED).unwrap_or(usize::MAX);
    let padded = restore.version.as_ref().map(VersionKey::padded);
    let mut label = padded.as_ref();
    let mut found: Vec<DeletedVersion> = Vec::new();
    let mut after = None;
    loop {
        let (page, more) = ledger.deleted_versions(&restore.name, label, after).await?;
        for version in page.into_iter().filter(|version| is_wanted(version, restore, done, now)) {
            // Under its current number. It has no seal, and a MAC does not cover the version.
            let version = if version.before_reseal { version.padded() } else { version };
            match found.last_mut().filter(|last| last.label == version.label) {
                Some(last) if last.sequence < version.sequence => *last = version,
                Some(_) => {}
                None => found.push(version),
            }
        }
        // Other rows of the last version may be on the next page.
        if found.len() > most || (more.is_some() && found.len() > 1) {
            found.truncate(most.min(found.len().saturating_sub(usize::from(more.is_some()))));
            return Ok((found, true));
        }
        if more.is_some() {
            after = more;
        } else if found.is_empty() && label.is_some() && label != restore.version.as_ref() {
            // Written without padding, before 2016.
            label = restore.version.as_ref();
            after = None;
        } else {
            return Ok((found, false));
        }
    }
}

fn is_wanted(
    version: &DeletedVersion,
    restore: &Restore,
    done: &[VersionKey],
    now: Timestamp,
) -> bool {
    let later = restore.deleted_before.is_some_and(|before| version.deleted_at > Some(before));
    !done.contains(&version.stored)
        && !later
        && version.before_reseal == restore.before_reseal
        && version.until > now
}

/// Splits versions into the labels of those that would sort above the current version, and those
/// that can be restored below it. A number without padding sorts above every padded one. A row
/// without a seal is restored with padding; a seal covers the version, so a sealed row is not.
pub(super) fn in_order(
    deleted: Vec<DeletedVersion>,
    top: Option<&HighestVersion>,
) -> (Vec<VersionKey>, Vec<DeletedVersion>) {
    let is_number = |label: &VersionKey| label.number().is_some();
    let padded = top.is_some_and(|top| is_number(&top.label) && top.label.padded() == top.label);
    let (mut above, mut below) = (Vec::new(), Vec::new());
    for version in deleted {
        if !padded || version.label.padded() == version.label {
            below.push(version);
        } else if version.is_sealed() {
            above.push(version.stored);
        } else {
            below.push(version.padded());
        }
    }
    // With its zeros a number has another place in the order, and perhaps that of another row.
    below.sort_by(|a, b| b.label.as_str().cmp(a.label.as_str()).then(b.sequence.cmp(&a.sequence)));
    below.dedup_by(|later, kept| later.label == kept.label);
    (above, below)
}
