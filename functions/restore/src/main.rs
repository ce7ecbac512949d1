//! restore: brings back a secret that was deleted, or one version of it.

use std::process::ExitCode;

use coffer::chain::Caller;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::lambda::{self, Operation};
use coffer::name::{Label, Name};
use coffer::operations::Coffer;
use coffer::operations::restore::Restore;

struct Request(Restore);

#[derive(serde::Serialize)]
struct Restored<'a> {
    name: &'a str,
    versions: Vec<Label>,
}

impl Operation for Request {
    const NAME: &'static str = "restore";

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let restore = Restore {
            name: Name::of_any_client(&fields.required_text("name")?)?,
            version: fields.number_or_text("version")?.map(|text| text.parse()).transpose()?,
            deleted_before: fields.moment("deleted_before")?,
            before_reseal: fields.flag("before_reseal")?,
        };
        if restore.before_reseal && restore.version.is_none() {
            return Err(Error::invalid("`before_reseal` needs the `version` that was resealed."));
        }
        Ok(Self(restore))
    }

    fn name(&self) -> Option<&Name> {
        Some(&self.0.name)
    }

    fn writes(&self) -> bool {
        true
    }

    async fn apply(self, coffer: &Coffer, caller: &Caller) -> Result<Answer, Error> {
        let restored = coffer.restore(self.0, caller).await?;
        Answer::json(&Restored { name: restored.name.as_str(), versions: restored.versions })
    }
}

fn main() -> ExitCode {
    lambda::run::<Request>()
}
