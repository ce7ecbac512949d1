//! The error type of the crate, and the mapping from each error to its code and HTTP status.

use std::borrow::Cow;
use std::error::Error as StdError;

/// Why an operation failed.
///
/// `Display` is the message for the caller: it says what is wrong and what to do, and never repeats
/// input. `source` is only for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request violates a rule.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// The request, or a stored row, cannot be parsed.
    #[error("{0}")]
    Malformed(Cow<'static, str>),
    /// The caller may not do this: the encryption context does not match, or the stack does not
    /// allow it.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// There is no such secret, version, revision or stage.
    #[error("{0}")]
    NotFound(Cow<'static, str>),
    /// The secret or version exists already, or conflicts with one that does.
    #[error("{0}")]
    Exists(Cow<'static, str>),
    /// The version has expired.
    #[error("This version has expired. Put a new version, or request another one.")]
    Expired,
    /// The value or the request is too large.
    #[error("{0}")]
    TooLarge(Cow<'static, str>),
    /// The stored row is not what was sealed. The message does not say which check failed.
    #[error(
        "This version failed its integrity check and was not opened: its row was altered, moved or \
         damaged. Restore the row from a backup, or put the secret again."
    )]
    Integrity,
    /// A KMS key other than the stack's wrapped the data key.
    #[error(
        "The data key of this version was wrapped by a KMS key other than this stack's. If the \
         table was adopted, ask the operator of the stack to adopt its key as well. Otherwise the \
         row was altered: restore it from a backup."
    )]
    Foreign,
    /// The ledger's rows about this name cannot be read, so no event can follow them.
    #[error(
        "The ledger's record of this name cannot be read, so nothing can be added to it. Ask the \
         operator of the stack to verify the history of the name and to restore its events from a \
         backup."
    )]
    UnreadableChain,
    /// Another request renewed the name at the same time.
    #[error(
        "Another request renewed this name at the same time. List its versions to see the new one."
    )]
    Renewed,
    /// The rotation policy belongs to an earlier life of the name.
    #[error(
        "The rotation policy of this name is suspended: the secret that it was put for was deleted \
         or has expired. Put the policy again when the name has a value that the policy may \
         replace."
    )]
    PolicySuspended,
    /// The version has no seal, and this stack opens only sealed versions.
    #[error(
        "This version has no seal, and this stack refuses legacy rows. Rotate the name with action \
         reseal, put the secret again, or deploy the stack with LegacyItems=read."
    )]
    Unsealed,
    /// Some of several requested secrets failed, so the whole request failed.
    #[error("{}", messages(.0))]
    Several(Vec<ErrorGroup>),
    /// A call to AWS failed.
    #[error("{message}")]
    Unavailable {
        /// What the caller can do.
        message: Cow<'static, str>,
        /// The call that failed, for the operator.
        source: Box<dyn StdError + Send + Sync>,
    },
}

/// The same error for some of several secrets.
#[derive(Debug)]
pub struct ErrorGroup {
    /// The error.
    pub error: Box<Error>,
    /// The names of the secrets as they are stored, or their places in the request; never what a
    /// caller sent.
    pub names: Vec<String>,
}

/// Returns the messages, each with the names that it is about.
fn messages(groups: &[ErrorGroup]) -> String {
    const MAX_NAMES: usize = 100;
    let about = |group: &ErrorGroup| {
        let named: Vec<_> =
            group.names.iter().take(MAX_NAMES).map(|name| format!("{name:?}")).collect();
        let more = match group.names.len().saturating_sub(MAX_NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{} Affected: {}{more}.", group.error, named.join(", "))
    };
    groups.iter().map(about).collect::<Vec<_>>().join(" ")
}

/// The code of an [`Error`] in responses: an HTTP status and a name. Both are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// The HTTP status.
    pub status: u16,
    /// The `code` in an HTTP body, and the `errorType` of a function error.
    pub name: &'static str,
}

