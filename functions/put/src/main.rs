//! The function put.

use std::process::ExitCode;

use coffer::operations::put::Put;

fn main() -> ExitCode {
    coffer::lambda::run::<Put>()
}
