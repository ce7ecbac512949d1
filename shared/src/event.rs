//! Where a request came from, HTTP or direct invoke, and how its answer goes back there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use lambda_runtime::Diagnostic;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use zeroize::{Zeroize, Zeroizing};

use crate::error::Error;
use crate::fields::Fields;
use crate::name::Label;
use crate::secret::Secret;

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Through the HTTP API, payload format 2.0.
    Http,
    /// By `lambda invoke`, the request itself as the payload.
    Direct,
}

/// What an operation answers.
pub struct Answer {
    body: Body,
    version: Option<Label>,
}

enum Body {
    Json(Box<RawValue>),
    Bare(Secret),
    Document(Secret, &'static str),
}

impl Answer {
    /// An answer of fields.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it cannot be written as JSON.
    pub fn json(fields: &impl Serialize) -> Result<Self, Error> {
        Ok(Self { body: Body::Json(raw(fields)?), version: None })
    }

    /// An answer that is nothing but the value.
    #[must_use]
    pub fn bare(secret: Secret) -> Self {
        Self { body: Body::Bare(secret), version: None }
    }

    /// An answer that is a document, UTF-8 text of this media type.
    #[must_use]
    pub fn document(text: Secret, media: &'static str) -> Self {
        Self { body: Body::Document(text, media), version: None }
    }

    /// Notes which version the answer is about, for the log.
    #[must_use]
    pub fn of_version(mut self, version: Label) -> Self {
        self.version = Some(version);
        self
    }

    /// Which version the answer is about, if it is about one.
    #[must_use]
    pub fn version(&self) -> Option<&Label> {
        self.version.as_ref()
    }
}

/// An error as a direct caller gets it: `errorType` is the code.
#[derive(Debug)]
pub struct FunctionError {
    code: Cow<'static, str>,
    message: String,
}

impl FunctionError {
    /// What another function failed with, for the caller of this one.
    pub(crate) fn passed(code: String, message: String) -> Self {
        Self { code: code.into(), message }
    }
}

impl From<FunctionError> for Diagnostic {
    fn from(error: FunctionError) -> Self {
        Self { error_type: error.code.into_owned(), error_message: error.message }
    }
}

/// An event as it was read.
pub struct Received {
    /// Where it came from.
    pub origin: Origin,
    /// Who sent it: the IAM ARN that the API authenticated, or `direct`.
    pub who: String,
    /// The fields of the request, for HTTP the path's, the query's and the body's together.
    pub fields: Result<Fields, Error>,
}

impl Received {
    /// Reads an event.
    #[must_use]
    pub fn read(payload: Box<RawValue>) -> Self {
        let payload = Zeroizing::new(String::from(Box::<str>::from(payload)));
        let direct = Fields::parse(&payload);
        let nobody = || "direct".to_owned();
        // No request has a field of this name. Whoever may invoke the function can forge it, which
        // gains nothing but a name in the record: access was decided before the function was
        // called.
        match direct {
            Ok(fields) if fields.has("requestContext") => {
                drop(fields);
                let event: Result<HttpEvent, _> = serde_json::from_str(&payload);
                let event = event.map_err(|_| {
                    Error::Malformed("The event is no HTTP API event of payload format 2.0.".into())
                });
                let who = event.as_ref().ok().and_then(caller);
                let fields = event.and_then(merged);
                Self { origin: Origin::Http, who: who.unwrap_or_else(nobody), fields }
            }
            fields => Self { origin: Origin::Direct, who: nobody(), fields },
        }
    }
}

impl Origin {
    /// Gives an answer back the way its request came.
    ///
    /// # Errors
    /// [`FunctionError`] for a direct caller; an HTTP caller gets every error as a response.
    pub fn reply(self, result: Result<Answer, Error>) -> Result<Reply, FunctionError> {
        match self {
            Self::Http => Ok(Reply::Http(result.map_or_else(|error| refusal(&error), http))),
            Self::Direct => result.and_then(direct).map(Reply::from).map_err(FunctionError::from),
        }
    }
}

/// What goes back to Lambda. It is written as JSON once, by the runtime, and wiped when dropped.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// To a direct caller.
    Direct(Wiped),
    /// To the HTTP API.
    Http(Response),
}

