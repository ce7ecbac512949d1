//! reseal: gives legacy rows a seal, in place or under their padded number.

mod apply;
mod earlier_form;

use std::borrow::Cow;

use base64::prelude::{BASE64_STANDARD, Engine};
use futures_util::future::BoxFuture;

use crate::audit_chain::EventKind;
use crate::encryption_context::EncryptionContext;
use crate::envelope::{self, Envelope, OpenError, SealPlan, wrapped_key};
use crate::error::Error;
use crate::keys::Unwrapped;
use crate::name::{Name, Revision};
use crate::row::{self, Attribute, Row};
use crate::secret::DataKey;
use crate::store::condition::Projection;
use crate::store::scanned_version::ScannedVersion;

use super::super::LegacyItems;
use super::super::errors::unless_reserved;
use super::action::{Action, Reason};
use super::pad;
use super::plan::{Applied, FailedContexts, Job, Plan, Planned};
use super::version_rotation::VersionRotation;
pub(super) use earlier_form::earlier_form;

/// The action reseal.
#[derive(Debug)]
pub struct Reseal;

impl VersionRotation for Reseal {
    const ACTION: Action = Action::Reseal;
    const PROJECTION: Projection = Projection::Whole;
    const MOVED_BY: &'static [EventKind] = &[EventKind::Delete, EventKind::Restore];

    /// The resealed row.
    type Change = Row;

    fn plan<'a>(
        job: &'a Job<'a>,
        version: &'a ScannedVersion,
    ) -> BoxFuture<'a, Result<Plan<Row>, Error>> {
        Box::pin(plan(job, version))
    }

    fn changed<'a>(_: &ScannedVersion, row: &'a Row) -> (Cow<'a, Row>, Vec<u8>) {
        (Cow::Borrowed(row), wrapped_key(row).unwrap_or_default())
    }

    fn apply<'a>(
        job: &'a Job<'a>,
        changes: Vec<Planned<Self>>,
    ) -> BoxFuture<'a, Result<Vec<Applied<Self>>, Error>> {
        Box::pin(apply::apply(job, changes))
    }
}

/// Plans the reseal of a row. Nothing is guessed: a row that fails its MAC, or that may be of two
/// dialects, is not changed.
async fn plan(job: &Job<'_>, version: &ScannedVersion) -> Result<Plan<Row>, Error> {
    let row = version.row();
    if row.contains_key("seal") {
        return pad::plan(job, version).await;
    }
    if let Some(reason) = refused(job, version, &row) {
        return Ok(Plan::Fail(reason));
    }
    let envelope = match Envelope::parse(&row) {
        Ok(envelope) => envelope,
        Err(refusal) => return Ok(Plan::Fail(reason_of(refusal))),
    };
    let (key, context) = match unwrap(job, version, &envelope).await? {
        Ok(unwrapped) => unwrapped,
        Err(plan) => return Ok(plan),
    };
    let examined = envelope.examine(&key, job.hints.dialect(&version.name));
    let Some(described) = described(&row, &context)? else {
        return Ok(Plan::Fail(Reason::Unsealable));
    };
    // If padding would make another version current, the row is sealed in place.
    let in_place = pad::cannot_pad(job.stores, version).await?.is_some();
    let described = if in_place { described } else { pad::padded(version, described) };
    let resealed = match examined {
        Err(refusal) => return Ok(Plan::Fail(reason_of(refusal))),
        Ok(SealPlan::NeedsHint) => return Ok(Plan::Fail(Reason::Ambiguous)),
        Ok(SealPlan::WrongHint) => return Ok(Plan::Fail(Reason::Dialect)),
        Ok(SealPlan::AddSeal(secret)) => {
            let mut whole = described;
            for kept in ["key", "contents", "hmac", "digest"] {
                whole.extend(row.get(kept).map(|value| (kept.to_owned(), value.clone())));
            }
            envelope::add_seal(&key, &secret, whole)
        }
        // Whether it fits is known without a new data key.
        Ok(SealPlan::NewDataKey(_)) if job.dry_run => Ok(described),
        Ok(SealPlan::NewDataKey(secret)) => {
            let (key, wrapped) = job.coffer.keys()?.generate(&context).await?;
            envelope::seal(&key, &secret, described).map(|mut row| {
                let wrapped = BASE64_STANDARD.encode(wrapped);
                row.insert("key".to_owned(), Attribute::Text(wrapped));
                row
            })
        }
    };
    Ok(match resealed {
        Err(_) => Plan::Fail(Reason::Unsealable),
        Ok(resealed) if !row::fits(&resealed) => Plan::Fail(Reason::TooLarge),
        Ok(resealed) => Plan::Change(resealed),
    })
}

