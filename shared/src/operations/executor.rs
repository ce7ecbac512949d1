//! What a rotation does with some versions or policies: all is planned, which takes KMS, then
//! written, which takes DynamoDB.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{StreamExt, TryStreamExt, iter};

use crate::backoff::Backoff;
use crate::chain::Caller;
use crate::digest;
use crate::envelope::wrapped_key;
use crate::error::Error;
use crate::moment::Moment;
use crate::row::{Attribute, Row};
use crate::store::Key;
use crate::store::policy::is_cancelled;
use crate::store::run::{Progress, RunFailure};
use crate::store::scan::{Location, Projection, ScannedVersion};

use super::Coffer;
use super::legacy_hints::LegacyHints;
use super::policy::Rotation;
use super::put::Put;
use super::reseal::batch;

/// What is rotated, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Data keys are wrapped anew.
    Rewrap,
    /// Legacy rows are given a seal.
    Reseal,
    /// Values are generated anew, where a policy says so.
    Renew,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rewrap, Self::Reseal, Self::Renew];

    /// The action as it is asked for and answered.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rewrap => "rewrap",
            Self::Reseal => "reseal",
            Self::Renew => "renew",
        }
    }

    pub(super) fn view(self) -> Projection {
        match self {
            Self::Rewrap => Projection::WrappedKey,
            Self::Reseal | Self::Renew => Projection::Whole,
        }
    }
}

impl std::str::FromStr for Action {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|action| action.as_str() == text);
        found.ok_or(Error::invalid("`action` is rewrap, reseal or renew."))
    }
}

/// Why something was left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// KMS takes none of the contexts that are known.
    Context,
    /// The seal or MAC does not hold, or KMS does not take what a sealed row carries.
    Integrity,
    /// It is no row of any client.
    Malformed,
    /// Neither the stack's key nor a retired one wrapped its data key.
    Foreign,
    /// It may be two dialects', and nothing in it says which.
    Ambiguous,
    /// It cannot be of the dialect that was named for it.
    Dialect,
    /// It has what only sealed rows have, but no seal.
    Stripped,
    /// It has no seal, and the stack refuses such rows.
    Unsealed,
    /// It has an attribute that no seal covers, or one of another type than Coffer reads.
    Unsealable,
    /// With a seal it would not fit an item.
    TooLarge,
    /// No version can follow the highest one, or the padded number of a version is taken.
    Exists,
    /// With its number padded, another version would be current.
    Order,
    /// Others kept changing it, or moving versions of the name, as often as it was tried.
    Moving,
    /// The ledger's record of the name, or its policy, cannot be read.
    Unreadable,
    /// The request that its policy makes is refused.
    Invalid,
    /// Its policy allows too few values.
    Weak,
    /// Its policy belongs to an earlier life of the name.
    Suspended,
    /// Its newest version is JSON, and its policy has no template.
    Json,
    /// KMS does not allow it to the function; perhaps only under this version's context.
    Denied,
}

impl Reason {
    /// The reason as it is answered.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Integrity => "integrity",
            Self::Malformed => "malformed",
            Self::Foreign => "foreign",
            Self::Ambiguous => "ambiguous",
            Self::Dialect => "dialect",
            Self::Stripped => "stripped",
            Self::Unsealed => "unsealed",
            Self::Unsealable => "unsealable",
            Self::TooLarge => "too-large",
            Self::Exists => "exists",
            Self::Order => "order",
            Self::Moving => "moving",
            Self::Unreadable => "unreadable",
            Self::Invalid => "invalid",
            Self::Weak => "weak",
            Self::Suspended => "suspended",
            Self::Json => "json",
            Self::Denied => "denied",
        }
    }

    /// What an error says of one name; none where it is none of the name's.
    pub(super) fn of(error: &Error) -> Option<Self> {
        match error {
            Error::Unavailable { .. } | Error::Several(_) => None,
            Error::Exists(_) | Error::Renewed => Some(Self::Exists),
            Error::Suspended => Some(Self::Suspended),
            Error::TooLarge(_) => Some(Self::TooLarge),
            Error::Unreadable => Some(Self::Unreadable),
            Error::Foreign => Some(Self::Foreign),
            Error::Integrity | Error::Unsealed | Error::Expired => Some(Self::Integrity),
            Error::Malformed(_) => Some(Self::Malformed),
            Error::Invalid(_) | Error::Forbidden(_) | Error::NotFound(_) => Some(Self::Invalid),
        }
    }
}

