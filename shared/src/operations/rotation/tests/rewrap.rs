//! rewrap: data keys under the newest key material.

use serde_json::json;

use super::super::{Reseal, Rewrap};
use super::{
    ALWAYS, FIRST, ONE, OTHER_KEY, RETIRED_KEY, SECRETS, World, bytes, counts, map, reasons, text,
};
use crate::testing::{Fault, KEY};

#[tokio::test(start_paused = true)]
async fn every_data_key_gets_the_newest_key_material_and_nothing_else_changes() {
    let world = World::new();
    world.put("dev/db", "one").await;
    world.put("dev/db", "two").await;
    world.put("gone", "three").await;
    world.delete("gone").await;
    world.insert(world.credstash("old", "1", "four"));
    let before = world.versions();
    world.rotate_key();

    let report = world.run::<Rewrap>(json!({})).await;
    assert_eq!((&report["state"], counts(&report)), (&json!("done"), [4, 4, 0, 0]));
    let after = world.versions();
    assert_eq!(after.len(), before.len());
    for (key, mut row) in before {
        let mut now = after[&key].clone();
        assert!(world.is_newest(&now), "{key:?}");
        assert_ne!(now.remove("key"), row.remove("key"));
        assert_eq!(now, row, "{key:?}");
    }
    assert_eq!(world.value("dev/db").await, "two");
    assert_eq!(world.value("old").await, "four");
    // It is not an event of a secret.
    assert_eq!(world.operations("dev/db"), ["put", "put"]);

    let report = world.run::<Rewrap>(json!({})).await;
    assert_eq!(counts(&report), [4, 0, 4, 0]);
    assert_eq!(world.versions(), after);
}

#[tokio::test(start_paused = true)]
async fn the_data_keys_of_a_retired_key_move_to_the_stacks_key() {
    let world = World::with_retired_key();
    world.insert(world.credstash_under(RETIRED_KEY, &[], "retired", "1", "value"));
    world.put("own", "value").await;
    let report = world.run::<Rewrap>(json!({})).await;
    assert_eq!(counts(&report), [2, 1, 1, 0]);
    for row in world.versions().values() {
        assert!(world.is_newest(row));
    }
    assert_eq!(world.value("retired").await, "value");
}

