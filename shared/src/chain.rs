//! The events of a name as a chain: what an entry of the ledger says, how it holds the one before
//! it, and whether all of them are still there as they were written.
//!
//! ```text
//! hash(n) = SHA-256(canonical(every attribute of entry n but `hash`)), previous(n + 1) = hash(n)
//! ```
//!
//! [`canonical`] is the form that a seal is of, too. The entry's name and place are among its
//! attributes, so an entry that is edited, moved or taken away shows.
//!
//! The hash has no key. Whoever may write the ledger directly can append an event that never
//! happened together with a new head, or rewrite a chain from any entry to its end, and the check
//! passes. The check finds accidental damage and changes by somebody who does not recompute the
//! hashes. To find the rest, compare with copies of the events outside the ledger, such as an
//! archive of the bus they are sent to.
//!
//! Retention removes entries when their `ttl` has passed. No entry ends before one that precedes
//! it, even where the stack's retention was lowered, so that the end of the last missing entry is
//! the latest of all that are missing. Releases before this rule did not follow it: among their
//! entries, one that was removed early is excused once the last missing one has ended.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::life::Identity;
use crate::moment::Moment;
use crate::name::{Label, Name, Version};
use crate::row::{Attribute, Row, canonical};

/// What the sort key of every event begins with; 19 digits follow.
pub const EVENT: &str = "event#";
/// The sort key of the head: what the newest entry was when the head was written last.
pub const HEAD: &str = "head";

/// Who asked for a change, for the record. It authorises nothing: whoever may invoke a function
/// directly can say what they like.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The IAM ARN that the API authenticated, or `direct`.
    pub who: String,
    /// Lambda's id of the request.
    pub request_id: String,
}

/// What was done to a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Versions were put.
    Put,
    /// Versions were moved to the ledger, or removed.
    Delete,
    /// Versions were moved back.
    Restore,
    /// A version with a generated value was put, by a policy.
    Renew,
    /// Rows that other clients wrote were given a seal.
    Reseal,
    /// A rotation policy was put.
    Policy,
    /// The rotation policy was taken away.
    Cancel,
}

impl EventKind {
    /// The act as the ledger and answers have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Restore => "restore",
            Self::Renew => "renew",
            Self::Reseal => "reseal",
            Self::Policy => "policy",
            Self::Cancel => "cancel",
        }
    }
}

/// How a name stands after an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It has versions, or never had any.
    #[default]
    Live,
    /// Its last version was deleted.
    Deleted,
    /// It was put anew since.
    Anew,
}

impl State {
    fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Live => None,
            Self::Deleted => Some("deleted"),
            Self::Anew => Some("anew"),
        }
    }

    fn of(row: &Row) -> Self {
        match row.get("state").and_then(Attribute::text) {
            Some("deleted") => Self::Deleted,
            Some("anew") => Self::Anew,
            _ => Self::Live,
        }
    }
}

/// A change to be told of.
#[derive(Debug)]
pub struct NewEvent {
    /// What is done.
    pub kind: EventKind,
    /// To which versions.
    pub versions: Vec<Label>,
    /// Whether they are removed for good.
    pub forced: bool,
    /// How the name stands then.
    pub state: State,
    /// Until when what is deleted can be restored; none for any other change.
    pub recoverable_until: Option<Moment>,
    /// Which row is the newest live version after it.
    pub newest: Newest,
}

/// What an event records of the newest live version of its name: see [`crate::life`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Newest {
    /// The same as the event before it; nothing if the last version was deleted.
    Kept,
    /// It is this row.
    Is(Identity),
    /// It is this row, and this event begins a life of the name.
    Begins(Identity),
    /// It is this row, and the life of this number goes on: a restore brought back what belongs
    /// to it.
    Resumes(Identity, u64),
}

/// The end of a chain: what the next entry has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainHead {
    /// The number of the newest entry; 0 where there is none.
    pub sequence: u64,
    /// The highest version there ever was, as far as the ledger knows.
    pub highest: Option<Version>,
    /// How the name stands.
    pub state: State,
    /// The number of the event that began the current life of the name; 0 for a life that is
    /// older than this attribute.
    pub life: u64,
    /// Which row was the newest live version after that entry; none if there was none, or if it
    /// is not known.
    pub newest: Option<Identity>,
    hash: Vec<u8>,
    ttl: Option<Moment>,
}

