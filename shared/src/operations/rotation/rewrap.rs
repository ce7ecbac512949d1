//! rewrap: KMS re-encrypts data keys under its newest key material. Nobody sees a data key, and no
//! value is touched.

use std::borrow::Cow;

use futures_util::future::BoxFuture;

use crate::audit_chain::EventKind;
use crate::encryption_context::EncryptionContext;
use crate::envelope::wrapped_key;
use crate::error::Error;
use crate::keys::Rewrapped;
use crate::row::Row;
use crate::store::condition::Projection;
use crate::store::scanned_version::ScannedVersion;

use super::action::{Action, Reason};
use super::plan::{Applied, FailedContexts, Job, Outcome, Plan, Planned};
use super::version_rotation::VersionRotation;

/// The action rewrap.
#[derive(Debug)]
pub struct Rewrap;

impl VersionRotation for Rewrap {
    const ACTION: Action = Action::Rewrap;
    const PROJECTION: Projection = Projection::WrappedKey;
    /// A delete and a restore move a version from one table to the other. A reseal may move it to
    /// its padded number, or keep its old form.
    const MOVED_BY: &'static [EventKind] =
        &[EventKind::Delete, EventKind::Restore, EventKind::Reseal];

    /// The new wrapped key.
    type Change = Vec<u8>;

    fn plan<'a>(
        job: &'a Job<'a>,
        version: &'a ScannedVersion,
    ) -> BoxFuture<'a, Result<Plan<Vec<u8>>, Error>> {
        Box::pin(plan(job, version))
    }

    fn changed<'a>(version: &ScannedVersion, wrapped: &'a Vec<u8>) -> (Cow<'a, Row>, Vec<u8>) {
        (Cow::Owned(version.row()), wrapped.clone())
    }

    fn apply<'a>(
        job: &'a Job<'a>,
        changes: Vec<Planned<Self>>,
    ) -> BoxFuture<'a, Result<Vec<Applied<Self>>, Error>> {
        Box::pin(async move {
            let mut applied = Vec::new();
            for Planned { item, change, mark } in changes {
                let outcome = match job.stores.set_wrapped_key(&item, &change).await {
                    Ok(true) => Outcome::Changed,
                    Ok(false) => Outcome::Crossed,
                    Err(error) => Outcome::Failed(job.reason(error)?),
                };
                applied.push(Applied { item, mark, outcome });
            }
            Ok(applied)
        })
    }
}

/// Re-encrypts the wrapped key of a version, unless it has the newest key material.
async fn plan(job: &Job<'_>, version: &ScannedVersion) -> Result<Plan<Vec<u8>>, Error> {
    let row = version.row();
    let Ok(wrapped) = wrapped_key(&row) else { return Ok(Plan::Fail(Reason::Malformed)) };
    let sealed = row.contains_key("seal");
    let contexts = match sealed_context(&row) {
        Some(context) => vec![context],
        None if sealed => return Ok(Plan::Fail(Reason::Malformed)),
        None => job.hints.contexts(&version.name),
    };
    let mut failed = FailedContexts::default();
    for context in contexts {
        match job.coffer.keys()?.rewrap(&wrapped, &context).await {
            Ok(Rewrapped::Changed(wrapped)) => return Ok(Plan::Change(wrapped)),
            Ok(Rewrapped::Current) => return Ok(Plan::Skip),
            Ok(Rewrapped::Foreign) => return Ok(Plan::Fail(Reason::Foreign)),
            Ok(Rewrapped::Refused) => failed.refused = true,
            Err(error) => failed.add(error)?,
        }
    }
    failed.plan(if sealed { Reason::Integrity } else { Reason::EncryptionContext })
}

/// Returns the context in a sealed row. KMS verifies it: it accepts no other.
pub(super) fn sealed_context(row: &Row) -> Option<EncryptionContext> {
    row.get("seal")?;
    EncryptionContext::new(row.get("context")?.map()?.clone()).ok()
}
