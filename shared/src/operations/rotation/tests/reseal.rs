//! reseal: seals over rows that other clients wrote.

use serde_json::json;

use super::super::Reseal;
use super::{
    ALWAYS, FIRST, LEDGER, OTHER_KEY, SECOND, SECRETS, World, bytes, counts, map, number, reasons,
    text,
};
use crate::operations::LegacyItems;
use crate::operations::get::Get;
use crate::testing::{Fault, KEY};

/// The transactions of a run before that of the first page: its start and the marks of the page.
const RESEAL: usize = 2;

#[tokio::test(start_paused = true)]
async fn a_row_of_credstash_gets_a_seal_over_the_same_ciphertext() {
    let world = World::new();
    let mut legacy = world.credstash("n", FIRST, "value");
    legacy.insert("comment".to_owned(), text("why"));
    world.insert(legacy.clone());
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(counts(&report), [1, 1, 0, 0]);
    let sealed = world.item(SECRETS, "n", FIRST).unwrap();
    for same in ["key", "contents", "hmac", "digest", "comment"] {
        assert_eq!(sealed.get(same), legacy.get(same), "{same}");
    }
    assert!(sealed.contains_key("seal") && sealed.contains_key("revision"));
    assert_eq!(world.value("n").await, "value");
    assert_eq!(world.operations("n"), ["reseal"]);
    assert!(world.kept().is_empty());
    // A sealed row has nothing more to get.
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!((counts(&report), world.item(SECRETS, "n", FIRST)), ([1, 0, 1, 0], Some(sealed)));
}

#[tokio::test(start_paused = true)]
async fn a_row_with_a_removed_digest_is_sealed_under_a_new_data_key_and_kept_as_it_was() {
    let world = World::new();
    let legacy = world.md5("n", FIRST, "value");
    world.insert(legacy.clone());
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(counts(&report), [1, 1, 0, 0]);
    let sealed = world.item(SECRETS, "n", FIRST).unwrap();
    assert_ne!(sealed["key"], legacy["key"]);
    assert_ne!(sealed["contents"], legacy["contents"]);
    assert_eq!(sealed["digest"], text("SHA256"));
    assert_eq!(world.value("n").await, "value");
    let kept = world.kept().remove(0);
    assert!(kept.contains_key("before_reseal") && kept.contains_key("ttl"));
    let mut row = kept["row"]["M"].as_object().unwrap().clone();
    row.insert("name".to_owned(), text("n"));
    assert_eq!(row, legacy);
}

