//! The ledger: events, deleted versions, tokens and notices, everything about secrets that is no
//! live version.
//!
//! | `entry` | under | what |
//! |---|---|---|
//! | `event#…` | the name | what was done, a chain: [`crate::chain`] |
//! | `head` | the name | the end of that chain |
//! | `deleted#VERSION#MARK` | the name | a version awaiting recovery, its row under `row`; with `before_reseal`, what a version was before it was sealed again |
//! | `notice#VERSION#SECONDS` | the name | that the version expires, so that this is told once |
//! | `token` | `/token/…`, which is no secret's name | what a put or renew with a token answered |
//! | `policy#NAME` | `/policies`, likewise | when the name is renewed: [`super::policy`] |
//! | `run#…` and others | `/rotation…`, likewise | runs over the whole stack: [`super::run`] |

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Select};
use sha2::{Digest, Sha256};

use crate::chain::{Act, ChainHead, EVENT, HEAD};
use crate::digest;
use crate::error::Error;
use crate::life::Identity;
use crate::moment::Moment;
use crate::name::{Label, Name};
use crate::row::{Attribute, Row};

use super::scan::{BEFORE_RESEAL, Part};
use super::{Item, Key, Place, Store, identity_of, queried, row_of, scanned};

/// What the sort key of every deleted version begins with.
const DELETED: &str = "deleted#";
/// What sorts behind every key that begins with a word and `#`.
const BEHIND: char = '$';

