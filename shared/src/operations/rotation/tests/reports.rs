//! Reports of runs.

use std::collections::BTreeSet;

use serde_json::json;

use super::super::Rewrap;
use super::{LEDGER, ONE, World, counts, number, reasons};
use crate::operations::rotation::action::Action;
use crate::store::item::Key;

#[tokio::test(start_paused = true)]
async fn a_report_has_every_failure_in_pages() {
    let world = World::new();
    world.begin::<Rewrap>(ONE, 1, json!({})).await;
    for number in 0..60 {
        let mut row = world.credstash(&format!("n{number:02}"), "1", "value");
        row.remove("key");
        world.insert(row);
    }
    world.delete("n00").await;
    for stage in ["all", "moved"] {
        assert!(world.part::<Rewrap>(ONE, stage, 600).await.unwrap());
    }
    let ended = world.end::<Rewrap>(ONE).await;
    assert_eq!((counts(&ended), reasons(&ended)), ([60, 0, 0, 60], json!({ "malformed": 60 })));
    // The output of an execution is limited.
    assert_eq!(ended["failures"].as_array().unwrap().len(), 50);
    let (mut names, mut next, mut deleted) = (BTreeSet::new(), None, Vec::new());
    loop {
        let page = world.stack.coffer.report(Action::Rewrap, next, 25).await.unwrap();
        assert!(page.failures.len() <= 25);
        for failure in page.failures {
            if failure.deleted == Some(true) {
                deleted.push(failure.name.clone());
            }
            names.insert(failure.name);
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!((names.len(), deleted), (60, vec!["n00".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn the_report_of_a_run_that_is_not_kept_any_more_is_not_found() {
    let world = World::new();
    world.begin::<Rewrap>(ONE, 1, json!({})).await;
    assert_eq!(
        world.stack.coffer.report(Action::Rewrap, None, 1).await.unwrap().state,
        Some("running")
    );
    let forged = Key { name: "rewrap".into(), version: "hint#0000".into() };
    let error = world.stack.coffer.report(Action::Rewrap, Some(forged), 1).await.unwrap_err();
    assert_eq!(error.code().name, "Invalid");
    let error = world.stack.coffer.report(Action::Reseal, None, 1).await.unwrap_err();
    assert_eq!(error.code().name, "NotFound");
    world.aws.edit_item(LEDGER, "/rotation", "run#rewrap", |run| {
        run.insert("started_at".to_owned(), number(1_500_000_000));
    });
    let error = world.stack.coffer.report(Action::Rewrap, None, 1).await.unwrap_err();
    assert_eq!(error.code().name, "NotFound");
}