impl From<Box<RawValue>> for Reply {
    fn from(json: Box<RawValue>) -> Self {
        Self::Direct(Wiped(json))
    }
}

/// JSON that is wiped when dropped.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Wiped(Box<RawValue>);

impl Drop for Wiped {
    fn drop(&mut self) {
        String::from(Box::<str>::from(std::mem::take(&mut self.0))).zeroize();
    }
}

/// A response in payload format 2.0.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
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

/// What a request is made of in an HTTP API event, payload format 2.0. Nothing else of the event
/// is kept: whoever may invoke the function can send one with a hundred thousand headers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpEvent {
    route_key: Option<String>,
    raw_path: Option<String>,
    raw_query_string: Option<String>,
    #[serde(default, deserialize_with = "few")]
    path_parameters: HashMap<String, String>,
    request_context: RequestContext,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Deserialize)]
struct RequestContext {
    authorizer: Option<Authorizer>,
    #[serde(rename = "http")]
    _http: Http,
}

#[derive(Deserialize)]
struct Authorizer {
    iam: Option<Iam>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Iam {
    user_arn: Option<String>,
}

/// The mark of a real event.
#[derive(Deserialize)]
struct Http {
    #[serde(rename = "method")]
    _method: String,
}

/// Path parameters: no route has more than two.
fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HashMap<String, String>, D::Error> {
    struct Few;

    impl<'de> Visitor<'de> for Few {
        type Value = HashMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of text")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(HashMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            const MOST: usize = 8;
            let mut parameters = HashMap::new();
            while let Some((name, value)) = map.next_entry()? {
                if parameters.len() == MOST || parameters.insert(name, value).is_some() {
                    return Err(A::Error::custom("too many path parameters"));
                }
            }
            Ok(parameters)
        }
    }

    deserializer.deserialize_any(Few)
}

impl From<Error> for FunctionError {
    fn from(error: Error) -> Self {
        Self { code: error.code().name.into(), message: error.to_string() }
    }
}

/// The ARN that the API's IAM authorizer found.
fn caller(event: &HttpEvent) -> Option<String> {
    const MOST: usize = 2048;
    let iam = event.request_context.authorizer.as_ref()?.iam.as_ref()?;
    iam.user_arn.clone().filter(|arn| (1..=MOST).contains(&arn.len()))
}

fn merged(event: HttpEvent) -> Result<Fields, Error> {
    let mut fields = Fields::default();
    let route = event.route_key.as_deref().and_then(|route| route.split_once(" /"));
    fields.set_resource(route.and_then(|(_, path)| path.split('/').next()));
    fields.set_method(route.map(|(method, _)| method));
    for pair in event.raw_query_string.iter().flat_map(|query| query.split('&')) {
        if !pair.is_empty() {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            fields.add_query(&query(name)?, query(value)?)?;
        }
    }
    if let Some(body) = event.body.filter(|body| !body.is_empty()).map(Zeroizing::new) {
        if event.is_base64_encoded {
            let bytes = BASE64_STANDARD.decode(&*body).map(Zeroizing::new).unwrap_or_default();
            let text = std::str::from_utf8(&bytes).ok().filter(|text| !text.is_empty());
            let no_text = Error::Malformed("The body of the request is not UTF-8 text.".into());
            fields.add_json(text.ok_or(no_text)?)?;
        } else {
            fields.add_json(&body)?;
        }
    }
    // Policies on the API's paths say whose secrets a caller reaches, and the access log shows the
    // path alone: no query or body names them.
    if fields.has("name") || fields.has("prefix") {
        return Err(Error::invalid(
            "The path of the request alone gives `name` or `prefix`. Leave them out of query and \
             body.",
        ));
    }
    for (name, value) in event.path_parameters {
        fields.add_text(&name, path(&value, event.raw_path.as_deref())?)?;
    }
    Ok(fields)
}

