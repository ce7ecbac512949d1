//! Events of the HTTP API: their path, query and body become the fields of one request.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::fields::Fields;

/// The parts of an HTTP API event (payload format 2.0) that make up a request. Everything else is
/// skipped: a direct caller can send an event with a hundred thousand headers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpEvent {
    route_key: Option<String>,
    raw_path: Option<String>,
    raw_query_string: Option<String>,
    #[serde(default, deserialize_with = "at_most_eight")]
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

/// The field by which an event of the HTTP API is recognized.
#[derive(Deserialize)]
struct Http {
    #[serde(rename = "method")]
    _method: String,
}

/// Reads the path parameters. At most 8 are accepted; no route has more than two.
fn at_most_eight<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<HashMap<String, String>, D::Error> {
    struct AtMostEight;

    impl<'de> Visitor<'de> for AtMostEight {
        type Value = HashMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of text")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(HashMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            const MAX_PARAMETERS: usize = 8;
            let mut parameters = HashMap::new();
            while let Some((name, value)) = map.next_entry()? {
                if parameters.len() == MAX_PARAMETERS || parameters.insert(name, value).is_some() {
                    return Err(A::Error::custom("too many path parameters"));
                }
            }
            Ok(parameters)
        }
    }

    deserializer.deserialize_any(AtMostEight)
}

impl HttpEvent {
    /// Returns the ARN that the IAM authorizer of the API authenticated.
    pub(super) fn caller(&self) -> Option<String> {
        const MAX_BYTES: usize = 2048;
        let iam = self.request_context.authorizer.as_ref()?.iam.as_ref()?;
        iam.user_arn.clone().filter(|arn| (1..=MAX_BYTES).contains(&arn.len()))
    }

    /// Merges the path, the query and the body into one set of fields.
    pub(super) fn into_fields(self) -> Result<Fields, Error> {
        let mut fields = Fields::default();
        let route = self.route_key.as_deref().and_then(|route| route.split_once(" /"));
        fields.set_resource(route.and_then(|(_, path)| path.split('/').next()));
        fields.set_method(route.map(|(method, _)| method));
        for pair in self.raw_query_string.iter().flat_map(|query| query.split('&')) {
            if !pair.is_empty() {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                fields.add_query(&decode_query(name)?, decode_query(value)?)?;
            }
        }
        if let Some(body) = self.body.filter(|body| !body.is_empty()).map(Zeroizing::new) {
            if self.is_base64_encoded {
                let bytes = BASE64_STANDARD.decode(&*body).map(Zeroizing::new).unwrap_or_default();
                let text = std::str::from_utf8(&bytes).ok().filter(|text| !text.is_empty());
                let no_text = Error::Malformed(
                    "The body of the request is not UTF-8 text. Send a JSON object in UTF-8."
                        .into(),
                );
                fields.add_json(text.ok_or(no_text)?)?;
            } else {
                fields.add_json(&body)?;
            }
        }
        // IAM policies on the paths of the API decide which secrets a caller can use, and the
        // access log shows only the path. So the query and the body cannot name a secret.
        if fields.has("name") || fields.has("prefix") {
            return Err(Error::invalid(
                "Only the path of a request can give `name` or `prefix`. Remove them from the \
                 query and the body.",
            ));
        }
        for (name, value) in self.path_parameters {
            fields.add_text(&name, parse_path(&value, self.raw_path.as_deref())?)?;
        }
        Ok(fields)
    }
}

