//! A process reads a secret from a request and returns one in a response. Another process searches
//! its memory for both.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "the test starts itself again, and tells the copy so by a variable"
)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine};
use coffer::request::{Request, Response};
use coffer::secret::{Secret, reveal};
use serde_json::value::RawValue;

const READER: &str = "COFFER_TEST_READER";
const TEST: &str = "a_secret_leaves_no_copy_in_memory";

/// Builds a value at run time, so that the binary does not contain it. JSON readers unescape its
/// quote and backslash in a buffer of their own.
fn value(of: &str) -> String {
    let digits: String = (0..25).map(|digit: u32| (digit % 10).to_string()).collect();
    format!("{of}-\"q\\b-{digits}-{of}")
}

#[derive(serde::Serialize)]
struct OpenedVersion {
    #[serde(flatten, serialize_with = "reveal")]
    secret: Secret,
}

/// The reader: takes one request from standard input, as the runtime takes it from its socket,
/// returns the secret in it, and waits while its memory is searched.
fn read_and_respond() {
    let mut input = File::open("/dev/stdin").unwrap();
    let mut length = [0; 4];
    input.read_exact(&mut length).unwrap();
    let mut payload = vec![0; u32::from_le_bytes(length).try_into().unwrap()];
    input.read_exact(&mut payload).unwrap();
    let event: Box<RawValue> = serde_json::from_slice(&payload).unwrap();
    drop(payload);
    let Request { origin, fields, .. } = Request::read(event);
    let mut fields = fields.unwrap();
    let secret = fields.secret("secret").unwrap().unwrap();
    let kept = fields.secret("kept").unwrap().unwrap();
    fields.finish().unwrap();
    let answer = Response::json(&OpenedVersion { secret }).unwrap();
    let reply = origin.reply(Ok(answer)).unwrap();
    let sent = serde_json::to_vec(&reply).unwrap();
    let length = sent.len();
    drop((sent, reply));
    // Not through the test harness, which keeps the output.
    File::create("/dev/stdout").unwrap().write_all(&length.to_le_bytes()).unwrap();
    assert_eq!(input.read(&mut [0]).unwrap(), 0);
    drop(kept);
}

#[test]
fn a_secret_leaves_no_copy_in_memory() {
    if std::env::var_os(READER).is_some() {
        return read_and_respond();
    }
    let (value, kept) = (value("answered"), value("kept"));
    for request in [direct(&value, &kept), http(&value, &kept)] {
        let mut reader = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(READER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = reader.stdin.as_mut().unwrap();
        input.write_all(&u32::try_from(request.len()).unwrap().to_le_bytes()).unwrap();
        input.write_all(request.as_bytes()).unwrap();
        let answered = wait_for_response(&mut reader);
        let memory = memory_of(&reader);
        drop(reader.stdin.take());
        assert!(reader.wait().unwrap().success());

        assert!(answered > value.len());
        // The search finds what is still there, so a value that it does not find is gone.
        assert!(is_in(&memory, kept.as_bytes()));
        for form in forms(&value) {
            assert!(!is_in(&memory, &form), "{}", String::from_utf8_lossy(&form));
        }
    }
}

fn direct(value: &str, kept: &str) -> String {
    serde_json::json!({"secret": value, "kept": kept}).to_string()
}

fn http(value: &str, kept: &str) -> String {
    serde_json::json!({
        "requestContext": {"http": {"method": "PUT"}},
        "body": direct(value, kept),
    })
    .to_string()
}

/// Waits until the reader is done: after the lines of its harness, eight bytes of a length.
fn wait_for_response(reader: &mut Child) -> usize {
    let mut output = Vec::new();
    let stdout = reader.stdout.as_mut().unwrap();
    loop {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        output.push(byte[0]);
        if let Some((length, _)) = output.split_last_chunk::<8>().map(|(rest, last)| (last, rest))
            && length[2..] == [0; 6]
        {
            return usize::from_le_bytes(*length);
        }
    }
}

/// Returns the value as it is, escaped as JSON, escaped as JSON within JSON, and in base64.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let escaped = |text: &str| serde_json::to_string(text).unwrap().trim_matches('"').to_owned();
    let once = escaped(value);
    let twice = escaped(&once);
    let base64 = BASE64_STANDARD.encode(&value[..value.len() / 3 * 3]);
    // And its end, which has no escapes, because the beginning may have been overwritten.
    let end = value[value.len() - 20..].to_owned();
    [value.to_owned(), once, twice, base64, end].map(String::into_bytes).to_vec()
}

fn is_in(memory: &[Vec<u8>], needle: &[u8]) -> bool {
    memory.iter().any(|region| region.windows(needle.len()).any(|window| window == needle))
}

/// Reads all writable memory of the process.
fn memory_of(process: &Child) -> Vec<Vec<u8>> {
    let root = format!("/proc/{}", process.id());
    let memory = File::open(format!("{root}/mem")).unwrap();
    let maps = fs::read_to_string(format!("{root}/maps")).unwrap();
    let regions = maps.lines().filter_map(|line| {
        let mut parts = line.split(' ');
        let (range, permissions) = (parts.next()?, parts.next()?);
        let (from, to) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (from, to) = (number(from)?, number(to)?);
        if !permissions.contains('w') {
            return None;
        }
        let mut region = vec![0; (to - from).try_into().ok()?];
        // Guard pages cannot be read.
        memory.read_exact_at(&mut region, from).ok().map(|()| region)
    });
    regions.collect()
}
