//! list: the history of a name.

use serde_json::{Value, json};

use super::super::delete::Delete;
use super::super::list::List;
use super::super::restore::Restore;
use super::{check_history, padded, put, put_meanwhile};
use crate::testing::{Stack, legacy_row};

/// Creates a stack with a name that has five events.
async fn five() -> Stack {
    let stack = Stack::new();
    put(&stack, "n", "one").await;
    put(&stack, "n", "two").await;
    stack.done::<Delete>(json!({"name": "n"})).await;
    stack.done::<Restore>(json!({"name": "n"})).await;
    stack.done::<Delete>(json!({"name": "n", "version": 1, "force": true})).await;
    stack
}

async fn verify(stack: &Stack) -> Value {
    stack.done::<List>(json!({"name": "n", "list": "history", "verify": true})).await
}

#[tokio::test(start_paused = true)]
async fn events_are_listed_newest_first() {
    let stack = five().await;
    let history = stack.done::<List>(json!({"name": "n", "list": "history"})).await;
    let events = history["events"].as_array().unwrap();
    let operations: Vec<_> = events.iter().map(|event| event["operation"].clone()).collect();
    assert_eq!(operations, ["delete", "restore", "delete", "put", "put"]);
    assert_eq!((&events[0]["version"], &events[0]["force"]), (&json!(1), &json!(true)));
    assert_eq!(events[2]["versions"], json!([1, 2]));
    assert!(events[2]["recoverable_until"].is_string());
    assert_eq!(events[3]["who"], "arn:aws:iam::111122223333:user/tester");
    assert_eq!(history.get("next"), None);
}

#[tokio::test(start_paused = true)]
async fn a_history_is_paged() {
    let stack = five().await;
    let page = stack.done::<List>(json!({"name": "n", "list": "history", "limit": 3})).await;
    assert_eq!(page["events"].as_array().unwrap().len(), 3);
    let request = json!({"name": "n", "list": "history", "limit": 3, "next": page["next"]});
    let rest = stack.done::<List>(request).await;
    assert_eq!(rest["events"].as_array().unwrap().len(), 2);
    assert_eq!(rest.get("next"), None);
    // A cursor of another list.
    let names = stack.done::<List>(json!({"name": "n", "limit": 1})).await;
    assert_eq!(names.get("next"), None);
    put(&stack, "n", "three").await;
    let versions = stack.done::<List>(json!({"name": "n", "limit": 1})).await;
    let request = json!({"name": "n", "list": "history", "next": versions["next"]});
    assert_eq!(stack.code::<List>(request).await, "Invalid");
}

#[tokio::test(start_paused = true)]
async fn a_whole_history_is_verified_over_all_its_pages() {
    let stack = five().await;
    stack.aws.set_page(2);
    let verified = verify(&stack).await;
    assert_eq!((&verified["whole"], &verified["entries"]), (&json!(true), &json!(5)));
}

#[tokio::test(start_paused = true)]
async fn what_was_edited_or_removed_is_named() {
    let event = |number: u64| format!("event#{number:019}");
    let stack = five().await;
    stack.aws.edit_item("ledger", "n", &event(2), |event| {
        event.insert("who".to_owned(), json!({"S": "somebody else"}));
    });
    let verified = verify(&stack).await;
    assert_eq!(verified["whole"], false);
    assert_eq!(verified["broken"], json!([{"entry": event(2), "fault": "altered"}]));

    let stack = five().await;
    stack.aws.remove_item("ledger", "n", &event(5));
    let verified = verify(&stack).await;
    assert_eq!(verified["broken"], json!([{"entry": event(5), "fault": "missing"}]));
}

#[tokio::test(start_paused = true)]
async fn a_read_during_a_put_is_not_taken_for_damage() {
    let stack = five().await;
    // Between the head's entry and the events.
    stack.aws.before("Query", 1, |aws| put_meanwhile(aws, "n", "three"));
    assert_eq!(verify(&stack).await["whole"], true);
    // The head is visible before its event.
    let event = stack.aws.entries("n", "event#").pop().unwrap();
    let sort = event["entry"]["S"].as_str().unwrap().to_owned();
    stack.aws.remove_item("ledger", "n", &sort);
    stack.aws.before("Query", 3, |aws| async move { aws.put_item("ledger", event) });
    assert_eq!(verify(&stack).await["whole"], true);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_only_other_clients_wrote_has_no_events() {
    let stack = Stack::new();
    stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", &padded(1), "s", &[]));
    let history = stack.done::<List>(json!({"name": "n", "list": "history"})).await;
    assert_eq!(history["events"], json!([]));
    assert_eq!(verify(&stack).await["entries"], 0);
    put(&stack, "n", "two").await;
    check_history(&stack, "n").await;
}
