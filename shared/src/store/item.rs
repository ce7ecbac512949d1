//! Items of DynamoDB: conversions to and from rows, keys, and the two ways to read many.

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::scan::builders::ScanFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, Select};

use crate::aws_error::AwsError;
use crate::error::Error;
use crate::life::RowIdentity;
use crate::row::{Attribute, Row};

pub(crate) type Item = HashMap<String, AttributeValue>;

/// The key of an item: of a version in the table of secrets, or of an entry in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Key {
    /// The partition key: the name of the secret.
    pub name: String,
    /// The sort key: a version, or an entry of the ledger.
    pub version: String,
}

impl Key {
    /// Reads the key of a row; `None` if it has none, which no table allows.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        let part = |name: &str| row.get(name).and_then(Attribute::text).map(str::to_owned);
        Some(Self { name: part("name")?, version: part("version")? })
    }
}

/// The names of a table's key attributes.
#[derive(Clone, Copy)]
pub(super) struct KeySchema {
    partition: &'static str,
    pub(super) sort: &'static str,
}

impl KeySchema {
    /// The key of the table of secrets and of its index of names.
    pub(super) const SECRETS: Self = Self { partition: "name", sort: "version" };
    /// The key of the ledger.
    pub(super) const LEDGER: Self = Self { partition: "name", sort: "entry" };

    /// Extracts the key attributes of an item.
    pub(super) fn key_of(self, item: &Item) -> Item {
        let part = |name: &str| item.get(name).map(|value| (name.to_owned(), value.clone()));
        [self.partition, self.sort].into_iter().filter_map(part).collect()
    }

    pub(super) fn to_item(self, key: Key) -> Item {
        Item::from([
            (self.partition.to_owned(), AttributeValue::S(key.name)),
            (self.sort.to_owned(), AttributeValue::S(key.version)),
        ])
    }

    pub(super) fn read(self, item: &Item) -> Option<Key> {
        let part = |name: &str| item.get(name)?.as_s().ok().cloned();
        Some(Key { name: part(self.partition)?, version: part(self.sort)? })
    }
}

/// Restricts a query to these attributes. Most roles allow no others.
pub(super) fn only(attributes: &[&str], query: QueryFluentBuilder) -> QueryFluentBuilder {
    let query = query.select(Select::SpecificAttributes);
    let placeholders: Vec<_> = attributes.iter().map(|name| format!("#{name}")).collect();
    let query = query.projection_expression(placeholders.join(", "));
    placeholders.into_iter().zip(attributes).fold(query, |query, (placeholder, name)| {
        query.expression_attribute_names(placeholder, *name)
    })
}

/// Sends a query. Returns its items, and the key of the last one if there may be more.
pub(super) async fn send_query(
    query: QueryFluentBuilder,
    resource: String,
) -> Result<(Vec<Item>, Option<Item>), Error> {
    let output = Box::pin(query.send())
        .await
        .map_err(|error| Error::from(AwsError::of("dynamodb:Query", resource, &error)))?;
    Ok((output.items.unwrap_or_default(), output.last_evaluated_key))
}

/// Sends a scan. Returns its items, and the key of the last one if there may be more.
pub(super) async fn send_scan(
    scan: ScanFluentBuilder,
    resource: String,
) -> Result<(Vec<Item>, Option<Item>), Error> {
    let output = Box::pin(scan.send())
        .await
        .map_err(|error| Error::from(AwsError::of("dynamodb:Scan", resource, &error)))?;
    Ok((output.items.unwrap_or_default(), output.last_evaluated_key))
}

/// Returns the identity of an item without copying its value.
pub(super) fn identity_of(item: &Item) -> Option<RowIdentity> {
    let part = |name: &str| item.get(name).map(|value| (name.to_owned(), value.clone()));
    RowIdentity::of(&row_of(["version", "hmac"].into_iter().filter_map(part).collect()))
}

pub(super) fn item_of(row: Row) -> Item {
    row.into_iter().filter_map(value_of).collect()
}

pub(super) fn row_of(item: Item) -> Row {
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
