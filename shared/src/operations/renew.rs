//! renew: a secret with a rotation policy gets a generated value as its next version.

use crate::backoff::Backoff;
use crate::chain::Caller;
use crate::error::Error;
use crate::generate::weak_policy;
use crate::life::{Top, may_be_partial};
use crate::moment::Moment;
use crate::name::Name;
use crate::row::{Attribute, Row};
use crate::store::ledger::Token;

use super::executor::{Applied, Change, Plan, Reason};
use super::idempotency::Once;
use super::policy::{Rotation, goes_on};
use super::put::{Put, Stored, Value};
use super::rewrap::sealed_under;
use super::{Coffer, not_found};

impl Coffer {
    /// What becomes of a policy: a new version, if it is due or `now` is asked for and the name
    /// has a version to follow. It has the comment of that one, and its context unless the policy
    /// has one.
    pub(super) async fn plan_renew(&self, rotation: &Rotation, now: bool) -> Result<Plan, Error> {
        if !now && rotation.due.is_none_or(|due| due > Moment::now()) {
            return Ok(Plan::Skip);
        }
        if !rotation.rules.is_strong() {
            return Ok(Plan::Fail(Reason::Weak));
        }
        let store = self.ledger()?;
        let name = &rotation.name;
        // The end of the chain first, as in every put.
        let tail = store.tail(name).await?;
        let mut row = store.described(name).await?;
        if may_be_partial(&tail, row.as_ref().and_then(Top::of).as_ref(), Moment::now()) {
            Backoff::default().wait().await?;
            row = store.described(name).await?;
        }
        // Deleted, it waits: restored, it is made up for once.
        let Some(row) = row else { return Ok(Plan::Skip) };
        let top = Top::of(&row);
        // An expired version counts as deleted. By hand, the error says what to do.
        if !now && top.as_ref().is_some_and(|top| top.has_expired(Moment::now())) {
            return Ok(Plan::Skip);
        }
        if !rotation.is_of(&tail) || !goes_on(store, name, &tail, top.as_ref()).await? {
            return Ok(Plan::Fail(Reason::Suspended));
        }
        Ok(next(rotation, &row))
    }

    /// Renews a name by its policy, whether that is due or not; in a dry run, tells whether it
    /// could be. With a token it is done once in 24 hours.
    ///
    /// # Errors
    /// [`Error::NotFound`] without a policy, or without a version to follow;
    /// [`Error::Suspended`]; [`Error::Invalid`] where the context is not known, the policy allows
    /// too few values or the value is JSON without a template for it; [`Error::Renewed`]; and as
    /// [`Coffer::put`].
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
        // What was answered once is answered again, even if it could not be done any more.
        if let (Some(token), false) = (&token, dry_run)
            && let Some(stored) = Once::of_renewal(token, name).answer(self.ledger()?).await?
        {
            return Ok(stored.into_iter().next());
        }
        let rotation = self.rotation(name).await?;
        let put = match self.plan_renew(&rotation, true).await? {
            Plan::Change(Change::Renew(put)) => *put,
            Plan::Fail(reason) => return Err(refused(reason)),
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

/// The put that follows this row.
fn next(rotation: &Rotation, row: &Row) -> Plan {
    // A template for text would let whoever puts the policy decide the whole value.
    let json = row.get("json").is_some_and(Attribute::is_set);
    if json != rotation.rules.template().is_some() {
        return Plan::Fail(Reason::Json);
    }
    let context = rotation.context.clone().or_else(|| sealed_under(row));
    let Some(context) = context else { return Plan::Fail(Reason::Context) };
    Plan::Change(Change::Renew(Box::new(Put {
        name: rotation.name.clone(),
        value: Value::Generated(rotation.rules.clone()),
        context,
        comment: row.get("comment").and_then(Attribute::text).map(str::to_owned),
        expiry: None,
        version: None,
    })))
}

/// The error for a renewal by hand that cannot be done.
fn refused(reason: Reason) -> Error {
    match reason {
        Reason::Weak => weak_policy(),
        Reason::Suspended => Error::Suspended,
        Reason::Json => Error::invalid(
            "The value and the policy do not match: a JSON object is renewed by a policy with \
             `generate.template` and `generate.key`, any other value by one without. Put the \
             policy again to match. If the value is a JSON object that was put before this \
             release, put it again first.",
        ),
        _ => Error::invalid(
            "The newest version is a legacy row, which does not say its encryption context. Give \
             the policy a `context`, or rotate the name with action reseal.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use crate::generate::Rules;
    use crate::schedule::Schedule;
    use crate::template::Template;

    fn rotation(template: Option<&str>) -> Rotation {
        let template =
            template.map(|text| Template::new(text.to_owned(), "password".to_owned()).unwrap());
        let rules = Rules::plain().unwrap().within(template);
        let schedule = Schedule::every(1).unwrap();
        let context = Some(Context::default());
        Rotation::new("n".parse().unwrap(), schedule, rules, context).unwrap()
    }

    #[test]
    fn a_value_that_is_json_needs_a_template() {
        let text = Row::from([("comment".to_owned(), Attribute::Text("why".to_owned()))]);
        let mut json = text.clone();
        json.insert("json".to_owned(), Attribute::Flag(true));
        let reason = |template, row: &Row| match next(&rotation(template), row) {
            Plan::Fail(reason) => Some(reason),
            Plan::Change(_) | Plan::Skip => None,
        };
        assert_eq!(reason(None, &json), Some(Reason::Json));
        assert_eq!(reason(Some("{}"), &json), None);
        assert_eq!(reason(None, &text), None);
        assert_eq!(reason(Some("{}"), &text), Some(Reason::Json));
        json.insert("json".to_owned(), Attribute::Flag(false));
        assert_eq!(reason(None, &json), None);
    }

    #[test]
    fn what_is_refused_by_hand_says_what_to_do() {
        for (reason, code, advice) in [
            (Reason::Weak, "Invalid", "64 bits"),
            (Reason::Suspended, "Exists", "Put the policy again"),
            (Reason::Json, "Invalid", "`generate.template`"),
            (Reason::Context, "Invalid", "`context`"),
        ] {
            let error = refused(reason);
            assert_eq!(error.code().name, code);
            assert!(error.to_string().contains(advice), "{error}");
        }
    }
}
