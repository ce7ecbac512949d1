//! Errors of AWS calls: what the caller can do, and for the operator the action and the resource.

use std::fmt;

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;

use crate::error::Error;

/// A failed call, for the operator's log. It leaves AWS's own message out, which may repeat input.
#[derive(Debug)]
pub struct AwsError {
    action: &'static str,
    resource: String,
    code: String,
    request_id: Option<String>,
    kind: Kind,
}

const UNKNOWN: &str = "unknown error";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Broken,
    Busy,
    Denied,
    Key,
    Missing,
    Silent,
    Other,
}

impl std::error::Error for AwsError {}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, resource, code, request_id, kind } = self;
        write!(f, "{action} on {resource}: {code}")?;
        if let Some(id) = request_id {
            write!(f, " (request {id})")?;
        }
        f.write_str(match kind {
            Kind::Broken => ". An internal error of AWS, after all retries.",
            Kind::Busy => ". Throttled after all retries: raise the quota or spread the load.",
            Kind::Denied => {
                ". Allow this action on this resource in the function's role and, for KMS, in the \
                 key policy."
            }
            Kind::Key => ". Enable the key, or cancel its deletion.",
            Kind::Missing => {
                ". It does not exist: check the stack's parameters for table and key, and the \
                 table's indexes."
            }
            Kind::Silent => ". No response in time: check the network path and the health of AWS.",
            Kind::Other => "",
        })
    }
}

impl AwsError {
    /// Classifies the error of `action` on `resource`.
    pub(crate) fn of<E: ProvideErrorMetadata, R>(
        action: &'static str,
        resource: impl Into<String>,
        error: &SdkError<E, R>,
    ) -> Self
    where
        SdkError<E, R>: RequestId,
    {
        let service = error.as_service_error().and_then(ProvideErrorMetadata::code);
        let (kind, code) = match error {
            SdkError::TimeoutError(_) => (Kind::Silent, "timeout"),
            SdkError::DispatchFailure(_) => (Kind::Silent, "connection failed"),
            SdkError::ResponseError(_) => (Kind::Silent, "unreadable response"),
            SdkError::ServiceError(_) => {
                let code = service.unwrap_or(UNKNOWN);
                (Kind::named(code), code)
            }
            _ => (Kind::Other, "request could not be made"),
        };
        let resource = resource.into();
        // For a missing index, DynamoDB does not return ResourceNotFoundException.
        let no_index = code == "ValidationException" && resource.contains("/index/");
        let kind = if no_index { Kind::Missing } else { kind };
        Self {
            action,
            resource,
            code: code.to_owned(),
            request_id: error.request_id().map(str::to_owned),
            kind,
        }
    }

    /// The same error with another code, if AWS gave the reason apart from the error's code.
    pub(crate) fn because(self, code: &str) -> Self {
        Self { kind: Kind::named(code), code: code.to_owned(), ..self }
    }

    /// Whether the call certainly changed nothing. If it was tried more than once, a try before the
    /// one that failed may have been done.
    pub(crate) fn is_certain(&self) -> bool {
        match self.kind {
            // An error without a code comes from somewhere in between.
            Kind::Other => self.code != UNKNOWN,
            Kind::Denied | Kind::Key | Kind::Missing => true,
            Kind::Broken | Kind::Busy | Kind::Silent => false,
        }
    }

    /// Whether the same call may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        match self.kind {
            Kind::Broken | Kind::Busy | Kind::Silent => true,
            Kind::Denied | Kind::Key | Kind::Missing | Kind::Other => false,
        }
    }

    /// Whether the KMS key cannot be used: it is disabled, in deletion, or gone.
    pub(crate) fn is_of_key(&self) -> bool {
        matches!(self.kind, Kind::Key | Kind::Missing)
    }

    /// Returns AWS's code for the error.
    pub(crate) fn code(&self) -> &str {
        &self.code
    }
}

impl Kind {
    fn named(code: &str) -> Self {
        match code {
            "AccessDeniedException" | "AccessDenied" | "UnrecognizedClientException" => {
                Self::Denied
            }
            "DisabledException" | "KMSInvalidStateException" | "InvalidKeyUsageException" => {
                Self::Key
            }
            "NotFoundException" | "ResourceNotFoundException" => Self::Missing,
            "InternalServerError"
            | "InternalFailure"
            | "KMSInternalException"
            | "KeyUnavailableException"
            | "ServiceUnavailable"
            | "ServiceUnavailableException" => Self::Broken,
            "LimitExceededException"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "ProvisionedThroughputExceeded"
            | "ThrottlingError"
            | "ThrottlingException"
            | "TooManyRequestsException"
            | "TransactionInProgressException" => Self::Busy,
            "DependencyTimeoutException" => Self::Silent,
            _ => Self::Other,
        }
    }
}

