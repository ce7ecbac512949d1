//! rotation: rewrap, reseal and renew, in runs over the whole stack or for one name.
//!
//! | module | what |
//! |---|---|
//! | `action` | the three actions, and the reasons why an item is not changed |
//! | `plan` | the trait that the actions implement: list a page, plan, apply |
//! | `version_rotation`, `versions` | what rewrap and reseal share: their items are versions |
//! | `rewrap`, `reseal`, `pad`, `renew` | the actions |
//! | `executor` | plans and applies the changes of one page |
//! | `run` | begins and ends a run |
//! | `part`, `recheck` | the two stages of a part of a run |
//! | `checkpoint`, `tally` | the progress and the marks of a part, and its counts |
//! | `report` | what a run has done |
//! | `one_name` | rewraps or reseals one name at once |
//! | `request` | the requests to the functions |

pub mod action;
mod checkpoint;
mod executor;
mod one_name;
mod pad;
mod part;
mod plan;
mod recheck;
mod renew;
pub mod report;
mod request;
mod reseal;
mod rewrap;
mod run;
mod tally;
#[cfg(test)]
mod tests;
mod version_rotation;
mod versions;

pub use renew::Renew;
pub use request::{RotationRequest, parse_target};
pub use reseal::Reseal;
pub use rewrap::Rewrap;