/// The attributes of events and heads: all that may be read by those who must not read a deleted
/// version.
const CHAIN: &[&str] = &[
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
/// What the name begins with under which a token's entry lies.
const TOKENS: &str = "/token/";
/// The attributes of a token's entry.
const TOKEN: &[&str] = &["answer", "entry", "fingerprint", "name", "ttl"];

/// A version that awaits recovery.
#[derive(Debug)]
pub struct DeletedVersion {
    /// Its version.
    pub label: Label,
    /// When it was deleted, to the second; none if that is not known.
    pub deleted_at: Option<Moment>,
    /// The number of the event that tells of it: of two, the later one is greater.
    pub sequence: u64,
    /// The moment from which on it cannot be restored.
    pub until: Moment,
    /// The life of the name that it belongs to, if that was recorded.
    pub life: Option<u64>,
    /// Whether this is what a version was before it was sealed again. Such an entry is no deleted
    /// version: it is restored only by those who ask for it.
    pub before_reseal: bool,
    item: Item,
}

impl DeletedVersion {
    fn of(item: Item) -> Option<Self> {
        let row = item.get("row")?.as_m().ok()?;
        let label = Label::stored(row.get("version")?.as_s().ok()?);
        let number = |name: &str| item.get(name)?.as_n().ok()?.parse::<i64>().ok();
        let until = number("ttl").and_then(Moment::from_unix)?;
        let deleted_at = number("deleted_at").and_then(Moment::from_unix);
        let sequence = number("sequence").and_then(|number| number.try_into().ok()).unwrap_or(0);
        let before_reseal = item.get(BEFORE_RESEAL).is_some_and(|flag| flag.as_bool() == Ok(&true));
        let life = number("life").and_then(|number| number.try_into().ok());
        Some(Self { label, deleted_at, sequence, until, life, before_reseal, item })
    }

    /// The entry as it lies in the ledger.
    pub(crate) fn item(&self) -> &Item {
        &self.item
    }

    /// The identity of the row.
    pub(crate) fn identity(&self) -> Option<Identity> {
        identity_of(self.item.get("row")?.as_m().ok()?)
    }

    /// The row as it lay in the live table.
    pub(crate) fn live(&self) -> Item {
        let mut live = self.item.get("row").and_then(|row| row.as_m().ok()).cloned();
        if let (Some(live), Some(name)) = (&mut live, self.item.get("name")) {
            live.insert("name".to_owned(), name.clone());
        }
        live.unwrap_or_default()
    }

    /// Whether the row has a seal, which covers its version.
    pub(crate) fn is_sealed(&self) -> bool {
        let row = self.item.get("row").and_then(|row| row.as_m().ok());
        row.is_some_and(|row| row.contains_key("seal"))
    }

    /// The same, to come back under its padded number.
    pub(crate) fn padded(mut self) -> Self {
        self.label = self.label.padded();
        if let Some(AttributeValue::M(row)) = self.item.get_mut("row") {
            let version = AttributeValue::S(self.label.as_str().to_owned());
            row.insert("version".to_owned(), version);
        }
        self
    }
}

/// The entry that keeps a live row of this life of its name until `until`, told of by the event
/// `sequence`. Two rows of the
/// same version, of which one was deleted before the other was put, are told apart by a mark of
/// their content.
pub(crate) fn soft_delete(row: &Item, sequence: u64, life: u64, until: Moment) -> Item {
    let mut kept = row.clone();
    let name = kept.remove("name");
    let text = |name: &str| row.get(name).and_then(|value| value.as_s().ok());
    let version = text("version").map(String::as_str).unwrap_or_default();
    let mut mark = Sha256::new();
    for part in ["contents", "hmac"] {
        match row.get(part) {
            Some(AttributeValue::S(text)) => mark.update(text),
            Some(AttributeValue::B(bytes)) => mark.update(bytes),
            _ => {}
        }
        mark.update([0]);
    }
    let mark = hex::encode(mark.finalize().get(..8).unwrap_or_default());
    let mut item = Item::from([
        ("entry".to_owned(), AttributeValue::S(format!("{DELETED}{version}#{mark}"))),
        ("sequence".to_owned(), AttributeValue::N(sequence.to_string())),
        ("deleted_at".to_owned(), AttributeValue::N(Moment::now().unix().to_string())),
        ("life".to_owned(), AttributeValue::N(life.to_string())),
        ("ttl".to_owned(), AttributeValue::N(until.unix().to_string())),
        ("row".to_owned(), AttributeValue::M(kept)),
    ]);
    item.extend(name.map(|name| ("name".to_owned(), name)));
    item
}

/// The entry that keeps a row until `until` as it was before the event `sequence` sealed it again,
/// as `place`. It lies where that version would lie if it was deleted, and next to it: each has an
/// entry of its own.
pub(crate) fn before_reseal(row: &Item, place: &Label, sequence: u64, until: Moment) -> Item {
    let mut item = soft_delete(row, sequence, 0, until);
    // Its life is that of the version that it was, which the ledger may not know.
    item.remove("life");
    let entry = entry_of(&item).unwrap_or_default();
    let mark = entry.rsplit('#').next().unwrap_or_default();
    let entry = format!("{DELETED}{}#{mark}-{sequence}", place.as_str());
    item.insert("entry".to_owned(), AttributeValue::S(entry));
    item.insert(BEFORE_RESEAL.to_owned(), AttributeValue::Bool(true));
    item
}

/// The entry that says that a version expires, and ends some time after it has.
#[must_use]
pub fn notice(name: &str, label: &Label, expires_at: Moment) -> Row {
    const KEPT_SECONDS: u64 = 30 * 24 * 60 * 60;
    const LONG: usize = 512;
    let end = expires_at.after(KEPT_SECONDS).unwrap_or(expires_at);
    // DynamoDB takes 1,024 bytes, which another client's version may have by itself.
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

/// A word of the caller's by which a put is done once, however often it is sent. Only hashes of it
/// are stored, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The most bytes a token may have.
    pub const MAX_BYTES: usize = 256;
    /// For how many seconds it is remembered.
    pub const SECONDS: u64 = 24 * 60 * 60;

    /// The key of the token's entry for this operation on these names, in any order. A caller who
    /// may not put these names cannot use up or look up the entry, whatever token it guesses.
    #[must_use]
    pub fn key<'a>(&self, operation: &str, names: impl IntoIterator<Item = &'a str>) -> TokenKey {
        let names: BTreeSet<&str> = names.into_iter().collect();
        let parts = [operation].into_iter().chain(names).chain([self.0.as_str()]);
        TokenKey(format!("{TOKENS}{}", hex::encode(digest::of_parts(parts))))
    }

    /// The key that earlier releases used: of the token alone, whatever it was used for.
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

/// The name under which the ledger keeps what a request with a token was answered. No secret has
/// such a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey(String);

impl TokenKey {
    /// The entry that remembers what a request was and what it answered.
    #[must_use]
    pub fn entry(&self, remembered: &TokenRecord, now: Moment) -> Row {
        let end = now.after(Token::SECONDS).unwrap_or(now);
        Row::from([
            ("name".to_owned(), Attribute::Text(self.0.clone())),
            ("entry".to_owned(), Attribute::Text("token".to_owned())),
            ("fingerprint".to_owned(), Attribute::Bytes(remembered.fingerprint.clone())),
            ("answer".to_owned(), Attribute::Map(remembered.answer.clone())),
            ("ttl".to_owned(), Attribute::Number(end.unix().to_string())),
        ])
    }
}

impl std::str::FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if (1..=Self::MAX_BYTES).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid("`token` has 1 to 256 bytes."))
        }
    }
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// A hash of what could be seen of the request; never of a secret.
    pub fingerprint: Vec<u8>,
    /// What was answered, by name.
    pub answer: BTreeMap<String, String>,
}

