//! The second stage of a run: versions that moved past the first.

use serde_json::json;

use super::super::Reseal;
use super::{FIRST, LEDGER, ONE, SECRETS, World, counts, number, reasons, text};
use crate::operations::restore::Restore;
use crate::testing::{Aws, Fault};

/// A run of reseal whose first stage is done, before these names were put, deleted and restored.
async fn missed(names: &[&str]) -> World {
    let world = World::new();
    world.begin::<Reseal>(ONE, 1, json!({})).await;
    assert!(world.part::<Reseal>(ONE, "all", 600).await.unwrap());
    for name in names {
        world.insert(world.credstash(name, FIRST, "value"));
        move_around(&world, name).await;
    }
    world
}

/// Deletes and restores a name.
async fn move_around(world: &World, name: &str) {
    world.delete(name).await;
    world.stack.done::<Restore>(json!({ "name": name })).await;
}

/// Does the second stage, and returns the report.
async fn finish(world: &World) -> serde_json::Value {
    assert!(world.part::<Reseal>(ONE, "moved", 600).await.unwrap());
    world.end::<Reseal>(ONE).await
}

/// Appends a restore to the history of `n`, as another request does.
async fn append_move(aws: Aws) {
    let mut event = aws.entries("n", "event#").pop().unwrap();
    let last: u64 = event["entry"]["S"].as_str().unwrap()["event#".len()..].parse().unwrap();
    event.insert("entry".to_owned(), text(&format!("event#{:019}", last + 1)));
    event.insert("operation".to_owned(), text("restore"));
    aws.put_item(LEDGER, event);
}

fn is_sealed(world: &World, name: &str) -> bool {
    world.item(SECRETS, name, FIRST).unwrap().contains_key("seal")
}

