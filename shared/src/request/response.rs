//! What an operation returns: fields, a bare value or a document.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::error::Error;
use crate::name::VersionKey;
use crate::secret::Secret;

/// The response of an operation, before it gets the form that its caller expects.
pub struct Response {
    pub(super) body: Body,
    version: Option<VersionKey>,
}

/// The content of a response; a document has a media type.
pub(super) enum Body {
    Json(Box<RawValue>),
    Bare(Secret),
    Document(Secret, &'static str),
}

impl Response {
    /// Returns a response with these fields, as JSON.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the fields cannot be written as JSON.
    pub fn json(fields: &impl Serialize) -> Result<Self, Error> {
        Ok(Self { body: Body::Json(to_json(fields)?), version: None })
    }

    /// Returns a response that consists of the bare value.
    #[must_use]
    pub fn bare(secret: Secret) -> Self {
        Self { body: Body::Bare(secret), version: None }
    }

    /// Returns a response that is a document: UTF-8 text of this media type.
    #[must_use]
    pub fn document(text: Secret, media: &'static str) -> Self {
        Self { body: Body::Document(text, media), version: None }
    }

    /// Adds the version that the response is about, for the log.
    #[must_use]
    pub fn of_version(mut self, version: VersionKey) -> Self {
        self.version = Some(version);
        self
    }

    /// Returns the version that the response is about, if it is about one.
    #[must_use]
    pub fn version(&self) -> Option<&VersionKey> {
        self.version.as_ref()
    }
}

/// Writes a value as JSON.
pub(super) fn to_json(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|error| Error::Unavailable {
        message: "The response could not be written. Contact the operator of the stack.".into(),
        source: Box::new(error),
    })
}
