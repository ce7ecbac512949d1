//! The function rewrap.

use std::process::ExitCode;

use coffer::operations::rotation::{Rewrap, RotationRequest};

fn main() -> ExitCode {
    coffer::lambda::run::<RotationRequest<Rewrap>>()
}
