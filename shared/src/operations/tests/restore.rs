//! restore.

use serde_json::{Value, json};

use super::super::delete::Delete;
use super::super::policy::Policy;
use super::super::restore::Restore;
use super::{check_history, events, padded, put, put_meanwhile, value, versions};
use crate::testing::{Fault, Stack, legacy_row, options};
use crate::timestamp::Timestamp;

/// Creates a stack with a deleted secret of two versions.
async fn deleted() -> Stack {
    let stack = Stack::new();
    put(&stack, "n", "one").await;
    put(&stack, "n", "two").await;
    stack.done::<Delete>(json!({"name": "n"})).await;
    stack
}

async fn restore(stack: &Stack, request: Value) -> Value {
    stack.done::<Restore>(request).await["versions"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_restored_secret_is_as_it_was() {
    let stack = Stack::new();
    put(&stack, "n", "one").await;
    put(&stack, "n", "two").await;
    let rows = stack.aws.items("secrets", "n");
    stack.done::<Delete>(json!({"name": "n"})).await;
    assert_eq!(restore(&stack, json!({"name": "n"})).await, json!([1, 2]));
    assert_eq!(stack.aws.items("secrets", "n"), rows);
    assert!(stack.aws.entries("n", "deleted#").is_empty());
    assert_eq!(value(&stack, "n").await, "two");
    assert_eq!(events(&stack, "n"), ["put", "put", "delete", "restore"]);
    assert_eq!(put(&stack, "n", "three").await["version"], 3);
    check_history(&stack, "n").await;
}

#[tokio::test(start_paused = true)]
async fn one_version_is_restored_and_the_others_stay_deleted() {
    let stack = deleted().await;
    assert_eq!(restore(&stack, json!({"name": "n", "version": 1})).await, json!([1]));
    assert_eq!(versions(&stack, "n"), [padded(1)]);
    assert_eq!(stack.aws.entries("n", "deleted#").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_restored_changes_nothing() {
    let stack = deleted().await;
    put(&stack, "live", "s").await;
    let before = stack.aws.stored();
    for (request, code) in [
        (json!({"name": "m"}), "NotFound"),
        (json!({"name": "live"}), "NotFound"),
        (json!({"name": "n", "version": 3}), "NotFound"),
        // The ledger has no room for a version of this length.
        (json!({"name": "n", "version": "v".repeat(1024)}), "NotFound"),
        (json!({"name": "n", "version": 1, "before_reseal": true}), "NotFound"),
        (json!({"name": "n", "deleted_before": "2020-01-01T00:00:00Z"}), "NotFound"),
        (json!({"name": "m/"}), "Invalid"),
        (json!({"name": "/rotation/x"}), "Invalid"),
        (json!({"name": "n", "before_reseal": true}), "Invalid"),
    ] {
        assert_eq!(stack.code::<Restore>(request.clone()).await, code, "{request}");
    }
    assert_eq!(stack.aws.stored(), before);
}

#[tokio::test(start_paused = true)]
async fn a_version_past_its_recovery_window_is_not_restored() {
    let stack = deleted().await;
    for entry in stack.aws.entries("n", "deleted#") {
        let sort = entry["entry"]["S"].as_str().unwrap().to_owned();
        stack.aws.edit_item("ledger", "n", &sort, |entry| {
            entry.insert("ttl".to_owned(), json!({"N": Timestamp::now().unix().to_string()}));
        });
    }
    assert_eq!(stack.code::<Restore>(json!({"name": "n"})).await, "NotFound");
    assert_eq!(stack.code::<Delete>(json!({"name": "n"})).await, "NotFound");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_put_again_is_not_restored_as_a_whole() {
    let stack = deleted().await;
    put(&stack, "n", "again").await;
    let before = stack.aws.stored();
    let error = stack.error::<Restore>(json!({"name": "n"})).await;
    assert_eq!(error.code().name, "Exists");
    assert!(error.to_string().contains("put again"), "{error}");
    assert_eq!(stack.aws.stored(), before);
    // A single version whose number is free.
    assert_eq!(restore(&stack, json!({"name": "n", "version": 2})).await, json!([2]));
    assert_eq!(value(&stack, "n").await, "again");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_another_client_put_again_is_not_restored_as_a_whole() {
    let stack = deleted().await;
    stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", &padded(1), "theirs", &[]));
    assert_eq!(stack.code::<Restore>(json!({"name": "n"})).await, "Exists");
    let code = stack.code::<Restore>(json!({"name": "n", "version": 1})).await;
    assert_eq!(code, "Exists", "its number is taken");
    assert_eq!(restore(&stack, json!({"name": "n", "version": 2})).await, json!([2]));
    assert_eq!(value(&stack, "n").await, "two");
    assert_eq!(stack.aws.entries("n", "head")[0]["state"]["S"], "anew");
}

#[tokio::test(start_paused = true)]
async fn of_two_rows_of_one_number_the_one_deleted_last_is_restored() {
    let stack = Stack::new();
    let row = |secret: &str| legacy_row(&stack.aws, "n", &padded(1), secret, &[]);
    for secret in ["first", "second!"] {
        stack.aws.put_item("secrets", row(secret));
        stack.done::<Delete>(json!({"name": "n"})).await;
    }
    assert_eq!(stack.aws.entries("n", "deleted#").len(), 2);
    assert_eq!(restore(&stack, json!({"name": "n"})).await, json!([1]));
    assert_eq!(value(&stack, "n").await, "second!");
    assert_eq!(stack.aws.entries("n", "deleted#").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_what_was_deleted_by_then_is_restored() {
    let stack = deleted().await;
    for (index, entry) in stack.aws.entries("n", "deleted#").iter().enumerate() {
        let sort = entry["entry"]["S"].as_str().unwrap();
        stack.aws.edit_item("ledger", "n", sort, |entry| {
            let at = 1_000_000 * (index + 1);
            entry.insert("deleted_at".to_owned(), json!({"N": at.to_string()}));
        });
    }
    let request = json!({"name": "n", "deleted_before": 1_500_000});
    assert_eq!(restore(&stack, request).await, json!([1]));
}

#[tokio::test(start_paused = true)]
async fn many_versions_are_restored_highest_first_over_all_pages() {
    for page in [usize::MAX, 7] {
        let stack = Stack::new();
        for version in 1..=120 {
            let row = legacy_row(&stack.aws, "n", &padded(version), "s", &[]);
            stack.aws.put_item("secrets", row);
        }
        stack.done::<Delete>(json!({"name": "n"})).await;
        stack.aws.set_page(page);
        stack.aws.before("TransactWriteItems", 1, |aws| async move {
            assert!(!aws.items("secrets", "n").is_empty());
            assert_eq!(aws.items("secrets", "n").last().unwrap()["version"]["S"], padded(120));
        });
        let restored = restore(&stack, json!({"name": "n"})).await;
        assert_eq!(restored.as_array().unwrap().len(), 120);
        assert_eq!(restored[0], 1);
        assert_eq!(versions(&stack, "n").len(), 120);
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_restore_continues_when_it_is_requested_again() {
    let stack = Stack::new();
    for version in 1..=60 {
        stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", &padded(version), "s", &[]));
    }
    stack.done::<Delete>(json!({"name": "n"})).await;
    stack.aws.before("TransactWriteItems", 1, |aws| async move {
        aws.fail("TransactWriteItems", 1, Fault::Code("AccessDeniedException"));
    });
    assert_eq!(stack.code::<Restore>(json!({"name": "n"})).await, "Unavailable");
    assert_eq!(versions(&stack, "n").len(), 49);
    stack.aws.recover();
    let rest = restore(&stack, json!({"name": "n"})).await;
    assert_eq!(rest.as_array().unwrap().len(), 11);
    assert_eq!(versions(&stack, "n").len(), 60);
    check_history(&stack, "n").await;
}

#[tokio::test(start_paused = true)]
async fn two_restores_at_the_same_time_restore_each_version_once() {
    let stack = deleted().await;
    stack.aws.before("TransactWriteItems", 0, |aws| async move {
        Stack::on(aws, options()).done::<Restore>(json!({"name": "n"})).await;
    });
    assert_eq!(stack.code::<Restore>(json!({"name": "n"})).await, "NotFound");
    assert_eq!(versions(&stack, "n").len(), 2);
    assert_eq!(events(&stack, "n"), ["put", "put", "delete", "restore"]);
}

#[tokio::test(start_paused = true)]
async fn a_put_during_a_restore_is_kept() {
    let stack = deleted().await;
    stack.aws.before("TransactWriteItems", 0, |aws| put_meanwhile(aws, "n", "again"));
    assert_eq!(stack.code::<Restore>(json!({"name": "n"})).await, "Exists");
    assert_eq!(value(&stack, "n").await, "again");
    assert_eq!(stack.aws.entries("n", "deleted#").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_taken_during_a_restore_stays_in_the_ledger() {
    let stack = deleted().await;
    stack.aws.before("TransactWriteItems", 0, |aws| async move {
        let row = legacy_row(&aws, "n", &padded(1), "theirs", &[]);
        aws.put_item("secrets", row);
    });
    // It is another life by then.
    assert_eq!(stack.code::<Restore>(json!({"name": "n"})).await, "Exists");
    assert_eq!(stack.aws.entries("n", "deleted#").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_tried_again() {
    let stack = deleted().await;
    stack.aws.fail("TransactWriteItems", 3, Fault::Canceled(&["TransactionConflict"]));
    assert_eq!(restore(&stack, json!({"name": "n"})).await, json!([1, 2]));
}

#[tokio::test(start_paused = true)]
async fn a_restore_resumes_the_life_and_its_policy() {
    let stack = Stack::new();
    put(&stack, "n", "one").await;
    stack.done::<Policy>(json!({"policy": "put", "name": "n", "days": 30})).await;
    stack.done::<Delete>(json!({"name": "n"})).await;
    let policy = async || stack.done::<Policy>(json!({"policy": "get", "name": "n"})).await;
    assert_eq!(policy().await["suspended"], true);
    restore(&stack, json!({"name": "n"})).await;
    assert_eq!(policy().await.get("suspended"), None);
}
