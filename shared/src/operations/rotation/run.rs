//! The beginning and the end of a run.

use crate::audit_chain::Caller;
use crate::backoff::Backoff;
use crate::error::Error;
use crate::store::runs::Run;
use crate::timestamp::Timestamp;

use super::super::Coffer;
use super::super::legacy_hints::LegacyHints;
use super::checkpoint::{KEPT_SECONDS, end_of_run};
use super::plan::Rotation;
use super::report::{MAX_FAILURES_AT_END, Report};

/// By how many seconds the time of an event may be behind that of its transaction: a call that is
/// tried again takes 29 seconds at most, and clocks differ by less.
pub(super) const CLOCK_SECONDS: i64 = 60;

/// A run has one part for each this many KMS requests a second.
const RATE_OF_PART: u32 = 25;
const MAX_PARTS: u32 = 8;

/// The options of a run.
#[derive(Debug, Default)]
pub struct RunOptions {
    /// Whether nothing is written.
    pub dry_run: bool,
    /// Hints about legacy rows.
    pub hints: LegacyHints,
}

/// The ARN of an execution of the state machine. The execution that a run names owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionId(pub String);

impl ExecutionId {
    /// Whether the execution owns a run.
    pub(super) fn owns(&self, run: &Run) -> bool {
        run.execution == self.0
    }

    /// Returns the caller that events of the run record.
    pub(super) fn caller(&self, request_id: &str) -> Caller {
        Caller { who: self.0.clone(), request_id: request_id.to_owned() }
    }

    /// Returns the id of a run that begins at this time: the name of the execution, which can be
    /// used again, and the time.
    fn run_id(&self, started_at: Timestamp) -> String {
        let name = self.0.rsplit(':').next().unwrap_or(&self.0);
        format!("{name}/{}", started_at.unix())
    }
}

/// A request to begin a run.
#[derive(Debug)]
pub struct RunStart {
    /// The options.
    pub options: RunOptions,
    /// When the execution was started.
    pub at: StartTime,
    /// The token of a schedule. A start with a known token has nothing to do.
    pub token: Option<String>,
}

/// When an execution was started, in unix milliseconds; read from RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartTime(u64);

impl std::str::FromStr for StartTime {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let time = text.parse::<jiff::Timestamp>().ok();
        // A future time would keep every start until then from beginning.
        let latest = Timestamp::now().unix() + CLOCK_SECONDS;
        let time = time.filter(|time| time.as_second() <= latest);
        let milliseconds = time.and_then(|time| time.as_millisecond().try_into().ok());
        milliseconds.map(Self).ok_or(Error::invalid(
            "`started_at` must be an RFC 3339 timestamp that is not in the future. Start the state \
             machine, which sets it.",
        ))
    }
}

/// A run that was begun or is continued.
#[derive(Debug, serde::Serialize)]
pub struct RunStarted {
    /// The id of the run.
    pub run: String,
    /// Whether the start was known, so that there is nothing to do.
    pub known: bool,
    /// Whether another execution may still be working on the run until it sees the new owner.
    pub resumed: bool,
    /// The numbers of the parts of the first stage.
    pub all: Vec<u32>,
    /// The numbers of the parts of the second stage.
    pub moved: Vec<u32>,
}

impl RunStarted {
    fn of<R: Rotation>(run: &Run, known: bool, resumed: bool) -> Self {
        let numbers: Vec<_> = (0..run.parts).collect();
        // A dry run writes nothing that would have to be checked again.
        let rechecks = R::HAS_PARTS && !run.dry_run;
        let moved = if rechecks { numbers.clone() } else { Vec::new() };
        Self { run: run.id.clone(), known, resumed, all: numbers, moved }
    }

    /// A start that a newer one replaced before it began. No part is left for it.
    fn replaced(run: &Run) -> Self {
        let run = run.id.clone();
        Self { run, known: false, resumed: false, all: Vec::new(), moved: Vec::new() }
    }
}

