//! get: opens one version of a secret, or the current one of every secret under a prefix.

mod many;
mod one;

use std::process::ExitCode;

use coffer::chain::Caller;
use coffer::envelope::Dialect;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::lambda::{self, Operation};
use coffer::name::{Name, Prefix, Stage};
use coffer::operations::Coffer;
use coffer::operations::get::OpenedSecret;
use coffer::operations::list::Description;
use coffer::secret::{Secret, reveal};

enum Request {
    One(one::Request),
    Many(many::Request),
}

/// A version that was opened, as it is answered.
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

impl From<OpenedSecret> for Opened {
    fn from(got: OpenedSecret) -> Self {
        Self {
            description: Description { context: None, ..got.description },
            secret: got.secret,
            stages: got.stages,
            dialect: got.dialect.map(Dialect::as_str),
        }
    }
}

impl Operation for Request {
    const NAME: &'static str = "get";

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let everything = fields.is_resource("bundle").then(Prefix::all);
        match fields.parsed("prefix")?.or(everything) {
            None => one::Request::parse(fields).map(Self::One),
            Some(prefix) => many::Request::parse(prefix, fields).map(Self::Many),
        }
    }

    fn name(&self) -> Option<&Name> {
        match self {
            Self::One(one) => Some(&one.name),
            Self::Many(many) => Some(many.prefix.name()),
        }
    }

    fn writes(&self) -> bool {
        false
    }

    async fn apply(self, coffer: &Coffer, _: &Caller) -> Result<Answer, Error> {
        match self {
            Self::One(one) => one.apply(coffer).await,
            Self::Many(many) => many.apply(coffer).await,
        }
    }
}

fn main() -> ExitCode {
    lambda::run::<Request>()
}