/// What is to be rotated.
#[derive(Debug)]
pub(super) enum Unit {
    Version(ScannedVersion),
    Policy(Box<Rotation>),
    /// A policy's entry that cannot be read, by its sort key.
    Unread(String),
}

/// What is to be done with it.
pub(super) enum Plan {
    Skip,
    Fail(Reason),
    Change(Change),
}

/// What it becomes.
pub(super) enum Change {
    /// The same row with this wrapped key.
    Key(Vec<u8>),
    /// This row.
    Row(Row),
    /// A new version.
    Renew(Box<Put>),
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    Changed,
    /// Somebody else has changed it since it was read.
    Crossed,
    Skipped,
    Failed(Reason),
}

/// How the work is to be done.
pub(super) struct Job<'a> {
    pub(super) action: Action,
    pub(super) dry_run: bool,
    pub(super) hints: &'a LegacyHints,
    pub(super) caller: &'a Caller,
    /// Whether it goes over everything: then what KMS denies of one name does not stop the rest.
    pub(super) whole: bool,
}

impl Job<'_> {
    /// Why one was left, if the error is its own.
    fn reason(&self, error: Error) -> Result<Reason, Error> {
        if let Some(reason) = Reason::of(&error) {
            return Ok(reason);
        }
        if self.whole && error.is_denied_by_kms() {
            return Ok(Reason::Denied);
        }
        Err(error)
    }
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// Versions, or policies, that were changed.
    pub changed: u64,
    /// Those that were left because there was nothing to change.
    pub skipped: u64,
    /// What was left as it is, and why.
    pub failures: Vec<RunFailure>,
}

impl Tally {
    /// How many were looked at: each is one of the three.
    pub(super) fn seen(&self) -> u64 {
        self.changed + self.skipped + self.failures.len() as u64
    }
}

/// What came of the contexts that were tried in vain.
#[derive(Default)]
pub(super) struct InVain {
    /// Whether KMS refused one: it was looked at, and is not the one.
    pub(super) refused: bool,
    denied: Option<Error>,
}

impl InVain {
    /// Goes on with the next context where KMS does not allow this one.
    pub(super) fn failed(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_denied_by_kms() {
            return Err(error);
        }
        self.denied = Some(error);
        Ok(())
    }

    /// What becomes of the version: the reason holds unless nothing but denials was answered.
    pub(super) fn plan(self, reason: Reason) -> Result<Plan, Error> {
        match self.denied {
            Some(error) if !self.refused => Err(error),
            _ => Ok(Plan::Fail(reason)),
        }
    }
}

/// Where marks of a page's changes are noted before any of them is written.
pub(super) struct Intents<'a> {
    pub(super) run: &'a str,
    pub(super) part: &'a str,
    pub(super) progress: &'a mut Progress,
    /// Marks of changes that were begun and are not counted yet.
    pub(super) uncounted: &'a mut BTreeSet<String>,
    pub(super) ttl: Option<Moment>,
}

impl Coffer {
    /// How many are planned or written at a time.
    const AT_ONCE: usize = 16;
    /// How often something is read again that others keep changing.
    pub(super) const CROSSED: u32 = 20;