#[tokio::test(start_paused = true)]
async fn the_rows_of_other_clients_become_rows_that_every_client_reads() {
    let value = "a value that is long enough to show its counter";
    let world = World::new();
    world.insert(world.rucredstash("rucredstash", FIRST, value));
    world.insert(world.haskell("haskell", FIRST, value));
    for (name, dialect) in [("rucredstash", "rucredstash-le32"), ("haskell", "credentials-haskell")]
    {
        let response = world.stack.done::<Get>(json!({ "name": name })).await;
        assert_eq!((&response["dialect"], &response["secret"]), (&json!(dialect), &json!(value)));
    }
    assert_eq!(counts(&world.run::<Reseal>(json!({})).await), [2, 2, 0, 0]);
    for name in ["rucredstash", "haskell"] {
        assert_eq!(world.value(name).await, value);
        let row = world.item(SECRETS, name, FIRST).unwrap();
        for attribute in ["contents", "digest", "hmac", "key", "seal"] {
            assert!(row[attribute]["S"].is_string(), "{name} {attribute}");
        }
    }
    // Both have another counter than Coffer, so they were sealed under new data keys.
    assert_eq!(world.kept().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_reads_in_two_ways_is_sealed_only_with_a_hint() {
    let value = "seventeen letters";
    let world = World::new();
    let legacy = world.two_readings("n", FIRST, value);
    world.insert(legacy.clone());
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!((counts(&report), reasons(&report)), ([1, 0, 0, 1], json!({ "ambiguous": 1 })));
    assert_eq!(world.item(SECRETS, "n", FIRST).unwrap(), legacy);
    for (dialect, outcome) in [("credentials-haskell", [1, 0, 0, 1]), ("credstash", [1, 1, 0, 0])] {
        let dialects = json!([{ "name": "n", "dialect": dialect }]);
        let report = world.run::<Reseal>(json!({ "dialects": dialects })).await;
        assert_eq!(counts(&report), outcome, "{dialect}");
    }
    // The hint may be wrong: the row is kept as it was.
    assert!(world.kept()[0].contains_key("before_reseal"));
    assert_eq!(world.value("n").await, value);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_not_sealed_is_reported_with_the_reason() {
    let world = World::new();
    world.insert(world.credstash_under(KEY, &[("app", "x")], "context", FIRST, "value"));
    world.insert(world.credstash_under(OTHER_KEY, &[], "foreign", FIRST, "value"));
    let list = json!({ "L": [text("x")] });
    for (name, changed, value) in [
        ("integrity", "hmac", Some(text(&"0".repeat(64)))),
        ("malformed/contents", "contents", None),
        ("malformed/digest", "digest", Some(text("SHA3-256"))),
        ("stripped/context", "context", Some(map(&[]))),
        ("stripped/json", "json", Some(text("x"))),
        ("unsealable/list", "tags", Some(list)),
        ("unsealable/comment", "comment", Some(number(1))),
        ("unsealable/created", "created_at", Some(text("today"))),
        ("unsealable/revision", "revision", Some(text("abcdefg"))),
        ("unsealable/bytes", "revision", Some(bytes(b"\xff"))),
    ] {
        let mut row = world.credstash(name, FIRST, "value");
        row.remove(changed);
        row.extend(value.map(|value| (changed.to_owned(), value)));
        world.insert(row);
    }
    // No event can record it.
    world.insert(world.credstash("/token/x", FIRST, "value"));
    let before = world.versions();
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(counts(&report), [13, 0, 0, 13]);
    assert_eq!(world.versions(), before);
    for failure in report["failures"].as_array().unwrap() {
        let (name, reason) = (failure["name"].as_str().unwrap(), failure["reason"].as_str());
        let expected =
            if name == "/token/x" { "unsealable" } else { name.split('/').next().unwrap() };
        assert_eq!(reason, Some(expected), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stack_that_refuses_legacy_rows_seals_none() {
    let world = World::with(|options| options.legacy_items = LegacyItems::Refuse);
    world.insert(world.credstash("n", FIRST, "value"));
    let before = world.versions();
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!((counts(&report), reasons(&report)), ([1, 0, 0, 1], json!({ "unsealed": 1 })));
    assert_eq!(world.versions(), before);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_does_not_fit_with_a_seal_is_reported() {
    let world = World::new();
    let mut row = world.credstash("n", FIRST, "value");
    row.insert("comment".to_owned(), text(&"c".repeat(409_000)));
    world.insert(row);
    let before = world.versions();
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(reasons(&report), json!({ "too-large": 1 }));
    assert_eq!(world.versions(), before);
}

#[tokio::test(start_paused = true)]
async fn of_rows_that_dynamodb_rejects_together_each_is_tried_by_itself() {
    let world = World::new();
    world.insert(world.credstash("n", FIRST, "one"));
    world.insert(world.credstash("n", SECOND, "two"));
    world.fail_write_of(FIRST, ALWAYS, Fault::Canceled(&["ValidationError"]));
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!((counts(&report), reasons(&report)), ([2, 1, 0, 1], json!({ "too-large": 1 })));
    assert_eq!(report["failures"][0]["version"], 1);
    assert!(!world.item(SECRETS, "n", FIRST).unwrap().contains_key("seal"));
    assert!(world.item(SECRETS, "n", SECOND).unwrap().contains_key("seal"));
    assert_eq!(world.operations("n"), ["reseal"]);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_row_is_sealed_where_it_is_and_its_recovery_window_stays() {
    let world = World::new();
    world.insert(world.credstash("n", FIRST, "value"));
    world.delete("n").await;
    let before = world.kept().remove(0);
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(counts(&report), [1, 1, 0, 0]);
    let mut after = world.kept().remove(0);
    assert!(after["row"]["M"]["seal"].is_object());
    after.insert("row".to_owned(), before["row"].clone());
    assert_eq!(after, before);
    assert_eq!(world.operations("n"), ["delete", "reseal"]);
}

#[tokio::test(start_paused = true)]
async fn rows_of_one_name_are_sealed_in_transactions_of_eight() {
    let world = World::new();
    for version in 1..=10 {
        world.insert(world.credstash("n", &format!("{version:019}"), "value"));
    }
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(counts(&report), [10, 10, 0, 0]);
    let events = world.aws.entries("n", "event#");
    let sizes = events.iter().map(|event| event["versions"]["SS"].as_array().unwrap().len());
    assert_eq!(sizes.collect::<Vec<_>>(), [8, 2]);
    assert!(world.verifies("n").await);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_changes_meanwhile_is_read_again_and_the_others_are_not_held_up() {
    let world = World::new();
    world.insert(world.credstash("n", FIRST, "one"));
    world.insert(world.credstash("n", SECOND, "two"));
    world.edit_before(RESEAL, (SECRETS, "n", FIRST), |row| {
        row.insert("comment".to_owned(), text("theirs"));
    });
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(counts(&report), [2, 2, 0, 0]);
    assert_eq!(world.item(SECRETS, "n", FIRST).unwrap()["comment"], text("theirs"));
    assert_eq!(world.operations("n"), ["reseal", "reseal"]);
    assert_eq!(world.value("n").await, "two");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_another_writes_meanwhile_does_not_stop_a_reseal() {
    let world = World::new();
    world.insert(world.credstash("n", FIRST, "one"));
    let rival = World::new();
    rival.put("n", "theirs").await;
    for item in rival.aws.items(LEDGER, "n").into_iter().rev() {
        world.put_before(RESEAL, LEDGER, item);
    }
    let conflict = Fault::Canceled(&["TransactionConflict"]);
    world.fail_write_of("event#0000000000000000002", 2, conflict);
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(counts(&report), [1, 1, 0, 0]);
    assert_eq!(world.operations("n"), ["put", "reseal"]);
    assert!(world.verifies("n").await);
}

#[tokio::test(start_paused = true)]
async fn a_name_whose_history_cannot_be_read_is_reported() {
    let world = World::new();
    world.insert(world.credstash("n", FIRST, "one"));
    let event = json!({ "name": text("n"), "entry": text("event#0000000000000000001"),
                        "hash": text("no bytes") });
    world.aws.put_item(LEDGER, event.as_object().unwrap().clone());
    let before = world.versions();
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(reasons(&report), json!({ "unreadable": 1 }));
    assert_eq!(world.versions(), before);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_generates_no_data_key() {
    let world = World::new();
    world.insert(world.md5("n", FIRST, "value"));
    let before = world.versions();
    let report = world.run::<Reseal>(json!({ "dry_run": true })).await;
    assert_eq!(counts(&report), [1, 1, 0, 0]);
    assert_eq!(world.versions(), before);
    assert_eq!(world.aws.calls("GenerateDataKey"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_seal_of_a_row_says_the_context_of_its_hint() {
    let world = World::new();
    world.insert(world.credstash_under(KEY, &[("app", "x")], "n", FIRST, "value"));
    let contexts = json!([{ "name": "n", "context": { "app": "x" } }]);
    let report = world.run::<Reseal>(json!({ "contexts": contexts })).await;
    assert_eq!(counts(&report), [1, 1, 0, 0]);
    assert_eq!(world.item(SECRETS, "n", FIRST).unwrap()["context"], map(&[("app", "x")]));
}

#[tokio::test(start_paused = true)]
async fn a_context_that_kms_denies_does_not_hide_another_that_fits() {
    let contexts = json!([{ "context": { "app": "denied" } },
                          { "prefix": "n", "context": { "app": "x" } }]);
    for (context, outcome, reason) in [
        // The narrower context is tried first, and the empty one last.
        (&[("app", "x")][..], [1, 1, 0, 0], json!({})),
        (&[], [1, 1, 0, 0], json!({})),
        (&[("app", "unknown")], [1, 0, 0, 1], json!({ "context": 1 })),
    ] {
        let world = World::new();
        world.insert(world.credstash_under(KEY, context, "n", FIRST, "value"));
        let fault = Fault::Code("AccessDeniedException");
        world.aws.fail_if("Decrypt", ALWAYS, fault, |request| {
            request["EncryptionContext"]["app"] == "denied"
        });
        let report = world.run::<Reseal>(json!({ "contexts": contexts })).await;
        assert_eq!((counts(&report), reasons(&report)), (outcome, reason), "{context:?}");
    }
    let world = World::new();
    world.insert(world.credstash("n", FIRST, "value"));
    world.aws.fail("Decrypt", ALWAYS, Fault::Code("AccessDeniedException"));
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(reasons(&report), json!({ "denied": 1 }));
    let error = world.one::<Reseal>("n", json!({})).await.unwrap_err();
    assert!(error.is_denied_by_kms());
}

#[tokio::test(start_paused = true)]
async fn a_row_keeps_its_revision() {
    let world = World::new();
    let mut row = world.credstash("n", FIRST, "value");
    row.insert("revision".to_owned(), bytes(b"0123abc"));
    world.insert(row);
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(counts(&report), [1, 1, 0, 0]);
    assert_eq!(world.item(SECRETS, "n", FIRST).unwrap()["revision"], bytes(b"0123abc"));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_aws_refuses_ends_the_step_and_changes_nothing() {
    let world = World::new();
    world.insert(world.credstash("n", FIRST, "value"));
    world.insert(world.credstash("padded", "7", "value"));
    let before = world.versions();
    for (name, sort) in [("n", FIRST), ("padded", "7")] {
        world.fail_write_of(sort, 1, Fault::Code("AccessDeniedException"));
        let error = world.one::<Reseal>(name, json!({})).await.unwrap_err();
        assert!(error.detail().unwrap().to_string().contains("dynamodb:PutItem"), "{error:?}");
        assert_eq!(world.versions(), before);
        assert!(world.operations(name).is_empty());
    }
}
