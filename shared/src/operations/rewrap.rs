//! rewrap: data keys are given a new wrapping by KMS; nobody sees them, and no value is touched.

use crate::context::Context;
use crate::envelope::wrapped_key;
use crate::error::Error;
use crate::keys::Rewrapped;
use crate::row::Row;
use crate::store::scan::ScannedVersion;

use super::Coffer;
use super::executor::{Change, InVain, Plan, Reason};
use super::legacy_hints::LegacyHints;

impl Coffer {
    /// What KMS makes of a version's wrapped key: a new wrapping, unless it has the newest there is.
    pub(super) async fn plan_rewrap(
        &self,
        found: &ScannedVersion,
        hints: &LegacyHints,
    ) -> Result<Plan, Error> {
        let row = found.row();
        let Ok(wrapped) = wrapped_key(&row) else { return Ok(Plan::Fail(Reason::Malformed)) };
        let sealed = row.contains_key("seal");
        let contexts = match sealed_under(&row) {
            Some(context) => vec![context],
            None if sealed => return Ok(Plan::Fail(Reason::Malformed)),
            None => hints.contexts(&found.name),
        };
        let mut in_vain = InVain::default();
        for context in contexts {
            match self.keys()?.rewrap(&wrapped, &context).await {
                Ok(Rewrapped::Anew(wrapped)) => return Ok(Plan::Change(Change::Key(wrapped))),
                Ok(Rewrapped::Current) => return Ok(Plan::Skip),
                Ok(Rewrapped::Foreign) => return Ok(Plan::Fail(Reason::Foreign)),
                Ok(Rewrapped::Refused) => in_vain.refused = true,
                Err(error) => in_vain.failed(error)?,
            }
        }
        in_vain.plan(if sealed { Reason::Integrity } else { Reason::Context })
    }
}

/// The context that a sealed row carries. KMS says whether it is the one: it does not take another.
pub(super) fn sealed_under(row: &Row) -> Option<Context> {
    row.get("seal")?;
    Context::new(row.get("context")?.map()?.clone()).ok()
}
