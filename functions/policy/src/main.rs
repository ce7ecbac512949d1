//! policy: says when a secret is renewed, and with what kind of value.

mod answer;

use std::process::ExitCode;

use coffer::chain::Caller;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::generate::Rules;
use coffer::lambda::{self, Operation};
use coffer::name::Name;
use coffer::operations::Coffer;
use coffer::operations::policy::Rotation;
use coffer::schedule::Schedule;

use crate::answer::{Cancelled, Shown};

enum Request {
    Put(Box<Rotation>),
    Get(Name),
    Cancel(Name),
}

impl Operation for Request {
    const NAME: &'static str = "policy";

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let methods = [("PUT", "put"), ("GET", "get"), ("DELETE", "cancel")];
        match fields.verb("policy", &methods)?.as_deref() {
            Some("put") => put(fields).map(Box::new).map(Self::Put),
            Some("get") => fields.required("name").map(Self::Get),
            Some("cancel") => fields.required("name").map(Self::Cancel),
            _ => Err(Error::invalid("`policy` is put, get or cancel.")),
        }
    }

    fn name(&self) -> Option<&Name> {
        match self {
            Self::Put(rotation) => Some(&rotation.name),
            Self::Get(name) | Self::Cancel(name) => Some(name),
        }
    }

    fn writes(&self) -> bool {
        matches!(self, Self::Put(_) | Self::Cancel(_))
    }

    async fn apply(self, coffer: &Coffer, caller: &Caller) -> Result<Answer, Error> {
        match self {
            Self::Put(asked) => {
                Answer::json(&Shown::from(&coffer.put_policy(*asked, caller).await?))
            }
            Self::Get(name) => Answer::json(&Shown::from(&coffer.policy(&name).await?)),
            Self::Cancel(name) => {
                coffer.cancel(&name, caller).await?;
                Answer::json(&Cancelled { name: name.as_str() })
            }
        }
    }
}

fn put(fields: &mut Fields) -> Result<Rotation, Error> {
    let name: Name = fields.required("name")?;
    let (text, days) = (fields.text("schedule")?, fields.number("days")?);
    let zone = fields.text("timezone")?;
    let schedule = match (text, days) {
        (Some(text), None) => Schedule::new(&text, zone.as_deref())?,
        (None, Some(days)) if zone.is_none() => Schedule::every(days)?,
        _ => {
            return Err(Error::invalid(
                "Give one of `schedule` and `days`, and `timezone` with a `cron` schedule alone.",
            ));
        }
    };
    let rules = match fields.rules()? {
        Some(rules) => rules,
        None => Rules::plain()?,
    };
    let context = fields.optional_context("context")?;
    Rotation::new(name, schedule, rules, context)
}

fn main() -> ExitCode {
    lambda::run::<Request>()
}