impl Store {
    /// The end of the chain of a name's events, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::Unreadable`].
    pub async fn tail(&self, name: &Name) -> Result<ChainHead, Error> {
        // Nothing sorts between the newest event and the head.
        let query = self.entries(name.as_str(), EVENT, HEAD).scan_index_forward(false).limit(2);
        let rows: Vec<_> =
            self.send_ledger(only(CHAIN, query)).await?.0.into_iter().map(row_of).collect();
        ChainHead::of(&rows).ok_or(Error::Unreadable)
    }

    /// The head of a name's events, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn head(&self, name: &Name) -> Result<Option<Row>, Error> {
        let query = self.entries(name.as_str(), HEAD, HEAD);
        Ok(self.send_ledger(only(CHAIN, query)).await?.0.into_iter().next().map(row_of))
    }

    /// A page of a name's events, strongly consistent, and the sort key of its last one if there
    /// may be more.
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
        let last = format!("event{BEHIND}");
        let query = self
            .entries(name.as_str(), EVENT, &last)
            .scan_index_forward(ascending)
            .set_limit(limit)
            .set_exclusive_start_key(after.map(|entry| place(name.as_str(), entry)));
        let (items, last) = self.send_ledger(only(CHAIN, query)).await?;
        Ok((items.into_iter().map(row_of).collect(), last.as_ref().and_then(entry_of)))
    }

    /// A page of the events in a part of the ledger of these acts since a moment, as their keys, strongly consistent; the key of the last entry that was read, if
    /// there may be more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn moved(
        &self,
        acts: &[Act],
        since: Moment,
        part: Part,
        after: Option<Key>,
        limit: i32,
    ) -> Result<(Vec<Key>, Option<Key>), Error> {
        let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let placeholders: Vec<_> = (0..acts.len()).map(|index| format!(":act{index}")).collect();
        let filter = format!(
            "begins_with(#entry, :event) AND #at >= :since AND #operation IN ({})",
            placeholders.join(", ")
        );
        let mut scan = self
            .client
            .scan()
            .table_name(&self.ledger)
            .consistent_read(true)
            .segment(count(part.number))
            .total_segments(count(part.of))
            .limit(limit)
            .set_exclusive_start_key(after.map(|key| Place::ENTRY.to_item(key)))
            .select(Select::SpecificAttributes)
            .projection_expression("#name, #entry")
            .filter_expression(filter)
            .expression_attribute_names("#name", "name")
            .expression_attribute_names("#entry", "entry")
            .expression_attribute_names("#at", "at")
            .expression_attribute_names("#operation", "operation")
            .expression_attribute_values(":event", text(EVENT))
            .expression_attribute_values(":since", text(&since.to_string()));
        for (placeholder, act) in placeholders.into_iter().zip(acts) {
            scan = scan.expression_attribute_values(placeholder, text(act.as_str()));
        }
        let (items, last) = scanned(scan, format!("table/{}", self.ledger)).await?;
        let keys = items.iter().filter_map(|item| Place::ENTRY.read(item)).collect();
        Ok((keys, last.and_then(|item| Place::ENTRY.read(&item))))
    }

    /// A page of a name's deleted versions, and of what versions were before they were sealed again,
    /// of one version if a label is given, highest first, strongly consistent, empty only if there are none; the last one's sort key if there may be more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn buried(
        &self,
        name: &Name,
        label: Option<&Label>,
        after: Option<String>,
    ) -> Result<(Vec<DeletedVersion>, Option<String>), Error> {
        let (first, last) = match label {
            Some(label) => {
                let first = format!("{DELETED}{}#", label.as_str());
                let last = format!("{DELETED}{}{BEHIND}", label.as_str());
                (first, last)
            }
            None => (DELETED.to_owned(), format!("deleted{BEHIND}")),
        };
        let mut after = after;
        loop {
            let query = self
                .entries(name.as_str(), &first, &last)
                .scan_index_forward(false)
                .set_exclusive_start_key(after.map(|entry| place(name.as_str(), entry)));
            let (items, last) = self.send_ledger(query).await?;
            after = last.as_ref().and_then(entry_of);
            let buried = items.into_iter().filter_map(DeletedVersion::of);
            // A version with `#` in it lies in the range of another. What was padded when it was
            // sealed again lies where it is now.
            let buried = buried.filter(|buried| {
                label.is_none_or(|label| {
                    let padded = || buried.before_reseal && buried.label.padded() == *label;
                    buried.label == *label || padded()
                })
            });
            let buried: Vec<_> = buried.collect();
            if !buried.is_empty() || after.is_none() {
                return Ok((buried, after));
            }
        }
    }

    /// What is known of a request with a token at `now`, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn remembered(
        &self,
        key: &TokenKey,
        now: Moment,
    ) -> Result<Option<TokenRecord>, Error> {
        let query = only(TOKEN, self.entries(&key.0, "token", "token"));
        let row = self.send_ledger(query).await?.0.into_iter().next().map(row_of);
        Ok(row.and_then(|row| {
            let ttl = row.get("ttl")?.integer().and_then(Moment::from_unix)?;
            let remembered = TokenRecord {
                fingerprint: row.get("fingerprint")?.bytes()?.to_vec(),
                answer: row.get("answer")?.map()?.clone(),
            };
            (ttl > now).then_some(remembered)
        }))
    }

    pub(super) fn entries(&self, name: &str, first: &str, last: &str) -> QueryFluentBuilder {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        self.client
            .query()
            .table_name(&self.ledger)
            .consistent_read(true)
            .key_condition_expression("#name = :name AND #entry BETWEEN :first AND :last")
            .expression_attribute_names("#name", "name")
            .expression_attribute_names("#entry", "entry")
            .expression_attribute_values(":name", text(name))
            .expression_attribute_values(":first", text(first))
            .expression_attribute_values(":last", text(last))
    }

    pub(super) async fn send_ledger(
        &self,
        query: QueryFluentBuilder,
    ) -> Result<(Vec<Item>, Option<Item>), Error> {
        queried(query, format!("table/{}", self.ledger)).await
    }
}

/// Asks for nothing else, which is all that most roles allow.
pub(super) fn only(attributes: &[&str], query: QueryFluentBuilder) -> QueryFluentBuilder {
    let query = query.select(Select::SpecificAttributes);
    let placeholders: Vec<_> = attributes.iter().map(|name| format!("#{name}")).collect();
    let query = query.projection_expression(placeholders.join(", "));
    placeholders.into_iter().zip(attributes).fold(query, |query, (placeholder, name)| {
        query.expression_attribute_names(placeholder, *name)
    })
}

pub(super) fn place(name: &str, entry: String) -> Item {
    Item::from([
        ("name".to_owned(), AttributeValue::S(name.to_owned())),
        ("entry".to_owned(), AttributeValue::S(entry)),
    ])
}

pub(super) fn entry_of(item: &Item) -> Option<String> {
    item.get("entry")?.as_s().ok().cloned()
}
