//! Notices on a stack in memory.

use serde_json::json;

use super::Remind;
use crate::operations::StackOptions;
use crate::operations::put::Put;
use crate::testing::{Aws, Fault, Item, Stack, legacy_row, options};
use crate::timestamp::Timestamp;

const DAY: i64 = 24 * 60 * 60;

/// A stack that gives notice three days before.
fn stack() -> Stack {
    Stack::on(Aws::new(), StackOptions { notice_days: 3, ..options() })
}

/// Puts a secret that expires after some days.
async fn put(stack: &Stack, name: &str, days: i64) {
    stack.done::<Put>(json!({ "name": name, "secret": "value", "ttl": days * DAY })).await;
}

/// Returns how many notices were written.
async fn remind(stack: &Stack) -> u64 {
    stack.done::<Remind>(json!({})).await["notices"].as_u64().unwrap()
}

fn notices(stack: &Stack, name: &str) -> Vec<Item> {
    stack.aws.entries(name, "notice#")
}

#[tokio::test(start_paused = true)]
async fn a_version_that_expires_soon_gets_one_notice() {
    let stack = stack();
    put(&stack, "n", 2).await;
    assert_eq!(remind(&stack).await, 1);
    let [notice] = &notices(&stack, "n")[..] else { panic!("one notice") };
    let row = stack.aws.items("secrets", "n").remove(0);
    let end: i64 = row["expires_at"]["N"].as_str().unwrap().parse().unwrap();
    assert_eq!(notice["version"]["S"], "1");
    assert_eq!(notice["expires_at"]["S"], Timestamp::from_unix_seconds(end).unwrap().to_string());
    assert_eq!(notice["ttl"]["N"], (end + 30 * DAY).to_string());
    // The next day, there is nothing more to write.
    assert_eq!((remind(&stack).await, notices(&stack, "n").len()), (0, 1));
    // The next version expires at another time.
    put(&stack, "n", 1).await;
    assert_eq!((remind(&stack).await, notices(&stack, "n").len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_expires_later_or_never_or_has_expired_gets_no_notice() {
    let stack = stack();
    put(&stack, "later", 4).await;
    stack.done::<Put>(json!({ "name": "never", "secret": "value" })).await;
    put(&stack, "expired", 2).await;
    stack.aws.edit_item("secrets", "expired", "0000000000000000001", |row| {
        row.insert("expires_at".to_owned(), json!({ "N": "1600000000" }));
    });
    assert_eq!(remind(&stack).await, 0);
}

#[tokio::test(start_paused = true)]
async fn every_page_of_the_index_is_read() {
    let stack = stack();
    for number in 0..7 {
        put(&stack, &format!("n{number}"), 2).await;
        put(&stack, &format!("later{number}"), 5).await;
    }
    stack.aws.set_page(2);
    assert_eq!(remind(&stack).await, 7);
}

#[tokio::test(start_paused = true)]
async fn the_rows_of_other_clients_get_notices_except_under_reserved_names() {
    let stack = stack();
    let long = "v".repeat(600);
    for (name, version) in [("theirs", long.as_str()), ("/token/x", "1"), ("free", "7")] {
        let mut row = legacy_row(&stack.aws, name, version, "value", &[]);
        let end = (Timestamp::now().unix() + DAY).to_string();
        row.insert("expires_at".to_owned(), json!({ "N": end }));
        stack.aws.put_item("secrets", row);
    }
    assert_eq!(remind(&stack).await, 2);
    assert!(stack.aws.items("ledger", "/token/x").is_empty());
    // A sort key has at most 1,024 bytes.
    let entry = notices(&stack, "theirs").remove(0);
    assert!(entry["entry"]["S"].as_str().unwrap().len() < 100);
    assert_eq!(entry["version"]["S"], long);
    assert_eq!(notices(&stack, "free")[0]["version"]["S"], "7");
}

#[tokio::test(start_paused = true)]
async fn notices_that_could_not_be_written_are_written_the_next_time() {
    let stack = stack();
    for name in ["a", "b", "c"] {
        put(&stack, name, 2).await;
    }
    stack.aws.fail("TransactWriteItems", 1, Fault::Code("AccessDeniedException"));
    assert_eq!(stack.code::<Remind>(json!({})).await, "Unavailable");
    assert_eq!(remind(&stack).await, 1);
    for name in ["a", "b", "c"] {
        assert_eq!(notices(&stack, name).len(), 1);
    }
    stack.aws.fail("Scan", 1, Fault::Code("ResourceNotFoundException"));
    assert_eq!(stack.code::<Remind>(json!({})).await, "Unavailable");
}
