//! The overhead of Coffer over the calls that it needs, as ratios of medians from one run.
//!
//! `open` and `seal` are compared with bare AES-256-CTR and HMAC-SHA256 over the same bytes. With the
//! environment of a stack (`source .local/env`), a whole get is compared with its bare Query and
//! Decrypt, made with the same SDK in the same process.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and may panic")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};
use aws_config::BehaviorVersion;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kms::primitives::Blob;
use base64::prelude::{BASE64_STANDARD, Engine};
use coffer::audit_chain::Caller;
use coffer::encryption_context::EncryptionContext;
use coffer::envelope::{Envelope, seal};
use coffer::keys::Keys;
use coffer::name::Stage;
use coffer::operations::get::{GetOne, VersionSelector};
use coffer::operations::put::{NewVersion, Put, PutOutput, Value};
use coffer::operations::{Coffer, LegacyItems, Operation, StackOptions};
use coffer::row::{Attribute, Row};
use coffer::secret::{DataKey, Secret};
use coffer::store::ledger::Ledger;
use coffer::store::secrets_table::SecretsTable;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const RUNS: usize = 301;

fn main() {
    println!("{:28} {:>12} {:>12} {:>8}", "", "coffer", "bare", "ratio");
    for size in [64, 4096, 65536] {
        pure(size);
    }
    #[expect(clippy::disallowed_methods, reason = "a benchmark has no settings but these")]
    let variable = |name| std::env::var(name).ok();
    match (variable("COFFER_TABLE"), variable("COFFER_LEDGER"), variable("COFFER_KEY_ARN")) {
        (Some(table), Some(ledger), Some(key_arn)) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(whole(table, ledger, key_arn)),
        _ => println!("get: source .local/env to measure it"),
    }
}

fn report(what: &str, coffer: &mut [Duration], bare: &mut [Duration]) {
    let [coffer, bare] = [coffer, bare].map(|times| {
        times.sort_unstable();
        times.get(times.len() / 2).unwrap().as_secs_f64() * 1e6
    });
    println!("{what:28} {coffer:9.1} us {bare:9.1} us {:8.2}", coffer / bare);
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    black_box(work());
    began.elapsed()
}

fn bytes_of_key() -> Vec<u8> {
    (0..64).collect()
}

fn pure(size: usize) {
    let key = DataKey::new(bytes_of_key()).unwrap();
    let secret = || Secret::new(vec![b's'; size]);
    let text = |value: &str| Attribute::Text(value.to_owned());
    let description = Row::from([
        ("name".to_owned(), text("bench")),
        ("version".to_owned(), text("0000000000000000001")),
    ]);
    let mut row = seal(&key, &secret(), description.clone()).unwrap();
    row.insert("key".to_owned(), text("d3JhcHBlZA=="));
    let (mut seals, mut opens, mut encrypts, mut decrypts) = (vec![], vec![], vec![], vec![]);
    for _ in 0..RUNS {
        let (secret, described) = (secret(), description.clone());
        seals.push(timed(|| seal(&key, &secret, described).unwrap()));
        encrypts.push(timed(|| bare(vec![b's'; size])));
        opens.push(timed(|| Envelope::parse(&row).unwrap().open(&key).unwrap()));
        decrypts.push(timed(|| bare(vec![b's'; size])));
    }
    report(&format!("seal, {size} bytes"), &mut seals, &mut encrypts);
    report(&format!("open, {size} bytes"), &mut opens, &mut decrypts);
}

/// The minimum of credstash's format: one pass of AES-CTR, one of HMAC, one of base64.
fn bare(mut bytes: Vec<u8>) -> (String, Vec<u8>) {
    let key = bytes_of_key();
    let (encryption, authentication) = key.split_at(32);
    let block = 1_u128.to_be_bytes();
    ctr::Ctr128BE::<Aes256>::new_from_slices(encryption, &block)
        .unwrap()
        .apply_keystream(&mut bytes);
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(authentication).unwrap();
    let mac = mac.chain_update(&bytes).finalize().into_bytes().to_vec();
    (BASE64_STANDARD.encode(bytes), mac)
}

async fn whole(table: String, ledger: String, key_arn: String) {
    let config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .load()
        .await;
    let dynamodb = aws_sdk_dynamodb::Client::new(&config);
    let kms = aws_sdk_kms::Client::new(&config);
    let keys = Keys::new(kms.clone(), key_arn.clone(), Vec::new(), Duration::ZERO);
    let table_client = SecretsTable::new(dynamodb.clone(), table.clone());
    let ledger = Ledger::new(dynamodb.clone(), ledger);
    let options = StackOptions {
        legacy_items: LegacyItems::Refuse,
        forced_delete: false,
        history_days: None,
        notice_days: 0,
        kms_requests_per_second: 1,
    };
    let coffer = Coffer::new(Some(keys), Some(table_client), Some(ledger), options);
    let version = NewVersion {
        name: "bench".parse().unwrap(),
        value: Value::Given(Secret::new(vec![b's'; 64])),
        context: EncryptionContext::default(),
        comment: None,
        expiry: None,
        version: None,
    };
    let caller = Caller { who: "bench".to_owned(), request_id: "bench".to_owned() };
    let put = Put { versions: vec![version], prefix: None, token: None };
    let PutOutput::One(stored) = put.apply(&coffer, &caller).await.unwrap() else { return };
    let name = stored.name;
    let get = || GetOne {
        name: name.clone(),
        selector: VersionSelector::Stage(Stage::Current),
        context: EncryptionContext::default(),
        bare: false,
    };
    let (mut gets, mut calls) = (vec![], vec![]);
    // In turn, so that a slow moment affects both.
    for _ in 0..RUNS {
        let began = Instant::now();
        black_box(get().apply(&coffer).await.unwrap());
        gets.push(began.elapsed());

        let began = Instant::now();
        let query = dynamodb
            .query()
            .table_name(&table)
            .key_condition_expression("#name = :name")
            .expression_attribute_names("#name", "name")
            .expression_attribute_values(":name", AttributeValue::S(name.to_string()))
            .consistent_read(true)
            .scan_index_forward(false)
            .limit(1);
        let answer = query.send().await.unwrap();
        let wrapped = answer.items().first().unwrap().get("key").unwrap().as_s().unwrap();
        let wrapped = Blob::new(BASE64_STANDARD.decode(wrapped).unwrap());
        black_box(kms.decrypt().key_id(&key_arn).ciphertext_blob(wrapped).send().await.unwrap());
        calls.push(began.elapsed());
    }
    report("get, over its two calls", &mut gets, &mut calls);
}
