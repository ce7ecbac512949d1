//! Reports of runs.

use std::collections::BTreeSet;

use serde_json::json;

use super::super::Rewrap;
use super::{LEDGER, ONE, World, counts, number, reasons};
use crate::operations::list::List;
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
    let (mut names, mut deleted) = (BTreeSet::new(), Vec::new());
    let mut request = json!({ "list": "report", "action": "rewrap", "limit": 25 });
    loop {
        let page = world.stack.done::<List>(request.clone()).await;
        assert_eq!((&page["run"], counts(&page)), (&ended["run"], counts(&ended)));
        let failures = page["failures"].as_array().unwrap();
        assert!(failures.len() <= 25);
        for failure in failures {
            let name = failure["name"].as_str().unwrap().to_owned();
            if failure["deleted"] == true {
                deleted.push(name.clone());
            }
            names.insert(name);
        }
        let Some(next) = page.get("next") else { break };
        request["next"] = next.clone();
    }
    assert_eq!((names.len(), deleted), (60, vec!["n00".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn the_report_of_a_run_that_is_not_kept_any_more_is_not_found() {
    let world = World::new();
    let report = |action| json!({ "list": "report", "action": action });
    world.begin::<Rewrap>(ONE, 1, json!({})).await;
    assert_eq!(world.stack.done::<List>(report("rewrap")).await["state"], "running");
    assert_eq!(world.stack.code::<List>(report("reseal")).await, "NotFound");
    world.aws.edit_item(LEDGER, "/rotation", "run#rewrap", |run| {
        run.insert("started_at".to_owned(), number(1_500_000_000));
    });
    assert_eq!(world.stack.code::<List>(report("rewrap")).await, "NotFound");
}

#[tokio::test(start_paused = true)]
async fn a_report_continues_only_where_another_ended() {
    let world = World::new();
    world.begin::<Rewrap>(ONE, 1, json!({})).await;
    let forged = Key { name: "rewrap".into(), version: "hint#0000".into() };
    let error = world.stack.coffer.report(Action::Rewrap, Some(forged), 1).await.unwrap_err();
    assert_eq!(error.code().name, "Invalid");
}
