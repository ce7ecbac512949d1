//! reseal: gives a seal to rows that other clients wrote.

use std::process::ExitCode;

use coffer::lambda;
use coffer::operations::executor::Action;
use rotate::{Acts, Request};

struct Reseal;

impl Acts for Reseal {
    const ACTION: Action = Action::Reseal;
}

fn main() -> ExitCode {
    lambda::run::<Request<Reseal>>()
}