/// A name or prefix from the path of a request.
///
/// An HTTP API decodes a path more than once: `%252F` arrives as `/`, `%3F` ends the path, and bytes
/// that are not UTF-8 arrive as U+FFFD. Which form IAM evaluates is not documented. So a value is
/// taken only if it has one encoding, and the path that arrived is that encoding, or decoded.
///
/// Signers collapse two slashes in a row, so a leading slash has a form of its own: `~/a` is `/a`.
fn path(value: &str, raw_path: Option<&str>) -> Result<String, Error> {
    if value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Error::Malformed("The path of the request is not UTF-8.".into()));
    }
    if value.contains(|c: char| c == '%' || c == '?' || c.is_control()) {
        return Err(Error::invalid(
            "The path of a request must not contain `%`, `?` or control characters, encoded or \
             not. Use lambda invoke for such a name.",
        ));
    }
    if value.starts_with('/') || value.contains("//") {
        return Err(Error::invalid(
            "The path of a request must not contain two slashes in a row. Write `~` before the \
             leading slash of a name: /secrets/~/prod/db is the secret /prod/db.",
        ));
    }
    if raw_path.is_some_and(|raw_path| !is_canonical(raw_path, value)) {
        return Err(Error::Malformed(
            "The path of the request is not in canonical form. Percent-encode once every character \
             except letters, digits, `-`, `.`, `_`, `~` and `/`, or use lambda invoke."
                .into(),
        ));
    }
    match value.strip_prefix('~') {
        Some("") => {
            Err(Error::invalid("After `~`, give a name with a leading slash: `~/prod/db`."))
        }
        Some(rest) if rest.starts_with('/') => Ok(rest.to_owned()),
        _ => Ok(value.to_owned()),
    }
}

/// Whether a path ends with this value, decoded or in its canonical encoding. A custom domain may
/// put a base path in front.
fn is_canonical(raw_path: &str, value: &str) -> bool {
    const ENCODED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    let ends_with = |end: &str| raw_path.strip_suffix(end).is_some_and(|rest| rest.ends_with('/'));
    ends_with(value) || ends_with(&utf8_percent_encode(value, ENCODED).to_string())
}

/// A name or value of a query (WHATWG URL, application/x-www-form-urlencoded), strictly UTF-8.
fn query(text: &str) -> Result<String, Error> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded
        .map(Cow::into_owned)
        .map_err(|_| Error::Malformed("The query of the request is not UTF-8.".into()))
}

fn direct(answer: Answer) -> Result<Box<RawValue>, Error> {
    match answer.body {
        Body::Json(json) => Ok(json),
        Body::Bare(secret) | Body::Document(secret, _) => {
            match String::from_utf8(secret.into_bytes()) {
                Ok(mut text) => {
                    let json = raw(&text);
                    text.zeroize();
                    json
                }
                Err(bytes) => {
                    bytes.into_bytes().zeroize();
                    Err(Error::invalid("This value is not text. Leave `format` out to get base64."))
                }
            }
        }
    }
}

fn http(answer: Answer) -> Response {
    match answer.body {
        Body::Json(json) => response(200, "application/json", Box::<str>::from(json).into()),
        Body::Bare(secret) => text(secret, "text/plain; charset=utf-8"),
        Body::Document(secret, media) => text(secret, media),
    }
}

fn text(secret: Secret, media: &'static str) -> Response {
    match String::from_utf8(secret.into_bytes()) {
        Ok(text) => response(200, media, text),
        Err(bytes) => {
            let bytes = Zeroizing::new(bytes.into_bytes());
            let encoded = BASE64_STANDARD.encode(&*bytes);
            let response = response(200, "application/octet-stream", encoded);
            Response { is_base64_encoded: true, ..response }
        }
    }
}

fn refusal(error: &Error) -> Response {
    let code = error.code();
    let body = serde_json::json!({"code": code.name, "message": error.to_string()});
    let mut response = response(code.status, "application/json", body.to_string());
    response.headers.retry_after = (code.status == 503).then_some("1");
    response
}

fn response(status_code: u16, content_type: &'static str, body: String) -> Response {
    Response {
        status_code,
        headers: Headers { content_type, cache_control: "no-store", retry_after: None },
        body: Zeroizing::new(body),
        is_base64_encoded: false,
    }
}

