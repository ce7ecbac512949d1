//! Idempotency tokens in the ledger: the response to each request with a token, for 24 hours.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::AttributeValue;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::hash;
use crate::row::{Attribute, Row};
use crate::timestamp::Timestamp;

use super::condition::Condition;
use super::item::{item_of, only, row_of};
use super::ledger::Ledger;
use super::transaction::{Transaction, WriteLabel};

/// The prefix of the names that the entries of tokens have.
const TOKENS: &str = "/token/";
/// The attributes of a token's entry.
pub(super) const TOKEN: &[&str] = &["answer", "entry", "fingerprint", "name", "ttl"];

/// An idempotency token. Only hashes of it are stored, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The most bytes of a token.
    pub const MAX_BYTES: usize = 256;
    /// How many seconds a token is remembered.
    pub const SECONDS: u64 = 24 * 60 * 60;

    /// Returns the key of the token's entry for this operation on these names, in any order. A
    /// caller who may not put these names can neither use up nor look up the entry.
    #[must_use]
    pub fn key<'a>(&self, operation: &str, names: impl IntoIterator<Item = &'a str>) -> TokenKey {
        let names: BTreeSet<&str> = names.into_iter().collect();
        let parts = [operation].into_iter().chain(names).chain([self.0.as_str()]);
        TokenKey(format!("{TOKENS}{}", hex::encode(hash::of_parts(parts))))
    }

    /// Returns the key that earlier releases used: the hash of the token alone.
    #[must_use]
    pub fn former_key(&self) -> TokenKey {
        TokenKey(format!("{TOKENS}{}", hex::encode(Sha256::digest(&self.0))))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl std::str::FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if (1..=Self::MAX_BYTES).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid("`token` must have 1 to 256 bytes."))
        }
    }
}

/// The name of a token's entry in the ledger. No secret has such a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey(String);

/// What the ledger knows about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// A hash of the visible part of the request, never of a secret.
    pub fingerprint: Vec<u8>,
    /// The response, by name.
    pub answer: BTreeMap<String, String>,
}

impl Ledger {
    /// Returns what is known about a token at `now`, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn token_record(
        &self,
        key: &TokenKey,
        now: Timestamp,
    ) -> Result<Option<TokenRecord>, Error> {
        let query = only(TOKEN, self.entries(&key.0, "token", "token"));
        let row = self.send(query).await?.0.into_iter().next().map(row_of);
        Ok(row.and_then(|row| {
            let ttl = row.get("ttl")?.integer().and_then(Timestamp::from_unix_seconds)?;
            let record = TokenRecord {
                fingerprint: row.get("fingerprint")?.bytes()?.to_vec(),
                answer: row.get("answer")?.map()?.clone(),
            };
            (ttl > now).then_some(record)
        }))
    }

    /// Adds the put of a token's entry, if there is none, or only one that has ended by `now` and
    /// that DynamoDB has not removed yet.
    pub fn put_token(
        &self,
        transaction: &mut Transaction,
        key: &TokenKey,
        record: &TokenRecord,
        now: Timestamp,
    ) {
        let end = now.after(Token::SECONDS).unwrap_or(now);
        let row = Row::from([
            ("name".to_owned(), Attribute::Text(key.0.clone())),
            ("entry".to_owned(), Attribute::Text("token".to_owned())),
            ("fingerprint".to_owned(), Attribute::Bytes(record.fingerprint.clone())),
            ("answer".to_owned(), Attribute::Map(record.answer.clone())),
            ("ttl".to_owned(), Attribute::Number(end.unix().to_string())),
        ]);
        let condition = Condition::new("attribute_not_exists(#name) OR #ttl <= :now")
            .named("#ttl", "ttl")
            .valued(":now", AttributeValue::N(now.unix().to_string()));
        transaction.put(WriteLabel::Token, &self.table, item_of(row), Some(condition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let token: Token = "predictable".parse().unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
