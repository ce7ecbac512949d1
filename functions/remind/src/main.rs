//! remind: tells, ahead of time and once, that a version expires.

use std::process::ExitCode;

use coffer::chain::Caller;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::lambda::{self, Operation};
use coffer::name::Name;
use coffer::operations::Coffer;

struct Request;

#[derive(serde::Serialize)]
struct Reminded {
    notices: u64,
}

impl Operation for Request {
    const NAME: &'static str = "remind";

    fn parse(_: &mut Fields) -> Result<Self, Error> {
        Ok(Self)
    }

    fn name(&self) -> Option<&Name> {
        None
    }

    fn writes(&self) -> bool {
        true
    }

    async fn apply(self, coffer: &Coffer, _: &Caller) -> Result<Answer, Error> {
        Answer::json(&Reminded { notices: coffer.remind().await? })
    }
}

fn main() -> ExitCode {
    lambda::run::<Request>()
}
