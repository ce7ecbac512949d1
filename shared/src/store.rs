//! The two DynamoDB tables of a stack: the table of secrets and the ledger.
//!
//! Each module owns the items of one kind: it reads them, and adds their writes to a
//! [`transaction::Transaction`].

pub mod condition;
#[cfg(feature = "crash")]
pub mod crash;
pub mod deleted;
pub mod item;
pub mod ledger;
pub mod location;
pub mod policies;
pub mod progress;
#[cfg(test)]
mod roles;
pub mod runs;
pub mod scan;
pub mod scanned_version;
pub mod secrets_table;
pub mod tokens;
pub mod transaction;
