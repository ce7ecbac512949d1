//! Rows that other programs wrote, given a seal: what each becomes, and what is left as it is.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};
use base64::prelude::{BASE64_STANDARD, Engine};
use coffer::envelope::{Dialect, Envelope, Examined, Refusal, seal, seal_over};
use coffer::row::{Attribute, Row};
use coffer::secret::{DataKey, Secret, reveal};
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use serde_json::Value;
use sha2::Sha256;

const SEED: u8 = 11;
const ONE: [u8; 16] = 1_u128.to_be_bytes();

fn bytes(value: &Secret) -> Vec<u8> {
    let mut json = Vec::new();
    reveal(value, &mut serde_json::Serializer::new(&mut json)).unwrap();
    let answer: BTreeMap<String, String> = serde_json::from_slice(&json).unwrap();
    match (answer.get("secret"), answer.get("secret_base64")) {
        (Some(text), None) => text.clone().into_bytes(),
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).unwrap(),
        both => panic!("{both:?}"),
    }
}

/// One under which the two readings of a seventeenth byte are text for many bytes.
fn key_bytes() -> Vec<u8> {
    (0..64).map(|byte: u8| byte.wrapping_mul(SEED)).collect()
}

fn key() -> DataKey {
    DataKey::new(key_bytes()).unwrap()
}

/// A row as credstash writes it, or as rucredstash does.
fn legacy(plaintext: &[u8], little: bool, hmac_as_bytes: bool, digest: Option<&str>) -> Row {
    let key = key_bytes();
    let mut contents = plaintext.to_vec();
    let (encryption, authentication) = key.split_at(32);
    let encryption: [u8; 32] = encryption.try_into().unwrap();
    if little {
        ctr::Ctr32LE::<Aes256>::new(&encryption.into(), &ONE.into()).apply_keystream(&mut contents);
    } else {
        ctr::Ctr128BE::<Aes256>::new(&encryption.into(), &ONE.into())
            .apply_keystream(&mut contents);
    }
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(authentication).unwrap();
    let hmac = hex::encode(mac.chain_update(&contents).finalize().into_bytes());
    let text = |text: &str| Attribute::Text(text.to_owned());
    let mut row = Row::from([
        ("name".to_owned(), text("n")),
        ("version".to_owned(), text("0000000000000000001")),
        ("key".to_owned(), text("AAAA")),
        ("contents".to_owned(), Attribute::Text(BASE64_STANDARD.encode(&contents))),
        (
            "hmac".to_owned(),
            if hmac_as_bytes { Attribute::Bytes(hmac.into()) } else { text(&hmac) },
        ),
    ]);
    row.extend(digest.map(|digest| ("digest".to_owned(), text(digest))));
    row
}

fn examine(row: &Row, dialect: Option<Dialect>) -> Result<Examined, Refusal> {
    Envelope::parse(row)?.examine(&key(), dialect)
}

fn kind(examined: &Result<Examined, Refusal>) -> &'static str {
    match examined {
        Ok(Examined::AsItIs(true)) => "as it is",
        Ok(Examined::AsItIs(false)) => "as it is, binary",
        Ok(Examined::Anew(_)) => "anew",
        Ok(Examined::Ambiguous) => "ambiguous",
        Err(Refusal::Integrity) => "Integrity",
        Err(Refusal::Malformed) => "Malformed",
    }
}

