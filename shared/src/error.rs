//! The one error of the crate, in words of what the caller can do about it, and the one place
//! where it becomes a code and a status.

use std::borrow::Cow;
use std::error::Error as StdError;

/// Why an operation was not done. `Display` is the message for the caller: it says what to do
/// next and never repeats input. What only the operator should see is the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks a rule.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// What was sent, or what is stored, cannot be read at all.
    #[error("{0}")]
    Malformed(Cow<'static, str>),
    /// It is not for this caller: the encryption context is not the one that the secret was put
    /// with, or the stack does not allow it.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// There is no such secret, version, revision or stage.
    #[error("{0}")]
    NotFound(Cow<'static, str>),
    /// There is one already.
    #[error("{0}")]
    Exists(Cow<'static, str>),
    /// It was there, and its time is over.
    #[error("This version has expired. Put a new one, or ask for another version.")]
    Expired,
    /// It does not fit.
    #[error("{0}")]
    TooLarge(Cow<'static, str>),
    /// What is stored is not what was sealed. Which check failed is nobody's business.
    #[error(
        "This version failed its integrity check and was not opened: its row was altered, moved \
         or damaged. Restore the row from a backup, or put the secret anew."
    )]
    Integrity,
    /// The data key was wrapped by another KMS key than the stack's.
    #[error(
        "The data key of this version was wrapped by another KMS key than this stack's. If the \
         table was adopted, ask the stack's operator to adopt its key with it; if not, the row was \
         altered."
    )]
    Foreign,
    /// What the ledger says of a name cannot be read, so nothing can follow it.
    #[error(
        "The ledger's record of this name cannot be read, so nothing can be added to it. Ask the \
         stack's operator to verify its history and to restore its entries from a backup."
    )]
    Unreadable,
    /// The name was renewed by another at the same moment.
    #[error("This name was renewed by another request at the same moment. List its versions.")]
    Renewed,
    /// The rotation policy belongs to an earlier life of the name.
    #[error(
        "The rotation policy of this name is suspended: the secret that it was put for was deleted \
         or has expired. Put the policy again once the name has a value that it may replace."
    )]
    Suspended,
    /// The version carries no seal, and this stack opens sealed versions only.
    #[error(
        "This version carries no seal, and this stack refuses legacy rows. Rotate the name with \
         action reseal, put the secret anew, or deploy with LegacyItems=read."
    )]
    Unsealed,
    /// Several secrets were asked for together, and these are not given; so none is.
    #[error("{}", told(.0))]
    Several(Vec<Group>),
    /// AWS could not or would not do its part; `source` says which part, for the operator.
    #[error("{message}")]
    Unavailable {
        /// What the caller can do about it.
        message: Cow<'static, str>,
        /// The call that failed.
        source: Box<dyn StdError + Send + Sync>,
    },
}

/// What went wrong in the same way with some of several secrets.
#[derive(Debug)]
pub struct Group {
    /// What went wrong.
    pub error: Box<Error>,
    /// The names of the secrets as they are stored, or their places in the request: never what a
    /// caller sent.
    pub names: Vec<String>,
}

/// The messages, each with the names it is about.
fn told(groups: &[Group]) -> String {
    const NAMED: usize = 100;
    let about = |group: &Group| {
        let named: Vec<_> =
            group.names.iter().take(NAMED).map(|name| format!("{name:?}")).collect();
        let more = match group.names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{} This is about {}{more}.", group.error, named.join(", "))
    };
    groups.iter().map(about).collect::<Vec<_>>().join(" ")
}

/// How an [`Error`] looks on the wire: an HTTP status and a code that stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The HTTP status.
    pub status: u16,
    /// `code` in an HTTP body, `errorType` of a function error.
    pub name: &'static str,
}

