//! put: several secrets at once.

use serde_json::{Value, json};

use super::super::put::Put;
use super::{check_history, events, padded, put, put_meanwhile, value, versions};
use crate::testing::{Fault, Stack};

fn secrets(count: usize) -> Value {
    let one = |index: usize| json!({"name": format!("p/{index:02}"), "secret": "s"});
    (0..count).map(one).collect()
}

fn request(secrets: &Value) -> Value {
    json!({"prefix": "p", "secrets": secrets})
}

#[tokio::test(start_paused = true)]
async fn several_secrets_are_stored_in_one_transaction() {
    let stack = Stack::new();
    put(&stack, "p/01", "earlier").await;
    let response = stack.done::<Put>(request(&secrets(3))).await;
    let stored = response["secrets"].as_array().unwrap();
    let versions: Vec<_> = stored.iter().map(|each| each["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, [1, 2, 1]);
    assert_eq!(stack.aws.calls("TransactWriteItems"), 2);
    for name in ["p/00", "p/01", "p/02"] {
        check_history(&stack, name).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_secret_under_a_prefix_has_the_response_of_several() {
    let stack = Stack::new();
    let response = stack.done::<Put>(request(&json!({"p/a": "s"}))).await;
    assert_eq!(response["secrets"][0]["name"], "p/a");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_exists_stops_all_of_them() {
    let stack = Stack::new();
    put(&stack, "p/b", "earlier").await;
    let before = stack.aws.stored();
    let secrets = json!([
        {"name": "p/a", "secret": "s"}, {"name": "p/b", "secret": "s", "version": 1},
    ]);
    let error = stack.error::<Put>(request(&secrets)).await;
    assert_eq!(error.code().name, "Exists");
    assert!(error.to_string().contains("secrets[1]"), "{error}");
    assert_eq!(stack.aws.stored(), before);
}

#[tokio::test(start_paused = true)]
async fn only_the_secret_that_somebody_else_wrote_is_read_again() {
    let stack = Stack::new();
    stack.aws.before("TransactWriteItems", 0, |aws| put_meanwhile(aws, "p/01", "theirs"));
    let response = stack.done::<Put>(request(&secrets(3))).await;
    assert_eq!(response["secrets"][1]["version"], 2);
    let reads = |name: &str| {
        let about = |request: &Value| request["ExpressionAttributeValues"][":name"]["S"] == name;
        let requests = stack.aws.requests("Query");
        requests
            .iter()
            .filter(|request| about(request) && request["TableName"] == "secrets")
            .count()
    };
    assert_eq!((reads("p/00"), reads("p/01"), reads("p/02")), (1, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn after_a_conflict_all_of_them_are_read_again() {
    let stack = Stack::new();
    let conflict = &["TransactionConflict", "None", "None", "None", "None", "None"];
    stack.aws.fail("TransactWriteItems", 2, Fault::Canceled(conflict));
    stack.done::<Put>(request(&secrets(2))).await;
    assert_eq!(stack.aws.calls("TransactWriteItems"), 3);
    assert_eq!(stack.aws.calls("GenerateDataKey"), 2);
}

#[tokio::test(start_paused = true)]
async fn the_chain_heads_of_many_secrets_are_written_afterwards() {
    let stack = Stack::new();
    stack.done::<Put>(request(&secrets(40))).await;
    assert_eq!(stack.aws.calls("TransactWriteItems"), 2);
    for index in 0..40 {
        let name = format!("p/{index:02}");
        assert_eq!(stack.aws.entries(&name, "event#")[0]["headless"]["BOOL"], true);
        assert_eq!(stack.aws.entries(&name, "head").len(), 1, "{name}");
    }
    check_history(&stack, "p/39").await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_chain_head_stays_and_the_others_are_written() {
    let stack = Stack::new();
    stack.aws.before("TransactWriteItems", 1, |aws| put_meanwhile(aws, "p/05", "later"));
    stack.done::<Put>(request(&secrets(34))).await;
    assert_eq!(stack.aws.entries("p/05", "head")[0]["sequence"]["N"], "2");
    assert_eq!(stack.aws.entries("p/33", "head")[0]["sequence"]["N"], "1");
    assert_eq!(value(&stack, "p/05").await, "later");
    check_history(&stack, "p/05").await;
}

#[tokio::test(start_paused = true)]
async fn secrets_without_chain_heads_are_stored_and_the_next_put_writes_the_head() {
    let stack = Stack::new();
    stack.aws.before("TransactWriteItems", 1, |aws| async move {
        aws.fail("TransactWriteItems", 1, Fault::Code("AccessDeniedException"));
    });
    let response = stack.done::<Put>(request(&secrets(34))).await;
    assert_eq!(response["secrets"].as_array().unwrap().len(), 34);
    assert!(stack.aws.entries("p/00", "head").is_empty());
    check_history(&stack, "p/00").await;
    assert_eq!(put(&stack, "p/00", "next").await["version"], 2);
    assert_eq!(stack.aws.entries("p/00", "head")[0]["sequence"]["N"], "2");
    check_history(&stack, "p/00").await;
}

#[tokio::test(start_paused = true)]
async fn more_secrets_than_one_transaction_writes_are_too_many() {
    let stack = Stack::new();
    for (count, token) in [(51, None), (50, Some("t")), (101, None)] {
        let mut request = request(&secrets(count));
        if let Some(token) = token {
            request["token"] = token.into();
        }
        assert_eq!(stack.code::<Put>(request).await, "TooLarge", "{count}");
    }
    assert_eq!(stack.aws.calls("GenerateDataKey"), 0);
    stack.done::<Put>(request(&secrets(50))).await;
    let mut request = request(&secrets(49));
    request["token"] = "t".into();
    stack.done::<Put>(request).await;
    assert_eq!(versions(&stack, "p/00"), [padded(1), padded(2)]);
}

#[tokio::test(start_paused = true)]
async fn secrets_of_more_than_four_megabytes_are_too_large_together() {
    let stack = Stack::new();
    let secret = "x".repeat(250_000);
    let one = |index| json!({"name": format!("p/{index}"), "secret": secret});
    let secrets: Value = (0..13).map(one).collect();
    let error = stack.error::<Put>(request(&secrets)).await;
    assert_eq!(error.code().name, "TooLarge");
    assert!(error.to_string().contains("4 MB together"), "{error}");
    assert_eq!(stack.aws.calls("TransactWriteItems"), 0);
}

#[tokio::test(start_paused = true)]
async fn everything_that_is_wrong_is_reported_with_its_index() {
    let stack = Stack::new();
    let secrets = json!([
        {"name": "p/a", "secret": "s"}, {"name": "p/a", "secret": "s"},
        {"name": "other", "secret": "s"}, {"name": "p/b"}, {"name": "p/c", "secret": "s", "x": 1},
    ]);
    let error = stack.error::<Put>(request(&secrets)).await;
    let message = error.to_string();
    assert_eq!(error.code().name, "Invalid");
    for index in 1..5 {
        assert!(message.contains(&format!("secrets[{index}]")), "{message}");
    }
    assert!(!message.contains("secrets[0]"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_one_secret_has_its_index_and_stops_all() {
    let stack = Stack::new();
    let secrets = json!([
        {"name": "p/a", "secret": "s"},
        {"name": "p/b", "secret": "s", "expires_at": "2020-01-01T00:00:00Z"},
    ]);
    let error = stack.error::<Put>(request(&secrets)).await;
    assert!(error.to_string().contains("secrets[1]"), "{error}");
    assert!(events(&stack, "p/a").is_empty());
}
