//! Hints about legacy rows: encryption contexts and dialects, which the rows do not say.

use std::collections::BTreeMap;

use crate::encryption_context::EncryptionContext;
use crate::envelope::Dialect;
use crate::error::Error;
use crate::fields::Fields;
use crate::hash;
use crate::name::{Name, Prefix};
use crate::row::{Attribute, Row, canonical};

/// The names that a hint is about.
#[derive(Clone, Debug)]
pub enum Scope {
    /// All names.
    All,
    /// The names under a prefix.
    Prefix(Prefix),
    /// One name.
    Name(Name),
}

/// A hint about legacy rows.
#[derive(Clone, Debug)]
pub struct LegacyHint {
    /// The names of the rows.
    pub scope: Scope,
    /// An encryption context that they may have been put with.
    pub context: Option<EncryptionContext>,
    /// Their dialect, for rows whose form allows two.
    pub dialect: Option<Dialect>,
}

/// All hints of a request, the narrowest first.
#[derive(Clone, Debug, Default)]
pub struct LegacyHints(Vec<LegacyHint>);

impl LegacyHints {
    /// The most hints of a request.
    pub const MAX: usize = 1000;

    /// Sorts hints by their scope, the narrowest first.
    #[must_use]
    pub fn new(mut hints: Vec<LegacyHint>) -> Self {
        hints.sort_by_key(|hint| std::cmp::Reverse(hint.scope.narrowness()));
        Self(hints)
    }

    /// Reads `contexts` and `dialects`: arrays of objects with a `name`, a `prefix` or neither, and
    /// a `context` or a `dialect`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, or more than [`LegacyHints::MAX`].
    pub fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let mut hints = parse_known_contexts(fields, "contexts")?;
        for mut each in parse_objects(fields, "dialects", "dialects[].")? {
            let scope = Scope::parse(&mut each)?;
            let dialect = each.required_text("dialect")?.parse().map_err(|()| {
                each.wrong("dialect", "must be credstash, credentials-haskell or rucredstash-le32")
            })?;
            each.finish()?;
            hints.push(LegacyHint { scope, context: None, dialect: Some(dialect) });
        }
        if hints.len() > Self::MAX {
            return Err(too_many_hints());
        }
        Ok(Self::new(hints))
    }

    /// Returns the narrowest context for a name.
    pub(super) fn context(&self, name: &str) -> Option<&EncryptionContext> {
        self.about(name).find_map(|hint| hint.context.as_ref())
    }

    /// Returns the contexts that a row of this name may have been put with, the empty one last.
    pub(super) fn contexts(&self, name: &str) -> Vec<EncryptionContext> {
        let mut contexts: Vec<EncryptionContext> = Vec::new();
        let known = self.about(name).filter_map(|hint| hint.context.clone());
        for context in known.chain([EncryptionContext::default()]) {
            if !contexts.contains(&context) {
                contexts.push(context);
            }
        }
        contexts
    }

    /// Returns the dialect of a name's rows, if there is a hint about it.
    pub(super) fn dialect(&self, name: &str) -> Option<Dialect> {
        self.about(name).find_map(|hint| hint.dialect)
    }

    fn about(&self, name: &str) -> impl Iterator<Item = &LegacyHint> {
        let name = Name::of_any_client(name).ok();
        self.0.iter().filter(move |hint| match (&hint.scope, &name) {
            (Scope::All, _) => true,
            (Scope::Prefix(prefix), Some(name)) => prefix.covers(name),
            (Scope::Name(scope), Some(name)) => scope == name,
            (_, None) => false,
        })
    }

    /// Returns the hints as rows, to be stored with a run.
    pub(super) fn to_rows(&self) -> Vec<Row> {
        let row = |hint: &LegacyHint| {
            let mut row = Row::from([("of".to_owned(), Attribute::Text(hint.scope.to_text()))]);
            if let Some(context) = &hint.context {
                row.insert("context".to_owned(), Attribute::Map(context.pairs().clone()));
            }
            if let Some(dialect) = hint.dialect {
                row.insert("dialect".to_owned(), Attribute::Text(dialect.as_str().to_owned()));
            }
            row
        };
        self.0.iter().map(row).collect()
    }

    pub(super) fn of_rows(rows: &[Row]) -> Self {
        let hint = |row: &Row| {
            let context = row.get("context").and_then(Attribute::map);
            let dialect = row.get("dialect").and_then(Attribute::text);
            Some(LegacyHint {
                scope: Scope::of_text(row.get("of")?.text()?)?,
                context: context
                    .and_then(|pairs: &BTreeMap<_, _>| EncryptionContext::new(pairs.clone()).ok()),
                dialect: dialect.and_then(|text| text.parse().ok()),
            })
        };
        Self(rows.iter().filter_map(hint).collect())
    }

    /// Returns a hash that differs for different hints.
    pub(super) fn hash(&self) -> Vec<u8> {
        let rows = self.to_rows();
        hash::of_parts(rows.iter().map(|row| canonical(row).unwrap_or_default())).to_vec()
    }
}

