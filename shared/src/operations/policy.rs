//! policy: puts, gets or cancels the rotation policy of a name.

use std::collections::BTreeMap;

use crate::audit_chain::{Caller, ChainHead, EventKind, NameState, NewEvent, NewestVersion};
use crate::backoff::Backoff;
use crate::encryption_context::EncryptionContext;
use crate::error::Error;
use crate::fields::Fields;
use crate::generate::{GenerateRules, Shown};
use crate::life::{HighestVersion, state_after_put};
use crate::name::Name;
use crate::request::Response;
use crate::schedule::Schedule;
use crate::store::policies::{self, Replaces};
use crate::store::transaction::{Committed, Transaction};
use crate::timestamp::Timestamp;

use super::errors::not_found;
use super::name_state::{self, life_continues};
use super::rotation_policy::{RotationPolicy, no_policy};
use super::{Coffer, Operation};

/// A request about a rotation policy.
#[derive(Debug)]
pub enum Policy {
    /// Puts the policy.
    Put(Box<RotationPolicy>),
    /// Gets the policy of a name.
    Get(Name),
    /// Cancels the policy of a name.
    Cancel(Name),
}

/// A response of policy.
#[derive(Debug)]
pub enum PolicyOutput {
    /// The policy.
    Policy(Box<RotationPolicy>),
    /// The name whose policy was canceled.
    Canceled(Name),
}

impl Operation for Policy {
    const NAME: &'static str = "policy";

    type Output = PolicyOutput;

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let methods = [("PUT", "put"), ("GET", "get"), ("DELETE", "cancel")];
        match fields.verb("policy", &methods)?.as_deref() {
            Some("put") => parse_policy(fields).map(Box::new).map(Self::Put),
            Some("get") => fields.required("name").map(Self::Get),
            Some("cancel") => fields.required("name").map(Self::Cancel),
            _ => Err(Error::invalid("`policy` must be put, get or cancel.")),
        }
    }

    fn name(&self) -> Option<&Name> {
        match self {
            Self::Put(policy) => Some(&policy.name),
            Self::Get(name) | Self::Cancel(name) => Some(name),
        }
    }

    fn writes(&self) -> bool {
        matches!(self, Self::Put(_) | Self::Cancel(_))
    }

    /// Puts, gets or cancels the policy.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no policy or, for a put, no version; [`Error::Expired`] if
    /// the newest version has expired; [`Error::Malformed`] for a policy that cannot be read;
    /// [`Error::UnreadableChain`]; [`Error::Unavailable`].
    async fn apply(self, coffer: &Coffer, caller: &Caller) -> Result<PolicyOutput, Error> {
        match self {
            Self::Put(policy) => {
                let policy = coffer.put_policy(*policy, caller).await?;
                Ok(PolicyOutput::Policy(Box::new(policy)))
            }
            Self::Get(name) => {
                let policy = coffer.policy(&name).await?;
                Ok(PolicyOutput::Policy(Box::new(policy)))
            }
            Self::Cancel(name) => {
                coffer.cancel_policy(&name, caller).await?;
                Ok(PolicyOutput::Canceled(name))
            }
        }
    }

    fn respond(output: PolicyOutput) -> Result<Response, Error> {
        match output {
            PolicyOutput::Policy(policy) => Response::json(&PolicyResponse::of(&policy)),
            PolicyOutput::Canceled(name) => Response::json(&BTreeMap::from([("name", name)])),
        }
    }
}

fn parse_policy(fields: &mut Fields) -> Result<RotationPolicy, Error> {
    let name: Name = fields.required("name")?;
    let (text, days) = (fields.text("schedule")?, fields.number("days")?);
    let zone = fields.text("timezone")?;
    let schedule = match (text, days) {
        (Some(text), None) => Schedule::new(&text, zone.as_deref())?,
        (None, Some(days)) if zone.is_none() => Schedule::every(days)?,
        _ => {
            return Err(Error::invalid(
                "Give one of `schedule` and `days`. `timezone` requires a `cron` schedule.",
            ));
        }
    };
    let rules = match fields.rules()? {
        Some(rules) => rules,
        None => GenerateRules::plain()?,
    };
    let context = fields.optional_context("context")?;
    RotationPolicy::new(name, schedule, rules, context)
}

/// A policy, as JSON.
#[derive(serde::Serialize)]
struct PolicyResponse<'a> {
    name: &'a str,
    schedule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<&'a str>,
    generate: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_rotation_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_rotated_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    suspended: bool,
}

