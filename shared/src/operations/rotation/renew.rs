//! renew: gives a secret with a rotation policy a generated value as its next version.

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::audit_chain::Caller;
use crate::error::Error;
use crate::fields::Fields;
use crate::generate::weak_policy_error;
use crate::hash;
use crate::life::HighestVersion;
use crate::name::Name;
use crate::row::{Attribute, Row};
use crate::store::item::Key;
use crate::store::ledger::Part;
use crate::store::policies::{self, is_canceled};
use crate::store::progress::{Progress, RunFailure};
use crate::store::runs::Run;
use crate::store::scan::Stores;
use crate::store::tokens::Token;
use crate::timestamp::Timestamp;

use super::super::Coffer;
use super::super::errors::not_found;
use super::super::name_state::{self, life_continues};
use super::super::put::idempotency::IdempotentRequest;
use super::super::put::{NewVersion, Value};
use super::super::rotation_policy::RotationPolicy;
use super::action::{Action, Reason};
use super::checkpoint::Checkpoint;
use super::plan::{
    Applied, Item, ItemPage, Job, Outcome, Plan, Planned, Rotation, failure_of_name, short_mark,
};
use super::request::{OneName, RenewedName, RotationFunction, RotationOutput};
use super::rewrap::sealed_context;

/// The action renew.
#[derive(Debug)]
pub struct Renew;

/// The entry of a policy.
pub enum PolicyEntry {
    /// A policy.
    Policy(Box<RotationPolicy>),
    /// One that cannot be read, by its sort key.
    UnreadableChain(String),
}

impl Rotation for Renew {
    const ACTION: Action = Action::Renew;
    const HAS_PARTS: bool = false;

    type Item = PolicyEntry;
    type Change = NewVersion;

    fn list_page<'a>(
        job: &'a Job<'a>,
        _: Part,
        progress: &'a Progress,
        limit: i32,
    ) -> BoxFuture<'a, Result<ItemPage<PolicyEntry>, Error>> {
        Box::pin(async move {
            let after = progress.after.clone().map(|key| key.version);
            let (rows, next) = job.stores.ledger.policies(after, limit).await?;
            let next = next.map(|version| Key { name: String::new(), version });
            let items = rows.iter().map(PolicyEntry::of).collect();
            Ok(ItemPage { items, next, last_location: true })
        })
    }

    fn plan<'a>(
        job: &'a Job<'a>,
        entry: &'a PolicyEntry,
    ) -> BoxFuture<'a, Result<Plan<NewVersion>, Error>> {
        Box::pin(async move {
            match entry {
                PolicyEntry::Policy(policy) => plan(job.stores, policy, false).await,
                PolicyEntry::UnreadableChain(_) => Ok(Plan::Fail(Reason::UnreadableChain)),
            }
        })
    }

    /// Returns a mark of the name: a policy that was to be renewed and is no longer due was renewed.
    fn mark(entry: &PolicyEntry, _: Option<&NewVersion>) -> String {
        short_mark(&match entry {
            PolicyEntry::Policy(policy) => hash::of_parts([policy.name.as_str()]),
            PolicyEntry::UnreadableChain(entry) => hash::of_parts([entry.as_str()]),
        })
    }

    fn apply<'a>(
        job: &'a Job<'a>,
        changes: Vec<Planned<Self>>,
    ) -> BoxFuture<'a, Result<Vec<Applied<Self>>, Error>> {
        Box::pin(async move {
            let mut applied = Vec::new();
            for Planned { item, change, mark } in changes {
                let outcome = match &item {
                    PolicyEntry::Policy(policy) => {
                        let outcome = renew(job, policy, change).await;
                        outcome.or_else(|error| job.reason(error).map(Outcome::Failed))?
                    }
                    PolicyEntry::UnreadableChain(_) => Outcome::Skipped,
                };
                applied.push(Applied { item, mark, outcome });
            }
            Ok(applied)
        })
    }

    fn reread<'a>(
        job: &'a Job<'a>,
        entry: &'a PolicyEntry,
    ) -> BoxFuture<'a, Result<Option<PolicyEntry>, Error>> {
        Box::pin(async move {
            let row = job.stores.ledger.policy(entry.name()).await?;
            Ok(row.filter(|row| !is_canceled(row)).as_ref().map(PolicyEntry::of))
        })
    }

    /// Does nothing: policies do not move.
    fn recheck<'a>(
        _: &'a Job<'a>,
        _: &'a Run,
        _: Part,
        mut checkpoint: Checkpoint<'a>,
        _: Instant,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { checkpoint.finish_names(None).await })
    }
}

