//! What can be done with secrets, over the keys and the store: one file a verb.

use crate::envelope::Refusal;
use crate::error::Error;
use crate::keys::Keys;
use crate::moment::Moment;
use crate::name::Name;
use crate::store::Store;

pub mod bundle;
mod busy_retry;
pub mod delete;
pub mod executor;
pub mod get;
pub mod history;
mod idempotency;
pub mod legacy_hints;
pub mod list;
mod pad;
mod placement;
pub mod policy;
pub mod put;
pub mod remind;
mod renew;
mod reseal;
pub mod restore;
mod rewrap;
pub mod run;

/// The secrets of one stack.
#[derive(Debug)]
pub struct Coffer {
    keys: Option<Keys>,
    store: Option<Store>,
    policy: Policy,
}

/// What the stack's operator has decided.
#[derive(Debug)]
pub struct Policy {
    /// What to do with rows that carry no seal.
    pub legacy: Legacy,
    /// Whether versions may be deleted for good.
    pub forced_delete: bool,
    /// For how many days events are kept; for ever if none.
    pub history_days: Option<u32>,
    /// How many days ahead it is told that a version expires.
    pub notice_days: u32,
    /// The most calls of KMS that a rotation makes in a second, whatever it has to do.
    pub kms_requests_per_second: u32,
}

/// What to do with rows that carry no seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legacy {
    /// Open them.
    Read,
    /// Refuse them, whoever wrote them.
    Refuse,
}

const DAY_SECONDS: u64 = 24 * 60 * 60;

impl Coffer {
    /// Opens secrets with `keys` and keeps them in `store`. What lacks answers
    /// [`Error::Unavailable`] once it is needed: to list takes no keys.
    #[must_use]
    pub fn new(keys: Option<Keys>, store: Option<Store>, policy: Policy) -> Self {
        Self { keys, store, policy }
    }

    fn keys(&self) -> Result<&Keys, Error> {
        self.keys.as_ref().ok_or_else(|| unset("COFFER_KEY_ARN is not set: deploy the template"))
    }

    fn store(&self) -> Result<&Store, Error> {
        self.store.as_ref().ok_or_else(|| unset("COFFER_TABLE is not set: deploy the template"))
    }

    /// The store, to be used with its ledger.
    fn ledger(&self) -> Result<&Store, Error> {
        let unset = || unset("COFFER_LEDGER is not set: deploy the template");
        self.store().and_then(|store| store.has_ledger().then_some(store).ok_or_else(unset))
    }

    /// When an event that is written now has had its time.
    fn end_of_history(&self) -> Option<Moment> {
        Moment::now().after(u64::from(self.policy.history_days?) * DAY_SECONDS)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Integrity => Self::Integrity,
            Refusal::Malformed => Self::Malformed(
                "What is stored under this name and version is no secret: an attribute is missing \
                 or has a form that no credstash client writes. Restore the row, or put anew."
                    .into(),
            ),
            Refusal::UnsupportedDigest => Self::Malformed(
                "The digest of this version is not supported, so its integrity cannot be checked. \
                 Supported are MD5, SHA (SHA-1), SHA224, SHA256, SHA384, SHA512, RIPEMD and \
                 WHIRLPOOL. Put the secret again."
                    .into(),
            ),
            Refusal::Ambiguous => Self::Malformed(
                "This version was written by credstash or by rucredstash. Their readings differ, \
                 and both are possible. Reseal the name in a run with `dialects`, which says whose \
                 it is, or put the secret again."
                    .into(),
            ),
        }
    }
}

fn unset(what: &'static str) -> Error {
    Error::Unavailable {
        message:
            "A setting of the function is missing. Ask the stack's operator: the function's log \
                  names it."
                .into(),
        source: what.into(),
    }
}

/// A name that breaks the rules was asked for in case another client wrote it; where none did, the
/// rule is the better answer.
fn for_name(name: &Name, error: Error) -> Error {
    match (&error, name.check()) {
        (Error::NotFound(_), Err(rule)) => rule,
        _ => error,
    }
}

/// Refuses a name whose entries the ledger would mix with its own records. Another client may have
/// written a row of such a name, and nobody can move it through Coffer.
fn unless_reserved(name: &Name) -> Result<(), Error> {
    if name.is_reserved() {
        return Err(Error::invalid(
            "/policies, /rotation, /token and all names under them are reserved for the ledger. \
             Delete a row of such a name in DynamoDB.",
        ));
    }
    Ok(())
}

fn not_found() -> Error {
    Error::NotFound(
        "There is no such secret, or no such version of it. List the names. If it was deleted, its \
         history says so: `GET /history/NAME`."
            .into(),
    )
}
