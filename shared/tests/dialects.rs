//! Rows of every client that writes the table: each is read as its client wrote it, or is refused.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]

#[path = "dialects/clients.rs"]
mod clients;

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use coffer::envelope::{
    Dialect, Envelope, OpenError, SealPlan, add_seal, is_seal_removed, seal, wrapped_key,
};
use coffer::row::{Attribute, Row};
use coffer::secret::{DataKey, Secret, reveal};
use proptest::prelude::*;

use clients::{CLIENTS, Client, Counter, RUST, SHA2, WRAPPED, crypt, the};

fn bytes(value: &Secret) -> Vec<u8> {
    let mut json = Vec::new();
    reveal(value, &mut serde_json::Serializer::new(&mut json)).unwrap();
    let answer: BTreeMap<String, String> = serde_json::from_slice(&json).unwrap();
    match (answer.get("secret"), answer.get("secret_base64")) {
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(base64)) => {
            let bytes = BASE64_STANDARD.decode(base64).unwrap();
            assert!(std::str::from_utf8(&bytes).is_err());
            bytes
        }
        both => panic!("{both:?}"),
    }
}

fn open(row: &Row, key: &[u8]) -> Result<(Vec<u8>, Option<Dialect>), OpenError> {
    let opened = Envelope::parse(row)?.open(&DataKey::new(key.to_vec()).unwrap())?;
    Ok((bytes(&opened.secret), opened.dialect))
}

fn examine(row: &Row, key: &[u8], dialect: Option<Dialect>) -> Result<SealPlan, OpenError> {
    Envelope::parse(row)?.examine(&DataKey::new(key.to_vec()).unwrap(), dialect)
}

/// Reseals a row under the same data key.
fn resealed(row: &Row, key: &[u8], dialect: Option<Dialect>) -> Result<Option<Row>, OpenError> {
    let data_key = DataKey::new(key.to_vec()).unwrap();
    Ok(match examine(row, key, dialect)? {
        SealPlan::AddSeal(secret) => Some(add_seal(&data_key, &secret, row.clone()).unwrap()),
        SealPlan::NewDataKey(secret) => {
            let mut described = row.clone();
            for part in ["contents", "hmac", "digest"] {
                described.remove(part);
            }
            let mut sealed = seal(&data_key, &secret, described).unwrap();
            sealed.insert("key".to_owned(), Attribute::Text("AAAA".to_owned()));
            Some(sealed)
        }
        SealPlan::NeedsHint | SealPlan::WrongHint => None,
    })
}

fn kind(examined: &Result<SealPlan, OpenError>) -> &'static str {
    match examined {
        Ok(SealPlan::AddSeal(_)) => "as it is",
        Ok(SealPlan::NewDataKey(_)) => "anew",
        Ok(SealPlan::NeedsHint) => "ambiguous",
        Ok(SealPlan::WrongHint) => "contradicted",
        Err(OpenError::Integrity) => "Integrity",
        Err(OpenError::Ambiguous) => "Ambiguous",
        Err(OpenError::Malformed | OpenError::UnsupportedDigest) => "Malformed",
    }
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

/// Encrypts a plaintext with one counter and decrypts it with another.
fn misread(key: &[u8], plaintext: &[u8], written: Counter, read: Counter) -> Vec<u8> {
    let mut bytes = plaintext.to_vec();
    crypt(written, key, &mut bytes);
    crypt(read, key, &mut bytes);
    bytes
}

/// Opens, examines and seals the row of one client. Every result must be the original bytes.
fn check(client: &Client, key: &[u8], plaintext: &[u8], digest: Option<&str>) {
    let case = format!("{} {digest:?} {plaintext:x?}", client.name);
    let row = client.row(key, plaintext, digest);
    assert_eq!(wrapped_key(&row).unwrap(), WRAPPED, "{case}");
    let opened = open(&row, key);
    // The one exception: text of rucredstash that is text for credstash as well is read as
    // credstash's. Nothing is written then.
    let either_text = client.counter == Counter::Little
        && plaintext.len() > 16
        && is_text(&misread(key, plaintext, Counter::Little, Counter::Big));
    match &opened {
        Ok((_, dialect)) if either_text => assert_eq!(*dialect, Some(Dialect::Credstash), "{case}"),
        Ok((bytes, _)) => assert_eq!(bytes, plaintext, "{case}"),
        Err(refusal) => {
            let excused = match refusal {
                OpenError::Ambiguous => {
                    client.looks_like_rucredstash(digest) && plaintext.len() > 16
                }
                OpenError::Integrity => client.counter == Counter::Zero && !is_text(plaintext),
                _ => false,
            };
            assert!(excused, "{case}: {refusal}");
        }
    }
    let whose = match client.counter {
        Counter::Big => Dialect::Credstash,
        Counter::Little => Dialect::RucredstashLe32,
        Counter::Zero => Dialect::CredentialsHaskell,
    };
    for dialect in [None, Some(whose)] {
        let Ok(Some(sealed)) = resealed(&row, key, dialect) else {
            // With a hint about its dialect it is sealed, unless the row contradicts the hint.
            assert!(dialect.is_none() || opened.is_err(), "{case}");
            continue;
        };
        assert!(!is_seal_removed(&sealed));
        let mut stripped = sealed.clone();
        stripped.remove("seal");
        assert_eq!(is_seal_removed(&stripped), !is_text(plaintext), "{case}");
        let hmac = sealed["hmac"].text().unwrap();
        assert!(hmac.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{case}");
        assert!(SHA2.contains(&sealed["digest"].text()), "{case}");
        assert_eq!(open(&sealed, key), Ok((plaintext.to_vec(), None)), "{case}");
    }
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 64)
}

