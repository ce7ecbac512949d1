//! rewrap: wraps data keys anew, by KMS, which alone sees them.

use std::process::ExitCode;

use coffer::lambda;
use coffer::operations::executor::Action;
use rotate::{Acts, Request};

struct Rewrap;

impl Acts for Rewrap {
    const ACTION: Action = Action::Rewrap;
}

fn main() -> ExitCode {
    lambda::run::<Request<Rewrap>>()
}
