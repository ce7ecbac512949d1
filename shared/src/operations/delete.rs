//! delete: moves a secret, or one version of it, to the ledger for a recovery window, or removes it
//! for good.

mod batch;
mod forced;
mod soft;

use crate::audit_chain::Caller;
use crate::error::Error;
use crate::fields::Fields;
use crate::name::{Name, VersionKey};
use crate::request::Response;
use crate::store::scan::Stores;
use crate::timestamp::Timestamp;

use super::errors::{for_name, unless_reserved};
use super::{Coffer, Operation};

/// The most versions that one transaction moves: two writes each, besides the event and the head.
pub(super) const MAX_MOVED: i32 = 49;

/// A request to delete a secret or one version of it.
#[derive(Debug)]
pub struct Delete {
    /// The name of the secret.
    pub name: Name,
    /// The version; all of them if `None`.
    pub version: Option<VersionKey>,
    /// Whether it can be restored.
    pub recovery: Recovery,
}

/// Whether what is deleted can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// For this many days.
    Days(u32),
    /// Not at all. Versions that could still be restored are removed as well.
    None,
}

impl Recovery {
    /// The shortest recovery window.
    pub const MIN_DAYS: u32 = 7;
    /// The longest recovery window, which is also the default.
    pub const MAX_DAYS: u32 = 30;
}

/// The versions that were deleted.
#[derive(Debug, serde::Serialize)]
pub struct Deleted {
    /// The name of the secret.
    pub name: Name,
    /// The versions, lowest first. Empty if the secret was deleted before and can be restored.
    pub versions: Vec<VersionKey>,
    /// When they can no longer be restored; `None` for a forced delete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recoverable_until: Option<Timestamp>,
}

impl Operation for Delete {
    const NAME: &'static str = "delete";

    type Output = Deleted;

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let name = Name::of_any_client(&fields.required_text("name")?)?;
        let version = fields.number_or_text("version")?.map(|text| text.parse()).transpose()?;
        let days = fields.number("recovery_window_in_days")?.map(u32::try_from);
        let recovery = match (fields.flag("force")?, days) {
            (true, None) => Recovery::None,
            (false, None) => Recovery::Days(Recovery::MAX_DAYS),
            (false, Some(Ok(days @ Recovery::MIN_DAYS..=Recovery::MAX_DAYS))) => {
                Recovery::Days(days)
            }
            _ => {
                return Err(Error::invalid(
                    "`recovery_window_in_days` must be 7 to 30, and must be absent with `force`.",
                ));
            }
        };
        Ok(Self { name, version, recovery })
    }

    fn name(&self) -> Option<&Name> {
        Some(&self.name)
    }

    fn writes(&self) -> bool {
        true
    }

    /// Deletes one version or all. The oldest are deleted first, each transaction with its event,
    /// and the highest in the last transaction, so that the secret exists until it is gone. A
    /// delete that was interrupted continues when it is requested again.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for a reserved name; [`Error::Forbidden`] if the
    /// stack does not allow a forced delete; [`Error::TooLarge`] for another client's row that does
    /// not fit the ledger; [`Error::Unavailable`].
    async fn apply(self, coffer: &Coffer, caller: &Caller) -> Result<Deleted, Error> {
        unless_reserved(&self.name)?;
        let deleted = match self.recovery {
            Recovery::Days(days) => Box::pin(coffer.soft_delete(&self, days, caller)).await,
            Recovery::None if !coffer.options.forced_delete => Err(Error::Forbidden(
                "This stack does not allow `force`. Delete without it: a deleted version is \
                 removed when its recovery window ends."
                    .into(),
            )),
            Recovery::None => Box::pin(coffer.forced_delete(&self, caller)).await,
        };
        deleted.map_err(|error| for_name(&self.name, error))
    }

    fn respond(deleted: Deleted) -> Result<Response, Error> {
        Response::json(&deleted)
    }
}

/// Sorts versions, and keeps each number once, whether its rows were padded or not.
pub(super) fn each_number_once(versions: &mut Vec<VersionKey>) {
    versions.sort_by_cached_key(|label| label.padded().as_str().to_owned());
    versions.dedup_by_key(|label| label.padded());
}

/// Finds the form in which the requested version is stored: padded or, before 2016, not. A live
/// version takes precedence over a deleted one.
async fn stored_label(stores: Stores<'_>, delete: &Delete) -> Result<Option<VersionKey>, Error> {
    let Some(label) = &delete.version else { return Ok(None) };
    let padded = label.padded();
    let name = &delete.name;
    if padded == *label || stores.table.live(name, &padded).await?.is_some() {
        return Ok(Some(padded));
    }
    if stores.table.live(name, label).await?.is_some() {
        return Ok(Some(label.clone()));
    }
    let deleted = stores.ledger.deleted_versions(name, Some(&padded), None).await?.0;
    let known = deleted.iter().any(|each| !each.before_reseal);
    Ok(Some(if known { padded } else { label.clone() }))
}
