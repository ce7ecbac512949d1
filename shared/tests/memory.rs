//! A process reads a secret from a request and answers with one, and another process looks for
//! what is left of them in its memory.

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
use coffer::event::{Answer, Received};
use coffer::secret::{Secret, reveal};
use serde_json::value::RawValue;

const READER: &str = "COFFER_TEST_READER";
const TEST: &str = "a_secret_leaves_nothing_behind_in_memory";

/// Not in the binary as it stands: it is put together when the test runs. The quote and the
/// backslash make escapes, which JSON readers unescape in a buffer of their own.
fn value(of: &str) -> String {
    let digits: String = (0..25).map(|digit: u32| (digit % 10).to_string()).collect();
    format!("{of}-\"q\\b-{digits}-{of}")
}

#[derive(serde::Serialize)]
struct Opened {
    #[serde(flatten, serialize_with = "reveal")]
    secret: Secret,
}

/// The reader: takes one request from standard input, as the runtime takes it from its socket,
/// answers with the secret in it, and then waits, to be looked at.
fn read_and_answer() {
    let mut input = File::open("/dev/stdin").unwrap();
    let mut length = [0; 4];
    input.read_exact(&mut length).unwrap();
    let mut payload = vec![0; u32::from_le_bytes(length).try_into().unwrap()];
    input.read_exact(&mut payload).unwrap();
    let event: Box<RawValue> = serde_json::from_slice(&payload).unwrap();
    drop(payload);
    let Received { origin, fields, .. } = Received::read(event);
    let mut fields = fields.unwrap();
    let secret = fields.secret("secret").unwrap().unwrap();
    let kept = fields.secret("kept").unwrap().unwrap();
    fields.finish().unwrap();
    let answer = Answer::json(&Opened { secret }).unwrap();
    let reply = origin.reply(Ok(answer)).unwrap();
    let sent = serde_json::to_vec(&reply).unwrap();
    let length = sent.len();
    drop((sent, reply));
    // Past the test harness, which keeps what is printed.
    File::create("/dev/stdout").unwrap().write_all(&length.to_le_bytes()).unwrap();
    assert_eq!(input.read(&mut [0]).unwrap(), 0);
    drop(kept);
}

#[test]
fn a_secret_leaves_nothing_behind_in_memory() {
    if std::env::var_os(READER).is_some() {
        return read_and_answer();
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
        let answered = answered(&mut reader);
        let memory = memory_of(&reader);
        drop(reader.stdin.take());
        assert!(reader.wait().unwrap().success());

        assert!(answered > value.len());
        // What is still there is found, so what is not found is gone.
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

/// Waits until the reader is done: past the lines of its harness, eight bytes of a length.
fn answered(reader: &mut Child) -> usize {
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

/// The value as it is, as JSON escapes it, as JSON in JSON does, and in base64.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let escaped = |text: &str| serde_json::to_string(text).unwrap().trim_matches('"').to_owned();
    let once = escaped(value);
    let twice = escaped(&once);
    let base64 = BASE64_STANDARD.encode(&value[..value.len() / 3 * 3]);
    // The end of it, too, which no escape changes: the beginning may have been written over.
    let end = value[value.len() - 20..].to_owned();
    [value.to_owned(), once, twice, base64, end].map(String::into_bytes).to_vec()
}

fn is_in(memory: &[Vec<u8>], needle: &[u8]) -> bool {
    memory.iter().any(|region| region.windows(needle.len()).any(|window| window == needle))
}

/// All that the process can write to.
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
