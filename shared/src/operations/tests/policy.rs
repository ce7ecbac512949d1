//! policy.

use serde_json::{Value, json};

use super::super::delete::Delete;
use super::super::policy::Policy;
use super::super::put::Put;
use super::{check_history, events, padded, put, put_meanwhile};
use crate::testing::{Fault, Stack, legacy_row, options};

fn request(rest: &Value) -> Value {
    let mut request = json!({"policy": "put", "name": "n"});
    request.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    request
}

async fn get(stack: &Stack) -> Value {
    stack.done::<Policy>(json!({"policy": "get", "name": "n"})).await
}

/// Creates a stack with a name that has a policy.
async fn with_policy() -> Stack {
    let stack = Stack::new();
    put(&stack, "n", "one").await;
    stack.done::<Policy>(request(&json!({"days": 30}))).await;
    stack
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_returned_as_it_was_put() {
    let stack = Stack::new();
    put(&stack, "n", "one").await;
    let wanted = json!({
        "schedule": "cron(0 3 * * ? *)", "timezone": "Europe/Paris",
        "generate": {"length": 40, "exclude_punctuation": true}, "context": {"app": "web"},
    });
    let response = stack.done::<Policy>(request(&wanted)).await;
    for field in ["schedule", "timezone", "context"] {
        assert_eq!(response[field], wanted[field]);
    }
    assert_eq!(response["generate"]["length"], 40);
    assert!(response["next_rotation_at"].is_string());
    assert_eq!((response.get("last_rotated_at"), response.get("suspended")), (None, None));
    assert_eq!(get(&stack).await, response);
    assert_eq!(events(&stack, "n"), ["put", "policy"]);
    check_history(&stack, "n").await;
}

#[tokio::test(start_paused = true)]
async fn the_same_policy_changes_nothing_and_the_same_schedule_keeps_what_is_due() {
    let stack = with_policy().await;
    let before = stack.aws.stored();
    let first = get(&stack).await;
    assert_eq!(stack.done::<Policy>(request(&json!({"days": 30}))).await, first);
    assert_eq!(stack.aws.stored(), before);
    let sort = "policy#n";
    stack.aws.edit_item("ledger", "/policies", sort, |entry| {
        entry.insert("due".to_owned(), json!({"N": "1000"}));
        entry.insert("renewed_at".to_owned(), json!({"N": "500"}));
    });
    let other = json!({"days": 30, "generate": {"length": 50}});
    let changed = stack.done::<Policy>(request(&other)).await;
    assert_eq!(changed["next_rotation_at"], "1970-01-01T00:16:40Z");
    assert_eq!(changed["last_rotated_at"], "1970-01-01T00:08:20Z");
    let sooner = stack.done::<Policy>(request(&json!({"days": 7}))).await;
    assert_ne!(sooner["next_rotation_at"], "1970-01-01T00:16:40Z");
    assert_eq!(sooner["last_rotated_at"], "1970-01-01T00:08:20Z");
}

#[tokio::test(start_paused = true)]
async fn requests_that_cannot_be_done_change_nothing() {
    let stack = with_policy().await;
    let before = stack.aws.stored();
    for (request, code) in [
        (json!({"policy": "put", "name": "m", "days": 30}), "NotFound"),
        (json!({"policy": "get", "name": "m"}), "NotFound"),
        (json!({"policy": "cancel", "name": "m"}), "NotFound"),
        (json!({"policy": "other", "name": "n"}), "Invalid"),
        (json!({"policy": "put", "name": "n"}), "Invalid"),
        (json!({"policy": "put", "name": "n", "days": 0}), "Invalid"),
        (json!({"policy": "put", "name": "n", "days": 5, "timezone": "Europe/Paris"}), "Invalid"),
        (json!({"policy": "put", "name": "n", "days": 5, "schedule": "rate(5 days)"}), "Invalid"),
        (json!({"policy": "put", "name": "n", "schedule": "never"}), "Invalid"),
        (json!({"policy": "put", "name": "n", "days": 5, "generate": {"length": 4}}), "Invalid"),
        (json!({"policy": "get", "name": "n/"}), "Invalid"),
    ] {
        assert_eq!(stack.code::<Policy>(request.clone()).await, code, "{request}");
    }
    assert_eq!(stack.aws.stored(), before);
}

#[tokio::test(start_paused = true)]
async fn a_canceled_policy_is_not_found_and_can_be_put_again() {
    let stack = with_policy().await;
    let response = stack.done::<Policy>(json!({"policy": "cancel", "name": "n"})).await;
    assert_eq!(response, json!({"name": "n"}));
    for policy in ["get", "cancel"] {
        let code = stack.code::<Policy>(json!({"policy": policy, "name": "n"})).await;
        assert_eq!(code, "NotFound");
    }
    stack.done::<Policy>(request(&json!({"days": 7}))).await;
    assert_eq!(get(&stack).await["schedule"], "rate(7 days)");
    assert_eq!(events(&stack, "n"), ["put", "policy", "cancel", "policy"]);
    check_history(&stack, "n").await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_suspended_once_its_life_is_over_until_it_is_put_again() {
    let stack = with_policy().await;
    stack.done::<Delete>(json!({"name": "n"})).await;
    let suspended = get(&stack).await;
    assert_eq!(suspended["suspended"], true);
    assert_eq!(suspended.get("next_rotation_at"), None);
    put(&stack, "n", "another").await;
    assert_eq!(get(&stack).await["suspended"], true);
    stack.done::<Policy>(request(&json!({"days": 30}))).await;
    assert_eq!(get(&stack).await.get("suspended"), None);
}

#[tokio::test(start_paused = true)]
async fn another_client_that_puts_the_name_again_begins_another_life() {
    let stack = with_policy().await;
    // It deletes our row and puts its own.
    stack.aws.remove_item("secrets", "n", &padded(1));
    assert_eq!(get(&stack).await["suspended"], true);
    stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", &padded(1), "theirs", &[]));
    assert_eq!(get(&stack).await["suspended"], true);
    stack.done::<Policy>(request(&json!({"days": 30}))).await;
    assert_eq!(get(&stack).await.get("suspended"), None);
    assert_eq!(stack.aws.entries("n", "head")[0]["state"]["S"], "anew");
}

#[tokio::test(start_paused = true)]
async fn a_newer_version_of_another_client_continues_the_life() {
    let stack = with_policy().await;
    stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", &padded(2), "theirs", &[]));
    assert_eq!(get(&stack).await.get("suspended"), None);
    stack.aws.remove_item("secrets", "n", &padded(1));
    assert_eq!(get(&stack).await["suspended"], true);
}

#[tokio::test(start_paused = true)]
async fn an_expired_version_gets_no_policy() {
    let stack = Stack::new();
    stack.done::<Put>(json!({"name": "n", "secret": "s", "ttl": 100})).await;
    stack.aws.edit_item("secrets", "n", &padded(1), |row| {
        row.insert("expires_at".to_owned(), json!({"N": "1000"}));
    });
    assert_eq!(stack.code::<Policy>(request(&json!({"days": 30}))).await, "Expired");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_read_is_canceled_or_replaced() {
    for replace in [false, true] {
        let stack = with_policy().await;
        stack.aws.edit_item("ledger", "/policies", "policy#n", |entry| {
            entry.remove("length");
            entry.remove("sequence");
        });
        let code = stack.code::<Policy>(json!({"policy": "get", "name": "n"})).await;
        assert_eq!(code, "Malformed");
        if replace {
            stack.done::<Policy>(request(&json!({"days": 30}))).await;
            get(&stack).await;
        } else {
            stack.done::<Policy>(json!({"policy": "cancel", "name": "n"})).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_at_the_same_time_is_not_overwritten() {
    let stack = with_policy().await;
    stack.aws.before("TransactWriteItems", 0, |aws| async move {
        Stack::on(aws, options()).done::<Policy>(request(&json!({"days": 7}))).await;
    });
    stack.done::<Policy>(request(&json!({"days": 14}))).await;
    assert_eq!(get(&stack).await["schedule"], "rate(14 days)");
    assert_eq!(events(&stack, "n"), ["put", "policy", "policy", "policy"]);
    stack.aws.before("TransactWriteItems", 0, |aws| put_meanwhile(aws, "n", "two"));
    stack.done::<Policy>(json!({"policy": "cancel", "name": "n"})).await;
    stack.aws.fail("TransactWriteItems", 2, Fault::Canceled(&["TransactionConflict"]));
    stack.done::<Policy>(request(&json!({"days": 14}))).await;
    check_history(&stack, "n").await;
}
