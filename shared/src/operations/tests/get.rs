//! get: one version.

use serde_json::{Value, json};

use super::super::get::Get;
use super::super::put::Put;
use super::super::{LegacyItems, StackOptions};
use super::{padded, put, value};
use crate::row::{Attribute, Row};
use crate::testing::{Aws, Fault, Item, KEY, Stack, legacy_row, options, sealed_row};

const RETIRED: &str = "arn:aws:kms:eu-west-1:111122223333:key/retired";

/// Creates a stack with three versions of `n`.
async fn three() -> Stack {
    let stack = Stack::new();
    for secret in ["one", "two", "three"] {
        put(&stack, "n", secret).await;
    }
    stack
}

#[tokio::test(start_paused = true)]
async fn a_version_is_selected_by_stage_number_or_revision() {
    let stack = three().await;
    let get = async |selector: Value| {
        let mut request = json!({"name": "n"});
        request.as_object_mut().unwrap().extend(selector.as_object().unwrap().clone());
        stack.done::<Get>(request).await
    };
    let current = get(json!({})).await;
    assert_eq!((&current["secret"], &current["stages"]), (&json!("three"), &json!(["AWSCURRENT"])));
    assert_eq!(get(json!({"stage": "AWSCURRENT"})).await, current);
    assert_eq!(get(json!({"version": 3})).await, current);
    let previous = get(json!({"stage": "AWSPREVIOUS"})).await;
    assert_eq!(previous["secret"], "two");
    assert_eq!(get(json!({"version": "2"})).await, previous);
    let first = get(json!({"version": padded(1)})).await;
    assert_eq!((&first["secret"], &first["stages"]), (&json!("one"), &json!([])));
    let found = get(json!({"revision": first["revision"]})).await;
    assert_eq!((&found["secret"], found.get("stages")), (&json!("one"), None));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_is_not_found_and_a_rule_that_is_broken_is_named() {
    let stack = three().await;
    for (request, code) in [
        (json!({"name": "m"}), "NotFound"),
        (json!({"name": "m", "stage": "AWSPREVIOUS"}), "NotFound"),
        (json!({"name": "n", "stage": "AWSPENDING"}), "NotFound"),
        (json!({"name": "n", "version": 4}), "NotFound"),
        (json!({"name": "n", "revision": "0123456"}), "NotFound"),
        (json!({"name": "n", "version": 0}), "Invalid"),
        (json!({"name": "n", "version": "release-2"}), "Invalid"),
        (json!({"name": "m/"}), "Invalid"),
        (json!({"name": ""}), "Invalid"),
        (json!({"name": "n", "stage": "OTHER"}), "Invalid"),
        (json!({"name": "n", "version": 1, "stage": "AWSCURRENT"}), "Invalid"),
        (json!({"name": "n", "format": "yaml"}), "Invalid"),
    ] {
        assert_eq!(stack.code::<Get>(request.clone()).await, code, "{request}");
    }
    assert_eq!(stack.aws.calls("Decrypt"), 0);
}

#[tokio::test(start_paused = true)]
async fn rows_of_other_clients_open_under_their_own_versions() {
    let stack = Stack::new();
    for version in ["7", "release-2", &padded(0)] {
        let row = legacy_row(&stack.aws, "n", version, version, &[]);
        stack.aws.put_item("secrets", row);
    }
    for (version, expected) in
        [(json!(7), "7"), (json!("release-2"), "release-2"), (json!(0), &padded(0))]
    {
        let response = stack.done::<Get>(json!({"name": "n", "version": version})).await;
        assert_eq!(response["secret"], expected);
        assert_eq!(response["dialect"], "credstash");
    }
}

#[tokio::test(start_paused = true)]
async fn text_is_returned_bare_and_bytes_as_base64() {
    let stack = three().await;
    let bare = stack.done::<Get>(json!({"name": "n", "format": "text"})).await;
    assert_eq!(bare, "three");
    stack.done::<Put>(json!({"name": "b", "secret_base64": "/w=="})).await;
    let response = stack.done::<Get>(json!({"name": "b"})).await;
    assert_eq!((&response["secret_base64"], response.get("secret")), (&json!("/w=="), None));
}

#[tokio::test(start_paused = true)]
async fn only_the_context_of_the_put_opens_a_version() {
    let stack = Stack::new();
    let request = json!({"name": "n", "secret": "s", "context": {"app": "web"}});
    stack.done::<Put>(request).await;
    for context in [json!({}), json!({"app": "api"}), json!({"app": "web", "b": "c"})] {
        let error = stack.error::<Get>(json!({"name": "n", "context": context})).await;
        assert_eq!(error.code().name, "Forbidden");
        let message = error.to_string();
        assert!(message.contains("\"app\"") && !message.contains("web"), "{message}");
    }
    let response = stack.done::<Get>(json!({"name": "n", "context": {"app": "web"}})).await;
    assert_eq!((&response["secret"], response.get("context")), (&json!("s"), None));
    put(&stack, "plain", "s").await;
    let error = stack.error::<Get>(json!({"name": "plain", "context": {"a": "b"}})).await;
    assert!(error.to_string().contains("without encryption context"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_has_expired_is_not_returned_even_if_its_row_is_still_there() {
    let stack = Stack::new();
    let past = Attribute::Number("1000".to_owned());
    let more = Row::from([("expires_at".to_owned(), past)]);
    stack.aws.put_item("secrets", sealed_row(&stack.aws, "n", &padded(1), "s", &more));
    assert_eq!(stack.code::<Get>(json!({"name": "n"})).await, "Expired");
}

type Edit = fn(&mut Item, String);

#[tokio::test(start_paused = true)]
async fn an_altered_row_does_not_open() {
    let text = |row: &Item, name: &str| row[name]["S"].as_str().unwrap().to_owned();
    let edits: [(&str, Edit); 6] = [
        ("contents", |row, text| drop(row.insert("contents".into(), json!({"S": text})))),
        ("hmac", |row, _| drop(row.insert("hmac".into(), json!({"S": "00".repeat(32)})))),
        ("comment", |row, _| drop(row.insert("comment".into(), json!({"S": "edited"})))),
        ("expires_at", |row, _| drop(row.insert("expires_at".into(), json!({"N": "1"})))),
        ("seal", |row, _| drop(row.remove("seal"))),
        ("revision", |row, _| drop(row.insert("revision".into(), json!({"B": "YWJjZGVmMA=="})))),
    ];
    for (what, edit) in edits {
        let stack = Stack::new();
        put(&stack, "other", "other value").await;
        put(&stack, "n", "s").await;
        let other = text(&stack.aws.items("secrets", "other")[0], "contents");
        stack.aws.edit_item("secrets", "n", &padded(1), |row| edit(row, other));
        assert_eq!(stack.code::<Get>(json!({"name": "n"})).await, "Integrity", "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_does_not_open_under_another_name_or_version() {
    let stack = three().await;
    let row = stack.aws.items("secrets", "n").remove(0);
    for (name, version) in [("m", 1), ("n", 4)] {
        let mut moved = row.clone();
        moved.insert("name".to_owned(), json!({"S": name}));
        moved.insert("version".to_owned(), json!({"S": padded(version)}));
        stack.aws.put_item("secrets", moved);
        assert_eq!(stack.code::<Get>(json!({"name": name})).await, "Integrity");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_no_secret_is_malformed() {
    let stack = three().await;
    stack.aws.edit_item("secrets", "n", &padded(3), |row| drop(row.remove("contents")));
    assert_eq!(stack.code::<Get>(json!({"name": "n"})).await, "Malformed");
    stack.aws.edit_item("secrets", "n", &padded(2), |row| {
        row.insert("digest".to_owned(), json!({"S": "CRC32"}));
        row.remove("seal");
        row.retain(|name, _| !["revision", "created_at", "context"].contains(&name.as_str()));
    });
    assert_eq!(stack.code::<Get>(json!({"name": "n", "version": 2})).await, "Malformed");
}

#[tokio::test(start_paused = true)]
async fn a_stack_may_refuse_legacy_rows() {
    let aws = Aws::new();
    let options = StackOptions { legacy_items: LegacyItems::Refuse, ..options() };
    let stack = Stack::on(aws, options);
    stack.aws.put_item("secrets", legacy_row(&stack.aws, "n", &padded(1), "s", &[]));
    let error = stack.error::<Get>(json!({"name": "n"})).await;
    assert_eq!(error.code().name, "Integrity");
    assert!(error.to_string().contains("reseal"), "{error}");
    assert_eq!(stack.aws.calls("Decrypt"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_data_key_of_another_kms_key_opens_only_if_that_key_is_retired() {
    let stack = Stack::new();
    put(&stack, "n", "s").await;
    // The stack gets a new key; the data keys are wrapped by the former one.
    stack.aws.add_key(RETIRED);
    let former = |aws: &Aws| {
        aws.edit_item("secrets", "n", &padded(1), |row| {
            use base64::prelude::{BASE64_STANDARD, Engine};
            let key = BASE64_STANDARD.decode(row["key"]["S"].as_str().unwrap()).unwrap();
            let key = String::from_utf8(key).unwrap().replace(KEY, RETIRED);
            row.insert("key".to_owned(), json!({"S": BASE64_STANDARD.encode(key)}));
        });
    };
    former(&stack.aws);
    let error = stack.error::<Get>(json!({"name": "n"})).await;
    assert_eq!(error.code().name, "Integrity");
    assert!(error.to_string().contains("another KMS key"), "{error}");
    let stack = Stack::with_retired_keys(stack.aws, options(), &[RETIRED]);
    assert_eq!(value(&stack, "n").await, "s");
    stack.aws.disable_key(RETIRED, true);
    let error = stack.error::<Get>(json!({"name": "n"})).await;
    assert_eq!(error.code().name, "Unavailable");
    assert!(error.to_string().contains("disabled"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_adopted_table_without_the_index_of_revisions_is_reported() {
    let stack = three().await;
    stack.aws.fail("Query", 1, Fault::Code("ValidationException"));
    let error = stack.error::<Get>(json!({"name": "n", "revision": "0123456"})).await;
    assert_eq!(error.code().name, "Unavailable");
    assert!(error.to_string().contains("does not exist"), "{error}");
    let detail = error.detail().unwrap().to_string();
    assert!(detail.contains("table/secrets/index/revision"), "{detail}");
}