impl Coffer {
    /// Begins a run, or continues one that has not ended: one with the same request or, for a
    /// schedule, any that writes. A start with a known token does nothing. Neither does a start that
    /// is older than the newest one, which has replaced it: it may have been stopped while its
    /// first step was under way.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(super) async fn begin_run<R: Rotation>(
        &self,
        execution: &ExecutionId,
        start: &RunStart,
    ) -> Result<RunStarted, Error> {
        let ledger = self.ledger()?;
        let action = R::ACTION.as_str();
        let request = start.request_hash();
        let mut backoff = Backoff::default();
        loop {
            let known = ledger.run(action).await?;
            if let Some(run) = &known {
                if execution.owns(run) {
                    return Ok(RunStarted::of::<R>(run, run.ended_at.is_some(), true));
                }
                if start.token.is_some() && run.token == start.token {
                    return Ok(RunStarted::of::<R>(run, true, false));
                }
                if run.taken_at > start.at.0 {
                    return Ok(RunStarted::replaced(run));
                }
                if start.continues(run, &request) {
                    let taken_over = start.take_over(execution, run);
                    if ledger.put_run(action, &taken_over, known.as_ref()).await? {
                        return Ok(RunStarted::of::<R>(run, false, true));
                    }
                    continue;
                }
            }
            let run = self.new_run::<R>(execution, start, request.clone());
            // The hints first: a run in force has everything that it was given.
            ledger.put_hints(&run.id, start.options.hints.to_rows(), end_of_run()).await?;
            if ledger.put_run(action, &run, known.as_ref()).await? {
                let displaced = known.is_some_and(|known| known.ended_at.is_none());
                return Ok(RunStarted::of::<R>(&run, false, displaced));
            }
            backoff.wait().await?;
        }
    }

    fn new_run<R: Rotation>(
        &self,
        execution: &ExecutionId,
        start: &RunStart,
        request: Vec<u8>,
    ) -> Run {
        let parts = self.options.kms_requests_per_second / RATE_OF_PART;
        let started_at = Timestamp::now();
        Run {
            id: execution.run_id(started_at),
            execution: execution.0.clone(),
            taken_at: start.at.0,
            request,
            dry_run: start.options.dry_run,
            parts: if R::HAS_PARTS { parts.clamp(1, MAX_PARTS) } else { 1 },
            token: start.token.clone(),
            started_at,
            ended_at: None,
        }
    }

    /// Ends a run whose parts are done, and returns its report. Ending it again returns the report
    /// again.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there was no run; [`Error::Unavailable`].
    pub(super) async fn end_run<R: Rotation>(
        &self,
        execution: &ExecutionId,
    ) -> Result<Report, Error> {
        let ledger = self.ledger()?;
        let action = R::ACTION.as_str();
        loop {
            let run = ledger.run(action).await?.filter(|run| execution.owns(run));
            let Some(run) = run else {
                let mut report = self.report(R::ACTION, None, MAX_FAILURES_AT_END).await?;
                report.state = Some("replaced");
                return Ok(report);
            };
            let ended = Run { ended_at: run.ended_at.or(Some(Timestamp::now())), ..run.clone() };
            if run == ended || ledger.put_run(action, &ended, Some(&run)).await? {
                return self.report_of(R::ACTION, ended, None, MAX_FAILURES_AT_END).await;
            }
        }
    }
}

impl RunStart {
    fn request_hash(&self) -> Vec<u8> {
        let mut request = self.options.hints.hash();
        request.push(u8::from(self.options.dry_run));
        request
    }

    /// Whether this start continues a run: with the same request or, for a schedule, any that
    /// writes.
    fn continues(&self, run: &Run, request: &[u8]) -> bool {
        // The entries of an older run may be gone.
        let kept = run.started_at.after(KEPT_SECONDS) > Some(Timestamp::now());
        let same = run.request == request || (self.token.is_some() && !run.dry_run);
        run.ended_at.is_none() && same && kept
    }

    fn take_over(&self, execution: &ExecutionId, run: &Run) -> Run {
        Run {
            execution: execution.0.clone(),
            taken_at: self.at.0,
            token: self.token.clone().or_else(|| run.token.clone()),
            ..run.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_starts_milliseconds_show_the_later_one() {
        let read = |text: &str| text.parse::<StartTime>().unwrap().0;
        assert_eq!(read("1970-01-01T00:00:01.5Z"), 1500);
        assert!(read("2026-02-03T04:05:06.789Z") > read("2026-02-03T04:05:06.788Z"));
        assert_eq!(read("2026-02-03T05:05:06+01:00"), read("2026-02-03T04:05:06Z"));
        for bad in ["", "now", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z"] {
            assert!(bad.parse::<StartTime>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_run_id_has_the_name_of_the_execution_and_the_time() {
        let id = |arn: &str| {
            ExecutionId(arn.to_owned()).run_id(Timestamp::from_unix_seconds(7).unwrap())
        };
        let arn = "arn:aws:states:eu-west-1:123456789012:execution:machine:by-hand";
        assert_eq!(id(arn), "by-hand/7");
        assert_eq!(id("direct"), "direct/7");
    }

    #[test]
    fn a_start_continues_a_run_with_the_same_request_or_any_that_writes_for_a_schedule() {
        let start = |dry_run, token: Option<&str>| RunStart {
            options: RunOptions { dry_run, ..RunOptions::default() },
            at: StartTime(2),
            token: token.map(str::to_owned),
        };
        let run = |request: Vec<u8>, dry_run| Run {
            id: "one/1".to_owned(),
            execution: "one".to_owned(),
            taken_at: 1,
            request,
            dry_run,
            parts: 1,
            token: None,
            started_at: Timestamp::now(),
            ended_at: None,
        };
        let continues = |start: &RunStart, run: &Run| start.continues(run, &start.request_hash());
        let by_hand = start(false, None);
        assert!(continues(&by_hand, &run(by_hand.request_hash(), false)));
        assert!(!continues(&by_hand, &run(Vec::new(), false)));
        assert!(continues(&start(false, Some("schedule")), &run(Vec::new(), false)));
        assert!(!continues(&start(false, Some("schedule")), &run(Vec::new(), true)));
        let ended = Run { ended_at: Some(Timestamp::now()), ..run(by_hand.request_hash(), false) };
        assert!(!continues(&by_hand, &ended));
        let old =
            Timestamp::from_unix_seconds(Timestamp::now().unix() - 100 * 24 * 60 * 60).unwrap();
        let old = Run { started_at: old, ..run(by_hand.request_hash(), false) };
        assert!(!continues(&by_hand, &old));
    }
}
