//! What reaches a function and what it returns: requests by HTTP and by direct invoke are read into
//! the same fields, and each response has the form that its caller expects.

use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::fields::Fields;

use http::HttpEvent;

pub use reply::{FunctionError, HttpResponse, Reply, WipedJson};
pub use response::Response;

mod http;
mod reply;
mod response;

/// How a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Through the HTTP API, in payload format 2.0.
    Http,
    /// By direct invoke (`lambda:InvokeFunction`): the payload is the request.
    Direct,
}

/// A request as a function received it.
pub struct Request {
    /// How it was sent.
    pub origin: Origin,
    /// Who sent it: the IAM ARN that the HTTP API authenticated, or `direct`.
    pub who: String,
    /// The fields of the request. For HTTP, those of the path, the query and the body together.
    pub fields: Result<Fields, Error>,
}

impl Request {
    /// Reads the payload of an invocation.
    #[must_use]
    pub fn read(payload: Box<RawValue>) -> Self {
        let payload = Zeroizing::new(String::from(Box::<str>::from(payload)));
        let direct = Fields::parse(&payload);
        let nobody = || "direct".to_owned();
        // No request has a field of this name. A direct caller can forge it, but gains only a false
        // name in the audit trail: access was decided before the function was called.
        match direct {
            Ok(fields) if fields.has("requestContext") => {
                drop(fields);
                let event: Result<HttpEvent, _> = serde_json::from_str(&payload);
                let event = event.map_err(|_| {
                    Error::Malformed(
                        "The event is not an HTTP API event in payload format 2.0. Send it through \
                         the HTTP API, or leave `requestContext` out."
                            .into(),
                    )
                });
                let who = event.as_ref().ok().and_then(HttpEvent::caller);
                let fields = event.and_then(HttpEvent::into_fields);
                Self { origin: Origin::Http, who: who.unwrap_or_else(nobody), fields }
            }
            fields => Self { origin: Origin::Direct, who: nobody(), fields },
        }
    }
}
