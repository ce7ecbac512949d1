//! The versions of a put: as requested, and as written.

use crate::encryption_context::EncryptionContext;
use crate::error::Error;
use crate::generate::GenerateRules;
use crate::name::{Name, Revision, Version};
use crate::secret::Secret;
use crate::timestamp::Timestamp;

/// A version to be put.
#[derive(Debug)]
pub struct NewVersion {
    /// The name of the secret.
    pub name: Name,
    /// The value.
    pub value: Value,
    /// The encryption context that KMS binds to the data key. It is required again to open the
    /// version.
    pub context: EncryptionContext,
    /// The comment. An empty one is none.
    pub comment: Option<String>,
    /// When the version expires; never if `None`.
    pub expiry: Option<Expiry>,
    /// The version number; the one after the highest if `None`.
    pub version: Option<Version>,
}

/// The value of a version.
#[derive(Debug)]
pub enum Value {
    /// From the caller.
    Given(Secret),
    /// Generated from the operating system's random numbers.
    Generated(GenerateRules),
}

/// When a version expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// At this second.
    At(Timestamp),
    /// This many seconds after the put.
    After(u64),
}

impl Expiry {
    /// Returns the time.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is not in the future.
    pub(super) fn moment(self) -> Result<Timestamp, Error> {
        let now = Timestamp::now();
        match self {
            Self::At(end) => Some(end),
            Self::After(seconds) => now.after(seconds),
        }
        .filter(|end| *end > now)
        .ok_or(Error::invalid("`expires_at` must be in the future, and `ttl` must be 1 or more."))
    }
}

/// A version that was written.
#[derive(Debug, serde::Serialize)]
pub struct StoredVersion {
    /// The name of the secret.
    pub name: Name,
    /// The version number.
    pub version: Version,
    /// The revision.
    pub revision: Revision,
    /// False if a higher version existed, so that this one is not current.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
}
