//! The stack in memory itself.

use super::*;
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
