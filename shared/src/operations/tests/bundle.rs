//! get: every secret under a prefix.

use serde_json::{Value, json};

use super::super::get::Get;
use super::super::put::Put;
use super::{padded, put, put_meanwhile};
use crate::testing::{Fault, Stack, legacy_row};

async fn three() -> Stack {
    let stack = Stack::new();
    for name in ["dev/a", "dev/b", "development", "dev.c"] {
        put(&stack, name, &format!("value of {name}")).await;
    }
    put(&stack, "dev/b", "second").await;
    stack
}

fn names(page: &Value) -> Vec<&str> {
    let secrets = page["secrets"].as_array().unwrap();
    secrets.iter().map(|each| each["name"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_prefix_returns_the_current_version_of_every_name_that_it_covers() {
    let stack = three().await;
    let page = stack.done::<Get>(json!({"prefix": "dev"})).await;
    assert_eq!(names(&page), ["dev.c", "dev/a", "dev/b"]);
    assert_eq!(page["secrets"][2]["secret"], "second");
    assert_eq!(page["secrets"][2]["stages"], json!(["AWSCURRENT"]));
    assert_eq!(page.get("next"), None);
    let page = stack.done::<Get>(json!({"prefix": "dev*"})).await;
    assert_eq!(names(&page).len(), 4);
    let page = stack.done::<Get>(json!({"prefix": "prod"})).await;
    assert_eq!(names(&page), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn pages_continue_where_the_one_before_ended() {
    let stack = three().await;
    stack.aws.set_page(2);
    let (mut all, mut next) = (Vec::new(), Value::Null);
    loop {
        let mut request = json!({"prefix": "*", "limit": 1});
        if !next.is_null() {
            request["next"] = next;
        }
        let page = stack.done::<Get>(request).await;
        all.extend(names(&page).into_iter().map(str::to_owned));
        match page.get("next") {
            Some(more) => next = more.clone(),
            None => break,
        }
    }
    assert_eq!(all, ["dev.c", "dev/a", "dev/b", "development"]);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_is_one_document_in_each_format() {
    let stack = three().await;
    for (format, expected) in [
        ("json", json!({"dev/a": "value of dev/a", "dev/b": "second"})),
        ("dotenv", json!("A='value of dev/a'\nB='second'\n")),
        ("env-file", json!("A=value of dev/a\nB=second\n")),
        ("csv", json!("dev/a,value of dev/a\ndev/b,second\n")),
        ("yaml", json!("dev/a: 'value of dev/a'\ndev/b: 'second'\n")),
    ] {
        let document = stack.done::<Get>(json!({"prefix": "dev/", "format": format})).await;
        assert_eq!(document, expected, "{format}");
    }
    let request = json!({"prefix": "dev/", "format": "dotenv", "uppercase": false});
    assert_eq!(stack.done::<Get>(request).await, "a='value of dev/a'\nb='second'\n");
}

#[tokio::test(start_paused = true)]
async fn a_document_has_one_secret_or_more_and_is_whole() {
    let stack = three().await;
    let code = stack.code::<Get>(json!({"prefix": "prod", "format": "json"})).await;
    assert_eq!(code, "NotFound");
    for request in [
        json!({"prefix": "dev", "format": "json", "limit": 1}),
        json!({"prefix": "dev", "format": "json", "uppercase": true}),
        json!({"prefix": "dev", "uppercase": true}),
        json!({"prefix": "dev", "format": "xml"}),
        json!({"prefix": "dev", "next": "forged"}),
        json!({"prefix": "dev", "limit": 0}),
    ] {
        assert_eq!(stack.code::<Get>(request.clone()).await, "Invalid", "{request}");
    }
    stack.done::<Put>(json!({"name": "dev/bin", "secret_base64": "/w=="})).await;
    let error = stack.error::<Get>(json!({"prefix": "dev/", "format": "csv"})).await;
    assert!(error.to_string().contains("dev/bin"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn secrets_that_do_not_open_are_named_and_none_is_returned() {
    let stack = three().await;
    for name in ["dev/a", "dev.c"] {
        stack.aws.edit_item("secrets", name, &padded(1), |row| {
            row.insert("comment".to_owned(), json!({"S": "edited"}));
        });
    }
    let error = stack.error::<Get>(json!({"prefix": "dev"})).await;
    assert_eq!(error.code().name, "Integrity");
    let message = error.to_string();
    assert!(message.contains(r#""dev.c", "dev/a""#) && !message.contains("dev/b"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn each_secret_opens_under_the_narrowest_context() {
    let stack = Stack::new();
    for (name, app) in [("p/a", "a"), ("p/b/x", "b"), ("p/c", "rest")] {
        let request = json!({"name": name, "secret": name, "context": {"app": app}});
        stack.done::<Put>(request).await;
    }
    put(&stack, "p/plain", "s").await;
    stack.aws.put_item("secrets", legacy_row(&stack.aws, "p/theirs", &padded(1), "s", &[]));
    let contexts = json!([
        {"name": "p/a", "context": {"app": "a"}}, {"prefix": "p/b", "context": {"app": "b"}},
    ]);
    let request = json!({"prefix": "p", "contexts": contexts, "context": {"app": "rest"}});
    let error = stack.error::<Get>(request.clone()).await;
    assert_eq!(error.code().name, "Forbidden");
    let mut request = request;
    request["only_context"] = true.into();
    let page = stack.done::<Get>(request.clone()).await;
    assert_eq!(names(&page), ["p/a", "p/b/x", "p/c"]);
    // Nothing is left.
    let none = json!({
        "prefix": "p", "context": {"app": "x"}, "only_context": true, "format": "json",
    });
    assert_eq!(stack.code::<Get>(none).await, "NotFound");
}

#[tokio::test(start_paused = true)]
async fn a_put_between_the_listing_and_the_reading_is_returned_whole() {
    let stack = three().await;
    // After the first listing.
    stack.aws.before("Query", 0, |aws| async move {
        put_meanwhile(aws.clone(), "dev/a", "together").await;
        put_meanwhile(aws, "dev/b", "together").await;
    });
    let page = stack.done::<Get>(json!({"prefix": "dev/"})).await;
    let values: Vec<_> = page["secrets"].as_array().unwrap().iter().collect();
    assert_eq!(
        (&values[0]["secret"], &values[1]["secret"]),
        (&"together".into(), &"together".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_that_the_first_listing_missed_is_returned() {
    let stack = three().await;
    stack.aws.before("Scan", 1, |aws| async move {
        let row = legacy_row(&aws, "dev/late", &padded(1), "late", &[]);
        aws.put_item("secrets", row);
    });
    let page = stack.done::<Get>(json!({"prefix": "dev/"})).await;
    assert_eq!(names(&page), ["dev/a", "dev/b", "dev/late"]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_deleted_while_it_is_read_is_left_out() {
    let stack = three().await;
    stack.aws.before("Query", 0, |aws| async move {
        aws.remove_item("secrets", "dev/a", &padded(1));
    });
    let page = stack.done::<Get>(json!({"prefix": "dev/"})).await;
    assert_eq!(names(&page), ["dev/b"]);
}

#[tokio::test(start_paused = true)]
async fn secrets_that_keep_changing_are_unavailable() {
    let stack = three().await;
    for _ in 0..200 {
        stack.aws.before("Query", 0, |aws| async move {
            let latest = aws.items("secrets", "dev/a").len() + 1;
            let row = legacy_row(&aws, "dev/a", &padded(latest.try_into().unwrap()), "x", &[]);
            aws.put_item("secrets", row);
        });
    }
    let begin = tokio::time::Instant::now();
    let error = stack.error::<Get>(json!({"prefix": "dev/"})).await;
    assert!(error.to_string().contains("keep changing"), "{error}");
    assert!((10..13).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn throttled_calls_of_a_bundle_are_made_again() {
    let stack = three().await;
    stack.aws.fail("Scan", 9, Fault::Code("ProvisionedThroughputExceededException"));
    stack.aws.fail("Query", 9, Fault::Code("ProvisionedThroughputExceededException"));
    stack.aws.fail("Decrypt", 17, Fault::Code("ThrottlingException"));
    let page = stack.done::<Get>(json!({"prefix": "dev"})).await;
    assert_eq!(names(&page).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_stays_throttled_is_unavailable_before_the_function_times_out() {
    let stack = three().await;
    stack.aws.fail("Decrypt", usize::MAX, Fault::Code("ThrottlingException"));
    let begin = tokio::time::Instant::now();
    let error = stack.error::<Get>(json!({"prefix": "dev"})).await;
    assert_eq!(error.code().name, "Unavailable");
    assert!(begin.elapsed().as_secs() < 27, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_page_ends_before_it_does_not_fit_a_response_and_a_document_is_too_large() {
    let stack = Stack::new();
    for index in 0..10 {
        put(&stack, &format!("p/{index}"), &"x".repeat(300_000)).await;
    }
    let code = stack.code::<Get>(json!({"prefix": "p", "format": "json"})).await;
    assert_eq!(code, "TooLarge");
    let page = stack.done::<Get>(json!({"prefix": "p"})).await;
    let count = names(&page).len();
    assert!((1..10).contains(&count), "{count}");
    let rest = stack.done::<Get>(json!({"prefix": "p", "next": page["next"]})).await;
    assert_eq!(count + names(&rest).len(), 10);
}

#[tokio::test(start_paused = true)]
async fn values_that_grow_as_json_fill_a_response_sooner() {
    let stack = Stack::new();
    for index in 0..3 {
        // Each character takes six bytes.
        put(&stack, &format!("p/{index}"), &"\u{1}".repeat(200_000)).await;
    }
    let code = stack.code::<Get>(json!({"prefix": "p", "format": "json"})).await;
    assert_eq!(code, "TooLarge");
    let page = stack.done::<Get>(json!({"prefix": "p"})).await;
    assert_eq!(names(&page), ["p/0", "p/1"]);
    let rest = stack.done::<Get>(json!({"prefix": "p", "next": page["next"]})).await;
    assert_eq!((names(&rest), rest.get("next")), (vec!["p/2"], None));
}

#[tokio::test(start_paused = true)]
async fn a_document_has_more_secrets_than_a_page() {
    let stack = Stack::new();
    let row = legacy_row(&stack.aws, "p/0000", &padded(1), "s", &[]);
    let put_all = |comment: &str| {
        for index in 0..1001 {
            let mut row = row.clone();
            row.insert("name".to_owned(), json!({"S": format!("p/{index:04}")}));
            row.insert("comment".to_owned(), json!({"S": comment}));
            stack.aws.put_item("secrets", row);
        }
    };
    put_all("c");
    let document = stack.done::<Get>(json!({"prefix": "p", "format": "json"})).await;
    assert_eq!(document.as_object().unwrap().len(), 1001);
    // The descriptions alone do not fit.
    put_all(&"c".repeat(500));
    let code = stack.code::<Get>(json!({"prefix": "p", "format": "json"})).await;
    assert_eq!(code, "TooLarge");
}
