//! The end of a chain: its newest event, and how the next event follows it.

use std::collections::BTreeSet;

use super::{Caller, HEAD, NameState, NewEvent, NewestVersion, hash, key, moment, sequence};
use crate::name::{Name, Version, VersionKey};
use crate::row::{Attribute, Row, RowIdentity};
use crate::timestamp::Timestamp;

/// The end of a chain: what the next event must refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainHead {
    /// The number of the newest event; 0 if there is none.
    pub sequence: u64,
    /// The highest version that was ever put, as far as the ledger records it.
    pub highest: Option<Version>,
    /// The state of the name.
    pub state: NameState,
    /// The number of the event that began the current life of the name; 0 for a life that began
    /// before events had this attribute.
    pub life: u64,
    /// The row that was the newest live version after that event; `None` if there was none, or if
    /// it is not known.
    pub newest: Option<RowIdentity>,
    pub(super) hash: Vec<u8>,
    pub(super) ttl: Option<Timestamp>,
}

impl ChainHead {
    /// Returns the end of a chain of three events.
    #[cfg(test)]
    pub(crate) fn standing(state: NameState, life: u64, newest: Option<RowIdentity>) -> Self {
        Self { sequence: 3, state, life, newest, ..Self::default() }
    }

    /// Returns the end of a chain, from its newest event and its head, whichever is newer.
    ///
    /// A bundle writes events without heads, so a head may be older than the newest event.
    /// Retention removes events, so the head may be all that is left. `None` if one of the rows
    /// cannot be read.
    #[must_use]
    pub fn of(rows: &[Row]) -> Option<Self> {
        if rows.is_empty() {
            return Some(Self::default());
        }
        let is_head = |row: &&Row| row.get("entry").and_then(Attribute::text) == Some(HEAD);
        let head = match rows.iter().find(is_head) {
            Some(row) => Some(Self::from_head(row)?),
            None => None,
        };
        let newest = match rows.iter().find(|row| !is_head(row)) {
            // The next event cannot follow an unreadable one, unless the head is as new or newer.
            Some(row) => match (Self::from_event(row), &head) {
                (Some(newest), _) => Some(newest),
                (None, Some(head)) if sequence(row)? <= head.sequence => None,
                (None, _) => return None,
            },
            None => None,
        };
        // On a tie, use the head: it holds the event as it was when it was written.
        match (newest, head) {
            (Some(newest), Some(head)) if newest.sequence > head.sequence => Some(newest),
            (newest, head) => head.or(newest),
        }
    }

    /// Reads a chain head. `None` if it cannot be read.
    pub(super) fn from_head(row: &Row) -> Option<Self> {
        Some(Self {
            sequence: u64::try_from(row.get("sequence")?.integer()?).ok()?,
            hash: row.get("previous")?.bytes()?.to_vec(),
            ttl: moment(row, "previous_ttl"),
            highest: highest(row),
            state: NameState::from_row(row),
            life: life(row)?,
            newest: newest(row),
        })
    }

    /// Reads an event. `None` if it cannot be read.
    pub(super) fn from_event(row: &Row) -> Option<Self> {
        Some(Self {
            sequence: sequence(row)?,
            hash: row.get("hash")?.bytes()?.to_vec(),
            ttl: moment(row, "ttl"),
            highest: highest(row),
            state: NameState::from_row(row),
            life: life(row)?,
            newest: newest(row),
        })
    }

    /// Returns the `ttl` of the next event if the retention of the stack gives `ttl`: never before
    /// that of an earlier event, and `None` if an earlier event is kept forever.
    fn next_ttl(&self, ttl: Option<Timestamp>) -> Option<Timestamp> {
        if self.sequence == 0 {
            ttl
        } else {
            self.ttl.zip(ttl).map(|(before, ttl)| before.max(ttl))
        }
    }

    /// Returns whether the current life is not the first, but has no number: it began after a
    /// delete, before events recorded lives.
    #[must_use]
    pub fn is_unnumbered(&self) -> bool {
        self.life == 0 && self.state == NameState::PutAgain
    }

    /// Returns the number of the life that the next event ends by deleting the last version. A life
    /// without a number gets one, so that a restore does not make it the first life.
    #[must_use]
    pub fn life_when_deleted(&self) -> u64 {
        if self.is_unnumbered() { self.sequence + 1 } else { self.life }
    }

