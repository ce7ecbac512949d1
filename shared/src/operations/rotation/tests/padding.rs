//! The padding of version numbers by reseal.

use serde_json::json;

use super::super::Reseal;
use super::{
    ALWAYS, EIGHTH, OTHER_KEY, SECRETS, SEVENTH, World, base64, counts, map, reasons, text,
};
use crate::testing::Fault;

/// The transactions of a run before that of the first row: its start and the marks of the page.
const PAD: usize = 2;

#[tokio::test(start_paused = true)]
async fn an_unpadded_row_is_sealed_under_its_padded_number() {
    let world = World::new();
    world.insert(world.credstash("n", "7", "value"));
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(counts(&report), [1, 1, 0, 0]);
    assert_eq!(world.labels("n"), [SEVENTH]);
    assert_eq!(world.value("n").await, "value");
    assert_eq!(world.operations("n"), ["reseal"]);
    assert!(world.verifies("n").await);
    // Now a version can follow.
    world.put("n", "next").await;
    assert_eq!(world.labels("n"), [SEVENTH, EIGHTH]);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_gets_a_new_data_key_and_number_is_kept_under_the_padded_number() {
    let world = World::new();
    world.insert(world.md5("n", "7", "value"));
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!((counts(&report), world.labels("n")), ([1, 1, 0, 0], vec![SEVENTH.to_owned()]));
    let kept = world.kept().remove(0);
    let entry = kept["entry"]["S"].as_str().unwrap();
    assert!(entry.starts_with(&format!("deleted#{SEVENTH}#")), "{entry}");
    assert_eq!(kept["row"]["M"]["version"], text("7"));
}

#[tokio::test(start_paused = true)]
async fn all_versions_of_a_name_are_padded_and_the_current_one_stays_current() {
    let world = World::new();
    for version in ["7", "8", "9", "10"] {
        world.insert(world.credstash("n", version, version));
    }
    // As text, 9 is above 10.
    assert_eq!(world.value("n").await, "9");
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(counts(&report), [4, 4, 0, 0]);
    let padded = [7, 8, 10].map(|number| format!("{number:019}"));
    // Below 10, the current version would no longer be current.
    assert_eq!(world.labels("n"), [&padded[..], &["9".to_owned()]].concat());
    assert_eq!(world.value("n").await, "9");
}

#[tokio::test(start_paused = true)]
async fn a_sealed_row_moves_to_its_padded_number_with_the_same_ciphertext() {
    let world = World::new();
    let sealed = world.sealed("n", "7", "value");
    world.insert(sealed.clone());
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!((counts(&report), world.labels("n")), ([1, 1, 0, 0], vec![SEVENTH.to_owned()]));
    let moved = world.item(SECRETS, "n", SEVENTH).unwrap();
    assert_eq!((&moved["contents"], &moved["key"]), (&sealed["contents"], &sealed["key"]));
    assert_ne!(moved["seal"], sealed["seal"]);
    assert_eq!(world.value("n").await, "value");
}

#[tokio::test(start_paused = true)]
async fn a_row_whose_padding_would_make_another_current_is_sealed_in_place() {
    for (other, reason) in [(EIGHTH, "order"), (SEVENTH, "exists")] {
        let world = World::new();
        world.insert(world.credstash("n", "7", "current"));
        world.insert(world.credstash("n", other, "other"));
        let report = world.run::<Reseal>(json!({})).await;
        assert_eq!(counts(&report), [2, 2, 0, 0]);
        assert_eq!(world.labels("n"), [other, "7"]);
        assert_eq!(world.value("n").await, "current");
        // It stays so, and is reported.
        let before = world.versions();
        let report = world.run::<Reseal>(json!({})).await;
        assert_eq!(counts(&report), [2, 0, 1, 1]);
        assert_eq!(reasons(&report), json!({ reason: 1 }));
        assert_eq!(world.versions(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sealed_row_that_does_not_open_is_not_padded() {
    let world = World::new();
    for name in ["integrity/mac", "integrity/context", "malformed", "foreign"] {
        let mut row = world.sealed(name, "7", "value");
        match name {
            "integrity/mac" => drop(row.insert("comment".to_owned(), text("added"))),
            "integrity/context" => {
                row.insert("context".to_owned(), map(&[("app", "another")]));
            }
            "malformed" => drop(row.remove("context")),
            _ => {
                let wrapped = world.aws.wrap(OTHER_KEY, &[], &[7; 64]);
                row.insert("key".to_owned(), base64(&wrapped));
            }
        }
        world.insert(row);
    }
    let before = world.versions();
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(counts(&report), [4, 0, 0, 4]);
    assert_eq!(reasons(&report), json!({ "foreign": 1, "integrity": 2, "malformed": 1 }));
    assert_eq!(world.versions(), before);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_put_between_two_tries_is_not_overtaken() {
    for (other, reason) in [(EIGHTH, "order"), (SEVENTH, "exists")] {
        let world = World::new();
        world.insert(world.credstash("n", "7", "current"));
        world.put_before(PAD, SECRETS, world.credstash("n", other, "other"));
        world.fail_write_of(SEVENTH, 1, Fault::Canceled(&["TransactionConflict"]));
        let report = world.run::<Reseal>(json!({})).await;
        assert_eq!(reasons(&report)[reason], 1);
        assert_eq!(world.labels("n"), [other, "7"]);
        assert_eq!(world.value("n").await, "current");
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_takes_the_padded_number_meanwhile_is_not_overwritten() {
    let world = World::new();
    world.insert(world.credstash("n", "7", "current"));
    let theirs = world.credstash("n", SEVENTH, "other");
    world.put_before(PAD, SECRETS, theirs.clone());
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(reasons(&report)["exists"], 1);
    assert!(world.item(SECRETS, "n", "7").is_some());
    let kept = world.item(SECRETS, "n", SEVENTH).unwrap();
    assert_eq!((&kept["contents"], &kept["key"]), (&theirs["contents"], &theirs["key"]));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_changes_while_it_is_padded_is_read_again() {
    let world = World::new();
    world.insert(world.credstash("n", "7", "value"));
    world.insert(world.credstash("n", "8", "higher"));
    world.edit_before(PAD, (SECRETS, "n", "7"), |row| {
        row.insert("comment".to_owned(), text("theirs"));
    });
    let report = world.run::<Reseal>(json!({})).await;
    // The higher one waits for it.
    assert_eq!(counts(&report), [2, 2, 0, 0]);
    assert_eq!(world.labels("n"), [SEVENTH, EIGHTH]);
    assert_eq!(world.item(SECRETS, "n", SEVENTH).unwrap()["comment"], text("theirs"));
    assert_eq!(world.value("n").await, "higher");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_too_large_for_its_new_place_stays_where_it_is() {
    let world = World::new();
    world.insert(world.credstash("n", "7", "value"));
    world.fail_write_of(SEVENTH, ALWAYS, Fault::Canceled(&["None", "ValidationError"]));
    let before = world.versions();
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!((counts(&report), reasons(&report)), ([1, 0, 0, 1], json!({ "too-large": 1 })));
    assert_eq!(world.versions(), before);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_version_is_sealed_under_the_number_that_it_had() {
    let world = World::new();
    world.insert(world.credstash("n", "7", "value"));
    world.delete("n").await;
    let report = world.run::<Reseal>(json!({})).await;
    assert_eq!(counts(&report), [1, 1, 0, 0]);
    let row = &world.kept()[0]["row"]["M"];
    assert_eq!(row["version"], text("7"));
    assert!(row["seal"].is_object());
}
