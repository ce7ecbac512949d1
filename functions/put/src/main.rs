//! put: seals a value as the next version of a secret.

use std::process::ExitCode;

use coffer::coffer::{Coffer, Put, Value};
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::lambda::{self, Operation};
use coffer::moment::Moment;
use coffer::name::{Label, Name, Revision, Version};

struct Request(Put);

#[derive(serde::Serialize)]
struct Stored<'a> {
    name: &'a str,
    version: u64,
    revision: &'a Revision,
}

impl Operation for Request {
    const NAME: &'static str = "put";

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        Ok(Self(Put {
            name: fields.required("name")?,
            value: value(fields)?,
            context: fields.context("context")?,
            comment: fields.text("comment")?,
            expires_at: expiry(fields)?,
            version: fields.number("version")?.map(Version::checked).transpose()?,
        }))
    }

    fn name(&self) -> Option<&Name> {
        Some(&self.0.name)
    }

    async fn apply(self, coffer: &Coffer) -> Result<Answer, Error> {
        let stored = coffer.put(self.0).await?;
        let answer = Answer::json(&Stored {
            name: stored.name.as_str(),
            version: stored.version.number(),
            revision: &stored.revision,
        })?;
        Ok(answer.of_version(Label::from(stored.version)))
    }
}

fn value(fields: &mut Fields) -> Result<Value, Error> {
    let text = fields.secret("secret")?.map(Value::Given);
    let bytes = fields.secret_base64("secret_base64")?.map(Value::Given);
    let generated = fields.rules()?.map(Value::Generated);
    let mut given = [text, bytes, generated].into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(Error::invalid("Give one of `secret`, `secret_base64` and `generate`.")),
    }
}

fn expiry(fields: &mut Fields) -> Result<Option<Moment>, Error> {
    let now = Moment::now();
    match (fields.moment("expires_at")?, fields.number("ttl")?) {
        (None, None) => Ok(None),
        (Some(end), None) if end > now => Ok(Some(end)),
        (None, Some(seconds @ 1..)) if now.after(seconds).is_some() => Ok(now.after(seconds)),
        (Some(_), Some(_)) => Err(Error::invalid("Give one of `expires_at` and `ttl`.")),
        _ => Err(Error::invalid("`expires_at` is in the future, `ttl` 1 second or more.")),
    }
}

fn main() -> ExitCode {
    lambda::run::<Request>()
}
