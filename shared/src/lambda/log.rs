//! The log, and what must not reach it.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// Logs one JSON object a line, from this crate alone: the SDK and the runtime print requests and
/// bodies at their lower levels, and errors that are logged here already.
pub(super) fn init(level: LevelFilter) {
    let own = Targets::new().with_target(env!("CARGO_CRATE_NAME"), level);
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_target(false);
    tracing_subscriber::registry().with(lines.with_filter(own)).init();
}

/// Keeps secrets out of core files and panic messages. A panic ends the process, and the log shows
/// only where it happened.
pub(super) fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panicked");
    }));
    if let Err(error) = limited.and(hidden) {
        tracing::warn!(detail = %error, "core files could not be turned off");
    }
}