impl ChainHead {
    /// The end of a chain of three events.
    #[cfg(test)]
    pub(crate) fn standing(state: State, life: u64, newest: Option<Identity>) -> Self {
        Self { sequence: 3, state, life, newest, ..Self::default() }
    }

    /// The end of a chain by its newest entry and its head, whichever is newer. A bundle writes
    /// entries without their heads, so a head may lag; retention takes entries, so it may be all
    /// there is. `None` where one of them cannot be read.
    #[must_use]
    pub fn of(rows: &[Row]) -> Option<Self> {
        if rows.is_empty() {
            return Some(Self::default());
        }
        let is_head = |row: &&Row| row.get("entry").and_then(Attribute::text) == Some(HEAD);
        let head = match rows.iter().find(is_head) {
            Some(row) => Some(Self::head(row)?),
            None => None,
        };
        let newest = match rows.iter().find(|row| !is_head(row)) {
            // One that cannot be read is none to follow, unless the head is about it or a later one.
            Some(row) => match (Self::entry(row), &head) {
                (Some(newest), _) => Some(newest),
                (None, Some(head)) if sequence(row)? <= head.sequence => None,
                (None, _) => return None,
            },
            None => None,
        };
        // On a tie the head is believed: it is what the entry was when it was written.
        match (newest, head) {
            (Some(newest), Some(head)) if newest.sequence > head.sequence => Some(newest),
            (newest, head) => head.or(newest),
        }
    }

    fn head(row: &Row) -> Option<Self> {
        Some(Self {
            sequence: u64::try_from(row.get("sequence")?.integer()?).ok()?,
            hash: row.get("previous")?.bytes()?.to_vec(),
            ttl: moment(row, "previous_ttl"),
            highest: highest(row),
            state: State::of(row),
            life: life(row)?,
            newest: newest(row),
        })
    }

    fn entry(row: &Row) -> Option<Self> {
        Some(Self {
            sequence: sequence(row)?,
            hash: row.get("hash")?.bytes()?.to_vec(),
            ttl: moment(row, "ttl"),
            highest: highest(row),
            state: State::of(row),
            life: life(row)?,
            newest: newest(row),
        })
    }

    /// When an entry ends that is written now, if the stack's retention says `ttl`: never before
    /// the entries that it follows, and never at all if one of them is kept for good.
    fn end(&self, ttl: Option<Moment>) -> Option<Moment> {
        if self.sequence == 0 {
            ttl
        } else {
            self.ttl.zip(ttl).map(|(before, ttl)| before.max(ttl))
        }
    }

    /// Whether the life has no number although it is not the first: it began after a delete that
    /// is older than the attribute.
    #[must_use]
    pub fn is_unnumbered(&self) -> bool {
        self.life == 0 && self.state == State::Anew
    }

    /// The life of a name whose last version the next event deletes. One without a number gets
    /// it, so that a restore does not make it the first life.
    #[must_use]
    pub fn life_when_deleted(&self) -> u64 {
        if self.is_unnumbered() { self.sequence + 1 } else { self.life }
    }