/// Every vector, and what it becomes. None of them is text either way.
#[test]
fn every_vector_becomes_what_it_should() {
    let file: Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
    for vector in file["vectors"].as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        let row: Row = vector["item"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, typed)| {
                let (kind, value) = typed.as_object().unwrap().iter().next().unwrap();
                let value = value.as_str().unwrap();
                let value = match kind.as_str() {
                    "B" => Attribute::Bytes(BASE64_STANDARD.decode(value).unwrap()),
                    _ => Attribute::Text(value.to_owned()),
                };
                (name.clone(), value)
            })
            .collect();
        let key =
            || DataKey::new(hex::decode(vector["data_key"].as_str().unwrap()).unwrap()).unwrap();
        let examined = match Envelope::parse(&row) {
            Ok(envelope) => envelope.examine(&key(), None),
            Err(refusal) => Err(refusal),
        };
        if let Some(error) = vector["expect"]["error"].as_str() {
            assert_eq!(kind(&examined), error, "{name}");
            continue;
        }
        let plaintext =
            BASE64_STANDARD.decode(vector["expect"]["plaintext"].as_str().unwrap()).unwrap();
        let expected = match (vector["dialect"].as_str().unwrap(), name) {
            ("credentials-haskell", _) | (_, "ru-long" | "digest-sha" | "digest-md5") => "anew",
            _ => "as it is",
        };
        assert_eq!(kind(&examined), expected, "{name}");
        // Sealed, it opens to the same, and carries a seal that holds.
        let sealed = match examined.unwrap() {
            Examined::AsItIs(_) => seal_over(&key(), row.clone()).unwrap(),
            Examined::Anew(secret) => {
                assert_eq!(bytes(&secret), plaintext, "{name}");
                let mut described = row.clone();
                for part in ["contents", "hmac", "digest"] {
                    described.remove(part);
                }
                let mut sealed = seal(&key(), &secret, described).unwrap();
                sealed.insert("key".to_owned(), Attribute::Text("AAAA".to_owned()));
                sealed
            }
            Examined::Ambiguous => panic!("{name}"),
        };
        assert!(sealed["hmac"].text().is_some(), "{name}");
        let opened = Envelope::parse(&sealed).unwrap().open(&key()).unwrap();
        assert_eq!((bytes(&opened.secret), opened.dialect), (plaintext, None), "{name}");
    }
}

#[test]
fn what_may_be_two_dialects_is_told_by_its_owner_or_left() {
    // Seventeen bytes: one byte is another in the other reading, and text as often as not.
    let both = (0..=255_u8)
        .map(|last| [b"sixteen letters.".as_slice(), &[last]].concat())
        .filter(|text| std::str::from_utf8(text).is_ok())
        .find(|text| {
            kind(&examine(&legacy(text, false, true, Some("SHA256")), None)) == "ambiguous"
        })
        .unwrap();
    let row = |digest, as_bytes| legacy(&both, false, as_bytes, digest);
    let credstash = Some(Dialect::Credstash);
    let rucredstash = Some(Dialect::RucredstashLe32);
    for digest in [None, Some("SHA256")] {
        let row = row(digest, true);
        assert_eq!(kind(&examine(&row, None)), "ambiguous");
        assert_eq!(kind(&examine(&row, credstash)), "as it is");
        assert_eq!(kind(&examine(&row, rucredstash)), "anew");
        // Haskell's rows look otherwise.
        assert_eq!(kind(&examine(&row, Some(Dialect::CredentialsHaskell))), "ambiguous");
    }
    // rucredstash writes its MAC as bytes.
    assert_eq!(kind(&examine(&row(Some("SHA256"), false), None)), "as it is");
    assert_eq!(kind(&examine(&row(Some("SHA256"), false), rucredstash)), "as it is");
}

#[test]
fn what_is_text_one_way_only_is_that_dialects() {
    let long = "thirty bytes and more of plain text, as people have it".as_bytes();
    for (little, as_bytes, expected) in [
        (false, true, "as it is"),
        (false, false, "as it is"),
        (true, true, "anew"),
        // The counter says rucredstash, the MAC's type says it is not.
        (true, false, "ambiguous"),
    ] {
        let row = legacy(long, little, as_bytes, Some("SHA256"));
        assert_eq!(kind(&examine(&row, None)), expected, "{little} {as_bytes}");
    }
    let binary = [0xff; 64];
    assert_eq!(kind(&examine(&legacy(&binary, false, true, None), None)), "as it is, binary");
    // Nobody is believed against the row.
    let row = legacy(long, false, true, Some("SHA256"));
    assert_eq!(kind(&examine(&row, Some(Dialect::RucredstashLe32))), "as it is");
    let sealed = seal_over(&key(), row).unwrap();
    assert_eq!(kind(&examine(&sealed, None)), "ambiguous");
}

proptest! {
    #[test]
    fn no_text_is_ever_read_as_another(
        text in "\\PC{0,60}",
        little in any::<bool>(),
        as_bytes in any::<bool>(),
    ) {
        let row = legacy(text.as_bytes(), little, as_bytes, Some("SHA256"));
        match examine(&row, None).unwrap() {
            Examined::Anew(secret) => prop_assert_eq!(bytes(&secret), text.as_bytes()),
            Examined::AsItIs(_) => {
                // Short enough to be the same either way, or written so.
                let opened = Envelope::parse(&row).unwrap().open(&key()).unwrap();
                prop_assert!(!little || text.len() <= 16 || !as_bytes
                    || bytes(&opened.secret) == text.as_bytes());
            }
            Examined::Ambiguous => prop_assert!(text.len() > 16),
        }
    }
}
