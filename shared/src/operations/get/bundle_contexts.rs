//! The encryption context of each secret of a bundle.

use crate::description::name_of;
use crate::encryption_context::EncryptionContext;
use crate::error::Error;
use crate::row::{Attribute, Row};

use super::super::legacy_hints::{LegacyHint, LegacyHints};

/// The encryption context that each secret of a bundle is opened with.
#[derive(Debug)]
pub struct BundleContexts {
    hints: LegacyHints,
    rest: EncryptionContext,
    only: bool,
}

impl BundleContexts {
    /// Uses the narrowest of `hints` for each name, and `rest` if none applies. With `only`, a
    /// secret that was put with another context is left out.
    #[must_use]
    pub fn new(hints: Vec<LegacyHint>, rest: EncryptionContext, only: bool) -> Self {
        Self { hints: LegacyHints::new(hints), rest, only }
    }

    pub(super) fn of(&self, name: &str) -> &EncryptionContext {
        self.hints.context(name).unwrap_or(&self.rest)
    }

    /// Whether the row is left out because it says that it was sealed with another context. A
    /// legacy row does not say: KMS decides.
    pub(super) fn leaves_out(&self, row: &Row) -> bool {
        let sealed = row.contains_key("seal");
        let stored = row.get("context").and_then(Attribute::map);
        let context = self.of(name_of(row).unwrap_or_default());
        self.only && sealed && stored.is_some_and(|pairs| pairs != context.pairs())
    }

    /// Whether a row is left out because KMS refused its context, and it is a legacy row.
    pub(super) fn ignores(&self, row: &Row, error: &Error) -> bool {
        self.only && !row.contains_key("seal") && matches!(error, Error::Forbidden(_))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::super::legacy_hints::Scope;
    use super::*;

    fn context(app: &str) -> EncryptionContext {
        EncryptionContext::new(BTreeMap::from([("app".to_owned(), app.to_owned())])).unwrap()
    }

    fn contexts(only: bool) -> BundleContexts {
        let hint =
            |scope, app: &str| LegacyHint { scope, context: Some(context(app)), dialect: None };
        let hints = vec![
            hint(Scope::Prefix("dev".parse().unwrap()), "dev"),
            hint(Scope::Name("dev/db".parse().unwrap()), "db"),
            hint(Scope::Prefix("dev/d*".parse().unwrap()), "d"),
        ];
        BundleContexts::new(hints, context("rest"), only)
    }

    fn row(name: &str, sealed_with: Option<&str>) -> Row {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let mut row = Row::from([("name".to_owned(), text(name))]);
        if let Some(app) = sealed_with {
            row.insert("seal".to_owned(), text("AAAA"));
            row.insert("context".to_owned(), Attribute::Map(context(app).pairs().clone()));
        }
        row
    }

    #[test]
    fn the_narrowest_context_is_used() {
        for (name, app) in
            [("dev/db", "db"), ("dev/dx", "d"), ("dev/x", "dev"), ("development", "rest")]
        {
            assert_eq!(contexts(false).of(name), &context(app), "{name}");
        }
    }

    #[test]
    fn only_a_row_with_another_context_is_left_out_and_only_if_requested() {
        assert!(contexts(true).leaves_out(&row("dev/db", Some("dev"))));
        assert!(!contexts(true).leaves_out(&row("dev/db", Some("db"))));
        assert!(!contexts(true).leaves_out(&row("dev/db", None)));
        assert!(!contexts(false).leaves_out(&row("dev/db", Some("dev"))));
        let refused = Error::Forbidden("".into());
        assert!(contexts(true).ignores(&row("x", None), &refused));
        assert!(!contexts(false).ignores(&row("x", None), &refused));
        assert!(!contexts(true).ignores(&row("x", Some("rest")), &refused));
        assert!(!contexts(true).ignores(&row("x", None), &Error::Integrity));
    }
}
