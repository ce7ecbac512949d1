//! Runs over everything that a stack holds: begun, done in parts that go on where they stopped,
//! ended with a report. And the same for one name, at once.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::chain::{self, Act, Caller};
use crate::error::Error;
use crate::moment::Moment;
use crate::name::Name;
use crate::row::{Attribute, Row};
use crate::store::Key;
use crate::store::run::{FAILURE, MOST_FAILURES, Progress, Run, RunFailure};
use crate::store::scan::{Location, Part, ScannedVersion};

use super::executor::{Action, Intents, Job, Reason, Tally, Unit};
use super::legacy_hints::LegacyHints;
use super::{Coffer, DAY_SECONDS, for_name, not_found};

/// What a run is asked for.
#[derive(Debug, Default)]
pub struct RunOptions {
    /// Whether nothing is written, only told.
    pub dry_run: bool,
    /// What is known of legacy rows.
    pub hints: LegacyHints,
}

/// An execution of the state machine, which begins a run or goes on with it.
#[derive(Debug)]
pub struct Start {
    /// Its ARN, which history shows as who changed something.
    pub execution: String,
    /// When it was started.
    pub at: Started,
    /// What a schedule tells it by: with one that is known it has nothing to do.
    pub token: Option<String>,
}

/// When an execution was started, in unix milliseconds; read from RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started(u64);

impl std::str::FromStr for Started {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let moment = text.parse::<jiff::Timestamp>().ok();
        // One that lies ahead would keep every start from beginning until then.
        let latest = Moment::now().unix() + Coffer::CLOCKS_SECONDS;
        let moment = moment.filter(|moment| moment.as_second() <= latest);
        let milliseconds = moment.and_then(|moment| moment.as_millisecond().try_into().ok());
        milliseconds.map(Self).ok_or(Error::invalid(
            "`started_at` is a time as RFC 3339 has it, and has come. Start the state machine: it \
             says when.",
        ))
    }
}

/// Which parts of a run are done together: the second is begun when the first is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Everything where it lies.
    All,
    /// What was moved between the live table and the ledger meanwhile, and may have been missed.
    Moved,
}

impl Stage {
    /// The stage as steps and entries of the ledger have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Moved => "moved",
        }
    }
}

impl std::str::FromStr for Stage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = [Self::All, Self::Moved].into_iter().find(|stage| stage.as_str() == text);
        found.ok_or(Error::invalid("`stage` is all or moved."))
    }
}

/// A run that was begun, or is gone on with.
#[derive(Debug, serde::Serialize)]
pub struct Begun {
    /// What tells it from every other run.
    pub run: String,
    /// Whether this start was known already: then there is nothing to do.
    pub known: bool,
    /// Whether another execution may still be at work, until it sees that it is not in force.
    pub resumed: bool,
    /// The numbers of the parts of the first stage.
    pub all: Vec<u32>,
    /// The numbers of the parts of the second stage.
    pub moved: Vec<u32>,
}

/// A step of one part.
#[derive(Debug, serde::Serialize)]
pub struct Step {
    /// Whether nothing is left of it, or nothing for this execution.
    pub done: bool,
}

/// How a run stands.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    /// What is done.
    pub action: &'static str,
    /// Which run it is; none for a name alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// `running`, `done`, or `replaced` by another start; none for a name alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// Whether nothing was written, only told.
    pub dry_run: bool,
    /// When it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Moment>,
    /// When its progress was noted last; none for a name alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progressed_at: Option<Moment>,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Moment>,
    /// Versions, or policies, that were looked at.
    pub seen: u64,
    /// Of these, changed; in a dry run, those that would have been.
    pub changed: u64,
    /// Of these, left because there was nothing to change.
    pub skipped: u64,
    /// Of these, left for a reason.
    pub failed: u64,
    /// How many for which reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, u64>,
    /// Which, and why: a page of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailedItem>,
    /// Given back, it continues where this ended; none at the end.
    #[serde(skip)]
    pub next: Option<Key>,
}

/// One that was left as it is.
#[derive(Debug, serde::Serialize)]
pub struct FailedItem {
    /// The name of the secret.
    pub name: String,
    /// The version; none where it is about a policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<crate::name::Label>,
    /// Whether it is deleted and awaits recovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
    /// Why.
    pub reason: String,
}

