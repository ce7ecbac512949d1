//! A sealed row opens, and no longer does after a single bit of it has changed.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use coffer::envelope::{Envelope, OpenError, seal};
use coffer::row::{Attribute, Row};
use coffer::secret::{DataKey, Secret};
use proptest::prelude::*;

fn data_key(seed: u8) -> DataKey {
    DataKey::new((0..64).map(|i: u8| i.wrapping_mul(7) ^ seed).collect()).unwrap()
}

/// Creates the describing attributes of a row, of every type that Coffer writes.
fn described(name: &str, comment: &str, context: &BTreeMap<String, String>) -> Row {
    let text = |value: &str| Attribute::Text(value.to_owned());
    [
        ("name", text(name)),
        ("version", text("0000000000000000007")),
        ("comment", text(comment)),
        ("revision", Attribute::Bytes(b"0123456789abcdef".to_vec())),
        ("created_at", Attribute::Number("1790000000".to_owned())),
        ("expires_at", Attribute::Number("1800000000".to_owned())),
        ("context", Attribute::Map(context.clone())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Creates a row as it is stored: sealed, with the wrapped key added.
fn stored(plaintext: &[u8], description: Row) -> Row {
    let mut row = seal(&data_key(1), &Secret::new(plaintext.to_vec()), description).unwrap();
    row.insert("key".to_owned(), Attribute::Text("d3JhcHBlZA==".to_owned()));
    row
}

fn open(row: &Row, key: &DataKey) -> Result<Vec<u8>, OpenError> {
    let opened = Envelope::parse(row)?.open(key)?;
    assert_eq!(opened.dialect, None);
    let mut json = Vec::new();
    coffer::secret::reveal(&opened.secret, &mut serde_json::Serializer::new(&mut json)).unwrap();
    let answer: BTreeMap<String, String> = serde_json::from_slice(&json).unwrap();
    let decode = |text: &String| {
        use base64::prelude::{BASE64_STANDARD, Engine};
        BASE64_STANDARD.decode(text).unwrap()
    };
    Ok(answer
        .get("secret")
        .map_or_else(|| decode(&answer["secret_base64"]), |text| text.clone().into_bytes()))
}

/// Returns every value that differs from this one in a single bit and that DynamoDB can store.
fn flipped(attribute: &Attribute) -> Vec<Attribute> {
    let bits = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let flip = |bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        (0..bytes.len() * 8).map(flip).collect()
    };
    let texts = |text: &str| -> Vec<String> {
        bits(text.as_bytes()).into_iter().filter_map(|b| String::from_utf8(b).ok()).collect()
    };
    match attribute {
        Attribute::Text(text) => texts(text).into_iter().map(Attribute::Text).collect(),
        Attribute::Number(digits) => texts(digits)
            .into_iter()
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .map(Attribute::Number)
            .collect(),
        Attribute::Bytes(bytes) => bits(bytes).into_iter().map(Attribute::Bytes).collect(),
        Attribute::Flag(flag) => vec![Attribute::Flag(!flag)],
        Attribute::Map(pairs) => pairs
            .iter()
            .flat_map(|(key, value)| {
                let rest = |new_key: String, new_value: String| {
                    let mut pairs = pairs.clone();
                    pairs.remove(key);
                    pairs.insert(new_key, new_value);
                    Attribute::Map(pairs)
                };
                let keys = texts(key).into_iter().map(move |key| rest(key, value.clone()));
                let values = texts(value).into_iter().map(move |value| {
                    let mut pairs = pairs.clone();
                    pairs.insert(key.clone(), value);
                    Attribute::Map(pairs)
                });
                keys.chain(values).collect::<Vec<_>>()
            })
            .collect(),
        Attribute::Set(_) | Attribute::Foreign => vec![],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_under_any_name_and_context_round_trip(
        plaintext in proptest::collection::vec(any::<u8>(), 0..200),
        name in "\\PC{1,40}",
        comment in "\\PC{0,40}",
        context in proptest::collection::btree_map("\\PC{1,9}", "\\PC{0,9}", 0..4),
    ) {
        let row = stored(&plaintext, described(&name, &comment, &context));
        let text = std::str::from_utf8(&plaintext).is_ok();
        prop_assert_eq!(row.get("binary"), (!text).then_some(&Attribute::Flag(true)));
        prop_assert_eq!(open(&row, &data_key(1)), Ok(plaintext));
        prop_assert_eq!(open(&row, &data_key(2)), Err(OpenError::Integrity));
    }

    #[test]
    fn any_flipped_bit_of_any_sealed_attribute_is_refused(
        plaintext in proptest::collection::vec(any::<u8>(), 0..20),
        name in "\\PC{1,8}",
        context in proptest::collection::btree_map("\\PC{1,3}", "\\PC{0,3}", 0..3),
    ) {
        let row = stored(&plaintext, described(&name, "why", &context));
        for (attribute, value) in row.iter().filter(|(attribute, _)| *attribute != "key") {
            for value in flipped(value) {
                let mut row = row.clone();
                row.insert(attribute.clone(), value.clone());
                prop_assert!(open(&row, &data_key(1)).is_err(), "{} {:?}", attribute, value);
            }
        }
    }

    #[test]
    fn any_attribute_added_removed_or_of_another_type_is_refused(
        added in "[a-z]{1,6}",
        plaintext in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let row = stored(&plaintext, described("name", "why", &BTreeMap::new()));
        prop_assume!(!row.contains_key(&added));
        for value in [Attribute::Text(String::new()), Attribute::Foreign, Attribute::Flag(false)] {
            let mut row = row.clone();
            row.insert(added.clone(), value);
            prop_assert_eq!(open(&row, &data_key(1)), Err(OpenError::Integrity));
        }
        // Without its seal, a row is a legacy row. The stack decides whether it is opened.
        for attribute in row.keys().filter(|name| *name != "key" && *name != "seal") {
            let mut without = row.clone();
            without.remove(attribute);
            prop_assert!(open(&without, &data_key(1)).is_err(), "{}", attribute);
            let mut row = row.clone();
            row.insert(attribute.clone(), Attribute::Foreign);
            prop_assert!(open(&row, &data_key(1)).is_err(), "{}", attribute);
        }
    }
}

#[test]
fn a_mac_or_seal_that_is_shorter_or_longer_is_refused() {
    let row = stored(b"secret", described("name", "", &BTreeMap::new()));
    for attribute in ["hmac", "seal"] {
        let text = row[attribute].text().unwrap();
        let shorter = (0..text.len()).map(|length| text[..length].to_owned());
        for value in shorter.chain([format!("{text}0"), text.repeat(2)]) {
            let mut row = row.clone();
            row.insert(attribute.to_owned(), Attribute::Text(value.clone()));
            assert_eq!(open(&row, &data_key(1)), Err(OpenError::Integrity), "{attribute} {value}");
        }
    }
}

#[test]
fn a_wrapped_key_can_change_under_the_seal() {
    let mut row = stored(b"secret", described("name", "", &BTreeMap::new()));
    row.insert("key".to_owned(), Attribute::Text("YW5vdGhlcg==".to_owned()));
    assert_eq!(open(&row, &data_key(1)), Ok(b"secret".to_vec()));
}

/// A fixed row with its seal: later releases must open what this one seals.
#[test]
fn the_format_does_not_change() {
    let context = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let row = stored("pässword".as_bytes(), described("dev/db", "why", &context));
    let attribute = |name: &str| row[name].text().unwrap();
    // Computed independently of this code, with Python's hmac and cryptography.
    assert_eq!(attribute("contents"), "pTKX8E5A21wh");
    assert_eq!(
        attribute("hmac"),
        "96d309b536d875376dedf22147adb6166a7ba559e60578f6815cc9e541673f16"
    );
    assert_eq!(attribute("seal"), "Sx31KaG/vbzdkEQTie1LnVi2L4hKEXH4Tp4DWxJqOeY=");
}