/// Reads a name or prefix from the path of a request.
///
/// An HTTP API decodes a path more than once: `%252F` arrives as `/`, `%3F` ends the path, and
/// bytes that are not UTF-8 arrive as U+FFFD. AWS does not document which form IAM evaluates. So a
/// value is accepted only if it has one encoding, and only if the path arrived in that encoding, or
/// decoded.
///
/// Signers collapse two slashes in a row, so a leading slash is written as `~/`: `~/a` is `/a`.
fn parse_path(value: &str, raw_path: Option<&str>) -> Result<String, Error> {
    if value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Error::Malformed(
            "The path of the request is not UTF-8. Percent-encode its UTF-8 bytes.".into(),
        ));
    }
    if value.contains(|c: char| c == '%' || c == '?' || c.is_control()) {
        return Err(Error::invalid(
            "The path of a request must not contain `%`, `?` or control characters, even \
             percent-encoded. Use a direct invoke (`aws lambda invoke`) for such a name.",
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
            "The path of the request is not in canonical form. Percent-encode every character \
             once, except letters, digits, `-`, `.`, `_`, `~` and `/`, or use a direct invoke \
             (`aws lambda invoke`)."
                .into(),
        ));
    }
    match value.strip_prefix('~') {
        Some("") => {
            Err(Error::invalid("A name must follow `~/`: `~/prod/db` is the secret /prod/db."))
        }
        Some(rest) if rest.starts_with('/') => Ok(rest.to_owned()),
        _ => Ok(value.to_owned()),
    }
}

/// Returns whether a path ends with this value, decoded or in its canonical encoding. A custom
/// domain may add a base path in front.
fn is_canonical(raw_path: &str, value: &str) -> bool {
    const ENCODED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    let ends_with = |end: &str| raw_path.strip_suffix(end).is_some_and(|rest| rest.ends_with('/'));
    ends_with(value) || ends_with(&utf8_percent_encode(value, ENCODED).to_string())
}

/// Decodes a name or value of a query (WHATWG URL, `application/x-www-form-urlencoded`). It must be
/// UTF-8.
fn decode_query(text: &str) -> Result<String, Error> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| {
        Error::Malformed(
            "The query of the request is not UTF-8. Percent-encode its UTF-8 bytes.".into(),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::super::{Origin, Request};
    use super::*;

    fn event(more: &str) -> Box<RawValue> {
        let context = r#""requestContext":{"http":{"method":"PUT"}}"#;
        let event = format!(r#"{{"version":"2.0",{context}{more}}}"#);
        RawValue::from_string(event).unwrap()
    }

    fn read(more: &str) -> Result<Fields, Error> {
        let received = Request::read(event(more));
        assert_eq!(received.origin, Origin::Http);
        received.fields
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
    fn the_api_names_the_caller_and_the_resource() {
        let arn = "arn:aws:iam::123456789012:user/deployer";
        let iam = format!(r#""authorizer":{{"iam":{{"userArn":"{arn}"}}}}"#);
        let context = format!(r#""requestContext":{{"http":{{"method":"GET"}},{iam}}}"#);
        let event = format!(r#"{{"routeKey":"GET /history/{{name+}}",{context}}}"#);
        let received = Request::read(RawValue::from_string(event).unwrap());
        assert_eq!((received.origin, &*received.who), (Origin::Http, arn));
        let resource = received.fields.unwrap().resource("list").unwrap();
        assert_eq!(resource.as_deref(), Some("history"));
        let event = RawValue::from_string(r#"{"list":"history"}"#.to_owned()).unwrap();
        let received = Request::read(event);
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
    fn only_http_gives_the_resource_of_a_route_without_parameters() {
        let bundle = read(r#","routeKey":"GET /bundle","rawPath":"/bundle""#).unwrap();
        assert!(bundle.is_resource("bundle") && !bundle.is_resource("secrets"));
        let direct = RawValue::from_string(r#"{"resource":"bundle"}"#.to_owned()).unwrap();
        assert!(!Request::read(direct).fields.unwrap().is_resource("bundle"));
    }

    #[test]
    fn a_path_is_accepted_decoded_or_in_its_canonical_encoding() {
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
    fn a_path_that_may_be_decoded_twice_is_refused() {
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
    fn invalid_utf_8_is_malformed() {
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
    fn a_field_given_twice_is_refused() {
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
    fn a_huge_forged_event_is_bounded_or_refused() {
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