impl PolicyEntry {
    fn of(row: &Row) -> Self {
        let entry = row.get("entry").and_then(Attribute::text).unwrap_or_default().to_owned();
        let policy = RotationPolicy::of(row).map(Box::new);
        policy.map_or(Self::UnreadableChain(entry), Self::Policy)
    }
}

impl Item for PolicyEntry {
    fn name(&self) -> &str {
        match self {
            Self::Policy(policy) => policy.name.as_str(),
            Self::UnreadableChain(entry) => policies::name_of(entry).unwrap_or_default(),
        }
    }

    fn failure(&self, reason: Reason) -> RunFailure {
        failure_of_name(self.name(), reason)
    }
}

/// Plans the renewal of a policy: a new version, if the policy is due or `now` is requested, and the
/// name has a version.
async fn plan(
    stores: Stores<'_>,
    policy: &RotationPolicy,
    now: bool,
) -> Result<Plan<NewVersion>, Error> {
    if !now && policy.due.is_none_or(|due| due > Timestamp::now()) {
        return Ok(Plan::Skip);
    }
    if !policy.rules.is_strong() {
        return Ok(Plan::Fail(Reason::Weak));
    }
    let (head, row) = name_state::read_described(stores, &policy.name).await?;
    // A deleted secret waits. When it is restored, it is renewed once.
    let Some(row) = row else { return Ok(Plan::Skip) };
    let top = HighestVersion::of(&row);
    // An expired version counts as deleted. For one name, the error says what to do.
    if !now && top.as_ref().is_some_and(|top| top.has_expired(Timestamp::now())) {
        return Ok(Plan::Skip);
    }
    if !policy.belongs_to(&head)
        || !life_continues(stores, &policy.name, &head, top.as_ref()).await?
    {
        return Ok(Plan::Fail(Reason::PolicySuspended));
    }
    Ok(next(policy, &row))
}

/// Plans the version that follows this row. It has the comment of the row, and its context unless
/// the policy has one.
fn next(policy: &RotationPolicy, row: &Row) -> Plan<NewVersion> {
    // A template for a text would let whoever puts the policy choose the whole value.
    let json = row.get("json").is_some_and(Attribute::is_set);
    if json != policy.rules.template().is_some() {
        return Plan::Fail(Reason::Json);
    }
    let context = policy.context.clone().or_else(|| sealed_context(row));
    let Some(context) = context else { return Plan::Fail(Reason::EncryptionContext) };
    Plan::Change(NewVersion {
        name: policy.name.clone(),
        value: Value::Generated(policy.rules.clone()),
        context,
        comment: row.get("comment").and_then(Attribute::text).map(str::to_owned),
        expiry: None,
        version: None,
    })
}

/// Puts the new version and, in the same transaction, when the policy is due next.
async fn renew(
    job: &Job<'_>,
    policy: &RotationPolicy,
    version: NewVersion,
) -> Result<Outcome, Error> {
    let versions = vec![version];
    let written = job.coffer.write_versions(versions, None, Some(policy), job.caller);
    match Box::pin(written).await {
        Ok(_) => Ok(Outcome::Changed),
        // Renewed, given another policy, or deleted since it was read.
        Err(Error::Renewed | Error::NotFound(_)) => Ok(Outcome::Skipped),
        Err(error) => Err(error),
    }
}

impl RotationFunction for Renew {
    type OneName = RenewName;
}

