//! The audit chain of a name: its events, each with the hash of the one before, and the check that
//! finds altered and missing events.
//!
//! ```text
//! hash(n) = SHA-256(canonical(every attribute of event n except `hash`))
//! previous(n + 1) = hash(n)
//! ```
//!
//! [`canonical`] is the encoding that seals use too. The name and the sort key of an event are
//! among its attributes, so the check finds events that were edited, moved or removed.
//!
//! The hash has no key. Whoever can write to the ledger can append a false event together with a
//! new head, or rewrite a chain from any event to its end, and the check passes. The check finds
//! accidental damage and changes by somebody who does not recompute the hashes. To find all other
//! changes, compare with copies outside the ledger, such as an archive of the EventBridge bus that
//! receives the notifications.
//!
//! Retention removes events whose `ttl` has passed. No event gets an earlier `ttl` than one that
//! precedes it, even if the retention of the stack was lowered. So the `ttl` of the last missing
//! event is the latest of all missing ones. Earlier releases did not follow this rule: an event of
//! theirs that was removed early is not reported once the last missing one has expired.

use sha2::{Digest, Sha256};

use crate::name::VersionKey;
use crate::row::{Attribute, Row, RowIdentity, canonical};
use crate::timestamp::Timestamp;

pub use check::{Broken, Check, Fault};
pub use head::ChainHead;

mod check;
#[cfg(test)]
mod fixtures;
mod head;

/// The prefix of an event's sort key. The event's number follows, padded to 19 digits.
pub const EVENT: &str = "event#";
/// The sort key of the chain head, which records the newest event at the time of the last write.
pub const HEAD: &str = "head";

/// Who requested a change, for the audit trail. Never use it for authorization: a direct caller can
/// forge it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The IAM ARN that the HTTP API authenticated, or `direct`.
    pub who: String,
    /// The request ID from Lambda.
    pub request_id: String,
}

/// The operation that an event records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Put versions.
    Put,
    /// Moved versions to the ledger, or removed them for good.
    Delete,
    /// Restored deleted versions.
    Restore,
    /// Put a version with a generated value, as a rotation policy required.
    Renew,
    /// Added seals to legacy rows.
    Reseal,
    /// Put a rotation policy.
    Policy,
    /// Removed the rotation policy.
    Cancel,
}

impl EventKind {
    /// Returns the operation as the ledger stores it and responses show it.
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

/// The state of a name after an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameState {
    /// The name has versions, or never had any.
    #[default]
    Live,
    /// The last version was deleted.
    Deleted,
    /// The name was put again after its last version was deleted.
    PutAgain,
}

impl NameState {
    /// Returns the state as the ledger stores it; `None` for the default.
    fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Live => None,
            Self::Deleted => Some("deleted"),
            Self::PutAgain => Some("anew"),
        }
    }

    /// Returns the state that a row of the ledger records.
    fn from_row(row: &Row) -> Self {
        match row.get("state").and_then(Attribute::text) {
            Some("deleted") => Self::Deleted,
            Some("anew") => Self::PutAgain,
            _ => Self::Live,
        }
    }
}

/// A change that the next event records.
#[derive(Debug)]
pub struct NewEvent {
    /// The operation.
    pub kind: EventKind,
    /// The versions that it changes.
    pub versions: Vec<VersionKey>,
    /// Whether the versions are removed for good.
    pub forced: bool,
    /// The state of the name after the change.
    pub state: NameState,
    /// When the recovery window of the deleted versions ends; `None` for every other change.
    pub recoverable_until: Option<Timestamp>,
    /// The newest live version after the change.
    pub newest: NewestVersion,
}

/// What an event records about the newest live version of its name. See [`crate::life`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewestVersion {
    /// The same as in the event before; nothing if the last version was deleted.
    Unchanged,
    /// This row.
    Is(RowIdentity),
    /// This row, and this event begins a life of the name.
    BeginsLife(RowIdentity),
    /// This row, and the life with this number continues: a restore brought its versions back.
    ResumesLife(RowIdentity, u64),
}

/// Returns the sort key of the event with this number.
#[must_use]
pub fn key(sequence: u64) -> String {
    format!("{EVENT}{sequence:019}")
}

/// Returns the number of an event, from its sort key: exactly 19 digits.
fn sequence(row: &Row) -> Option<u64> {
    let digits = row.get("entry")?.text()?.strip_prefix(EVENT)?;
    let all = digits.len() == 19 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| all)
}

/// Returns the timestamp in an attribute with Unix seconds.
fn moment(row: &Row, name: &str) -> Option<Timestamp> {
    row.get(name)?.integer().and_then(Timestamp::from_unix_seconds)
}

/// Returns the hash of an event. `None` if the row has an attribute of an unsupported type.
fn hash(row: &Row) -> Option<Vec<u8>> {
    let bytes = canonical(row.iter().filter(|(name, _)| *name != "hash"))?;
    Some(Sha256::digest(bytes).to_vec())
}
