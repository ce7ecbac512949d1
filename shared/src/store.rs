//! The tables, of live secrets and of everything else about them: rows in and out, and what
//! DynamoDB promises about them.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::scan::builders::ScanFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, Select};

use crate::aws_error::AwsError;
use crate::error::Error;
use crate::life::{Identity, Top};
use crate::moment::Moment;
use crate::name::{Label, Name, Prefix, Reach, Revision};
use crate::row::{Attribute, Row};

#[cfg(feature = "crash")]
pub mod crash;
pub mod ledger;
pub mod policy;
pub mod run;
pub mod scan;
pub mod transaction;

/// The index of names: describing attributes only, never a key, a ciphertext or a MAC.
const NAMES: &str = "names";
/// The index of revisions within a name.
const REVISION: &str = "revision";

/// What a version says of itself that the next one may have from it.
const DESCRIBED: &[&str] =
    &["comment", "context", "expires_at", "hmac", "json", "name", "seal", "version"];
/// The identity of a version, and whether it has expired.
const TOP: &[&str] = &["expires_at", "hmac", "name", "version"];

pub(crate) type Item = HashMap<String, AttributeValue>;

/// The table of live secrets, and the ledger.
#[derive(Debug)]
pub struct Store {
    client: Client,
    table: String,
    ledger: String,
}

/// A live row as it lies in the table, to be moved or removed: whatever another client gave it
/// stays as it is.
#[derive(Debug)]
pub struct Live {
    /// Its version.
    pub label: Label,
    item: Item,
}

impl Live {
    fn of(item: Item) -> Option<Self> {
        let label = Label::stored(item.get("version")?.as_s().ok()?);
        Some(Self { label, item })
    }

    /// The identity of the row.
    pub(crate) fn identity(&self) -> Option<Identity> {
        identity_of(&self.item)
    }

    /// The row.
    pub(crate) fn item(&self) -> &Item {
        &self.item
    }
}

/// Which attributes are the key of a row.
#[derive(Clone, Copy)]
struct Place([&'static str; 2]);

impl Place {
    const VERSION: Self = Self(["name", "version"]);
    const ENTRY: Self = Self(["name", "entry"]);

    fn of(self, item: &Item) -> Item {
        let part = |name: &str| item.get(name).map(|value| (name.to_owned(), value.clone()));
        self.0.into_iter().filter_map(part).collect()
    }

    fn to_item(self, key: Key) -> Item {
        let values = [key.name, key.version].map(AttributeValue::S);
        self.0.map(str::to_owned).into_iter().zip(values).collect()
    }

    fn read(self, item: &Item) -> Option<Key> {
        let part = |name: &str| item.get(name)?.as_s().ok().cloned();
        let [name, sort] = self.0;
        Some(Key { name: part(name)?, version: part(sort)? })
    }
}

/// Some rows of the names index, and where the next ones begin.
#[derive(Debug)]
pub struct Page {
    /// Describing attributes, in the index's order.
    pub rows: Vec<Row>,
    /// The key of the last row that was read, if there may be more.
    pub last: Option<Key>,
}

/// The key of a row.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Key {
    /// The name of the secret.
    pub name: String,
    /// The sort key.
    pub version: String,
}

impl Key {
    /// The key of a row that was read; `None` if it has none, which no table allows.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        let part = |name: &str| row.get(name).and_then(Attribute::text).map(str::to_owned);
        Some(Self { name: part("name")?, version: part("version")? })
    }
}

impl Store {
    /// `table` and `ledger` are the names of the tables. A store without a ledger only reads.
    #[must_use]
    pub fn new(client: Client, table: String, ledger: Option<String>) -> Self {
        Self { client, table, ledger: ledger.unwrap_or_default() }
    }

    /// Whether there is a ledger.
    #[must_use]
    pub fn has_ledger(&self) -> bool {
        !self.ledger.is_empty()
    }

