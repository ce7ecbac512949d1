//! The function renew.

use std::process::ExitCode;

use coffer::operations::rotation::{Renew, RotationRequest};

fn main() -> ExitCode {
    coffer::lambda::run::<RotationRequest<Renew>>()
}
