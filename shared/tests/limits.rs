//! The memory that a request can make a function use: a few times its size, whatever its content.
//! There is one test, because the peak belongs to the process.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine};
use coffer::error::Error;
use coffer::fields::Fields;
use coffer::operations::legacy_hints::LegacyHints;
use coffer::request::Request;
use serde_json::value::RawValue;

/// Reads a line of `/proc/self/status`, in bytes.
fn status(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let kilobytes = line.trim_matches(|c: char| !c.is_ascii_digit());
    kilobytes.parse::<usize>().unwrap() * 1024
}

/// Joins `head`, as many of `entry` as fit, separated by commas, and `tail`.
fn filled(size: usize, head: &str, entry: impl Fn(usize) -> String, tail: &str) -> String {
    let mut text = head.to_owned();
    let mut count = 0;
    while text.len() < size {
        if count > 0 {
            text.push(',');
        }
        text.push_str(&entry(count));
        count += 1;
    }
    text + tail
}

type Read = fn(&mut Fields) -> Result<(), Error>;

fn requests(size: usize) -> Vec<(&'static str, String, Read)> {
    let small = |_: usize| r#"{"":1}"#.to_owned();
    let same = |_: usize| r#""":1"#.to_owned();
    let numbered = |n: usize| format!(r#""{n}":1"#);
    let several: Read = |fields| fields.several("secrets").map(drop);
    let hints: Read = |fields| LegacyHints::parse(fields).map(drop);
    let context: Read = |fields| fields.context("context").map(drop);
    let either: Read = |fields| fields.number_or_text("version").map(drop);
    let nothing: Read = |_| Ok(());
    let http = |body: &str, more: &str| {
        format!(r#"{{"requestContext":{{"http":{{"method":"PUT"}}}},"body":{body}{more}}}"#)
    };
    let array = filled(size, r#"{"secrets":["#, small, "]}");
    // Base64 encodes three bytes as four.
    let encoded = filled(size / 4 * 3, r#"{"secrets":["#, small, "]}");
    let encoded = format!("\"{}\"", BASE64_STANDARD.encode(encoded));
    let headers = filled(size, r#","headers":{"#, |n| format!(r#""x-{n}":"""#), "}");
    let query = filled(size, r#","rawQueryString":""#, |n| n.to_string(), "\"").replace(',', "&");
    let query = query.replacen('&', ",", 1);
    vec![
        ("hints of nothing", filled(size, r#"{"contexts":["#, small, "]}"), hints),
        ("an array in an array", filled(size, r#"{"version":["#, |_| "[]".into(), "]}"), either),
        ("a map of secrets", filled(size, r#"{"secrets":{"#, numbered, "}}"), several),
        ("a wide context", filled(size, r#"{"context":{"#, numbered, "}}"), context),
        ("one field again and again", filled(size, "{", same, "}"), nothing),
        ("many fields", filled(size, "{", numbered, "}"), nothing),
        ("many headers", http("\"{}\"", &headers), nothing),
        ("a long query", http("\"{}\"", &query), nothing),
        ("a body in base64", http(&encoded, r#","isBase64Encoded":true"#), several),
        ("a body of small objects", http(&serde_json::to_string(&array).unwrap(), ""), several),
        ("secrets of nothing", array, several),
    ]
}

#[test]
fn a_request_uses_a_few_times_its_size_whatever_its_content() {
    const MB: usize = 1024 * 1024;
    for size in [MB * 3 / 2, MB * 59 / 10] {
        for (what, request, read) in requests(size) {
            let length = request.len();
            let event = RawValue::from_string(request).unwrap();
            // Resets the peak to the memory in use.
            fs::write("/proc/self/clear_refs", "5").unwrap();
            let before = status("VmRSS:");
            let Request { fields, .. } = Request::read(event);
            let read = fields.and_then(|mut fields| read(&mut fields));
            let used = status("VmHWM:").saturating_sub(before);
            assert_eq!(read.is_ok(), what == "many headers", "{what}");
            assert!(used < 4 * length + 4 * MB, "{what}: {used} bytes for {length}");
        }
    }
}
