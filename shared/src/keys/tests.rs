//! Keys on a KMS in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Keys, Rewrapped, Unwrapped};
use crate::encryption_context::EncryptionContext;
use crate::error::Error;
use crate::testing::{Aws, Fault, KEY};

const OTHER: &str = "arn:aws:kms:eu-west-1:111122223333:key/other";
const RETIRED: &str = "arn:aws:kms:eu-west-1:111122223333:key/retired";
const OLDEST: &str = "arn:aws:kms:eu-west-1:111122223333:key/oldest";

const DATA_KEY: [u8; 64] = [7; 64];

fn aws() -> Aws {
    let aws = Aws::new();
    for key in [OTHER, RETIRED, OLDEST] {
        aws.add_key(key);
    }
    aws
}

fn keys(aws: &Aws, retired: &[&str]) -> Keys {
    cached_keys(aws, retired, Duration::ZERO)
}

fn cached_keys(aws: &Aws, retired: &[&str], cache: Duration) -> Keys {
    let retired = retired.iter().map(|arn| (*arn).to_owned()).collect();
    Keys::new(aws.kms(), KEY.to_owned(), retired, cache)
}

fn context(value: &str) -> EncryptionContext {
    EncryptionContext::new(BTreeMap::from([("app".to_owned(), value.to_owned())])).unwrap()
}