fn raw(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|error| Error::Unavailable {
        message: "The answer could not be written. Tell the stack's operator.".into(),
        source: Box::new(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(more: &str) -> Box<RawValue> {
        let context = r#""requestContext":{"http":{"method":"PUT"}}"#;
        let event = format!(r#"{{"version":"2.0",{context}{more}}}"#);
        RawValue::from_string(event).unwrap()
    }

    fn read(more: &str) -> Result<Fields, Error> {
        let received = Received::read(event(more));
        assert_eq!(received.origin, Origin::Http);
        received.fields
    }

    fn replied(origin: Origin, result: Result<Answer, Error>) -> serde_json::Value {
        serde_json::to_value(origin.reply(result).unwrap()).unwrap()
    }

    #[test]
    fn path_query_and_body_are_one_request() {
        let path = r#","pathParameters":{"name":"dev/db"}"#;
        let query = r#","rawQueryString":"context.a=b%20c&context.d.e=%C3%A4+f""#;
        let body = r#","body":"{\"version\":3}""#;
        let mut fields = read(&format!("{path}{query}{body}")).unwrap();
        assert_eq!(fields.text("name").unwrap().unwrap(), "dev/db");
        assert_eq!(fields.number("version").unwrap(), Some(3));
        let context = fields.context("context").unwrap();
        let pairs: Vec<_> = context.pairs().iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(pairs, [("a", "b c"), ("d.e", "ä f")]);
        fields.finish().unwrap();
    }

    #[test]
    fn who_and_what_are_the_apis_to_say() {
        let arn = "arn:aws:iam::123456789012:user/deployer";
        let iam = format!(r#""authorizer":{{"iam":{{"userArn":"{arn}"}}}}"#);
        let context = format!(r#""requestContext":{{"http":{{"method":"GET"}},{iam}}}"#);
        let event = format!(r#"{{"routeKey":"GET /history/{{name+}}",{context}}}"#);
        let received = Received::read(RawValue::from_string(event).unwrap());
        assert_eq!((received.origin, &*received.who), (Origin::Http, arn));
        let resource = received.fields.unwrap().resource("list").unwrap();
        assert_eq!(resource.as_deref(), Some("history"));
        let event = RawValue::from_string(r#"{"list":"history"}"#.to_owned()).unwrap();
        let received = Received::read(event);
        assert_eq!((received.origin, &*received.who), (Origin::Direct, "direct"));
        let resource = received.fields.unwrap().resource("list").unwrap();
        assert_eq!(resource.as_deref(), Some("history"));
    }

    fn name_of(value: &str, raw_path: &str) -> Result<String, &'static str> {
        let fields =
            read(&format!(r#","rawPath":"{raw_path}","pathParameters":{{"name":"{value}"}}"#));
        let name = fields.and_then(|mut fields| fields.required_text("name"));
        name.map_err(|error| error.code().name)
    }

    #[test]
    fn a_resource_without_a_path_value_is_known_over_http_alone() {
        let bundle = read(r#","routeKey":"GET /bundle","rawPath":"/bundle""#).unwrap();
        assert!(bundle.is_resource("bundle") && !bundle.is_resource("secrets"));
        let direct = RawValue::from_string(r#"{"resource":"bundle"}"#.to_owned()).unwrap();
        assert!(!Received::read(direct).fields.unwrap().is_resource("bundle"));
    }

    #[test]
    fn a_path_is_taken_decoded_or_in_its_canonical_encoding() {
        for (value, raw_path) in [
            ("a b", "/secrets/a b"),
            ("a b", "/secrets/a%20b"),
            ("ä", "/secrets/ä"),
            ("ä", "/secrets/%C3%A4"),
            ("dev/db_*", "/base/path/secrets/dev/db_%2A"),
            ("dev/", "/bundle/dev/"),
            ("a+b", "/secrets/a%2Bb"),
            ("a-._~b", "/secrets/a-._~b"),
        ] {
            assert_eq!(name_of(value, raw_path).as_deref(), Ok(value), "{raw_path}");
        }
        for (value, raw_path) in [
            ("a", "/secrets/a%3Fb"),
            ("a/b", "/secrets/a%2Fb"),
            ("a/b", "/secrets/a%252Fb"),
            ("a", "/secrets/%61"),
            ("é", "/secrets/%c3%a9"),
            ("a", "/secrets/ba"),
            ("a", "a"),
            ("a", ""),
        ] {
            assert_eq!(name_of(value, raw_path), Err("Malformed"), "{raw_path}");
        }
        let mut fields = read(r#","pathParameters":{"name":"a"}"#).unwrap();
        assert_eq!(fields.required_text("name").unwrap(), "a");
    }

    #[test]
    fn a_path_with_a_character_that_may_be_decoded_again_is_refused() {
        for value in ["100%", "a%2Fb", "a%25b", "a?b", r"a\nb", r"a\u0000", r"a\u0085b"] {
            assert_eq!(name_of(value, &format!("/secrets/{value}")), Err("Invalid"), "{value}");
        }
    }

    #[test]
    fn a_leading_slash_is_written_with_a_tilde() {
        for (value, name) in [
            ("~/prod/db", "/prod/db"),
            ("~/", "/"),
            ("~/~/a", "/~/a"),
            ("~a/b", "~a/b"),
            ("a/~/b", "a/~/b"),
        ] {
            assert_eq!(name_of(value, &format!("/secrets/{value}")).as_deref(), Ok(name));
        }
        for value in ["~", "/prod/db", "//a", "~//a", "a//b"] {
            assert_eq!(name_of(value, &format!("/secrets/{value}")), Err("Invalid"), "{value}");
        }
        let slash = read(r#","pathParameters":{"prefix":"/prod"}"#).err().unwrap().to_string();
        assert!(slash.contains("/secrets/~/prod/db") && !slash.contains("/prod\""), "{slash}");
    }

    #[test]
    fn what_is_not_utf_8_is_malformed() {
        for more in [
            r#","pathParameters":{"name":"a\ufffd"}"#,
            r#","rawQueryString":"a=%FF""#,
            r#","body":"/w==","isBase64Encoded":true"#,
            r#","body":"no base64","isBase64Encoded":true"#,
            r#","body":"{""#,
        ] {
            assert_eq!(read(more).err().unwrap().code().name, "Malformed", "{more}");
        }
    }

    #[test]
    fn a_field_given_in_two_places_is_refused() {
        for more in [
            r#","pathParameters":{"name":"a"},"rawQueryString":"name=b""#,
            r#","rawQueryString":"a=1&a=2""#,
            r#","rawQueryString":"context.a=1","body":"{\"context\":{}}""#,
            r#","pathParameters":{"name":"a"},"body":"eyJuYW1lIjoiYiJ9","isBase64Encoded":true"#,
        ] {
            assert_eq!(read(more).err().unwrap().code().name, "Invalid", "{more}");
        }
    }

    #[test]
    fn errors_go_back_the_way_the_request_came() {
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
        let bare = |bytes: &[u8]| Ok(Answer::bare(Secret::new(bytes.to_vec())));
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
    fn an_answer_goes_out_as_it_was_written() {
        let answer = || Answer::json(&serde_json::json!({"secret": "a\"b"}));
        let response = replied(Origin::Http, answer());
        assert_eq!(response["body"], r#"{"secret":"a\"b"}"#);
        assert_eq!(
            (&response["statusCode"], &response["isBase64Encoded"]),
            (&200.into(), &false.into())
        );
        assert_eq!(response["headers"]["content-type"], "application/json");
        assert_eq!(replied(Origin::Direct, answer())["secret"], "a\"b");
    }

    #[test]
    fn an_event_that_is_forged_in_bulk_is_read_for_its_request_or_refused() {
        let many = |count: usize, entry: fn(usize) -> String| {
            (0..count).map(entry).collect::<Vec<_>>().join(",")
        };
        let headers = many(100_000, |n| format!(r#""x-{n}":"v""#));
        let path = r#""pathParameters":{"name":"a"}"#;
        let mut fields = read(&format!(r#","headers":{{{headers}}},{path}"#)).unwrap();
        assert_eq!(fields.text("name").unwrap().unwrap(), "a");
        let parameters = many(100_000, |n| format!(r#""p{n}":"v""#));
        for more in [
            format!(r#","pathParameters":{{{parameters}}}"#),
            r#","pathParameters":{"name":"a","name":"b"}"#.to_owned(),
        ] {
            assert_eq!(read(&more).err().unwrap().code().name, "Malformed");
        }
        let pairs: Vec<_> = (0..100_000).map(|n| format!("q{n}=1")).collect();
        let context: Vec<_> = (0..100_000).map(|n| format!("context.q{n}=1")).collect();
        for query in [pairs.join("&"), context.join("&"), "&".repeat(100_000) + &pairs.join("&")] {
            let error = read(&format!(r#","rawQueryString":"{query}""#)).err().unwrap();
            assert!(error.to_string().contains("at most 1024 fields"), "{error}");
        }
    }
}
