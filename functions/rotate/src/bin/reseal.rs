//! The function reseal.

use std::process::ExitCode;

use coffer::operations::rotation::{Reseal, RotationRequest};

fn main() -> ExitCode {
    coffer::lambda::run::<RotationRequest<Reseal>>()
}
