//! renew: gives secrets with a rotation policy a new value.

use std::process::ExitCode;

use coffer::lambda;
use coffer::operations::executor::Action;
use rotate::{Acts, Request};

struct Renew;

impl Acts for Renew {
    const ACTION: Action = Action::Renew;
}

fn main() -> ExitCode {
    lambda::run::<Request<Renew>>()
}
