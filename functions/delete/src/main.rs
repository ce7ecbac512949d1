//! The function delete.

use std::process::ExitCode;

use coffer::operations::delete::Delete;

fn main() -> ExitCode {
    coffer::lambda::run::<Delete>()
}