    /// The entry that tells of a change, and the end of the chain with it. `ttl` is when
    /// retention removes it, or later if an earlier entry is kept longer; `headless` says that its
    /// head is not written with it.
    #[must_use]
    pub fn follow(
        &self,
        name: &Name,
        change: &NewEvent,
        caller: &Caller,
        ttl: Option<Moment>,
        headless: bool,
    ) -> (Row, Self) {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let number = |moment: Moment| Attribute::Number(moment.unix().to_string());
        let ttl = self.end(ttl);
        let numbers = change.versions.iter().filter_map(Label::number).filter_map(Version::new);
        let sequence = self.sequence + 1;
        let (life, newest) = match &change.newest {
            _ if change.state == State::Deleted => (self.life_when_deleted(), None),
            Newest::Kept => (self.life, self.newest.clone()),
            Newest::Is(identity) => (self.life, Some(identity.clone())),
            Newest::Begins(identity) => (sequence, Some(identity.clone())),
            Newest::Resumes(identity, life) => (*life, Some(identity.clone())),
        };
        let mut tail = Self {
            sequence,
            highest: numbers.chain(self.highest).max(),
            state: change.state,
            life,
            newest,
            ttl,
            hash: Vec::new(),
        };
        let versions: BTreeSet<_> = change.versions.iter().map(Label::shown).collect();
        let mut row = Row::from([
            ("name".to_owned(), text(name.as_str())),
            ("entry".to_owned(), text(&key(tail.sequence))),
            ("operation".to_owned(), text(change.kind.as_str())),
            ("at".to_owned(), Attribute::Text(Moment::now().to_string())),
            ("who".to_owned(), text(&caller.who)),
            ("request_id".to_owned(), text(&caller.request_id)),
        ]);
        // DynamoDB has no empty sets.
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
        tail.describe(&mut row);
        if let Some(ttl) = ttl {
            row.insert("ttl".to_owned(), number(ttl));
        }
        if self.sequence > 0 {
            self.hold(&mut row);
        }
        tail.hash = hash(&row).unwrap_or_default();
        row.insert("hash".to_owned(), Attribute::Bytes(tail.hash.clone()));
        (row, tail)
    }

    /// The head that says so.
    #[must_use]
    pub fn to_head(&self, name: &Name) -> Row {
        let mut row = Row::from([
            ("name".to_owned(), Attribute::Text(name.as_str().to_owned())),
            ("entry".to_owned(), Attribute::Text(HEAD.to_owned())),
            ("sequence".to_owned(), Attribute::Number(self.sequence.to_string())),
        ]);
        self.describe(&mut row);
        self.hold(&mut row);
        row
    }

    fn describe(&self, row: &mut Row) {
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

    fn hold(&self, row: &mut Row) {
        row.insert("previous".to_owned(), Attribute::Bytes(self.hash.clone()));
        if let Some(ttl) = self.ttl {
            let ttl = Attribute::Number(ttl.unix().to_string());
            row.insert("previous_ttl".to_owned(), ttl);
        }
    }
}

/// The sort key of an entry.
#[must_use]
pub fn key(sequence: u64) -> String {
    format!("{EVENT}{sequence:019}")
}

/// 19 digits, nothing else.
fn sequence(row: &Row) -> Option<u64> {
    let digits = row.get("entry")?.text()?.strip_prefix(EVENT)?;
    let all = digits.len() == 19 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| all)
}

fn highest(row: &Row) -> Option<Version> {
    row.get("highest")?.text()?.parse().ok().and_then(Version::new)
}

/// 0 if the attribute is absent; `None` if it is not a number.
fn life(row: &Row) -> Option<u64> {
    row.get("life").map_or(Some(0), |life| life.integer()?.try_into().ok())
}

fn newest(row: &Row) -> Option<Identity> {
    row.get("newest").and_then(Attribute::text).map(Identity::stored)
}

fn moment(row: &Row, name: &str) -> Option<Moment> {
    row.get(name)?.integer().and_then(Moment::from_unix)
}

fn hash(row: &Row) -> Option<Vec<u8>> {
    let bytes = canonical(row.iter().filter(|(name, _)| *name != "hash"))?;
    Some(Sha256::digest(bytes).to_vec())
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// It is not what was written.
    Altered,
    /// It was written, its time is not over, and it is not there.
    Missing,
}

/// An entry that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Broken {
    /// Its sort key in the ledger.
    pub entry: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// Checks a chain as it goes by, oldest entry first.
#[derive(Debug)]
pub struct Check {
    now: Moment,
    broken: BTreeSet<Broken>,
    entries: u64,
    last: Option<Seen>,
    /// The entry that the head is about.
    attested: Option<ChainHead>,
    /// The newest entry that was written with its head.
    headed: u64,
    head: Option<ChainHead>,
}

#[derive(Debug)]
struct Seen {
    sequence: u64,
    hash: Vec<u8>,
}

impl Check {
    /// More gaps than this between two entries are not named one by one.
    const NAMED: u64 = 1000;

    /// Begins a check of the chain that has this head, if it has one.
    #[must_use]
    pub fn new(head: Option<&Row>, now: Moment) -> Self {
        let mut broken = BTreeSet::new();
        let tail = head.and_then(ChainHead::head);
        if head.is_some() && tail.is_none() {
            broken.insert(Broken { entry: HEAD.to_owned(), fault: Fault::Altered });
        }
        Self { now, broken, entries: 0, last: None, attested: None, headed: 0, head: tail }
    }

