//! What legacy rows do not say of themselves, and their owner knows: contexts and dialects.

use std::collections::BTreeMap;

use crate::context::Context;
use crate::digest;
use crate::envelope::Dialect;
use crate::name::{Name, Prefix};
use crate::row::{Attribute, Row, canonical};
use crate::store::Key;
use crate::store::scan::ScannedVersion;

/// Scope rows are meant.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Everybody's.
    All,
    /// Those of the names that it covers.
    Prefix(Prefix),
    /// Those of one name.
    Name(Name),
}

/// What is known of some rows.
#[derive(Clone, Debug)]
pub struct LegacyHint {
    /// Scope.
    pub whose: Scope,
    /// The encryption context that they may have been put with.
    pub context: Option<Context>,
    /// Scope dialect they are, where their form allows two.
    pub dialect: Option<Dialect>,
}

/// All that is known.
#[derive(Clone, Debug, Default)]
pub struct LegacyHints(Vec<LegacyHint>);

impl LegacyHints {
    /// The most hints that are taken.
    pub const MAX: usize = 1000;

    /// Takes them in the order in which they are to be tried: the narrower ones first.
    #[must_use]
    pub fn new(mut hints: Vec<LegacyHint>) -> Self {
        hints.sort_by_key(|hint| std::cmp::Reverse(hint.whose.narrowness()));
        Self(hints)
    }

    /// The narrowest context that was given for a name, if any.
    pub(super) fn context(&self, name: &str) -> Option<&Context> {
        self.about(name).find_map(|hint| hint.context.as_ref())
    }

    /// The contexts that a name's row may have been put with, none at all last.
    pub(super) fn contexts(&self, name: &str) -> Vec<Context> {
        let mut contexts: Vec<Context> = Vec::new();
        let known = self.about(name).filter_map(|hint| hint.context.clone());
        for context in known.chain([Context::default()]) {
            if !contexts.contains(&context) {
                contexts.push(context);
            }
        }
        contexts
    }

    /// The first of some versions, as many as can be tried with so many calls of KMS, and at least
    /// one: a legacy row may take a call for each context. With them, where the next ones begin.
    pub(super) fn cut(
        &self,
        mut found: Vec<ScannedVersion>,
        next: Option<Key>,
        calls: i32,
    ) -> (Vec<ScannedVersion>, Option<Key>) {
        let mut left = usize::try_from(calls).unwrap_or(1);
        let fits = |found: &&ScannedVersion| {
            let tries = if found.is_sealed() { 1 } else { self.contexts(&found.name).len() };
            let fits = tries <= left;
            left = left.saturating_sub(tries);
            fits
        };
        let count = found.iter().take_while(fits).count().max(1);
        if count >= found.len() {
            return (found, next);
        }
        found.truncate(count);
        let last = found.last().map(ScannedVersion::key);
        (found, last)
    }

    /// Scope dialect a name's rows are, if that was said.
    pub(super) fn dialect(&self, name: &str) -> Option<Dialect> {
        self.about(name).find_map(|hint| hint.dialect)
    }

    fn about(&self, name: &str) -> impl Iterator<Item = &LegacyHint> {
        let name = Name::of_any_client(name).ok();
        self.0.iter().filter(move |hint| match (&hint.whose, &name) {
            (Scope::All, _) => true,
            (Scope::Prefix(prefix), Some(name)) => prefix.covers(name),
            (Scope::Name(whose), Some(name)) => whose == name,
            (_, None) => false,
        })
    }

    /// As they are kept with a run.
    pub(super) fn to_rows(&self) -> Vec<Row> {
        let row = |hint: &LegacyHint| {
            let mut row = Row::from([("of".to_owned(), Attribute::Text(hint.whose.to_text()))]);
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
                whose: Scope::of_text(row.get("of")?.text()?)?,
                context: context
                    .and_then(|pairs: &BTreeMap<_, _>| Context::new(pairs.clone()).ok()),
                dialect: dialect.and_then(|text| text.parse().ok()),
            })
        };
        Self(rows.iter().filter_map(hint).collect())
    }

    /// A hash by which two requests can be told apart.
    pub(super) fn hash(&self) -> Vec<u8> {
        let rows = self.to_rows();
        digest::of_parts(rows.iter().map(|row| canonical(row).unwrap_or_default())).to_vec()
    }
}

impl Scope {
    fn narrowness(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Prefix(prefix) => prefix.literal().len(),
            Self::Name(_) => usize::MAX,
        }
    }

    /// As text, the same for the same names.
    pub(crate) fn to_text(&self) -> String {
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

    fn context(value: &str) -> Context {
        Context::new(BTreeMap::from([("app".to_owned(), value.to_owned())])).unwrap()
    }

    fn hints() -> LegacyHints {
        let hint =
            |whose, value: &str| LegacyHint { whose, context: Some(context(value)), dialect: None };
        LegacyHints::new(vec![
            hint(Scope::All, "all"),
            hint(Scope::Prefix("dev".parse().unwrap()), "dev"),
            hint(Scope::Name("dev/db".parse().unwrap()), "db"),
            hint(Scope::Prefix("dev/db".parse().unwrap()), "dev/db"),
            LegacyHint { whose: Scope::All, context: None, dialect: Some(Dialect::Credstash) },
        ])
    }

    #[test]
    fn the_narrowest_context_is_tried_first_and_none_last() {
        let tried = |name: &str| hints().contexts(name);
        let all = |values: &[&str]| {
            let known = values.iter().map(|value| context(value));
            known.chain([Context::default()]).collect::<Vec<_>>()
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
    fn they_are_kept_as_they_were_given() {
        let again = LegacyHints::of_rows(&hints().to_rows());
        assert_eq!(again.hash(), hints().hash());
        assert_eq!(again.contexts("dev/db"), hints().contexts("dev/db"));
        assert_ne!(LegacyHints::default().hash(), hints().hash());
    }
}