/// A request to renew one name at once, whether its policy is due or not.
#[derive(Debug)]
pub struct RenewName {
    name: Name,
    dry_run: bool,
    token: Option<Token>,
}

impl OneName for RenewName {
    fn parse(name: Name, fields: &mut Fields) -> Result<Self, Error> {
        Ok(Self { name, dry_run: fields.flag("dry_run")?, token: fields.parsed("token")? })
    }

    fn name(&self) -> &Name {
        &self.name
    }

    /// Renews the name. A dry run checks only whether it could be renewed. With a token, the request
    /// is done once in 24 hours.
    ///
    /// # Errors
    /// [`Error::NotFound`] without a policy or a version; [`Error::PolicySuspended`]; [`Error::Invalid`]
    /// if the context is not known, the policy allows too few values, or policy and value do not
    /// match; [`Error::Renewed`]; and as put.
    fn apply<'a>(
        self,
        coffer: &'a Coffer,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<RotationOutput, Error>> {
        Box::pin(async move {
            let Self { name, dry_run, token } = self;
            // A name that breaks the rules has no policy.
            name.check()?;
            coffer.limit_rate_of_one();
            let stores = coffer.stores()?;
            // The earlier response counts even if the request could no longer be done.
            if let (Some(token), false) = (&token, dry_run) {
                let request = IdempotentRequest::renewal(token, &name);
                if let Some(earlier) = request.earlier(stores.ledger).await? {
                    let version = earlier.into_iter().next();
                    return Ok(RotationOutput::Renewed(RenewedName::of(name, dry_run, version)));
                }
            }
            let policy = RotationPolicy::read(stores.ledger, &name).await?;
            let version = match plan(stores, &policy, true).await? {
                Plan::Change(version) => version,
                Plan::Fail(reason) => return Err(refused(reason)),
                Plan::Skip => return Err(not_found()),
            };
            let mut written = Vec::new();
            if !dry_run {
                let versions = vec![version];
                written = coffer.write_versions(versions, token, Some(&policy), caller).await?;
            }
            let version = written.into_iter().next();
            Ok(RotationOutput::Renewed(RenewedName::of(name, dry_run, version)))
        })
    }
}

/// The error for one name that cannot be renewed.
fn refused(reason: Reason) -> Error {
    match reason {
        Reason::Weak => weak_policy_error(),
        Reason::PolicySuspended => Error::PolicySuspended,
        Reason::Json => Error::invalid(
            "The value and the policy do not match: a JSON object requires a policy with \
             `generate.template` and `generate.key`, any other value one without. Put the policy \
             again to match. If the value is a JSON object that an earlier release put, put the \
             value again first.",
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
    use crate::encryption_context::EncryptionContext;
    use crate::generate::GenerateRules;
    use crate::schedule::Schedule;
    use crate::template::Template;

    fn policy(template: Option<&str>) -> RotationPolicy {
        let template =
            template.map(|text| Template::new(text.to_owned(), "password".to_owned()).unwrap());
        let rules = GenerateRules::plain().unwrap().within(template);
        let schedule = Schedule::every(1).unwrap();
        let context = Some(EncryptionContext::default());
        RotationPolicy::new("n".parse().unwrap(), schedule, rules, context).unwrap()
    }

    #[test]
    fn a_json_value_requires_a_template() {
        let text = Row::from([("comment".to_owned(), Attribute::Text("why".to_owned()))]);
        let mut json = text.clone();
        json.insert("json".to_owned(), Attribute::Flag(true));
        let reason = |template, row: &Row| match next(&policy(template), row) {
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
    fn a_refused_renewal_says_what_to_do() {
        for (reason, code, advice) in [
            (Reason::Weak, "Invalid", "64 bits"),
            (Reason::PolicySuspended, "Exists", "Put the policy again"),
            (Reason::Json, "Invalid", "`generate.template`"),
            (Reason::EncryptionContext, "Invalid", "`context`"),
        ] {
            let error = refused(reason);
            assert_eq!(error.code().name, code);
            assert!(error.to_string().contains(advice), "{error}");
        }
    }
}
