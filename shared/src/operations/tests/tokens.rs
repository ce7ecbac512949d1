//! put with a token.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::put::Put;
use super::{Stack, options, versions};

fn request(secret: &str, comment: &str) -> Value {
    json!({"name": "n", "secret": secret, "comment": comment, "token": "t"})
}

/// Returns the name of the token's entry.
fn token_name(stack: &Stack) -> String {
    let stored = stack.aws.stored();
    let entry = stored["ledger"].iter().find(|item| item["entry"]["S"] == "token");
    entry.expect("an entry of the token")["name"]["S"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn the_same_request_is_done_once_and_its_response_is_the_same() {
    let stack = Stack::new();
    let first = stack.done::<Put>(request("one", "c")).await;
    let before = stack.aws.stored();
    // The value is not compared: a stored hash of it could be brute-forced.
    for secret in ["one", "two"] {
        assert_eq!(stack.done::<Put>(request(secret, "c")).await, first);
    }
    assert_eq!(stack.aws.stored(), before);
}

#[tokio::test(start_paused = true)]
async fn another_request_with_the_token_is_refused() {
    let stack = Stack::new();
    stack.done::<Put>(request("one", "c")).await;
    let before = stack.aws.stored();
    assert_eq!(stack.code::<Put>(request("one", "other")).await, "Exists");
    assert_eq!(stack.aws.stored(), before);
    // About other names, it is another token.
    stack.done::<Put>(json!({"name": "m", "secret": "s", "token": "t"})).await;
    assert_eq!(versions(&stack, "m").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_request_at_the_same_time_is_done_once() {
    let stack = Stack::new();
    stack.aws.before("TransactWriteItems", 0, |aws| async move {
        Stack::on(aws, options()).done::<Put>(request("one", "c")).await;
    });
    let response = stack.done::<Put>(request("one", "c")).await;
    assert_eq!(response["version"], 1);
    assert_eq!(versions(&stack, "n").len(), 1);
    assert_eq!(stack.done::<Put>(request("one", "c")).await, response);
}

#[tokio::test(start_paused = true)]
async fn the_response_counts_even_if_the_request_can_no_longer_be_done() {
    let stack = Stack::new();
    let one = json!({"name": "n", "secret": "s", "version": 4, "token": "t"});
    let first = stack.done::<Put>(one.clone()).await;
    // The version exists by now.
    assert_eq!(stack.done::<Put>(one.clone()).await, first);
    stack.aws.disable_key(crate::testing::KEY, true);
    assert_eq!(stack.done::<Put>(one).await, first);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_has_ended_is_replaced() {
    let stack = Stack::new();
    stack.done::<Put>(request("one", "c")).await;
    let name = token_name(&stack);
    stack.aws.edit_item("ledger", &name, "token", |entry| {
        entry.insert("ttl".to_owned(), json!({"N": "1000"}));
    });
    assert_eq!(stack.done::<Put>(request("two", "c")).await["version"], 2);
    let entry = &stack.aws.items("ledger", &name)[0];
    assert_ne!(entry["ttl"]["N"], "1000");
}

#[tokio::test(start_paused = true)]
async fn the_former_key_of_a_token_returns_the_response_of_the_same_request_only() {
    let stack = Stack::new();
    let first = stack.done::<Put>(request("one", "c")).await;
    let name = token_name(&stack);
    let mut entry = stack.aws.items("ledger", &name).remove(0);
    stack.aws.remove_item("ledger", &name, "token");
    let former = format!("/token/{}", hex::encode(Sha256::digest("t")));
    entry.insert("name".to_owned(), json!({"S": former}));
    stack.aws.put_item("ledger", entry);
    assert_eq!(stack.done::<Put>(request("one", "c")).await, first);
    assert_eq!(stack.done::<Put>(request("two", "other")).await["version"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_response_below_the_highest_version_says_so_again() {
    let stack = Stack::new();
    stack.done::<Put>(json!({"name": "n", "secret": "s", "version": 9})).await;
    let below = json!({"name": "n", "secret": "s", "version": 3, "token": "t"});
    let first = stack.done::<Put>(below.clone()).await;
    assert_eq!(first["current"], false);
    assert_eq!(stack.done::<Put>(below).await, first);
}