/// Random bytes, text with a binary end, or text, each of 0 to 64 bytes.
fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..=64),
        ("[ -~]{16}", proptest::collection::vec(any::<u8>(), 0..=48)).prop_map(|(text, end)| [
            text.into_bytes(),
            end
        ]
        .concat()),
        ("[ -~]{16}", proptest::collection::vec(any::<u8>(), 0..=3)).prop_map(|(text, end)| [
            text.into_bytes(),
            end
        ]
        .concat()),
        "\\PC{0,21}".prop_map(String::into_bytes),
        "[ -~]{0,64}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn a_row_of_any_client_is_read_and_sealed_unchanged_or_refused(
        key in keys(),
        value in values(),
    ) {
        for client in CLIENTS {
            // rucredstash stores text only.
            if client.counter == Counter::Little && !is_text(&value) {
                continue;
            }
            for digest in client.digests {
                check(client, &key, &value, *digest);
            }
        }
    }
}

/// A data key.
fn key() -> Vec<u8> {
    (0..64).collect()
}

/// A data key and seventeen bytes encrypted under it. The flags say whether they are text for
/// credstash, which wrote them, and for rucredstash.
fn seventeen(text: bool, misread_text: bool) -> (Vec<u8>, Vec<u8>) {
    let last = if text { b'!' } else { 0xff };
    let value = [b"sixteen letters.".as_slice(), &[last]].concat();
    (0..=255_u8)
        .map(|seed| [seed; 64].to_vec())
        .find(|key| is_text(&misread(key, &value, Counter::Big, Counter::Little)) == misread_text)
        .map(|key| (key, value))
        .unwrap()
}

#[test]
fn a_row_that_rucredstash_cannot_have_written_is_credstashs() {
    let (key, value) = seventeen(false, true);
    for (client, digest) in [
        ("unicreds", None),
        ("an older unicreds", None),
        ("jcredstash", None),
        ("credstash on Python 2", Some("SHA256")),
        ("credstash on Python 3", Some("SHA224")),
        ("credstash on Python 3", Some("SHA")),
        ("nodecredstash", Some("sha256")),
    ] {
        let row = the(client).row(&key, &value, digest);
        let expected = (value.clone(), Some(Dialect::Credstash));
        assert_eq!(open(&row, &key), Ok(expected), "{client} {digest:?}");
        let sealed = resealed(&row, &key, None).unwrap().unwrap();
        assert_eq!(open(&sealed, &key), Ok((value.clone(), None)), "{client} {digest:?}");
        assert_eq!(sealed["binary"], Attribute::Flag(true));
    }
}

#[test]
fn a_short_value_that_either_client_may_have_written_is_not_guessed() {
    for digest in ["SHA256", "SHA384", "SHA512"] {
        let read = |(key, value): (Vec<u8>, Vec<u8>)| {
            let row = the("credstash on Python 3").row(&key, &value, Some(digest));
            let opened = open(&row, &key).map(|(bytes, dialect)| (bytes == value, dialect));
            (opened, kind(&examine(&row, &key, None)))
        };
        let credstash = Ok((true, Some(Dialect::Credstash)));
        // Binary for credstash, text for rucredstash.
        assert_eq!(read(seventeen(false, true)), (Err(OpenError::Ambiguous), "ambiguous"));
        // Text for both: it is read as credstash's, and nothing is written.
        assert_eq!(read(seventeen(true, true)), (credstash, "ambiguous"));
        // Not text for rucredstash: it is credstash's, text or not.
        assert_eq!(read(seventeen(true, false)), (credstash, "as it is"));
        assert_eq!(read(seventeen(false, false)), (credstash, "as it is"));
    }
}