impl Error {
    /// Returns the error for a request that violates a rule. `message` names the rule.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(message.into())
    }

    /// Returns the error for a failed random number generator.
    pub(crate) fn no_randomness(source: impl StdError + Send + Sync + 'static) -> Self {
        Self::Unavailable {
            message: "The operating system provides no random numbers. Try again.".into(),
            source: Box::new(source),
        }
    }

    /// Returns the same error, about the entry at index `place` of the request's list `list`.
    #[must_use]
    pub fn in_entry(self, list: &str, place: usize) -> Self {
        match self {
            // It has a place already.
            Self::Several(groups) => Self::Several(groups),
            error => Self::several([(format!("{list}[{place}]"), error)]),
        }
    }

    /// Returns the error for more secrets than one transaction can write.
    pub(crate) fn too_many_secrets() -> Self {
        Self::TooLarge(
            "At most 50 secrets can be put in one request, or 49 with a `token`, because DynamoDB \
             limits transactions. Put the others in another request."
                .into(),
        )
    }

    /// Returns the names of the secrets that the error is about, if it is about several.
    #[must_use]
    pub fn names(&self) -> Option<String> {
        const MAX_NAMES: usize = 20;
        let Self::Several(groups) = self else { return None };
        let names: Vec<_> = groups.iter().flat_map(|group| &group.names).take(MAX_NAMES).collect();
        Some(format!("{names:?}"))
    }

    /// Returns the cause, which only the operator should see.
    #[must_use]
    pub fn detail(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Several(groups) => groups.iter().find_map(|group| group.error.detail()),
            error => error.source(),
        }
    }

    /// Returns one error for the errors of several secrets, by their names.
    ///
    /// It has the code of the most severe one: failures of AWS come first, then what the operator
    /// must fix, then what the caller can fix.
    #[must_use]
    pub fn several(failed: impl IntoIterator<Item = (String, Self)>) -> Self {
        let mut groups: Vec<ErrorGroup> = Vec::new();
        for (name, error) in failed {
            let message = error.to_string();
            match groups.iter_mut().find(|group| group.error.to_string() == message) {
                Some(group) => group.names.push(name),
                None => groups.push(ErrorGroup { error: Box::new(error), names: vec![name] }),
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.error.code().status));
        Self::Several(groups)
    }

    /// Returns the code and HTTP status of this error.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        let (status, name) = match self {
            Self::Invalid(_) => (400, "Invalid"),
            Self::Malformed(_) => (400, "Malformed"),
            Self::Forbidden(_) => (403, "Forbidden"),
            Self::NotFound(_) => (404, "NotFound"),
            Self::Exists(_) | Self::Renewed | Self::PolicySuspended => (409, "Exists"),
            Self::Expired => (410, "Expired"),
            Self::TooLarge(_) => (413, "TooLarge"),
            Self::Integrity | Self::Foreign | Self::UnreadableChain | Self::Unsealed => {
                (500, "Integrity")
            }
            Self::Unavailable { .. } => (503, "Unavailable"),
            Self::Several(groups) => {
                return groups.first().map_or(Self::Integrity.code(), |group| group.error.code());
            }
        };
        ErrorCode { status, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_code_and_a_status() {
        let text = || Cow::Borrowed("Do this.");
        let unavailable = Error::Unavailable { message: text(), source: "inside".into() };
        for (error, name, status) in [
            (Error::Invalid(text()), "Invalid", 400),
            (Error::Malformed(text()), "Malformed", 400),
            (Error::Forbidden(text()), "Forbidden", 403),
            (Error::NotFound(text()), "NotFound", 404),
            (Error::Exists(text()), "Exists", 409),
            (Error::Expired, "Expired", 410),
            (Error::TooLarge(text()), "TooLarge", 413),
            (Error::Integrity, "Integrity", 500),
            (Error::Foreign, "Integrity", 500),
            (Error::Unsealed, "Integrity", 500),
            (Error::UnreadableChain, "Integrity", 500),
            (Error::Renewed, "Exists", 409),
            (Error::PolicySuspended, "Exists", 409),
            (unavailable, "Unavailable", 503),
            (Error::several([("a".to_owned(), Error::Expired)]), "Expired", 410),
        ] {
            assert_eq!(error.code(), ErrorCode { status, name });
            assert!(error.to_string().ends_with('.'), "{error}");
            assert!(!error.to_string().contains("inside"));
        }
    }

    #[test]
    fn errors_of_several_secrets_become_one_that_names_them() {
        let failed = [("a", Error::Expired), ("b\n", Error::Integrity), ("c", Error::Expired)];
        let error = Error::several(failed.map(|(name, error)| (name.to_owned(), error)));
        assert_eq!(error.code().name, "Integrity");
        let message = error.to_string();
        assert!(message.contains(r#"Affected: "a", "c"."#), "{message}");
        assert!(message.contains(r#"Affected: "b\n"."#), "{message}");
        let many = (0..250).map(|number| (number.to_string(), Error::Expired));
        assert!(Error::several(many).to_string().contains("\"99\" and 150 more."));
        let error = Error::Unavailable { message: "Try again.".into(), source: "inside".into() };
        let error = Error::several([("a".to_owned(), error)]);
        assert_eq!(error.detail().map(ToString::to_string).as_deref(), Some("inside"));
    }

    #[test]
    fn an_error_about_an_entry_shows_its_place_once() {
        let expected = r#"Do this. Affected: "secrets[37]"."#;
        let error = Error::invalid("Do this.").in_entry("secrets", 37);
        assert_eq!((error.code().name, &*error.to_string()), ("Invalid", expected));
        assert_eq!(error.in_entry("other", 1).to_string(), expected);
    }
}
