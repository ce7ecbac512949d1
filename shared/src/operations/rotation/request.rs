//! The requests to the functions of a rotation: one name, or a step of a run.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::audit_chain::Caller;
use crate::cursor::Cursor;
use crate::error::Error;
use crate::fields::Fields;
use crate::name::{Name, Revision, Version, VersionKey};
use crate::request::Response;

use super::super::legacy_hints::LegacyHints;
use super::super::put::StoredVersion;
use super::super::{Coffer, Operation};
use super::action::Action;
use super::part::{PartStatus, PartStep};
use super::plan::Rotation;
use super::report::Report;
use super::run::{ExecutionId, RunOptions, RunStart, RunStarted};

/// The most seconds of a step: less than the timeout of the function, by more than a page takes.
const MAX_SECONDS: u64 = 600;

/// A request to rewrap, reseal or renew.
pub enum RotationRequest<R: RotationFunction> {
    /// One name, at once.
    Name(R::OneName),
    /// A step of a run, requested by the state machine.
    Step(ExecutionId, RunStep),
}

/// A step of a run.
#[derive(Debug)]
pub enum RunStep {
    /// Begins the run, or continues it.
    Begin(RunStart),
    /// Does a part.
    Part(PartStep),
    /// Ends the run.
    End,
}

/// An action with its request for one name.
pub trait RotationFunction: Rotation {
    /// The request for one name.
    type OneName: OneName;
}

/// A request about one name.
pub trait OneName: Sized + Send {
    /// Reads the rest of the request.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    fn parse(name: Name, fields: &mut Fields) -> Result<Self, Error>;

    /// The name.
    fn name(&self) -> &Name;

    /// Applies the request.
    fn apply<'a>(
        self,
        coffer: &'a Coffer,
        caller: &'a Caller,
    ) -> BoxFuture<'a, Result<RotationOutput, Error>>;
}

/// A response of a rotation.
#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
pub enum RotationOutput {
    /// One name was rewrapped or resealed.
    Name(Box<RotatedName>),
    /// One name was renewed.
    Renewed(RenewedName),
    /// A run was begun.
    Started(RunStarted),
    /// A step of a part was done.
    Part(PartStatus),
    /// A run has ended.
    Ended(Box<Report>),
}

/// One name that was rewrapped or resealed.
#[derive(Debug, serde::Serialize)]
pub struct RotatedName {
    /// The name of the secret.
    pub name: Name,
    /// The report.
    #[serde(flatten)]
    pub report: Report,
    /// Where the rotation continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
}

/// One name that was renewed.
#[derive(Debug, serde::Serialize)]
pub struct RenewedName {
    /// The name of the secret.
    pub name: Name,
    /// The action.
    pub action: &'static str,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// The new version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Its revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
}

impl RenewedName {
    pub(super) fn of(name: Name, dry_run: bool, stored: Option<StoredVersion>) -> Self {
        let version = stored.as_ref().map(|stored| stored.version);
        let revision = stored.map(|stored| stored.revision);
        Self { name, action: Action::Renew.as_str(), dry_run, version, revision }
    }
}

impl<R: RotationFunction> Operation for RotationRequest<R> {
    const NAME: &'static str = R::ACTION.as_str();

    type Output = RotationOutput;

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        if fields.required::<Action>("action")? != R::ACTION {
            return Err(Error::invalid(
                "This function does not do this `action`. Invoke the function rotate.",
            ));
        }
        match fields.text("step")? {
            None => R::OneName::parse(parse_name(fields)?, fields).map(Self::Name),
            Some(step) => {
                let execution = ExecutionId(fields.required_text("execution")?);
                RunStep::parse(&step, fields).map(|step| Self::Step(execution, step))
            }
        }
    }

    fn name(&self) -> Option<&Name> {
        match self {
            Self::Name(one) => Some(one.name()),
            Self::Step(..) => None,
        }
    }

    fn writes(&self) -> bool {
        true
    }

    /// Rotates one name, or does a step of a run.
    ///
    /// # Errors
    /// As documented by the action; [`Error::Unavailable`].
    async fn apply(self, coffer: &Coffer, caller: &Caller) -> Result<RotationOutput, Error> {
        match self {
            Self::Name(one) => one.apply(coffer, caller).await,
            Self::Step(execution, RunStep::Begin(start)) => {
                let started = Box::pin(coffer.begin_run::<R>(&execution, &start)).await?;
                Ok(RotationOutput::Started(started))
            }
            Self::Step(execution, RunStep::Part(step)) => {
                let id = caller.request_id.as_str();
                let status = Box::pin(coffer.run_part::<R>(&execution, step, id)).await?;
                Ok(RotationOutput::Part(status))
            }
            Self::Step(execution, RunStep::End) => {
                let report = Box::pin(coffer.end_run::<R>(&execution)).await?;
                Ok(RotationOutput::Ended(Box::new(report)))
            }
        }
    }

    fn respond(output: RotationOutput) -> Result<Response, Error> {
        let answer = Response::json(&output)?;
        Ok(match output {
            RotationOutput::Renewed(RenewedName { version: Some(version), .. }) => {
                answer.of_version(VersionKey::from(version))
            }
            _ => answer,
        })
    }
}