impl From<RunFailure> for FailedItem {
    fn from(failure: RunFailure) -> Self {
        let RunFailure { name, label, home, reason, .. } = failure;
        Self { name, version: label, deleted: (home == Location::Ledger).then_some(true), reason }
    }
}

impl Coffer {
    /// One part for each so many calls of KMS a second that are allowed.
    const RATE_OF_PART: u32 = 25;
    const MOST_PARTS: u32 = 8;
    /// The most versions in one page: what an interruption makes KMS do again. If all of them fail,
    /// that is noted at once.
    const PAGE: i32 = 99;
    const PAGE_TIME: Duration = Duration::from_secs(2);
    /// How many reads of the ledger there are in one page, where it has little to do with.
    const READS: u32 = 8;
    /// For how long a run is known.
    const KEPT_SECONDS: u64 = 90 * DAY_SECONDS;
    /// By how much the time of an event may be behind that of its transaction: a call that is
    /// tried again takes 29 seconds at most, and clocks differ by less.
    const CLOCKS_SECONDS: i64 = 60;
    /// How many failures are in the output of an execution, which has at most 256 KiB.
    const TOLD_AT_THE_END: u32 = 50;
    /// How often all versions of a name are gone over while others move them there and back.
    const PASSES: u32 = 5;
    /// How long one call about one name goes on.
    const NAME_TIME: Duration = Duration::from_secs(18);

