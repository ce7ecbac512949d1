//! renew: a secret with a rotation policy gets a generated value as its next version.

use crate::chain::Caller;
use crate::error::Error;
use crate::moment::Moment;
use crate::name::Name;
use crate::row::Attribute;
use crate::store::ledger::Token;

use super::policy::Rotation;
use super::put::{Put, Stored, Value};
use super::rewrap::sealed_under;
use super::work::{Applied, Change, Plan, Reason};
use super::{Coffer, not_found};

impl Coffer {
    /// What becomes of a policy: a new version, if it is due or `now` is asked for and the name
    /// has a version to follow. It has the comment of that one, and its context unless the policy
    /// has one.
    pub(super) async fn plan_renew(&self, rotation: &Rotation, now: bool) -> Result<Plan, Error> {
        if !now && rotation.due.is_none_or(|due| due > Moment::now()) {
            return Ok(Plan::Skip);
        }
        // Deleted, it waits: restored, it is made up for once.
        let Some(row) = self.ledger()?.described(&rotation.name).await? else {
            return Ok(Plan::Skip);
        };
        let context = rotation.context.clone().or_else(|| sealed_under(&row));
        let Some(context) = context else { return Ok(Plan::Fail(Reason::Context)) };
        let put = Put {
            name: rotation.name.clone(),
            value: Value::Generated(rotation.rules.clone()),
            context,
            comment: row.get("comment").and_then(Attribute::text).map(str::to_owned),
            expiry: None,
            version: None,
        };
        Ok(Plan::Change(Change::Renew(Box::new(put))))
    }

    /// Renews a name by its policy, whether that is due or not; in a dry run, tells whether it
    /// could be. With a token it is done once in 24 hours.
    ///
    /// # Errors
    /// [`Error::NotFound`] without a policy, or without a version to follow; [`Error::Invalid`]
    /// where the context is not known; [`Error::Renewed`]; and as [`Coffer::put`].
    pub async fn renew(
        &self,
        name: &Name,
        dry_run: bool,
        token: Option<Token>,
        caller: &Caller,
    ) -> Result<Option<Stored>, Error> {
        // No other name has a policy.
        name.check()?;
        self.pace_one();
        let rotation = self.policy(name).await?;
        let put = match self.plan_renew(&rotation, true).await? {
            Plan::Change(Change::Renew(put)) => *put,
            Plan::Fail(_) => {
                return Err(Error::invalid(
                    "The newest version is a legacy row, which does not say its encryption \
                     context. Give the policy a `context`, or rotate the name with action reseal.",
                ));
            }
            Plan::Skip | Plan::Change(_) => return Err(not_found()),
        };
        if dry_run {
            return Ok(None);
        }
        Ok(self.write(vec![put], token, Some(&rotation), caller).await?.into_iter().next())
    }

    /// Puts the new version and, in the same transaction, when the policy is due again.
    pub(super) async fn apply_renew(
        &self,
        rotation: &Rotation,
        put: Put,
        caller: &Caller,
    ) -> Result<Applied, Error> {
        match Box::pin(self.write(vec![put], None, Some(rotation), caller)).await {
            Ok(_) => Ok(Applied::Changed),
            // Renewed or given another policy by somebody else, or deleted, since it was looked at.
            Err(Error::Renewed | Error::NotFound(_)) => Ok(Applied::Skipped),
            Err(error) => Err(error),
        }
    }
}
