//! Templates for generated values: JSON objects that get the value as a field, like
//! `SecretStringTemplate` and `GenerateStringKey` of AWS Secrets Manager.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::error::Error;

/// A JSON object and the name of the field for the value.
///
/// Everything else in the object stays as written and in its order; a new field is added at the
/// end. The template is not secret: it is stored and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    key: String,
}

impl Template {
    /// The maximum size of the object, in bytes.
    pub const MAX_BYTES: usize = 4096;
    /// The maximum size of the field's name, in bytes.
    pub const MAX_KEY_BYTES: usize = 256;

    /// Returns the template for an object, as JSON text, and the name of the field.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the text is too long, is not a JSON object or has a field twice, or if
    /// the name is empty or too long.
    pub fn new(text: String, key: String) -> Result<Self, Error> {
        if text.len() > Self::MAX_BYTES {
            return Err(Error::invalid(
                "`generate.template` must have at most 4096 bytes. Shorten it.",
            ));
        }
        if !(1..=Self::MAX_KEY_BYTES).contains(&key.len()) {
            return Err(Error::invalid(
                "`generate.key` must have 1 to 256 bytes. Use another key.",
            ));
        }
        let object = object(&text).ok_or(Error::invalid(
            "`generate.template` must be a JSON object, given as text. Correct its JSON.",
        ))?;
        let mut names: Vec<_> = object.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(Error::invalid(
                "`generate.template` has a field twice. Give each field once.",
            ));
        }
        Ok(Self { text, key })
    }

    /// Returns the object as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the name of the field.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the object with this value in the field. The value must be printable ASCII.
    pub(crate) fn filled(&self, value: &[u8]) -> Zeroizing<Vec<u8>> {
        // Escaping turns a byte of a name into at most six bytes, and a byte of the value into at
        // most two. The buffer never grows, so no unwiped copy of the value is left behind.
        let room = 6 * (self.text.len() + self.key.len()) + 2 * value.len() + 8;
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        let object = object(&self.text).unwrap_or_default();
        let mut filled = false;
        out.push(b'{');
        for (name, written) in &object {
            write_name(&mut out, name);
            if *name == self.key {
                write_value(&mut out, value);
                filled = true;
            } else {
                out.extend_from_slice(written.get().as_bytes());
            }
        }
        if !filled {
            write_name(&mut out, &self.key);
            write_value(&mut out, value);
        }
        out.push(b'}');
        out
    }
}

/// Writes the name of a field.
fn write_name(out: &mut Vec<u8>, name: &str) {
    if out.len() > 1 {
        out.push(b',');
    }
    out.extend_from_slice(serde_json::Value::from(name).to_string().as_bytes());
    out.push(b':');
}

/// Writes the value as a JSON string.
fn write_value(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// Returns the fields of a JSON object in their order, with each value as written. `None` if the
/// text is not a JSON object.
fn object(text: &str) -> Option<Vec<(String, Box<RawValue>)>> {
    serde_json::from_str(text).ok().map(|Object(fields)| fields)
}

struct Object(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(text: &str, key: &str, value: &str) -> String {
        let template = Template::new(text.to_owned(), key.to_owned()).unwrap();
        String::from_utf8(template.filled(value.as_bytes()).to_vec()).unwrap()
    }

    #[test]
    fn the_value_becomes_a_field_and_everything_else_is_unchanged() {
        let template = r#" { "z": 1.50, "user":"admin" , "a": [ 1,2 ] } "#;
        let expected = r#"{"z":1.50,"user":"admin","a":[ 1,2 ],"password":"x"}"#;
        assert_eq!(filled(template, "password", "x"), expected);
        // It replaces the field of the template.
        assert_eq!(filled(template, "user", "x"), r#"{"z":1.50,"user":"x","a":[ 1,2 ]}"#);
        assert_eq!(filled("{}", "password", r#"a"b\c"#), r#"{"password":"a\"b\\c"}"#);
    }

    #[test]
    fn an_invalid_template_is_refused() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(Template::MAX_BYTES));
        for (text, key) in [
            ("", "k"),
            ("[]", "k"),
            ("\"{}\"", "k"),
            ("{", "k"),
            ("{} {}", "k"),
            ("{'a':1}", "k"),
            (r#"{"a":1,"b":2,"a":3}"#, "k"),
            (long.as_str(), "k"),
            ("{}", ""),
            ("{}", "k".repeat(257).as_str()),
        ] {
            let error = Template::new(text.to_owned(), key.to_owned()).unwrap_err();
            assert_eq!(error.code().name, "Invalid", "{text}");
        }
        assert!(Template::new("{}".to_owned(), "k".repeat(256)).is_ok());
    }

    proptest! {
        #[test]
        fn a_filled_template_is_read_back(
            fields in proptest::collection::btree_map(".{0,8}", ".{0,8}", 0..5),
            key in ".{1,8}",
            value in "[!-~]{1,40}",
        ) {
            let text = serde_json::to_string(&fields).unwrap();
            let template = Template::new(text, key.clone()).unwrap();
            let filled = template.filled(value.as_bytes());
            let room = 6 * (template.text.len() + key.len()) + 2 * value.len() + 8;
            prop_assert!(filled.len() <= room, "it never grew");
            let read: std::collections::BTreeMap<String, String> =
                serde_json::from_slice(&filled).unwrap();
            let mut expected = fields;
            expected.insert(key, value);
            prop_assert_eq!(read, expected);
        }
    }
}