#[test]
fn a_long_text_of_rucredstash_is_recognized_by_its_row() {
    let long = b"thirty bytes and more of plain text, as people have it";
    for digest in RUST {
        let row = the("rucredstash").row(&key(), long, *digest);
        let expected = (long.to_vec(), Some(Dialect::RucredstashLe32));
        assert_eq!(open(&row, &key()), Ok(expected));
        assert_eq!(kind(&examine(&row, &key(), None)), "anew");
        // Attributes of another client, which never writes this: they were changed.
        let mut of_credstash = row.clone();
        let hmac = String::from_utf8(row["hmac"].bytes().unwrap().to_vec()).unwrap();
        of_credstash.insert("hmac".to_owned(), Attribute::Text(hmac));
        assert_eq!(open(&of_credstash, &key()), Err(OpenError::Integrity));
        assert_eq!(kind(&examine(&of_credstash, &key(), None)), "Integrity");
    }
}

#[test]
fn a_hint_decides_only_between_two_possible_dialects() {
    let (credstash, rucredstash) = (Some(Dialect::Credstash), Some(Dialect::RucredstashLe32));
    let haskell = Some(Dialect::CredentialsHaskell);
    let python = the("credstash on Python 3");
    let long = b"thirty bytes and more of plain text, as people have it".to_vec();
    let sha256 = Some("SHA256");
    for (client, (key, value), digest, as_credstash, as_rucredstash, as_haskell) in [
        // Either is possible. The hint may be wrong, so the earlier form is kept.
        (python, seventeen(true, true), sha256, "anew", "anew", "no"),
        (python, seventeen(false, true), sha256, "anew", "anew", "no"),
        // Both read the same bytes.
        (python, (key(), b"short".to_vec()), sha256, "as it is", "as it is", "no"),
        // credstash's, because rucredstash would not read text.
        (python, (key(), long.clone()), sha256, "as it is", "no", "no"),
        (python, seventeen(true, false), sha256, "as it is", "no", "no"),
        // credstash's, because the attributes are not rucredstash's.
        (python, seventeen(true, true), Some("SHA224"), "as it is", "no", "no"),
        (python, (key(), b"short".to_vec()), None, "as it is", "no", "no"),
        // rucredstash's, because credstash would read noise.
        (the("rucredstash"), (key(), long.clone()), sha256, "no", "anew", "no"),
        (the("Haskell's credentials"), (key(), long.clone()), None, "no", "no", "anew"),
    ] {
        let row = client.row(&key, &value, digest);
        for (dialect, expected) in
            [(credstash, as_credstash), (rucredstash, as_rucredstash), (haskell, as_haskell)]
        {
            let expected = if expected == "no" { "contradicted" } else { expected };
            let examined = examine(&row, &key, dialect);
            assert_eq!(kind(&examined), expected, "{value:x?} {digest:?} {dialect:?}");
        }
    }
    let row = python.row(&key(), &long, Some("SHA256"));
    let sealed = resealed(&row, &key(), None).unwrap().unwrap();
    assert_eq!(kind(&examine(&sealed, &key(), None)), "contradicted");
}

#[test]
fn a_legacy_row_with_text_changed_to_bytes_or_the_reverse_is_refused() {
    let value = b"a password of some length";
    let as_bytes = |row: &Row, name: &str| {
        Attribute::Bytes(BASE64_STANDARD.decode(row[name].text().unwrap()).unwrap())
    };
    for (client, digest) in [
        ("an older unicreds", None),
        ("credstash on Python 2", Some("SHA256")),
        ("credstash on Python 3", Some("SHA256")),
    ] {
        let mut row = the(client).row(&key(), value, digest);
        for name in ["key", "contents"] {
            row.insert(name.to_owned(), as_bytes(&row, name));
        }
        // The attributes are not those of the Haskell client.
        assert_eq!(open(&row, &key()), Err(OpenError::Malformed), "{client}");
        assert_eq!(kind(&examine(&row, &key(), None)), "Malformed");
        // Now they are.
        let hmac = match &row["hmac"] {
            Attribute::Bytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            other => other.text().unwrap().to_owned(),
        };
        row.insert("hmac".to_owned(), Attribute::Text(hmac));
        row.insert("revision".to_owned(), Attribute::Bytes(b"d2bc0c9".to_vec()));
        row.remove("digest");
        assert_eq!(open(&row, &key()), Err(OpenError::Integrity), "{client}");
        assert_eq!(kind(&examine(&row, &key(), None)), "Integrity");
        let hint = Some(Dialect::CredentialsHaskell);
        assert_eq!(kind(&examine(&row, &key(), hint)), "Integrity");
    }
    let haskell = the("Haskell's credentials").row(&key(), value, None);
    let mut row = haskell.clone();
    for name in ["key", "contents"] {
        let text = BASE64_STANDARD.encode(row[name].bytes().unwrap());
        row.insert(name.to_owned(), Attribute::Text(text));
    }
    assert_eq!(open(&row, &key()), Err(OpenError::Integrity));
    assert_eq!(kind(&examine(&row, &key(), None)), "Integrity");
    // The Haskell client never writes this.
    for (name, attribute) in [
        ("digest", Some(Attribute::Text("SHA256".to_owned()))),
        ("hmac", Some(Attribute::Bytes(haskell["hmac"].text().unwrap().into()))),
        ("revision", None),
        ("revision", Some(Attribute::Bytes(b"d2bc0c".to_vec()))),
        ("revision", Some(Attribute::Bytes(b"no hex!".to_vec()))),
        ("revision", Some(Attribute::Text("d2bc0c9".to_owned()))),
    ] {
        let mut row = haskell.clone();
        row.remove(name);
        row.extend(attribute.map(|attribute| (name.to_owned(), attribute)));
        assert_eq!(open(&row, &key()), Err(OpenError::Malformed), "{name} {:?}", row.get(name));
    }
    assert_eq!(open(&haskell, &key()).unwrap().0, value);
}

