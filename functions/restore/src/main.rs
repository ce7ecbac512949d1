//! The function restore.

use std::process::ExitCode;

use coffer::operations::restore::Restore;

fn main() -> ExitCode {
    coffer::lambda::run::<Restore>()
}
