//! The life of a name. It begins when a version is put while no version is live, and ends when no
//! version is live any more. A rotation policy belongs to one life. Pure functions.
//!
//! The chain of a name records which event began the current life and which row is the newest
//! version. Other clients put and delete without writing events, and DynamoDB removes expired rows.
//! Both are detected because the recorded row is gone.

use crate::audit_chain::{ChainHead, NameState, NewestVersion};
use crate::name::VersionKey;
use crate::row::{Attribute, Row};
use crate::timestamp::Timestamp;

pub use crate::row::RowIdentity;

/// A live version of a name, usually the highest, with what is needed to judge the life of the
/// name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HighestVersion {
    /// The version.
    pub label: VersionKey,
    /// The identity of its row.
    pub identity: RowIdentity,
    expires_at: Option<Timestamp>,
}

impl HighestVersion {
    /// Reads a row. `None` if it has no version, which no table allows.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        let expires_at = row.get("expires_at").and_then(Attribute::integer);
        Some(Self {
            label: VersionKey::stored(row.get("version")?.text()?),
            identity: RowIdentity::of(row)?,
            expires_at: expires_at.and_then(Timestamp::from_unix_seconds),
        })
    }

    /// Returns whether the version has expired at `now`. Its row may still be in the table.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// Whether the current life of a name continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifeStatus {
    /// The life continues.
    Continues,
    /// The life has ended. The next put begins a new one.
    Ended,
    /// The life continues if this row, below the highest, is still live: another client put newer
    /// versions.
    IfLive(RowIdentity),
}

/// Returns whether the current life of a name continues, judged by the end of its chain and its
/// highest live version.
#[must_use]
pub fn life_status(tail: &ChainHead, top: Option<&HighestVersion>, now: Timestamp) -> LifeStatus {
    let Some(top) = top.filter(|top| !top.has_expired(now)) else { return LifeStatus::Ended };
    // A client that writes no events has put the version that is live now.
    if tail.state == NameState::Deleted {
        return LifeStatus::Ended;
    }
    match &tail.newest {
        // All events were written before events had this attribute.
        None => LifeStatus::Continues,
        Some(newest) if *newest == top.identity => LifeStatus::Continues,
        Some(newest) if top.label.as_str() > newest.version() => LifeStatus::IfLive(newest.clone()),
        Some(_) => LifeStatus::Ended,
    }
}

/// Returns whether the version that the last event records is missing although nothing ended the
/// life. A transaction may have been read in part, so read again.
#[must_use]
pub fn may_be_partial(tail: &ChainHead, top: Option<&HighestVersion>, now: Timestamp) -> bool {
    tail.state != NameState::Deleted
        && tail.newest.is_some()
        && !top.is_some_and(|top| top.has_expired(now))
        && life_status(tail, top, now) == LifeStatus::Ended
}

/// Returns the state of a name after a put: unchanged if its life continues, otherwise that of a
/// new life.
#[must_use]
pub fn state_after_put(tail: &ChainHead, goes_on: bool) -> NameState {
    match tail.state {
        state if goes_on => state,
        // This is the first event.
        _ if tail.sequence == 0 => NameState::Live,
        _ => NameState::PutAgain,
    }
}

/// Returns the newest version after a delete. `deleted` are the rows that it removes, `left` is the
/// highest row that remains.
///
/// The record changes only if the recorded row is removed. Otherwise, deleting a row of another
/// client would make its other rows part of an old life.
#[must_use]
pub fn newest_after_delete(
    tail: &ChainHead,
    deleted: &[RowIdentity],
    left: Option<&HighestVersion>,
) -> NewestVersion {
    let known = tail.newest.as_ref();
    match left {
        Some(left) if known.is_none_or(|known| deleted.contains(known)) => {
            NewestVersion::Is(left.identity.clone())
        }
        _ => NewestVersion::Unchanged,
    }
}

/// Returns the life that a deleted version belongs to: `recorded` if the version has it, otherwise
/// by the `sequence` of the event that deleted it. `None` for an unknown earlier life.
#[must_use]
pub fn life_of_deleted(tail: &ChainHead, recorded: Option<u64>, sequence: u64) -> Option<u64> {
    recorded.or_else(|| (sequence > tail.life).then_some(tail.life))
}