#[tokio::test(start_paused = true)]
async fn the_data_keys_of_a_retired_key_that_is_disabled_are_reported() {
    let world = World::with_retired_key();
    world.insert(world.credstash_under(RETIRED_KEY, &[], "retired", "1", "value"));
    world.put("own", "value").await;
    world.aws.disable_key(RETIRED_KEY, true);
    let before = world.versions();
    let report = world.run::<Rewrap>(json!({})).await;
    assert_eq!((counts(&report), reasons(&report)), ([2, 0, 1, 1], json!({ "foreign": 1 })));
    assert_eq!(world.versions(), before);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_rewrapped_is_reported_with_the_reason() {
    let world = World::new();
    // A context that nobody gave as a hint.
    world.insert(world.credstash_under(KEY, &[("app", "x")], "context", "1", "value"));
    world.insert(world.credstash_under(OTHER_KEY, &[], "foreign", "1", "value"));
    for malformed in ["malformed/base64", "malformed/none"] {
        let mut row = world.credstash(malformed, "1", "value");
        row.remove("key");
        if malformed.ends_with("64") {
            row.insert("key".to_owned(), text("not base64!"));
        }
        world.insert(row);
    }
    for sealed in ["integrity", "malformed/sealed"] {
        world.put(sealed, "value").await;
        world.aws.edit_item(SECRETS, sealed, FIRST, |row| {
            row.remove("context");
            if sealed == "integrity" {
                row.insert("context".to_owned(), map(&[("app", "another")]));
            }
        });
    }
    world.rotate_key();
    let before = world.versions();
    let report = world.run::<Rewrap>(json!({})).await;
    assert_eq!(counts(&report), [6, 0, 0, 6]);
    assert_eq!(world.versions(), before);
    for failure in report["failures"].as_array().unwrap() {
        let (name, reason) = (failure["name"].as_str().unwrap(), &failure["reason"]);
        assert_eq!(name.split('/').next(), reason.as_str());
        assert_eq!(failure["version"], 1);
        assert!(failure.get("deleted").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_legacy_row_is_rewrapped_under_the_narrowest_context_that_fits() {
    let world = World::new();
    for (name, context) in [("app/db", "db"), ("app/api", "app"), ("other", "all")] {
        world.insert(world.credstash_under(KEY, &[("app", context)], name, "1", "value"));
    }
    world.insert(world.credstash("plain", "1", "value"));
    world.rotate_key();
    let contexts = json!([
        { "context": { "app": "all" } },
        { "prefix": "app", "context": { "app": "app" } },
        { "name": "app/db", "context": { "app": "db" } },
    ]);
    let report = world.run::<Rewrap>(json!({ "contexts": contexts })).await;
    assert_eq!(counts(&report), [4, 4, 0, 0]);
    assert!(world.versions().values().all(|row| world.is_newest(row)));
}

#[tokio::test(start_paused = true)]
async fn a_wrapped_key_keeps_its_type() {
    let world = World::new();
    let wrapped = world.aws.wrap(KEY, &[], &[7; 64]);
    let mut row = world.credstash("haskell", "1", "value");
    row.insert("key".to_owned(), bytes(&wrapped));
    world.insert(row);
    world.put("ours", "value").await;
    world.rotate_key();
    let report = world.run::<Rewrap>(json!({})).await;
    assert_eq!(counts(&report), [2, 2, 0, 0]);
    let haskell = world.item(SECRETS, "haskell", "1").unwrap();
    assert!(haskell["key"]["B"].is_string() && haskell["key"] != bytes(&wrapped));
    assert!(world.item(SECRETS, "ours", FIRST).unwrap()["key"]["S"].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_counts_and_writes_nothing() {
    let world = World::new();
    world.put("n", "value").await;
    world.rotate_key();
    let before = world.versions();
    let report = world.run::<Rewrap>(json!({ "dry_run": true })).await;
    assert_eq!((&report["dry_run"], counts(&report)), (&json!(true), [1, 1, 0, 0]));
    assert_eq!(world.versions(), before);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_kms_denies_does_not_stop_the_others() {
    let world = World::new();
    world.put("denied", "value").await;
    world.put("fine", "value").await;
    world.rotate_key();
    let denied = world.item(SECRETS, "denied", FIRST).unwrap();
    let wrapped = denied["key"]["S"].clone();
    let fault = Fault::Code("AccessDeniedException");
    world
        .aws
        .fail_if("ReEncrypt", ALWAYS, fault, move |request| request["CiphertextBlob"] == wrapped);
    let report = world.run::<Rewrap>(json!({})).await;
    assert_eq!((counts(&report), reasons(&report)), ([2, 1, 0, 1], json!({ "denied": 1 })));
    assert_eq!(world.item(SECRETS, "denied", FIRST).unwrap(), denied);
    // For one name, the operator has to know.
    let error = world.one::<Rewrap>("denied", json!({})).await.unwrap_err();
    assert_eq!(error.code().name, "Unavailable");
    assert!(error.detail().unwrap().to_string().contains("kms:ReEncryptFrom"));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_would_be_too_large_is_reported() {
    let world = World::new();
    world.put("large", "value").await;
    world.put("small", "value").await;
    world.aws.edit_item(SECRETS, "large", FIRST, |row| {
        row.insert("comment".to_owned(), text(&"c".repeat(409_600)));
    });
    world.rotate_key();
    let before = world.item(SECRETS, "large", FIRST);
    let report = world.run::<Rewrap>(json!({})).await;
    assert_eq!((counts(&report), reasons(&report)), ([2, 1, 0, 1], json!({ "too-large": 1 })));
    assert_eq!(world.item(SECRETS, "large", FIRST), before);
}

#[tokio::test(start_paused = true)]
async fn the_form_of_a_version_before_a_reseal_is_rewrapped_with_it() {
    let world = World::new();
    world.insert(world.md5("n", FIRST, "value"));
    world.one::<Reseal>("n", json!({})).await.unwrap();
    world.rotate_key();
    let report = world.run::<Rewrap>(json!({})).await;
    assert_eq!(counts(&report), [2, 2, 0, 0]);
    let kept = world.kept();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].contains_key("before_reseal"));
    assert!(world.versions().values().all(|row| world.is_newest(row)));
}

#[tokio::test(start_paused = true)]
async fn a_page_has_room_for_every_context_of_its_rows() {
    let world = World::new();
    let hints: Vec<_> = (0..4).map(|n| json!({ "context": { "app": n.to_string() } })).collect();
    for number in 0..20 {
        let context = (number % 4).to_string();
        let (context, name) = ([("app", context.as_str())], format!("n{number:02}"));
        world.insert(world.credstash_under(KEY, &context, &name, "1", "value"));
    }
    world.rotate_key();
    // The hints are read in pages, too.
    world.aws.set_page(3);
    world.begin::<Rewrap>(ONE, 1, json!({ "contexts": hints })).await;
    world.aws.set_page(usize::MAX);
    // 40 requests are for 8 rows with four contexts and the empty one.
    for rewrapped in [8, 16, 20] {
        let before = world.aws.calls("ReEncrypt");
        assert!(!world.part::<Rewrap>(ONE, "all", 0).await.unwrap());
        assert!(world.aws.calls("ReEncrypt") - before <= 40);
        let newest = world.versions().values().filter(|row| world.is_newest(row)).count();
        assert_eq!(newest, rewrapped);
    }
    for stage in ["all", "moved"] {
        assert!(world.part::<Rewrap>(ONE, stage, 600).await.unwrap());
    }
    assert_eq!(counts(&world.end::<Rewrap>(ONE).await), [20, 20, 0, 0]);
}