    /// Begins a run, or goes on with one that is not over: with the very same request, or, by a
    /// schedule, with whatever is being written. A start with a token that is known does nothing.
    /// Nor does one that is older than the newest, which has replaced it already: it may have been
    /// stopped while its first step was under way.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn begin(
        &self,
        action: Action,
        asked: &RunOptions,
        start: &Start,
    ) -> Result<Begun, Error> {
        let store = self.ledger()?;
        let Start { execution, at: Started(taken_at), token } = start;
        let mut request = asked.hints.hash();
        request.push(u8::from(asked.dry_run));
        let mut backoff = Backoff::default();
        loop {
            let known = store.run(action.as_str()).await?;
            if let Some(run) = &known {
                if run.execution == *execution {
                    return Ok(Begun::of(action, run, run.ended_at.is_some(), true));
                }
                if token.is_some() && run.token == *token {
                    return Ok(Begun::of(action, run, true, false));
                }
                if run.taken_at > *taken_at {
                    return Ok(Begun::replaced(run));
                }
                // What is left of an older one has had its time.
                let kept = run.started_at.after(Self::KEPT_SECONDS) > Some(Moment::now());
                let same = run.request == request || (token.is_some() && !run.dry_run);
                if run.ended_at.is_none() && same && kept {
                    let mine = Run {
                        execution: execution.clone(),
                        taken_at: *taken_at,
                        token: token.clone().or_else(|| run.token.clone()),
                        ..run.clone()
                    };
                    if store.put_run(action.as_str(), &mine, known.as_ref()).await? {
                        return Ok(Begun::of(action, run, false, true));
                    }
                    continue;
                }
            }
            let parts = match action {
                Action::Renew => 1,
                Action::Rewrap | Action::Reseal => self.parts(),
            };
            let started_at = Moment::now();
            let run = Run {
                id: id_of(execution, started_at),
                execution: execution.clone(),
                taken_at: *taken_at,
                request: request.clone(),
                dry_run: asked.dry_run,
                parts,
                token: token.clone(),
                started_at,
                ended_at: None,
            };
            // First, for a run that is in force has all that it was given.
            store.put_hints(&run.id, asked.hints.to_rows(), Self::end_of_run()).await?;
            if store.put_run(action.as_str(), &run, known.as_ref()).await? {
                let displaced = known.is_some_and(|known| known.ended_at.is_none());
                return Ok(Begun::of(action, &run, false, displaced));
            }
            backoff.wait().await?;
        }
    }

    fn parts(&self) -> u32 {
        let rate = self.policy.kms_requests_per_second;
        (rate / Self::RATE_OF_PART).clamp(1, Self::MOST_PARTS)
    }

    /// When what is kept of a run has had its time.
    fn end_of_run() -> Option<Moment> {
        Moment::now().after(Self::KEPT_SECONDS)
    }

    /// Does a part of a run, for as long as `time` says or until it is done. What was begun is
    /// gone on with, wherever it was interrupted.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: then try again, and it goes on.
    pub async fn step(
        &self,
        action: Action,
        stage: Stage,
        number: u32,
        time: Duration,
        caller: &Caller,
    ) -> Result<Step, Error> {
        let store = self.ledger()?;
        let until = Instant::now() + time;
        let execution = caller.who.as_str();
        let (mut hints, mut began) = (LegacyHints::default(), false);
        let part = format!("{}#{number:03}", stage.as_str());
        loop {
            let run = store.run(action.as_str()).await?;
            // Another execution goes on with it.
            let Some(run) = run.filter(|run| run.execution == execution) else {
                return Ok(Step { done: true });
            };
            let mut progress = store.progress(&run.id, &part).await?;
            if progress.done {
                return Ok(Step { done: true });
            }
            if began && Instant::now() >= until {
                return Ok(Step { done: false });
            }
            if !began {
                hints = LegacyHints::of_rows(&store.hints(&run.id).await?);
                self.pace(f64::from(run.parts), until);
                began = true;
            }
            let job = Job { action, dry_run: run.dry_run, hints: &hints, caller, whole: true };
            let at = Part { number, of: run.parts };
            match stage {
                Stage::All => self.page(&job, &run, at, &part, &mut progress).await?,
                Stage::Moved => self.moved(&job, &run, at, &part, (&mut progress, until)).await?,
            }
        }
    }

    fn pace(&self, parts: f64, until: Instant) {
        if let Ok(keys) = self.keys() {
            let rate = f64::from(self.policy.kms_requests_per_second);
            keys.pace().limit(rate / parts, until);
        }
    }

    /// The pace of a call about one name.
    pub(super) fn pace_one(&self) {
        self.pace(1.0, Instant::now());
    }

    /// As many calls as the pace allows for in two seconds, as slow as it is: so long a page takes.
    fn page_limit(&self) -> i32 {
        let calls = self.keys().map_or(None, |keys| keys.pace().calls_within(Self::PAGE_TIME));
        calls
            .map_or(Self::PAGE, |calls| i32::try_from(calls).unwrap_or(i32::MAX))
            .clamp(1, Self::PAGE)
    }

    /// One page of the first stage, and its progress noted.
    async fn page(
        &self,
        job: &Job<'_>,
        run: &Run,
        at: Part,
        part: &str,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let store = self.ledger()?;
        let limit = self.page_limit();
        let home = progress.home.unwrap_or(Location::Table);
        let after = progress.after.clone();
        let (units, next) = if job.action == Action::Renew {
            let (rows, next) = store.policies(after.map(|key| key.version), limit).await?;
            let next = next.map(|version| Key { name: String::new(), version });
            (rows.iter().map(Unit::of_policy).collect(), next)
        } else {
            let (found, next) = self.found(job, home, at, after, limit).await?;
            (found.into_iter().map(Unit::Version).collect(), next)
        };
        let ttl = Self::end_of_run();
        let uncounted = &mut progress.marks.clone();
        let intents = Intents { run: &run.id, part, progress: &mut *progress, uncounted, ttl };
        let Some(tally) = self.work(job, units, Some(intents)).await? else { return Ok(()) };
        let failures = store.unrecorded(&run.id, tally.failures).await?;
        progress.seen += tally.changed + tally.skipped;
        progress.changed += tally.changed;
        progress.skipped += tally.skipped;
        progress.fail(&failures);
        // Where the page is another than the interrupted one, the rest of it is still to come.
        progress.marks = std::mem::take(uncounted);
        progress.after = next;
        if progress.after.is_none() {
            let over = home == Location::Ledger || job.action == Action::Renew;
            progress.done = over;
            progress.home = Some(Location::Ledger);
        }
        // Where another was first, its progress is read again.
        store.advance(&run.id, part, progress, &failures, ttl).await.map(drop)
    }

    /// The next versions in a part, as many as `limit` calls of KMS are for. The ledger is mostly
    /// other entries: where few are found, each read passes over twice as many as the one before.
    async fn found(
        &self,
        job: &Job<'_>,
        home: Location,
        at: Part,
        after: Option<Key>,
        limit: i32,
    ) -> Result<(Vec<ScannedVersion>, Option<Key>), Error> {
        let most = usize::try_from(limit).unwrap_or(1);
        let (mut found, mut after, mut size) = (Vec::new(), after, limit);
        for _ in 0..Self::READS {
            let view = job.action.view();
            let (more, next) = self.ledger()?.walk(home, view, at, after, size).await?;
            found.extend(more);
            after = next;
            if after.is_none() || found.len() >= most {
                break;
            }
            size = size.saturating_mul(2);
        }
        Ok(job.hints.cut(found, after, limit))
    }

    /// One page of the second stage: the names of which something was moved since the run began,
    /// each as a whole.
    async fn moved(
        &self,
        job: &Job<'_>,
        run: &Run,
        at: Part,
        part: &str,
        (progress, until): (&mut Progress, Instant),
    ) -> Result<(), Error> {
        let store = self.ledger()?;
        // What was told before the run began may have been done after it: it was tried again, or
        // by another clock.
        let since = run.started_at.unix() - Self::CLOCKS_SECONDS;
        let since = Moment::from_unix(since).unwrap_or(run.started_at);
        let (mut keys, mut next) = (Vec::new(), resumed(progress.after.clone()));
        for _ in 0..Self::READS {
            (keys, next) = store.moved(acts(job), since, at, next, self.page_limit() * 10).await?;
            if next.is_none() || !keys.is_empty() {
                break;
            }
        }
        let mut uncounted = progress.marks.clone();
        for last in last_of_each(keys) {
            let name = last.name.clone();
            let counts = (&mut *progress, &mut uncounted);
            let settled = self.settle(job, run, part, counts, (&name, until)).await?;
            let Some(tally) = settled else { return Ok(()) };
            let (run, ttl) = (&run.id, Self::end_of_run());
            // The first stage has told of most of them.
            let failures = store.unrecorded(run, tally.failures).await?;
            let mut left = failures.as_slice();
            while let Some((some, rest)) = left.split_at_checked(MOST_FAILURES) {
                progress.fail(some);
                if !store.advance(run, part, progress, some, ttl).await? {
                    return Ok(());
                }
                left = rest;
            }
            progress.fail(left);
            progress.seen += tally.changed;
            progress.changed += tally.changed;
            progress.marks.clone_from(&uncounted);
            // Behind the entries of the name that were found: a key that the Scan answered, for
            // DynamoDB takes no other as a place within a part. What follows of the name is found
            // again, and then there is nothing left to do for it.
            progress.after = Some(last);
            if !store.advance(run, part, progress, left, ttl).await? || Instant::now() >= until {
                return Ok(());
            }
        }
        progress.after = next;
        progress.done = progress.after.is_none();
        store.advance(&run.id, part, progress, &[], Self::end_of_run()).await.map(drop)
    }

    /// Rotates all versions of a name, again until nothing of it was moved meanwhile, but not for
    /// ever: a name that others keep moving is reported. Only what the first stage has missed is
    /// counted.
    async fn settle(
        &self,
        job: &Job<'_>,
        run: &Run,
        part: &str,
        (progress, uncounted): (&mut Progress, &mut BTreeSet<String>),
        (text, until): (&str, Instant),
    ) -> Result<Option<Tally>, Error> {
        let store = self.ledger()?;
        let name = Name::of_any_client(text)?;
        let (mut changed, mut failures) = (0, Vec::new());
        for _ in 0..Self::PASSES {
            let before = match store.tail(&name).await {
                Ok(tail) => tail,
                Err(Error::Unreadable) => {
                    let failures = vec![Unit::unread(text).failure(Reason::Unreadable)];
                    return Ok(Some(Tally { changed, failures, ..Tally::default() }));
                }
                Err(error) => return Err(error),
            };
            failures.clear();
            for home in [Location::Table, Location::Ledger] {
                let mut after = None;
                loop {
                    let (view, limit) = (job.action.view(), self.page_limit());
                    let (found, next) = store.walk_name(home, view, text, after, limit).await?;
                    let (found, next) = job.hints.cut(found, next, limit);
                    let units = found.into_iter().map(Unit::Version).collect();
                    let ttl = Self::end_of_run();
                    let progress = &mut *progress;
                    let uncounted = &mut *uncounted;
                    let intents = Intents { run: &run.id, part, progress, uncounted, ttl };
                    let Some(tally) = self.work(job, units, Some(intents)).await? else {
                        return Ok(None);
                    };
                    changed += tally.changed;
                    failures.extend(tally.failures);
                    after = next;
                    if after.is_none() {
                        break;
                    }
                }
            }
            if !self.moved_since(acts(job), &name, before.sequence).await? {
                return Ok(Some(Tally { changed, failures, ..Tally::default() }));
            }
            if Instant::now() >= until {
                break;
            }
        }
        failures.push(Unit::unread(text).failure(Reason::Moving));
        Ok(Some(Tally { changed, failures, ..Tally::default() }))
    }

    /// Whether a version of a name was moved after the event of this number.
    async fn moved_since(&self, acts: &[Act], name: &Name, sequence: u64) -> Result<bool, Error> {
        let store = self.ledger()?;
        let mut after = Some(chain::key(sequence));
        loop {
            let (rows, more) = store.events(name, true, after, None).await?;
            let moves: Vec<_> = acts.iter().map(|act| act.as_str()).collect();
            let operation =
                |row: &Row| row.get("operation").and_then(Attribute::text).map(str::to_owned);
            if rows.iter().filter_map(operation).any(|each| moves.contains(&each.as_str())) {
                return Ok(true);
            }
            if more.is_none() {
                return Ok(false);
            }
            after = more;
        }
    }

    /// Ends a run whose parts are done, and reports. Again, it reports again.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing was ever run; [`Error::Unavailable`].
    pub async fn end(&self, action: Action, caller: &Caller) -> Result<Report, Error> {
        let store = self.ledger()?;
        loop {
            let run = store.run(action.as_str()).await?;
            let mine = run.filter(|run| run.execution == caller.who);
            let Some(run) = mine else {
                let mut report = self.report(action, None, Self::TOLD_AT_THE_END).await?;
                report.state = Some("replaced");
                return Ok(report);
            };
            let ended = Run { ended_at: run.ended_at.or(Some(Moment::now())), ..run.clone() };
            if run == ended || store.put_run(action.as_str(), &ended, Some(&run)).await? {
                return self.report_of(action, ended, None, Self::TOLD_AT_THE_END).await;
            }
        }
    }

    /// How the run of an action stands that is in force, or how the last one ended, with a page
    /// of what it could not do.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing was ever run; [`Error::Invalid`] for a place to go on from
    /// that is none; [`Error::Unavailable`].
    pub async fn report(
        &self,
        action: Action,
        after: Option<Key>,
        limit: u32,
    ) -> Result<Report, Error> {
        let store = self.ledger()?;
        let run = store.run(action.as_str()).await?;
        let kept = |run: &Run| run.started_at.after(Self::KEPT_SECONDS) > Some(Moment::now());
        self.report_of(action, run.filter(kept).ok_or_else(nothing)?, after, limit).await
    }

    async fn report_of(
        &self,
        action: Action,
        run: Run,
        after: Option<Key>,
        limit: u32,
    ) -> Result<Report, Error> {
        let store = self.ledger()?;
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let after = after.map(|key| key.version);
        if after.as_ref().is_some_and(|entry| !entry.starts_with(FAILURE)) {
            return Err(Error::invalid("`next` is what an earlier answer gave, unchanged."));
        }
        let (parts, (failures, last)) = tokio::try_join!(
            store.all_progress(&run.id),
            store.failures(&run.id, after, Some(limit))
        )?;
        let sum = |of: fn(&Progress) -> u64| parts.iter().map(of).sum::<u64>();
        let mut reasons = BTreeMap::new();
        for (reason, count) in parts.iter().flat_map(|part| &part.failed) {
            *reasons.entry(reason.clone()).or_default() += count;
        }
        Ok(Report {
            action: action.as_str(),
            state: Some(if run.ended_at.is_some() { "done" } else { "running" }),
            dry_run: run.dry_run,
            started_at: Some(run.started_at),
            progressed_at: parts.iter().filter_map(|part| part.progressed_at).max(),
            ended_at: run.ended_at,
            seen: sum(|part| part.seen),
            changed: sum(|part| part.changed),
            skipped: sum(|part| part.skipped),
            failed: reasons.values().sum(),
            reasons,
            failures: failures.into_iter().map(FailedItem::from).collect(),
            next: last.map(|version| Key { name: action.as_str().to_owned(), version }),
            run: Some(run.id),
        })
    }

    /// Rewraps or reseals one name at once: its versions, live and deleted. What there is no time
    /// for is left for `next`.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is nothing of that name; [`Error::Unavailable`].
    pub async fn rotate(
        &self,
        action: Action,
        name: &Name,
        asked: &RunOptions,
        after: Option<Key>,
        caller: &Caller,
    ) -> Result<Report, Error> {
        let until = Instant::now() + Self::NAME_TIME;
        let RunOptions { dry_run, hints } = asked;
        let job = Job { action, dry_run: *dry_run, hints, caller, whole: false };
        let mut report = Report::of_name(action, *dry_run);
        let store = self.ledger()?;
        let first = after.is_none();
        let mut place = Place::of(name, after);
        loop {
            let begun = place.clone();
            let Place { home, after } = place;
            self.pace_one();
            let limit = self.page_limit();
            let view = job.action.view();
            let (found, next) = store.walk_name(home, view, name.as_str(), after, limit).await?;
            let (found, next) = hints.cut(found, next, limit);
            let units = found.into_iter().map(Unit::Version).collect();
            match self.work(&job, units, None).await {
                Ok(tally) => report.add(tally.unwrap_or_default()),
                // What was done is told; the error, if it stays, when it is asked to go on.
                Err(Error::Unavailable { .. }) if report.seen > 0 => {
                    report.next = Some(begun.to_key(name));
                    return Ok(report);
                }
                Err(error) => return Err(error),
            }
            place = match (next, home) {
                (Some(key), _) => Place { home, after: Some(key) },
                (None, Location::Table) => Place { home: Location::Ledger, after: None },
                (None, Location::Ledger) if first && report.seen == 0 => {
                    return Err(for_name(name, not_found()));
                }
                (None, Location::Ledger) => return Ok(report),
            };
            if Instant::now() >= until {
                report.next = Some(place.to_key(name));
                return Ok(report);
            }
        }
    }
}

