//! Tests of fields.

use base64::prelude::{BASE64_STANDARD, Engine};

use super::*;

fn fields(json: &str) -> Fields {
    Fields::parse(json).unwrap()
}

fn code<T>(result: Result<T, Error>) -> &'static str {
    result.err().map_or("OK", |error| error.code().name)
}

#[test]
fn invalid_json_is_malformed_and_anything_but_an_object_is_invalid() {
    for json in ["", "{", "{\"a\":1}x", "{'a':1}", "nul"] {
        assert_eq!(code(Fields::parse(json)), "Malformed", "{json}");
    }
    for json in ["[]", "1", "\"text\"", "null", "true"] {
        assert_eq!(code(Fields::parse(json)), "Invalid", "{json}");
    }
}

#[test]
fn a_field_given_twice_is_refused_whatever_its_source() {
    assert_eq!(code(Fields::parse(r#"{"a":1,"a":1}"#)), "Invalid");
    let mut path_and_body = Fields::default();
    path_and_body.add_text("name", "n".to_owned()).unwrap();
    assert_eq!(code(path_and_body.add_json(r#"{"name":"n"}"#)), "Invalid");
    let mut query = Fields::default();
    query.add_query("context.a", "1".to_owned()).unwrap();
    query.add_query("context.a", "2".to_owned()).unwrap();
    assert_eq!(code(query.context("context")), "Invalid");
    assert_eq!(code(fields(r#"{"c":{"a":"1","a":"2"}}"#).context("c")), "Invalid");
    assert_eq!(code(fields(r#"{"g":{"a":1,"a":2}}"#).object("g", "g.")), "Invalid");
}

#[test]
fn several_secrets_are_read_from_an_array_or_a_map() {
    for json in [
        r#"{"s":[{"name":"a","secret":"1"},{"name":"b","secret":"2"}]}"#,
        r#"{"s":{"a":"1","b":"2"}}"#,
    ] {
        let several = fields(json).several("s").unwrap();
        let names: Vec<_> = several
            .into_iter()
            .map(|mut each| {
                let name = each.required_text("name").unwrap();
                assert_eq!(each.secret("secret").unwrap().unwrap().len(), 1);
                each.finish().unwrap();
                name
            })
            .collect();
        assert_eq!(names, ["a", "b"]);
    }
    for json in ["{}", r#"{"s":[]}"#, r#"{"s":{}}"#, r#"{"s":"a"}"#, r#"{"s":["a"]}"#] {
        assert_eq!(code(fields(json).several("s")), "Invalid", "{json}");
    }
    assert_eq!(code(fields(r#"{"s":[{"name":"a","name":"b"}]}"#).several("s")), "Invalid");
}

#[test]
fn an_error_about_one_of_several_secrets_has_its_index() {
    for (json, place) in [
        (r#"{"s":[{"name":"a"},{"name":"b","name":"b"}]}"#, "s[1]"),
        (r#"{"s":[{"name":"a"},{"name":"b"},3]}"#, "s[2]"),
    ] {
        let error = fields(json).several("s").err().unwrap();
        assert_eq!(error.code().name, "Invalid");
        assert!(error.to_string().contains(&format!("{place:?}")), "{error}");
    }
}

#[test]
fn no_list_is_read_beyond_its_limit() {
    let list = |name: &str, entry: &str, count: usize| {
        format!(r#"{{"{name}":[{}]}}"#, vec![entry; count].join(","))
    };
    let several = |count| fields(&list("s", "{}", count)).several("s").map(|s| s.len());
    assert_eq!(several(Fields::MAX_SEVERAL).unwrap(), Fields::MAX_SEVERAL);
    let error = several(Fields::MAX_SEVERAL + 1).unwrap_err();
    assert_eq!(error.code().name, "TooLarge");
    assert!(error.to_string().contains("At most 50"), "{error}");
    let map = (0..=Fields::MAX_SEVERAL).map(|n| format!(r#""{n}":"""#)).collect::<Vec<_>>();
    let map = format!(r#"{{"s":{{{}}}}}"#, map.join(","));
    assert_eq!(code(fields(&map).several("s")), "TooLarge");

    let wide = |count: usize| (0..count).map(|n| format!(r#""{n}":1"#)).collect::<Vec<_>>();
    let wide = |count: usize| format!("{{{}}}", wide(count).join(","));
    assert!(Fields::parse(&wide(MAX_FIELDS)).is_ok());
    assert_eq!(code(Fields::parse(&wide(MAX_FIELDS + 1))), "Invalid");
    let context = format!(r#"{{"c":{}}}"#, wide(MAX_FIELDS + 1));
    let error = fields(&context).context("c").err().unwrap();
    assert!(error.to_string().contains("at most 1024"), "{error}");
}

#[test]
fn base64_may_have_line_breaks_and_is_strict_otherwise() {
    let bytes: Vec<u8> = (0..120).collect();
    let plain = BASE64_STANDARD.encode(&bytes);
    let (first, second) = plain.split_at(76);
    for text in [
        format!("{first}\n{second}\n"),
        format!("{first}\r\n{second}\r\n"),
        format!(" \t{first} {second}"),
    ] {
        let json = serde_json::json!({ "s": text }).to_string();
        let secret = fields(&json).secret_base64("s").unwrap().unwrap();
        assert_eq!(secret.expose(), bytes);
    }
    for text in ["cGw0bnRlZA", "_-8=", "YQ=\u{a0}=", "YQ==YQ==", "YQ= =x", "\u{200b}YQ=="] {
        let json = serde_json::json!({ "s": text }).to_string();
        assert_eq!(code(fields(&json).secret_base64("s")), "Invalid", "{text:?}");
    }
}

#[test]
fn a_wrong_type_is_refused_and_never_repeated() {
    let planted = "hunter2";
    for json in [
        r#"{"f":["hunter2"]}"#,
        r#"{"f":{"hunter2":1}}"#,
        r#"{"f":null}"#,
        r#"{"f":true}"#,
        r#"{"f":-1}"#,
        r#"{"f":1.5}"#,
    ] {
        let errors = [
            fields(json).text("f").err(),
            fields(json).secret("f").err(),
            fields(json).secret_base64("f").err(),
            fields(json).number_or_text("f").err(),
            fields(json).moment("f").err(),
        ];
        for error in errors {
            let error = error.unwrap();
            assert_eq!(error.code().name, "Invalid", "{json}");
            assert!(!format!("{error} {error:?}").contains(planted), "{json}");
        }
    }
    let deep = format!(r#"{{"f":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(code(fields(&deep).text("f")), "Invalid");
}

#[test]
fn an_unknown_field_is_refused_with_the_allowed_ones() {
    let mut request = fields(r#"{"name":"n","hunter2":1}"#);
    request.text("name").unwrap();
    let message = request.finish().unwrap_err().to_string();
    assert!(message.contains("`name`") && !message.contains("hunter2"), "{message}");
}

#[test]
fn a_secret_in_a_url_is_refused() {
    let mut query = Fields::default();
    query.add_query("secret", "hunter2".to_owned()).unwrap();
    assert_eq!(code(query.secret("secret")), "Invalid");
}

#[test]
fn numbers_and_times_are_read_from_json_or_text() {
    let mut text = Fields::default();
    text.add_text("n", "18446744073709551615".to_owned()).unwrap();
    text.add_text("m", "+1".to_owned()).unwrap();
    text.add_text("t", "1800000000".to_owned()).unwrap();
    assert_eq!(text.number("n").unwrap(), Some(u64::MAX));
    assert_eq!(code(text.number("m")), "Invalid");
    let moment = Timestamp::from_unix_seconds(1_800_000_000);
    assert_eq!(text.moment("t").unwrap(), moment);
    assert_eq!(fields(r#"{"t":1800000000}"#).moment("t").unwrap(), moment);
    assert_eq!(fields(r#"{"t":"2027-01-15T08:00:00Z"}"#).moment("t").unwrap(), moment);
}
