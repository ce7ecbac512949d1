//! What AWS may do wrong in the middle of an operation, and what is stored then.

use serde_json::json;

use super::super::delete::Delete;
use super::super::get::Get;
use super::super::put::Put;
use super::{check_history, events, padded, put, value, versions};
use crate::error::Error;
use crate::testing::{Aws, Fault, KEY, Stack, options};

const REQUEST: &str = r#"{"name": "n", "secret": "s"}"#;

async fn fails_with(fault: Fault, times: usize) -> (Stack, Error) {
    let stack = Stack::new();
    stack.aws.fail("TransactWriteItems", times, fault);
    let error = stack.error::<Put>(serde_json::from_str(REQUEST).unwrap()).await;
    stack.aws.recover();
    (stack, error)
}

fn detail(error: &Error) -> String {
    error.detail().map(ToString::to_string).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_transaction_whose_response_is_lost_is_done_once() {
    let stack = Stack::new();
    stack.aws.fail("TransactWriteItems", 1, Fault::LostResponse);
    assert_eq!(put(&stack, "n", "s").await["version"], 1);
    assert_eq!(stack.aws.calls("TransactWriteItems"), 2);
    let requests = stack.aws.requests("TransactWriteItems");
    assert_eq!(requests[0]["ClientRequestToken"], requests[1]["ClientRequestToken"]);
    assert_eq!(versions(&stack, "n"), [padded(1)]);
    check_history(&stack, "n").await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_without_any_response_may_have_been_done() {
    for fault in [Fault::LostResponse, Fault::NoConnection] {
        let (stack, error) = fails_with(fault, usize::MAX).await;
        assert_eq!(error.code().name, "Unavailable");
        assert!(error.to_string().contains("may have been done"), "{error}");
        let done = matches!(fault, Fault::LostResponse);
        assert_eq!(versions(&stack, "n").len(), usize::from(done), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn internal_errors_are_tried_again_and_then_reported() {
    let stack = Stack::new();
    stack.aws.fail("TransactWriteItems", 3, Fault::Internal);
    put(&stack, "n", "s").await;
    assert_eq!(stack.aws.calls("TransactWriteItems"), 4);
    let (stack, error) = fails_with(Fault::Internal, 4).await;
    assert!(error.to_string().contains("may have been done"), "{error}");
    assert_eq!(stack.aws.calls("TransactWriteItems"), 4);
    assert!(events(&stack, "n").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_is_named_for_the_operator_only() {
    let (stack, error) = fails_with(Fault::Code("AccessDeniedException"), 1).await;
    assert_eq!(error.code().name, "Unavailable");
    assert!(!error.to_string().contains("dynamodb"), "{error}");
    let detail = detail(&error);
    for part in ["dynamodb:PutItem", "table/secrets and table/ledger", "AccessDenied"] {
        assert!(detail.contains(part), "{detail}");
    }
    assert_eq!(stack.aws.calls("TransactWriteItems"), 1);
    put(&stack, "m", "s").await;
    stack.aws.fail("TransactWriteItems", 1, Fault::Code("AccessDeniedException"));
    let error = stack.error::<Delete>(json!({"name": "m"})).await;
    let detail = error.detail().unwrap().to_string();
    assert!(detail.contains("dynamodb:PutItem and dynamodb:DeleteItem"), "{detail}");
    assert_eq!(value(&stack, "m").await, "s");
}

#[tokio::test(start_paused = true)]
async fn a_throttled_transaction_is_tried_eight_times() {
    const BUSY: Fault = Fault::Canceled(&["None", "ThrottlingError", "None"]);
    let stack = Stack::new();
    stack.aws.fail("TransactWriteItems", 7, BUSY);
    assert_eq!(put(&stack, "n", "s").await["version"], 1);
    let (stack, error) = fails_with(BUSY, usize::MAX).await;
    assert_eq!(stack.aws.calls("TransactWriteItems"), 8);
    assert!(error.is_busy() && detail(&error).contains("ThrottlingError"), "{error:?}");
    assert!(versions(&stack, "n").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_canceled_for_an_unknown_reason_is_not_tried_again() {
    let (stack, error) = fails_with(Fault::Canceled(&["None", "SomethingNew", "None"]), 1).await;
    assert_eq!((error.code().name, stack.aws.calls("TransactWriteItems")), ("Unavailable", 1));
    assert!(detail(&error).contains("SomethingNew"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_comes_before_a_condition() {
    const BOTH: Fault = Fault::Canceled(&["ConditionalCheckFailed", "TransactionConflict", "None"]);
    let stack = Stack::new();
    stack.aws.fail("TransactWriteItems", 1, BOTH);
    // What the other transaction is about to change is not yet visible.
    stack.done::<Put>(json!({"name": "n", "secret": "s", "version": 3})).await;
    assert_eq!(versions(&stack, "n"), [padded(3)]);
}

#[tokio::test(start_paused = true)]
async fn sizes_that_dynamodb_refuses_are_too_large() {
    const SIZE: &str = "Item size to update has exceeded the maximum allowed size";
    for fault in [
        Fault::Canceled(&["ValidationError", "None", "None"]),
        Fault::Canceled(&["ItemCollectionSizeLimitExceeded", "None", "None"]),
        Fault::Message("ValidationException", SIZE),
    ] {
        let (stack, error) = fails_with(fault, 1).await;
        assert_eq!(error.code().name, "TooLarge", "{fault:?}");
        assert_eq!(stack.aws.calls("TransactWriteItems"), 1);
    }
    let (_, error) = fails_with(Fault::Code("ValidationException"), 1).await;
    assert_eq!(error.code().name, "Unavailable");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_if_kms_or_a_read_fails() {
    for (operation, code) in [
        ("GenerateDataKey", "AccessDeniedException"),
        ("GenerateDataKey", "DisabledException"),
        ("GenerateDataKey", "ThrottlingException"),
        ("Query", "ResourceNotFoundException"),
        ("Query", "ProvisionedThroughputExceededException"),
    ] {
        let stack = Stack::new();
        stack.aws.fail(operation, usize::MAX, Fault::Code(code));
        let error = stack.error::<Put>(serde_json::from_str(REQUEST).unwrap()).await;
        assert_eq!(error.code().name, "Unavailable", "{operation} {code}");
        assert!(detail(&error).contains(code), "{error:?}");
        assert_eq!(stack.aws.calls("TransactWriteItems"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_reads_and_calls_of_kms_are_tried_again() {
    let stack = Stack::new();
    put(&stack, "n", "s").await;
    stack.aws.fail("Query", 3, Fault::Code("ProvisionedThroughputExceededException"));
    stack.aws.fail("Decrypt", 3, Fault::Code("ThrottlingException"));
    assert_eq!(value(&stack, "n").await, "s");
    assert_eq!(stack.aws.calls("Decrypt"), 4);
    stack.aws.fail("Decrypt", 4, Fault::Code("ThrottlingException"));
    let error = stack.error::<Get>(json!({"name": "n"})).await;
    assert!(error.is_busy(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stack_without_a_part_reports_the_setting_to_the_operator() {
    let coffer = super::super::Coffer::new(None, None, None, options());
    let stack = Stack { aws: Aws::new(), coffer };
    let error = stack.error::<Get>(json!({"name": "n"})).await;
    assert_eq!(error.code().name, "Unavailable");
    assert!(detail(&error).contains("COFFER_TABLE"), "{error:?}");
    let table =
        crate::store::secrets_table::SecretsTable::new(stack.aws.dynamodb(), "secrets".into());
    let coffer = super::super::Coffer::new(None, Some(table), None, options());
    let stack = Stack { coffer, ..stack };
    let error = stack.error::<Put>(serde_json::from_str(REQUEST).unwrap()).await;
    assert!(detail(&error).contains("COFFER_LEDGER"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_put_without_a_key_that_can_be_used_stores_nothing() {
    let stack = Stack::new();
    stack.aws.disable_key(KEY, true);
    let error = stack.error::<Put>(serde_json::from_str(REQUEST).unwrap()).await;
    assert!(error.to_string().contains("disabled"), "{error}");
    stack.aws.disable_key(KEY, false);
    put(&stack, "n", "s").await;
}
