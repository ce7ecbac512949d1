//! rotate: the one door of all rotations; each is done by a function with a role of its own.

use std::process::ExitCode;

use coffer::error::Error;
use coffer::fields::Fields;
use coffer::lambda::relay::{Relay, relay};
use coffer::name::Name;
use coffer::operations::executor::Action;

struct Rotate;

impl Relay for Rotate {
    const NAME: &'static str = "rotate";

    fn parse(fields: &mut Fields) -> Result<(&'static str, Name), Error> {
        let action: Action = fields.required("action")?;
        let name = fields.text("name")?.ok_or(Error::invalid(
            "`name` is required. To rotate everything, start the stack's state machine.",
        ))?;
        Ok((action.as_str(), Name::of_any_client(&name)?))
    }
}

fn main() -> ExitCode {
    relay::<Rotate>()
}
