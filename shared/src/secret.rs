//! The types that hold secret bytes. They have an opaque `Debug`, cannot be cloned, and are wiped
//! on drop.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox};
use serde::ser::{SerializeMap, Serializer};
use zeroize::Zeroize;

/// The plaintext of one version of a secret: any bytes, or none.
pub struct Secret(SecretBox<Vec<u8>>);

impl Secret {
    /// Takes ownership of `bytes` without copying them.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.expose_secret().len()
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether the bytes are UTF-8 text.
    #[must_use]
    pub fn is_text(&self) -> bool {
        self.text().is_some()
    }

    /// Returns whether the bytes are a JSON object, such as `{"user": "app"}`. Parsing copies
    /// nothing of the value; it allocates one byte for each level of nesting.
    #[must_use]
    pub fn is_json_object(&self) -> bool {
        self.text().is_some_and(|text| {
            text.trim_ascii_start().starts_with('{')
                && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
        })
    }

    /// Returns the text, if it is text, for documents.
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.0.expose_secret()).ok()
    }

    /// Returns the length of the value as a JSON string, or as base64 if it is not text.
    pub(crate) fn json_len(&self) -> usize {
        let escaped = |byte: &u8| match byte {
            b'"' | b'\\' => 2,
            0..=0x1f => 6,
            _ => 1,
        };
        let bytes = self.0.expose_secret();
        if self.is_text() { bytes.iter().map(escaped).sum() } else { bytes.len().div_ceil(3) * 4 }
    }

    /// Returns the bytes.
    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// Returns the bytes, for the response that consists of the bare value.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(self.0.expose_secret_mut())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Writes a secret into a response: as `secret` if it is text, otherwise as `secret_base64`.
///
/// Use it as `#[serde(flatten, serialize_with = "reveal")]`. It is the only function that writes a
/// plaintext as JSON.
///
/// # Errors
/// The errors of the serializer.
pub fn reveal<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    if let Ok(text) = std::str::from_utf8(secret.expose()) {
        map.serialize_entry("secret", text)?;
    } else {
        let mut encoded = BASE64_STANDARD.encode(secret.expose());
        let written = map.serialize_entry("secret_base64", &encoded);
        encoded.zeroize();
        written?;
    }
    map.end()
}

/// The 64-byte data key of one version: bytes 0..32 encrypt, bytes 32..64 authenticate (credstash's
/// layout).
pub struct DataKey(SecretBox<Halves>);

#[derive(Zeroize)]
struct Halves {
    encryption: [u8; 32],
    authentication: [u8; 32],
}

impl DataKey {
    /// Length in bytes.
    pub const LENGTH: usize = 64;

    /// Returns a key of exactly [`DataKey::LENGTH`] bytes; `None` for any other length. `bytes` is
    /// wiped in both cases.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> Option<Self> {
        let halves = bytes.split_at_checked(32).and_then(|(encryption, authentication)| {
            Some(Box::new(Halves {
                encryption: encryption.try_into().ok()?,
                authentication: authentication.try_into().ok()?,
            }))
        });
        bytes.zeroize();
        halves.map(|halves| Self(SecretBox::new(halves)))
    }

    /// Returns the AES-256 key: bytes 0..32.
    pub(crate) fn encryption(&self) -> &[u8; 32] {
        &self.0.expose_secret().encryption
    }

    /// Returns the HMAC key: bytes 32..64.
    pub(crate) fn authentication(&self) -> &[u8; 32] {
        &self.0.expose_secret().authentication
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret(..)");
        assert_eq!(format!("{:?}", DataKey::new(vec![7; 64]).unwrap()), "DataKey(..)");
    }

    #[test]
    fn only_a_complete_json_object_is_recognized() {
        let is_object = |text: &str| Secret::new(text.into()).is_json_object();
        for object in ["{}", " {\"a\": 1}\n", "\t\r\n{\"a\": [{}, null, \"\\u0041\"]}"] {
            assert!(is_object(object), "{object}");
        }
        for other in
            ["", "{", "[]", "1", "\"{}\"", "null", "{} {}", "{a: 1}", "{\"a\": 1,}", "${x}", "{}x"]
        {
            assert!(!is_object(other), "{other}");
        }
        assert!(!Secret::new(b"{\"a\": \"\xff\"}".to_vec()).is_json_object());
        // Deep nesting takes neither more stack nor much more time.
        let deep = "[".repeat(100_000);
        assert!(!is_object(&format!("{{\"a\": {deep}")));
    }

    #[test]
    fn a_data_key_has_64_bytes_and_two_halves() {
        for length in [0, 32, 63, 65] {
            assert!(DataKey::new(vec![0; length]).is_none(), "{length}");
        }
        let key = DataKey::new((0..64).collect()).unwrap();
        assert_eq!(key.encryption().as_slice(), (0..32).collect::<Vec<u8>>());
        assert_eq!(key.authentication().as_slice(), (32..64).collect::<Vec<u8>>());
    }
}
