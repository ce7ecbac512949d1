//! put: seals a value as the next version of a secret, or several at once.

mod many;
mod one;

use std::process::ExitCode;

use coffer::chain::Caller;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::lambda::{self, Operation};
use coffer::name::{Label, Name, Prefix};
use coffer::operations::Coffer;
use coffer::operations::put::{Put, Stored};
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
            None => vec![one::parse(fields)?],
            Some(prefix) => many::parse(prefix, fields)?,
        };
        Ok(Self { puts, prefix, token })
    }

    fn name(&self) -> Option<&Name> {
        let one = self.puts.first().map(|put| &put.name);
        self.prefix.as_ref().map(Prefix::name).or(one)
    }

    fn writes(&self) -> bool {
        true
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

fn main() -> ExitCode {
    lambda::run::<Request>()
}
