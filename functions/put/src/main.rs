//! put: seals a value as the next version of a secret, or several at once.

use std::process::ExitCode;

use coffer::chain::Caller;
use coffer::coffer::Coffer;
use coffer::coffer::put::{Expiry, Put, Stored, Value};
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::lambda::{self, Operation};
use coffer::name::{Label, Name, Prefix, Version};
use coffer::store::ledger::Token;

struct Request {
    puts: Vec<Put>,
    prefix: Option<Prefix>,
    token: Option<Token>,
}

#[derive(serde::Serialize)]
struct Several {
    secrets: Vec<Stored>,
}

impl Operation for Request {
    const NAME: &'static str = "put";

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let token = fields.parsed("token")?;
        let prefix = fields.parsed("prefix")?;
        let puts = match &prefix {
            None => vec![one(fields)?],
            Some(prefix) => several(prefix, fields)?,
        };
        Ok(Self { puts, prefix, token })
    }

    fn name(&self) -> Option<&Name> {
        let one = self.puts.first().map(|put| &put.name);
        self.prefix.as_ref().map(Prefix::name).or(one)
    }

    async fn apply(self, coffer: &Coffer, caller: &Caller) -> Result<Answer, Error> {
        let secrets = coffer.put(self.puts, self.token, caller).await?;
        match secrets.as_slice() {
            [stored] if self.prefix.is_none() => {
                Ok(Answer::json(stored)?.of_version(Label::from(stored.version)))
            }
            _ => Answer::json(&Several { secrets }),
        }
    }
}

fn one(fields: &mut Fields) -> Result<Put, Error> {
    Ok(Put {
        name: fields.required("name")?,
        value: value(fields)?,
        context: fields.context("context")?,
        comment: fields.text("comment")?,
        expiry: expiry(fields)?,
        version: fields.number("version")?.map(Version::checked).transpose()?,
    })
}

fn several(prefix: &Prefix, fields: &mut Fields) -> Result<Vec<Put>, Error> {
    let each = |mut fields: Fields| {
        let put = one(&mut fields)?;
        fields.finish().map(|()| put)
    };
    let puts: Vec<_> =
        fields.several("secrets")?.into_iter().map(each).collect::<Result<_, _>>()?;
    let mut names: Vec<_> = puts.iter().map(|put| &put.name).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() < puts.len() {
        return Err(Error::invalid("A name is there twice. Put each secret once."));
    }
    if !names.into_iter().all(|name| prefix.covers(name)) {
        return Err(Error::invalid(
            "Each name in `secrets` is given whole and begins with the prefix: `dev` covers `dev`, \
             `dev/db` and `dev.db`.",
        ));
    }
    Ok(puts)
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

fn expiry(fields: &mut Fields) -> Result<Option<Expiry>, Error> {
    match (fields.moment("expires_at")?, fields.number("ttl")?) {
        (None, None) => Ok(None),
        (Some(end), None) => Ok(Some(Expiry::At(end))),
        (None, Some(seconds)) => Ok(Some(Expiry::After(seconds))),
        (Some(_), Some(_)) => Err(Error::invalid("Give one of `expires_at` and `ttl`.")),
    }
}

fn main() -> ExitCode {
    lambda::run::<Request>()
}