/// Reads the `contexts` of [`LegacyHints::parse`] and refuses `dialects`. A wrong context opens
/// nothing, but a wrong dialect turns a value into noise, so it is left to those who may start the
/// state machine.
///
/// # Errors
/// [`Error::Invalid`] for anything else, or more than [`LegacyHints::MAX`].
pub(super) fn parse_contexts(fields: &mut Fields) -> Result<LegacyHints, Error> {
    if fields.take_any("dialects") {
        return Err(Error::invalid(
            "`dialects` is not allowed for one name. Start the stack's state machine with it.",
        ));
    }
    parse_known_contexts(fields, "contexts").map(LegacyHints::new)
}

/// Reads encryption contexts by name or prefix: an array of objects, each with a `name` or a
/// `prefix`, and a `context`. In a query, the array as JSON text.
///
/// # Errors
/// [`Error::Invalid`] for anything else, a name or prefix given twice, or more than
/// [`LegacyHints::MAX`] entries.
pub(super) fn parse_contexts_by_name(
    fields: &mut Fields,
    field: &'static str,
) -> Result<Vec<LegacyHint>, Error> {
    fields.text_as_json(field);
    let hints = parse_known_contexts(fields, field)?;
    if hints.iter().any(|hint| matches!(hint.scope, Scope::All)) {
        return Err(fields.wrong(field, "must have a `name` or a `prefix` in each entry"));
    }
    let mut known: Vec<_> = hints.iter().map(|hint| hint.scope.to_text()).collect();
    known.sort_unstable();
    known.dedup();
    if known.len() < hints.len() {
        return Err(Error::invalid(
            "`contexts` has a name or prefix twice. Give one context for each.",
        ));
    }
    Ok(hints)
}

fn parse_known_contexts(
    fields: &mut Fields,
    field: &'static str,
) -> Result<Vec<LegacyHint>, Error> {
    let mut hints = Vec::new();
    for mut each in parse_objects(fields, field, "contexts[].")? {
        let scope = Scope::parse(&mut each)?;
        let context = Some(each.context("context")?);
        each.finish()?;
        hints.push(LegacyHint { scope, context, dialect: None });
    }
    Ok(hints)
}

fn parse_objects(
    fields: &mut Fields,
    field: &'static str,
    path: &'static str,
) -> Result<Vec<Fields>, Error> {
    fields.objects(field, path, LegacyHints::MAX, too_many_hints)
}

fn too_many_hints() -> Error {
    Error::invalid("`contexts` and `dialects` have at most 1000 entries. Use prefixes.")
}

