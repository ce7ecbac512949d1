//! What is answered.

use std::collections::BTreeMap;

use coffer::generate::Shown as Rules;
use coffer::moment::Moment;
use coffer::operations::policy::Rotation;

#[derive(serde::Serialize)]
pub(crate) struct Shown<'a> {
    name: &'a str,
    schedule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<&'a str>,
    generate: Rules<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_rotation_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_rotated_at: Option<Moment>,
    /// True where the secret that it was put for is gone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    suspended: bool,
}

impl<'a> From<&'a Rotation> for Shown<'a> {
    fn from(rotation: &'a Rotation) -> Self {
        Self {
            name: rotation.name.as_str(),
            schedule: rotation.schedule.as_str(),
            timezone: rotation.schedule.zone(),
            generate: rotation.rules.shown(),
            context: rotation.context.as_ref().map(coffer::context::Context::pairs),
            next_rotation_at: rotation.due.filter(|_| !rotation.suspended),
            last_rotated_at: rotation.renewed_at,
            suspended: rotation.suspended,
        }
    }
}

#[derive(serde::Serialize)]
pub(crate) struct Cancelled<'a> {
    pub(crate) name: &'a str,
}
