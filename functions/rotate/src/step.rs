//! A step of a run over everything, as the state machine asks for it.

use std::time::Duration;

use coffer::chain::Caller;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::operations::Coffer;
use coffer::operations::executor::Action;
use coffer::operations::run::{RunOptions, Stage, Start, Started};

pub(crate) struct Request {
    /// Scope run it is: the ARN of the execution, which history shows as `who`.
    execution: String,
    step: Step,
}

enum Step {
    Begin(RunOptions, Started, Option<String>),
    Part(Stage, u32, Duration),
    End,
}

impl Request {
    /// Less than the function's own time, by more than a page takes.
    const MOST_SECONDS: u64 = 600;

    pub(crate) fn parse(step: &str, fields: &mut Fields) -> Result<Self, Error> {
        let execution = fields.required_text("execution")?;
        let step = match step {
            "begin" => Self::begin(fields)?,
            "part" => {
                let number = fields.number("number")?.and_then(|number| number.try_into().ok());
                let seconds = fields.number("seconds")?;
                let seconds = seconds.filter(|seconds| *seconds <= Self::MOST_SECONDS);
                let (Some(number), Some(seconds)) = (number, seconds) else {
                    return Err(Error::invalid("`number` is a part's, `seconds` 0 to 600."));
                };
                Step::Part(fields.required("stage")?, number, Duration::from_secs(seconds))
            }
            "end" => Step::End,
            _ => return Err(Error::invalid("`step` is begin, part or end.")),
        };
        Ok(Self { execution, step })
    }

    /// What the execution was started with.
    fn begin(fields: &mut Fields) -> Result<Step, Error> {
        let missing = Error::invalid("`input` is what the execution was started with.");
        let mut input = fields.object("input", "input.")?.ok_or(missing)?;
        input.required::<Action>("action")?;
        let asked = RunOptions { dry_run: input.flag("dry_run")?, hints: input.hints()? };
        let token = input.text("token")?;
        input.finish()?;
        Ok(Step::Begin(asked, fields.required("started_at")?, token))
    }

    pub(crate) async fn apply(
        self,
        action: Action,
        coffer: &Coffer,
        caller: &Caller,
    ) -> Result<Answer, Error> {
        let Self { execution, step } = self;
        let caller = &Caller { who: execution, request_id: caller.request_id.clone() };
        match step {
            Step::Begin(asked, at, token) => {
                let start = Start { execution: caller.who.clone(), at, token };
                Answer::json(&coffer.begin(action, &asked, &start).await?)
            }
            Step::Part(stage, number, time) => {
                Answer::json(&coffer.step(action, stage, number, time, caller).await?)
            }
            Step::End => Answer::json(&coffer.end(action, caller).await?),
        }
    }
}
