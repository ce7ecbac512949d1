//! The handling of an event: its response, its error, and its line in the log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::operations::delete::Delete;
use crate::operations::get::Get;
use crate::operations::list::List;
use crate::operations::policy::Policy;
use crate::operations::put::Put;
use crate::operations::remind::Remind;
use crate::operations::restore::Restore;
use crate::testing::{Fault, Stack};

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Returns the one line, and empties the log.
    fn take(&self) -> Value {
        let text = self.text();
        self.0.lock().unwrap().clear();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("one line: {text}"))
    }
}

fn log() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let format = tracing_subscriber::fmt().json().flatten_event(true);
    let subscriber = format.with_writer(lines.clone()).finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

fn event(payload: &str) -> LambdaEvent<Box<RawValue>> {
    let mut context = Context::default();
    context.request_id = "request-7".to_owned();
    let deadline = SystemTime::now() + Duration::from_secs(29);
    let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    context.deadline = deadline.try_into().unwrap();
    LambdaEvent::new(RawValue::from_string(payload.to_owned()).unwrap(), context)
}

/// Returns an event of the HTTP API.
fn http(route: &str, path: &str, name: &str, body: &str) -> String {
    json!({
        "routeKey": route, "rawPath": path, "rawQueryString": "", "body": body,
        "pathParameters": {"name": name}, "isBase64Encoded": false,
        "requestContext": {
            "http": {"method": "PUT"},
            "authorizer": {"iam": {"userArn": "arn:aws:iam::111122223333:user/alice"}},
        },
    })
    .to_string()
}

async fn done<O: Operation>(stack: &Stack, payload: &str) -> Value {
    let reply = Box::pin(handle::<O>(&stack.coffer, event(payload))).await;
    serde_json::to_value(reply.unwrap_or_else(|error| panic!("{error:?}"))).unwrap()
}

async fn failed<O: Operation>(stack: &Stack, payload: &str) -> lambda_runtime::Diagnostic {
    let reply = Box::pin(handle::<O>(&stack.coffer, event(payload))).await;
    reply.err().unwrap().into()
}

