//! Tests of rotations on a stack in memory.

mod moves;
mod one_name;
mod padding;
mod parts;
mod renew;
mod reports;
mod reseal;
mod rewrap;
mod rows;
mod runs;

use std::cell::Cell;
use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::request::{RotationFunction, RotationRequest};
use crate::error::Error;
use crate::operations::StackOptions;
use crate::operations::delete::Delete;
use crate::operations::get::Get;
use crate::operations::put::Put;
use crate::testing::{Aws, Fault, Item, KEY, Stack, options};

/// A key that is not the stack's.
const OTHER_KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/other";
/// A key that the stack had before.
const RETIRED_KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/retired";

const SECRETS: &str = "secrets";
const LEDGER: &str = "ledger";

/// Three executions of the state machine.
const ONE: &str = "arn:aws:states:eu-west-1:111122223333:execution:coffer:one";
const TWO: &str = "arn:aws:states:eu-west-1:111122223333:execution:coffer:two";
const THREE: &str = "arn:aws:states:eu-west-1:111122223333:execution:coffer:three";

const FIRST: &str = "0000000000000000001";
const SECOND: &str = "0000000000000000002";
const SEVENTH: &str = "0000000000000000007";
const EIGHTH: &str = "0000000000000000008";

/// More calls than any test makes.
const ALWAYS: usize = usize::MAX;

