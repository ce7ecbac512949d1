//! The three actions, and the reasons why an item is not changed.

use crate::error::Error;

/// An action of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Re-encrypts data keys under the current key material.
    Rewrap,
    /// Gives legacy rows a seal.
    Reseal,
    /// Generates new values where a policy is due.
    Renew,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 3] = [Self::Rewrap, Self::Reseal, Self::Renew];

    /// Returns the name of the action in requests and responses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rewrap => "rewrap",
            Self::Reseal => "reseal",
            Self::Renew => "renew",
        }
    }
}

impl std::str::FromStr for Action {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|action| action.as_str() == text);
        found.ok_or(Error::invalid("`action` must be rewrap, reseal or renew."))
    }
}

/// Why a version or policy is not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// KMS refuses every known encryption context.
    EncryptionContext,
    /// The seal or MAC is invalid, or KMS refuses the context in a sealed row.
    Integrity,
    /// The row has a form that no client writes.
    Malformed,
    /// Neither the stack's key nor a retired one wrapped the data key.
    Foreign,
    /// The row may be of two dialects, and nothing in it shows which.
    Ambiguous,
    /// The row cannot be of the dialect in the hint.
    Dialect,
    /// The row has attributes of a sealed row, but no seal.
    Stripped,
    /// The row has no seal, and the stack refuses legacy rows.
    Unsealed,
    /// The row has an attribute that no seal covers, or one of an unexpected type.
    Unsealable,
    /// With a seal, the row would not fit an item.
    TooLarge,
    /// No version can follow the highest one, or the padded number exists.
    Exists,
    /// With a padded number, another version would become current.
    Order,
    /// Others kept changing the version, or moving versions of the name, at every try.
    Moving,
    /// The history of the name or its policy cannot be read.
    UnreadableChain,
    /// The put that the policy describes is invalid.
    Invalid,
    /// The policy allows too few values.
    Weak,
    /// The policy belongs to an earlier life of the name.
    PolicySuspended,
    /// The newest value is JSON and the policy has no template, or the reverse.
    Json,
    /// KMS denies the call, perhaps only under the context of this version.
    Denied,
}

impl Reason {
    /// Returns the reason as reports have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EncryptionContext => "context",
            Self::Integrity => "integrity",
            Self::Malformed => "malformed",
            Self::Foreign => "foreign",
            Self::Ambiguous => "ambiguous",
            Self::Dialect => "dialect",
            Self::Stripped => "stripped",
            Self::Unsealed => "unsealed",
            Self::Unsealable => "unsealable",
            Self::TooLarge => "too-large",
            Self::Exists => "exists",
            Self::Order => "order",
            Self::Moving => "moving",
            Self::UnreadableChain => "unreadable",
            Self::Invalid => "invalid",
            Self::Weak => "weak",
            Self::PolicySuspended => "suspended",
            Self::Json => "json",
            Self::Denied => "denied",
        }
    }

    /// Returns the reason for an error that is about one name; `None` for any other error.
    pub(super) fn of(error: &Error) -> Option<Self> {
        match error {
            Error::Unavailable { .. } | Error::Several(_) => None,
            Error::Exists(_) | Error::Renewed => Some(Self::Exists),
            Error::PolicySuspended => Some(Self::PolicySuspended),
            Error::TooLarge(_) => Some(Self::TooLarge),
            Error::UnreadableChain => Some(Self::UnreadableChain),
            Error::Foreign => Some(Self::Foreign),
            Error::Integrity | Error::Unsealed | Error::Expired => Some(Self::Integrity),
            Error::Malformed(_) => Some(Self::Malformed),
            Error::Invalid(_) | Error::Forbidden(_) | Error::NotFound(_) => Some(Self::Invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_one_name_is_a_reason_and_any_other_is_not() {
        let text = || std::borrow::Cow::Borrowed("Do this.");
        for (error, reason) in [
            (Error::Exists(text()), Some("exists")),
            (Error::Renewed, Some("exists")),
            (Error::PolicySuspended, Some("suspended")),
            (Error::TooLarge(text()), Some("too-large")),
            (Error::UnreadableChain, Some("unreadable")),
            (Error::Foreign, Some("foreign")),
            (Error::Integrity, Some("integrity")),
            (Error::Unsealed, Some("integrity")),
            (Error::Expired, Some("integrity")),
            (Error::Malformed(text()), Some("malformed")),
            (Error::Invalid(text()), Some("invalid")),
            (Error::Forbidden(text()), Some("invalid")),
            (Error::NotFound(text()), Some("invalid")),
            (Error::Unavailable { message: text(), source: "inside".into() }, None),
            (Error::several([("a".to_owned(), Error::Expired)]), None),
        ] {
            assert_eq!(Reason::of(&error).map(Reason::as_str), reason, "{error:?}");
        }
    }

    #[test]
    fn each_reason_has_its_own_name() {
        let reasons = [Reason::Order, Reason::Moving, Reason::Exists, Reason::Ambiguous];
        assert_eq!(reasons.map(Reason::as_str), ["order", "moving", "exists", "ambiguous"]);
    }
}
