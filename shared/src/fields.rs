//! The fields of a request, taken one by one and by type. Errors say what a field must be and never
//! repeat its value. (serde's messages quote their input.)

mod input;
mod lists;
mod rules;
mod secrets;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, Visitor};
use zeroize::Zeroizing;

use crate::encryption_context::EncryptionContext;
use crate::error::Error;
use crate::json_fields::{self, Entries, Fault, MAX_FIELDS};
use crate::timestamp::Timestamp;

/// The most entries of one response.
pub const MAX_LIMIT: u32 = 1000;
/// The entries of one response if the request has no `limit`.
pub const DEFAULT_LIMIT: u32 = 100;

/// The fields of one request.
#[derive(Default)]
pub struct Fields {
    given: BTreeMap<String, Field>,
    /// The prefix of field names in messages: empty, or `generate.` for example.
    path: &'static str,
    /// The fields that were taken or looked for, to list the allowed fields.
    known: Vec<&'static str>,
    /// The resource of the API that was called: the first segment of its path.
    resource: Option<String>,
    /// The HTTP method.
    method: Option<String>,
}

enum Field {
    /// From a JSON object. It is wiped when dropped, because any field may hold a secret.
    Json(Zeroizing<String>),
    /// From a path or a query.
    Text(String),
    /// From a query, as `field.key=value`.
    Pairs(Vec<(String, String)>),
}

impl Fields {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// [`Error::Malformed`] for invalid JSON, [`Error::Invalid`] for anything but an object, or a field
    /// given twice.
    pub fn parse(json: &str) -> Result<Self, Error> {
        let mut fields = Self::default();
        fields.add_json(json)?;
        Ok(fields)
    }

    /// Returns what is requested: by HTTP the resource that was called, because IAM policies on the
    /// API's paths decide who may call which; by direct invoke the field of this name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything but text.
    pub fn resource(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        match self.resource.take() {
            Some(resource) => Ok(Some(resource)),
            None => self.text(name),
        }
    }

    /// Whether this resource of the API was called. Always false for a direct invoke.
    #[must_use]
    pub fn is_resource(&self, name: &str) -> bool {
        self.resource.as_deref() == Some(name)
    }

    /// Returns what to do: by HTTP from the method, because IAM policies on the API's paths decide who
    /// may call which; by direct invoke from the field of this name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything but text.
    pub fn verb(
        &mut self,
        name: &'static str,
        methods: &[(&str, &str)],
    ) -> Result<Option<String>, Error> {
        match self.method.take() {
            Some(method) => {
                let verb = methods.iter().find(|(each, _)| *each == method);
                Ok(verb.map(|(_, verb)| (*verb).to_owned()))
            }
            None => self.text(name),
        }
    }

    /// Whether a field of this name was given.
    #[must_use]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Takes a text and parses it: a name, a stage, a cursor.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything but text, or the error of the type.
    pub fn parsed<T: std::str::FromStr<Err = Error>>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, Error> {
        self.text(name)?.map(|text| text.parse()).transpose()
    }

    /// Takes a required text and parses it.
    ///
    /// # Errors
    /// As [`Fields::parsed`], and [`Error::Invalid`] if it is missing.
    pub fn required<T: std::str::FromStr<Err = Error>>(
        &mut self,
        name: &'static str,
    ) -> Result<T, Error> {
        self.required_text(name)?.parse()
    }

    /// Takes a required text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for any other type, or if it is missing.
    pub fn required_text(&mut self, name: &'static str) -> Result<String, Error> {
        self.text(name)?.ok_or_else(|| self.wrong(name, "is required"))
    }

