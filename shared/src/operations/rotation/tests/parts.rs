//! Parts of runs: pages, interruptions, and what others do meanwhile.

use serde_json::json;
use tokio::time::Instant;

use super::super::Rewrap;
use super::{FIRST, LEDGER, ONE, SECRETS, World, counts, number, reasons, text};
use crate::error::Error;
use crate::testing::{Fault, Item};

/// A world with this many secrets whose data keys have old key material, and a run in force.
async fn world(secrets: usize) -> World {
    let world = World::new();
    for number in 0..secrets {
        world.insert(world.sealed(&format!("n{number:03}"), FIRST, "value"));
    }
    world.rotate_key();
    world.begin::<Rewrap>(ONE, 1, json!({})).await;
    world
}

async fn part(world: &World, seconds: u32) -> Result<bool, Error> {
    world.part::<Rewrap>(ONE, "all", seconds).await
}

/// Does the rest of the part, and returns the counts of the run.
async fn finish(world: &World) -> [u64; 4] {
    assert!(part(world, 600).await.unwrap());
    counts(&world.end::<Rewrap>(ONE).await)
}

/// Returns the progress of the part.
fn progress(world: &World) -> Item {
    let run = world.item(LEDGER, "/rotation", "run#rewrap").unwrap();
    let name = format!("/rotation/{}", run["run"]["S"].as_str().unwrap());
    world.item(LEDGER, &name, "part#all#000").unwrap()
}

/// How many data keys have the newest key material.
fn rewrapped(world: &World) -> usize {
    world.versions().values().filter(|row| world.is_newest(row)).count()
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_page_continues_and_counts_each_change_once() {
    let world = world(40).await;
    world.fail_update_of("n020", 1, Fault::Code("InternalServerError"));
    let error = part(&world, 600).await.unwrap_err();
    assert_eq!(error.code().name, "Unavailable");
    let done = rewrapped(&world);
    assert!((1..40).contains(&done), "{done}");
    assert_eq!(progress(&world)["marks"]["SS"].as_array().unwrap().len(), 40);
    assert_eq!(finish(&world).await, [40, 40, 0, 0]);
    assert_eq!(rewrapped(&world), 40);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_response_is_lost_counts_as_a_change() {
    let world = world(3).await;
    world.fail_update_of("n001", 1, Fault::LostResponse);
    assert_eq!(finish(&world).await, [3, 3, 0, 0]);
    assert_eq!(world.aws.calls("ReEncrypt"), 4, "the lost one is checked");
}

#[tokio::test(start_paused = true)]
async fn the_progress_of_another_execution_is_not_overwritten() {
    let world = world(3).await;
    let before = world.versions();
    let run = world.item(LEDGER, "/rotation", "run#rewrap").unwrap();
    let name = format!("/rotation/{}", run["run"]["S"].as_str().unwrap());
    let theirs = json!({
        "name": text(&name), "entry": text("part#all#000"), "page": number(1), "seen": number(7),
        "skipped": number(7), "done": { "BOOL": true },
    });
    world.put_before(0, LEDGER, theirs.as_object().unwrap().clone());
    assert_eq!(finish(&world).await, [7, 0, 7, 0]);
    assert_eq!(world.versions(), before);
}

#[tokio::test(start_paused = true)]
async fn a_step_without_time_does_one_page_and_the_next_one_continues() {
    let world = world(100).await;
    // Four fifths of 25 requests a second, for two seconds.
    for page in [40, 80, 100] {
        assert!(!part(&world, 0).await.unwrap());
        assert_eq!((world.aws.calls("ReEncrypt"), rewrapped(&world)), (page, page));
        // What is counted needs no mark any more.
        assert!(!progress(&world).contains_key("marks"));
    }
    assert_eq!(finish(&world).await, [100, 100, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_a_run_do_every_version_once() {
    let world = World::with(|options| options.kms_requests_per_second = 100);
    for number in 0..20 {
        world.put(&format!("n{number}"), "value").await;
    }
    for number in 0..10 {
        world.delete(&format!("n{number}")).await;
    }
    world.rotate_key();
    let report = world.run::<Rewrap>(json!({})).await;
    assert_eq!((counts(&report), rewrapped(&world)), ([20, 20, 0, 0], 20));
    // The deletes right before the run may be later than their events state: the second stage
    // checks those versions again, and counts none twice.
    assert_eq!(world.aws.calls("ReEncrypt"), 30);
}

#[tokio::test(start_paused = true)]
async fn a_part_slows_down_while_kms_throttles() {
    let world = world(3).await;
    let began = Instant::now();
    world.aws.fail("ReEncrypt", 6, Fault::Code("ThrottlingException"));
    assert_eq!(finish(&world).await, [3, 3, 0, 0]);
    assert_eq!(world.aws.calls("ReEncrypt"), 9, "without the client's own retries");
    assert!(began.elapsed().as_secs() >= 1, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_part_ends_while_kms_stays_throttled() {
    let world = world(3).await;
    let began = Instant::now();
    world.aws.fail("ReEncrypt", usize::MAX, Fault::Code("ThrottlingException"));
    let error = part(&world, 60).await.unwrap_err();
    assert!(error.is_busy());
    assert!((30..90).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    world.aws.recover();
    assert_eq!(finish(&world).await, [3, 3, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_others_change_at_every_try_is_reported() {
    let world = world(2).await;
    for _ in 0..100 {
        world.aws.before("UpdateItem", 0, |aws| async move {
            aws.edit_item(SECRETS, "n001", FIRST, |row| {
                let changed = format!("{}0", row["hmac"]["S"].as_str().unwrap());
                row.insert("hmac".to_owned(), text(&changed));
            });
        });
    }
    assert!(part(&world, 600).await.unwrap());
    let report = world.end::<Rewrap>(ONE).await;
    assert_eq!((counts(&report), reasons(&report)), ([2, 1, 0, 1], json!({ "moving": 1 })));
    let error = world.one::<Rewrap>("n001", json!({})).await.unwrap_err();
    assert!(error.to_string().contains("Others keep changing"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_deleted_for_good_meanwhile_is_skipped() {
    let world = world(1).await;
    world.aws.before("UpdateItem", 0, |aws| async move {
        aws.remove_item(SECRETS, "n000", FIRST);
    });
    assert_eq!(finish(&world).await, [1, 0, 1, 0]);
    assert!(world.versions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_page_passes_over_many_entries_that_hold_no_version() {
    let world = world(1).await;
    world.delete("n000").await;
    for number in 0..300 {
        let event = json!({ "name": text("a"), "entry": text(&format!("event#{number:019}")) });
        world.aws.put_item(LEDGER, event.as_object().unwrap().clone());
    }
    // The table, then the ledger: 40 entries, and twice as many with each read.
    assert!(!part(&world, 0).await.unwrap());
    assert!(part(&world, 0).await.unwrap());
    assert_eq!((finish(&world).await, rewrapped(&world)), ([1, 1, 0, 0], 1));
}