impl<'a> PolicyResponse<'a> {
    fn of(policy: &'a RotationPolicy) -> Self {
        Self {
            name: policy.name.as_str(),
            schedule: policy.schedule.as_str(),
            timezone: policy.schedule.zone(),
            generate: policy.rules.shown(),
            context: policy.context.as_ref().map(EncryptionContext::pairs),
            next_rotation_at: policy.due.filter(|_| !policy.suspended),
            last_rotated_at: policy.renewed_at,
            suspended: policy.suspended,
        }
    }
}

impl Coffer {
    /// Puts a policy in place of any existing one. A policy that requests the same changes nothing,
    /// and one with the same schedule keeps the time that is due. If the existing policy is
    /// suspended, neither applies: the new one belongs to the current life of the name.
    async fn put_policy(
        &self,
        requested: RotationPolicy,
        caller: &Caller,
    ) -> Result<RotationPolicy, Error> {
        let stores = self.stores()?;
        let mut requested = requested;
        let mut backoff = Backoff::default();
        loop {
            let (entry, (head, top)) = tokio::try_join!(
                stores.ledger.policy(requested.name.as_str()),
                name_state::read(stores, &requested.name)
            )?;
            let Some(top) = top else { return Err(not_found()) };
            if top.has_expired(Timestamp::now()) {
                return Err(Error::Expired);
            }
            let continues = life_continues(stores, &requested.name, &head, Some(&top)).await?;
            let known = entry.as_ref().and_then(RotationPolicy::of);
            if let Some(known) = known.filter(|known| continues && known.belongs_to(&head)) {
                if known.requests_the_same(&requested) {
                    return Ok(unchanged(&known, requested));
                }
                requested.renewed_at = known.renewed_at;
                if known.schedule == requested.schedule {
                    requested.due = known.due;
                }
            }
            requested.sequence = head.sequence + 1;
            let (life, newest) = life_of(&head, top, continues);
            requested.life = Some(life);
            let mut transaction = Transaction::default();
            let replaces = Replaces::read(entry.as_ref());
            stores.ledger.put_policy(&mut transaction, requested.to_row(), replaces);
            let event = event(EventKind::Policy, state_after_put(&head, continues), newest);
            match self.record(transaction, &requested.name, &head, &event, caller).await? {
                Committed::Done => return Ok(requested),
                Committed::Refused(_) | Committed::Conflict => backoff.wait().await?,
            }
        }
    }

    /// Returns the policy of a name, and whether it is suspended.
    async fn policy(&self, name: &Name) -> Result<RotationPolicy, Error> {
        let stores = self.stores()?;
        let (policy, (head, top)) = tokio::try_join!(
            RotationPolicy::read(stores.ledger, name),
            name_state::read(stores, name)
        )?;
        let active =
            policy.belongs_to(&head) && life_continues(stores, name, &head, top.as_ref()).await?;
        Ok(RotationPolicy { suspended: !active, ..policy })
    }

    /// Cancels the policy of a name: the name is no longer renewed.
    async fn cancel_policy(&self, name: &Name, caller: &Caller) -> Result<(), Error> {
        let ledger = self.ledger()?;
        let mut backoff = Backoff::default();
        loop {
            let (entry, head) =
                tokio::try_join!(ledger.policy(name.as_str()), ledger.chain_head(name))?;
            let entry = entry.filter(|row| !policies::is_canceled(row)).ok_or_else(no_policy)?;
            let mut transaction = Transaction::default();
            let row = policies::canceled(name.as_str(), head.sequence + 1, Timestamp::now());
            ledger.put_policy(&mut transaction, row, Replaces::read(Some(&entry)));
            let event = event(EventKind::Cancel, head.state, NewestVersion::Unchanged);
            match self.record(transaction, name, &head, &event, caller).await? {
                Committed::Done => return Ok(()),
                Committed::Refused(_) | Committed::Conflict => backoff.wait().await?,
            }
        }
    }
}

/// Returns the life that a new policy belongs to, and what its event records. If another client has
/// put the name again, this event is the first to record it. A life without a number gets one, so
/// that the policy can belong to it.
fn life_of(head: &ChainHead, top: HighestVersion, continues: bool) -> (u64, NewestVersion) {
    if continues && !head.is_unnumbered() {
        (head.life, NewestVersion::Is(top.identity))
    } else {
        (head.sequence + 1, NewestVersion::BeginsLife(top.identity))
    }
}

fn unchanged(known: &RotationPolicy, requested: RotationPolicy) -> RotationPolicy {
    let RotationPolicy { due, renewed_at, sequence, .. } = *known;
    RotationPolicy { due, renewed_at, sequence, ..requested }
}

fn event(kind: EventKind, state: NameState, newest: NewestVersion) -> NewEvent {
    NewEvent { kind, versions: Vec::new(), forced: false, state, recoverable_until: None, newest }
}
