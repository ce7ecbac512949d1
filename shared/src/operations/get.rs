//! get: one version of one secret, verified and opened.

use crate::context::Context;
use crate::envelope::{Dialect, Envelope, is_stripped};
use crate::error::Error;
use crate::keys::Unwrapped;
use crate::moment::Moment;
use crate::name::{Label, NO_SUCH_LABEL, Name, Revision, Stage, Version};
use crate::row::{Attribute, Row};
use crate::secret::Secret;

use super::list::Description;
use super::{Coffer, Legacy, for_name, not_found};

/// Which version of a secret is meant.
#[derive(Debug)]
pub enum VersionSelector {
    /// The one at this stage.
    Stage(Stage),
    /// The one with this sort key.
    Version(Label),
    /// The one with this revision.
    Revision(Revision),
}

/// A version that was opened.
#[derive(Debug)]
pub struct OpenedSecret {
    /// What is known of it.
    pub description: Description,
    /// Its plaintext.
    pub secret: Secret,
    /// Where it stands, if the way it was asked for tells.
    pub stages: Option<Vec<Stage>>,
    /// Who wrote it, if it carries no seal.
    pub dialect: Option<Dialect>,
}

impl Coffer {
    /// Opens one version with one call to DynamoDB and one to KMS. (A version that is not there is
    /// looked for once more, as the unpadded number of an old client.)
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] where nothing is found and the name or version is
    /// none that could be put; [`Error::Forbidden`] for the wrong context; [`Error::Expired`];
    /// [`Error::Integrity`], [`Error::Foreign`], [`Error::Unsealed`] or [`Error::Malformed`] for a
    /// row that is not opened; [`Error::Unavailable`].
    pub async fn get(
        &self,
        name: &Name,
        which: &VersionSelector,
        context: &Context,
    ) -> Result<OpenedSecret, Error> {
        let (row, stages) = self.find(name, which).await.map_err(|e| for_name(name, e))?;
        let (description, secret, dialect) = self.open_row(&row, context).await?;
        Ok(OpenedSecret { description, secret, stages, dialect })
    }

    pub(super) async fn open_row(
        &self,
        row: &Row,
        context: &Context,
    ) -> Result<(Description, Secret, Option<Dialect>), Error> {
        let (secret, dialect) = self.open(row, context).await?;
        // Only now: an expiry that was edited is a broken seal, not an expired version.
        let description = Description::of(row)?;
        if description.expires_at.is_some_and(|end| end <= Moment::now()) {
            return Err(Error::Expired);
        }
        Ok((description, secret, dialect))
    }

    async fn find(
        &self,
        name: &Name,
        which: &VersionSelector,
    ) -> Result<(Row, Option<Vec<Stage>>), Error> {
        match which {
            VersionSelector::Stage(Stage::Current) => {
                let row = self.store()?.newest(name, 1).await?.into_iter().next();
                Ok((row.ok_or_else(not_found)?, Some(vec![Stage::Current])))
            }
            VersionSelector::Stage(Stage::Previous) => {
                let row = self.store()?.newest(name, 2).await?.into_iter().nth(1);
                Ok((row.ok_or_else(not_found)?, Some(vec![Stage::Previous])))
            }
            VersionSelector::Stage(Stage::Pending) => Err(not_found()),
            VersionSelector::Version(label) => {
                // Two more tell whether this is the highest version or the one below it.
                let padded = label.padded();
                let mut found = self.store()?.version(name, &padded, 2).await?;
                if found.is_none() && padded != *label {
                    // Written unpadded, before 2016.
                    found = self.store()?.version(name, label, 2).await?;
                }
                let (row, above) = found.ok_or_else(|| match label.number() {
                    Some(number) if Version::new(number).is_some() => not_found(),
                    _ => Error::invalid(NO_SUCH_LABEL),
                })?;
                let stages = match above {
                    0 => vec![Stage::Current],
                    1 => vec![Stage::Previous],
                    _ => vec![],
                };
                Ok((row, Some(stages)))
            }
            VersionSelector::Revision(revision) => {
                let row = self.store()?.revision(name, revision).await?;
                Ok((row.ok_or_else(not_found)?, None))
            }
        }
    }

    async fn open(&self, row: &Row, context: &Context) -> Result<(Secret, Option<Dialect>), Error> {
        let envelope = Envelope::parse(row)?;
        if self.policy.legacy == Legacy::Refuse && !envelope.is_sealed() {
            return Err(Error::Unsealed);
        }
        if is_stripped(row) {
            return Err(Error::Integrity);
        }
        let key = match self.keys()?.unwrap(envelope.wrapped_key(), context).await? {
            Unwrapped::Key(key) => key,
            Unwrapped::Foreign => return Err(Error::Foreign),
            Unwrapped::Unusable(error) => return Err(error),
            Unwrapped::Refused => return Err(refused(row, envelope.is_sealed(), context)),
        };
        let sealed = envelope.is_sealed();
        let opened = envelope.open(&key)?;
        // After the seal was verified: a context that was edited in the row is a broken seal.
        if sealed && !is_sealed_with(row, context) {
            return Err(refused(row, sealed, context));
        }
        Ok((opened.secret, opened.dialect))
    }
}

