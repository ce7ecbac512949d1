//! remind: notices of versions that expire soon.

use serde_json::json;

use super::super::put::Put;
use super::super::remind::Remind;
use super::{Item, padded};
use crate::testing::{Fault, Stack, legacy_row};

const DAY: u64 = 24 * 60 * 60;

async fn expiring() -> Stack {
    let stack = Stack::new();
    for (name, days) in [("soon", 1), ("sooner", 6), ("later", 8)] {
        stack.done::<Put>(json!({"name": name, "secret": "s", "ttl": days * DAY})).await;
    }
    stack
}

async fn remind(stack: &Stack) -> u64 {
    stack.done::<Remind>(json!({})).await["notices"].as_u64().unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_version_that_expires_soon_has_one_notice() {
    let stack = expiring().await;
    stack.aws.set_page(1);
    assert_eq!(remind(&stack).await, 2);
    assert_eq!(remind(&stack).await, 0);
    let notices = stack.aws.entries("soon", "notice#");
    let [notice] = notices.as_slice() else { panic!("{notices:?}") };
    assert_eq!(notice["version"]["S"], "1");
    let number = |name: &str| notice[name]["N"].as_str().unwrap().parse::<i64>().unwrap();
    assert!(number("ttl") > crate::moment::Moment::now().unix());
    assert!(stack.aws.entries("later", "notice#").is_empty());
}

#[tokio::test(start_paused = true)]
async fn long_versions_have_notices_and_reserved_names_have_none() {
    let stack = Stack::new();
    let end = crate::moment::Moment::now().unix() + 100;
    let long = "x".repeat(1000);
    for (name, version) in [("n", long.as_str()), ("/token/x", &padded(1))] {
        let mut row: Item = legacy_row(&stack.aws, name, version, "s", &[]);
        row.insert("expires_at".to_owned(), json!({"N": end.to_string()}));
        stack.aws.put_item("secrets", row);
    }
    assert_eq!(remind(&stack).await, 1);
    assert_eq!(stack.aws.entries("n", "notice#")[0]["version"]["S"], long);
    assert!(stack.aws.entries("/token/x", "").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_cannot_be_written_is_written_the_next_time() {
    let stack = expiring().await;
    stack.aws.fail("TransactWriteItems", 1, Fault::Code("AccessDeniedException"));
    assert_eq!(stack.code::<Remind>(json!({})).await, "Unavailable");
    assert_eq!(remind(&stack).await, 1);
}