    /// Returns the event that records `change`, and the end of the chain with it.
    ///
    /// `ttl` is when retention removes the event; it is kept longer if an earlier event is.
    /// `headless` says that no head is written with the event.
    #[must_use]
    pub fn follow(
        &self,
        name: &Name,
        change: &NewEvent,
        caller: &Caller,
        ttl: Option<Timestamp>,
        headless: bool,
    ) -> (Row, Self) {
        let mut tail = self.after(change, ttl);
        let mut row = tail.event(name, change, caller, headless);
        if self.sequence > 0 {
            self.write_previous(&mut row);
        }
        tail.hash = hash(&row).unwrap_or_default();
        row.insert("hash".to_owned(), Attribute::Bytes(tail.hash.clone()));
        (row, tail)
    }

    /// Returns the end of the chain after `change`, without the hash.
    fn after(&self, change: &NewEvent, ttl: Option<Timestamp>) -> Self {
        let numbers =
            change.versions.iter().filter_map(VersionKey::number).filter_map(Version::new);
        let sequence = self.sequence + 1;
        let (life, newest) = match &change.newest {
            _ if change.state == NameState::Deleted => (self.life_when_deleted(), None),
            NewestVersion::Unchanged => (self.life, self.newest.clone()),
            NewestVersion::Is(identity) => (self.life, Some(identity.clone())),
            NewestVersion::BeginsLife(identity) => (sequence, Some(identity.clone())),
            NewestVersion::ResumesLife(identity, life) => (*life, Some(identity.clone())),
        };
        Self {
            sequence,
            highest: numbers.chain(self.highest).max(),
            state: change.state,
            life,
            newest,
            ttl: self.next_ttl(ttl),
            hash: Vec::new(),
        }
    }

    /// Returns the event at this end of the chain, without `previous`, `previous_ttl` and `hash`.
    fn event(&self, name: &Name, change: &NewEvent, caller: &Caller, headless: bool) -> Row {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let mut row = Row::from([
            ("name".to_owned(), text(name.as_str())),
            ("entry".to_owned(), text(&key(self.sequence))),
            ("operation".to_owned(), text(change.kind.as_str())),
            ("at".to_owned(), Attribute::Text(Timestamp::now().to_string())),
            ("who".to_owned(), text(&caller.who)),
            ("request_id".to_owned(), text(&caller.request_id)),
        ]);
        let versions: BTreeSet<_> = change.versions.iter().map(VersionKey::shown).collect();
        // DynamoDB does not store empty sets.
        if !versions.is_empty() {
            row.insert("versions".to_owned(), Attribute::Set(versions));
        }
        for (name, set) in [("force", change.forced), ("headless", headless)] {
            if set {
                row.insert(name.to_owned(), Attribute::Flag(true));
            }
        }
        if let Some(until) = change.recoverable_until {
            row.insert("recoverable_until".to_owned(), Attribute::Text(until.to_string()));
        }
        self.write_state(&mut row);
        if let Some(ttl) = self.ttl {
            row.insert("ttl".to_owned(), Attribute::Number(ttl.unix().to_string()));
        }
        row
    }

    /// Returns the chain head that records this end.
    #[must_use]
    pub fn to_head(&self, name: &Name) -> Row {
        let mut row = Row::from([
            ("name".to_owned(), Attribute::Text(name.as_str().to_owned())),
            ("entry".to_owned(), Attribute::Text(HEAD.to_owned())),
            ("sequence".to_owned(), Attribute::Number(self.sequence.to_string())),
        ]);
        self.write_state(&mut row);
        self.write_previous(&mut row);
        row
    }

    /// Adds what both an event and a head record about this end.
    fn write_state(&self, row: &mut Row) {
        if let Some(highest) = self.highest {
            row.insert("highest".to_owned(), Attribute::Text(highest.padded()));
        }
        if let Some(state) = self.state.as_str() {
            row.insert("state".to_owned(), Attribute::Text(state.to_owned()));
        }
        if self.life > 0 {
            row.insert("life".to_owned(), Attribute::Number(self.life.to_string()));
        }
        if let Some(newest) = &self.newest {
            row.insert("newest".to_owned(), Attribute::Text(newest.as_str().to_owned()));
        }
    }

