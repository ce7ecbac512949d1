//! put: one secret.

use serde_json::json;

use super::super::delete::Delete;
use super::super::put::Put;
use super::{check_history, events, padded, put, put_meanwhile, value, versions};
use crate::testing::{Fault, Stack, legacy_row};

#[tokio::test(start_paused = true)]
async fn a_version_is_stored_with_its_event_and_its_chain_head() {
    let stack = Stack::new();
    let request = json!({
        "name": "prod/db", "secret": "hunter2", "comment": "c", "context": {"app": "web"},
        "ttl": 1000,
    });
    let stored = stack.done::<Put>(request).await;
    assert_eq!((&stored["name"], &stored["version"]), (&json!("prod/db"), &json!(1)));
    let rows = stack.aws.items("secrets", "prod/db");
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row["comment"]["S"], "c");
    assert_eq!(row["context"]["M"]["app"]["S"], "web");
    assert!(row.contains_key("seal") && row.contains_key("expires_at"));
    assert!(!format!("{:?}", stack.aws.stored()).contains("hunter2"));
    assert_eq!(events(&stack, "prod/db"), ["put"]);
    let head = &stack.aws.entries("prod/db", "head")[0];
    assert_eq!(head["highest"]["S"], json!(padded(1)));
    assert_eq!(stack.aws.entries("prod/db", "event#")[0]["who"]["S"], caller_arn());
    check_history(&stack, "prod/db").await;
}

fn caller_arn() -> String {
    crate::testing::caller().who
}

#[tokio::test(start_paused = true)]
async fn a_put_at_the_same_time_takes_the_next_number() {
    let stack = Stack::new();
    stack.aws.before("TransactWriteItems", 0, |aws| put_meanwhile(aws, "n", "first"));
    let stored = put(&stack, "n", "second").await;
    assert_eq!(stored["version"], 2);
    assert_eq!(versions(&stack, "n"), [padded(1), padded(2)]);
    assert_eq!(value(&stack, "n").await, "second");
    assert_eq!(stack.aws.calls("GenerateDataKey"), 2, "one data key for each value");
    check_history(&stack, "n").await;
}

#[tokio::test(start_paused = true)]
async fn a_version_of_another_client_at_the_same_time_is_not_overwritten() {
    let stack = Stack::new();
    stack.aws.before("TransactWriteItems", 0, |aws| async move {
        let row = legacy_row(&aws, "n", &padded(1), "theirs", &[]);
        aws.put_item("secrets", row);
    });
    assert_eq!(put(&stack, "n", "ours").await["version"], 2);
    assert_eq!(versions(&stack, "n"), [padded(1), padded(2)]);
    assert!(!stack.aws.items("secrets", "n")[0].contains_key("seal"));
}

#[tokio::test(start_paused = true)]
async fn a_requested_version_that_exists_is_refused_and_nothing_changes() {
    let stack = Stack::new();
    put(&stack, "n", "one").await;
    let before = stack.aws.stored();
    let code = stack.code::<Put>(json!({"name": "n", "secret": "x", "version": 1})).await;
    assert_eq!(code, "Exists");
    assert_eq!(stack.aws.stored(), before);
}

