//! A stack in memory for unit tests: the real operations on the SDK's real clients, with DynamoDB
//! and KMS behind their HTTP connector.
//!
//! Tests run with time paused (`#[tokio::test(start_paused = true)]`), so that no retry waits.

mod aws;
mod dynamodb;
mod expression;
mod http;
mod kms;

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Map, Value, json};

use aws::Refused;
pub(crate) use aws::{Aws, Fault};
pub(crate) use http::{http_client, test_config};

use crate::audit_chain::Caller;
use crate::envelope;
use crate::error::Error;
use crate::fields::Fields;
use crate::keys::Keys;
use crate::operations::{Coffer, LegacyItems, Operation, StackOptions, parse};
use crate::request::Origin;
use crate::row::{Attribute, Row};
use crate::secret::{DataKey, Secret};
use crate::store::ledger::Ledger;
use crate::store::secrets_table::SecretsTable;

/// An item in DynamoDB's JSON: `{"name": {"S": "prod/db"}, ..}`.
pub(crate) type Item = Map<String, Value>;

/// The stack's key.
pub(crate) const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/stack";

/// A stack in memory.
pub(crate) struct Stack {
    /// Its AWS.
    pub(crate) aws: Aws,
    /// Its operations.
    pub(crate) coffer: Coffer,
}

impl Stack {
    /// Creates an empty stack that reads legacy rows and allows a forced delete.
    pub(crate) fn new() -> Self {
        Self::on(Aws::new(), options())
    }

    /// Creates a stack with these options on an AWS.
    pub(crate) fn on(aws: Aws, options: StackOptions) -> Self {
        Self::with_retired_keys(aws, options, &[])
    }

    /// Creates a stack that had other keys before.
    pub(crate) fn with_retired_keys(aws: Aws, options: StackOptions, retired: &[&str]) -> Self {
        let retired = retired.iter().map(|arn| (*arn).to_owned()).collect();
        let keys = Keys::new(aws.kms(), KEY.to_owned(), retired, Duration::ZERO);
        let table = SecretsTable::new(aws.dynamodb(), "secrets".to_owned());
        let ledger = Ledger::new(aws.dynamodb(), "ledger".to_owned());
        let coffer = Coffer::new(Some(keys), Some(table), Some(ledger), options);
        Self { aws, coffer }
    }

    /// Sends a request to an operation and returns its response.
    pub(crate) async fn call<O: Operation>(&self, request: Value) -> Result<Value, Error> {
        let operation: O = parse(Fields::parse(&request.to_string())?)?;
        let output = operation.apply(&self.coffer, &caller()).await?;
        let reply = Origin::Direct.reply(Ok(O::respond(output)?)).unwrap();
        Ok(serde_json::to_value(&reply).unwrap())
    }

    /// Sends a request that succeeds, and returns its response.
    pub(crate) async fn done<O: Operation>(&self, request: Value) -> Value {
        let response = self.call::<O>(request.clone()).await;
        response.unwrap_or_else(|error| panic!("{request}: {error} {:?}", error.detail()))
    }

    /// Sends a request that fails, and returns its error.
    pub(crate) async fn error<O: Operation>(&self, request: Value) -> Error {
        match self.call::<O>(request.clone()).await {
            Ok(response) => panic!("{request}: {response}"),
            Err(error) => error,
        }
    }

    /// Sends a request that fails, and returns the code of its error.
    pub(crate) async fn code<O: Operation>(&self, request: Value) -> &'static str {
        self.error::<O>(request).await.code().name
    }
}

/// The options of a stack that allows everything.
pub(crate) fn options() -> StackOptions {
    StackOptions {
        legacy_items: LegacyItems::Read,
        forced_delete: true,
        history_days: None,
        notice_days: 7,
        kms_requests_per_second: 1000,
    }
}

/// The caller of every request.
pub(crate) fn caller() -> Caller {
    Caller { who: "arn:aws:iam::111122223333:user/tester".into(), request_id: "request-1".into() }
}

/// The data key of rows that a test writes.
const DATA_KEY: [u8; 64] = [7; 64];

/// Returns a row as Coffer writes it, with these attributes besides.
pub(crate) fn sealed_row(aws: &Aws, name: &str, version: &str, secret: &str, more: &Row) -> Item {
    let mut row = more.clone();
    for (attribute, text) in [("name", name), ("version", version)] {
        row.insert(attribute.to_owned(), Attribute::Text(text.to_owned()));
    }
    let key = DataKey::new(DATA_KEY.to_vec()).unwrap();
    let row = envelope::seal(&key, &Secret::new(secret.into()), row).unwrap();
    let json = |value: Attribute| match value {
        Attribute::Text(text) => json!({"S": text}),
        Attribute::Number(digits) => json!({"N": digits}),
        Attribute::Flag(flag) => json!({"BOOL": flag}),
        other => panic!("{other:?} is not supported here"),
    };
    let mut item: Item = row.into_iter().map(|(name, value)| (name, json(value))).collect();
    let wrapped = BASE64_STANDARD.encode(aws.wrap(KEY, &[], &DATA_KEY));
    item.insert("key".to_owned(), json!({"S": wrapped}));
    item
}

/// Returns a row as credstash writes it: the version as given, no seal.
pub(crate) fn legacy_row(
    aws: &Aws,
    name: &str,
    version: &str,
    secret: &str,
    context: &[(&str, &str)],
) -> Item {
    let mut item = sealed_row(aws, name, version, secret, &Row::new());
    item.retain(|name, _| !["seal", "binary", "json"].contains(&name.as_str()));
    let wrapped = BASE64_STANDARD.encode(aws.wrap(KEY, context, &DATA_KEY));
    item.insert("key".to_owned(), json!({"S": wrapped}));
    item
}

mod tests;
