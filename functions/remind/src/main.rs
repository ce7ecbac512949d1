//! The function remind.

use std::process::ExitCode;

use coffer::operations::remind::Remind;

fn main() -> ExitCode {
    coffer::lambda::run::<Remind>()
}
