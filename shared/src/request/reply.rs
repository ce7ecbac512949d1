//! Replies to the caller: an HTTP response, or the payload or function error of a direct invoke.

use std::borrow::Cow;

use base64::prelude::{BASE64_STANDARD, Engine};
use lambda_runtime::Diagnostic;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use zeroize::{Zeroize, Zeroizing};

use super::response::{Body, to_json};
use super::{Origin, Response};
use crate::error::Error;
use crate::secret::Secret;

impl Origin {
    /// Turns the result of an operation into the reply that its caller expects.
    ///
    /// # Errors
    /// [`FunctionError`] for a direct caller. An HTTP caller gets every error as a response.
    pub fn reply(self, result: Result<Response, Error>) -> Result<Reply, FunctionError> {
        match self {
            Self::Http => Ok(Reply::Http(
                result.map_or_else(|error| error_response(&error), to_http_response),
            )),
            Self::Direct => {
                result.and_then(to_payload).map(Reply::from).map_err(FunctionError::from)
            }
        }
    }
}

/// A reply to Lambda. The runtime writes it as JSON, once. It is wiped on drop.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// The payload for a direct caller.
    Direct(WipedJson),
    /// The response for the HTTP API.
    Http(HttpResponse),
}

impl From<Box<RawValue>> for Reply {
    fn from(json: Box<RawValue>) -> Self {
        Self::Direct(WipedJson(json))
    }
}

/// JSON that is wiped on drop.
#[derive(Serialize)]
#[serde(transparent)]
pub struct WipedJson(Box<RawValue>);

impl Drop for WipedJson {
    fn drop(&mut self) {
        String::from(Box::<str>::from(std::mem::take(&mut self.0))).zeroize();
    }
}

/// An HTTP response in payload format 2.0.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpResponse {
    status_code: u16,
    headers: Headers,
    #[serde(serialize_with = "as_text")]
    body: Zeroizing<String>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Headers {
    content_type: &'static str,
    cache_control: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<&'static str>,
}

fn as_text<S: Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// An error as a direct caller gets it: the code is the `errorType`.
#[derive(Debug)]
pub struct FunctionError {
    code: Cow<'static, str>,
    message: String,
}

impl FunctionError {
    /// Passes on the error of another function.
    pub(crate) fn passed(code: String, message: String) -> Self {
        Self { code: code.into(), message }
    }
}

impl From<Error> for FunctionError {
    fn from(error: Error) -> Self {
        Self { code: error.code().name.into(), message: error.to_string() }
    }
}

impl From<FunctionError> for Diagnostic {
    fn from(error: FunctionError) -> Self {
        Self { error_type: error.code.into_owned(), error_message: error.message }
    }
}

/// Returns the payload for a direct caller.
fn to_payload(answer: Response) -> Result<Box<RawValue>, Error> {
    match answer.body {
        Body::Json(json) => Ok(json),
        Body::Bare(secret) | Body::Document(secret, _) => {
            match String::from_utf8(secret.into_bytes()) {
                Ok(mut text) => {
                    let json = to_json(&text);
                    text.zeroize();
                    json
                }
                Err(bytes) => {
                    bytes.into_bytes().zeroize();
                    Err(Error::invalid(
                        "This value is not text. Leave `format` out to get it as base64.",
                    ))
                }
            }
        }
    }
}

/// Returns the HTTP response for a successful request.
fn to_http_response(answer: Response) -> HttpResponse {
    match answer.body {
        Body::Json(json) => response(200, "application/json", Box::<str>::from(json).into()),
        Body::Bare(secret) => text_response(secret, "text/plain; charset=utf-8"),
        Body::Document(secret, media) => text_response(secret, media),
    }
}

/// Returns the HTTP response for a value: text if it is UTF-8, bytes otherwise.
fn text_response(secret: Secret, media: &'static str) -> HttpResponse {
    match String::from_utf8(secret.into_bytes()) {
        Ok(text) => response(200, media, text),
        Err(bytes) => {
            let bytes = Zeroizing::new(bytes.into_bytes());
            let encoded = BASE64_STANDARD.encode(&*bytes);
            let response = response(200, "application/octet-stream", encoded);
            HttpResponse { is_base64_encoded: true, ..response }
        }
    }
}

/// Returns the HTTP response for a failed request.
fn error_response(error: &Error) -> HttpResponse {
    let code = error.code();
    let body = serde_json::json!({"code": code.name, "message": error.to_string()});
    let mut response = response(code.status, "application/json", body.to_string());
    response.headers.retry_after = (code.status == 503).then_some("1");
    response
}

fn response(status_code: u16, content_type: &'static str, body: String) -> HttpResponse {
    HttpResponse {
        status_code,
        headers: Headers { content_type, cache_control: "no-store", retry_after: None },
        body: Zeroizing::new(body),
        is_base64_encoded: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replied(origin: Origin, result: Result<Response, Error>) -> serde_json::Value {
        serde_json::to_value(origin.reply(result).unwrap()).unwrap()
    }

    #[test]
    fn an_error_has_the_form_that_its_caller_expects() {
        let unavailable =
            || Error::Unavailable { message: "Try again.".into(), source: "inside".into() };
        let response = replied(Origin::Http, Err(unavailable()));
        assert_eq!(response["statusCode"], 503);
        assert_eq!(response["headers"]["retry-after"], "1");
        assert_eq!(response["headers"]["cache-control"], "no-store");
        assert_eq!(response["body"], r#"{"code":"Unavailable","message":"Try again."}"#);
        let error = Origin::Direct.reply(Err(unavailable())).err().unwrap();
        assert!(!format!("{error:?}").contains("inside"));
        let diagnostic = Diagnostic::from(error);
        assert_eq!(diagnostic.error_type, "Unavailable");
        assert_eq!(diagnostic.error_message, "Try again.");
    }

    #[test]
    fn a_bare_value_is_text_or_bytes() {
        let bare = |bytes: &[u8]| Ok(Response::bare(Secret::new(bytes.to_vec())));
        let text = replied(Origin::Http, bare("pässword\n".as_bytes()));
        assert_eq!(text["body"], "pässword\n");
        assert_eq!(text["headers"]["content-type"], "text/plain; charset=utf-8");
        let bytes = replied(Origin::Http, bare(b"\xff"));
        assert_eq!((&bytes["body"], &bytes["isBase64Encoded"]), (&"/w==".into(), &true.into()));
        assert_eq!(replied(Origin::Direct, bare(b"text")), "text");
        let error = Origin::Direct.reply(bare(b"\xff")).err().unwrap();
        assert_eq!(error.code, "Invalid");
    }

    #[test]
    fn a_document_has_its_media_type_over_http_and_is_text_for_a_direct_caller() {
        let document = || Ok(Response::document(Secret::new(b"A='b'\n".to_vec()), "text/x"));
        let response = replied(Origin::Http, document());
        assert_eq!(response["headers"]["content-type"], "text/x");
        assert_eq!(response["body"], "A='b'\n");
        assert_eq!(replied(Origin::Direct, document()), "A='b'\n");
    }

    #[test]
    fn a_json_response_is_not_changed() {
        let answer = || Response::json(&serde_json::json!({"secret": "a\"b"}));
        let response = replied(Origin::Http, answer());
        assert_eq!(response["body"], r#"{"secret":"a\"b"}"#);
        assert_eq!(
            (&response["statusCode"], &response["isBase64Encoded"]),
            (&200.into(), &false.into())
        );
        assert_eq!(response["headers"]["content-type"], "application/json");
        assert_eq!(replied(Origin::Direct, answer())["secret"], "a\"b");
    }
}
