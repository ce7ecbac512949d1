//! What is answered.

use coffer::chain::Broken;
use coffer::cursor::Cursor;
use coffer::operations::history::Event;
use coffer::operations::list::Description;
use coffer::operations::run::Report;

#[derive(serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Found {
    Secrets(Vec<Description>),
    Versions(Vec<Description>),
    Events(Vec<Event>),
}

#[derive(serde::Serialize)]
pub(crate) struct Listed {
    #[serde(flatten)]
    pub(crate) found: Found,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<Cursor>,
}

#[derive(serde::Serialize)]
pub(crate) struct Verified<'a> {
    pub(crate) name: &'a str,
    pub(crate) whole: bool,
    pub(crate) entries: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) broken: Vec<Broken>,
}

#[derive(serde::Serialize)]
pub(crate) struct Reported {
    #[serde(flatten)]
    pub(crate) report: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<Cursor>,
}