/// Returns the state and the newest version after a restore. `restored` is the highest restored row
/// and the life that it belongs to. `top` is the highest version that was live before.
///
/// If nothing is live, a restore resumes the life of the restored rows, so that a policy of another
/// life does not apply to them. If another client put a deleted name again, that began another
/// life, and this event is the first to record it.
#[must_use]
pub fn after_restore(
    tail: &ChainHead,
    restored: Option<(&RowIdentity, Option<u64>)>,
    top: Option<&HighestVersion>,
) -> (NameState, NewestVersion) {
    match (restored, top) {
        (Some((row, Some(life))), None) => {
            (NameState::Live, NewestVersion::ResumesLife(row.clone(), life))
        }
        (Some((row, None)), None) => (NameState::PutAgain, NewestVersion::BeginsLife(row.clone())),
        (_, Some(top)) if tail.state == NameState::Deleted => {
            let above = |row: &&RowIdentity| row.version() > top.label.as_str();
            let row = restored.map(|(row, _)| row).filter(above).unwrap_or(&top.identity);
            (NameState::PutAgain, NewestVersion::BeginsLife(row.clone()))
        }
        // If it becomes the highest, it is above the recorded row, as if another client had put it:
        // the life continues while the recorded row is live.
        _ => (tail.state, NewestVersion::Unchanged),
    }
}

