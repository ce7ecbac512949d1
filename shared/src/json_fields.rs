//! Parses JSON objects, and arrays of objects, into lists of fields. Duplicate fields are kept, and
//! limits are checked before memory is allocated.
//!
//! Lambda limits the size of a payload (6 MB), but not the memory that parsing takes: an array of
//! small objects takes more than a hundred times its size, because each object becomes a list.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The maximum number of fields in an object.
pub(crate) const MAX_FIELDS: usize = 1024;

/// The maximum number of fields in an object of an array, which can have up to a thousand objects.
pub(crate) const MAX_FIELDS_OF_EACH: usize = 64;

/// The fields of an object: names, and the JSON of each value, which may be a secret.
pub(crate) type Entries = Vec<(String, Zeroizing<String>)>;

/// Why JSON was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not valid JSON. Holds the line and the column of the error.
    Syntax(usize, usize),
    /// It is JSON of another type.
    Type,
    /// It has more fields or elements than the limit.
    TooMany,
    /// The element at this index is not an object.
    Element(usize),
    /// The object at this index has more fields than [`MAX_FIELDS_OF_EACH`].
    TooManyIn(usize),
}

/// Parses an object of at most [`MAX_FIELDS`] fields.
pub(crate) fn object(json: &str) -> Result<Entries, Fault> {
    let full = Cell::new(false);
    read(json, Object { most: MAX_FIELDS, full: &full }).map_err(|error| match error.classify() {
        serde_json::error::Category::Data if full.get() => Fault::TooMany,
        serde_json::error::Category::Data => Fault::Type,
        _ => Fault::Syntax(error.line(), error.column()),
    })
}

/// Parses an array of at most `most` objects.
pub(crate) fn objects(json: &str, most: usize) -> Result<Vec<Entries>, Fault> {
    let (full, place) = (Cell::new(false), Cell::new(None));
    let array = Array { most, full: &full, place: &place };
    read(json, array).map_err(|error| match (error.classify(), place.get(), full.get()) {
        (serde_json::error::Category::Data, Some(place), true) => Fault::TooManyIn(place),
        (serde_json::error::Category::Data, Some(place), false) => Fault::Element(place),
        (serde_json::error::Category::Data, None, true) => Fault::TooMany,
        (serde_json::error::Category::Data, None, false) => Fault::Type,
        _ => Fault::Syntax(error.line(), error.column()),
    })
}

fn read<'de, S: DeserializeSeed<'de>>(json: &'de str, seed: S) -> serde_json::Result<S::Value> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end().map(|()| value)
}

/// Parses an object. Sets `full` if it has more fields than `most`.
struct Object<'a> {
    most: usize,
    full: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Entries;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Entries, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some((name, value)) = map.next_entry::<_, Box<RawValue>>()? {
            if entries.len() == self.most {
                self.full.set(true);
                return Err(A::Error::custom("too many fields"));
            }
            entries.push((name, Zeroizing::new(Box::<str>::from(value).into())));
        }
        Ok(entries)
    }
}

/// Parses an array of objects. Sets `place` to the index of the object that failed.
struct Array<'a> {
    most: usize,
    full: &'a Cell<bool>,
    place: &'a Cell<Option<usize>>,
}

impl<'de> DeserializeSeed<'de> for Array<'_> {
    type Value = Vec<Entries>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Array<'_> {
    type Value = Vec<Entries>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut objects = Vec::new();
        let each = || Object { most: MAX_FIELDS_OF_EACH, full: self.full };
        loop {
            self.place.set(Some(objects.len()));
            let Some(entries) = seq.next_element_seed(each())? else { break };
            if objects.len() == self.most {
                self.place.set(None);
                self.full.set(true);
                return Err(A::Error::custom("too many elements"));
            }
            objects.push(entries);
        }
        Ok(objects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_reported_with_its_place() {
        for (json, fault) in [
            ("{", Fault::Syntax(1, 1)),
            ("{} x", Fault::Syntax(1, 4)),
            ("[]", Fault::Type),
            ("1", Fault::Type),
        ] {
            assert_eq!(object(json).unwrap_err(), fault, "{json}");
        }
        for (json, fault) in [
            ("{}", Fault::Type),
            ("null", Fault::Type),
            ("[1]", Fault::Element(0)),
            ("[{},{},[]]", Fault::Element(2)),
            ("[{},{},{},{}]", Fault::TooMany),
        ] {
            assert_eq!(objects(json, 3).unwrap_err(), fault, "{json}");
        }
        let wide = |fields: usize| format!("{{{}}}", vec![r#""":1"#; fields].join(","));
        let array = format!("[{{}},{}]", wide(MAX_FIELDS_OF_EACH + 1));
        assert_eq!(objects(&array, 3).unwrap_err(), Fault::TooManyIn(1));
        assert_eq!(object(&wide(MAX_FIELDS)).unwrap().len(), MAX_FIELDS);
        assert_eq!(object(&wide(MAX_FIELDS + 1)).unwrap_err(), Fault::TooMany);
        assert_eq!(objects("[{},{},{}]", 3).unwrap().len(), 3);
    }

    #[test]
    fn duplicate_fields_are_kept() {
        let entries = object(r#"{"a":1,"a":[2, 3]}"#).unwrap();
        let entries: Vec<_> = entries.iter().map(|(name, json)| (&**name, &***json)).collect();
        assert_eq!(entries, [("a", "1"), ("a", "[2, 3]")]);
    }
}
