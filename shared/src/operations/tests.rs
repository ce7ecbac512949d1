//! Tests of the operations on a stack in memory.

mod bundle;
mod delete;
mod failures;
mod get;
mod history;
mod list;
mod policy;
mod put;
mod put_several;
mod restore;
mod restore_forms;
mod tokens;

use serde_json::{Value, json};

use super::get::Get;
use super::list::List;
use super::put::Put;
use crate::testing::{Aws, Item, Stack, options};

/// The sort key of a version.
fn padded(version: u64) -> String {
    format!("{version:019}")
}

/// Puts the next version of a secret.
async fn put(stack: &Stack, name: &str, secret: &str) -> Value {
    stack.done::<Put>(json!({"name": name, "secret": secret})).await
}

/// Returns the current value of a secret.
async fn value(stack: &Stack, name: &str) -> Value {
    stack.done::<Get>(json!({"name": name})).await["secret"].clone()
}

/// Puts the next version of a secret in a call of its own, at the same time as another.
async fn put_meanwhile(aws: Aws, name: &str, secret: &str) {
    put(&Stack::on(aws, options()), name, secret).await;
}

/// Returns the sort keys of the live versions of a name.
fn versions(stack: &Stack, name: &str) -> Vec<String> {
    let text = |item: &Item| item["version"]["S"].as_str().unwrap().to_owned();
    stack.aws.items("secrets", name).iter().map(text).collect()
}

/// Returns the operations in the history of a name, oldest first.
fn events(stack: &Stack, name: &str) -> Vec<String> {
    let text = |item: &Item| item["operation"]["S"].as_str().unwrap().to_owned();
    stack.aws.entries(name, "event#").iter().map(text).collect()
}

/// Panics unless the history of a name is whole.
async fn check_history(stack: &Stack, name: &str) {
    let verified = stack.done::<List>(json!({"name": name, "list": "history", "verify": true}));
    let verified = verified.await;
    assert_eq!(verified["whole"], true, "{verified}");
}
