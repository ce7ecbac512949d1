//! The fields of a request, taken one by one and by type. Errors name the field and what it must
//! be, never what it was: serde's own messages quote their input.

use std::collections::BTreeMap;
use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, Visitor};
use zeroize::{Zeroize, Zeroizing};

use crate::context::Context;
use crate::entries::{self, Entries, Fault, MAX_FIELDS, MAX_FIELDS_OF_EACH};
use crate::error::Error;
use crate::generate::{Class, Rules};
use crate::moment::Moment;
use crate::name::Name;
use crate::operations::Coffer;
use crate::operations::legacy_hints::{LegacyHint, LegacyHints, Scope};
use crate::secret::Secret;
use crate::template::Template;

/// The fields of one request, wherever they came from.
#[derive(Default)]
pub struct Fields {
    given: BTreeMap<String, Field>,
    /// What this object is called in messages: empty, or `generate.`.
    path: &'static str,
    /// What was asked for, to tell what there is to give.
    known: Vec<&'static str>,
    /// The resource of the API that was called.
    resource: Option<String>,
    /// The method that it was called with.
    method: Option<String>,
}

enum Field {
    /// From a JSON object: JSON, wiped when dropped, for any field may hold a secret.
    Json(Zeroizing<String>),
    /// From a path or a query, where everything is text.
    Text(String),
    /// From a query, as `field.key=value`.
    Pairs(Vec<(String, String)>),
}

impl Fields {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// [`Error::Malformed`] for what is no JSON, [`Error::Invalid`] for what is no object or has a
    /// field twice.
    pub(crate) fn parse(json: &str) -> Result<Self, Error> {
        let mut fields = Self::default();
        fields.add_json(json)?;
        Ok(fields)
    }

    /// Adds the fields of a JSON object. Errors as [`Fields::parse`].
    pub(crate) fn add_json(&mut self, json: &str) -> Result<(), Error> {
        let entries = entries::object(json).map_err(|fault| match fault {
            Fault::Syntax(line, column) => Error::Malformed(
                format!("The request is not JSON: see line {line}, column {column}.").into(),
            ),
            Fault::TooMany => too_many_fields(),
            _ => Error::invalid("The request is a JSON object."),
        })?;
        self.add_entries(entries)
    }

    /// Adds a field of text.
    pub(crate) fn add_text(&mut self, name: &str, value: String) -> Result<(), Error> {
        self.add(name.to_owned(), Field::Text(value))
    }

    /// Adds a field of a query. `field.key` is an entry of the map `field`.
    pub(crate) fn add_query(&mut self, name: &str, value: String) -> Result<(), Error> {
        match name.split_once('.') {
            None => self.add_text(name, value),
            Some((map, key)) => match self.given.get_mut(map) {
                Some(Field::Pairs(pairs)) if pairs.len() < MAX_FIELDS => {
                    pairs.push((key.to_owned(), value));
                    Ok(())
                }
                Some(Field::Pairs(_)) => Err(too_many_fields()),
                _ => self.add(map.to_owned(), Field::Pairs(vec![(key.to_owned(), value)])),
            },
        }
    }

    fn add_entries(&mut self, entries: Entries) -> Result<(), Error> {
        entries.into_iter().try_for_each(|(name, value)| self.add(name, Field::Json(value)))
    }

    fn add(&mut self, name: String, field: Field) -> Result<(), Error> {
        if self.given.len() == MAX_FIELDS {
            return Err(too_many_fields());
        }
        match self.given.insert(name, field) {
            None => Ok(()),
            Some(_) => Err(Error::invalid("A field is given twice. Give each field once.")),
        }
    }

    /// Notes which resource of the API was called: the first segment of its path.
    pub(crate) fn set_resource(&mut self, resource: Option<&str>) {
        self.resource = resource.map(str::to_owned);
    }

    /// What is asked for: over HTTP the resource that was called, for policies on the API's paths
    /// decide who may call which; directly, the field of this name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no text.
    pub fn resource(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        match self.resource.take() {
            Some(resource) => Ok(Some(resource)),
            None => self.text(name),
        }
    }

    /// Whether this resource of the API was called; never for a direct invoke.
    #[must_use]
    pub fn is_resource(&self, name: &str) -> bool {
        self.resource.as_deref() == Some(name)
    }

    /// Notes which method of the API was called.
    pub(crate) fn set_method(&mut self, method: Option<&str>) {
        self.method = method.map(str::to_owned);
    }