/// What came of unwrapping, in a word.
fn outcome(unwrapped: Result<Unwrapped, Error>) -> String {
    match unwrapped {
        Ok(Unwrapped::Key(key)) if key.encryption() == &DATA_KEY[..32] => "key".to_owned(),
        Ok(Unwrapped::Key(_)) => "another key".to_owned(),
        Ok(Unwrapped::Refused) => "refused".to_owned(),
        Ok(Unwrapped::Foreign) => "foreign".to_owned(),
        Ok(Unwrapped::Unusable(error)) => format!("unusable: {}", error.detail().unwrap()),
        Err(error) => format!("error: {}", error.detail().unwrap()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_generated_data_key_unwraps_under_its_context_only() {
    let aws = aws();
    let keys = keys(&aws, &[]);
    let (key, wrapped) = keys.generate(&context("x")).await.unwrap();
    let Unwrapped::Key(unwrapped) = keys.unwrap(&wrapped, &context("x")).await.unwrap() else {
        panic!("it unwraps")
    };
    assert_eq!(unwrapped.encryption(), key.encryption());
    assert_eq!(unwrapped.authentication(), key.authentication());
    for other in [context("y"), EncryptionContext::default()] {
        assert_eq!(outcome(keys.unwrap(&wrapped, &other).await), "refused");
    }
    // No two are the same.
    let (other, _) = keys.generate(&context("x")).await.unwrap();
    assert_ne!(other.encryption(), key.encryption());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_a_wrapped_data_key_of_the_stack_does_not_unwrap() {
    let aws = aws();
    let keys = keys(&aws, &[]);
    for (wrapped, expected) in [
        (aws.wrap(KEY, &[], &DATA_KEY), "key"),
        (b"not a wrapped key".to_vec(), "refused"),
        (aws.wrap(OTHER, &[], &DATA_KEY), "foreign"),
        (aws.wrap(KEY, &[], &DATA_KEY[..32]), "foreign"),
    ] {
        assert_eq!(outcome(keys.unwrap(&wrapped, &EncryptionContext::default()).await), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_data_key_is_cached_for_its_context() {
    let aws = aws();
    let keys = cached_keys(&aws, &[], Duration::from_mins(1));
    let wrapped = aws.wrap(KEY, &[("app", "x")], &DATA_KEY);
    for _ in 0..3 {
        assert_eq!(outcome(keys.unwrap(&wrapped, &context("x")).await), "key");
    }
    assert_eq!(aws.calls("Decrypt"), 1);
    for calls in 2..4 {
        assert_eq!(outcome(keys.unwrap(&wrapped, &context("y")).await), "refused");
        assert_eq!(aws.calls("Decrypt"), calls);
    }
    // A generated data key seals one value, so it is not kept.
    let (_, wrapped) = keys.generate(&context("x")).await.unwrap();
    assert_eq!(outcome(keys.unwrap(&wrapped, &context("x")).await), "another key");
    assert_eq!(aws.calls("Decrypt"), 4);
}

#[tokio::test(start_paused = true)]
async fn retired_keys_unwrap_after_the_stacks_key() {
    let aws = aws();
    let keys = keys(&aws, &[RETIRED, OLDEST]);
    for (key, calls) in [(KEY, 1), (RETIRED, 2), (OLDEST, 3)] {
        let before = aws.calls("Decrypt");
        let wrapped = aws.wrap(key, &[], &DATA_KEY);
        assert_eq!(outcome(keys.unwrap(&wrapped, &EncryptionContext::default()).await), "key");
        assert_eq!(aws.calls("Decrypt") - before, calls);
    }
    let wrapped = aws.wrap(OTHER, &[], &DATA_KEY);
    assert_eq!(outcome(keys.unwrap(&wrapped, &EncryptionContext::default()).await), "foreign");
}

#[tokio::test(start_paused = true)]
async fn a_retired_key_that_cannot_be_used_stops_only_what_it_wrapped() {
    let aws = aws();
    let gone = "arn:aws:kms:eu-west-1:111122223333:key/gone";
    let keys = keys(&aws, &[gone, RETIRED, OLDEST]);
    let [own, retired, oldest] = [KEY, RETIRED, OLDEST].map(|key| aws.wrap(key, &[], &DATA_KEY));
    aws.disable_key(RETIRED, true);
    assert_eq!(outcome(keys.unwrap(&own, &EncryptionContext::default()).await), "key");
    assert_eq!(outcome(keys.unwrap(&oldest, &EncryptionContext::default()).await), "key");
    let result = outcome(keys.unwrap(&retired, &EncryptionContext::default()).await);
    assert!(result.starts_with(&format!("unusable: kms:Decrypt on {RETIRED}")), "{result}");
    // Without the stack's key nothing works.
    aws.disable_key(KEY, true);
    let result = outcome(keys.unwrap(&oldest, &EncryptionContext::default()).await);
    assert!(
        result.starts_with(&format!("error: kms:Decrypt on {KEY}: DisabledException")),
        "{result}"
    );
    assert!(matches!(keys.generate(&context("x")).await, Err(Error::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_denied_call_names_action_and_key() {
    let aws = aws();
    let keys = keys(&aws, &[]);
    let wrapped = aws.wrap(KEY, &[], &DATA_KEY);
    aws.fail("Decrypt", 1, Fault::Code("AccessDeniedException"));
    let result = outcome(keys.unwrap(&wrapped, &EncryptionContext::default()).await);
    assert!(result.starts_with(&format!("error: kms:Decrypt on {KEY}")), "{result}");
    aws.fail("GenerateDataKey", 1, Fault::Code("AccessDeniedException"));
    let error = keys.generate(&EncryptionContext::default()).await.unwrap_err();
    assert!(error.is_denied_by_kms());
    aws.fail("ReEncrypt", 1, Fault::Code("AccessDeniedException"));
    let error = keys.rewrap(&wrapped, &EncryptionContext::default()).await.unwrap_err();
    assert!(error.is_denied_by_kms());
}

#[tokio::test(start_paused = true)]
async fn a_context_that_kms_does_not_accept_is_invalid() {
    let aws = aws();
    let keys = keys(&aws, &[]);
    for (context, code) in
        [(context("x"), "Invalid"), (EncryptionContext::default(), "Unavailable")]
    {
        aws.fail("GenerateDataKey", 1, Fault::Code("ValidationException"));
        assert_eq!(keys.generate(&context).await.unwrap_err().code().name, code);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rewrapped_data_key_is_the_same_under_the_newest_key_material() {
    let aws = aws();
    let keys = keys(&aws, &[]);
    let wrapped = aws.wrap(KEY, &[("app", "x")], &DATA_KEY);
    assert_eq!(keys.rewrap(&wrapped, &context("x")).await.unwrap(), Rewrapped::Current);
    assert_eq!(keys.rewrap(&wrapped, &context("y")).await.unwrap(), Rewrapped::Refused);
    aws.rotate_key(KEY);
    let Rewrapped::Changed(rewrapped) = keys.rewrap(&wrapped, &context("x")).await.unwrap() else {
        panic!("it has old key material")
    };
    assert_ne!(rewrapped, wrapped);
    assert_eq!(outcome(keys.unwrap(&rewrapped, &context("x")).await), "key");
    assert_eq!(keys.rewrap(&rewrapped, &context("x")).await.unwrap(), Rewrapped::Current);
    let foreign = aws.wrap(OTHER, &[("app", "x")], &DATA_KEY);
    assert_eq!(keys.rewrap(&foreign, &context("x")).await.unwrap(), Rewrapped::Foreign);
}

#[tokio::test(start_paused = true)]
async fn a_rewrap_begins_with_the_key_that_wrapped_the_data_key_before() {
    let aws = aws();
    let keys = keys(&aws, &[RETIRED, OLDEST]);
    // Most data keys are wrapped by the newest retired key.
    for (key, calls) in [(RETIRED, 1), (RETIRED, 1), (OLDEST, 3), (OLDEST, 1), (KEY, 2), (KEY, 1)] {
        let before = aws.calls("ReEncrypt");
        let wrapped = aws.wrap(key, &[], &DATA_KEY);
        let rewrapped = keys.rewrap(&wrapped, &EncryptionContext::default()).await.unwrap();
        assert_eq!(rewrapped == Rewrapped::Current, key == KEY, "{key}");
        assert_eq!(aws.calls("ReEncrypt") - before, calls, "{key}");
    }
    aws.disable_key(RETIRED, true);
    let wrapped = aws.wrap(RETIRED, &[], &DATA_KEY);
    let rewrapped = keys.rewrap(&wrapped, &EncryptionContext::default()).await.unwrap();
    assert_eq!(rewrapped, Rewrapped::Foreign);
    aws.disable_key(KEY, true);
    assert!(keys.rewrap(&wrapped, &EncryptionContext::default()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_throttled_call_is_tried_four_times() {
    let aws = aws();
    let keys = keys(&aws, &[]);
    let wrapped = aws.wrap(KEY, &[], &DATA_KEY);
    aws.fail("Decrypt", 3, Fault::Code("ThrottlingException"));
    assert_eq!(outcome(keys.unwrap(&wrapped, &EncryptionContext::default()).await), "key");
    aws.fail("Decrypt", 4, Fault::Code("ThrottlingException"));
    let error = keys.unwrap(&wrapped, &EncryptionContext::default()).await.unwrap_err();
    assert!(error.is_busy());
    assert_eq!(aws.calls("Decrypt"), 8);
}

#[tokio::test(start_paused = true)]
async fn within_a_rate_limit_each_try_waits_for_its_turn() {
    let aws = aws();
    let keys = keys(&aws, &[]);
    let wrapped = aws.wrap(KEY, &[], &DATA_KEY);
    keys.rate_limit().set(10.0, Instant::now() + Duration::from_mins(1));
    let began = Instant::now();
    aws.fail("ReEncrypt", 5, Fault::Code("ThrottlingException"));
    let rewrapped = keys.rewrap(&wrapped, &EncryptionContext::default()).await.unwrap();
    assert_eq!(rewrapped, Rewrapped::Current);
    assert_eq!(aws.calls("ReEncrypt"), 6);
    // The rate is halved each time: 250 ms and twice as many each time after.
    let waited = began.elapsed();
    assert!((Duration::from_secs(7)..Duration::from_secs(12)).contains(&waited), "{waited:?}");
    // An error that another try does not change is returned at once.
    aws.fail("ReEncrypt", 1, Fault::Code("AccessDeniedException"));
    assert!(keys.rewrap(&wrapped, &EncryptionContext::default()).await.is_err());
    assert_eq!(aws.calls("ReEncrypt"), 7);
    aws.fail("ReEncrypt", usize::MAX, Fault::NoConnection);
    let error = keys.rewrap(&wrapped, &EncryptionContext::default()).await.unwrap_err();
    assert!(error.is_busy());
    assert!(began.elapsed() < Duration::from_secs(90), "{:?}", began.elapsed());
}
