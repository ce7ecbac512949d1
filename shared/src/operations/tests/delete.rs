//! delete.

use serde_json::{Value, json};

use super::super::delete::Delete;
use super::super::policy::Policy;
use super::super::restore::Restore;
use super::{check_history, events, padded, put, put_meanwhile, value, versions};
use crate::testing::{Aws, Fault, Stack, legacy_row, options};

const DAY: i64 = 24 * 60 * 60;

async fn two() -> Stack {
    let stack = Stack::new();
    put(&stack, "n", "one").await;
    put(&stack, "n", "two").await;
    stack
}

fn seconds(item: &crate::testing::Item, name: &str) -> i64 {
    item[name]["N"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_deleted_secret_moves_to_the_ledger_for_its_recovery_window() {
    for (request, days) in
        [(json!({"name": "n"}), 30), (json!({"name": "n", "recovery_window_in_days": 7}), 7)]
    {
        let stack = two().await;
        let rows = stack.aws.items("secrets", "n");
        let response = stack.done::<Delete>(request).await;
        assert_eq!(response["versions"], json!([1, 2]));
        assert!(versions(&stack, "n").is_empty());
        let entries = stack.aws.entries("n", "deleted#");
        for (entry, row) in entries.iter().zip(rows) {
            let mut inner = row;
            inner.remove("name");
            assert_eq!(entry["row"]["M"], Value::Object(inner));
            let left = seconds(entry, "ttl") - crate::timestamp::Timestamp::now().unix();
            assert!((days * DAY - 5..=days * DAY).contains(&left), "{left}");
        }
        assert_eq!(entries.len(), 2);
        assert_eq!(events(&stack, "n"), ["put", "put", "delete"]);
        assert_eq!(stack.aws.entries("n", "head")[0]["state"]["S"], "deleted");
        check_history(&stack, "n").await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_version_is_deleted_and_the_others_stay() {
    let stack = two().await;
    let response = stack.done::<Delete>(json!({"name": "n", "version": 2})).await;
    assert_eq!(response["versions"], json!([2]));
    assert_eq!(value(&stack, "n").await, "one");
    assert_eq!(stack.aws.entries("n", "head")[0].get("state"), None);
    assert_eq!(put(&stack, "n", "three").await["version"], 3);
}

#[tokio::test(start_paused = true)]
async fn a_second_delete_reports_until_when_the_first_can_be_undone() {
    let stack = two().await;
    let first = stack.done::<Delete>(json!({"name": "n"})).await;
    let before = stack.aws.stored();
    let request = json!({"name": "n", "recovery_window_in_days": 7});
    let second = stack.done::<Delete>(request).await;
    assert_eq!(second["versions"], json!([]));
    assert_eq!(second["recoverable_until"], first["recoverable_until"]);
    let one = stack.done::<Delete>(json!({"name": "n", "version": 1})).await;
    assert_eq!(one["recoverable_until"], first["recoverable_until"]);
    assert_eq!(stack.aws.stored(), before);
    // The latest of all, on whatever page.
    let entry = stack.aws.entries("n", "deleted#").remove(0);
    stack.aws.edit_item("ledger", "n", entry["entry"]["S"].as_str().unwrap(), |entry| {
        entry.insert("ttl".to_owned(), json!({"N": "4000000000"}));
    });
    stack.aws.set_page(1);
    let again = stack.done::<Delete>(json!({"name": "n"})).await;
    assert_eq!(again["recoverable_until"], "2096-10-02T07:06:40Z");
}

#[tokio::test(start_paused = true)]
async fn requests_that_cannot_be_done_change_nothing() {
    let stack = two().await;
    let before = stack.aws.stored();
    for (request, code) in [
        (json!({"name": "m"}), "NotFound"),
        (json!({"name": "n", "version": 3}), "NotFound"),
        (json!({"name": "n", "version": 3, "force": true}), "NotFound"),
        (json!({"name": "m", "force": true}), "NotFound"),
        (json!({"name": "m/"}), "Invalid"),
        (json!({"name": "/token/x"}), "Invalid"),
        (json!({"name": "n", "recovery_window_in_days": 6}), "Invalid"),
        (json!({"name": "n", "recovery_window_in_days": 31}), "Invalid"),
        (json!({"name": "n", "recovery_window_in_days": 7, "force": true}), "Invalid"),
    ] {
        assert_eq!(stack.code::<Delete>(request.clone()).await, code, "{request}");
    }
    assert_eq!(stack.aws.stored(), before);
}

#[tokio::test(start_paused = true)]
async fn a_stack_may_forbid_a_forced_delete() {
    let aws = Aws::new();
    let options = super::super::StackOptions { forced_delete: false, ..options() };
    let stack = Stack::on(aws, options);
    put(&stack, "n", "one").await;
    assert_eq!(stack.code::<Delete>(json!({"name": "n", "force": true})).await, "Forbidden");
    assert_eq!(value(&stack, "n").await, "one");
}

/// Puts rows of another client: more than one transaction moves.
fn many(stack: &Stack, count: u64) {
    for version in 1..=count {
        stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", &padded(version), "s", &[]));
    }
}

#[tokio::test(start_paused = true)]
async fn many_versions_are_deleted_oldest_first_and_the_highest_last() {
    let stack = Stack::new();
    many(&stack, 120);
    let response = stack.done::<Delete>(json!({"name": "n"})).await;
    assert_eq!(response["versions"].as_array().unwrap().len(), 120);
    assert_eq!(events(&stack, "n"), ["delete"; 3]);
    let states: Vec<_> =
        stack.aws.entries("n", "event#").iter().map(|event| event.get("state").cloned()).collect();
    assert_eq!(states, [None, None, Some(json!({"S": "deleted"}))]);
    check_history(&stack, "n").await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_delete_continues_when_it_is_requested_again() {
    for (force, remaining) in [(false, 71), (true, 22)] {
        let stack = Stack::new();
        many(&stack, 120);
        stack.aws.before("TransactWriteItems", 1, |aws| async move {
            aws.fail("TransactWriteItems", 1, Fault::Code("AccessDeniedException"));
        });
        let request = json!({"name": "n", "force": force});
        assert_eq!(stack.code::<Delete>(request.clone()).await, "Unavailable");
        let left = versions(&stack, "n");
        assert_eq!((left.len(), left.last()), (remaining, Some(&padded(120))));
        stack.aws.recover();
        stack.done::<Delete>(request).await;
        assert!(versions(&stack, "n").is_empty());
        let kept = if force { 0 } else { 120 };
        assert_eq!(stack.aws.entries("n", "deleted#").len(), kept);
        check_history(&stack, "n").await;
    }
}

#[tokio::test(start_paused = true)]
async fn pages_that_end_early_do_not_end_a_delete() {
    for page in [1, 2, 3] {
        let stack = Stack::new();
        many(&stack, 5);
        stack.aws.set_page(page);
        stack.done::<Delete>(json!({"name": "n"})).await;
        assert!(versions(&stack, "n").is_empty());
        assert_eq!(stack.aws.entries("n", "head")[0]["state"]["S"], "deleted");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_changes_before_it_moves_is_moved_as_it_is_then() {
    let stack = two().await;
    stack.aws.before("TransactWriteItems", 0, |aws| async move {
        aws.edit_item("secrets", "n", &padded(1), |row| {
            row.insert("comment".to_owned(), json!({"S": "theirs"}));
        });
    });
    stack.done::<Delete>(json!({"name": "n"})).await;
    let entry = &stack.aws.entries("n", "deleted#")[0];
    assert_eq!(entry["row"]["M"]["comment"]["S"], "theirs");
    assert_eq!(events(&stack, "n"), ["put", "put", "delete"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_put_during_a_delete_is_deleted_too_or_stays_current() {
    let stack = two().await;
    stack.aws.before("TransactWriteItems", 0, |aws| put_meanwhile(aws, "n", "three"));
    let response = stack.done::<Delete>(json!({"name": "n"})).await;
    assert_eq!(response["versions"], json!([1, 2, 3]));
    check_history(&stack, "n").await;
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_tried_again() {
    const CONFLICT: Fault = Fault::Canceled(&["TransactionConflict"]);
    for request in [json!({"name": "n"}), json!({"name": "n", "force": true})] {
        let stack = two().await;
        stack.aws.fail("TransactWriteItems", 3, CONFLICT);
        stack.done::<Delete>(request).await;
        assert!(versions(&stack, "n").is_empty());
        assert_eq!(events(&stack, "n"), ["put", "put", "delete"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_between_two_reads_is_not_taken_for_a_missing_secret() {
    for force in [false, true] {
        let stack = two().await;
        stack.done::<Delete>(json!({"name": "n"})).await;
        // After the live versions were read, before the deleted ones.
        let read = usize::from(force) + 1;
        stack.aws.before("Query", read + usize::from(!force), |aws| async move {
            Stack::on(aws, options()).done::<Restore>(json!({"name": "n"})).await;
        });
        let response = stack.done::<Delete>(json!({"name": "n", "force": force})).await;
        assert_eq!(response["versions"], json!([1, 2]), "{force}");
        assert!(versions(&stack, "n").is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_forced_delete_removes_deleted_versions_and_the_policy() {
    let stack = two().await;
    stack.done::<Policy>(json!({"policy": "put", "name": "n", "days": 30})).await;
    stack.done::<Delete>(json!({"name": "n", "version": 1})).await;
    let response = stack.done::<Delete>(json!({"name": "n", "force": true})).await;
    assert_eq!(response["versions"], json!([1, 2]));
    assert_eq!(response.get("recoverable_until"), None);
    assert!(stack.aws.entries("n", "deleted#").is_empty());
    assert!(stack.aws.items("ledger", "/policies").is_empty());
    let forced: Vec<_> = stack.aws.entries("n", "event#").split_off(4);
    assert!(forced.iter().all(|event| event["force"]["BOOL"] == true));
    check_history(&stack, "n").await;
}

#[tokio::test(start_paused = true)]
async fn a_forced_delete_of_one_version_keeps_the_policy() {
    let stack = two().await;
    stack.done::<Policy>(json!({"policy": "put", "name": "n", "days": 30})).await;
    stack.done::<Delete>(json!({"name": "n", "version": 1, "force": true})).await;
    assert_eq!(stack.aws.items("ledger", "/policies").len(), 1);
    assert_eq!(versions(&stack, "n"), [padded(2)]);
}

#[tokio::test(start_paused = true)]
async fn the_policy_of_a_later_life_stays() {
    let stack = two().await;
    stack.done::<Policy>(json!({"policy": "put", "name": "n", "days": 30})).await;
    // The name is put again, with a policy, after its last version was removed.
    stack.aws.before("TransactWriteItems", 1, |aws| async move {
        let stack = Stack::on(aws, options());
        put(&stack, "n", "again").await;
        stack.done::<Policy>(json!({"policy": "put", "name": "n", "days": 7})).await;
    });
    stack.done::<Delete>(json!({"name": "n", "force": true})).await;
    let policies = stack.aws.items("ledger", "/policies");
    assert_eq!(policies.len(), 1);
    assert_eq!(value(&stack, "n").await, "again");
}

#[tokio::test(start_paused = true)]
async fn a_number_without_padding_is_deleted_if_it_is_not_there_with_padding() {
    let stack = Stack::new();
    for version in ["1", &padded(1), "2"] {
        stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", version, "s", &[]));
    }
    stack.done::<Delete>(json!({"name": "n", "version": 1})).await;
    assert_eq!(versions(&stack, "n"), ["1", "2"]);
    stack.done::<Delete>(json!({"name": "n", "version": "1"})).await;
    stack.done::<Delete>(json!({"name": "n", "version": 2})).await;
    assert!(versions(&stack, "n").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_forced_delete_reports_each_number_once_whatever_its_padding() {
    let stack = Stack::new();
    for version in ["1", "1#x", &padded(1), &format!("{}#0", padded(1))] {
        stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", version, "s", &[]));
    }
    stack.done::<Delete>(json!({"name": "n"})).await;
    let request = json!({"name": "n", "version": 1, "force": true});
    let response = stack.done::<Delete>(request.clone()).await;
    assert_eq!(response["versions"], json!([1]));
    let left = stack.aws.entries("n", "deleted#");
    let left: Vec<_> = left.iter().map(|entry| &entry["row"]["M"]["version"]["S"]).collect();
    assert_eq!(left, [&json!(format!("{}#0", padded(1))), &json!("1#x")]);
    assert_eq!(stack.code::<Delete>(request).await, "NotFound");
}