/// Returns the newest version after live rows are rewritten. `changed` has each row before and
/// after.
#[must_use]
pub fn newest_after_rewrite<'a>(
    tail: &ChainHead,
    changed: impl IntoIterator<Item = (&'a Row, &'a Row)>,
) -> NewestVersion {
    changed
        .into_iter()
        .find(|(before, _)| tail.newest.is_some() && RowIdentity::of(before) == tail.newest)
        .and_then(|(_, after)| RowIdentity::of(after))
        .map_or(NewestVersion::Unchanged, NewestVersion::Is)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::identity::tests::{mac, row};

    fn top(version: u64, text: &str) -> HighestVersion {
        HighestVersion::of(&row(&format!("{version:019}"), mac(text))).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds).unwrap()
    }

    fn live(newest: Option<&HighestVersion>) -> ChainHead {
        ChainHead::standing(NameState::Live, 1, newest.map(|top| top.identity.clone()))
    }

    #[test]
    fn a_life_continues_while_its_newest_row_is_live() {
        let (first, second) = (top(1, "a"), top(2, "b"));
        let life_status =
            |tail: &ChainHead, top: Option<&HighestVersion>| life_status(tail, top, at(100));
        assert_eq!(life_status(&live(Some(&second)), Some(&second)), LifeStatus::Continues);
        // Nothing is recorded.
        assert_eq!(life_status(&live(None), Some(&second)), LifeStatus::Continues);
        // Another client put the second version, and the first may still be live.
        let below = LifeStatus::IfLive(first.identity.clone());
        assert_eq!(life_status(&live(Some(&first)), Some(&second)), below);
    }

    #[test]
    fn a_life_ends_when_its_newest_row_is_gone() {
        let (first, second) = (top(1, "a"), top(2, "b"));
        let life_status =
            |tail: &ChainHead, top: Option<&HighestVersion>| life_status(tail, top, at(100));
        assert_eq!(life_status(&ChainHead::default(), None), LifeStatus::Ended);
        assert_eq!(life_status(&live(Some(&first)), None), LifeStatus::Ended);
        // Other clients count from 1 again after a delete.
        assert_eq!(life_status(&live(Some(&first)), Some(&top(1, "theirs"))), LifeStatus::Ended);
        assert_eq!(life_status(&live(Some(&second)), Some(&first)), LifeStatus::Ended);
        let deleted = ChainHead::standing(NameState::Deleted, 1, None);
        assert_eq!(life_status(&deleted, Some(&second)), LifeStatus::Ended);
    }

    #[test]
    fn a_life_ends_in_the_second_in_which_its_newest_row_expires() {
        let mut row = row("1", mac("a"));
        row.insert("expires_at".to_owned(), Attribute::Number("100".to_owned()));
        let expiring = HighestVersion::of(&row).unwrap();
        let tail = live(Some(&expiring));
        assert_eq!(life_status(&tail, Some(&expiring), at(99)), LifeStatus::Continues);
        assert_eq!(life_status(&tail, Some(&expiring), at(100)), LifeStatus::Ended);
    }

    #[test]
    fn a_recorded_version_that_is_missing_is_read_again() {
        let (first, second) = (top(1, "a"), top(2, "b"));
        let partial =
            |tail: &ChainHead, top: Option<&HighestVersion>| may_be_partial(tail, top, at(100));
        assert!(partial(&live(Some(&second)), Some(&first)));
        assert!(partial(&live(Some(&first)), None));
        assert!(!partial(&live(Some(&second)), Some(&second)));
        assert!(!partial(&live(Some(&first)), Some(&second)));
        assert!(!partial(&ChainHead::default(), None));
        assert!(!partial(&ChainHead::standing(NameState::Deleted, 1, None), Some(&first)));
    }

    #[test]
    fn a_put_after_the_end_begins_a_new_life() {
        let mut tail = live(None);
        assert_eq!(state_after_put(&tail, true), NameState::Live);
        assert_eq!(state_after_put(&tail, false), NameState::PutAgain);
        assert_eq!(state_after_put(&ChainHead::default(), false), NameState::Live);
        tail.state = NameState::PutAgain;
        assert_eq!(state_after_put(&tail, true), NameState::PutAgain);
        tail.state = NameState::Deleted;
        assert_eq!(state_after_put(&tail, false), NameState::PutAgain);
    }

    #[test]
    fn a_delete_of_the_newest_version_records_the_next_one() {
        let (first, second) = (top(1, "a"), top(2, "b"));
        let deleted = [second.identity.clone()];
        let left = NewestVersion::Is(first.identity.clone());
        assert_eq!(newest_after_delete(&live(Some(&second)), &deleted, Some(&first)), left);
        assert_eq!(newest_after_delete(&live(None), &deleted, Some(&first)), left);
        // The live version may belong to another life.
        let theirs = live(Some(&top(1, "ours")));
        assert_eq!(newest_after_delete(&theirs, &deleted, Some(&first)), NewestVersion::Unchanged);
        assert_eq!(
            newest_after_delete(&live(Some(&second)), &deleted, None),
            NewestVersion::Unchanged
        );
    }

    #[test]
    fn a_restore_resumes_the_life_that_a_delete_ended() {
        let (first, second) = (top(1, "a"), top(2, "b"));
        let deleted = ChainHead::standing(NameState::Deleted, 2, None);
        // The life of the restored version continues, even one of an earlier owner.
        for life in [1, 2] {
            let resumes = NewestVersion::ResumesLife(second.identity.clone(), life);
            let stands = after_restore(&deleted, Some((&second.identity, Some(life))), None);
            assert_eq!(stands, (NameState::Live, resumes));
        }
        // An unknown life cannot be one in which a policy was put.
        let begins = NewestVersion::BeginsLife(second.identity.clone());
        let stands = after_restore(&deleted, Some((&second.identity, None)), None);
        assert_eq!(stands, (NameState::PutAgain, begins));
        // Another client put the name after the delete.
        for (restored, expected) in [(&second, &second), (&top(1, "ours"), &second)] {
            let theirs = if restored == &second { &first } else { &second };
            let begins = NewestVersion::BeginsLife(expected.identity.clone());
            let restored = Some((&restored.identity, Some(2)));
            let stands = after_restore(&deleted, restored, Some(theirs));
            assert_eq!(stands, (NameState::PutAgain, begins));
        }
        // A single version, restored to a live name.
        for state in [NameState::Live, NameState::PutAgain] {
            let tail = ChainHead::standing(state, 1, Some(first.identity.clone()));
            let stands = after_restore(&tail, Some((&second.identity, Some(1))), Some(&first));
            assert_eq!(stands, (state, NewestVersion::Unchanged));
            // Another client's delete or an expiry ended the life without an event.
            let resumes = NewestVersion::ResumesLife(first.identity.clone(), 1);
            let stands = after_restore(&tail, Some((&first.identity, Some(1))), None);
            assert_eq!(stands, (NameState::Live, resumes));
        }
    }

    #[test]
    fn the_life_of_a_deleted_version_is_recorded_or_the_current_one() {
        let tail = ChainHead::standing(NameState::Deleted, 5, None);
        assert_eq!(life_of_deleted(&tail, Some(3), 4), Some(3));
        assert_eq!(life_of_deleted(&tail, None, 6), Some(5));
        assert_eq!(life_of_deleted(&tail, None, 4), None);
        // Written before events had this attribute.
        assert_eq!(
            life_of_deleted(&ChainHead::standing(NameState::Deleted, 0, None), None, 4),
            Some(0)
        );
    }

    #[test]
    fn a_life_without_a_number_gets_one_when_it_ends() {
        let first = top(1, "a").identity;
        assert_eq!(
            ChainHead::standing(NameState::PutAgain, 0, Some(first.clone())).life_when_deleted(),
            4
        );
        for (state, life) in [(NameState::PutAgain, 2), (NameState::Live, 0), (NameState::Live, 2)]
        {
            assert_eq!(
                ChainHead::standing(state, life, Some(first.clone())).life_when_deleted(),
                life
            );
        }
    }

    #[test]
    fn a_rewritten_row_stays_the_newest() {
        let (old, new) = (row("1", mac("md5")), row("1", mac("sha256")));
        let tail = live(Some(&HighestVersion::of(&old).unwrap()));
        let is = NewestVersion::Is(RowIdentity::of(&new).unwrap());
        assert_eq!(newest_after_rewrite(&tail, [(&old, &new)]), is);
        assert_eq!(
            newest_after_rewrite(&tail, [(&row("2", mac("x")), &new)]),
            NewestVersion::Unchanged
        );
        assert_eq!(newest_after_rewrite(&live(None), [(&old, &new)]), NewestVersion::Unchanged);
    }
}
