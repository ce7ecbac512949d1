//! Rows of Coffer and of other clients.

use std::collections::BTreeMap;

use aes::cipher::{KeyIvInit, StreamCipher};
use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, KeyInit, Mac};
use rand::TryRng;
use rand::rngs::SysRng;
use serde_json::{Value, json};

use super::{World, base64, bytes, map, text};
use crate::envelope;
use crate::row::{Attribute, Row};
use crate::secret::{DataKey, Secret};
use crate::testing::{Item, KEY};

impl World {
    /// A row as credstash writes it.
    pub(super) fn credstash(&self, name: &str, version: &str, value: &str) -> Item {
        self.credstash_under(KEY, &[], name, version, value)
    }

    /// A row as credstash writes it, with a data key wrapped by this key under a context.
    pub(super) fn credstash_under(
        &self,
        key: &str,
        context: &[(&str, &str)],
        name: &str,
        version: &str,
        value: &str,
    ) -> Item {
        let mut row = self.seal(key, context, name, version, value);
        for sealed in ["seal", "context", "binary", "json", "revision"] {
            row.remove(sealed);
        }
        row
    }

    /// A sealed row.
    pub(super) fn sealed(&self, name: &str, version: &str, value: &str) -> Item {
        self.seal(KEY, &[], name, version, value)
    }

    fn seal(
        &self,
        key: &str,
        context: &[(&str, &str)],
        name: &str,
        version: &str,
        value: &str,
    ) -> Item {
        let mut data_key = vec![0; 64];
        SysRng.try_fill_bytes(&mut data_key).unwrap();
        let wrapped = self.aws.wrap(key, context, &data_key);
        let attribute = |text: &str| Attribute::Text(text.to_owned());
        let row = Row::from([
            ("name".to_owned(), attribute(name)),
            ("version".to_owned(), attribute(version)),
            ("revision".to_owned(), Attribute::Bytes(b"0a1b2c3d".to_vec())),
            ("context".to_owned(), Attribute::Map(BTreeMap::new())),
        ]);
        let secret = Secret::new(value.as_bytes().to_vec());
        let row = envelope::seal(&DataKey::new(data_key).unwrap(), &secret, row).unwrap();
        let mut item: Item = row.into_iter().map(|(name, value)| (name, value_of(value))).collect();
        item.insert("key".to_owned(), base64(&wrapped));
        item
    }

    /// A row whose MAC is HMAC-MD5, as credstash allowed.
    pub(super) fn md5(&self, name: &str, version: &str, value: &str) -> Item {
        let mut row = self.credstash(name, version, value);
        let contents = BASE64_STANDARD.decode(row["contents"]["S"].as_str().unwrap()).unwrap();
        let key = data_key(&row);
        let mac = <Hmac<md5::Md5> as KeyInit>::new_from_slice(&key[32..]).unwrap();
        let mac = mac.chain_update(contents).finalize().into_bytes();
        row.insert("hmac".to_owned(), text(&hex::encode(mac)));
        row.insert("digest".to_owned(), text("MD5"));
        row
    }

    /// A row as rucredstash writes it, with a little-endian counter.
    pub(super) fn rucredstash(&self, name: &str, version: &str, value: &str) -> Item {
        let mut row = self.credstash(name, version, value);
        let mut contents = value.as_bytes().to_vec();
        little_endian(&row, &mut contents);
        row.insert("hmac".to_owned(), bytes(hmac(&row, &contents).as_bytes()));
        row.insert("contents".to_owned(), base64(&contents));
        row
    }

    /// A row as Haskell's `credentials` writes it: raw bytes, and a counter that begins at zero.
    pub(super) fn haskell(&self, name: &str, version: &str, value: &str) -> Item {
        let mut row = self.credstash(name, version, value);
        let mut contents = value.as_bytes().to_vec();
        let key: [u8; 32] = data_key(&row)[..32].try_into().unwrap();
        ctr::Ctr128BE::<aes::Aes256>::new(&key.into(), &[0; 16].into())
            .apply_keystream(&mut contents);
        row.remove("digest");
        row.insert("hmac".to_owned(), text(&hmac(&row, &contents)));
        row.insert("contents".to_owned(), bytes(&contents));
        row.insert("key".to_owned(), json!({ "B": row["key"]["S"] }));
        row.insert("revision".to_owned(), bytes(b"0a1b2c3d"));
        row
    }

    /// A row of credstash that rucredstash could have written: text in both readings.
    pub(super) fn two_readings(&self, name: &str, version: &str, value: &str) -> Item {
        loop {
            let mut row = self.credstash(name, version, value);
            let mut contents =
                BASE64_STANDARD.decode(row["contents"]["S"].as_str().unwrap()).unwrap();
            let mac = bytes(hmac(&row, &contents).as_bytes());
            little_endian(&row, &mut contents);
            if std::str::from_utf8(&contents).is_ok() {
                row.insert("hmac".to_owned(), mac);
                return row;
            }
        }
    }
}

/// HMAC-SHA256 of a ciphertext, in hexadecimal.
fn hmac(row: &Item, contents: &[u8]) -> String {
    let mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(&data_key(row)[32..]).unwrap();
    hex::encode(mac.chain_update(contents).finalize().into_bytes())
}

/// Encrypts or decrypts as rucredstash does.
fn little_endian(row: &Item, contents: &mut [u8]) {
    let key: [u8; 32] = data_key(row)[..32].try_into().unwrap();
    ctr::Ctr32LE::<aes::Aes256>::new(&key.into(), &1_u128.to_be_bytes().into())
        .apply_keystream(contents);
}

/// Returns the data key of a row.
pub(super) fn data_key(row: &Item) -> Vec<u8> {
    let wrapped = BASE64_STANDARD.decode(row["key"]["S"].as_str().unwrap()).unwrap();
    let wrapped: Value = serde_json::from_slice(&wrapped).unwrap();
    serde_json::from_value(wrapped["data_key"].clone()).unwrap()
}

fn value_of(attribute: Attribute) -> Value {
    match attribute {
        Attribute::Text(value) => text(&value),
        Attribute::Bytes(value) => bytes(&value),
        Attribute::Flag(value) => json!({ "BOOL": value }),
        Attribute::Map(pairs) => {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            map(&pairs)
        }
        other => panic!("{other:?}"),
    }
}