    /// Takes a text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for any other type.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Field::Text(text)) => Ok(Some(text)),
            Some(field) => self.json(name, field, "must be text").map(Some),
        }
    }

    /// Takes a whole number from 0 to 2^64-1.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn number(&mut self, name: &'static str) -> Result<Option<u64>, Error> {
        let what = "must be a whole number that is not negative";
        match self.take(name) {
            None => Ok(None),
            Some(Field::Text(text)) => {
                digits(&text).map(Some).ok_or_else(|| self.wrong(name, what))
            }
            Some(field) => self.json(name, field, what).map(Some),
        }
    }

    /// Takes the most entries of a response: 1 to [`MAX_LIMIT`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn limit(&mut self, name: &'static str) -> Result<Option<u32>, Error> {
        let limit = self.number(name)?.map(u32::try_from);
        match limit {
            None => Ok(None),
            Some(Ok(limit @ 1..=MAX_LIMIT)) => Ok(Some(limit)),
            Some(_) => Err(self.wrong(name, "must be 1 to 1000")),
        }
    }

    /// Takes a whole number or a text, as text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn number_or_text(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        self.digits_or_text(name, "must be a whole number that is not negative, or text")
    }

    fn digits_or_text(&mut self, name: &'static str, what: &str) -> Result<Option<String>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Field::Text(text)) => Ok(Some(text)),
            Some(field) => {
                let NumberOrText(text) = self.json(name, field, what)?;
                Ok(Some(text))
            }
        }
    }

    /// Takes a time: RFC 3339, or whole unix seconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn moment(&mut self, name: &'static str) -> Result<Option<Timestamp>, Error> {
        let what = "must be a time in RFC 3339 or in unix seconds";
        let Some(text) = self.digits_or_text(name, what)? else {
            return Ok(None);
        };
        let seconds = digits(&text).and_then(|number| i64::try_from(number).ok());
        seconds
            .map_or_else(|| Timestamp::from_rfc3339(&text), Timestamp::from_unix_seconds)
            .map(Some)
            .ok_or_else(|| self.wrong(name, what))
    }

    /// Takes true or false; false if it is absent.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn flag(&mut self, name: &'static str) -> Result<bool, Error> {
        Ok(self.optional_flag(name)?.unwrap_or(false))
    }

    /// Takes true or false.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn optional_flag(&mut self, name: &'static str) -> Result<Option<bool>, Error> {
        let what = "must be true or false";
        match self.take(name) {
            None => Ok(None),
            Some(Field::Text(text)) => text.parse().map(Some).map_err(|_| self.wrong(name, what)),
            Some(field) => self.json(name, field, what).map(Some),
        }
    }

    /// Takes the encryption context; `None` if it is absent.
    ///
    /// # Errors
    /// As [`Fields::context`].
    pub fn optional_context(
        &mut self,
        name: &'static str,
    ) -> Result<Option<EncryptionContext>, Error> {
        if self.has(name) {
            self.context(name).map(Some)
        } else {
            self.known.push(name);
            Ok(None)
        }
    }

    /// Takes the encryption context: a map of texts; empty if it is absent.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, a key given twice, or a context that [`EncryptionContext::new`]
    /// refuses.
    pub fn context(&mut self, name: &'static str) -> Result<EncryptionContext, Error> {
        let what = "must be a map of texts, with each key once";
        let pairs = match self.take(name) {
            None => Vec::new(),
            Some(Field::Pairs(pairs)) => pairs,
            Some(field) => {
                let entries = self.entries(name, &field, what)?;
                let text = |(key, value): (String, Zeroizing<String>)| {
                    serde_json::from_str(&value).map(|value| (key, value))
                };
                let pairs: Result<_, _> = entries.into_iter().map(text).collect();
                pairs.map_err(|_| self.wrong(name, what))?
            }
        };
        let count = pairs.len();
        let pairs: BTreeMap<_, _> = pairs.into_iter().collect();
        if pairs.len() < count {
            return Err(self.wrong(name, what));
        }
        EncryptionContext::new(pairs)
    }

    /// Takes an object with fields of its own, which messages call by `path`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, or a field given twice.
    pub fn object(
        &mut self,
        name: &'static str,
        path: &'static str,
    ) -> Result<Option<Self>, Error> {
        let Some(field) = self.take(name) else {
            return Ok(None);
        };
        let entries = self.entries(name, &field, "must be an object")?;
        let mut fields = Self { path, ..Self::default() };
        fields.add_entries(entries)?;
        Ok(Some(fields))
    }

    /// Checks that no field is left.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a field that was not taken. The message lists the allowed fields.
    pub fn finish(self) -> Result<(), Error> {
        if self.given.is_empty() {
            return Ok(());
        }
        let known = self.known.join("`, `");
        let path = self.path.trim_end_matches('.');
        let place = if path.is_empty() { "the request" } else { path };
        Err(Error::invalid(format!("Unknown field in {place}. Allowed fields: `{known}`.")))
    }

    fn take(&mut self, name: &'static str) -> Option<Field> {
        self.known.push(name);
        self.given.remove(name)
    }

    /// Reads the entries of an object.
    fn entries(&self, name: &str, field: &Field, what: &str) -> Result<Entries, Error> {
        match field_json(field).map(json_fields::object) {
            Some(Ok(entries)) => Ok(entries),
            Some(Err(Fault::TooMany)) => Err(too_many_fields()),
            Some(Err(_)) | None => Err(self.wrong(name, what)),
        }
    }

    fn json<T: DeserializeOwned>(&self, name: &str, field: Field, what: &str) -> Result<T, Error> {
        match field {
            Field::Json(json) => serde_json::from_str(&json).ok(),
            Field::Text(_) | Field::Pairs(_) => None,
        }
        .ok_or_else(|| self.wrong(name, what))
    }

    /// The error for a field with an invalid value.
    pub(crate) fn wrong(&self, name: &str, what: &str) -> Error {
        Error::invalid(format!("`{}{name}` {what}.", self.path))
    }
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn field_json(field: &Field) -> Option<&str> {
    match field {
        Field::Json(json) => Some(json),
        Field::Text(_) | Field::Pairs(_) => None,
    }
}

fn too_many_fields() -> Error {
    Error::invalid(format!("An object in a request has at most {MAX_FIELDS} fields."))
}

/// A number or text, as text. Anything else is refused before any of it is stored.
struct NumberOrText(String);

impl<'de> Deserialize<'de> for NumberOrText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = NumberOrText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or text")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<NumberOrText, E> {
                Ok(NumberOrText(number.to_string()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<NumberOrText, E> {
                Ok(NumberOrText(text.to_owned()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests;
