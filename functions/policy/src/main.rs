//! The function policy.

use std::process::ExitCode;

use coffer::operations::policy::Policy;

fn main() -> ExitCode {
    coffer::lambda::run::<Policy>()
}