impl RunStep {
    fn parse(step: &str, fields: &mut Fields) -> Result<Self, Error> {
        match step {
            "begin" => parse_start(fields).map(Self::Begin),
            "part" => {
                let number = fields.number("number")?.and_then(|number| number.try_into().ok());
                let seconds = fields.number("seconds")?;
                let seconds = seconds.filter(|seconds| *seconds <= MAX_SECONDS);
                let (Some(number), Some(seconds)) = (number, seconds) else {
                    return Err(Error::invalid(
                        "`number` must be the number of a part, and `seconds` must be 0 to 600.",
                    ));
                };
                let (stage, time) = (fields.required("stage")?, Duration::from_secs(seconds));
                Ok(Self::Part(PartStep { stage, number, time }))
            }
            "end" => Ok(Self::End),
            _ => Err(Error::invalid("`step` must be begin, part or end.")),
        }
    }
}

/// Reads the input that the execution was started with, and when.
fn parse_start(fields: &mut Fields) -> Result<RunStart, Error> {
    let missing = Error::invalid("`input` must be the input of the execution.");
    let mut input = fields.object("input", "input.")?.ok_or(missing)?;
    input.required::<Action>("action")?;
    let options =
        RunOptions { dry_run: input.flag("dry_run")?, hints: LegacyHints::parse(&mut input)? };
    let token = input.text("token")?;
    input.finish()?;
    Ok(RunStart { options, at: fields.required("started_at")?, token })
}

/// Reads the action and the name of a request, to find the function that does it.
///
/// # Errors
/// [`Error::Invalid`].
pub fn parse_target(fields: &mut Fields) -> Result<(Action, Name), Error> {
    Ok((fields.required("action")?, parse_name(fields)?))
}

fn parse_name(fields: &mut Fields) -> Result<Name, Error> {
    let name = fields.text("name")?.ok_or(Error::invalid(
        "`name` is required. To rotate everything, start the stack's state machine.",
    ))?;
    Name::of_any_client(&name)
}

#[cfg(test)]
mod tests {
    use super::super::{Renew, Reseal, Rewrap};
    use super::*;
    use crate::operations::parse;

    fn fields(json: &str) -> Fields {
        Fields::parse(json).unwrap()
    }

    fn name_of<R: RotationFunction>(json: &str) -> Option<String> {
        let request = parse::<RotationRequest<R>>(fields(json)).ok().unwrap();
        assert!(request.writes());
        request.name().map(|name| name.as_str().to_owned())
    }

    #[test]
    fn a_request_is_about_its_name_and_a_step_about_none() {
        let named = |action| format!(r#"{{"action":"{action}","name":"dev/db"}}"#);
        assert_eq!(name_of::<Rewrap>(&named("rewrap")).as_deref(), Some("dev/db"));
        assert_eq!(name_of::<Reseal>(&named("reseal")).as_deref(), Some("dev/db"));
        assert_eq!(name_of::<Renew>(&named("renew")).as_deref(), Some("dev/db"));
        let step = r#"{"action":"rewrap","step":"end","execution":"one"}"#;
        assert_eq!(name_of::<Rewrap>(step), None);
    }

    #[test]
    fn a_target_has_an_action_and_a_name() {
        let (action, name) =
            parse_target(&mut fields(r#"{"action":"renew","name":"a//b"}"#)).unwrap();
        // Another client may have used such a name.
        assert_eq!((action, name.as_str()), (Action::Renew, "a//b"));
        for (request, advice) in [
            (r#"{"action":"renew"}"#, "state machine"),
            (r#"{"action":"turn","name":"n"}"#, "rewrap, reseal or renew"),
            (r#"{"name":"n"}"#, "`action`"),
        ] {
            let error = parse_target(&mut fields(request)).unwrap_err();
            assert!(error.to_string().contains(advice), "{error}");
        }
    }
}
