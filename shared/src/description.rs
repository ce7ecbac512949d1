//! The description of a version: everything that its row says except the value.

use std::collections::BTreeMap;

use crate::envelope::OpenError;
use crate::name::{Revision, VersionKey};
use crate::row::{Attribute, Row};
use crate::timestamp::Timestamp;

/// The description of a version.
#[derive(Debug, serde::Serialize)]
pub struct Description {
    /// The name of the secret.
    pub name: String,
    /// The version: a number, unless another client wrote something else.
    pub version: VersionKey,
    /// The revision. Rows of most other clients have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// The comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// When it was put, to the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The encryption context; `None` if it is empty or not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<BTreeMap<String, String>>,
}

impl Description {
    /// Reads the description of a row.
    ///
    /// # Errors
    /// [`OpenError::Malformed`] if the row has no key.
    pub fn of(row: &Row) -> Result<Self, OpenError> {
        let moment = |name| {
            row.get(name).and_then(Attribute::integer).and_then(Timestamp::from_unix_seconds)
        };
        let text = |name| row.get(name).and_then(Attribute::text);
        let context = row.get("context").and_then(Attribute::map);
        Ok(Self {
            name: text("name").ok_or(OpenError::Malformed)?.to_owned(),
            version: VersionKey::stored(text("version").ok_or(OpenError::Malformed)?),
            revision: row.get("revision").and_then(Attribute::bytes).and_then(Revision::stored),
            comment: text("comment").filter(|text| !text.is_empty()).map(str::to_owned),
            created_at: moment("created_at"),
            expires_at: moment("expires_at"),
            context: context.filter(|pairs| !pairs.is_empty()).cloned(),
        })
    }

    /// Returns an upper bound of the length as JSON, in bytes.
    pub(crate) fn json_len(&self) -> usize {
        const REST: usize = 512;
        REST + 6 * (self.name.len() + self.comment.as_ref().map_or(0, String::len))
    }
}

/// Returns the name in a row.
pub(crate) fn name_of(row: &Row) -> Option<&str> {
    row.get("name").and_then(Attribute::text)
}
