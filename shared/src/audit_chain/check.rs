//! The check that finds altered and missing events.

use std::collections::BTreeSet;

use super::{ChainHead, HEAD, hash, key, moment, sequence};
use crate::row::{Attribute, Row};
use crate::timestamp::Timestamp;

/// What is wrong with a row of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// It was changed after it was written.
    Altered,
    /// It was written, its `ttl` has not passed, and it is gone.
    Missing,
}

/// A row of the chain that is altered or missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Broken {
    /// The sort key of the row in the ledger.
    pub entry: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// A check in progress. It takes the events one by one, oldest first.
#[derive(Debug)]
pub struct Check {
    now: Timestamp,
    broken: BTreeSet<Broken>,
    entries: u64,
    last: Option<LastEvent>,
    /// The event that the head records.
    head_event: Option<ChainHead>,
    /// The number of the newest event that was written together with a head.
    newest_with_head: u64,
    head: Option<ChainHead>,
}

/// The event that was checked last. Its hash is empty if it is altered.
#[derive(Debug)]
struct LastEvent {
    sequence: u64,
    hash: Vec<u8>,
}

impl Check {
    /// The most missing events that are reported between two others: the last ones.
    const MAX_REPORTED: u64 = 1000;

    /// Begins a check of the chain with this head, if it has one.
    #[must_use]
    pub fn new(head: Option<&Row>, now: Timestamp) -> Self {
        let mut broken = BTreeSet::new();
        let tail = head.and_then(ChainHead::from_head);
        if head.is_some() && tail.is_none() {
            broken.insert(Broken { entry: HEAD.to_owned(), fault: Fault::Altered });
        }
        Self {
            now,
            broken,
            entries: 0,
            last: None,
            head_event: None,
            newest_with_head: 0,
            head: tail,
        }
    }

    /// Checks the next event.
    pub fn entry(&mut self, row: &Row) {
        self.entries += 1;
        let text = |name: &str| row.get(name).and_then(Attribute::text).unwrap_or_default();
        let entry = text("entry").to_owned();
        let stored = row.get("hash").and_then(Attribute::bytes);
        // `None` if the row has an attribute of an unsupported type.
        let hash = hash(row).filter(|hash| Some(hash.as_slice()) == stored);
        let (Some(sequence), Some(hash)) = (sequence(row), hash) else {
            self.report(entry, Fault::Altered);
            // The next event has the correct hash of this one, but there is nothing left to compare
            // it with.
            if let Some(sequence) = sequence(row) {
                self.check_gap(sequence, moment(row, "previous_ttl"));
                self.last = Some(LastEvent { sequence, hash: Vec::new() });
            }
            return;
        };
        let previous = row.get("previous").and_then(Attribute::bytes).unwrap_or_default();
        self.check_gap(sequence, moment(row, "previous_ttl"));
        if let Some(last) = &self.last
            && last.sequence + 1 == sequence
            && !last.hash.is_empty()
            && last.hash != previous
        {
            // Both events match their own hashes, but this one refers to another event in that
            // place.
            let entry = key(last.sequence);
            self.report(entry, Fault::Altered);
        }
        if self.head.as_ref().is_some_and(|head| head.sequence == sequence) {
            self.head_event = ChainHead::from_event(row);
        }
        // A bundle writes events without heads.
        if !row.get("headless").is_some_and(Attribute::is_set) {
            self.newest_with_head = sequence;
        }
        self.last = Some(LastEvent { sequence, hash });
    }

    /// Reports the events that are missing before this one, unless the `ttl` of the last missing
    /// one has passed. It is the latest of theirs.
    fn check_gap(&mut self, sequence: u64, previous_ttl: Option<Timestamp>) {
        let after = self.last.as_ref().map_or(0, |last| last.sequence);
        self.report_missing(after + 1, sequence, previous_ttl);
    }

    /// Reports the events `from..to` as missing, unless `ttl` has passed.
    fn report_missing(&mut self, from: u64, to: u64, ttl: Option<Timestamp>) {
        if ttl.is_some_and(|end| end <= self.now) {
            return;
        }
        for sequence in from.max(to.saturating_sub(Self::MAX_REPORTED))..to {
            self.report(key(sequence), Fault::Missing);
        }
    }

    fn report(&mut self, entry: String, fault: Fault) {
        self.broken.insert(Broken { entry, fault });
    }