/// A stack and what a test needs to rotate it.
struct World {
    stack: Stack,
    aws: Aws,
    /// How many times the stack's key was rotated.
    rotations: Cell<u64>,
    executions: Cell<u32>,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut StackOptions)) -> Self {
        let mut options = StackOptions { kms_requests_per_second: 25, ..options() };
        change(&mut options);
        Self::of(|aws| Stack::on(aws, options))
    }

    /// A stack with a retired key.
    fn with_retired_key() -> Self {
        Self::of(|aws| Stack::with_retired_keys(aws, options(), &[RETIRED_KEY]))
    }

    fn of(stack: impl FnOnce(Aws) -> Stack) -> Self {
        let aws = Aws::new();
        for key in [OTHER_KEY, RETIRED_KEY] {
            aws.add_key(key);
        }
        let stack = stack(aws.clone());
        Self { stack, aws, rotations: Cell::new(0), executions: Cell::new(0) }
    }

    /// Puts a secret.
    async fn put(&self, name: &str, value: &str) {
        self.stack.done::<Put>(json!({ "name": name, "secret": value })).await;
    }

    /// Deletes a secret, which can be restored.
    async fn delete(&self, name: &str) {
        self.stack.done::<Delete>(json!({ "name": name })).await;
    }

    /// Gets the current value of a secret.
    async fn value(&self, name: &str) -> String {
        let response = self.stack.done::<Get>(json!({ "name": name })).await;
        response["secret"].as_str().unwrap().to_owned()
    }

    /// Puts a row, as another client does.
    fn insert(&self, row: Item) {
        self.aws.put_item(SECRETS, row);
    }

    /// Returns an item.
    fn item(&self, table: &'static str, name: &str, sort: &str) -> Option<Item> {
        item(&self.aws, table, name, sort)
    }

    /// Returns the sort keys of the live versions of a name.
    fn labels(&self, name: &str) -> Vec<String> {
        let items = self.aws.items(SECRETS, name);
        items.iter().map(|item| item["version"]["S"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns all rows, live, deleted, and as they were before a reseal.
    fn versions(&self) -> BTreeMap<(&'static str, String, String), Item> {
        let mut versions = BTreeMap::new();
        for (table, items) in self.aws.stored() {
            for item in items {
                let part = |name: &str| item[name]["S"].as_str().unwrap().to_owned();
                if table == SECRETS {
                    versions.insert((table, part("name"), part("version")), item.clone());
                } else if let Some(row) = item.get("row") {
                    let row = row["M"].as_object().unwrap().clone();
                    versions.insert((table, part("name"), part("entry")), row);
                }
            }
        }
        versions
    }

    /// Returns the entries of the ledger that hold a row.
    fn kept(&self) -> Vec<Item> {
        let mut ledger = self.aws.stored().remove(LEDGER).unwrap();
        ledger.retain(|item| item.contains_key("row"));
        ledger
    }

    /// Returns the operations in the history of a name.
    fn operations(&self, name: &str) -> Vec<String> {
        let events = self.aws.entries(name, "event#");
        events.iter().map(|event| event["operation"]["S"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether the history of a name is as it was written.
    async fn verifies(&self, name: &str) -> bool {
        let verified = self.stack.coffer.verify(&name.parse().unwrap()).await.unwrap();
        verified.entries > 0 && verified.broken.is_empty()
    }

    /// Rotates the stack's key.
    fn rotate_key(&self) {
        self.aws.rotate_key(KEY);
        self.rotations.set(self.rotations.get() + 1);
    }

    /// Whether the data key of a row is wrapped by the newest material of the stack's key.
    fn is_newest(&self, row: &Item) -> bool {
        let wrapped = row["key"]["S"].as_str().or(row["key"]["B"].as_str()).unwrap();
        let wrapped: Value =
            serde_json::from_slice(&BASE64_STANDARD.decode(wrapped).unwrap()).unwrap();
        wrapped["key"] == KEY && wrapped["material"] == self.rotations.get()
    }

    /// Does a step of a run.
    async fn step<R: RotationFunction>(
        &self,
        execution: &str,
        step: Value,
    ) -> Result<Value, Error> {
        let mut step = step;
        step["action"] = json!(R::ACTION.as_str());
        step["execution"] = json!(execution);
        self.stack.call::<RotationRequest<R>>(step).await
    }

    /// Begins a run, as an execution that was started at this second.
    async fn begin<R: RotationFunction>(
        &self,
        execution: &str,
        second: u32,
        input: Value,
    ) -> Value {
        let mut input = input;
        input["action"] = json!(R::ACTION.as_str());
        let started_at = format!("2020-01-01T00:{:02}:{:02}Z", second / 60, second % 60);
        let step = json!({ "step": "begin", "started_at": started_at, "input": input });
        self.step::<R>(execution, step).await.unwrap()
    }

    /// Does part 0 of a stage for some seconds. Returns whether it is done.
    async fn part<R: RotationFunction>(
        &self,
        execution: &str,
        stage: &str,
        seconds: u32,
    ) -> Result<bool, Error> {
        let step = json!({ "step": "part", "stage": stage, "number": 0, "seconds": seconds });
        Ok(self.step::<R>(execution, step).await?["done"] == true)
    }

    /// Ends a run and returns its report.
    async fn end<R: RotationFunction>(&self, execution: &str) -> Value {
        self.step::<R>(execution, json!({ "step": "end" })).await.unwrap()
    }

    /// Does a whole run, as the state machine does, and returns its report.
    async fn run<R: RotationFunction>(&self, input: Value) -> Value {
        let number = self.executions.get() + 1;
        self.executions.set(number);
        let execution = &format!("arn:aws:states:eu-west-1:111122223333:execution:coffer:{number}");
        let started = self.begin::<R>(execution, number, input).await;
        for stage in ["all", "moved"] {
            for number in started[stage].as_array().unwrap() {
                let mut done = false;
                while !done {
                    let step = json!({ "step": "part", "stage": stage, "number": number,
                                       "seconds": 600 });
                    done = self.step::<R>(execution, step).await.unwrap()["done"] == true;
                }
            }
        }
        self.end::<R>(execution).await
    }

    /// Rotates one name.
    async fn one<R: RotationFunction>(&self, name: &str, request: Value) -> Result<Value, Error> {
        let mut request = request;
        request["action"] = json!(R::ACTION.as_str());
        request["name"] = json!(name);
        self.stack.call::<RotationRequest<R>>(request).await
    }

    /// Edits an item right before a transaction, after `skip` others.
    fn edit_before(
        &self,
        skip: usize,
        key: (&'static str, &'static str, &'static str),
        edit: impl FnOnce(&mut Item) + Send + 'static,
    ) {
        self.aws.before("TransactWriteItems", skip, move |aws| async move {
            let (table, name, sort) = key;
            aws.edit_item(table, name, sort, edit);
        });
    }

    /// Puts an item right before a transaction, after `skip` others.
    fn put_before(&self, skip: usize, table: &'static str, item: Item) {
        self.aws.before("TransactWriteItems", skip, move |aws| async move {
            aws.put_item(table, item);
        });
    }

    /// Makes one transaction fail, after `skip` others.
    fn fail_after(&self, skip: usize, fault: Fault) {
        self.aws.before("TransactWriteItems", skip, move |aws| async move {
            aws.fail("TransactWriteItems", 1, fault);
        });
    }

    /// Makes transactions fail that write an item with this sort key.
    fn fail_write_of(&self, sort: &'static str, times: usize, fault: Fault) {
        let is_of = move |write: &Value| {
            let key = write.get("Key").unwrap_or(&write["Item"]);
            let attribute = if write["TableName"] == SECRETS { "version" } else { "entry" };
            key[attribute]["S"] == sort
        };
        let matches = move |request: &Value| {
            let writes = request["TransactItems"].as_array().unwrap();
            writes.iter().flat_map(|write| write.as_object().unwrap().values()).any(is_of)
        };
        self.aws.fail_if("TransactWriteItems", times, fault, matches);
    }

    /// Makes updates of the items of a name fail.
    fn fail_update_of(&self, name: &'static str, times: usize, fault: Fault) {
        let matches = move |request: &Value| request["Key"]["name"]["S"] == name;
        self.aws.fail_if("UpdateItem", times, fault, matches);
    }
}

/// Returns an item.
fn item(aws: &Aws, table: &'static str, name: &str, sort: &str) -> Option<Item> {
    let attribute = if table == SECRETS { "version" } else { "entry" };
    aws.items(table, name).into_iter().find(|item| item[attribute]["S"] == sort)
}

/// How many items a report has as seen, changed, skipped and failed.
fn counts(report: &Value) -> [u64; 4] {
    ["seen", "changed", "skipped", "failed"].map(|count| report[count].as_u64().unwrap())
}

/// How many items a report has as failed, by reason.
fn reasons(report: &Value) -> Value {
    report.get("reasons").cloned().unwrap_or_else(|| json!({}))
}

fn text(text: &str) -> Value {
    json!({ "S": text })
}

fn number(number: i64) -> Value {
    json!({ "N": number.to_string() })
}

fn bytes(bytes: &[u8]) -> Value {
    json!({ "B": BASE64_STANDARD.encode(bytes) })
}

fn base64(bytes: &[u8]) -> Value {
    text(&BASE64_STANDARD.encode(bytes))
}

fn map(pairs: &[(&str, &str)]) -> Value {
    let pairs: Item = pairs.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
    json!({ "M": pairs })
}
