//! The function list.

use std::process::ExitCode;

use coffer::operations::list::List;

fn main() -> ExitCode {
    coffer::lambda::run::<List>()
}
