//! Chains for the tests of this module.

use super::{
    Caller, ChainHead, Check, EVENT, EventKind, Fault, NameState, NewEvent, NewestVersion,
};
use crate::name::{Name, Version, VersionKey};
use crate::row::{Row, RowIdentity};
use crate::timestamp::Timestamp;

pub(super) const LONG_AGO: i64 = 1_000;
pub(super) const NOW: i64 = 2_000;

pub(super) fn caller() -> Caller {
    Caller { who: "direct".to_owned(), request_id: "r".to_owned() }
}

pub(super) fn name() -> Name {
    "n".parse().unwrap()
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds).unwrap()
}

pub(super) fn put(versions: Vec<VersionKey>) -> NewEvent {
    NewEvent {
        kind: EventKind::Put,
        versions,
        forced: false,
        state: NameState::Live,
        recoverable_until: None,
        newest: NewestVersion::Unchanged,
    }
}

/// Returns a chain of puts and its head. Each event gets one of these `ttl`s, unless an earlier
/// event is kept longer.
pub(super) fn ending(ends: &[Option<i64>]) -> (Vec<Row>, Row) {
    let caller = caller();
    let (mut tail, mut rows) = (ChainHead::default(), Vec::new());
    for end in ends {
        let ttl = end.map(at);
        let (row, next) = tail.follow(&name(), &put(Vec::new()), &caller, ttl, false);
        rows.push(row);
        // As the next writer reads it.
        tail = ChainHead::of(&[next.to_head(&name()), rows[rows.len() - 1].clone()]).unwrap();
    }
    let head = tail.to_head(&name());
    (rows, head)
}

pub(super) fn identity(version: u64) -> RowIdentity {
    RowIdentity::stored(format!("{version:019}#0123456789abcdef"))
}

/// Returns a chain of ten puts and its head. The first `expired` events have expired.
pub(super) fn chain(expired: usize, headless: bool) -> (Vec<Row>, Row) {
    let caller = caller();
    let mut tail = ChainHead::default();
    let mut rows = Vec::new();
    for version in 1..=10_u64 {
        let versions = vec![VersionKey::from(Version::new(version).unwrap())];
        let newest = match version {
            1 => NewestVersion::BeginsLife(identity(version)),
            _ => NewestVersion::Is(identity(version)),
        };
        let change = NewEvent { newest, ..put(versions) };
        let ttl = if rows.len() < expired { LONG_AGO } else { NOW + 1_000 };
        let (row, next) = tail.follow(&name(), &change, &caller, Some(at(ttl)), headless);
        rows.push(row);
        tail = next;
    }
    (rows, tail.to_head(&name()))
}

/// Checks a chain. Returns the number, or `head`, and the fault of each row that is reported.
pub(super) fn faults(rows: &[Row], head: Option<&Row>) -> Vec<(String, Fault)> {
    let mut check = Check::new(head, at(NOW));
    for row in rows {
        check.entry(row);
    }
    let broken = check.finish(head).1;
    broken.into_iter().map(|broken| (broken.entry.replace(EVENT, ""), broken.fault)).collect()
}

/// Returns a fault of the event with this number, as [`faults`] returns it.
pub(super) fn numbered(sequence: u64, fault: Fault) -> (String, Fault) {
    (format!("{sequence:019}"), fault)
}
