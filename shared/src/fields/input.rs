//! How fields are added: from a path, a query and a body.

use crate::error::Error;
use crate::json_fields::{self, Entries, Fault, MAX_FIELDS};

use super::{Field, Fields, too_many_fields};

impl Fields {
    /// Adds the fields of a JSON object. Errors as [`Fields::parse`].
    pub(crate) fn add_json(&mut self, json: &str) -> Result<(), Error> {
        let entries = json_fields::object(json).map_err(|fault| match fault {
            Fault::Syntax(line, column) => Error::Malformed(
                format!("The request is not JSON: see line {line}, column {column}.").into(),
            ),
            Fault::TooMany => too_many_fields(),
            _ => Error::invalid("The request must be a JSON object."),
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

    pub(super) fn add_entries(&mut self, entries: Entries) -> Result<(), Error> {
        entries.into_iter().try_for_each(|(name, value)| self.add(name, Field::Json(value)))
    }

    pub(super) fn add(&mut self, name: String, field: Field) -> Result<(), Error> {
        if self.given.len() == MAX_FIELDS {
            return Err(too_many_fields());
        }
        match self.given.insert(name, field) {
            None => Ok(()),
            Some(_) => Err(Error::invalid("A field is given twice. Give each field once.")),
        }
    }

    /// Sets the resource of the API that was called.
    pub(crate) fn set_resource(&mut self, resource: Option<&str>) {
        self.resource = resource.map(str::to_owned);
    }

    /// Sets the HTTP method.
    pub(crate) fn set_method(&mut self, method: Option<&str>) {
        self.method = method.map(str::to_owned);
    }
}