/// Whether a sealed row was put with this encryption context. KMS compares it with the one under
/// which the data key is wrapped, and whoever may call `ReEncrypt` can change that one.
fn is_sealed_with(row: &Row, context: &Context) -> bool {
    let sealed_with = row.get("context").and_then(Attribute::map);
    sealed_with.map_or(context.is_empty(), |pairs| pairs == context.pairs())
}

/// Why a row does not open under `context`: the caller's context is not the one it was put with,
/// or the wrapped key was altered.
fn refused(row: &Row, sealed: bool, context: &Context) -> Error {
    let sealed_with = row.get("context").and_then(Attribute::map);
    match sealed_with {
        Some(pairs) if sealed => {
            // Not verified, for that takes the key. What put never wrote is not shown.
            if pairs == context.pairs() || Context::new(pairs.clone()).is_err() {
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
            "KMS does not unwrap the data key of this version under the encryption context given. \
             A legacy row does not say which one it was put with: ask whoever put it. If the \
             context is right, the row is damaged."
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
    fn a_refusal_of_kms_is_told_apart_by_the_context_that_the_row_carries() {
        let told = |stored: Option<&[(&str, &str)]>, sealed: bool, given: &[(&str, &str)]| {
            let text = |value: &str| Attribute::Text(value.to_owned());
            let mut row =
                Row::from(["key", "contents", "hmac"].map(|name| (name.to_owned(), text("AAAA"))));
            if let Some(pairs) = stored {
                row.insert("context".to_owned(), Attribute::Map(context(pairs)));
            }
            if sealed {
                row.insert("seal".to_owned(), text("AAAA"));
            }
            refused(&row, sealed, &Context::new(context(given)).unwrap())
        };
        let web: &[_] = &[("app", "web")];
        assert_eq!(told(Some(web), true, web).code().name, "Integrity");
        let wrong = told(Some(web), true, &[("app", "other")]);
        assert_eq!(wrong.code().name, "Forbidden");
        assert!(wrong.to_string().contains("\"app\"") && !wrong.to_string().contains("web"));
        assert!(told(Some(&[]), true, web).to_string().contains("without encryption context"));
        assert!(told(None, false, web).to_string().contains("legacy"));
        // No put could have stored this, so nobody is shown it.
        let planted = "x".repeat(9000);
        let absurd = told(Some(&[(&planted, "")]), true, web);
        assert_eq!(absurd.code().name, "Integrity");
    }

    #[test]
    fn a_sealed_row_is_put_with_the_context_it_carries_and_no_other() {
        let web: &[(&str, &str)] = &[("app", "web")];
        let more: &[(&str, &str)] = &[("app", "web"), ("team", "payments")];
        let holds = |stored: Option<&[(&str, &str)]>, given: &[(&str, &str)]| {
            let stored = stored.map(|pairs| Attribute::Map(context(pairs)));
            let row = stored.map(|map| ("context".to_owned(), map)).into_iter().collect();
            is_sealed_with(&row, &Context::new(context(given)).unwrap())
        };
        assert!(holds(Some(web), web) && holds(Some(&[]), &[]) && holds(None, &[]));
        for (stored, given) in [(web, &[] as &[_]), (web, more), (more, web), (&[], web)] {
            assert!(!holds(Some(stored), given), "{stored:?} {given:?}");
        }
        assert!(!holds(None, web));
    }
}
