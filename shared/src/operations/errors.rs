//! Errors that several operations share.

use crate::envelope::OpenError;
use crate::error::Error;
use crate::name::Name;

impl From<OpenError> for Error {
    fn from(refusal: OpenError) -> Self {
        match refusal {
            OpenError::Integrity => Self::Integrity,
            OpenError::Malformed => Self::Malformed(
                "The row of this version is not a secret: an attribute is missing or has a form \
                 that no credstash client writes. Restore the row, or put the secret again."
                    .into(),
            ),
            OpenError::UnsupportedDigest => Self::Malformed(
                "The digest of this version is not supported, so its integrity cannot be checked. \
                 Supported digests are MD5, SHA (SHA-1), SHA224, SHA256, SHA384, SHA512, RIPEMD \
                 and WHIRLPOOL. Put the secret again."
                    .into(),
            ),
            OpenError::Ambiguous => Self::Malformed(
                "This version was written by credstash or by rucredstash, and both could read it, \
                 differently. Reseal the name in a run whose `dialects` name its client, or put \
                 the secret again."
                    .into(),
            ),
        }
    }
}

/// Explains why nothing was found under a name that breaks the rules. Another client may have used
/// such a name. If none has, the rule is the better error.
pub(super) fn for_name(name: &Name, error: Error) -> Error {
    match (&error, name.check()) {
        (Error::NotFound(_), Err(rule)) => rule,
        _ => error,
    }
}

/// Refuses a name whose entries in the ledger would mix with the ledger's own. Another client may
/// have written a row of such a name.
pub(super) fn unless_reserved(name: &Name) -> Result<(), Error> {
    if name.is_reserved() {
        return Err(Error::invalid(
            "The names /policies, /rotation and /token and all names under them are reserved. To \
             delete a row with such a name, use DynamoDB.",
        ));
    }
    Ok(())
}

pub(super) fn not_found() -> Error {
    Error::NotFound(
        "There is no such secret or version. List the names. If the secret was deleted, its \
         history shows it: `GET /history/NAME`."
            .into(),
    )
}

pub(super) fn invalid_next() -> Error {
    Error::invalid("`next` must be the `next` of an earlier response, unchanged.")
}
