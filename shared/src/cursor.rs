//! The position at which a listing continues: responses return it as `next`, and the next request
//! passes it back.

use std::str::FromStr;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};

use crate::error::Error;
use crate::name::{Name, VersionKey};
use crate::store::item::Key;

/// The key of the last row that the caller has seen, opaque to callers. It never names a row that
/// was not listed. A forged cursor only changes where the listing continues.
#[derive(Clone, Debug)]
pub struct Cursor(pub Key);

impl serde::Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = serde_json::to_vec(&self.0).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&BASE64_URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let key = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let key = key.and_then(|json| serde_json::from_slice::<Key>(&json).ok());
        // Check against DynamoDB's limits for keys, because other clients wrote names and versions
        // that Coffer does not.
        key.filter(|key| {
            (1..=Name::MAX_STORED_BYTES).contains(&key.name.len())
                && (1..=VersionKey::MAX_BYTES).contains(&key.version.len())
        })
        .map(Self)
        .ok_or(Error::invalid(
            "`next` must be the value of `next` from an earlier response, unchanged.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back() {
        let key = Key { name: "/ключ".to_owned(), version: "release-2".to_owned() };
        let json = serde_json::to_string(&Cursor(key.clone())).unwrap();
        let text: String = serde_json::from_str(&json).unwrap();
        assert_eq!(text.parse::<Cursor>().unwrap().0, key);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        for bad in ["", "e30", "!", &text[1..]] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
