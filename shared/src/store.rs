//! The table of live secrets: rows in and out, and what DynamoDB promises about them.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, Select};

use crate::error::Error;
use crate::failure::Failure;
use crate::name::{Label, Name, Prefix, Revision};
use crate::row::{self, Attribute, Row};

/// The index of names: describing attributes only, never a key, a ciphertext or a MAC.
const NAMES: &str = "names";
/// The index of revisions within a name.
const REVISION: &str = "revision";

type Item = HashMap<String, AttributeValue>;

/// The table of live secrets.
#[derive(Debug)]
pub struct Store {
    client: Client,
    table: String,
}

/// What became of a conditional write.
#[derive(Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The row is there.
    Done,
    /// Another row has this name and version; nothing was changed.
    Taken,
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

    fn into_item(self) -> Item {
        let part = |name: &str, value| (name.to_owned(), AttributeValue::S(value));
        HashMap::from([part("name", self.name), part("version", self.version)])
    }
}

impl Store {
    /// `table` is the table's name.
    #[must_use]
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// The sort key of the highest version, strongly consistent. Reads no other attribute, which
    /// is all that the put function's role allows.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn highest(&self, name: &Name) -> Result<Option<Label>, Error> {
        let query = self
            .query(name)
            .consistent_read(true)
            .scan_index_forward(false)
            .limit(1)
            .select(Select::SpecificAttributes)
            .projection_expression("#version")
            .expression_attribute_names("#version", "version");
        let items = self.send(query, None).await?.0;
        let row = items.into_iter().next().map(row_of).unwrap_or_default();
        Ok(row.get("version").and_then(Attribute::text).map(Label::stored))
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

    /// Writes a sealed row unless its name and version are taken. A retry that meets the row of
    /// the very same write, whose answer was lost, writes it once more over itself: no two writes
    /// have the same seal.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Unavailable`].
    pub async fn insert(&self, row: Row) -> Result<Inserted, Error> {
        let seal = row.get("seal").and_then(Attribute::text).unwrap_or_default().to_owned();
        let large = row::size(&row) > row::MAX_BYTES / 2;
        let sent = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(row.into_iter().filter_map(value_of).collect()))
            .condition_expression("attribute_not_exists(#name) OR #seal = :seal")
            .expression_attribute_names("#name", "name")
            .expression_attribute_names("#seal", "seal")
            .expression_attribute_values(":seal", AttributeValue::S(seal))
            .send()
            .await;
        let Err(error) = sent else {
            return Ok(Inserted::Done);
        };
        match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(_)) => Ok(Inserted::Taken),
            Some(PutItemError::ItemCollectionSizeLimitExceededException(_)) => {
                Err(Error::TooLarge(
                    "The versions of this name fill the 10 GB that DynamoDB allows. Delete old \
                     versions, or use another name."
                        .into(),
                ))
            }
            _ => {
                let failure = Failure::of("dynamodb:PutItem", self.resource(None), &error);
                if large && failure.code() == "ValidationException" {
                    return Err(Error::TooLarge(
                        "DynamoDB does not take an item of this size into this table: a table \
                         that was adopted may have local indexes that copy its items. Shorten the \
                         secret, or keep it elsewhere and put the key to it here."
                            .into(),
                    ));
                }
                Err(if failure.is_certain() { failure.into() } else { unconfirmed(failure) })
            }
        }
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
            .set_exclusive_start_key(after.map(Key::into_item));
        if let Some(prefix) = prefix {
            let mut clauses = vec!["#name = :prefix".to_owned()];
            scan = scan
                .expression_attribute_names("#name", "name")
                .expression_attribute_values(":prefix", AttributeValue::S(prefix.as_str().into()));
            for (number, separator) in Prefix::SEPARATORS.into_iter().enumerate() {
                let below = AttributeValue::S(format!("{}{separator}", prefix.as_str()));
                clauses.push(format!("begins_with(#name, :below{number})"));
                scan = scan.expression_attribute_values(format!(":below{number}"), below);
            }
            scan = scan.filter_expression(clauses.join(" OR "));
        }
        let resource = self.resource(Some(NAMES));
        let answer = scan
            .send()
            .await
            .map_err(|error| Error::from(Failure::of("dynamodb:Scan", resource, &error)))?;
        let last = answer.last_evaluated_key.map(row_of).as_ref().and_then(Key::of);
        let rows = answer.items.unwrap_or_default().into_iter().map(row_of).collect();
        Ok(Page { rows, last })
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
            .set_exclusive_start_key(after.map(Key::into_item));
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

    async fn send(
        &self,
        query: QueryFluentBuilder,
        index: Option<&str>,
    ) -> Result<(Vec<Item>, Option<Key>), Error> {
        let answer = query.send().await.map_err(|error| {
            Error::from(Failure::of("dynamodb:Query", self.resource(index), &error))
        })?;
        let last = answer.last_evaluated_key.map(row_of).as_ref().and_then(Key::of);
        Ok((answer.items.unwrap_or_default(), last))
    }

    fn resource(&self, index: Option<&str>) -> String {
        match index {
            Some(index) => format!("table/{}/index/{index}", self.table),
            None => format!("table/{}", self.table),
        }
    }
}

/// A write of which nobody knows whether it was done: only the caller can tell.
fn unconfirmed(failure: Failure) -> Error {
    Error::Unavailable {
        message: "DynamoDB did not confirm the write, and the version may have been written. List \
                  the versions of this name before you try again."
            .into(),
        source: Box::new(failure),
    }
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
        Attribute::Foreign => return None,
    };
    Some((name, value))
}