#[tokio::test(start_paused = true)]
async fn a_direct_request_gets_its_response_and_one_line_in_the_log() {
    let (lines, _guard) = log();
    let stack = Stack::new();
    let stored = done::<Put>(&stack, r#"{"name": "n", "secret": "hunter2"}"#).await;
    assert_eq!(stored["version"], 1);
    let line = lines.take();
    for (field, value) in [
        ("operation", "put"),
        ("request_id", "request-7"),
        ("name", "n"),
        ("version", "0000000000000000001"),
        ("code", "OK"),
        ("level", "INFO"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert!(line["milliseconds"].is_u64() && line.get("detail").is_none(), "{line}");
    assert_eq!(done::<Get>(&stack, r#"{"name": "n"}"#).await["secret"], "hunter2");
    assert!(!lines.text().contains("hunter2"), "{}", lines.text());
}

#[tokio::test(start_paused = true)]
async fn an_http_request_gets_a_response_with_a_status() {
    let (lines, _guard) = log();
    let stack = Stack::new();
    let payload = http("PUT /secrets/{name+}", "/secrets/n", "n", r#"{"secret": "hunter2"}"#);
    let response = done::<Put>(&stack, &payload).await;
    assert_eq!(response["statusCode"], 200);
    assert_eq!(response["headers"]["cache-control"], "no-store");
    let body: Value = serde_json::from_str(response["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["version"], 1);
    let event = &stack.aws.entries("n", "event#")[0];
    assert_eq!(event["who"]["S"], "arn:aws:iam::111122223333:user/alice");
    assert_eq!(event["request_id"]["S"], "request-7");
    assert!(!lines.text().contains("hunter2"), "{}", lines.text());
    let payload = http("PUT /secrets/{name+}", "/secrets/n", "n", r#"{"secret": 5}"#);
    let response = done::<Put>(&stack, &payload).await;
    assert_eq!(response["statusCode"], 400);
}

#[tokio::test(start_paused = true)]
async fn the_method_of_an_http_request_decides_what_is_done_to_a_policy() {
    let stack = Stack::new();
    done::<Put>(&stack, r#"{"name": "n", "secret": "s"}"#).await;
    for (method, body, status) in [
        ("PUT", r#"{"days": 30}"#, 200),
        ("GET", "", 200),
        // A field does not decide it.
        ("GET", r#"{"policy": "cancel"}"#, 400),
        ("DELETE", "", 200),
        ("GET", "", 404),
        ("POST", "", 400),
    ] {
        let payload = http(&format!("{method} /policies/{{name+}}"), "/policies/n", "n", body);
        let response = done::<Policy>(&stack, &payload).await;
        assert_eq!(response["statusCode"], status, "{method} {body}: {response}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_direct_caller_gets_an_error_as_a_function_error() {
    let (lines, _guard) = log();
    let stack = Stack::new();
    for (payload, code) in
        [(r#"{"name": "n"}"#, "NotFound"), ("[]", "Invalid"), (r#"{"name": 1}"#, "Invalid")]
    {
        assert_eq!(failed::<Get>(&stack, payload).await.error_type, code);
        let line = lines.take();
        assert_eq!((&line["code"], &line["level"]), (&json!(code), &json!("INFO")));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_aws_is_logged_with_its_detail_which_the_caller_does_not_see() {
    let (lines, _guard) = log();
    let stack = Stack::new();
    stack.aws.fail("Scan", 1, Fault::Code("AccessDeniedException"));
    let error = failed::<List>(&stack, "{}").await;
    assert!(!error.error_message.contains("dynamodb:Scan"), "{error:?}");
    let line = lines.take();
    assert_eq!((&line["code"], &line["level"]), (&json!("Unavailable"), &json!("ERROR")));
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("dynamodb:Scan on table/secrets/index/names"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn the_log_names_the_secrets_that_an_error_is_about() {
    let stack = Stack::new();
    for name in ["p/a", "p/b"] {
        done::<Put>(&stack, &json!({"name": name, "secret": "s"}).to_string()).await;
    }
    stack.aws.edit_item("secrets", "p/b", "0000000000000000001", |row| drop(row.remove("seal")));
    let (lines, _guard) = log();
    failed::<Get>(&stack, r#"{"prefix": "p"}"#).await;
    let line = lines.take();
    assert_eq!((&line["about"], &line["name"]), (&json!(r#"["p/b"]"#), &json!("p")));
}

#[tokio::test(start_paused = true)]
async fn the_log_names_the_secret_of_every_operation() {
    let (lines, _guard) = log();
    let stack = Stack::new();
    done::<Put>(&stack, r#"{"name": "n", "secret": "s"}"#).await;
    lines.take();
    let line = async |operation: &str, payload: &str| {
        match operation {
            "policy" => drop(done::<Policy>(&stack, payload).await),
            "list" => drop(done::<List>(&stack, payload).await),
            "delete" => drop(done::<Delete>(&stack, payload).await),
            "restore" => drop(done::<Restore>(&stack, payload).await),
            _ => drop(done::<Remind>(&stack, payload).await),
        }
        lines.take()
    };
    for (operation, payload, name) in [
        ("policy", r#"{"policy": "put", "name": "n", "days": 30}"#, Some("n")),
        ("policy", r#"{"policy": "get", "name": "n"}"#, Some("n")),
        ("policy", r#"{"policy": "cancel", "name": "n"}"#, Some("n")),
        ("list", r#"{"name": "n"}"#, Some("n")),
        ("list", r#"{"prefix": "p"}"#, Some("p")),
        ("list", r#"{"name": "n", "list": "history"}"#, Some("n")),
        ("list", r#"{"name": "n", "list": "history", "verify": true}"#, Some("n")),
        ("delete", r#"{"name": "n"}"#, Some("n")),
        ("restore", r#"{"name": "n"}"#, Some("n")),
        ("remind", "{}", None),
    ] {
        let line = line(operation, payload).await;
        assert_eq!(line["operation"], operation, "{payload}");
        assert_eq!(line.get("name").and_then(Value::as_str), name, "{payload}");
    }
}

/// What the error of a call that takes too long says.
async fn too_long<O: Operation>(stack: &Stack, operation: &'static str, payload: &str) -> String {
    stack.aws.before(operation, 0, |_| std::future::pending());
    failed::<O>(stack, payload).await.error_message
}

#[tokio::test(start_paused = true)]
async fn only_an_operation_that_writes_may_have_been_done_when_its_time_is_over() {
    let stack = Stack::new();
    done::<Put>(&stack, r#"{"name": "n", "secret": "s"}"#).await;
    for (message, writes) in [
        (too_long::<Get>(&stack, "Query", r#"{"name": "n"}"#).await, false),
        (too_long::<List>(&stack, "Scan", "{}").await, false),
        (too_long::<Policy>(&stack, "Query", r#"{"policy": "get", "name": "n"}"#).await, false),
        (too_long::<Policy>(&stack, "Query", r#"{"policy": "cancel", "name": "n"}"#).await, true),
        (too_long::<Put>(&stack, "Query", r#"{"name": "n", "secret": "s"}"#).await, true),
        (too_long::<Delete>(&stack, "Query", r#"{"name": "n"}"#).await, true),
        (too_long::<Restore>(&stack, "Query", r#"{"name": "n"}"#).await, true),
        (too_long::<Remind>(&stack, "Scan", "{}").await, true),
    ] {
        assert_eq!(message.contains("may have been done"), writes, "{message}");
        assert_eq!(message.contains("Nothing was changed"), !writes, "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_of_aws_that_never_ends_is_an_error_before_the_function_times_out() {
    let (lines, _guard) = log();
    let stack = Stack::new();
    stack.aws.before("TransactWriteItems", 0, |_| std::future::pending());
    let began = tokio::time::Instant::now();
    let diagnostic = failed::<Put>(&stack, r#"{"name": "n", "secret": "s"}"#).await;
    assert_eq!(diagnostic.error_type, "Unavailable");
    assert!(diagnostic.error_message.contains("may have been done"), "{diagnostic:?}");
    assert!((27..29).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(lines.take()["code"], "Unavailable");
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_timeout_says_what_to_do_for_reads_and_for_writes() {
    let never = std::future::pending::<Result<Response, Error>>;
    let deadline = SystemTime::now() + Duration::from_secs(29);
    let read = within(deadline, false, never()).await.err().unwrap();
    let write = within(deadline, true, never()).await.err().unwrap();
    for error in [&read, &write] {
        assert_eq!(error.code().name, "Unavailable");
        assert!(error.to_string().contains("try again"), "{error}");
    }
    let (read, write) = (read.to_string(), write.to_string());
    assert!(read.contains("`limit`") && !read.contains("may have been done"), "{read}");
    assert!(write.contains("`token`") && write.contains("may have been done"), "{write}");
}
