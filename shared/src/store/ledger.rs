//! The ledger: everything about secrets that is not a live version.
//!
//! | `entry` | `name` | what |
//! |---|---|---|
//! | `event#…` | the secret's | an event of its history: [`crate::audit_chain`] |
//! | `head` | the secret's | the chain head of its history |
//! | `deleted#VERSION#MARK` | the secret's | a deleted version that can be restored, or its form before a reseal: [`super::deleted`] |
//! | `notice#VERSION#SECONDS` | the secret's | the notice that the version expires |
//! | `token` | `/token/…` | the response to a request with a token: [`super::tokens`] |
//! | `policy#NAME` | `/policies` | the rotation policy of the name: [`super::policies`] |
//! | `run#…` and others | `/rotation…` | runs over the whole stack: [`super::runs`] |
//!
//! No secret has a name under `/token`, `/policies` or `/rotation`.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Select};
use sha2::{Digest, Sha256};

use crate::audit_chain::{ChainHead, EVENT, EventKind, HEAD};
use crate::error::Error;
use crate::name::{Name, VersionKey};
use crate::row::{Attribute, Row};
use crate::timestamp::Timestamp;

use super::condition::Condition;
use super::item::{Item, Key, KeySchema, item_of, only, row_of, send_query, send_scan};
use super::transaction::{Committed, Transaction, WriteLabel};

/// The character that sorts after `#`, and so after every key that begins with a word and `#`.
pub(super) const AFTER_HASH: char = '$';

/// The attributes of events and chain heads: all that may be read by a role that must not read a
/// deleted version.
pub(super) const CHAIN: &[&str] = &[
    "at",
    "entry",
    "force",
    "hash",
    "headless",
    "highest",
    "life",
    "name",
    "newest",
    "operation",
    "previous",
    "previous_ttl",
    "recoverable_until",
    "request_id",
    "sequence",
    "state",
    "ttl",
    "versions",
    "who",
];

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    pub(super) client: Client,
    pub(super) table: String,
}

/// A part of a table, as a parallel scan divides it.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The number of the part, from 0.
    pub number: u32,
    /// The number of parts.
    pub of: u32,
}

impl Part {
    pub(super) fn segment(self) -> i32 {
        i32::try_from(self.number).unwrap_or(i32::MAX)
    }

    pub(super) fn total_segments(self) -> i32 {
        i32::try_from(self.of).unwrap_or(i32::MAX)
    }
}

