//! The reseal of rows of other programs: what each becomes, and which are not changed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use coffer::envelope::{Envelope, OpenError, SealPlan, add_seal, seal};
use coffer::row::{Attribute, Row};
use coffer::secret::{DataKey, Secret, reveal};
use serde_json::Value;

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

fn kind(examined: &Result<SealPlan, OpenError>) -> &'static str {
    match examined {
        Ok(SealPlan::AddSeal(_)) => "as it is",
        Ok(SealPlan::NewDataKey(_)) => "anew",
        Ok(SealPlan::NeedsHint) => "ambiguous",
        Ok(SealPlan::WrongHint) => "contradicted",
        Err(OpenError::Integrity) => "Integrity",
        Err(_) => "Malformed",
    }
}

/// Every vector, and the result of its reseal. None of them is text in either dialect.
#[test]
fn every_vector_is_resealed_as_expected() {
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
        // With the seal, it opens to the same value, and the seal is valid.
        let sealed = match examined.unwrap() {
            SealPlan::AddSeal(secret) => add_seal(&key(), &secret, row.clone()).unwrap(),
            SealPlan::NewDataKey(secret) => {
                assert_eq!(bytes(&secret), plaintext, "{name}");
                let mut described = row.clone();
                for part in ["contents", "hmac", "digest"] {
                    described.remove(part);
                }
                let mut sealed = seal(&key(), &secret, described).unwrap();
                sealed.insert("key".to_owned(), Attribute::Text("AAAA".to_owned()));
                sealed
            }
            SealPlan::NeedsHint | SealPlan::WrongHint => panic!("{name}"),
        };
        assert!(sealed["hmac"].text().is_some(), "{name}");
        let opened = Envelope::parse(&sealed).unwrap().open(&key()).unwrap();
        assert_eq!((bytes(&opened.secret), opened.dialect), (plaintext, None), "{name}");
    }
}
