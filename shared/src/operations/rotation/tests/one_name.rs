//! Rewrap and reseal of one name, at once.

use serde_json::json;

use super::super::{Reseal, Rewrap};
use super::rows::data_key;
use super::{ALWAYS, FIRST, SECRETS, World, base64, counts, reasons, text};
use crate::error::Error;
use crate::testing::{Fault, KEY};

#[tokio::test(start_paused = true)]
async fn a_name_is_rewrapped_with_its_deleted_versions_and_no_other_name_is() {
    let world = World::new();
    for name in ["n", "n", "other"] {
        world.put(name, "value").await;
    }
    world.delete("n").await;
    world.put("n", "again").await;
    world.rotate_key();
    let response = world.one::<Rewrap>("n", json!({})).await.unwrap();
    assert_eq!(
        response,
        json!({ "name": "n", "action": "rewrap", "dry_run": false, "seen": 3, "changed": 3,
                "skipped": 0, "failed": 0 })
    );
    for ((_, name, sort), row) in world.versions() {
        assert_eq!(world.is_newest(&row), name == "n", "{name} {sort}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_versions_of_a_name_that_are_not_changed_are_listed() {
    let world = World::new();
    let mut row = world.credstash("n", "7", "value");
    row.insert("hmac".to_owned(), text(&"0".repeat(64)));
    world.insert(row);
    let response = world.one::<Reseal>("n", json!({})).await.unwrap();
    assert_eq!((counts(&response), reasons(&response)), ([1, 0, 0, 1], json!({ "integrity": 1 })));
    let failure = json!({ "name": "n", "version": 7, "reason": "integrity" });
    assert_eq!(response["failures"], json!([failure]));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_of_a_name_writes_nothing() {
    let world = World::new();
    world.insert(world.credstash("n", "7", "value"));
    let before = world.aws.stored();
    let response = world.one::<Reseal>("n", json!({ "dry_run": true })).await.unwrap();
    assert_eq!((&response["dry_run"], counts(&response)), (&json!(true), [1, 1, 0, 0]));
    assert_eq!(world.aws.stored(), before);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_resealed_with_the_context_in_the_request() {
    let world = World::new();
    world.insert(world.credstash_under(KEY, &[("app", "x")], "n", FIRST, "value"));
    let response = world.one::<Reseal>("n", json!({})).await.unwrap();
    assert_eq!(reasons(&response), json!({ "context": 1 }));
    let contexts = json!([{ "name": "n", "context": { "app": "x" } }]);
    let response = world.one::<Reseal>("n", json!({ "contexts": contexts })).await.unwrap();
    assert_eq!(counts(&response), [1, 1, 0, 0]);
    // A wrong dialect would turn a value into noise.
    let dialects = json!([{ "name": "n", "dialect": "credstash" }]);
    let error = world.one::<Reseal>("n", json!({ "dialects": dialects })).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)));
}

#[tokio::test(start_paused = true)]
async fn a_name_without_versions_is_not_found_or_breaks_a_rule() {
    let world = World::new();
    for (name, code) in [("n", "NotFound"), ("a//b", "Invalid")] {
        assert_eq!(world.one::<Rewrap>(name, json!({})).await.unwrap_err().code().name, code);
    }
    // Another client may have used such a name.
    world.insert(world.credstash("a//b", FIRST, "value"));
    let response = world.one::<Rewrap>("a//b", json!({})).await.unwrap();
    assert_eq!(counts(&response), [1, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_takes_longer_than_a_call_continues_at_next() {
    let world = World::with(|options| options.kms_requests_per_second = 1);
    for number in 1..=40 {
        world.insert(world.credstash("n", &format!("{number:019}"), "value"));
    }
    world.rotate_key();
    let (mut changed, mut calls, mut next) = (0, 0, None);
    loop {
        let began = tokio::time::Instant::now();
        let request = next.map_or_else(|| json!({}), |next| json!({ "next": next }));
        let response = world.one::<Rewrap>("n", request).await.unwrap();
        assert!(began.elapsed().as_secs() < 25, "{:?}", began.elapsed());
        changed += response["changed"].as_u64().unwrap();
        calls += 1;
        next = response.get("next").cloned();
        if next.is_none() {
            break;
        }
    }
    // Four calls in five seconds.
    assert_eq!((changed, calls), (40, 3));
    assert!(world.versions().values().all(|row| world.is_newest(row)));
}

#[tokio::test(start_paused = true)]
async fn what_was_done_before_an_error_is_reported_and_the_next_call_returns_the_error() {
    let world = World::new();
    for number in 1..=60 {
        world.insert(world.credstash("n", &format!("{number:019}"), "value"));
    }
    world.rotate_key();
    // A page has 40 versions.
    world.aws.before("ReEncrypt", 40, |aws| async move {
        aws.fail("ReEncrypt", ALWAYS, Fault::Code("DisabledException"));
    });
    let response = world.one::<Rewrap>("n", json!({})).await.unwrap();
    assert_eq!(counts(&response), [40, 40, 0, 0]);
    let next = json!({ "next": response["next"] });
    let error = world.one::<Rewrap>("n", next.clone()).await.unwrap_err();
    assert!(error.to_string().contains("disabled"), "{error}");
    world.aws.recover();
    let response = world.one::<Rewrap>("n", next).await.unwrap();
    assert_eq!((counts(&response), response.get("next")), ([20, 20, 0, 0], None));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_was_changed_meanwhile_is_planned_again() {
    let world = World::new();
    world.put("n", "value").await;
    world.rotate_key();
    world.aws.before("UpdateItem", 0, |aws| async move {
        // A run of the stack rewraps the same row.
        let data_key = [7; 64];
        let wrapped = aws.wrap(KEY, &[], &data_key);
        aws.edit_item(SECRETS, "n", FIRST, |row| {
            row.insert("key".to_owned(), base64(&wrapped));
        });
    });
    let response = world.one::<Rewrap>("n", json!({})).await.unwrap();
    assert_eq!(counts(&response), [1, 0, 1, 0]);
    assert_eq!(data_key(&world.item(SECRETS, "n", FIRST).unwrap()), [7; 64]);
}
