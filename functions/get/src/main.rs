//! get: opens one version of a secret.

use std::process::ExitCode;

use coffer::coffer::{Coffer, Description, Which};
use coffer::context::Context;
use coffer::envelope::Dialect;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::lambda::{self, Operation};
use coffer::name::{Name, Stage};
use coffer::secret::{Secret, reveal};

struct Request {
    name: Name,
    which: Which,
    context: Context,
    bare: bool,
}

#[derive(serde::Serialize)]
struct Opened {
    #[serde(flatten)]
    description: Description,
    #[serde(flatten, serialize_with = "reveal")]
    secret: Secret,
    #[serde(skip_serializing_if = "Option::is_none")]
    stages: Option<Vec<Stage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dialect: Option<&'static str>,
}

impl Operation for Request {
    const NAME: &'static str = "get";

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        Ok(Self {
            name: Name::of_any_client(&fields.required_text("name")?)?,
            which: which(fields)?,
            context: fields.context("context")?,
            bare: match fields.text("format")?.as_deref() {
                None | Some("json") => false,
                Some("text") => true,
                Some(_) => return Err(Error::invalid("`format` is json or text.")),
            },
        })
    }

    fn name(&self) -> Option<&Name> {
        Some(&self.name)
    }

    async fn apply(self, coffer: &Coffer) -> Result<Answer, Error> {
        let got = coffer.get(&self.name, &self.which, &self.context).await?;
        let version = got.description.version.clone();
        if self.bare {
            return Ok(Answer::bare(got.secret).of_version(version));
        }
        let answer = Answer::json(&Opened {
            description: Description { context: None, ..got.description },
            secret: got.secret,
            stages: got.stages,
            dialect: got.dialect.map(Dialect::as_str),
        })?;
        Ok(answer.of_version(version))
    }
}

fn which(fields: &mut Fields) -> Result<Which, Error> {
    let version = fields.number_or_text("version")?.map(|text| text.parse()).transpose()?;
    let revision = fields.parsed("revision")?;
    let stage = fields.parsed("stage")?;
    match (version, revision, stage) {
        (None, None, None) => Ok(Which::Stage(Stage::Current)),
        (Some(label), None, None) => Ok(Which::Version(label)),
        (None, Some(revision), None) => Ok(Which::Revision(revision)),
        (None, None, Some(stage)) => Ok(Which::Stage(stage)),
        _ => Err(Error::invalid("Give at most one of `version`, `revision` and `stage`.")),
    }
}

fn main() -> ExitCode {
    lambda::run::<Request>()
}
