//! A secret store on KMS and DynamoDB that speaks credstash.
//!
//! An event comes in from one of two origins (HTTP or direct invoke), becomes one request, is
//! applied to the coffer, and its answer leaves the way it came:
//!
//! ```text
//! event -> Origin -> Operation (request) -> Coffer -> Keys (KMS)      -> answer -> Origin
//!                                              \-> envelope (pure)
//!                                              \-> Store (DynamoDB)
//! ```
//!
//! | room | what it is for | what it may not know |
//! |---|---|---|
//! | [`secret`], [`name`], [`context`], [`moment`], [`schedule`], [`generate`], [`template`], [`digest`] | the words, right once made | AWS |
//! | [`row`], [`envelope`] | rows, sealed and opened; pure functions | AWS, async, tables |
//! | [`chain`], [`life`] | what was done to a name, entry by entry, and since when it lives; pure functions | AWS, async, tables |
//! | [`keys`] | data keys from KMS | DynamoDB, the layout of a row's ciphertext |
//! | [`store`] | rows in DynamoDB, live and in the ledger | KMS, plaintext |
//! | [`backoff`], [`rate_limit`] | the time between two tries, and between two calls | what is tried |
//! | [`aws_error`] | what AWS answers when it does not do its part | what was asked for |
//! | [`operations`] | one file a verb | Lambda, HTTP, JSON |
//! | [`fields`], [`cursor`], [`document`], [`event`] | requests read, answers written | crypto |
//! | [`lambda`] | settings, clients, the log, the runtime's loop | crypto |
//! | [`error`] | the one error, and its one meeting with the wire | everything |
//!
//! The functions, one binary a verb, use [`lambda::Operation`] and what it hands them.

pub mod aws_error;
pub mod backoff;
pub mod chain;
pub mod context;
pub mod cursor;
pub mod digest;
pub mod document;
mod entries;
pub mod envelope;
pub mod error;
pub mod event;
pub mod fields;
pub mod generate;
pub mod keys;
pub mod lambda;
pub mod life;
mod memory;
pub mod moment;
pub mod name;
pub mod operations;
pub mod rate_limit;
pub mod row;
pub mod schedule;
pub mod secret;
pub mod store;
pub mod template;
