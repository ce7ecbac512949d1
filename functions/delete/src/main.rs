//! delete: moves a secret, or one version of it, to the ledger, or removes it for good.

use std::process::ExitCode;

use coffer::chain::Caller;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::lambda::{self, Operation};
use coffer::moment::Moment;
use coffer::name::{Label, Name};
use coffer::operations::Coffer;
use coffer::operations::delete::{Delete, Recovery};

struct Request(Delete);

#[derive(serde::Serialize)]
struct Deleted<'a> {
    name: &'a str,
    versions: Vec<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recoverable_until: Option<Moment>,
}

impl Operation for Request {
    const NAME: &'static str = "delete";

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let name = Name::of_any_client(&fields.required_text("name")?)?;
        let version = fields.number_or_text("version")?.map(|text| text.parse()).transpose()?;
        let days = fields.number("recovery_window_in_days")?.map(u32::try_from);
        let recovery = match (fields.flag("force")?, days) {
            (true, None) => Recovery::None,
            (false, None) => Recovery::Days(Recovery::MAX_DAYS),
            (false, Some(Ok(days @ Recovery::MIN_DAYS..=Recovery::MAX_DAYS))) => {
                Recovery::Days(days)
            }
            _ => {
                return Err(Error::invalid(
                    "`recovery_window_in_days` is 7 to 30, and none with `force`.",
                ));
            }
        };
        Ok(Self(Delete { name, version, recovery }))
    }

    fn name(&self) -> Option<&Name> {
        Some(&self.0.name)
    }

    fn writes(&self) -> bool {
        true
    }

    async fn apply(self, coffer: &Coffer, caller: &Caller) -> Result<Answer, Error> {
        let deleted = coffer.delete(self.0, caller).await?;
        Answer::json(&Deleted {
            name: deleted.name.as_str(),
            versions: deleted.versions,
            recoverable_until: deleted.until,
        })
    }
}

fn main() -> ExitCode {
    lambda::run::<Request>()
}