    /// The next entry.
    pub fn entry(&mut self, row: &Row) {
        self.entries += 1;
        let text = |name: &str| row.get(name).and_then(Attribute::text).unwrap_or_default();
        let place = text("entry").to_owned();
        let stored = row.get("hash").and_then(Attribute::bytes);
        // None for an attribute of a type that no entry has.
        let made = hash(row).filter(|made| Some(made.as_slice()) == stored);
        let (Some(sequence), Some(made)) = (sequence(row), made) else {
            self.blame(place, Fault::Altered);
            // What it should have been is what the one after it holds: nothing more to compare.
            if let Some(sequence) = sequence(row) {
                self.gap(sequence, moment(row, "previous_ttl"));
                self.last = Some(Seen { sequence, hash: Vec::new() });
            }
            return;
        };
        let previous = row.get("previous").and_then(Attribute::bytes).unwrap_or_default();
        self.gap(sequence, moment(row, "previous_ttl"));
        if let Some(last) = &self.last
            && last.sequence + 1 == sequence
            && !last.hash.is_empty()
            && last.hash != previous
        {
            // It is whole in itself, and so is this one, which holds another in its place.
            let place = key(last.sequence);
            self.blame(place, Fault::Altered);
        }
        if self.head.as_ref().is_some_and(|head| head.sequence == sequence) {
            self.attested = ChainHead::entry(row);
        }
        // A bundle writes entries without heads.
        if !row.get("headless").is_some_and(Attribute::is_set) {
            self.headed = sequence;
        }
        self.last = Some(Seen { sequence, hash: made });
    }

    /// Names what is missing between the last entry and this one, unless the end of the last
    /// missing one has passed, which is the latest of their ends.
    fn gap(&mut self, sequence: u64, previous_ttl: Option<Moment>) {
        let after = self.last.as_ref().map_or(0, |last| last.sequence);
        self.lacks(after + 1, sequence, previous_ttl);
    }

    fn lacks(&mut self, from: u64, to: u64, ttl: Option<Moment>) {
        if ttl.is_some_and(|end| end <= self.now) {
            return;
        }
        for sequence in from.max(to.saturating_sub(Self::NAMED))..to {
            self.blame(key(sequence), Fault::Missing);
        }
    }

    fn blame(&mut self, entry: String, fault: Fault) {
        self.broken.insert(Broken { entry, fault });
    }

