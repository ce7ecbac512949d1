//! The relay, with canned responses of Lambda.

use std::sync::{Arc, Mutex};

use aws_sdk_lambda::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use serde_json::{Value, json};

use super::*;
use crate::testing::http_client;

struct Rotate;

impl Relay for Rotate {
    const NAME: &'static str = "rotate";

    fn parse(fields: &mut Fields) -> Result<(&'static str, Name), Error> {
        fields.required_text("action")?;
        Ok(("renew", fields.required("name")?))
    }
}

/// The requests that Lambda received: path and payload.
type Requests = Arc<Mutex<Vec<(String, String)>>>;

/// Creates functions whose invocations get this response.
fn functions(
    status: u16,
    error: &'static [(&str, &str)],
    body: &'static str,
) -> (Functions, Requests) {
    let requests = Requests::default();
    let received = Arc::clone(&requests);
    let http = http_client(move |request| {
        let payload = String::from_utf8(request.body().bytes().unwrap().to_vec()).unwrap();
        received.lock().unwrap().push((request.uri().to_owned(), payload));
        let mut response = HttpResponse::new(status.try_into().unwrap(), body.into());
        for (name, value) in error {
            response.headers_mut().insert(*name, *value);
        }
        Ok(response)
    });
    let config = aws_sdk_lambda::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .http_client(http)
        .build();
    let functions = vec![("renew".to_owned(), "stack-renew".to_owned())];
    (Functions { client: Client::from_conf(config), functions }, requests)
}

const DONE: &[(&str, &str)] = &[];
const FAILED: &[(&str, &str)] = &[("x-amz-function-error", "Unhandled")];
const EVENT: &str = r#"{"action":"renew", "name":"n"}"#;

async fn relayed(functions: &Functions, event: &str) -> Result<Value, (String, String)> {
    let payload = RawValue::from_string(event.to_owned()).unwrap();
    let event = LambdaEvent::new(payload, lambda_runtime::Context::default());
    match handle::<Rotate>(functions, event).await {
        Ok(reply) => Ok(serde_json::to_value(&reply).unwrap()),
        Err(error) => {
            let diagnostic = lambda_runtime::Diagnostic::from(error);
            Err((diagnostic.error_type, diagnostic.error_message))
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_relayed_as_it_came_and_so_is_its_response() {
    let (functions, requests) = functions(200, DONE, r#"{"version": 7}"#);
    assert_eq!(relayed(&functions, EVENT).await, Ok(json!({"version": 7})));
    let requests = requests.lock().unwrap();
    let [(path, payload)] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(path.contains("/functions/stack-renew/invocations"), "{path}");
    assert_eq!(payload, EVENT);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_other_function_is_passed_on() {
    let body = r#"{"errorType": "NotFound", "errorMessage": "There is no such secret."}"#;
    let (functions, _) = functions(200, FAILED, body);
    let expected = ("NotFound".to_owned(), "There is no such secret.".to_owned());
    assert_eq!(relayed(&functions, EVENT).await, Err(expected));
}

#[tokio::test(start_paused = true)]
async fn an_action_without_a_response_may_have_been_done() {
    for (status, headers, body) in [
        (200, FAILED, r#"{"errorType": "Runtime.ExitError", "errorMessage": "exit"}"#),
        (200, FAILED, r#"{"errorMessage": "Task timed out"}"#),
        (200, FAILED, "[]"),
        (200, DONE, "not JSON"),
        (500, DONE, r#"{"Type": "Service"}"#),
        (429, &[("x-amzn-errortype", "TooManyRequestsException")] as &[_], "{}"),
    ] {
        let (functions, requests) = functions(status, headers, body);
        let (code, message) = relayed(&functions, EVENT).await.unwrap_err();
        assert_eq!(code, "Unavailable", "{body}");
        assert!(message.contains("may have been done"), "{body}: {message}");
        assert_eq!(requests.lock().unwrap().len(), 1, "it is not invoked twice");
    }
}

#[tokio::test(start_paused = true)]
async fn a_denied_invocation_was_not_done() {
    let denied: &[_] = &[("x-amzn-errortype", "AccessDeniedException")];
    let (functions, _) = functions(403, denied, "{}");
    let (code, message) = relayed(&functions, EVENT).await.unwrap_err();
    assert_eq!(code, "Unavailable");
    assert!(message.contains("permission of the function"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn an_invalid_event_and_a_missing_setting_are_not_relayed() {
    let (mut functions, requests) = functions(200, DONE, "{}");
    let (code, _) = relayed(&functions, r#"{"name": "n"}"#).await.unwrap_err();
    assert_eq!(code, "Invalid");
    functions.functions.clear();
    let (code, message) = relayed(&functions, EVENT).await.unwrap_err();
    assert_eq!(code, "Unavailable");
    assert!(message.contains("setting of the function is missing"), "{message}");
    assert!(requests.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_http_caller_gets_an_error_as_a_response() {
    let (functions, _) = functions(200, DONE, "not JSON");
    let event = json!({
        "routeKey": "POST /rotate/{name+}", "rawPath": "/rotate/n", "rawQueryString": "",
        "pathParameters": {"name": "n"}, "body": r#"{"action":"renew"}"#,
        "requestContext": {"http": {"method": "POST"}},
    });
    let response = relayed(&functions, &event.to_string()).await.unwrap();
    assert_eq!(
        (&response["statusCode"], &response["headers"]["retry-after"]),
        (&json!(503), &json!("1"))
    );
}