impl Error {
    /// A request that breaks a rule; `message` names the rule.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(message.into())
    }

    pub(crate) fn no_randomness(source: impl StdError + Send + Sync + 'static) -> Self {
        Self::Unavailable {
            message: "The operating system has no random numbers to give. Try again.".into(),
            source: Box::new(source),
        }
    }

    /// The same error, about one entry of the list that a request carries under `list`.
    #[must_use]
    pub fn in_entry(self, list: &str, place: usize) -> Self {
        match self {
            // It has a place already.
            Self::Several(groups) => Self::Several(groups),
            error => Self::several([(format!("{list}[{place}]"), error)]),
        }
    }

    /// More secrets than one transaction can write.
    pub(crate) fn too_many_secrets() -> Self {
        Self::TooLarge(
            "At most 50 secrets are put at once, 49 with a `token`: that is DynamoDB's limit. \
             Put the others in another request."
                .into(),
        )
    }

    /// The secrets it is about, if it is about several.
    #[must_use]
    pub fn names(&self) -> Option<String> {
        const NAMED: usize = 20;
        let Self::Several(groups) = self else { return None };
        let names: Vec<_> = groups.iter().flat_map(|group| &group.names).take(NAMED).collect();
        Some(format!("{names:?}"))
    }

    /// What only the operator should see of it.
    #[must_use]
    pub fn detail(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Several(groups) => groups.iter().find_map(|group| group.error.detail()),
            error => error.source(),
        }
    }

    /// What went wrong with each of several secrets, by their names. It has the code of what is
    /// worst: what AWS did not do, then what the operator must mend, then what the caller can.
    #[must_use]
    pub fn several(failed: impl IntoIterator<Item = (String, Self)>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for (name, error) in failed {
            let message = error.to_string();
            match groups.iter_mut().find(|group| group.error.to_string() == message) {
                Some(group) => group.names.push(name),
                None => groups.push(Group { error: Box::new(error), names: vec![name] }),
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse(group.error.code().status));
        Self::Several(groups)
    }

    /// The code and status of this error.
    #[must_use]
    pub fn code(&self) -> Code {
        let (status, name) = match self {
            Self::Invalid(_) => (400, "Invalid"),
            Self::Malformed(_) => (400, "Malformed"),
            Self::Forbidden(_) => (403, "Forbidden"),
            Self::NotFound(_) => (404, "NotFound"),
            Self::Exists(_) | Self::Renewed | Self::Suspended => (409, "Exists"),
            Self::Expired => (410, "Expired"),
            Self::TooLarge(_) => (413, "TooLarge"),
            Self::Integrity | Self::Foreign | Self::Unreadable | Self::Unsealed => {
                (500, "Integrity")
            }
            Self::Unavailable { .. } => (503, "Unavailable"),
            Self::Several(groups) => {
                return groups.first().map_or(Self::Integrity.code(), |group| group.error.code());
            }
        };
        Code { status, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_code_and_status_and_says_what_to_do() {
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
            (Error::Unreadable, "Integrity", 500),
            (Error::Renewed, "Exists", 409),
            (Error::Suspended, "Exists", 409),
            (unavailable, "Unavailable", 503),
            (Error::several([("a".to_owned(), Error::Expired)]), "Expired", 410),
        ] {
            assert_eq!(error.code(), Code { status, name });
            assert!(error.to_string().ends_with('.'), "{error}");
            assert!(!error.to_string().contains("inside"));
        }
    }

    #[test]
    fn several_errors_are_one_with_the_names_of_each() {
        let failed = [("a", Error::Expired), ("b\n", Error::Integrity), ("c", Error::Expired)];
        let error = Error::several(failed.map(|(name, error)| (name.to_owned(), error)));
        assert_eq!(error.code().name, "Integrity");
        let told = error.to_string();
        assert!(told.contains(r#"This is about "a", "c"."#), "{told}");
        assert!(told.contains(r#"This is about "b\n"."#), "{told}");
        let many = (0..250).map(|number| (number.to_string(), Error::Expired));
        assert!(Error::several(many).to_string().contains("\"99\" and 150 more."));
        let error = Error::Unavailable { message: "Try again.".into(), source: "inside".into() };
        let error = Error::several([("a".to_owned(), error)]);
        assert_eq!(error.detail().map(ToString::to_string).as_deref(), Some("inside"));
    }

    #[test]
    fn an_error_about_an_entry_names_its_place_once() {
        let told = r#"Do this. This is about "secrets[37]"."#;
        let error = Error::invalid("Do this.").in_entry("secrets", 37);
        assert_eq!((error.code().name, &*error.to_string()), ("Invalid", told));
        assert_eq!(error.in_entry("other", 1).to_string(), told);
    }
}
