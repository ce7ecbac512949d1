//! Lists in a request: arrays of objects, and several secrets.

use zeroize::Zeroizing;

use crate::error::Error;
use crate::json_fields::{self, Entries, Fault, MAX_FIELDS_OF_EACH};

use super::{Field, Fields, field_json};

impl Fields {
    /// The most entries that [`Fields::several`] reads. It is more than one transaction writes, so
    /// that the operation counts and refuses them.
    pub const MAX_SEVERAL: usize = 100;

    /// Reads several secrets: an array of objects, or an object with a `secret` for each `name`, as
    /// credstash's `putall` takes it. Each has fields of its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, or an empty list; [`Error::TooLarge`] for more than
    /// [`Fields::MAX_SEVERAL`]. An error about one of them has its index.
    pub fn several(&mut self, name: &'static str) -> Result<Vec<Self>, Error> {
        const PATH: &str = "secrets[].";
        let what = "must be an array of objects or an object of names and texts, with one or more \
                    entries";
        let field = self.take(name).ok_or_else(|| self.wrong(name, what))?;
        let several = if matches!(&field, Field::Json(json) if json.starts_with('{')) {
            self.map_of_secrets(name, PATH, &field, what)?
        } else {
            match field_json(&field).map(|json| json_fields::objects(json, Self::MAX_SEVERAL)) {
                Some(Err(Fault::TooMany)) => return Err(Error::too_many_secrets()),
                Some(objects) => self.each(name, PATH, objects, what)?,
                None => return Err(self.wrong(name, what)),
            }
        };
        if several.is_empty() { Err(self.wrong(name, what)) } else { Ok(several) }
    }

    /// Reads an object of names and secrets.
    fn map_of_secrets(
        &self,
        name: &str,
        path: &'static str,
        field: &Field,
        what: &str,
    ) -> Result<Vec<Self>, Error> {
        let entries = match field_json(field).map(json_fields::object) {
            Some(Err(Fault::TooMany)) => return Err(Error::too_many_secrets()),
            Some(Ok(entries)) => entries,
            Some(Err(_)) | None => return Err(self.wrong(name, what)),
        };
        if entries.len() > Self::MAX_SEVERAL {
            return Err(Error::too_many_secrets());
        }
        let one = |(index, (secret_name, secret)): (usize, (String, Zeroizing<String>))| {
            let mut fields = Self { path, ..Self::default() };
            let added = fields
                .add_text("name", secret_name)
                .and_then(|()| fields.add("secret".to_owned(), Field::Json(secret)));
            added.map(|()| fields).map_err(|error| error.in_entry(name, index))
        };
        entries.into_iter().enumerate().map(one).collect()
    }

    /// Reads an array of at most `most` objects, each with fields of its own that messages call by
    /// `path`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else; `too_many` for more objects.
    pub(crate) fn objects(
        &mut self,
        name: &'static str,
        path: &'static str,
        most: usize,
        too_many: fn() -> Error,
    ) -> Result<Vec<Self>, Error> {
        let what = "must be an array of objects";
        let Some(field) = self.take(name) else { return Ok(Vec::new()) };
        match field_json(&field).map(|json| json_fields::objects(json, most)) {
            Some(Err(Fault::TooMany)) => Err(too_many()),
            Some(objects) => self.each(name, path, objects, what),
            None => Err(self.wrong(name, what)),
        }
    }

    /// Takes a field of any type and drops it. Returns whether it was given.
    pub(crate) fn take_any(&mut self, name: &'static str) -> bool {
        self.take(name).is_some()
    }

    /// Reads a text of a query as JSON.
    pub(crate) fn text_as_json(&mut self, name: &str) {
        if let Some(field) = self.given.get_mut(name)
            && let Field::Text(json) = field
        {
            *field = Field::Json(Zeroizing::new(std::mem::take(json)));
        }
    }

    /// Reads the fields of each object of an array.
    fn each(
        &self,
        name: &str,
        path: &'static str,
        objects: Result<Vec<Entries>, Fault>,
        what: &str,
    ) -> Result<Vec<Self>, Error> {
        let objects = objects.map_err(|fault| match fault {
            Fault::Element(index) => {
                Error::invalid("The entry must be an object.").in_entry(name, index)
            }
            Fault::TooManyIn(index) => {
                let message = format!("An entry has at most {MAX_FIELDS_OF_EACH} fields.");
                Error::invalid(message).in_entry(name, index)
            }
            _ => self.wrong(name, what),
        })?;
        let one = |(index, entries)| {
            let mut fields = Self { path, ..Self::default() };
            let added = fields.add_entries(entries);
            added.map(|()| fields).map_err(|error| error.in_entry(name, index))
        };
        objects.into_iter().enumerate().map(one).collect()
    }
}