    /// The sort keys of the `count` highest versions, highest first, strongly consistent. Reads no
    /// other attribute, which is all that the roles of most functions allow.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn highest(&self, name: &Name, count: i32) -> Result<Vec<Label>, Error> {
        let query = self
            .query(name)
            .consistent_read(true)
            .scan_index_forward(false)
            .limit(count)
            .select(Select::SpecificAttributes)
            .projection_expression("#version")
            .expression_attribute_names("#version", "version");
        let items = self.send(query, None).await?.0;
        let label = |item: Item| item.get("version")?.as_s().ok().map(Label::stored);
        Ok(items.into_iter().filter_map(label).collect())
    }

    /// The `count` highest versions, highest first, strongly consistent: no ciphertext, no key.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn tops(&self, name: &Name, count: i32) -> Result<Vec<Top>, Error> {
        let query = self.query(name).consistent_read(true).scan_index_forward(false).limit(count);
        let items = self.send(ledger::only(TOP, query), None).await?.0;
        Ok(items.into_iter().filter_map(|item| Top::of(&row_of(item))).collect())
    }

    /// The version with this identity, if it is live, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn top(&self, name: &Name, identity: &Identity) -> Result<Option<Top>, Error> {
        let version = AttributeValue::S(identity.version().to_owned());
        let query = self
            .query(name)
            .key_condition_expression("#name = :name AND #version = :version")
            .expression_attribute_names("#version", "version")
            .expression_attribute_values(":version", version)
            .consistent_read(true);
        let items = self.send(ledger::only(TOP, query), None).await?.0;
        let tops = items.into_iter().filter_map(|item| Top::of(&row_of(item)));
        Ok(tops.into_iter().find(|top| top.identity == *identity))
    }

    /// The lowest versions, lowest first, at most `count` of them and 1 MB, strongly consistent;
    /// whether there may be more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn lowest(&self, name: &Name, count: i32) -> Result<(Vec<Live>, bool), Error> {
        let query = self.query(name).consistent_read(true).limit(count);
        let (items, last) = self.send(query, None).await?;
        Ok((items.into_iter().filter_map(Live::of).collect(), last.is_some()))
    }

    /// The row with exactly this sort key, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn live(&self, name: &Name, label: &Label) -> Result<Option<Live>, Error> {
        let query = self
            .query(name)
            .key_condition_expression("#name = :name AND #version = :version")
            .expression_attribute_names("#version", "version")
            .expression_attribute_values(":version", AttributeValue::S(label.as_str().to_owned()))
            .consistent_read(true);
        Ok(self.send(query, None).await?.0.into_iter().find_map(Live::of))
    }

    /// What the newest version says of itself, strongly consistent: no ciphertext, no key.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn described(&self, name: &Name) -> Result<Option<Row>, Error> {
        let query = self.query(name).consistent_read(true).scan_index_forward(false).limit(1);
        Ok(self.send(ledger::only(DESCRIBED, query), None).await?.0.into_iter().next().map(row_of))
    }

    /// The `count` highest versions, highest first, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn newest(&self, name: &Name, count: i32) -> Result<Vec<Row>, Error> {
        let query = self.query(name).consistent_read(true).scan_index_forward(false).limit(count);
        Ok(self.send(query, None).await?.0.into_iter().map(row_of).collect())
    }

    /// The row with this sort key, if any, and the `above` next higher ones, strongly consistent:
    /// one call that tells a version and where it stands.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn version(
        &self,
        name: &Name,
        label: &Label,
        above: i32,
    ) -> Result<Option<(Row, usize)>, Error> {
        let query = self
            .query(name)
            .key_condition_expression("#name = :name AND #version >= :version")
            .expression_attribute_names("#version", "version")
            .expression_attribute_values(":version", AttributeValue::S(label.as_str().to_owned()))
            .consistent_read(true)
            .limit(1 + above);
        let (items, last) = self.send(query, None).await?;
        // A page also ends at 1 MB: what lies behind it was not counted, and there is some.
        let cut = usize::from(last.is_some());
        let mut rows = items.into_iter().map(row_of);
        let found = rows
            .next()
            .filter(|row| row.get("version").and_then(Attribute::text) == Some(label.as_str()));
        Ok(found.map(|row| (row, rows.count() + cut)))
    }

    /// The version with this revision, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`], also where an adopted table lacks the index.
    pub async fn revision(&self, name: &Name, revision: &Revision) -> Result<Option<Row>, Error> {
        let bytes = Blob::new(revision.as_str().as_bytes());
        let query = self
            .query(name)
            .index_name(REVISION)
            .key_condition_expression("#name = :name AND #revision = :revision")
            .expression_attribute_names("#revision", "revision")
            .expression_attribute_values(":revision", AttributeValue::B(bytes))
            // The index has keys only; a local one fetches the rest from its table.
            .select(Select::AllAttributes)
            .consistent_read(true)
            .limit(1);
        Ok(self.send(query, Some(REVISION)).await?.0.into_iter().next().map(row_of))
    }

    /// A page of the names index: every version of every name that the prefix covers, the versions
    /// of one name together and in ascending order. Eventually consistent. Reads at most `limit`
    /// rows, or 1 MB, whatever the prefix leaves of them.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn names(
        &self,
        prefix: Option<&Prefix>,
        after: Option<Key>,
        limit: i32,
    ) -> Result<Page, Error> {
        let mut scan = self
            .client
            .scan()
            .table_name(&self.table)
            .index_name(NAMES)
            .limit(limit)
            .set_exclusive_start_key(after.map(|key| Place::VERSION.to_item(key)));
        let text = |text: String| AttributeValue::S(text);
        match prefix.map_or(Reach::All, Prefix::reach) {
            Reach::All => {}
            Reach::Characters(characters) => {
                scan = scan
                    .filter_expression("begins_with(#name, :prefix)")
                    .expression_attribute_names("#name", "name")
                    .expression_attribute_values(":prefix", text(characters.to_owned()));
            }
            Reach::Segments(name) => {
                let mut clauses = vec!["#name = :prefix".to_owned()];
                scan = scan
                    .expression_attribute_names("#name", "name")
                    .expression_attribute_values(":prefix", text(name.to_owned()));
                for (number, separator) in Prefix::SEPARATORS.into_iter().enumerate() {
                    let below = text(format!("{name}{separator}"));
                    clauses.push(format!("begins_with(#name, :below{number})"));
                    scan = scan.expression_attribute_values(format!(":below{number}"), below);
                }
                scan = scan.filter_expression(clauses.join(" OR "));
            }
        }
        self.scan(scan).await
    }

    /// A page of the names index: every version that expires after `from` and not after `to`, in
    /// any order. Eventually consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn expiring(
        &self,
        from: Moment,
        to: Moment,
        after: Option<Key>,
    ) -> Result<Page, Error> {
        let number = |moment: Moment| AttributeValue::N(moment.unix().to_string());
        let scan = self
            .client
            .scan()
            .table_name(&self.table)
            .index_name(NAMES)
            .set_exclusive_start_key(after.map(|key| Place::VERSION.to_item(key)))
            .filter_expression("#expires_at > :from AND #expires_at <= :to")
            .expression_attribute_names("#expires_at", "expires_at")
            .expression_attribute_values(":from", number(from))
            .expression_attribute_values(":to", number(to));
        self.scan(scan).await
    }

    /// A page of the versions of one name from the names index, highest first. Eventually
    /// consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn versions(
        &self,
        name: &Name,
        after: Option<Key>,
        limit: i32,
    ) -> Result<Page, Error> {
        let query = self
            .query(name)
            .index_name(NAMES)
            .scan_index_forward(false)
            .limit(limit)
            .set_exclusive_start_key(after.map(|key| Place::VERSION.to_item(key)));
        let (items, last) = self.send(query, Some(NAMES)).await?;
        Ok(Page { rows: items.into_iter().map(row_of).collect(), last })
    }

    fn query(&self, name: &Name) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.table)
            .key_condition_expression("#name = :name")
            .expression_attribute_names("#name", "name")
            .expression_attribute_values(":name", AttributeValue::S(name.as_str().to_owned()))
    }

    async fn scan(&self, scan: ScanFluentBuilder) -> Result<Page, Error> {
        let (items, last) = scanned(scan, self.resource(Some(NAMES))).await?;
        let last = last.and_then(|item| Place::VERSION.read(&item));
        Ok(Page { rows: items.into_iter().map(row_of).collect(), last })
    }

    async fn send(
        &self,
        query: QueryFluentBuilder,
        index: Option<&str>,
    ) -> Result<(Vec<Item>, Option<Key>), Error> {
        let (items, last) = queried(query, self.resource(index)).await?;
        Ok((items, last.and_then(|item| Place::VERSION.read(&item))))
    }

    fn resource(&self, index: Option<&str>) -> String {
        match index {
            Some(index) => format!("table/{}/index/{index}", self.table),
            None => format!("table/{}", self.table),
        }
    }
}