    /// Ends the check, with the head as it is now: how many entries there are, and which are not
    /// as they should be.
    #[must_use]
    pub fn finish(mut self, head: Option<&Row>) -> (u64, Vec<Broken>) {
        let last = self.last.take();
        if let Some(before) = self.head.take() {
            let end = last.as_ref().map_or(0, |last| last.sequence);
            self.lacks(end + 1, before.sequence + 1, before.ttl);
            if let Some(attested) = self.attested.take().filter(|attested| *attested != before) {
                // Whole in itself and not what the head holds; or the head tells otherwise of it.
                let same = attested.hash == before.hash;
                let blamed = if same { HEAD.to_owned() } else { key(before.sequence) };
                self.blame(blamed, Fault::Altered);
            }
        }
        // A head is only ever followed by newer ones.
        let now = head.and_then(ChainHead::head).map_or(0, |head| head.sequence);
        if self.headed > now {
            let fault = if head.is_some() { Fault::Altered } else { Fault::Missing };
            self.blame(HEAD.to_owned(), fault);
        }
        (self.entries, self.broken.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_AGO: i64 = 1_000;
    const NOW: i64 = 2_000;

    fn name() -> Name {
        "n".parse().unwrap()
    }

    fn at(seconds: i64) -> Moment {
        Moment::from_unix(seconds).unwrap()
    }

    fn put(versions: Vec<Label>) -> NewEvent {
        NewEvent {
            kind: EventKind::Put,
            versions,
            forced: false,
            state: State::Live,
            recoverable_until: None,
            newest: Newest::Kept,
        }
    }

    /// Puts whose entries would end at these times if each were alone, and their head.
    fn ending(ends: &[Option<i64>]) -> (Vec<Row>, Row) {
        let caller = Caller { who: "direct".to_owned(), request_id: "r".to_owned() };
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

    fn identity(version: u64) -> Identity {
        Identity::stored(format!("{version:019}#0123456789abcdef"))
    }

    /// Ten puts; the entries before `expired` have had their time.
    fn chain(expired: usize, headless: bool) -> (Vec<Row>, Row) {
        let caller = Caller { who: "direct".to_owned(), request_id: "r".to_owned() };
        let mut tail = ChainHead::default();
        let mut rows = Vec::new();
        for version in 1..=10_u64 {
            let versions = vec![Label::from(Version::new(version).unwrap())];
            let newest = match version {
                1 => Newest::Begins(identity(version)),
                _ => Newest::Is(identity(version)),
            };
            let change = NewEvent { newest, ..put(versions) };
            let ttl = if rows.len() < expired { LONG_AGO } else { NOW + 1_000 };
            let (row, next) = tail.follow(&name(), &change, &caller, Some(at(ttl)), headless);
            rows.push(row);
            tail = next;
        }
        (rows, tail.to_head(&name()))
    }

    fn faults(rows: &[Row], head: Option<&Row>) -> Vec<(String, Fault)> {
        let mut check = Check::new(head, at(NOW));
        for row in rows {
            check.entry(row);
        }
        let broken = check.finish(head).1;
        broken.into_iter().map(|broken| (broken.entry.replace(EVENT, ""), broken.fault)).collect()
    }

    fn numbered(sequence: u64, fault: Fault) -> (String, Fault) {
        (format!("{sequence:019}"), fault)
    }

    #[test]
    fn a_chain_is_whole_as_it_was_written() {
        let (rows, head) = chain(0, false);
        assert_eq!(faults(&rows, Some(&head)), []);
        assert_eq!(ChainHead::of(&[head.clone(), rows[9].clone()]).unwrap().sequence, 10);
        assert_eq!(ChainHead::of(&[head]).unwrap().highest.unwrap().number(), 10);
        assert_eq!(ChainHead::of(&[]), Some(ChainHead::default()));
        assert_eq!(ChainHead::of(&[Row::new()]), None);
    }

    #[test]
    fn every_attribute_of_every_entry_is_held() {
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
            // Nothing can be added, either, nor the hash taken away.
            let mut edited = rows.clone();
            edited[index].insert("force".to_owned(), Attribute::Foreign);
            edited[index].remove("hash");
            let found = faults(&edited, Some(&head));
            assert_eq!(found, [numbered(index as u64 + 1, Fault::Altered)]);
        }
    }

    #[test]
    fn the_head_is_held_by_its_entry() {
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
    fn an_entry_and_its_head_say_the_same_of_a_life() {
        let (rows, head) = chain(0, false);
        for row in [&rows[9], &head] {
            let tail = ChainHead::of(std::slice::from_ref(row)).unwrap();
            assert_eq!((tail.life, tail.newest), (1, Some(identity(10))));
        }
    }

    #[test]
    fn a_delete_ends_a_life_and_a_restore_resumes_it() {
        let caller = Caller { who: "direct".to_owned(), request_id: "r".to_owned() };
        let (rows, head) = chain(0, false);
        let mut tail = ChainHead::of(&[head, rows[9].clone()]).unwrap();
        for (act, state, newest, expected) in [
            (EventKind::Policy, State::Live, Newest::Kept, (1, Some(10))),
            (EventKind::Delete, State::Live, Newest::Is(identity(9)), (1, Some(9))),
            (EventKind::Delete, State::Deleted, Newest::Kept, (1, None)),
            (EventKind::Restore, State::Live, Newest::Is(identity(8)), (1, Some(8))),
            (EventKind::Delete, State::Deleted, Newest::Kept, (1, None)),
            (EventKind::Put, State::Anew, Newest::Begins(identity(11)), (16, Some(11))),
            (EventKind::Renew, State::Anew, Newest::Is(identity(12)), (16, Some(12))),
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
    fn an_entry_that_is_older_than_lives_is_of_life_0() {
        let (rows, _) = chain(0, false);
        let mut old = rows[9].clone();
        old.remove("life");
        old.remove("newest");
        let tail = ChainHead::of(&[old]).unwrap();
        assert_eq!((tail.life, tail.newest), (0, None));
    }

    #[test]
    fn what_cannot_be_read_cannot_be_followed() {
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

    #[test]
    fn an_entry_that_was_written_anew_is_named() {
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
    fn an_entry_that_was_taken_away_is_named_wherever_it_was() {
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
    fn entries_that_changed_places_are_named() {
        let (mut rows, head) = chain(0, false);
        let key = |row: &Row| row.get("entry").unwrap().clone();
        let (third, seventh) = (key(&rows[2]), key(&rows[6]));
        rows.swap(2, 6);
        rows[2].insert("entry".to_owned(), third);
        rows[6].insert("entry".to_owned(), seventh);
        let named = [numbered(3, Fault::Altered), numbered(7, Fault::Altered)];
        assert_eq!(faults(&rows, Some(&head)), named);
    }

    #[test]
    fn retention_may_take_what_has_had_its_time_and_no_more() {
        let (rows, head) = chain(4, false);
        assert_eq!(faults(&rows[4..], Some(&head)), []);
        assert_eq!(faults(&rows[2..], Some(&head)), []);
        let found = faults(&rows[5..], Some(&head));
        assert_eq!(found.last(), Some(&numbered(5, Fault::Missing)));
        // DynamoDB takes them in any order.
        let mut holes = rows.clone();
        holes.remove(1);
        assert_eq!(faults(&holes, Some(&head)), []);
        let (_, head) = chain(10, false);
        assert_eq!(faults(&[], Some(&head)), []);
    }

    #[test]
    fn a_lowered_retention_ends_no_entry_before_those_it_follows() {
        let later = Some(NOW + 1_000);
        let ends = [later, Some(LONG_AGO), Some(NOW + 2_000), Some(LONG_AGO), None, Some(NOW)];
        let (rows, head) = ending(&ends);
        let found: Vec<_> = rows.iter().map(|row| moment(row, "ttl").map(Moment::unix)).collect();
        let longest = Some(NOW + 2_000);
        assert_eq!(found, [later, later, longest, longest, None, None]);
        assert_eq!(moment(&head, "previous_ttl"), None);
        assert_eq!(faults(&rows, Some(&head)), []);
    }

    #[test]
    fn a_missing_entry_is_named_where_a_later_one_was_to_end_first() {
        // The retention was lowered after the first three events.
        let later = Some(NOW + 1_000);
        let (rows, head) = ending(&[later, later, later, Some(LONG_AGO), Some(NOW + 10)]);
        let fewer = [rows[0].clone(), rows[4].clone()];
        let named: Vec<_> = (2..=4).map(|number| numbered(number, Fault::Missing)).collect();
        assert_eq!(faults(&fewer, Some(&head)), named);
        // And where the end of the chain is missing.
        let (rows, head) = ending(&[later, later, Some(LONG_AGO)]);
        let named: Vec<_> = (2..=3).map(|number| numbered(number, Fault::Missing)).collect();
        assert_eq!(faults(&rows[..1], Some(&head)), named);
    }

    #[test]
    fn a_chain_of_an_earlier_release_with_a_lowered_retention_is_still_whole() {
        let (rows, head) = ending(&[Some(NOW + 1_000), Some(NOW + 1_000)]);
        // Written without the rule: the second ends before the first.
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
    fn a_delete_says_until_when_it_can_be_undone_and_the_hash_covers_it() {
        let caller = Caller { who: "direct".to_owned(), request_id: "r".to_owned() };
        let change = NewEvent {
            kind: EventKind::Delete,
            state: State::Deleted,
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
    fn the_entries_of_a_bundle_have_no_head_of_their_own() {
        let (rows, head) = chain(0, true);
        assert_eq!(faults(&rows, None), []);
        assert_eq!(faults(&rows, Some(&head)), []);
        // Of these very rows: those of another chain may be a second younger.
        let older = ChainHead::of(&rows[3..4]).unwrap().to_head(&name());
        assert_eq!(faults(&rows, Some(&older)), []);
        assert_eq!(ChainHead::of(&[older, rows[9].clone()]).unwrap().sequence, 10);
    }
}