#[tokio::test(start_paused = true)]
async fn a_version_that_moved_past_the_first_stage_is_changed_in_the_second() {
    let world = missed(&["a", "b"]).await;
    // It stays in the ledger.
    world.insert(world.credstash("c", FIRST, "value"));
    world.delete("c").await;
    assert_eq!(counts(&finish(&world).await), [3, 3, 0, 0]);
    assert!(is_sealed(&world, "a") && is_sealed(&world, "b"));
    assert!(world.kept()[0]["row"]["M"]["seal"].is_object());
    assert_eq!(world.operations("a"), ["delete", "restore", "reseal"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_did_not_move_since_the_run_began_is_left_to_the_next_run() {
    let world = missed(&["moved"]).await;
    for event in ["event#0000000000000000001", "event#0000000000000000002"] {
        world.aws.edit_item(LEDGER, "moved", event, |event| {
            event.insert("at".to_owned(), text("2020-01-01T00:00:00Z"));
        });
    }
    world.insert(world.credstash("still", FIRST, "value"));
    world.put("put", "value").await;
    assert_eq!(counts(&finish(&world).await), [0, 0, 0, 0]);
    assert!(!is_sealed(&world, "moved") && !is_sealed(&world, "still"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_counted_once_wherever_it_is_found() {
    let world = World::new();
    let broken = |name: &str| {
        let mut row = world.credstash(name, FIRST, "value");
        row.insert("hmac".to_owned(), text(&"0".repeat(64)));
        row
    };
    world.insert(broken("first"));
    world.begin::<Reseal>(ONE, 1, json!({})).await;
    assert!(world.part::<Reseal>(ONE, "all", 600).await.unwrap());
    move_around(&world, "first").await;
    world.insert(broken("second"));
    move_around(&world, "second").await;
    let report = finish(&world).await;
    assert_eq!((counts(&report), reasons(&report)), ([2, 0, 0, 2], json!({ "integrity": 2 })));
    assert_eq!(report["failures"].as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_step_without_time_does_one_name_and_the_next_one_continues() {
    let world = missed(&["a", "b", "c"]).await;
    for sealed in 1..=3 {
        assert!(!world.part::<Reseal>(ONE, "moved", 0).await.unwrap());
        let names = ["a", "b", "c"].into_iter().filter(|name| is_sealed(&world, name));
        assert_eq!(names.count(), sealed);
    }
    assert_eq!(counts(&finish(&world).await), [3, 3, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_second_stage_counts_each_change_once() {
    // The marks, the reseal, and the progress.
    for interrupted in 0..3 {
        let world = missed(&["n"]).await;
        world.fail_after(interrupted, Fault::Code("AccessDeniedException"));
        let error = world.part::<Reseal>(ONE, "moved", 600).await.unwrap_err();
        assert_eq!(error.code().name, "Unavailable");
        assert_eq!(is_sealed(&world, "n"), interrupted == 2);
        assert_eq!(counts(&finish(&world).await), [1, 1, 0, 0], "{interrupted}");
        assert_eq!(world.operations("n"), ["delete", "restore", "reseal"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_moves_all_the_time_is_reported() {
    let world = missed(&["n"]).await;
    for _ in 0..100 {
        world.aws.before("Query", 0, append_move);
    }
    let report = finish(&world).await;
    assert_eq!((counts(&report), reasons(&report)), ([2, 1, 0, 1], json!({ "moving": 1 })));
    assert!(report["failures"][0].get("version").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_moves_when_the_time_is_over_is_reported_after_one_pass() {
    let world = missed(&["n"]).await;
    // Right before it is checked whether something moved.
    world.aws.before("TransactWriteItems", 1, |aws| async move {
        aws.before("Query", 0, append_move);
    });
    assert!(!world.part::<Reseal>(ONE, "moved", 0).await.unwrap());
    let report = finish(&world).await;
    assert_eq!((counts(&report), reasons(&report)), ([2, 1, 0, 1], json!({ "moving": 1 })));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_moves_once_more_is_done_once_more() {
    let world = missed(&["n"]).await;
    world.aws.before("TransactWriteItems", 1, |aws| async move {
        aws.before("Query", 0, append_move);
    });
    let report = finish(&world).await;
    assert_eq!((counts(&report), reasons(&report)), ([1, 1, 0, 0], json!({})));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_a_move_has_ended_is_not_reported() {
    let world = missed(&["n"]).await;
    let row = world.item(SECRETS, "n", FIRST).unwrap();
    world.aws.edit_item(SECRETS, "n", FIRST, |row| {
        row.insert("hmac".to_owned(), text(&"0".repeat(64)));
    });
    // The broken row is read, and replaced before its MAC is checked.
    world.aws.before("Decrypt", 0, |aws| async move {
        aws.put_item(SECRETS, row);
        append_move(aws).await;
    });
    assert_eq!(counts(&finish(&world).await), [1, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_name_with_more_versions_and_events_than_a_page_is_done_as_a_whole() {
    let world = missed(&["n"]).await;
    for version in 2..=50 {
        world.insert(world.credstash("n", &format!("{version:019}"), "value"));
    }
    for _ in 0..3 {
        world.put("put", "value").await;
    }
    world.aws.set_page(2);
    assert_eq!(counts(&finish(&world).await), [50, 50, 0, 0]);
    world.aws.set_page(usize::MAX);
    let unsealed = world.versions().into_values().filter(|row| !row.contains_key("seal"));
    assert_eq!(unsealed.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_name_with_more_failures_than_a_transaction_holds_is_reported_as_a_whole() {
    let world = missed(&["n"]).await;
    for version in 2..=121 {
        let mut row = world.credstash("n", &format!("{version:019}"), "value");
        row.insert("hmac".to_owned(), text(&"0".repeat(64)));
        world.insert(row);
    }
    let report = finish(&world).await;
    let expected = ([121, 1, 0, 120], json!({ "integrity": 120 }));
    assert_eq!((counts(&report), reasons(&report)), expected);
}

#[tokio::test(start_paused = true)]
async fn a_name_whose_history_cannot_be_read_is_reported_as_a_whole() {
    let world = missed(&["n"]).await;
    world.aws.remove_item(LEDGER, "n", "head");
    world.aws.edit_item(LEDGER, "n", "event#0000000000000000002", |event| {
        event.insert("hash".to_owned(), text("no bytes"));
    });
    let report = finish(&world).await;
    assert_eq!(counts(&report), [1, 0, 0, 1]);
    assert_eq!(report["failures"], json!([{ "name": "n", "reason": "unreadable" }]));
    assert!(!is_sealed(&world, "n"));
}

#[tokio::test(start_paused = true)]
async fn the_progress_of_another_execution_ends_the_second_stage() {
    // Before the marks are written, and before the progress is.
    for written in [0, 2] {
        let world = missed(&["n"]).await;
        let run = world.item(LEDGER, "/rotation", "run#reseal").unwrap();
        let name = format!("/rotation/{}", run["run"]["S"].as_str().unwrap());
        let theirs = json!({
            "name": text(&name), "entry": text("part#moved#000"), "page": number(7),
            "seen": number(5), "changed": number(5), "done": { "BOOL": true },
        });
        world.put_before(written, LEDGER, theirs.as_object().unwrap().clone());
        assert_eq!(counts(&finish(&world).await), [5, 5, 0, 0]);
        assert_eq!(is_sealed(&world, "n"), written == 2);
    }
}