    /// What is to be done: over HTTP by the method that was called, for policies on the API's
    /// paths decide who may call which; directly, by the field of this name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no text.
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

    /// Text that something is made of: a name, a stage, a cursor.
    ///
    /// # Errors
    /// [`Error::Invalid`], or what the type says of the text.
    pub fn parsed<T: std::str::FromStr<Err = Error>>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, Error> {
        self.text(name)?.map(|text| text.parse()).transpose()
    }

    /// As [`Fields::parsed`], for a field that must be there.
    ///
    /// # Errors
    /// As [`Fields::parsed`], and [`Error::Invalid`] where it is missing.
    pub fn required<T: std::str::FromStr<Err = Error>>(
        &mut self,
        name: &'static str,
    ) -> Result<T, Error> {
        self.required_text(name)?.parse()
    }

    /// As [`Fields::text`], for a field that must be there.
    ///
    /// # Errors
    /// [`Error::Invalid`] for any other type, or where it is missing.
    pub fn required_text(&mut self, name: &'static str) -> Result<String, Error> {
        self.text(name)?.ok_or_else(|| self.wrong(name, "is required"))
    }

    /// Text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for any other type.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Field::Text(text)) => Ok(Some(text)),
            Some(field) => self.json(name, field, "is text").map(Some),
        }
    }

    /// A number from 0 to 2^64-1, in digits.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn number(&mut self, name: &'static str) -> Result<Option<u64>, Error> {
        let what = "is a whole number, not negative";
        match self.take(name) {
            None => Ok(None),
            Some(Field::Text(text)) => {
                digits(&text).map(Some).ok_or_else(|| self.wrong(name, what))
            }
            Some(field) => self.json(name, field, what).map(Some),
        }
    }

    /// How many entries an answer may have: 1 to [`Coffer::MAX_LIMIT`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn limit(&mut self, name: &'static str) -> Result<Option<u32>, Error> {
        let limit = self.number(name)?.map(u32::try_from);
        match limit {
            None => Ok(None),
            Some(Ok(limit @ 1..=Coffer::MAX_LIMIT)) => Ok(Some(limit)),
            Some(_) => Err(self.wrong(name, "is 1 to 1000")),
        }
    }

    /// A number in digits, or text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn number_or_text(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        self.digits_or_text(name, "is a whole number that is not negative, or text")
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

    /// A point in time: RFC 3339, or whole unix seconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn moment(&mut self, name: &'static str) -> Result<Option<Moment>, Error> {
        let what = "is a time as RFC 3339 writes it, or unix seconds";
        let Some(text) = self.digits_or_text(name, what)? else {
            return Ok(None);
        };
        let seconds = digits(&text).and_then(|number| i64::try_from(number).ok());
        seconds
            .map_or_else(|| Moment::from_rfc3339(&text), Moment::from_unix)
            .map(Some)
            .ok_or_else(|| self.wrong(name, what))
    }

    /// True or false; false if not said.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn flag(&mut self, name: &'static str) -> Result<bool, Error> {
        Ok(self.optional_flag(name)?.unwrap_or(false))
    }

    /// True or false, if it is given.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn optional_flag(&mut self, name: &'static str) -> Result<Option<bool>, Error> {
        let what = "is true or false";
        match self.take(name) {
            None => Ok(None),
            Some(Field::Text(text)) => text.parse().map(Some).map_err(|_| self.wrong(name, what)),
            Some(field) => self.json(name, field, what).map(Some),
        }
    }

    /// The encryption context, if one is given.
    ///
    /// # Errors
    /// As [`Fields::context`].
    pub fn optional_context(&mut self, name: &'static str) -> Result<Option<Context>, Error> {
        if self.has(name) {
            self.context(name).map(Some)
        } else {
            self.known.push(name);
            Ok(None)
        }
    }

    /// The encryption context: a map of text; empty if not said.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, a key given twice, or what [`Context::new`] refuses.
    pub fn context(&mut self, name: &'static str) -> Result<Context, Error> {
        let what = "is a map of text, with each key once";
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
        Context::new(pairs)
    }

    /// An object, with fields of its own that are called by `path` in messages.
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
        let entries = self.entries(name, &field, "is an object")?;
        let mut fields = Self { path, ..Self::default() };
        fields.add_entries(entries)?;
        Ok(Some(fields))
    }

    /// Several secrets: an array of objects, each with the fields of its own, or an object with a
    /// `secret` for each `name`, as credstash's `putall` takes it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, or nothing; [`Error::TooLarge`] for more than
    /// [`Fields::MAX_SEVERAL`]. What is wrong with one of them is reported with its place.
    pub fn several(&mut self, name: &'static str) -> Result<Vec<Self>, Error> {
        const PATH: &str = "secrets[].";
        let what = "is an array of objects, or an object of names and texts, and has one or more";
        let field = self.take(name).ok_or_else(|| self.wrong(name, what))?;
        let map = matches!(&field, Field::Json(json) if json.starts_with('{'));
        let several: Vec<Self> = if map {
            let entries = match field_json(&field).map(entries::object) {
                Some(Err(Fault::TooMany)) => return Err(Error::too_many_secrets()),
                Some(Ok(entries)) => entries,
                Some(Err(_)) | None => return Err(self.wrong(name, what)),
            };
            if entries.len() > Self::MAX_SEVERAL {
                return Err(Error::too_many_secrets());
            }
            let one = |(place, (called, secret)): (usize, (String, Zeroizing<String>))| {
                let mut fields = Self { path: PATH, ..Self::default() };
                let added = fields
                    .add_text("name", called)
                    .and_then(|()| fields.add("secret".to_owned(), Field::Json(secret)));
                added.map(|()| fields).map_err(|error| error.in_entry(name, place))
            };
            entries.into_iter().enumerate().map(one).collect::<Result<_, _>>()?
        } else {
            match field_json(&field).map(|json| entries::objects(json, Self::MAX_SEVERAL)) {
                Some(Err(Fault::TooMany)) => return Err(Error::too_many_secrets()),
                Some(objects) => self.each(name, PATH, objects, what)?,
                None => return Err(self.wrong(name, what)),
            }
        };
        if several.is_empty() { Err(self.wrong(name, what)) } else { Ok(several) }
    }

    /// The most entries that [`Fields::several`] reads. More than one transaction takes, so that
    /// a few too many are counted and refused by the operation.
    pub const MAX_SEVERAL: usize = 100;

    /// What is known of legacy rows: `contexts` and `dialects`, arrays of objects with a `name`, a
    /// `prefix` or neither, and a `context` or a `dialect`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, or more than [`LegacyHints::MAX`].
    pub fn hints(&mut self) -> Result<LegacyHints, Error> {
        let mut hints = self.known_contexts("contexts")?;
        for mut each in self.objects("dialects", "dialects[].")? {
            let whose = each.whose()?;
            let dialect = each.required_text("dialect")?.parse().map_err(|()| {
                each.wrong("dialect", "is credstash, credentials-haskell or rucredstash-le32")
            })?;
            each.finish()?;
            hints.push(LegacyHint { whose, context: None, dialect: Some(dialect) });
        }
        if hints.len() > LegacyHints::MAX {
            return Err(too_many_hints());
        }
        Ok(LegacyHints::new(hints))
    }

    /// Encryption contexts by name or prefix: an array of objects, each with a `name` or a
    /// `prefix`, and a `context`. In a query, the array as JSON text.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, a name or prefix given twice, or more than
    /// [`LegacyHints::MAX`] entries.
    pub fn contexts_by_name(&mut self, name: &'static str) -> Result<Vec<LegacyHint>, Error> {
        if let Some(field) = self.given.get_mut(name)
            && let Field::Text(json) = field
        {
            *field = Field::Json(Zeroizing::new(std::mem::take(json)));
        }
        let hints = self.known_contexts(name)?;
        if hints.iter().any(|hint| matches!(hint.whose, Scope::All)) {
            return Err(self.wrong(name, "must have a `name` or a `prefix` in each entry"));
        }
        let mut known: Vec<_> = hints.iter().map(|hint| hint.whose.to_text()).collect();
        known.sort_unstable();
        known.dedup();
        if known.len() < hints.len() {
            return Err(Error::invalid(
                "`contexts` has a name or prefix twice. Give each one context.",
            ));
        }
        Ok(hints)
    }

    /// The `contexts` of [`Fields::hints`] alone. A wrong context opens nothing, but a wrong dialect
    /// turns a value into noise, so that one is left to whoever may start the state machine.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, or more than [`LegacyHints::MAX`].
    pub fn contexts(&mut self) -> Result<LegacyHints, Error> {
        if self.take("dialects").is_some() {
            return Err(Error::invalid(
                "`dialects` is not taken for one name. Start the stack's state machine with it.",
            ));
        }
        self.known_contexts("contexts").map(LegacyHints::new)
    }

    fn known_contexts(&mut self, name: &'static str) -> Result<Vec<LegacyHint>, Error> {
        let mut hints = Vec::new();
        for mut each in self.objects(name, "contexts[].")? {
            let whose = each.whose()?;
            let context = Some(each.context("context")?);
            each.finish()?;
            hints.push(LegacyHint { whose, context, dialect: None });
        }
        Ok(hints)
    }

    fn whose(&mut self) -> Result<Scope, Error> {
        let name = self.text("name")?.map(|name| Name::of_any_client(&name)).transpose()?;
        match (name, self.parsed("prefix")?) {
            (None, None) => Ok(Scope::All),
            (Some(name), None) => Ok(Scope::Name(name)),
            (None, Some(prefix)) => Ok(Scope::Prefix(prefix)),
            (Some(_), Some(_)) => Err(self.wrong("prefix", "goes without `name`")),
        }
    }

    fn objects(&mut self, name: &'static str, path: &'static str) -> Result<Vec<Self>, Error> {
        let what = "is an array of objects";
        let Some(field) = self.take(name) else { return Ok(Vec::new()) };
        match field_json(&field).map(|json| entries::objects(json, LegacyHints::MAX)) {
            Some(Err(Fault::TooMany)) => Err(too_many_hints()),
            Some(objects) => self.each(name, path, objects, what),
            None => Err(self.wrong(name, what)),
        }
    }

    /// The fields of each object of an array.
    fn each(
        &self,
        name: &str,
        path: &'static str,
        objects: Result<Vec<Entries>, Fault>,
        what: &str,
    ) -> Result<Vec<Self>, Error> {
        let objects = objects.map_err(|fault| match fault {
            Fault::Element(place) => Error::invalid("It is not an object.").in_entry(name, place),
            Fault::TooManyIn(place) => {
                let message = format!("An entry has at most {MAX_FIELDS_OF_EACH} fields.");
                Error::invalid(message).in_entry(name, place)
            }
            _ => self.wrong(name, what),
        })?;
        let one = |(place, entries)| {
            let mut fields = Self { path, ..Self::default() };
            let added = fields.add_entries(entries);
            added.map(|()| fields).map_err(|error| error.in_entry(name, place))
        };
        objects.into_iter().enumerate().map(one).collect()
    }

    /// The rules of a value to be generated: `generate`, an object with `length`,
    /// `exclude_characters`, `exclude_lowercase`, `exclude_uppercase`, `exclude_numbers`,
    /// `exclude_punctuation`, `require_each_included_type`, and `template` with `key`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, or what [`Rules::new`] or [`Template::new`] refuses.
    pub fn rules(&mut self) -> Result<Option<Rules>, Error> {
        let Some(mut fields) = self.object("generate", "generate.")? else { return Ok(None) };
        let length = fields.number("length")?.unwrap_or(Rules::DEFAULT_LENGTH);
        let excluded = fields.text("exclude_characters")?.unwrap_or_default();
        let mut classes = Vec::new();
        for (class, name) in Class::ALL {
            if !fields.flag(name)? {
                classes.push(class);
            }
        }
        let require_each = fields.flag("require_each_included_type")?;
        let template = match (fields.text("template")?, fields.text("key")?) {
            (None, None) => None,
            (Some(text), Some(key)) => Some(Template::new(text, key)?),
            _ => return Err(fields.wrong("template", "goes with `key`. Give both, or neither")),
        };
        fields.finish()?;
        let rules = Rules::new(length, &classes, &excluded, require_each)?;
        Ok(Some(rules.within(template)))
    }

    /// A secret as text. Taken from a body only: what is in a URL ends up in logs.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn secret(&mut self, name: &'static str) -> Result<Option<Secret>, Error> {
        let Some(text) = self.confidential(name, "is text, in the body of the request")? else {
            return Ok(None);
        };
        Ok(Some(Secret::new(text.into_bytes())))
    }

    /// A secret as base64 (RFC 4648, section 4, padded). ASCII white space is skipped, because
    /// `base64` and `openssl` break lines. Taken from a body only.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn secret_base64(&mut self, name: &'static str) -> Result<Option<Secret>, Error> {
        let what = "is base64 (RFC 4648, section 4) with its padding, in the body of the request";
        let Some(mut text) = self.confidential(name, what)? else {
            return Ok(None);
        };
        text.retain(|character| !character.is_ascii_whitespace());
        let bytes = BASE64_STANDARD.decode(&text);
        text.zeroize();
        bytes.map(|bytes| Some(Secret::new(bytes))).map_err(|_| self.wrong(name, what))
    }

    fn confidential(&mut self, name: &'static str, what: &str) -> Result<Option<String>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Field::Json(json)) => {
                serde_json::from_str(&json).map(Some).map_err(|_| self.wrong(name, what))
            }
            Some(Field::Text(_) | Field::Pairs(_)) => Err(self.wrong(name, what)),
        }
    }

    /// Ends the taking: whatever is left is nothing that the operation knows.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a field is left.
    pub fn finish(self) -> Result<(), Error> {
        if self.given.is_empty() {
            return Ok(());
        }
        let known = self.known.join("`, `");
        let path = self.path.trim_end_matches('.');
        let place = if path.is_empty() { "the request" } else { path };
        Err(Error::invalid(format!("There is a field too many in {place}. It may have `{known}`.")))
    }

    fn take(&mut self, name: &'static str) -> Option<Field> {
        self.known.push(name);
        self.given.remove(name)
    }

    /// The entries of an object.
    fn entries(&self, name: &str, field: &Field, what: &str) -> Result<Entries, Error> {
        match field_json(field).map(entries::object) {
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

    fn wrong(&self, name: &str, what: &str) -> Error {
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

fn too_many_hints() -> Error {
    Error::invalid("`contexts` and `dialects` have at most 1000 entries. Use prefixes.")
}

/// A number or text, as text. Anything else is refused where it begins, before any of it is kept.
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
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::parse(json).unwrap()
    }

    fn code<T>(result: Result<T, Error>) -> &'static str {
        result.err().map_or("OK", |error| error.code().name)
    }

    #[test]
    fn what_is_no_json_is_malformed_and_what_is_no_object_invalid() {
        for json in ["", "{", "{\"a\":1}x", "{'a':1}", "nul"] {
            assert_eq!(code(Fields::parse(json)), "Malformed", "{json}");
        }
        for json in ["[]", "1", "\"text\"", "null", "true"] {
            assert_eq!(code(Fields::parse(json)), "Invalid", "{json}");
        }
    }

    #[test]
    fn a_request_for_one_name_takes_contexts_and_no_dialects() {
        let contexts = r#"{"contexts": [{"name": "n", "context": {"a": "b"}}]}"#;
        assert_eq!(code(fields(contexts).contexts()), "OK");
        for dialects in [r#"[{"dialect": "credstash"}]"#, "[]", "1"] {
            let request = format!(r#"{{"dialects": {dialects}}}"#);
            assert_eq!(code(fields(&request).contexts()), "Invalid", "{dialects}");
        }
        // The input of the state machine has both.
        assert_eq!(code(fields(r#"{"dialects": [{"dialect": "credstash"}]}"#).hints()), "OK");
    }

    #[test]
    fn a_field_given_twice_is_refused_wherever_it_comes_from() {
        assert_eq!(code(Fields::parse(r#"{"a":1,"a":1}"#)), "Invalid");
        let mut path_and_body = Fields::default();
        path_and_body.add_text("name", "n".to_owned()).unwrap();
        assert_eq!(code(path_and_body.add_json(r#"{"name":"n"}"#)), "Invalid");
        let mut query = Fields::default();
        query.add_query("context.a", "1".to_owned()).unwrap();
        query.add_query("context.a", "2".to_owned()).unwrap();
        assert_eq!(code(query.context("context")), "Invalid");
        assert_eq!(code(fields(r#"{"c":{"a":"1","a":"2"}}"#).context("c")), "Invalid");
        assert_eq!(code(fields(r#"{"g":{"a":1,"a":2}}"#).object("g", "g.")), "Invalid");
    }

    #[test]
    fn several_secrets_come_as_an_array_or_as_a_map() {
        for json in [
            r#"{"s":[{"name":"a","secret":"1"},{"name":"b","secret":"2"}]}"#,
            r#"{"s":{"a":"1","b":"2"}}"#,
        ] {
            let several = fields(json).several("s").unwrap();
            let names: Vec<_> = several
                .into_iter()
                .map(|mut each| {
                    let name = each.required_text("name").unwrap();
                    assert_eq!(each.secret("secret").unwrap().unwrap().len(), 1);
                    each.finish().unwrap();
                    name
                })
                .collect();
            assert_eq!(names, ["a", "b"]);
        }
        for json in ["{}", r#"{"s":[]}"#, r#"{"s":{}}"#, r#"{"s":"a"}"#, r#"{"s":["a"]}"#] {
            assert_eq!(code(fields(json).several("s")), "Invalid", "{json}");
        }
        assert_eq!(code(fields(r#"{"s":[{"name":"a","name":"b"}]}"#).several("s")), "Invalid");
    }

    #[test]
    fn what_is_wrong_with_one_of_several_is_told_with_its_place() {
        for (json, place) in [
            (r#"{"s":[{"name":"a"},{"name":"b","name":"b"}]}"#, "s[1]"),
            (r#"{"s":[{"name":"a"},{"name":"b"},3]}"#, "s[2]"),
        ] {
            let error = fields(json).several("s").err().unwrap();
            assert_eq!(error.code().name, "Invalid");
            assert!(error.to_string().contains(&format!("{place:?}")), "{error}");
        }
    }

    #[test]
    fn no_list_is_read_beyond_its_limit() {
        let list = |name: &str, entry: &str, count: usize| {
            format!(r#"{{"{name}":[{}]}}"#, vec![entry; count].join(","))
        };
        let several = |count| fields(&list("s", "{}", count)).several("s").map(|s| s.len());
        assert_eq!(several(Fields::MAX_SEVERAL).unwrap(), Fields::MAX_SEVERAL);
        let error = several(Fields::MAX_SEVERAL + 1).unwrap_err();
        assert_eq!(error.code().name, "TooLarge");
        assert!(error.to_string().contains("At most 50"), "{error}");
        let map = (0..=Fields::MAX_SEVERAL).map(|n| format!(r#""{n}":"""#)).collect::<Vec<_>>();
        let map = format!(r#"{{"s":{{{}}}}}"#, map.join(","));
        assert_eq!(code(fields(&map).several("s")), "TooLarge");

        let hints = |count| fields(&list("contexts", r#"{"context":{}}"#, count)).hints();
        assert!(hints(LegacyHints::MAX).is_ok());
        let error = hints(LegacyHints::MAX + 1).err().unwrap();
        assert!(error.to_string().contains("at most 1000"), "{error}");

        let wide = |count: usize| (0..count).map(|n| format!(r#""{n}":1"#)).collect::<Vec<_>>();
        let wide = |count: usize| format!("{{{}}}", wide(count).join(","));
        assert!(Fields::parse(&wide(MAX_FIELDS)).is_ok());
        assert_eq!(code(Fields::parse(&wide(MAX_FIELDS + 1))), "Invalid");
        let context = format!(r#"{{"c":{}}}"#, wide(MAX_FIELDS + 1));
        let error = fields(&context).context("c").err().unwrap();
        assert!(error.to_string().contains("at most 1024"), "{error}");
        let entry = format!(r#"{{"contexts":[{{}},{}]}}"#, wide(MAX_FIELDS_OF_EACH + 1));
        let error = fields(&entry).hints().err().unwrap();
        assert!(error.to_string().contains("contexts[1]"), "{error}");
    }

    #[test]
    fn base64_may_be_in_lines_and_is_strict_otherwise() {
        let bytes: Vec<u8> = (0..120).collect();
        let plain = BASE64_STANDARD.encode(&bytes);
        let (first, second) = plain.split_at(76);
        for text in [
            format!("{first}\n{second}\n"),
            format!("{first}\r\n{second}\r\n"),
            format!(" \t{first} {second}"),
        ] {
            let json = serde_json::json!({ "s": text }).to_string();
            let secret = fields(&json).secret_base64("s").unwrap().unwrap();
            assert_eq!(secret.expose(), bytes);
        }
        for text in ["cGw0bnRlZA", "_-8=", "YQ=\u{a0}=", "YQ==YQ==", "YQ= =x", "\u{200b}YQ=="] {
            let json = serde_json::json!({ "s": text }).to_string();
            assert_eq!(code(fields(&json).secret_base64("s")), "Invalid", "{text:?}");
        }
    }

    #[test]
    fn contexts_come_as_an_array_or_as_its_text_in_a_query() {
        let array = r#"[{"name":"a/b","context":{"app":"x"}},{"prefix":"a","context":{}}]"#;
        let mut query = Fields::default();
        query.add_query("contexts", array.to_owned()).unwrap();
        for mut fields in [query, fields(&format!(r#"{{"contexts":{array}}}"#))] {
            let contexts = fields.contexts_by_name("contexts").unwrap();
            let whose: Vec<_> = contexts.iter().map(|hint| hint.whose.to_text()).collect();
            assert_eq!(whose, ["name:a/b", "prefix:a"]);
            fields.finish().unwrap();
        }
        assert!(Fields::default().contexts_by_name("contexts").unwrap().is_empty());
        let many = vec![r#"{"name":"a","context":{}}"#; 1001].join(",");
        for array in [
            "{}",
            r#""[]""#,
            r#"[{"context":{}}]"#,
            r#"[{"name":"a","prefix":"b","context":{}}]"#,
            r#"[{"name":"a","context":{"":"x"}}]"#,
            r#"[{"name":"a","context":{},"dialect":"credstash"}]"#,
            r#"[{"prefix":"a","context":{}},{"prefix":"a","context":{"b":"c"}}]"#,
            &format!("[{many}]"),
        ] {
            let request = format!(r#"{{"contexts":{array}}}"#);
            assert_eq!(
                code(fields(&request).contexts_by_name("contexts")),
                "Invalid",
                "{array:.80}"
            );
        }
    }

    #[test]
    fn wrong_types_are_refused_and_never_repeated() {
        let planted = "hunter2";
        for json in [
            r#"{"f":["hunter2"]}"#,
            r#"{"f":{"hunter2":1}}"#,
            r#"{"f":null}"#,
            r#"{"f":true}"#,
            r#"{"f":-1}"#,
            r#"{"f":1.5}"#,
        ] {
            let errors = [
                fields(json).text("f").err(),
                fields(json).secret("f").err(),
                fields(json).secret_base64("f").err(),
                fields(json).number_or_text("f").err(),
                fields(json).moment("f").err(),
            ];
            for error in errors {
                let error = error.unwrap();
                assert_eq!(error.code().name, "Invalid", "{json}");
                assert!(!format!("{error} {error:?}").contains(planted), "{json}");
            }
        }
        let deep = format!(r#"{{"f":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(code(fields(&deep).text("f")), "Invalid");
    }

    #[test]
    fn an_unknown_field_is_refused_by_what_there_is() {
        let mut request = fields(r#"{"name":"n","hunter2":1}"#);
        request.text("name").unwrap();
        let message = request.finish().unwrap_err().to_string();
        assert!(message.contains("`name`") && !message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_secret_is_not_taken_from_a_url() {
        let mut query = Fields::default();
        query.add_query("secret", "hunter2".to_owned()).unwrap();
        assert_eq!(code(query.secret("secret")), "Invalid");
    }

    #[test]
    fn rules_have_a_template_and_its_key_or_neither() {
        let rules = |generate: &str| fields(&format!(r#"{{"generate":{generate}}}"#)).rules();
        let with = rules(r#"{"template":"{}","key":"password"}"#).unwrap().unwrap();
        assert_eq!(with.template().map(Template::key), Some("password"));
        assert!(rules("{}").unwrap().unwrap().template().is_none());
        for half in [r#"{"template":"{}"}"#, r#"{"key":"k"}"#, r#"{"template":{},"key":"k"}"#] {
            assert_eq!(code(rules(half)), "Invalid", "{half}");
        }
    }

    #[test]
    fn numbers_and_times_come_as_json_or_as_text() {
        let mut text = Fields::default();
        text.add_text("n", "18446744073709551615".to_owned()).unwrap();
        text.add_text("m", "+1".to_owned()).unwrap();
        text.add_text("t", "1800000000".to_owned()).unwrap();
        assert_eq!(text.number("n").unwrap(), Some(u64::MAX));
        assert_eq!(code(text.number("m")), "Invalid");
        let moment = Moment::from_unix(1_800_000_000);
        assert_eq!(text.moment("t").unwrap(), moment);
        assert_eq!(fields(r#"{"t":1800000000}"#).moment("t").unwrap(), moment);
        assert_eq!(fields(r#"{"t":"2027-01-15T08:00:00Z"}"#).moment("t").unwrap(), moment);
    }
}
