//! renew: generated values by rotation policies.

use serde_json::{Value, json};

use super::super::Renew;
use super::{FIRST, LEDGER, ONE, SECOND, SECRETS, World, counts, map, number, reasons, text};
use crate::error::Error;
use crate::operations::get::Get;
use crate::operations::policy::Policy;
use crate::operations::put::Put;
use crate::testing::{Fault, Item};
use crate::timestamp::Timestamp;

/// Puts a policy with these fields, which is due.
async fn due_policy(world: &World, name: &str, fields: Value) {
    policy(world, name, fields).await;
    edit_policy(world, name, "due", number(1_600_000_000));
}

async fn policy(world: &World, name: &str, fields: Value) {
    let mut request = fields;
    request["policy"] = json!("put");
    request["name"] = json!(name);
    request["days"] = json!(30);
    world.stack.done::<Policy>(request).await;
}

fn edit_policy(world: &World, name: &str, attribute: &str, value: Value) {
    world.aws.edit_item(LEDGER, "/policies", &format!("policy#{name}"), |policy| {
        policy.insert(attribute.to_owned(), value);
    });
}

fn stored_policy(world: &World, name: &str) -> Item {
    world.item(LEDGER, "/policies", &format!("policy#{name}")).unwrap()
}

fn integer(value: &Value) -> i64 {
    value["N"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_due_policy_puts_a_generated_version_with_the_description_of_the_one_before() {
    let world = World::new();
    let put = json!({ "name": "n", "secret": "old", "comment": "why", "context": { "app": "x" } });
    world.stack.done::<Put>(put).await;
    due_policy(&world, "n", json!({ "generate": { "length": 40, "exclude_punctuation": true } }))
        .await;
    let report = world.run::<Renew>(json!({})).await;
    assert_eq!((&report["state"], counts(&report)), (&json!("done"), [1, 1, 0, 0]));

    let get = json!({ "name": "n", "context": { "app": "x" } });
    let renewed = world.stack.done::<Get>(get).await;
    let value = renewed["secret"].as_str().unwrap();
    assert!(value.len() == 40 && value.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_eq!((&renewed["version"], &renewed["comment"]), (&json!(2), &json!("why")));
    assert_eq!(world.operations("n"), ["put", "policy", "renew"]);
    assert!(world.verifies("n").await);
    let policy = stored_policy(&world, "n");
    let now = Timestamp::now().unix();
    assert!(integer(&policy["due"]) > now + 29 * 86_400);
    assert!((now - 60..=now).contains(&integer(&policy["renewed_at"])));
    assert_eq!(integer(&policy["sequence"]), 3);

    let report = world.run::<Renew>(json!({})).await;
    assert_eq!((counts(&report), world.labels("n").len()), ([1, 0, 1, 0], 2));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_not_due_or_has_nothing_to_renew_is_skipped() {
    let world = World::new();
    for name in ["waiting", "never", "deleted", "expired", "canceled"] {
        world.put(name, "value").await;
        due_policy(&world, name, json!({})).await;
    }
    edit_policy(&world, "waiting", "due", number(Timestamp::now().unix() + 3600));
    world.aws.edit_item(LEDGER, "/policies", "policy#never", |policy| drop(policy.remove("due")));
    world.delete("deleted").await;
    world.aws.edit_item(SECRETS, "expired", FIRST, |row| {
        row.insert("expires_at".to_owned(), number(1_600_000_000));
    });
    world.stack.done::<Policy>(json!({ "policy": "cancel", "name": "canceled" })).await;
    let before = world.versions();
    let report = world.run::<Renew>(json!({})).await;
    // A canceled policy is no policy.
    assert_eq!(counts(&report), [4, 0, 4, 0]);
    assert_eq!(world.versions(), before);
}

/// A world with a due policy for each reason not to renew, under the name of the reason.
async fn refused() -> World {
    let world = World::new();
    for name in ["weak", "suspended", "unreadable"] {
        world.put(name, "value").await;
        due_policy(&world, name, json!({})).await;
    }
    edit_policy(&world, "weak", "length", number(1));
    edit_policy(&world, "unreadable", "schedule", text("now and then"));
    world.delete("suspended").await;
    world.put("suspended", "of another owner").await;
    world.put("json", r#"{"password": "old"}"#).await;
    due_policy(&world, "json", json!({})).await;
    world.insert(world.credstash("context", FIRST, "value"));
    due_policy(&world, "context", json!({})).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_cannot_renew_is_reported_with_the_reason() {
    let world = refused().await;
    let before = world.versions();
    let report = world.run::<Renew>(json!({})).await;
    assert_eq!(counts(&report), [5, 0, 0, 5]);
    for failure in report["failures"].as_array().unwrap() {
        assert_eq!(failure["name"], failure["reason"]);
        assert!(failure.get("version").is_none());
    }
    assert_eq!(world.versions(), before);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_cannot_be_renewed_is_an_error_that_says_what_to_do() {
    let world = refused().await;
    let before = world.aws.stored();
    for (name, code, advice) in [
        ("weak", "Invalid", "64 bits"),
        ("suspended", "Exists", "Put the policy again"),
        ("json", "Invalid", "`generate.template`"),
        ("context", "Invalid", "`context`"),
        ("unreadable", "Malformed", "Cancel it"),
        ("none", "NotFound", "PUT /policies"),
        ("a//b", "Invalid", "two slashes"),
    ] {
        let error = world.one::<Renew>(name, json!({})).await.unwrap_err();
        assert_eq!(error.code().name, code, "{name}");
        assert!(error.to_string().contains(advice), "{error}");
    }
    assert_eq!(world.aws.stored(), before);
}

#[tokio::test(start_paused = true)]
async fn a_json_value_keeps_its_other_fields_from_the_template() {
    let world = World::new();
    world.put("n", r#"{"user": "admin", "password": "old"}"#).await;
    let generate = json!({ "template": r#"{"user": "admin"}"#, "key": "password" });
    due_policy(&world, "n", json!({ "generate": generate })).await;
    assert_eq!(counts(&world.run::<Renew>(json!({})).await), [1, 1, 0, 0]);
    let value: Value = serde_json::from_str(&world.value("n").await).unwrap();
    assert_eq!(value["user"], "admin");
    assert_eq!(value["password"].as_str().unwrap().len(), 32);
}

#[tokio::test(start_paused = true)]
async fn the_context_of_a_policy_is_that_of_the_new_version() {
    let world = World::new();
    world.insert(world.credstash("n", FIRST, "value"));
    due_policy(&world, "n", json!({ "context": { "app": "x" } })).await;
    assert_eq!(counts(&world.run::<Renew>(json!({})).await), [1, 1, 0, 0]);
    assert_eq!(world.item(SECRETS, "n", SECOND).unwrap()["context"], map(&[("app", "x")]));
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_renewal_continues_and_renews_no_name_twice() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.put(name, "value").await;
        due_policy(&world, name, json!({})).await;
    }
    world.begin::<Renew>(ONE, 1, json!({})).await;
    world.fail_write_of("policy#b", 1, Fault::Code("AccessDeniedException"));
    let error = world.part::<Renew>(ONE, "all", 600).await.unwrap_err();
    assert_eq!(error.code().name, "Unavailable");
    assert!(world.part::<Renew>(ONE, "all", 600).await.unwrap());
    assert_eq!(counts(&world.end::<Renew>(ONE).await), [3, 3, 0, 0]);
    for name in ["a", "b", "c"] {
        assert_eq!(world.labels(name).len(), 2, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_another_renews_meanwhile_is_not_renewed_twice() {
    let world = World::new();
    world.put("n", "value").await;
    due_policy(&world, "n", json!({})).await;
    // The start of the run and the marks of the page come first.
    world.edit_before(2, (LEDGER, "/policies", "policy#n"), |policy| {
        policy.insert("sequence".to_owned(), number(9));
    });
    assert_eq!(counts(&world.run::<Renew>(json!({})).await), [1, 0, 1, 0]);
    assert_eq!(world.labels("n").len(), 1);
    // For one name it is an error.
    world.edit_before(0, (LEDGER, "/policies", "policy#n"), |policy| {
        policy.insert("sequence".to_owned(), number(10));
    });
    let error = world.one::<Renew>("n", json!({})).await.unwrap_err();
    assert!(matches!(error, Error::Renewed));
    assert_eq!(world.labels("n").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_follows_a_version_that_another_puts_meanwhile() {
    let world = World::new();
    world.put("n", "value").await;
    due_policy(&world, "n", json!({})).await;
    world.put_before(2, SECRETS, world.credstash("n", SECOND, "theirs"));
    assert_eq!(counts(&world.run::<Renew>(json!({})).await), [1, 1, 0, 0]);
    assert_eq!(world.labels("n").len(), 3);
    assert!(world.verifies("n").await);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_renewed_at_once_whether_it_is_due_or_not() {
    let world = World::new();
    world.put("n", "value").await;
    policy(&world, "n", json!({})).await;
    let response = world.one::<Renew>("n", json!({ "dry_run": true })).await.unwrap();
    assert_eq!(response, json!({ "name": "n", "action": "renew", "dry_run": true }));
    assert_eq!(world.labels("n").len(), 1);
    let response = world.one::<Renew>("n", json!({})).await.unwrap();
    assert_eq!((&response["version"], &response["dry_run"]), (&json!(2), &json!(false)));
    assert!(response["revision"].is_string());
    world.delete("n").await;
    let error = world.one::<Renew>("n", json!({})).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_with_a_token_is_done_once() {
    let world = World::new();
    world.put("n", "value").await;
    policy(&world, "n", json!({})).await;
    let request = json!({ "token": "monday" });
    let first = world.one::<Renew>("n", request.clone()).await.unwrap();
    // The response is lost, and the policy is canceled before the request is sent again.
    world.stack.done::<Policy>(json!({ "policy": "cancel", "name": "n" })).await;
    assert_eq!(world.one::<Renew>("n", request).await.unwrap(), first);
    assert_eq!(world.labels("n").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_renews_nothing() {
    let world = World::new();
    world.put("n", "value").await;
    due_policy(&world, "n", json!({})).await;
    let report = world.run::<Renew>(json!({ "dry_run": true })).await;
    assert_eq!((counts(&report), reasons(&report)), ([1, 1, 0, 0], json!({})));
    assert_eq!(world.labels("n").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn policies_do_not_move() {
    let world = World::new();
    world.put("n", "value").await;
    due_policy(&world, "n", json!({})).await;
    world.begin::<Renew>(ONE, 1, json!({})).await;
    assert!(world.part::<Renew>(ONE, "moved", 600).await.unwrap());
    assert_eq!(counts(&world.end::<Renew>(ONE).await), [0, 0, 0, 0]);
    assert_eq!(world.labels("n").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_pages_of_policies_are_read() {
    let world = World::new();
    world.put("n00", "value").await;
    due_policy(&world, "n00", json!({})).await;
    for number in 1..50 {
        // The other names have no version.
        let mut policy = stored_policy(&world, "n00");
        policy.insert("entry".to_owned(), text(&format!("policy#n{number:02}")));
        world.aws.put_item(LEDGER, policy);
    }
    assert_eq!(counts(&world.run::<Renew>(json!({})).await), [50, 1, 49, 0]);
}