/// What a query answers, and the key of the last item if there may be more.
async fn queried(
    query: QueryFluentBuilder,
    resource: String,
) -> Result<(Vec<Item>, Option<Item>), Error> {
    let answer = Box::pin(query.send())
        .await
        .map_err(|error| Error::from(AwsError::of("dynamodb:Query", resource, &error)))?;
    Ok((answer.items.unwrap_or_default(), answer.last_evaluated_key))
}

/// What a scan answers, and the key of the last item if there may be more.
async fn scanned(
    scan: ScanFluentBuilder,
    resource: String,
) -> Result<(Vec<Item>, Option<Item>), Error> {
    let answer = Box::pin(scan.send())
        .await
        .map_err(|error| Error::from(AwsError::of("dynamodb:Scan", resource, &error)))?;
    Ok((answer.items.unwrap_or_default(), answer.last_evaluated_key))
}

/// The identity of an item, without a copy of its value.
fn identity_of(item: &Item) -> Option<Identity> {
    let part = |name: &str| item.get(name).map(|value| (name.to_owned(), value.clone()));
    Identity::of(&row_of(["version", "hmac"].into_iter().filter_map(part).collect()))
}

fn item_of(row: Row) -> Item {
    row.into_iter().filter_map(value_of).collect()
}

fn row_of(item: Item) -> Row {
    item.into_iter().map(|(name, value)| (name, attribute_of(value))).collect()
}

