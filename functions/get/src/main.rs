//! The function get.

use std::process::ExitCode;

use coffer::operations::get::Get;

fn main() -> ExitCode {
    coffer::lambda::run::<Get>()
}
