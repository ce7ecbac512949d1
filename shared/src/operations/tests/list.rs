//! list: names and versions.

use serde_json::{Value, json};

use super::super::list::List;
use super::super::put::Put;
use super::{padded, put};
use crate::testing::{Fault, Stack, legacy_row};

async fn listed() -> Stack {
    let stack = Stack::new();
    for name in ["a", "b/1", "b/2", "bc"] {
        put(&stack, name, "one").await;
        put(&stack, name, "two").await;
    }
    stack
}

/// Returns the values of a field on all pages.
async fn pages(stack: &Stack, request: &Value, list: &str, field: &str) -> Vec<Value> {
    let (mut all, mut request) = (Vec::new(), request.clone());
    for _ in 0..100 {
        let page = stack.done::<List>(request.clone()).await;
        all.extend(page[list].as_array().unwrap().iter().map(|each| each[field].clone()));
        match page.get("next") {
            Some(next) => request["next"] = next.clone(),
            None => return all,
        }
    }
    panic!("the list does not end")
}

#[tokio::test(start_paused = true)]
async fn the_newest_version_of_each_name_is_listed_whatever_the_pages() {
    let stack = listed().await;
    let expected = json!(["a", "b/1", "b/2", "bc"]);
    for page in [usize::MAX, 1, 2, 3] {
        stack.aws.set_page(page);
        for limit in [1, 2, 3, 1000] {
            let request = json!({"limit": limit});
            let names = pages(&stack, &request, "secrets", "name").await;
            assert_eq!(json!(names), expected, "{page} {limit}");
            let versions = pages(&stack, &request, "secrets", "version").await;
            assert_eq!(json!(versions), json!([2, 2, 2, 2]), "{page} {limit}");
        }
        let request = json!({"prefix": "b", "limit": 1});
        let names = pages(&stack, &request, "secrets", "name").await;
        assert_eq!(json!(names), json!(["b/1", "b/2"]), "{page}");
        let names = pages(&stack, &json!({"prefix": "b*"}), "secrets", "name").await;
        assert_eq!(json!(names), json!(["b/1", "b/2", "bc"]), "{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_description_has_no_value_and_comes_from_the_index() {
    let stack = Stack::new();
    let request = json!({
        "name": "n", "secret": "hunter2", "comment": "c", "context": {"a": "b"}, "ttl": 100,
    });
    stack.done::<Put>(request).await;
    let page = stack.done::<List>(json!({})).await;
    let secret = page["secrets"][0].as_object().unwrap();
    let keys: Vec<_> = secret.keys().map(String::as_str).collect();
    let expected =
        ["comment", "context", "created_at", "expires_at", "name", "revision", "version"];
    assert_eq!(keys.len(), expected.len());
    assert!(expected.iter().all(|key| keys.contains(key)), "{keys:?}");
    assert!(!page.to_string().contains("hunter2"));
}

#[tokio::test(start_paused = true)]
async fn a_new_version_of_the_last_name_of_a_page_is_not_listed_again() {
    let stack = listed().await;
    let page = stack.done::<List>(json!({"limit": 2})).await;
    put(&stack, "b/1", "three").await;
    let rest = stack.done::<List>(json!({"limit": 2, "next": page["next"]})).await;
    assert_eq!(rest["secrets"][0]["name"], "b/2");
}

#[tokio::test(start_paused = true)]
async fn versions_are_listed_highest_first() {
    let stack = Stack::new();
    for secret in ["1", "2", "3", "4", "5"] {
        put(&stack, "n", secret).await;
    }
    for (page, limit) in [(usize::MAX, 2), (1, 2), (2, 5), (usize::MAX, 5)] {
        stack.aws.set_page(page);
        let request = json!({"name": "n", "limit": limit});
        let versions = pages(&stack, &request, "versions", "version").await;
        assert_eq!(json!(versions), json!([5, 4, 3, 2, 1]), "{page} {limit}");
    }
    stack.aws.put_item("secrets", legacy_row(&stack.aws, "m", "release-2", "s", &[]));
    let versions = pages(&stack, &json!({"name": "m"}), "versions", "version").await;
    assert_eq!(versions, ["release-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_one_name_lists_no_other() {
    let stack = listed().await;
    let page = stack.done::<List>(json!({"name": "b/1", "limit": 1})).await;
    let request = json!({"name": "a", "limit": 5, "next": page["next"]});
    let other = stack.done::<List>(request).await;
    assert_eq!(other["versions"][0]["name"], "a");
}

#[tokio::test(start_paused = true)]
async fn unknown_names_and_invalid_requests_are_refused() {
    let stack = listed().await;
    for (request, code) in [
        (json!({"name": "unknown"}), "NotFound"),
        (json!({"name": "unknown", "list": "history"}), "NotFound"),
        (json!({"name": "unknown", "list": "history", "verify": true}), "NotFound"),
        (json!({"name": "bad/", "list": "versions"}), "Invalid"),
        (json!({"list": "history", "verify": true}), "Invalid"),
        (json!({"list": "versions"}), "Invalid"),
        (json!({"list": "names", "name": "a"}), "Invalid"),
        (json!({"list": "other"}), "Invalid"),
        (json!({"list": "report"}), "Invalid"),
        (json!({"limit": 1001}), "Invalid"),
        (json!({"next": "forged"}), "Invalid"),
    ] {
        assert_eq!(stack.code::<List>(request.clone()).await, code, "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_index_and_a_denied_scan_are_reported_to_the_operator() {
    let stack = listed().await;
    for (code, remedy) in [
        ("ValidationException", "the table's indexes"),
        ("AccessDeniedException", "Allow this action"),
    ] {
        stack.aws.fail("Scan", 1, Fault::Code(code));
        let error = stack.error::<List>(json!({})).await;
        assert_eq!(error.code().name, "Unavailable");
        let detail = error.detail().unwrap().to_string();
        assert!(detail.contains("dynamodb:Scan on table/secrets/index/names"), "{detail}");
        assert!(detail.contains(remedy), "{detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_without_a_name_of_ours_is_listed_as_it_is() {
    let stack = Stack::new();
    stack.aws.put_item("secrets", legacy_row(&stack.aws, "bad//name", &padded(1), "s", &[]));
    let names = pages(&stack, &json!({}), "secrets", "name").await;
    assert_eq!(names, ["bad//name"]);
}