impl Scope {
    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let name = fields.text("name")?.map(|name| Name::of_any_client(&name)).transpose()?;
        match (name, fields.parsed("prefix")?) {
            (None, None) => Ok(Self::All),
            (Some(name), None) => Ok(Self::Name(name)),
            (None, Some(prefix)) => Ok(Self::Prefix(prefix)),
            (Some(_), Some(_)) => Err(fields.wrong("prefix", "must be absent with `name`")),
        }
    }

    fn narrowness(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Prefix(prefix) => prefix.literal().len(),
            Self::Name(_) => usize::MAX,
        }
    }

    /// Returns the scope as text, which is the same for the same names.
    fn to_text(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Prefix(prefix) => format!("prefix:{}", prefix.as_str()),
            Self::Name(name) => format!("name:{}", name.as_str()),
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "all" => Some(Self::All),
            Some(("prefix", prefix)) => prefix.parse().ok().map(Self::Prefix),
            Some(("name", name)) => Name::of_any_client(name).ok().map(Self::Name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_fields::MAX_FIELDS_OF_EACH;

    fn context(value: &str) -> EncryptionContext {
        EncryptionContext::new(BTreeMap::from([("app".to_owned(), value.to_owned())])).unwrap()
    }

    fn hints() -> LegacyHints {
        let hint =
            |scope, value: &str| LegacyHint { scope, context: Some(context(value)), dialect: None };
        LegacyHints::new(vec![
            hint(Scope::All, "all"),
            hint(Scope::Prefix("dev".parse().unwrap()), "dev"),
            hint(Scope::Name("dev/db".parse().unwrap()), "db"),
            hint(Scope::Prefix("dev/db".parse().unwrap()), "dev/db"),
            LegacyHint { scope: Scope::All, context: None, dialect: Some(Dialect::Credstash) },
        ])
    }

    #[test]
    fn the_narrowest_context_is_tried_first_and_no_context_last() {
        let tried = |name: &str| hints().contexts(name);
        let all = |values: &[&str]| {
            let known = values.iter().map(|value| context(value));
            known.chain([EncryptionContext::default()]).collect::<Vec<_>>()
        };
        assert_eq!(tried("dev/db"), all(&["db", "dev/db", "dev", "all"]));
        assert_eq!(tried("dev.x"), all(&["dev", "all"]));
        assert_eq!(tried("development"), all(&["all"]));
        assert_eq!(LegacyHints::default().contexts("x"), all(&[]));
        assert_eq!(hints().dialect("x"), Some(Dialect::Credstash));
        assert_eq!(hints().context("dev/db"), Some(&context("db")));
        assert_eq!(hints().context("x"), Some(&context("all")));
        assert_eq!(LegacyHints::default().context("x"), None);
    }

    #[test]
    fn hints_are_read_as_they_were_written() {
        let again = LegacyHints::of_rows(&hints().to_rows());
        assert_eq!(again.hash(), hints().hash());
        assert_eq!(again.contexts("dev/db"), hints().contexts("dev/db"));
        assert_ne!(LegacyHints::default().hash(), hints().hash());
    }

    fn fields(json: &str) -> Fields {
        Fields::parse(json).unwrap()
    }

    fn code<T>(result: Result<T, Error>) -> &'static str {
        result.err().map_or("OK", |error| error.code().name)
    }

    #[test]
    fn a_request_for_one_name_accepts_contexts_and_no_dialects() {
        let contexts = r#"{"contexts": [{"name": "n", "context": {"a": "b"}}]}"#;
        assert_eq!(code(parse_contexts(&mut fields(contexts))), "OK");
        for dialects in [r#"[{"dialect": "credstash"}]"#, "[]", "1"] {
            let request = format!(r#"{{"dialects": {dialects}}}"#);
            assert_eq!(code(parse_contexts(&mut fields(&request))), "Invalid", "{dialects}");
        }
        // The input of the state machine has both.
        assert_eq!(
            code(LegacyHints::parse(&mut fields(r#"{"dialects": [{"dialect": "credstash"}]}"#))),
            "OK"
        );
    }

    #[test]
    fn contexts_come_as_an_array_or_as_its_text_in_a_query() {
        let array = r#"[{"name":"a/b","context":{"app":"x"}},{"prefix":"a","context":{}}]"#;
        let mut query = Fields::default();
        query.add_query("contexts", array.to_owned()).unwrap();
        for mut fields in [query, fields(&format!(r#"{{"contexts":{array}}}"#))] {
            let contexts = parse_contexts_by_name(&mut fields, "contexts").unwrap();
            let scopes: Vec<_> = contexts.iter().map(|hint| hint.scope.to_text()).collect();
            assert_eq!(scopes, ["name:a/b", "prefix:a"]);
            fields.finish().unwrap();
        }
        assert!(parse_contexts_by_name(&mut Fields::default(), "contexts").unwrap().is_empty());
        let many = vec![r#"{"name":"a","context":{}}"#; 1001].join(",");
        for array in [
            "{}",
            r#""[]""#,
            r#"[{"context":{}}]"#,
            r#"[{"name":"a","prefix":"b","context":{}}]"#,
            r#"[{"name":"a","context":{"":"x"}}]"#,
            r#"[{"name":"a","context":{},"dialect":"credstash"}]"#,
            r#"[{"prefix":"a","context":{}},{"prefix":"a","context":{"b":"c"}}]"#,
            &format!("[{many}]"),
        ] {
            let request = format!(r#"{{"contexts":{array}}}"#);
            assert_eq!(
                code(parse_contexts_by_name(&mut fields(&request), "contexts")),
                "Invalid",
                "{array:.80}"
            );
        }
    }

    #[test]
    fn no_list_of_hints_is_read_beyond_its_limit() {
        let hints = |count: usize| {
            let entries = vec![r#"{"context":{}}"#; count].join(",");
            LegacyHints::parse(&mut fields(&format!(r#"{{"contexts":[{entries}]}}"#)))
        };
        assert!(hints(LegacyHints::MAX).is_ok());
        let error = hints(LegacyHints::MAX + 1).err().unwrap();
        assert!(error.to_string().contains("at most 1000"), "{error}");
        let wide = (0..=MAX_FIELDS_OF_EACH).map(|n| format!(r#""{n}":1"#)).collect::<Vec<_>>();
        let entry = format!(r#"{{"contexts":[{{}},{{{}}}]}}"#, wide.join(","));
        let error = LegacyHints::parse(&mut fields(&entry)).err().unwrap();
        assert!(error.to_string().contains("contexts[1]"), "{error}");
    }
}
