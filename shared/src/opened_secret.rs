//! An opened secret: a version with its value.

use serde::Serializer;

use crate::description::Description;
use crate::envelope::Dialect;
use crate::name::Stage;
use crate::secret::{Secret, reveal};

/// An opened version. As JSON it is a response of get.
#[derive(Debug, serde::Serialize)]
pub struct OpenedSecret {
    /// Its description, without the context: the caller gave it.
    #[serde(flatten)]
    pub description: Description,
    /// Its value.
    #[serde(flatten, serialize_with = "reveal")]
    pub secret: Secret,
    /// Its stages, if they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stages: Option<Vec<Stage>>,
    /// The dialect of a legacy row.
    #[serde(serialize_with = "as_str", skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
}

impl OpenedSecret {
    /// Returns an upper bound of the length as JSON, in bytes.
    pub(crate) fn json_len(&self) -> usize {
        self.description.json_len() + self.secret.json_len()
    }
}

#[expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference to the field"
)]
fn as_str<S: Serializer>(dialect: &Option<Dialect>, serializer: S) -> Result<S::Ok, S::Error> {
    match dialect {
        Some(dialect) => serializer.serialize_str(dialect.as_str()),
        None => serializer.serialize_none(),
    }
}