impl Ledger {
    /// Creates a client of the ledger with this name.
    #[must_use]
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Does all writes of a transaction or none.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Unavailable`].
    pub async fn commit(&self, transaction: &Transaction) -> Result<Committed, Error> {
        transaction.commit(&self.client).await
    }

    /// Returns the chain head of a name's history, strongly consistent. It comes from the newest
    /// event or from the head's entry, whichever is newer.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::UnreadableChain`].
    pub async fn chain_head(&self, name: &Name) -> Result<ChainHead, Error> {
        // Nothing sorts between the newest event and the head's entry.
        let query = self.entries(name.as_str(), EVENT, HEAD).scan_index_forward(false).limit(2);
        let items = self.send(only(CHAIN, query)).await?.0;
        let rows: Vec<_> = items.into_iter().map(row_of).collect();
        ChainHead::of(&rows).ok_or(Error::UnreadableChain)
    }

    /// Returns the entry of a name's chain head, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn head_entry(&self, name: &Name) -> Result<Option<Row>, Error> {
        let query = self.entries(name.as_str(), HEAD, HEAD);
        Ok(self.send(only(CHAIN, query)).await?.0.into_iter().next().map(row_of))
    }

    /// Reads a page of a name's events, strongly consistent. Returns the sort key of the last one
    /// as well if there may be more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn events(
        &self,
        name: &Name,
        ascending: bool,
        after: Option<String>,
        limit: Option<i32>,
    ) -> Result<(Vec<Row>, Option<String>), Error> {
        let last = format!("event{AFTER_HASH}");
        let query = self
            .entries(name.as_str(), EVENT, &last)
            .scan_index_forward(ascending)
            .set_limit(limit)
            .set_exclusive_start_key(after.map(|entry| key_item(name.as_str(), entry)));
        let (items, last) = self.send(only(CHAIN, query)).await?;
        Ok((items.into_iter().map(row_of).collect(), last.as_ref().and_then(entry_of)))
    }

    /// Reads a page of a part of the ledger: the keys of the events of these kinds since a moment,
    /// strongly consistent. Returns the key of the last entry that was read as well if there may be
    /// more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn events_since(
        &self,
        kinds: &[EventKind],
        since: Timestamp,
        part: Part,
        after: Option<Key>,
        limit: i32,
    ) -> Result<(Vec<Key>, Option<Key>), Error> {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let placeholders: Vec<_> = (0..kinds.len()).map(|index| format!(":act{index}")).collect();
        let filter = format!(
            "begins_with(#entry, :event) AND #at >= :since AND #operation IN ({})",
            placeholders.join(", ")
        );
        let mut scan = self
            .client
            .scan()
            .table_name(&self.table)
            .consistent_read(true)
            .segment(part.segment())
            .total_segments(part.total_segments())
            .limit(limit)
            .set_exclusive_start_key(after.map(|key| KeySchema::LEDGER.to_item(key)))
            .select(Select::SpecificAttributes)
            .projection_expression("#name, #entry")
            .filter_expression(filter)
            .expression_attribute_names("#name", "name")
            .expression_attribute_names("#entry", "entry")
            .expression_attribute_names("#at", "at")
            .expression_attribute_names("#operation", "operation")
            .expression_attribute_values(":event", text(EVENT))
            .expression_attribute_values(":since", text(&since.to_string()));
        for (placeholder, kind) in placeholders.into_iter().zip(kinds) {
            scan = scan.expression_attribute_values(placeholder, text(kind.as_str()));
        }
        let (items, last) = send_scan(scan, self.resource()).await?;
        let keys = items.iter().filter_map(|item| KeySchema::LEDGER.read(item)).collect();
        Ok((keys, last.and_then(|item| KeySchema::LEDGER.read(&item))))
    }

    /// Adds the put of an event, if its number is free.
    pub fn put_event(&self, transaction: &mut Transaction, index: usize, event: Row) {
        let absent = Some(Condition::absent());
        transaction.put(WriteLabel::Event(index), &self.table, item_of(event), absent);
    }

    /// Adds the put of a chain head, unless a newer one is there.
    pub fn put_head(&self, transaction: &mut Transaction, index: usize, head: Row) {
        let sequence = head.get("sequence").and_then(Attribute::integer).unwrap_or_default();
        let newer = "attribute_not_exists(#name) OR #sequence < :sequence";
        let condition = Condition::new(newer)
            .named("#sequence", "sequence")
            .valued(":sequence", AttributeValue::N(sequence.to_string()));
        transaction.put(WriteLabel::Head(index), &self.table, item_of(head), Some(condition));
    }

    /// Writes the notice that a version expires; false if it is there already. The notice is
    /// removed some time after the version has expired.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn put_notice(
        &self,
        name: &str,
        label: &VersionKey,
        expires_at: Timestamp,
    ) -> Result<bool, Error> {
        let mut transaction = Transaction::default();
        let item = item_of(notice(name, label, expires_at));
        let absent = Some(Condition::absent());
        transaction.put(WriteLabel::Notice, &self.table, item, absent);
        Ok(self.commit(&transaction).await? == Committed::Done)
    }

    pub(super) fn entries(&self, name: &str, first: &str, last: &str) -> QueryFluentBuilder {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        self.client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("#name = :name AND #entry BETWEEN :first AND :last")
            .expression_attribute_names("#name", "name")
            .expression_attribute_names("#entry", "entry")
            .expression_attribute_values(":name", text(name))
            .expression_attribute_values(":first", text(first))
            .expression_attribute_values(":last", text(last))
    }

    pub(super) async fn send(
        &self,
        query: QueryFluentBuilder,
    ) -> Result<(Vec<Item>, Option<Item>), Error> {
        send_query(query, self.resource()).await
    }

    fn resource(&self) -> String {
        format!("table/{}", self.table)
    }
}

pub(super) fn key_item(name: &str, entry: String) -> Item {
    KeySchema::LEDGER.to_item(Key { name: name.to_owned(), version: entry })
}

pub(super) fn entry_of(item: &Item) -> Option<String> {
    item.get("entry")?.as_s().ok().cloned()
}

fn notice(name: &str, label: &VersionKey, expires_at: Timestamp) -> Row {
    const KEPT_SECONDS: u64 = 30 * 24 * 60 * 60;
    const LONG: usize = 512;
    let end = expires_at.after(KEPT_SECONDS).unwrap_or(expires_at);
    // DynamoDB accepts 1,024 bytes, which another client's version may have by itself.
    let mark = match label.as_str() {
        long if long.len() > LONG => hex::encode(Sha256::digest(long)),
        short => short.to_owned(),
    };
    let entry = format!("notice#{mark}#{}", expires_at.unix());
    Row::from([
        ("name".to_owned(), Attribute::Text(name.to_owned())),
        ("entry".to_owned(), Attribute::Text(entry)),
        ("version".to_owned(), Attribute::Text(label.shown())),
        ("expires_at".to_owned(), Attribute::Text(expires_at.to_string())),
        ("ttl".to_owned(), Attribute::Number(end.unix().to_string())),
    ])
}