#[tokio::test(start_paused = true)]
async fn a_requested_version_below_the_highest_is_not_current() {
    let stack = Stack::new();
    let high = stack.done::<Put>(json!({"name": "n", "secret": "high", "version": 5})).await;
    assert_eq!(high.get("current"), None);
    let low = stack.done::<Put>(json!({"name": "n", "secret": "low", "version": 3})).await;
    assert_eq!(low["current"], false);
    assert_eq!(value(&stack, "n").await, "high");
    assert_eq!(put(&stack, "n", "next").await["version"], 6);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_a_deleted_version_is_not_used_again() {
    let stack = Stack::new();
    put(&stack, "n", "one").await;
    stack.done::<Delete>(json!({"name": "n", "force": true})).await;
    assert_eq!(put(&stack, "n", "two").await["version"], 2);
    assert_eq!(stack.aws.entries("n", "event#")[2]["state"]["S"], "anew");
    check_history(&stack, "n").await;
}

#[tokio::test(start_paused = true)]
async fn no_version_follows_one_that_would_stay_the_highest() {
    for version in ["release-2", "41", "9999999999999999999"] {
        let stack = Stack::new();
        stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", version, "theirs", &[]));
        let before = stack.aws.stored();
        let code = stack.code::<Put>(json!({"name": "n", "secret": "ours"})).await;
        assert_eq!(code, "Exists", "{version}");
        assert_eq!(stack.aws.stored(), before, "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_generated_value_follows_its_rules() {
    let stack = Stack::new();
    let generate = json!({"length": 40, "exclude_punctuation": true, "exclude_uppercase": true});
    stack.done::<Put>(json!({"name": "n", "generate": generate})).await;
    let value = value(&stack, "n").await;
    let value = value.as_str().unwrap();
    assert_eq!(value.len(), 40);
    assert!(value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
}

#[tokio::test(start_paused = true)]
async fn requests_that_break_a_rule_are_refused_before_any_call() {
    let stack = Stack::new();
    for request in [
        json!({"secret": "s"}),
        json!({"name": "n"}),
        json!({"name": "n", "secret": "s", "secret_base64": "cw=="}),
        json!({"name": "n", "secret": "s", "generate": {"length": 20}}),
        json!({"name": "n/", "secret": "s"}),
        json!({"name": "/token/x", "secret": "s"}),
        json!({"name": "n", "secret": "s", "version": 0}),
        json!({"name": "n", "secret": "s", "ttl": 0}),
        json!({"name": "n", "secret": "s", "ttl": 5, "expires_at": 9_999_999_999_u64}),
        json!({"name": "n", "secret": "s", "expires_at": "2020-01-01T00:00:00Z"}),
        json!({"name": "n", "secret": "s", "token": ""}),
        json!({"name": "n", "secret": "s", "unknown": 1}),
        json!({"name": "n", "generate": {"length": 3}}),
    ] {
        assert_eq!(stack.code::<Put>(request.clone()).await, "Invalid", "{request}");
    }
    assert_eq!(stack.aws.calls("TransactWriteItems"), 0);
    assert_eq!(stack.aws.calls("GenerateDataKey"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_fits_no_item_is_too_large() {
    let stack = Stack::new();
    let secret = "x".repeat(307_201);
    let code = stack.code::<Put>(json!({"name": "n", "secret": secret})).await;
    assert_eq!((code, stack.aws.calls("GenerateDataKey")), ("TooLarge", 0));
    // It fits an item by itself, but not with its comment.
    let (secret, comment) = ("x".repeat(306_000), "c".repeat(3000));
    let request = json!({"name": "n", "secret": secret, "comment": comment});
    let error = stack.error::<Put>(request).await;
    assert_eq!(error.code().name, "TooLarge");
    assert!(error.to_string().contains("has at most 30"), "{error}");
    let request = json!({"name": "n", "secret": "s", "comment": "c".repeat(410_000)});
    let error = stack.error::<Put>(request).await;
    assert!(error.to_string().contains("no room"), "{error}");
    assert!(versions(&stack, "n").is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_largest_value_that_the_error_allows_is_stored() {
    let stack = Stack::new();
    let error = stack.error::<Put>(json!({"name": "n", "secret": "x".repeat(307_200)})).await;
    let message = error.to_string();
    let most = message.split(' ').find_map(|word| word.parse::<usize>().ok()).unwrap();
    put(&stack, "n", &"x".repeat(most)).await;
    let code = stack.code::<Put>(json!({"name": "n", "secret": "x".repeat(most + 3)})).await;
    assert_eq!(code, "TooLarge");
}

#[tokio::test(start_paused = true)]
async fn a_context_that_kms_refuses_is_invalid() {
    let stack = Stack::new();
    stack.aws.fail("GenerateDataKey", 2, Fault::Code("ValidationException"));
    let request = json!({"name": "n", "secret": "s", "context": {"a": "b"}});
    assert_eq!(stack.code::<Put>(request).await, "Invalid");
    let code = stack.code::<Put>(json!({"name": "n", "secret": "s"})).await;
    assert_eq!(code, "Unavailable", "without a context it is not the caller's fault");
}

#[tokio::test(start_paused = true)]
async fn nothing_follows_a_chain_head_that_cannot_be_read() {
    let stack = Stack::new();
    put(&stack, "n", "one").await;
    stack.aws.edit_item("ledger", "n", "head", |head| drop(head.remove("previous")));
    let before = stack.aws.stored();
    assert_eq!(stack.code::<Put>(json!({"name": "n", "secret": "two"})).await, "Integrity");
    assert_eq!(stack.aws.stored(), before);
}

#[tokio::test(start_paused = true)]
async fn a_read_during_a_transaction_is_made_again() {
    let stack = Stack::new();
    put(&stack, "n", "one").await;
    // The chain head is visible, and its version is not yet.
    let row = stack.aws.items("secrets", "n").remove(0);
    stack.aws.remove_item("secrets", "n", &padded(1));
    stack.aws.before("Query", 2, |aws| async move { aws.put_item("secrets", row) });
    assert_eq!(put(&stack, "n", "two").await["version"], 2);
    assert_eq!(stack.aws.entries("n", "event#")[1].get("state"), None, "the life continues");
}

#[tokio::test(start_paused = true)]
async fn an_event_ends_with_the_retention_of_the_history() {
    let options = super::super::StackOptions { history_days: Some(30), ..super::options() };
    let stack = Stack::on(super::Aws::new(), options);
    put(&stack, "n", "one").await;
    let event = &stack.aws.entries("n", "event#")[0];
    let seconds = |value: &serde_json::Value| value["N"].as_str().unwrap().parse::<i64>().unwrap();
    let left = seconds(&event["ttl"]) - crate::timestamp::Timestamp::now().unix();
    assert!((30 * 86_400 - 5..=30 * 86_400).contains(&left), "{left}");
    assert!(!stack.aws.entries("n", "head")[0].contains_key("ttl"), "the head stays");
}