impl Error {
    /// Whether AWS throttled the call or it timed out, so that the same call may succeed a moment
    /// later.
    pub(crate) fn is_busy(&self) -> bool {
        let Self::Unavailable { source, .. } = self else { return false };
        source
            .downcast_ref::<AwsError>()
            .is_some_and(|failure| matches!(failure.kind, Kind::Busy | Kind::Silent))
    }

    /// Whether KMS denied the call. It may have done so because of the encryption context alone.
    pub(crate) fn is_denied_by_kms(&self) -> bool {
        let Self::Unavailable { source, .. } = self else { return false };
        source.downcast_ref::<AwsError>().is_some_and(|failure| {
            failure.kind == Kind::Denied && failure.action.starts_with("kms:")
        })
    }
}

impl From<AwsError> for Error {
    fn from(failure: AwsError) -> Self {
        let message = match failure.kind {
            Kind::Broken => "AWS had an internal error. Try again, with growing pauses.",
            Kind::Busy => "AWS is busy. Try again, with growing pauses.",
            Kind::Denied => {
                "A permission of the function is missing. Ask the stack's operator: the function's \
                 log names it."
            }
            Kind::Key => {
                "The KMS key is disabled or will be deleted. Ask the stack's operator to enable it."
            }
            Kind::Missing => {
                "The table, index or key that this stack is configured with does not exist. Ask \
                 the stack's operator: the function's log names it."
            }
            Kind::Silent => "AWS did not respond in time. Try again.",
            Kind::Other => {
                "AWS refused a call. Ask the stack's operator: the function's log names it."
            }
        };
        Self::Unavailable { message: message.into(), source: Box::new(failure) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn failure(code: &str) -> AwsError {
        AwsError {
            action: "kms:Decrypt",
            resource: "arn:aws:kms:key".to_owned(),
            code: code.to_owned(),
            request_id: Some("id-1".to_owned()),
            kind: Kind::named(code),
        }
    }

    #[test]
    fn the_operator_sees_action_resource_and_remedy_and_the_caller_a_remedy() {
        for (code, operator, caller) in [
            ("AccessDeniedException", "Allow this action", "permission of the function is missing"),
            ("DisabledException", "Enable the key", "disabled"),
            ("KMSInvalidStateException", "Enable the key", "deleted"),
            ("ResourceNotFoundException", "does not exist", "does not exist"),
            ("ThrottlingException", "quota", "busy"),
            ("KMSInternalException", "internal error", "internal error"),
            ("DependencyTimeoutException", "No response", "in time"),
            ("SomethingNew", "SomethingNew", "refused a call"),
        ] {
            let detail = failure(code).to_string();
            for part in ["kms:Decrypt on arn:aws:kms:key", code, "id-1", operator] {
                assert!(detail.contains(part), "{detail}");
            }
            let error = Error::from(failure(code));
            assert_eq!(error.code().name, "Unavailable");
            assert!(error.to_string().contains(caller), "{error}");
            assert!(!error.to_string().contains("arn:"), "{error}");
        }
    }

    #[test]
    fn only_a_throttled_or_timed_out_call_is_busy() {
        for (code, busy) in [
            ("ThrottlingException", true),
            ("ProvisionedThroughputExceededException", true),
            ("DependencyTimeoutException", true),
            ("AccessDeniedException", false),
            ("KMSInternalException", false),
            ("ResourceNotFoundException", false),
        ] {
            assert_eq!(Error::from(failure(code)).is_busy(), busy, "{code}");
        }
        assert!(!Error::Integrity.is_busy());
    }

    #[test]
    fn a_write_is_certain_to_have_failed_only_if_it_was_refused() {
        for (code, certain) in [
            ("AccessDeniedException", true),
            ("ValidationException", true),
            ("ResourceNotFoundException", true),
            ("ProvisionedThroughputExceededException", false),
            ("InternalServerError", false),
            ("unknown error", false),
        ] {
            assert_eq!(failure(code).is_certain(), certain, "{code}");
        }
    }
}
