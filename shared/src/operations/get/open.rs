//! The opening of a row: verify, unwrap, decrypt, and check what the value is bound to.

use crate::description::Description;
use crate::encryption_context::EncryptionContext;
use crate::envelope::{Dialect, Envelope, is_seal_removed};
use crate::error::Error;
use crate::keys::Unwrapped;
use crate::name::Stage;
use crate::opened_secret::OpenedSecret;
use crate::row::{Attribute, Row};
use crate::secret::Secret;
use crate::timestamp::Timestamp;

use super::super::{Coffer, LegacyItems};

impl Coffer {
    /// Opens a row with one call to KMS.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for the wrong context; [`Error::Expired`]; [`Error::Integrity`],
    /// [`Error::Foreign`], [`Error::Unsealed`] or [`Error::Malformed`] for a row that is not opened;
    /// [`Error::Unavailable`].
    pub(super) async fn open(
        &self,
        row: &Row,
        context: &EncryptionContext,
        stages: Option<Vec<Stage>>,
    ) -> Result<OpenedSecret, Error> {
        let (secret, dialect) = self.decrypt(row, context).await?;
        // After the seal was verified: an edited expiry is a broken seal, not an expired version.
        let description = Description::of(row)?;
        if description.expires_at.is_some_and(|end| end <= Timestamp::now()) {
            return Err(Error::Expired);
        }
        let description = Description { context: None, ..description };
        Ok(OpenedSecret { description, secret, stages, dialect })
    }

    async fn decrypt(
        &self,
        row: &Row,
        context: &EncryptionContext,
    ) -> Result<(Secret, Option<Dialect>), Error> {
        let envelope = Envelope::parse(row)?;
        let sealed = envelope.is_sealed();
        if self.options.legacy_items == LegacyItems::Refuse && !sealed {
            return Err(Error::Unsealed);
        }
        if is_seal_removed(row) {
            return Err(Error::Integrity);
        }
        let key = match self.keys()?.unwrap(envelope.wrapped_key(), context).await? {
            Unwrapped::Key(key) => key,
            Unwrapped::Foreign => return Err(Error::Foreign),
            Unwrapped::Unusable(error) => return Err(error),
            Unwrapped::Refused => return Err(refused(row, sealed, context)),
        };
        let opened = envelope.open(&key)?;
        // After the seal was verified: an edited context is a broken seal.
        if sealed && !is_sealed_with(row, context) {
            return Err(refused(row, sealed, context));
        }
        Ok((opened.secret, opened.dialect))
    }
}

/// Whether a sealed row was put with this encryption context. KMS compares the context with the one
/// of the wrapped key, which whoever may call `ReEncrypt` can change.
fn is_sealed_with(row: &Row, context: &EncryptionContext) -> bool {
    let sealed_with = row.get("context").and_then(Attribute::map);
    sealed_with.map_or(context.is_empty(), |pairs| pairs == context.pairs())
}

/// Explains why a row does not open under `context`: the caller's context is not the one of the
/// put, or the wrapped key was altered.
fn refused(row: &Row, sealed: bool, context: &EncryptionContext) -> Error {
    let sealed_with = row.get("context").and_then(Attribute::map);
    match sealed_with {
        Some(pairs) if sealed => {
            // Not verified, because that takes the key. A context that no put writes is not shown.
            if pairs == context.pairs() || EncryptionContext::new(pairs.clone()).is_err() {
                Error::Integrity
            } else if pairs.is_empty() {
                Error::Forbidden(
                    "This version was put without encryption context. Leave `context` out.".into(),
                )
            } else {
                let keys: Vec<_> = pairs.keys().map(|key| format!("{key:?}")).collect();
                let keys = keys.join(", ");
                Error::Forbidden(
                    format!(
                        "The encryption context is not the one this version was put with. Give \
                         `context` these keys with their values, and no others: {keys}."
                    )
                    .into(),
                )
            }
        }
        _ => Error::Forbidden(
            "KMS does not unwrap the data key of this version under this encryption context. A \
             legacy row does not say which context it was put with: ask its writer. If the context \
             is right, the row is damaged."
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn context(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_refusal_by_kms_is_explained_by_the_context_in_the_row() {
        let error = |stored: Option<&[(&str, &str)]>, sealed: bool, given: &[(&str, &str)]| {
            let text = |value: &str| Attribute::Text(value.to_owned());
            let mut row =
                Row::from(["key", "contents", "hmac"].map(|name| (name.to_owned(), text("AAAA"))));
            if let Some(pairs) = stored {
                row.insert("context".to_owned(), Attribute::Map(context(pairs)));
            }
            if sealed {
                row.insert("seal".to_owned(), text("AAAA"));
            }
            refused(&row, sealed, &EncryptionContext::new(context(given)).unwrap())
        };
        let web: &[_] = &[("app", "web")];
        assert_eq!(error(Some(web), true, web).code().name, "Integrity");
        let wrong = error(Some(web), true, &[("app", "other")]);
        assert_eq!(wrong.code().name, "Forbidden");
        assert!(wrong.to_string().contains("\"app\"") && !wrong.to_string().contains("web"));
        assert!(error(Some(&[]), true, web).to_string().contains("without encryption context"));
        assert!(error(None, false, web).to_string().contains("legacy"));
        // No put could have stored this, so it is not shown.
        let planted = "x".repeat(9000);
        let absurd = error(Some(&[(&planted, "")]), true, web);
        assert_eq!(absurd.code().name, "Integrity");
    }

    #[test]
    fn a_sealed_row_opens_under_its_own_context_and_no_other() {
        let web: &[(&str, &str)] = &[("app", "web")];
        let more: &[(&str, &str)] = &[("app", "web"), ("team", "payments")];
        let holds = |stored: Option<&[(&str, &str)]>, given: &[(&str, &str)]| {
            let stored = stored.map(|pairs| Attribute::Map(context(pairs)));
            let row = stored.map(|map| ("context".to_owned(), map)).into_iter().collect();
            is_sealed_with(&row, &EncryptionContext::new(context(given)).unwrap())
        };
        assert!(holds(Some(web), web) && holds(Some(&[]), &[]) && holds(None, &[]));
        for (stored, given) in [(web, &[] as &[_]), (web, more), (more, web), (&[], web)] {
            assert!(!holds(Some(stored), given), "{stored:?} {given:?}");
        }
        assert!(!holds(None, web));
    }
}
