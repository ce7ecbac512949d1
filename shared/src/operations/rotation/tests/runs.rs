//! The beginning and the end of runs.

use serde_json::{Value, json};

use super::super::{Renew, Reseal, Rewrap};
use super::{LEDGER, ONE, RotationRequest, THREE, TWO, World, counts, number, text};
use crate::error::Error;
use crate::testing::{Fault, Item};

async fn begin(world: &World, execution: &str, second: u32, input: Value) -> Value {
    world.begin::<Rewrap>(execution, second, input).await
}

async fn part(world: &World, execution: &str) -> bool {
    world.part::<Rewrap>(execution, "all", 600).await.unwrap()
}

async fn end(world: &World, execution: &str) -> Value {
    world.end::<Rewrap>(execution).await
}

fn run_in_force(world: &World) -> Item {
    world.item(LEDGER, "/rotation", "run#rewrap").unwrap()
}

/// The execution that owns the run in force.
fn owner(world: &World) -> String {
    run_in_force(world)["execution"]["S"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_run_has_a_part_for_each_25_kms_requests_a_second_and_at_most_eight() {
    for (rate, parts) in [(1, 1), (25, 1), (49, 1), (50, 2), (100, 4), (400, 8)] {
        let world = World::with(|options| options.kms_requests_per_second = rate);
        let numbers = json!((0..parts).collect::<Vec<u32>>());
        let started = world.begin::<Reseal>(ONE, 1, json!({})).await;
        assert_eq!((&started["all"], &started["moved"]), (&numbers, &numbers), "{rate}");
        // A dry run changes nothing that could have to be checked again.
        let started = world.begin::<Rewrap>(ONE, 1, json!({ "dry_run": true })).await;
        assert_eq!((&started["all"], &started["moved"]), (&numbers, &json!([])), "{rate}");
        // Policies are in one place, and do not move.
        let started = world.begin::<Renew>(ONE, 1, json!({})).await;
        assert_eq!((&started["all"], &started["moved"]), (&json!([0]), &json!([])), "{rate}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_of_the_same_execution_again_returns_its_run() {
    let world = World::new();
    let first = begin(&world, ONE, 1, json!({})).await;
    assert_eq!((&first["known"], &first["resumed"]), (&json!(false), &json!(false)));
    let again = begin(&world, ONE, 1, json!({})).await;
    assert_eq!(again["run"], first["run"]);
    assert_eq!((&again["known"], &again["resumed"]), (&json!(false), &json!(true)));
    end(&world, ONE).await;
    let ended = begin(&world, ONE, 1, json!({})).await;
    assert_eq!((&ended["run"], &ended["known"]), (&first["run"], &json!(true)));
}

#[tokio::test(start_paused = true)]
async fn a_start_with_a_known_token_has_nothing_to_do() {
    let world = World::new();
    let first = begin(&world, ONE, 1, json!({ "token": "monday" })).await;
    let second = begin(&world, TWO, 2, json!({ "token": "monday" })).await;
    assert_eq!((&second["run"], &second["known"]), (&first["run"], &json!(true)));
    assert_eq!(owner(&world), ONE);
    // The schedule's next token continues the run, and is known from then on.
    let third = begin(&world, THREE, 3, json!({ "token": "tuesday" })).await;
    assert_eq!((&third["run"], &third["known"]), (&first["run"], &json!(false)));
    let fourth = begin(&world, TWO, 4, json!({ "token": "tuesday" })).await;
    assert_eq!((&fourth["run"], &fourth["known"]), (&first["run"], &json!(true)));
    assert_eq!(owner(&world), THREE);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_older_than_the_newest_one_has_nothing_to_do() {
    let world = World::new();
    let newer = begin(&world, ONE, 5, json!({})).await;
    for input in [json!({}), json!({ "dry_run": true })] {
        let older = begin(&world, TWO, 3, input).await;
        assert_eq!(older["run"], newer["run"]);
        assert_eq!((&older["all"], &older["moved"]), (&json!([]), &json!([])));
        assert_eq!(owner(&world), ONE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_with_the_same_request_takes_the_run_over() {
    let world = World::new();
    world.put("n", "value").await;
    world.rotate_key();
    let first = begin(&world, ONE, 1, json!({})).await;
    let second = begin(&world, TWO, 2, json!({})).await;
    assert_eq!((&second["run"], &second["resumed"]), (&first["run"], &json!(true)));
    // A start between the two comes too late.
    let third = world.begin::<Rewrap>(THREE, 1, json!({})).await;
    assert_eq!((&third["all"], owner(&world)), (&json!([]), TWO.to_owned()));
    // The first execution stops at its next step, and changes nothing.
    let before = world.versions();
    assert!(part(&world, ONE).await);
    assert_eq!(world.versions(), before);
    assert_eq!(end(&world, ONE).await["state"], "replaced");
    assert!(part(&world, TWO).await);
    assert_ne!(world.versions(), before);
    let report = end(&world, TWO).await;
    assert_eq!((&report["state"], counts(&report)), (&json!("done"), [1, 1, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_start_with_another_request_begins_another_run() {
    let world = World::new();
    let first = begin(&world, ONE, 1, json!({})).await;
    let contexts = json!([{ "context": { "app": "x" } }]);
    let second = begin(&world, TWO, 2, json!({ "contexts": contexts })).await;
    assert_ne!(second["run"], first["run"]);
    // The first execution may still be at work.
    assert_eq!(second["resumed"], true);
    assert_eq!(end(&world, ONE).await["run"], second["run"]);
    end(&world, TWO).await;
    // Behind a run that has ended, nobody is.
    let third = begin(&world, THREE, 3, json!({})).await;
    assert_eq!(third["resumed"], false);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_another_execution_began_meanwhile_is_taken_over() {
    let rival = World::new();
    let theirs = begin(&rival, ONE, 1, json!({})).await;
    let world = World::new();
    // Between the read of the run in force and the put.
    world.put_before(0, LEDGER, run_in_force(&rival));
    let ours = begin(&world, TWO, 2, json!({})).await;
    assert_eq!((&ours["run"], &ours["resumed"]), (&theirs["run"], &json!(true)));
    assert_eq!(owner(&world), TWO);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_a_later_start_took_over_meanwhile_is_left_to_it() {
    let world = World::new();
    let first = begin(&world, ONE, 1, json!({})).await;
    world.edit_before(0, (LEDGER, "/rotation", "run#rewrap"), |run| {
        run.insert("execution".to_owned(), text(THREE));
        run.insert("taken_at".to_owned(), number(4_000_000_000_000));
    });
    let second = begin(&world, TWO, 2, json!({})).await;
    assert_eq!((&second["run"], &second["all"]), (&first["run"], &json!([])));
    assert_eq!(owner(&world), THREE);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_entries_may_be_gone_is_not_continued() {
    let world = World::new();
    let first = begin(&world, ONE, 1, json!({})).await;
    world.aws.edit_item(LEDGER, "/rotation", "run#rewrap", |run| {
        run.insert("started_at".to_owned(), number(1_500_000_000));
    });
    let second = begin(&world, TWO, 2, json!({})).await;
    assert_ne!(second["run"], first["run"]);
}

#[tokio::test(start_paused = true)]
async fn a_run_in_force_has_all_its_hints() {
    let contexts: Vec<_> =
        (0..150).map(|n| json!({ "name": format!("n{n}"), "context": { "app": "x" } })).collect();
    let world = World::new();
    // The second transaction of hints fails.
    world.fail_write_of("hint#0100", 1, Fault::Code("AccessDeniedException"));
    let input = json!({ "action": "rewrap", "contexts": contexts });
    let start = json!({ "step": "begin", "started_at": "2020-01-01T00:00:00Z", "input": input });
    let error = world.step::<Rewrap>(ONE, start.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }));
    assert!(world.item(LEDGER, "/rotation", "run#rewrap").is_none());
    // A conflict is not an error.
    world.fail_write_of("hint#0000", 1, Fault::Canceled(&["TransactionConflict"]));
    let started = world.step::<Rewrap>(ONE, start).await.unwrap();
    let name = format!("/rotation/{}", started["run"].as_str().unwrap());
    assert_eq!(world.aws.entries(&name, "hint#").len(), 150);
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_once() {
    let world = World::new();
    begin(&world, ONE, 1, json!({})).await;
    let first = end(&world, ONE).await;
    assert_eq!(first["state"], "done");
    world.aws.edit_item(LEDGER, "/rotation", "run#rewrap", |run| {
        run.insert("ended_at".to_owned(), number(1_600_000_000));
    });
    assert_eq!(end(&world, ONE).await["ended_at"], "2020-09-13T12:26:40Z");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_taken_over_while_it_ends_does_not_end() {
    let world = World::new();
    begin(&world, ONE, 1, json!({})).await;
    world.edit_before(0, (LEDGER, "/rotation", "run#rewrap"), |run| {
        run.insert("execution".to_owned(), text(TWO));
    });
    assert_eq!(end(&world, ONE).await["state"], "replaced");
    assert!(!run_in_force(&world).contains_key("ended_at"));
    assert_eq!(owner(&world), TWO);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_that_never_began_is_not_found() {
    let error = World::new().step::<Rewrap>(ONE, json!({ "step": "end" })).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_no_step_is_invalid() {
    let world = World::new();
    let part = |number: Value, seconds: Value, stage: &str| json!({ "step": "part", "stage": stage, "number": number, "seconds": seconds });
    for step in [
        json!({ "step": "middle" }),
        json!({ "step": "begin", "started_at": "2020-01-01T00:00:00Z" }),
        json!({ "step": "begin", "started_at": "2999-01-01T00:00:00Z",
                "input": { "action": "rewrap" } }),
        json!({ "step": "begin", "started_at": "2020-01-01T00:00:00Z",
                "input": { "action": "rewrap", "other": 1 } }),
        part(json!(0), json!(601), "all"),
        part(json!(5_000_000_000_u64), json!(1), "all"),
        part(json!(0), json!(1), "some"),
    ] {
        let error = world.step::<Rewrap>(ONE, step.clone()).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{step}");
    }
    // Another action has another function.
    let request = json!({ "action": "reseal", "step": "end", "execution": ONE });
    let error = world.stack.error::<RotationRequest<Rewrap>>(request).await;
    assert!(matches!(error, Error::Invalid(_)));
    assert!(world.aws.stored()[LEDGER].is_empty());
}
