//! The function rotate: relays each request to rewrap, reseal or renew, each with its own role.

use std::process::ExitCode;

use coffer::error::Error;
use coffer::fields::Fields;
use coffer::lambda::relay::{Relay, relay};
use coffer::name::Name;
use coffer::operations::rotation::parse_target;

struct Rotate;

impl Relay for Rotate {
    const NAME: &'static str = "rotate";

    fn parse(fields: &mut Fields) -> Result<(&'static str, Name), Error> {
        let (action, name) = parse_target(fields)?;
        Ok((action.as_str(), name))
    }
}

fn main() -> ExitCode {
    relay::<Rotate>()
}