    /// Rotates some units. With intents, what an interrupted try at the same page has changed
    /// counts as changed; none if another has written the part's progress meanwhile.
    pub(super) async fn work(
        &self,
        job: &Job<'_>,
        units: Vec<Unit>,
        mut intents: Option<Intents<'_>>,
    ) -> Result<Option<Tally>, Error> {
        let (mut tally, mut units, mut backoff) = (Tally::default(), units, Backoff::default());
        // Of an interrupted try, or of this one where nobody keeps them.
        let inherited = intents.as_ref().map(|some| some.uncounted.clone()).unwrap_or_default();
        let mut own = BTreeSet::new();
        for tries in 0..Self::CROSSED {
            if units.is_empty() {
                return Ok(Some(tally));
            }
            if tries > 0 {
                backoff.wait().await?;
            }
            let planned: Vec<(Unit, Plan)> = iter(units)
                .map(|unit| async move {
                    let plan = Box::pin(self.plan(job, &unit)).await?;
                    Ok::<_, Error>((unit, plan))
                })
                .buffered(Self::AT_ONCE)
                .try_collect()
                .await?;
            let uncounted = intents.as_mut().map_or(&mut own, |some| &mut *some.uncounted);
            let (mut changes, mut marks) = (Vec::new(), BTreeSet::new());
            for (unit, plan) in planned {
                match plan {
                    // Begun, and interrupted before it was counted.
                    Plan::Skip if uncounted.remove(&unit.mark(None)) => tally.changed += 1,
                    Plan::Skip => tally.skipped += 1,
                    Plan::Fail(reason) => tally.failures.push(unit.failure(reason)),
                    Plan::Change(_) if job.dry_run => tally.changed += 1,
                    Plan::Change(change) => {
                        marks.insert(unit.mark(Some(&change)));
                        changes.push((unit, change));
                    }
                }
            }
            if changes.is_empty() {
                return Ok(Some(tally));
            }
            uncounted.extend(marks.iter().cloned());
            if let Some(Intents { run, part, progress, ttl, .. }) = &mut intents {
                progress.marks.extend(marks);
                if !self.ledger()?.advance(run, part, progress, &[], *ttl).await? {
                    return Ok(None);
                }
            }
            let groups: Vec<Vec<(Unit, String, Applied)>> = iter(grouped(changes))
                .map(|group| Box::pin(self.apply(job, group)))
                .buffer_unordered(Self::AT_ONCE)
                .try_collect()
                .await?;
            units = Vec::new();
            for (unit, mark, applied) in groups.into_iter().flatten() {
                // One that was crossed may yet turn out to be done, where its answer was lost.
                if applied != Applied::Crossed {
                    let uncounted = intents.as_mut().map_or(&mut own, |some| &mut *some.uncounted);
                    uncounted.remove(&mark);
                }
                match applied {
                    Applied::Changed => tally.changed += 1,
                    // Begun by an interrupted try, and done by it since.
                    Applied::Skipped if inherited.contains(&mark) => tally.changed += 1,
                    Applied::Skipped => tally.skipped += 1,
                    Applied::Failed(reason) => tally.failures.push(unit.failure(reason)),
                    Applied::Crossed => {
                        if let Some(unit) = self.again(job, unit).await? {
                            units.push(unit);
                        } else {
                            tally.skipped += 1;
                        }
                    }
                }
            }
        }
        if units.is_empty() {
            return Ok(Some(tally));
        }
        if job.whole {
            tally.failures.extend(units.iter().map(|unit| unit.failure(Reason::Moving)));
            return Ok(Some(tally));
        }
        Err(Error::Unavailable {
            message: "Others keep changing the same versions. Try again.".into(),
            source: "rows were changed at every try".into(),
        })
    }

    async fn plan(&self, job: &Job<'_>, unit: &Unit) -> Result<Plan, Error> {
        let plan = match (job.action, unit) {
            (Action::Rewrap, Unit::Version(found)) => self.plan_rewrap(found, job.hints).await,
            (Action::Reseal, Unit::Version(found)) => {
                self.plan_reseal(found, job.hints, job.dry_run).await
            }
            (Action::Renew, Unit::Policy(rotation)) => self.plan_renew(rotation, false).await,
            _ => Ok(Plan::Fail(Reason::Unreadable)),
        };
        plan.or_else(|error| job.reason(error).map(Plan::Fail))
    }