#[test]
fn only_white_space_in_base64_is_skipped() {
    let row = the("credstash on Python 2").row(&key(), b"a password", Some("SHA256"));
    for name in ["key", "contents"] {
        let text = row[name].text().unwrap();
        let with = |between: &str| {
            let mut row = row.clone();
            let text = format!("{between}{}{between}{}{between}", &text[..5], &text[5..]);
            row.insert(name.to_owned(), Attribute::Text(text));
            row
        };
        for space in [" ", "\t", "\n", "\r\n", "\u{b}", "\u{c}", " \n \n"] {
            let opened = open(&with(space), &key()).map(|(bytes, _)| bytes);
            assert_eq!(opened, Ok(b"a password".to_vec()), "{name} {space:?}");
            assert_eq!(wrapped_key(&with(space)).unwrap(), WRAPPED);
        }
        for other in ["\0", "-", "\u{a0}", "\u{2028}", "=", "!"] {
            assert_eq!(open(&with(other), &key()), Err(OpenError::Malformed), "{name} {other:?}");
        }
    }
}

#[test]
fn an_unsupported_digest_has_its_own_refusal() {
    let mut row = the("credstash on Python 2").row(&key(), b"s", None);
    for (digest, refusal) in [
        (Attribute::Text("SHA3-256".to_owned()), OpenError::UnsupportedDigest),
        (Attribute::Text("x".repeat(100_000)), OpenError::UnsupportedDigest),
        (Attribute::Text(String::new()), OpenError::UnsupportedDigest),
        (Attribute::Number("1".to_owned()), OpenError::Malformed),
    ] {
        row.insert("digest".to_owned(), digest);
        assert_eq!(open(&row, &key()), Err(refusal));
    }
}

#[test]
fn a_row_with_attributes_of_a_sealed_row_but_no_seal_is_stripped() {
    let row = the("credstash on Python 2").row(&key(), b"s", None);
    assert!(!is_seal_removed(&row));
    for mark in ["binary", "context", "json"] {
        for value in [Attribute::Flag(true), Attribute::Map(BTreeMap::new()), Attribute::Foreign] {
            let mut row = row.clone();
            row.insert(mark.to_owned(), value);
            assert!(is_seal_removed(&row), "{mark}");
            row.insert("seal".to_owned(), Attribute::Text(String::new()));
            assert!(!is_seal_removed(&row), "{mark}");
        }
    }
}

#[test]
fn a_json_object_is_marked_when_it_is_sealed() {
    let python = the("credstash on Python 2");
    for (value, marked) in [("{\"user\": \"app\", \"password\": \"x\"}", true), ("[1]", false)] {
        for digest in [Some("SHA"), Some("SHA256")] {
            let row = python.row(&key(), value.as_bytes(), digest);
            let sealed = resealed(&row, &key(), None).unwrap().unwrap();
            let mark = sealed.get("json");
            assert_eq!(mark, marked.then_some(&Attribute::Flag(true)), "{value} {digest:?}");
            let mut edited = sealed.clone();
            if edited.remove("json").is_none() {
                edited.insert("json".to_owned(), Attribute::Flag(true));
            }
            assert_eq!(open(&edited, &key()), Err(OpenError::Integrity), "{value} {digest:?}");
        }
    }
}