fn attribute_of(value: AttributeValue) -> Attribute {
    match value {
        AttributeValue::S(text) => Attribute::Text(text),
        AttributeValue::N(digits) => Attribute::Number(digits),
        AttributeValue::B(bytes) => Attribute::Bytes(bytes.into_inner()),
        AttributeValue::Bool(flag) => Attribute::Flag(flag),
        AttributeValue::M(pairs) => pairs
            .into_iter()
            .map(|(key, value)| match value {
                AttributeValue::S(text) => Some((key, text)),
                _ => None,
            })
            .collect::<Option<_>>()
            .map_or(Attribute::Foreign, Attribute::Map),
        AttributeValue::Ss(members) => Attribute::Set(members.into_iter().collect()),
        _ => Attribute::Foreign,
    }
}

fn value_of((name, attribute): (String, Attribute)) -> Option<(String, AttributeValue)> {
    let value = match attribute {
        Attribute::Text(text) => AttributeValue::S(text),
        Attribute::Number(digits) => AttributeValue::N(digits),
        Attribute::Bytes(bytes) => AttributeValue::B(Blob::new(bytes)),
        Attribute::Flag(flag) => AttributeValue::Bool(flag),
        Attribute::Map(pairs) => AttributeValue::M(
            pairs.into_iter().map(|(key, value)| (key, AttributeValue::S(value))).collect(),
        ),
        Attribute::Set(members) => AttributeValue::Ss(members.into_iter().collect()),
        Attribute::Foreign => return None,
    };
    Some((name, value))
}
