//! The stack in memory itself.

use super::*;
use crate::encryption_context::EncryptionContext;
use crate::keys::Rewrapped;
use crate::operations::get::Get;
use crate::operations::put::Put;

#[tokio::test(start_paused = true)]
async fn a_put_and_a_get_take_the_calls_that_are_documented() {
    let stack = Stack::new();
    let stored = stack.done::<Put>(json!({"name": "n", "secret": "s"})).await;
    assert_eq!(stored["version"], 1);
    let calls = |operation| stack.aws.calls(operation);
    assert_eq!((calls("GenerateDataKey"), calls("TransactWriteItems")), (1, 1));
    let queries = calls("Query");
    let response = stack.done::<Get>(json!({"name": "n"})).await;
    assert_eq!(response["secret"], "s");
    assert_eq!((calls("Query") - queries, calls("Decrypt")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_legacy_row_opens() {
    let stack = Stack::new();
    let row = legacy_row(&stack.aws, "theirs", "1", "value", &[("a", "b")]);
    stack.aws.put_item("secrets", row);
    let response = stack.done::<Get>(json!({"name": "theirs", "context": {"a": "b"}})).await;
    assert_eq!((&response["secret"], &response["dialect"]), (&"value".into(), &"credstash".into()));
    let code = stack.code::<Get>(json!({"name": "theirs"})).await;
    assert_eq!(code, "Forbidden");
}

#[tokio::test(start_paused = true)]
async fn a_wrapped_key_states_its_key_material() {
    let aws = Aws::new();
    let keys = Keys::new(aws.kms(), KEY.to_owned(), Vec::new(), Duration::ZERO);
    let wrapped = aws.wrap(KEY, &[], &DATA_KEY);
    let rewrap = async || keys.rewrap(&wrapped, &EncryptionContext::default()).await.unwrap();
    assert_eq!(rewrap().await, Rewrapped::Current);
    aws.rotate_key(KEY);
    assert_ne!(rewrap().await, Rewrapped::Current);
}

/// Queries with a filter, and a placeholder for it.
async fn query(filter: &str, placeholder: &str) {
    let aws = Aws::new();
    aws.put_item("secrets", legacy_row(&aws, "n", "1", "s", &[]));
    let value = aws_sdk_dynamodb::types::AttributeValue::S("n".to_owned());
    let query = aws
        .dynamodb()
        .query()
        .table_name("secrets")
        .key_condition_expression("#name = :name")
        .filter_expression(filter)
        .expression_attribute_names("#name", "name")
        .expression_attribute_names(placeholder, "comment")
        .expression_attribute_values(":name", value);
    drop(query.send().await);
}

#[tokio::test]
#[should_panic(expected = "undefined name #other")]
async fn an_undefined_placeholder_panics() {
    query("#other = :name OR #comment = :name", "#comment").await;
}

#[tokio::test]
#[should_panic(expected = "#comment is not used")]
async fn an_unused_placeholder_panics() {
    query("#name = :name", "#comment").await;
}

#[tokio::test]
#[should_panic(expected = "unknown character")]
async fn an_unknown_expression_panics() {
    query("#comment * :name", "#comment").await;
}