    /// Writes the changes of one name, one after the other.
    async fn apply(
        &self,
        job: &Job<'_>,
        group: Vec<(Unit, Change)>,
    ) -> Result<Vec<(Unit, String, Applied)>, Error> {
        let (mut done, mut rows, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        let mut marks = BTreeMap::new();
        for (unit, change) in group {
            let mark = unit.mark(Some(&change));
            let applied = match (&unit, change) {
                (Unit::Version(found), Change::Row(row)) => {
                    marks.insert((found.home, found.key().version), mark);
                    let renumbered = row.get("version").and_then(Attribute::text);
                    if renumbered.is_some_and(|version| version != found.label.as_str()) {
                        moved.push((found.clone(), row));
                    } else {
                        rows.push((found.clone(), row));
                    }
                    continue;
                }
                (Unit::Version(found), Change::Key(wrapped)) => {
                    match self.ledger()?.set_key(found, &wrapped).await {
                        Ok(true) => Applied::Changed,
                        Ok(false) => Applied::Crossed,
                        Err(error) => Applied::Failed(job.reason(error)?),
                    }
                }
                (Unit::Policy(rotation), Change::Renew(put)) => {
                    let renewed = self.apply_renew(rotation, *put, job.caller).await;
                    renewed.or_else(|error| job.reason(error).map(Applied::Failed))?
                }
                _ => Applied::Skipped,
            };
            done.push((unit, mark, applied));
        }
        let mut written = self.apply_rows(job, rows).await?;
        written.extend(self.apply_moved(job, moved).await?);
        done.extend(written.into_iter().map(|(found, done)| {
            let mark = marks.remove(&(found.home, found.key().version));
            (Unit::Version(found), mark.unwrap_or_default(), done)
        }));
        Ok(done)
    }

    /// Writes resealed rows of one name where they lie, some at a time.
    async fn apply_rows(
        &self,
        job: &Job<'_>,
        mut rows: Vec<(ScannedVersion, Row)>,
    ) -> Result<Vec<(ScannedVersion, Applied)>, Error> {
        let mut done = Vec::new();
        while !rows.is_empty() {
            let left = rows.split_off(batch(&rows).max(1));
            let Some((first, _)) = rows.first() else { break };
            let name = first.name.clone();
            let failed: Vec<_> = rows.iter().map(|(found, _)| found.clone()).collect();
            done.extend(match self.apply_reseal(&name, rows, job.caller).await {
                Ok(applied) => applied,
                Err(error) => {
                    let reason = job.reason(error)?;
                    failed.into_iter().map(|found| (found, Applied::Failed(reason))).collect()
                }
            });
            rows = left;
        }
        Ok(done)
    }

    /// Moves resealed rows of one name to their padded numbers, the lowest first: a version may only
    /// be padded once those below it are. Behind one that was crossed, the others wait.
    async fn apply_moved(
        &self,
        job: &Job<'_>,
        mut rows: Vec<(ScannedVersion, Row)>,
    ) -> Result<Vec<(ScannedVersion, Applied)>, Error> {
        rows.sort_by_key(|(found, _)| found.label.number());
        let (mut done, mut waiting) = (Vec::new(), false);
        for (found, row) in rows {
            let applied = if waiting {
                Applied::Crossed
            } else {
                let applied = Box::pin(self.apply_pad(&found, &row, job.caller)).await;
                applied.or_else(|error| job.reason(error).map(Applied::Failed))?
            };
            waiting = waiting || applied == Applied::Crossed;
            done.push((found, applied));
        }
        Ok(done)
    }

    async fn again(&self, job: &Job<'_>, unit: Unit) -> Result<Option<Unit>, Error> {
        let store = self.ledger()?;
        match unit {
            Unit::Version(found) => {
                let again = store.again(&found, job.action.view()).await?;
                Ok(again.map(Unit::Version))
            }
            Unit::Policy(rotation) => {
                let row = store.policy(rotation.name.as_str()).await?;
                Ok(row.filter(|row| !is_cancelled(row)).as_ref().map(Unit::of_policy))
            }
            Unit::Unread(_) => Ok(None),
        }
    }
}

impl Unit {
    pub(super) fn of_policy(row: &Row) -> Self {
        let entry = row.get("entry").and_then(Attribute::text).unwrap_or_default().to_owned();
        Rotation::of(row).map_or(Self::Unread(entry), |rotation| Self::Policy(Box::new(rotation)))
    }