/// Returns why a row is not resealed, if that is known before it is opened.
fn refused(job: &Job<'_>, version: &ScannedVersion, row: &Row) -> Option<Reason> {
    let name = Name::of_any_client(&version.name);
    // No event can record it.
    if name.is_ok_and(|name| unless_reserved(&name).is_err()) {
        return Some(Reason::Unsealable);
    }
    if envelope::is_seal_removed(row) {
        return Some(Reason::Stripped);
    }
    // Otherwise a row whose seal was removed would get another, whatever its name.
    (job.coffer.options.legacy_items == LegacyItems::Refuse).then_some(Reason::Unsealed)
}

/// Unwraps the data key of a row under the contexts of the hints, or returns the plan if none works.
async fn unwrap(
    job: &Job<'_>,
    version: &ScannedVersion,
    envelope: &Envelope<'_>,
) -> Result<Result<(std::sync::Arc<DataKey>, EncryptionContext), Plan<Row>>, Error> {
    let mut failed = FailedContexts::default();
    for context in job.hints.contexts(&version.name) {
        match job.coffer.keys()?.unwrap(envelope.wrapped_key(), &context).await {
            Ok(Unwrapped::Key(key)) => return Ok(Ok((key, context))),
            Ok(Unwrapped::Foreign | Unwrapped::Unusable(_)) => {
                return Ok(Err(Plan::Fail(Reason::Foreign)));
            }
            Ok(Unwrapped::Refused) => failed.refused = true,
            Err(error) => failed.add(error)?,
        }
    }
    failed.plan(Reason::EncryptionContext).map(Err)
}

/// Returns why a row that was not opened is not changed.
fn reason_of(refusal: OpenError) -> Reason {
    match refusal {
        OpenError::Integrity => Reason::Integrity,
        OpenError::Malformed | OpenError::UnsupportedDigest => Reason::Malformed,
        OpenError::Ambiguous => Reason::Ambiguous,
    }
}

/// Returns the describing attributes of the sealed row: those of the legacy row, the context, and a
/// revision if it has none. Returns `None` if one of them has an unexpected type.
fn described(row: &Row, context: &EncryptionContext) -> Result<Option<Row>, Error> {
    let mut described = row.clone();
    for part in ["key", "contents", "hmac", "digest"] {
        described.remove(part);
    }
    let revision = match row.get("revision") {
        None => Revision::random()?,
        Some(Attribute::Bytes(bytes)) => match Revision::stored(bytes) {
            Some(revision) => revision,
            None => return Ok(None),
        },
        Some(_) => return Ok(None),
    };
    let revision = Attribute::Bytes(revision.as_str().as_bytes().to_vec());
    described.insert("revision".to_owned(), revision);
    described.insert("context".to_owned(), Attribute::Map(context.pairs().clone()));
    let text = |name: &str| row.get(name).is_none_or(|value| value.text().is_some());
    let number = |name: &str| row.get(name).is_none_or(|value| value.integer().is_some());
    let fits = text("comment") && number("created_at") && number("expires_at");
    // A seal covers no attribute of another type.
    Ok(Some(described).filter(|row| fits && row::canonical(row).is_some()))
}