/// What moves a version past a part that was done: from the table to the ledger, or back, or, for
/// data keys, by a reseal that pads its number or keeps its old form.
fn acts(job: &Job<'_>) -> &'static [Act] {
    match job.action {
        Action::Rewrap => &[Act::Delete, Act::Restore, Act::Reseal],
        Action::Reseal | Action::Renew => &[Act::Delete, Act::Restore],
    }
}

impl Begun {
    fn of(action: Action, run: &Run, known: bool, resumed: bool) -> Self {
        let numbers = (0..run.parts).collect();
        // Policies are not moved, and what was not written need not be looked at again.
        let once = action == Action::Renew || run.dry_run;
        let moved = if once { Vec::new() } else { (0..run.parts).collect() };
        Self { run: run.id.clone(), known, resumed, all: numbers, moved }
    }

    /// By a newer start, before it began: no part is left for it.
    fn replaced(run: &Run) -> Self {
        let run = run.id.clone();
        Self { run, known: false, resumed: false, all: Vec::new(), moved: Vec::new() }
    }
}

impl Report {
    fn of_name(action: Action, dry_run: bool) -> Self {
        Self {
            action: action.as_str(),
            run: None,
            state: None,
            dry_run,
            started_at: None,
            progressed_at: None,
            ended_at: None,
            seen: 0,
            changed: 0,
            skipped: 0,
            failed: 0,
            reasons: BTreeMap::new(),
            failures: Vec::new(),
            next: None,
        }
    }

    fn add(&mut self, tally: Tally) {
        self.seen += tally.seen();
        self.changed += tally.changed;
        self.skipped += tally.skipped;
        self.failed += tally.failures.len() as u64;
        for failure in tally.failures {
            *self.reasons.entry(failure.reason.clone()).or_default() += 1;
            self.failures.push(failure.into());
        }
    }
}

impl Progress {
    /// Counts what was left.
    fn fail(&mut self, failures: &[RunFailure]) {
        self.seen += failures.len() as u64;
        for failure in failures {
            *self.failed.entry(failure.reason.clone()).or_default() += 1;
        }
    }
}

/// Where a call about one name goes on.
#[derive(Clone)]
struct Place {
    home: Location,
    after: Option<Key>,
}

impl Place {
    /// The beginning, for what is none. Forged, it goes on elsewhere within the same name.
    fn of(name: &Name, key: Option<Key>) -> Self {
        let told = key.map(|key| key.version).unwrap_or_default();
        let (home, sort) = told.split_once(':').unwrap_or(("live", ""));
        let home = Location::named(home).unwrap_or(Location::Table);
        let key = || Key { name: name.as_str().to_owned(), version: sort.to_owned() };
        Self { home, after: (!sort.is_empty()).then(key) }
    }

    fn to_key(&self, name: &Name) -> Key {
        let sort = self.after.as_ref().map_or("", |key| key.version.as_str());
        let version = format!("{}:{sort}", self.home.as_str());
        Key { name: name.as_str().to_owned(), version }
    }
}

/// Where the second stage of a part goes on. An earlier release noted a key of its own making, behind
/// all entries of a name, which DynamoDB need not take: then the part begins again. What is done
/// is not changed, counted or told twice.
fn resumed(after: Option<Key>) -> Option<Key> {
    after.filter(|key| key.version != char::MAX.to_string())
}

/// The last one of each name, of keys in the order of a Scan, which has those of a name together.
fn last_of_each(keys: Vec<Key>) -> Vec<Key> {
    let mut last: Vec<Key> = Vec::new();
    for key in keys {
        match last.last_mut().filter(|last| last.name == key.name) {
            Some(last) => *last = key,
            None => last.push(key),
        }
    }
    last
}

/// What tells a run: the last part of the ARN of the execution that began it, and when, for such
/// a name can be used again.
fn id_of(execution: &str, started_at: Moment) -> String {
    let name = execution.rsplit(':').next().unwrap_or(execution);
    format!("{name}/{}", started_at.unix())
}

fn nothing() -> Error {
    Error::NotFound(
        "No such run was begun within 90 days. Start the state machine with this `action`.".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_as_it_went() {
        let name: Name = "dev/db".parse().unwrap();
        let key = |sort: &str| Key { name: "dev/db".to_owned(), version: sort.to_owned() };
        for (home, after) in [
            (Location::Table, Some(key("0000000000000000001"))),
            // A version of another client's may look like anything.
            (Location::Table, Some(key("kept:x"))),
            (Location::Ledger, None),
            (Location::Ledger, Some(key("deleted#1#ab"))),
        ] {
            let place = Place { home, after: after.clone() };
            let again = Place::of(&name, Some(place.to_key(&name)));
            assert_eq!((again.home, again.after), (home, after));
        }
        let none = Place::of(&name, None);
        assert_eq!((none.home, none.after), (Location::Table, None));
    }

    #[test]
    fn a_part_goes_on_from_keys_that_were_read_alone() {
        let key = |name: &str, entry: &str| Key { name: name.into(), version: entry.into() };
        let keys = vec![key("a", "event#1"), key("a", "event#2"), key("b", "event#1")];
        assert_eq!(last_of_each(keys), [key("a", "event#2"), key("b", "event#1")]);
        assert_eq!(last_of_each(Vec::new()), []);
        assert_eq!(resumed(Some(key("a", "event#2"))), Some(key("a", "event#2")));
        // Noted by an earlier release.
        assert_eq!(resumed(Some(key("a", "\u{10ffff}"))), None);
        assert_eq!(resumed(None), None);
    }

    #[test]
    fn what_one_page_leaves_fits_one_transaction() {
        assert!(usize::try_from(Coffer::PAGE).unwrap() <= MOST_FAILURES);
    }

    #[test]
    fn of_two_starts_the_later_one_is_told_by_milliseconds() {
        let read = |text: &str| text.parse::<Started>().unwrap().0;
        assert_eq!(read("1970-01-01T00:00:01.5Z"), 1500);
        assert!(read("2026-02-03T04:05:06.789Z") > read("2026-02-03T04:05:06.788Z"));
        assert_eq!(read("2026-02-03T05:05:06+01:00"), read("2026-02-03T04:05:06Z"));
        for bad in ["", "now", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z"] {
            assert!(bad.parse::<Started>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_run_has_its_own_name_and_time() {
        let arn = "arn:aws:states:eu-west-1:123456789012:execution:machine:by-hand";
        assert_eq!(id_of(arn, Moment::from_unix(7).unwrap()), "by-hand/7");
        assert_eq!(id_of("direct", Moment::from_unix(7).unwrap()), "direct/7");
    }
}