    /// Something about a name that cannot be read.
    pub(super) fn unread(name: &str) -> Self {
        let [_, (_, entry)] = crate::store::policy::key(name);
        Self::Unread(entry)
    }

    fn name(&self) -> &str {
        match self {
            Self::Version(found) => &found.name,
            Self::Policy(rotation) => rotation.name.as_str(),
            Self::Unread(entry) => crate::store::policy::name_of(entry).unwrap_or_default(),
        }
    }

    pub(super) fn failure(&self, reason: Reason) -> RunFailure {
        let (label, home, mark) = match self {
            Self::Version(found) => {
                let wrapped = wrapped_key(&found.row()).unwrap_or_default();
                (Some(found.label.clone()), found.home, wrapped)
            }
            Self::Policy(_) | Self::Unread(_) => (None, Location::Table, Vec::new()),
        };
        let reason = reason.as_str().to_owned();
        RunFailure { name: self.name().to_owned(), label, home, mark, reason }
    }

    /// A mark of this unit as it is, or as it will be: where the two are the same, the change was
    /// made.
    fn mark(&self, change: Option<&Change>) -> String {
        let hash = match self {
            Self::Version(found) => {
                let Key { name, mut version } = found.key();
                let row = match change {
                    Some(Change::Row(row)) => row.clone(),
                    _ => found.row(),
                };
                // Where it lies then, if its number is padded.
                if let (Location::Table, Some(text)) = (found.home, row.get("version")) {
                    version = text.text().map_or(version, str::to_owned);
                }
                let wrapped = match change {
                    Some(Change::Key(wrapped)) => wrapped.clone(),
                    _ => wrapped_key(&row).unwrap_or_default(),
                };
                let seal = row.get("seal").and_then(Attribute::text).unwrap_or_default();
                let key = [found.home.as_str(), &name, &version].map(str::as_bytes);
                digest::of_parts(key.into_iter().chain([wrapped.as_slice(), seal.as_bytes()]))
            }
            // One that was to be renewed and is due no more was renewed.
            Self::Policy(rotation) => digest::of_parts([rotation.name.as_str()]),
            Self::Unread(entry) => digest::of_parts([entry]),
        };
        hex::encode(hash.get(..8).unwrap_or_default())
    }
}

/// The changes by their names: those of one name are written one after the other, for each event
/// follows the one before.
fn grouped(changes: Vec<(Unit, Change)>) -> Vec<Vec<(Unit, Change)>> {
    let mut groups: BTreeMap<String, Vec<(Unit, Change)>> = BTreeMap::new();
    for (unit, change) in changes {
        groups.entry(unit.name().to_owned()).or_default().push((unit, change));
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;

    use super::*;
    use crate::store::Item;

    /// A row as it was read, by its version and its seal.
    fn found(version: &str, seal: Option<&str>) -> ScannedVersion {
        let seal = seal.map(|seal| ("seal", seal));
        let text = [("name", "n"), ("version", version), ("key", "AAAA")].into_iter().chain(seal);
        let item = text.map(|(name, text)| (name.to_owned(), AttributeValue::S(text.to_owned())));
        ScannedVersion::of(Location::Table, Projection::Whole, item.collect::<Item>()).unwrap()
    }

    #[test]
    fn a_mark_says_what_a_change_will_have_made_also_where_the_number_is_padded() {
        let padded = "0000000000000000007";
        let before = Unit::Version(found("7", None));
        for version in ["7", padded] {
            let after = Unit::Version(found(version, Some("seal")));
            let change = Change::Row(found(version, Some("seal")).row());
            assert_eq!(before.mark(Some(&change)), after.mark(None), "{version}");
            assert_ne!(before.mark(None), after.mark(None));
        }
    }

    #[test]
    fn reasons_have_names_of_their_own() {
        let reasons = [Reason::Order, Reason::Moving, Reason::Exists, Reason::Ambiguous];
        let names: BTreeSet<_> = reasons.into_iter().map(Reason::as_str).collect();
        assert_eq!(names, ["ambiguous", "exists", "moving", "order"].into());
    }
}
