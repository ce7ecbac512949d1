//! A secret store on KMS and DynamoDB that reads and writes credstash's format.
//!
//! An event arrives from one of two origins (HTTP or direct invoke), becomes one operation, is applied
//! to the stack, and the response goes back the way the event came:
//!
//! ```text
//! event -> Origin -> Fields -> Operation (parse, apply, respond) -> Keys (KMS)
//!                                                                -> envelope (pure)
//!                                                                -> SecretsTable, Ledger (DynamoDB)
//! ```
//!
//! A module depends only on modules of its own row or of a row below (a test checks this):
//!
//! | module | what it does | what it must not know |
//! |---|---|---|
//! | [`lambda`] | settings, clients, log, the runtime's loop | crypto, the layout of tables |
//! | [`operations`] | one module per operation: parse, apply, respond | Lambda, HTTP |
//! | [`document`], [`request`], [`fields`], [`cursor`] | requests and responses | crypto, KMS, queries |
//! | [`store`] | the table of secrets and the ledger | KMS, plaintext |
//! | [`keys`] | data keys from KMS | DynamoDB, the layout of a ciphertext |
//! | [`rate_limit`], [`backoff`] | the time between two calls, and between two tries | what is called |
//! | [`aws_error`] | the errors of AWS calls | what was requested |
//! | [`opened_secret`], [`description`] | what is known about a version, with and without its value | AWS |
//! | [`audit_chain`], [`life`] | the events of a name, and since when it lives; pure functions | AWS, async |
//! | [`envelope`] | the sealing and opening of rows; pure functions | AWS, async, tables |
//! | [`row`], [`secret`], [`name`], [`encryption_context`], [`timestamp`], [`schedule`], [`generate`], [`template`], [`hash`] | the vocabulary: values that are valid once created | AWS, async |
//! | [`error`] | the one error, and its code and status | everything else |
//!
//! The functions, one binary each, call [`lambda::run`] with an [`operations::Operation`].

mod allocator;
pub mod audit_chain;
pub mod aws_error;
pub mod backoff;
pub mod cursor;
pub mod description;
pub mod document;
pub mod encryption_context;
pub mod envelope;
pub mod error;
pub mod fields;
pub mod generate;
pub mod hash;
mod json_fields;
pub mod keys;
pub mod lambda;
pub mod life;
pub mod name;
pub mod opened_secret;
pub mod operations;
pub mod rate_limit;
pub mod request;
pub mod row;
pub mod schedule;
pub mod secret;
pub mod store;
pub mod template;
#[cfg(test)]
mod testing;
pub mod timestamp;
