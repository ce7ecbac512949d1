//! restore: numbers without padding, and the forms of versions before a reseal.

use serde_json::{Value, json};

use super::super::delete::Delete;
use super::super::restore::Restore;
use super::{padded, value, versions};
use crate::testing::{Item, Stack, legacy_row};
use crate::timestamp::Timestamp;

/// Deletes rows of these sort keys, then puts a padded version above all of them.
async fn under_padded(rows: &[&str]) -> Stack {
    let stack = Stack::new();
    for version in rows {
        let row = legacy_row(&stack.aws, "n", version, &format!("value {version}"), &[]);
        stack.aws.put_item("secrets", row);
    }
    stack.done::<Delete>(json!({"name": "n"})).await;
    stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", &padded(20), "live", &[]));
    stack
}

async fn restore(stack: &Stack, version: Value) -> Value {
    stack.done::<Restore>(json!({"name": "n", "version": version})).await["versions"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_number_without_padding_is_restored_as_it_was_if_nothing_padded_is_live() {
    let stack = Stack::new();
    stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", "7", "s", &[]));
    stack.done::<Delete>(json!({"name": "n"})).await;
    assert_eq!(restore(&stack, json!(7)).await, json!([7]));
    assert_eq!(versions(&stack, "n"), ["7"]);
}

#[tokio::test(start_paused = true)]
async fn numbers_are_restored_with_padding_under_a_padded_version() {
    let stack = under_padded(&["1", "2", "10"]).await;
    for version in [1, 2, 10] {
        assert_eq!(restore(&stack, json!(version)).await, json!([version]));
    }
    assert_eq!(versions(&stack, "n"), [1, 2, 10, 20].map(padded));
    assert_eq!(value(&stack, "n").await, "live");
    assert!(stack.aws.entries("n", "deleted#").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restore_ends_if_the_padded_place_of_a_number_is_taken() {
    let stack = under_padded(&["1"]).await;
    stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", &padded(1), "taken", &[]));
    let before = stack.aws.stored();
    let error = stack.error::<Restore>(json!({"name": "n", "version": 1})).await;
    assert_eq!(error.code().name, "Exists");
    assert!(error.to_string().contains("same number"), "{error}");
    assert_eq!(stack.aws.calls("TransactWriteItems"), 2, "one for the delete, one that is refused");
    assert_eq!(stack.aws.stored(), before);
}

#[tokio::test(start_paused = true)]
async fn two_forms_of_one_number_do_not_clash() {
    let stack = under_padded(&["1", &padded(1), "2"]).await;
    assert_eq!(restore(&stack, json!(1)).await, json!([1]));
    assert_eq!(value_of(&stack, 1).await, format!("value {}", padded(1)));
    let code = stack.code::<Restore>(json!({"name": "n", "version": "1"})).await;
    assert_eq!(code, "Exists");
    assert_eq!(restore(&stack, json!(2)).await, json!([2]));
}

async fn value_of(stack: &Stack, version: u64) -> Value {
    let request = json!({"name": "n", "version": version});
    stack.done::<super::Get>(request).await["secret"].clone()
}

#[tokio::test(start_paused = true)]
async fn two_forms_of_one_number_are_restored_once_as_a_whole() {
    let stack = Stack::new();
    for version in ["3", &padded(3), "10", &padded(20)] {
        let row = legacy_row(&stack.aws, "n", version, &format!("value {version}"), &[]);
        stack.aws.put_item("secrets", row);
    }
    for version in [&padded(3), "3", "10"] {
        stack.done::<Delete>(json!({"name": "n", "version": version})).await;
    }
    let response = stack.done::<Restore>(json!({"name": "n"})).await;
    assert_eq!(response["versions"], json!([3, 10]));
    assert_eq!(versions(&stack, "n"), [3, 10, 20].map(padded));
    assert_eq!(stack.aws.entries("n", "deleted#").len(), 1, "the other form stays");
}

#[tokio::test(start_paused = true)]
async fn a_sealed_row_without_padding_is_not_restored_above_the_current_version() {
    let stack = under_padded(&["7"]).await;
    let entry = stack.aws.entries("n", "deleted#").remove(0);
    stack.aws.edit_item("ledger", "n", entry["entry"]["S"].as_str().unwrap(), |entry| {
        entry["row"]["M"]["seal"] = json!({"S": "c2VhbA=="});
    });
    let before = stack.aws.stored();
    let error = stack.error::<Restore>(json!({"name": "n", "version": 7})).await;
    assert_eq!(error.code().name, "Exists");
    assert!(error.to_string().contains("without leading zeros"), "{error}");
    assert_eq!(stack.aws.stored(), before);
}

/// Puts the form of version 1 before a reseal into the ledger, as stored under `version`.
fn put_before_reseal(stack: &Stack, version: &str, sequence: u64) {
    let mut row: Item = legacy_row(&stack.aws, "n", version, "before", &[]);
    row.remove("name");
    let entry = format!("deleted#{}#0123456789abcdef-{sequence}", padded(1));
    let until = Timestamp::now().unix() + 1000;
    let item = json!({
        "name": {"S": "n"}, "entry": {"S": entry}, "sequence": {"N": sequence.to_string()},
        "deleted_at": {"N": "1000"}, "ttl": {"N": until.to_string()}, "row": {"M": row},
        "before_reseal": {"BOOL": true},
    });
    stack.aws.put_item("ledger", item.as_object().unwrap().clone());
}

const BEFORE: fn() -> Value = || json!({"name": "n", "version": 1, "before_reseal": true});

#[tokio::test(start_paused = true)]
async fn the_form_before_a_reseal_is_restored_on_request_only() {
    for stored in [padded(1), "1".to_owned()] {
        let stack = Stack::new();
        put_before_reseal(&stack, &stored, 1);
        assert_eq!(stack.code::<Restore>(json!({"name": "n"})).await, "NotFound");
        let code = stack.code::<Restore>(json!({"name": "n", "version": 1})).await;
        assert_eq!(code, "NotFound");
        let response = stack.done::<Restore>(BEFORE()).await;
        assert_eq!(response["versions"], json!([1]));
        assert_eq!(versions(&stack, "n"), [padded(1)], "under its current number");
        assert_eq!(value(&stack, "n").await, "before");
    }
}

#[tokio::test(start_paused = true)]
async fn the_form_before_a_reseal_does_not_replace_the_version_that_exists() {
    for stored in [padded(1), "1".to_owned()] {
        let stack = Stack::new();
        put_before_reseal(&stack, &stored, 1);
        stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", &padded(1), "resealed", &[]));
        let before = stack.aws.stored();
        let error = stack.error::<Restore>(BEFORE()).await;
        assert_eq!(error.code().name, "Exists");
        assert!(error.to_string().contains("Delete it first"), "{error}");
        assert_eq!(stack.aws.stored(), before);
        assert_eq!(stack.aws.calls("TransactWriteItems"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_earlier_forms_the_later_one_is_restored() {
    let stack = Stack::new();
    put_before_reseal(&stack, "1", 1);
    put_before_reseal(&stack, &padded(1), 5);
    stack.done::<Restore>(BEFORE()).await;
    let left = stack.aws.entries("n", "deleted#");
    let [left] = left.as_slice() else { panic!("{left:?}") };
    assert_eq!(left["sequence"]["N"], "1");
}