    /// Ends the check with the current head. Returns how many events there are, and the rows that
    /// are altered or missing, sorted by sort key.
    #[must_use]
    pub fn finish(mut self, head: Option<&Row>) -> (u64, Vec<Broken>) {
        let last = self.last.take();
        if let Some(before) = self.head.take() {
            let end = last.as_ref().map_or(0, |last| last.sequence);
            self.report_missing(end + 1, before.sequence + 1, before.ttl);
            if let Some(event) = self.head_event.take().filter(|event| *event != before) {
                // Either the event matches its own hash but not the head's, or the head records
                // something else about it.
                let same = event.hash == before.hash;
                let entry = if same { HEAD.to_owned() } else { key(before.sequence) };
                self.report(entry, Fault::Altered);
            }
        }
        // The head only ever moves to newer events.
        let now = head.and_then(ChainHead::from_head).map_or(0, |head| head.sequence);
        if self.newest_with_head > now {
            let fault = if head.is_some() { Fault::Altered } else { Fault::Missing };
            self.report(HEAD.to_owned(), fault);
        }
        (self.entries, self.broken.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{
        LONG_AGO, NOW, at, caller, chain, ending, faults, name, numbered, put,
    };
    use super::super::{EventKind, NameState, NewEvent};
    use super::*;

    #[test]
    fn an_unchanged_chain_passes() {
        let (rows, head) = chain(0, false);
        assert_eq!(faults(&rows, Some(&head)), []);
        assert_eq!(ChainHead::of(&[head.clone(), rows[9].clone()]).unwrap().sequence, 10);
        assert_eq!(ChainHead::of(&[head]).unwrap().highest.unwrap().number(), 10);
        assert_eq!(ChainHead::of(&[]), Some(ChainHead::default()));
        assert_eq!(ChainHead::of(&[Row::new()]), None);
    }

    #[test]
    fn a_change_to_any_attribute_is_found() {
        let (rows, head) = chain(0, false);
        for index in 0..rows.len() {
            for attribute in rows[index].keys().filter(|name| *name != "entry") {
                for value in [
                    Attribute::Text("edited".to_owned()),
                    Attribute::Bytes(vec![]),
                    Attribute::Foreign,
                ] {
                    let mut edited = rows.clone();
                    edited[index].insert(attribute.clone(), value);
                    let found = faults(&edited, Some(&head));
                    let sequence = index as u64 + 1;
                    assert_eq!(found, [numbered(sequence, Fault::Altered)], "{attribute}");
                }
            }
            // An added attribute and a removed hash are found too.
            let mut edited = rows.clone();
            edited[index].insert("force".to_owned(), Attribute::Foreign);
            edited[index].remove("hash");
            let found = faults(&edited, Some(&head));
            assert_eq!(found, [numbered(index as u64 + 1, Fault::Altered)]);
        }
    }

    #[test]
    fn a_change_to_the_head_is_found() {
        let (rows, head) = chain(0, false);
        for (attribute, value) in [
            ("highest", Attribute::Text("9".repeat(19))),
            ("state", Attribute::Text("anew".to_owned())),
            ("life", Attribute::Number("2".to_owned())),
            ("newest", Attribute::Text("1#0".to_owned())),
            ("previous_ttl", Attribute::Number("1".to_owned())),
        ] {
            let mut edited = head.clone();
            edited.insert(attribute.to_owned(), value);
            assert_eq!(faults(&rows, Some(&edited)), [(HEAD.to_owned(), Fault::Altered)]);
        }
    }

    #[test]
    fn a_rewritten_event_is_found() {
        let (rows, head) = chain(0, false);
        for index in 0..rows.len() {
            let mut edited = rows.clone();
            edited[index].insert("who".to_owned(), Attribute::Text("somebody else".to_owned()));
            let made = hash(&edited[index]).unwrap();
            edited[index].insert("hash".to_owned(), Attribute::Bytes(made));
            let found = faults(&edited, Some(&head));
            assert_eq!(found, [numbered(index as u64 + 1, Fault::Altered)]);
        }
    }

    #[test]
    fn a_removed_event_is_found_in_any_place() {
        let (rows, head) = chain(0, false);
        for index in 0..rows.len() {
            let mut fewer = rows.clone();
            fewer.remove(index);
            let found = faults(&fewer, Some(&head));
            assert_eq!(found, [numbered(index as u64 + 1, Fault::Missing)]);
        }
        assert_eq!(faults(&[], Some(&head)).len(), 10);
        assert_eq!(faults(&rows, None), [(HEAD.to_owned(), Fault::Missing)]);
    }

    #[test]
    fn swapped_events_are_found() {
        let (mut rows, head) = chain(0, false);
        let key = |row: &Row| row.get("entry").unwrap().clone();
        let (third, seventh) = (key(&rows[2]), key(&rows[6]));
        rows.swap(2, 6);
        rows[2].insert("entry".to_owned(), third);
        rows[6].insert("entry".to_owned(), seventh);
        let expected = [numbered(3, Fault::Altered), numbered(7, Fault::Altered)];
        assert_eq!(faults(&rows, Some(&head)), expected);
    }

    #[test]
    fn only_expired_events_may_be_missing() {
        let (rows, head) = chain(4, false);
        assert_eq!(faults(&rows[4..], Some(&head)), []);
        assert_eq!(faults(&rows[2..], Some(&head)), []);
        let found = faults(&rows[5..], Some(&head));
        assert_eq!(found.last(), Some(&numbered(5, Fault::Missing)));
        // DynamoDB removes them in any order.
        let mut holes = rows.clone();
        holes.remove(1);
        assert_eq!(faults(&holes, Some(&head)), []);
        let (_, head) = chain(10, false);
        assert_eq!(faults(&[], Some(&head)), []);
    }

    #[test]
    fn a_lowered_retention_gives_no_event_an_earlier_ttl_than_the_events_before_it() {
        let later = Some(NOW + 1_000);
        let ends = [later, Some(LONG_AGO), Some(NOW + 2_000), Some(LONG_AGO), None, Some(NOW)];
        let (rows, head) = ending(&ends);
        let found: Vec<_> =
            rows.iter().map(|row| moment(row, "ttl").map(Timestamp::unix)).collect();
        let longest = Some(NOW + 2_000);
        assert_eq!(found, [later, later, longest, longest, None, None]);
        assert_eq!(moment(&head, "previous_ttl"), None);
        assert_eq!(faults(&rows, Some(&head)), []);
    }

    #[test]
    fn a_missing_event_is_found_although_a_later_one_would_have_expired_first() {
        // The retention was lowered after the first three events.
        let later = Some(NOW + 1_000);
        let (rows, head) = ending(&[later, later, later, Some(LONG_AGO), Some(NOW + 10)]);
        let fewer = [rows[0].clone(), rows[4].clone()];
        let expected: Vec<_> = (2..=4).map(|number| numbered(number, Fault::Missing)).collect();
        assert_eq!(faults(&fewer, Some(&head)), expected);
        // Also if the end of the chain is missing.
        let (rows, head) = ending(&[later, later, Some(LONG_AGO)]);
        let expected: Vec<_> = (2..=3).map(|number| numbered(number, Fault::Missing)).collect();
        assert_eq!(faults(&rows[..1], Some(&head)), expected);
    }

    #[test]
    fn a_chain_of_an_earlier_release_with_a_lowered_retention_passes() {
        let (rows, head) = ending(&[Some(NOW + 1_000), Some(NOW + 1_000)]);
        // Written without the rule: the second expires before the first.
        let mut second = rows[1].clone();
        second.insert("ttl".to_owned(), Attribute::Number(LONG_AGO.to_string()));
        let made = hash(&second).unwrap();
        second.insert("hash".to_owned(), Attribute::Bytes(made.clone()));
        let mut head = head;
        head.insert("previous".to_owned(), Attribute::Bytes(made));
        head.insert("previous_ttl".to_owned(), Attribute::Number(LONG_AGO.to_string()));
        assert_eq!(faults(&[rows[0].clone(), second], Some(&head)), []);
        assert_eq!(faults(&rows[..1], Some(&head)), []);
    }

    #[test]
    fn a_delete_records_the_end_of_the_recovery_window_under_the_hash() {
        let caller = caller();
        let change = NewEvent {
            kind: EventKind::Delete,
            state: NameState::Deleted,
            recoverable_until: Some(at(NOW)),
            ..put(Vec::new())
        };
        let (row, tail) = ChainHead::default().follow(&name(), &change, &caller, None, false);
        assert_eq!(row["recoverable_until"].text(), Some("1970-01-01T00:33:20Z"));
        let head = tail.to_head(&name());
        assert_eq!(faults(std::slice::from_ref(&row), Some(&head)), []);
        let mut edited = row;
        edited.insert("recoverable_until".to_owned(), Attribute::Text("later".to_owned()));
        assert_eq!(faults(&[edited], Some(&head)), [numbered(1, Fault::Altered)]);
    }

    #[test]
    fn events_of_a_bundle_need_no_head() {
        let (rows, head) = chain(0, true);
        assert_eq!(faults(&rows, None), []);
        assert_eq!(faults(&rows, Some(&head)), []);
        // From these rows: those of another chain may be a second younger.
        let older = ChainHead::of(&rows[3..4]).unwrap().to_head(&name());
        assert_eq!(faults(&rows, Some(&older)), []);
        assert_eq!(ChainHead::of(&[older, rows[9].clone()]).unwrap().sequence, 10);
    }
}