    /// Adds the hash and the `ttl` of this end, for the row that refers to it.
    fn write_previous(&self, row: &mut Row) {
        row.insert("previous".to_owned(), Attribute::Bytes(self.hash.clone()));
        if let Some(ttl) = self.ttl {
            let ttl = Attribute::Number(ttl.unix().to_string());
            row.insert("previous_ttl".to_owned(), ttl);
        }
    }
}

fn highest(row: &Row) -> Option<Version> {
    row.get("highest")?.text()?.parse().ok().and_then(Version::new)
}

/// Returns the life that a row records: 0 if the attribute is missing, `None` if it is not a
/// number.
fn life(row: &Row) -> Option<u64> {
    row.get("life").map_or(Some(0), |life| life.integer()?.try_into().ok())
}

fn newest(row: &Row) -> Option<RowIdentity> {
    row.get("newest").and_then(Attribute::text).map(RowIdentity::stored)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{caller, chain, identity, name, put};
    use super::super::{EventKind, NewEvent};
    use super::*;

    #[test]
    fn an_event_and_its_head_record_the_same_life() {
        let (rows, head) = chain(0, false);
        for row in [&rows[9], &head] {
            let tail = ChainHead::of(std::slice::from_ref(row)).unwrap();
            assert_eq!((tail.life, tail.newest), (1, Some(identity(10))));
        }
    }

    #[test]
    fn a_delete_ends_a_life_and_a_restore_resumes_it() {
        let caller = caller();
        let (rows, head) = chain(0, false);
        let mut tail = ChainHead::of(&[head, rows[9].clone()]).unwrap();
        for (act, state, newest, expected) in [
            (EventKind::Policy, NameState::Live, NewestVersion::Unchanged, (1, Some(10))),
            (EventKind::Delete, NameState::Live, NewestVersion::Is(identity(9)), (1, Some(9))),
            (EventKind::Delete, NameState::Deleted, NewestVersion::Unchanged, (1, None)),
            (EventKind::Restore, NameState::Live, NewestVersion::Is(identity(8)), (1, Some(8))),
            (EventKind::Delete, NameState::Deleted, NewestVersion::Unchanged, (1, None)),
            (
                EventKind::Put,
                NameState::PutAgain,
                NewestVersion::BeginsLife(identity(11)),
                (16, Some(11)),
            ),
            (
                EventKind::Renew,
                NameState::PutAgain,
                NewestVersion::Is(identity(12)),
                (16, Some(12)),
            ),
        ] {
            let change = NewEvent { kind: act, state, newest, ..put(Vec::new()) };
            let (row, next) = tail.follow(&name(), &change, &caller, None, false);
            tail = next;
            let (life, newest) = expected;
            assert_eq!((tail.life, tail.newest.clone()), (life, newest.map(identity)), "{act:?}");
            assert_eq!(ChainHead::of(&[row]), Some(tail.clone()));
        }
    }

    #[test]
    fn an_event_without_a_life_belongs_to_life_0() {
        let (rows, _) = chain(0, false);
        let mut old = rows[9].clone();
        old.remove("life");
        old.remove("newest");
        let tail = ChainHead::of(&[old]).unwrap();
        assert_eq!((tail.life, tail.newest), (0, None));
    }

    #[test]
    fn an_unreadable_row_cannot_be_followed() {
        let (rows, head) = chain(0, false);
        let entry = |key: &str| {
            Row::from([
                ("name".to_owned(), Attribute::Text("n".to_owned())),
                ("entry".to_owned(), Attribute::Text(key.to_owned())),
            ])
        };
        let newest = rows[9].clone();
        assert_eq!(ChainHead::of(&[entry(HEAD), newest.clone()]), None);
        for key in ["event#x", "event#+000000000000000011", &key(11), "event#18446744073709551615"]
        {
            assert_eq!(ChainHead::of(&[head.clone(), entry(key)]), None, "{key}");
            assert_eq!(ChainHead::of(&[entry(key)]), None, "{key}");
        }
        assert_eq!(ChainHead::of(&[head, entry(&key(10))]).unwrap().sequence, 10);
        let mut huge = newest;
        huge.insert("entry".to_owned(), Attribute::Text("event#18446744073709551615".to_owned()));
        assert_eq!(ChainHead::of(&[huge]), None);
    }
}
