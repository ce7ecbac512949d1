//! The operations on secrets, one module each, in three movements: parse the fields of a request,
//! apply the operation to the stack, respond.
//!
//! An operation does not know where its request comes from. A Lambda function, or any other program
//! with access to the key and the tables, calls [`parse`], [`Operation::apply`] and
//! [`Operation::respond`].

use std::future::Future;

use crate::audit_chain::Caller;
use crate::error::Error;
use crate::fields::Fields;
use crate::keys::Keys;
use crate::name::Name;
use crate::request::Response;
use crate::store::ledger::Ledger;
use crate::store::scan::Stores;
use crate::store::secrets_table::SecretsTable;
use crate::timestamp::Timestamp;

mod busy_retry;
pub mod delete;
mod errors;
pub mod get;
pub mod history;
pub mod legacy_hints;
pub mod list;
mod name_state;
pub mod policy;
pub mod put;
mod record;
pub mod remind;
pub mod restore;
pub mod rotation;
pub mod rotation_policy;

/// An operation: what one request asks for.
pub trait Operation: Sized + Send {
    /// The name of the operation, for the log.
    const NAME: &'static str;

    /// The result, as values.
    type Output: Send;

    /// Reads the request.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a field is missing or has an invalid value.
    fn parse(fields: &mut Fields) -> Result<Self, Error>;

    /// Returns the secret or prefix that the request is about, for the log.
    fn name(&self) -> Option<&Name>;

    /// Whether the operation may have changed something when its time runs out.
    fn writes(&self) -> bool;

    /// Applies the operation to the stack.
    ///
    /// # Errors
    /// As documented by the operation.
    fn apply(
        self,
        coffer: &Coffer,
        caller: &Caller,
    ) -> impl Future<Output = Result<Self::Output, Error>> + Send;

    /// Writes the response.
    ///
    /// # Errors
    /// As documented by the operation.
    fn respond(output: Self::Output) -> Result<Response, Error>;
}

/// Reads a request with [`Operation::parse`] and rejects fields that the operation does not have.
///
/// # Errors
/// As [`Operation::parse`], and [`Error::Invalid`] for an unknown field.
pub fn parse<O: Operation>(mut fields: Fields) -> Result<O, Error> {
    let operation = O::parse(&mut fields)?;
    fields.finish()?;
    Ok(operation)
}

/// The secrets of one stack: its keys, its tables and its options.
#[derive(Debug)]
pub struct Coffer {
    keys: Option<Keys>,
    table: Option<SecretsTable>,
    ledger: Option<Ledger>,
    options: StackOptions,
}

/// What the stack's operator has decided.
#[derive(Debug)]
pub struct StackOptions {
    /// What to do with legacy rows.
    pub legacy_items: LegacyItems,
    /// Whether versions may be deleted for good.
    pub forced_delete: bool,
    /// How many days events are kept; forever if `None`.
    pub history_days: Option<u32>,
    /// How many days before a version expires its notice is written.
    pub notice_days: u32,
    /// The most KMS requests of one rotation in a second, across all its parts.
    pub kms_requests_per_second: u32,
}

/// What to do with legacy rows, which have no seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyItems {
    /// Open them.
    Read,
    /// Refuse them, whoever wrote them.
    Refuse,
}

pub(crate) const DAY_SECONDS: u64 = 24 * 60 * 60;

impl Coffer {
    /// Combines the parts of a stack. Each of keys, table and ledger is optional. Using a missing
    /// one returns [`Error::Unavailable`].
    #[must_use]
    pub fn new(
        keys: Option<Keys>,
        table: Option<SecretsTable>,
        ledger: Option<Ledger>,
        options: StackOptions,
    ) -> Self {
        Self { keys, table, ledger, options }
    }

    fn keys(&self) -> Result<&Keys, Error> {
        self.keys.as_ref().ok_or_else(|| missing_setting("COFFER_KEY_ARN"))
    }

    fn table(&self) -> Result<&SecretsTable, Error> {
        self.table.as_ref().ok_or_else(|| missing_setting("COFFER_TABLE"))
    }

    /// Returns both tables.
    fn stores(&self) -> Result<Stores<'_>, Error> {
        let table = self.table()?;
        let ledger = self.ledger.as_ref().ok_or_else(|| missing_setting("COFFER_LEDGER"))?;
        Ok(Stores { table, ledger })
    }

    fn ledger(&self) -> Result<&Ledger, Error> {
        Ok(self.stores()?.ledger)
    }

    /// Returns when an event that is written now is removed.
    fn end_of_history(&self) -> Option<Timestamp> {
        Timestamp::now().after(u64::from(self.options.history_days?) * DAY_SECONDS)
    }
}

/// The error for an environment variable that is not set.
pub(crate) fn missing_setting(variable: &str) -> Error {
    Error::Unavailable {
        message: "A setting of the function is missing. Ask the stack's operator: the function's \
                  log names it."
            .into(),
        source: format!("{variable} is not set: deploy the template").into(),
    }
}

#[cfg(test)]
mod tests;
