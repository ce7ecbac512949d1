//! Rows of other programs, opened or refused as `vectors.json` says.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use coffer::envelope::{Dialect, Envelope, OpenError, OpenedVersion};
use coffer::row::{Attribute, Row};
use coffer::secret::DataKey;
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    dialect: String,
    data_key: String,
    wrapped_key: String,
    item: BTreeMap<String, Typed>,
    expect: Expect,
}

#[derive(Deserialize)]
enum Typed {
    S(String),
    B(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Plaintext(String),
    Error(String),
}

impl Vector {
    fn row(&self) -> Row {
        let attribute = |value: &Typed| match value {
            Typed::S(text) => Attribute::Text(text.clone()),
            Typed::B(base64) => Attribute::Bytes(BASE64_STANDARD.decode(base64).unwrap()),
        };
        self.item.iter().map(|(name, value)| (name.clone(), attribute(value))).collect()
    }

    fn data_key(&self) -> DataKey {
        DataKey::new(hex::decode(&self.data_key).unwrap()).unwrap()
    }

    fn open(&self) -> Result<OpenedVersion, OpenError> {
        let row = self.row();
        let envelope = Envelope::parse(&row)?;
        assert_eq!(BASE64_STANDARD.encode(envelope.wrapped_key()), self.wrapped_key);
        envelope.open(&self.data_key())
    }
}

fn vectors() -> Vec<Vector> {
    let file: File = serde_json::from_str(include_str!("vectors.json")).unwrap();
    file.vectors
}

/// Returns the plaintext as a response shows it.
fn revealed(opened: &OpenedVersion) -> Vec<u8> {
    let mut json = Vec::new();
    coffer::secret::reveal(&opened.secret, &mut serde_json::Serializer::new(&mut json)).unwrap();
    let answer: BTreeMap<String, String> = serde_json::from_slice(&json).unwrap();
    match (answer.get("secret"), answer.get("secret_base64")) {
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).unwrap(),
        both => panic!("{both:?}"),
    }
}

#[test]
fn every_vector_is_opened_or_refused_as_expected() {
    let mut seen = BTreeMap::<&str, u32>::new();
    for vector in &vectors() {
        let name = &vector.name;
        match (&vector.expect, vector.open()) {
            (Expect::Plaintext(base64), Ok(opened)) => {
                assert_eq!(revealed(&opened), BASE64_STANDARD.decode(base64).unwrap(), "{name}");
                *seen.entry("opened").or_default() += 1;
            }
            (Expect::Error(kind), Err(refusal)) => {
                let code = match refusal {
                    OpenError::UnsupportedDigest | OpenError::Ambiguous => "Malformed".to_owned(),
                    refusal => format!("{refusal:?}"),
                };
                assert_eq!(*kind, code, "{name}");
                assert_eq!(
                    refusal == OpenError::UnsupportedDigest,
                    name == "unknown-digest",
                    "{name}"
                );
                *seen.entry("refused").or_default() += 1;
            }
            (_, result) => panic!("{name}: {result:?}"),
        }
    }
    assert_eq!(seen, BTreeMap::from([("opened", 22), ("refused", 8)]));
}

#[test]
fn the_dialect_is_recognized_by_the_row() {
    for vector in vectors().iter().filter(|vector| matches!(vector.expect, Expect::Plaintext(_))) {
        let expected = match (vector.dialect.as_str(), vector.name.as_str()) {
            // Sixteen bytes or fewer look the same in both directions of the counter.
            ("credstash" | "credstash-python2", _) | (_, "ru-short") => Dialect::Credstash,
            ("credentials-haskell", _) => Dialect::CredentialsHaskell,
            ("rucredstash-le32", _) => Dialect::RucredstashLe32,
            other => panic!("{other:?}"),
        };
        assert_eq!(vector.open().unwrap().dialect, Some(expected), "{}", vector.name);
    }
}

#[test]
fn every_shortened_or_lengthened_mac_is_refused_and_upper_case_is_not() {
    for vector in vectors().iter().filter(|vector| matches!(vector.expect, Expect::Plaintext(_))) {
        let row = vector.row();
        let (text, bytes) = match &row["hmac"] {
            Attribute::Text(text) => (text.clone(), false),
            Attribute::Bytes(bytes) => (String::from_utf8(bytes.clone()).unwrap(), true),
            other => panic!("{other:?}"),
        };
        let open = |hmac: String| {
            let mut row = row.clone();
            let hmac = if bytes { Attribute::Bytes(hmac.into()) } else { Attribute::Text(hmac) };
            row.insert("hmac".to_owned(), hmac);
            Envelope::parse(&row).unwrap().open(&vector.data_key())
        };
        let shorter = (0..text.len()).map(|length| text[..length].to_owned());
        let spaced = [format!(" {text}"), format!("{text} "), format!("{text}\n")];
        let others = [format!("{text}0"), text.repeat(2), "0".repeat(text.len())];
        for hmac in shorter.chain(others).chain(spaced) {
            let opened = open(hmac.clone());
            assert_eq!(opened.unwrap_err(), OpenError::Integrity, "{} {hmac:?}", vector.name);
        }
        let mixed = text.char_indices().map(|(at, c)| match at % 2 {
            0 => c.to_ascii_uppercase(),
            _ => c,
        });
        for hmac in [text.to_uppercase(), mixed.collect()] {
            let Expect::Plaintext(base64) = &vector.expect else { panic!("{}", vector.name) };
            let expected = BASE64_STANDARD.decode(base64).unwrap();
            assert_eq!(revealed(&open(hmac).unwrap()), expected, "{}", vector.name);
        }
    }
}
