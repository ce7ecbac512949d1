//! list: names with their newest version, the versions of one name, its history, or the report of a
//! run.

mod descriptions;

use crate::audit_chain::{Broken, Caller};
use crate::cursor::Cursor;
use crate::description::Description;
use crate::error::Error;
use crate::fields::{DEFAULT_LIMIT, Fields};
use crate::name::{Name, Prefix};
use crate::request::Response;

use super::history::{Event, Verified};
use super::rotation::action::Action;
use super::rotation::report::Report;
use super::{Coffer, Operation};
pub(super) use descriptions::ListPage;

/// A request to list something.
#[derive(Debug)]
pub enum List {
    /// The names, all or under a prefix.
    Names(Option<Prefix>, Paging),
    /// The versions of a name.
    Versions(Name, Paging),
    /// The history of a name.
    History(Name, Paging),
    /// Whether the history of a name is whole.
    Verify(Name),
    /// The report of the latest run of an action.
    Report(Action, Paging),
}

/// Which page of a list to return.
#[derive(Debug)]
pub struct Paging {
    /// Where the list continues.
    pub next: Option<Cursor>,
    /// The most entries of the page.
    pub limit: u32,
}

/// A response of list.
#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
pub enum Listed {
    /// Names.
    Secrets {
        /// The newest version of each name.
        secrets: Vec<Description>,
        /// Where the list continues.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<Cursor>,
    },
    /// Versions of a name.
    Versions {
        /// The versions, highest first.
        versions: Vec<Description>,
        /// Where the list continues.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<Cursor>,
    },
    /// The history of a name.
    Events {
        /// The events, newest first.
        events: Vec<Event>,
        /// Where the list continues.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<Cursor>,
    },
    /// The result of verifying a history.
    Verified {
        /// The name of the secret.
        name: Name,
        /// Whether every entry is as it was written.
        whole: bool,
        /// The number of entries.
        entries: u64,
        /// The entries that are not as they were written.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        broken: Vec<Broken>,
    },
    /// The report of a run.
    Report {
        /// The report.
        #[serde(flatten)]
        report: Box<Report>,
        /// Where the failures continue.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<Cursor>,
    },
}

impl Operation for List {
    const NAME: &'static str = "list";

    type Output = Listed;

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let name = fields.text("name")?.map(|name| Name::of_any_client(&name)).transpose()?;
        let prefix = fields.parsed("prefix")?;
        let resource = fields.resource("list")?;
        let history = resource.as_deref() == Some("history");
        if history && fields.flag("verify")? {
            let name = name.ok_or(Error::invalid("`verify` requires the `name` of a secret."))?;
            return Ok(Self::Verify(name));
        }
        let limit = fields.limit("limit")?.unwrap_or(DEFAULT_LIMIT);
        let paging = Paging { next: fields.parsed("next")?, limit };
        if matches!(resource.as_deref(), Some("report" | "reports")) {
            return Ok(Self::Report(fields.required("action")?, paging));
        }
        match (resource.as_deref(), name, prefix) {
            (None | Some("names"), None, prefix) => Ok(Self::Names(prefix, paging)),
            (None | Some("versions"), Some(name), None) => Ok(Self::Versions(name, paging)),
            (Some("history"), Some(name), None) => Ok(Self::History(name, paging)),
            _ => Err(Error::invalid(
                "`list` must be names (all, or with a `prefix`), versions or history (with a \
                 `name`), or report (with an `action`).",
            )),
        }
    }

    fn name(&self) -> Option<&Name> {
        match self {
            Self::Names(prefix, _) => prefix.as_ref().map(Prefix::name),
            Self::Report(..) => None,
            Self::Versions(name, _) | Self::History(name, _) | Self::Verify(name) => Some(name),
        }
    }

    fn writes(&self) -> bool {
        false
    }

    /// Lists names, versions, events or failures, or verifies a history.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown name or run; [`Error::Invalid`] for an invalid cursor;
    /// [`Error::Unavailable`].
    async fn apply(self, coffer: &Coffer, _: &Caller) -> Result<Listed, Error> {
        Ok(match self {
            Self::Names(prefix, paging) => {
                let (after, limit) = paging.into_parts();
                let page = coffer.list_names(prefix.as_ref(), after, limit).await?;
                Listed::Secrets { secrets: page.descriptions, next: page.next.map(Cursor) }
            }
            Self::Versions(name, paging) => {
                let (after, limit) = paging.into_parts();
                let page = coffer.list_versions(&name, after, limit).await?;
                Listed::Versions { versions: page.descriptions, next: page.next.map(Cursor) }
            }
            Self::History(name, paging) => {
                let (after, limit) = paging.into_parts();
                let page = coffer.history(&name, after, limit).await?;
                Listed::Events { events: page.events, next: page.next.map(Cursor) }
            }
            Self::Verify(name) => {
                let Verified { entries, broken } = coffer.verify(&name).await?;
                Listed::Verified { name, whole: broken.is_empty(), entries, broken }
            }
            Self::Report(action, paging) => {
                let (after, limit) = paging.into_parts();
                let mut report = Box::new(coffer.report(action, after, limit).await?);
                let next = report.next.take().map(Cursor);
                Listed::Report { report, next }
            }
        })
    }

    fn respond(listed: Listed) -> Result<Response, Error> {
        Response::json(&listed)
    }
}

impl Paging {
    fn into_parts(self) -> (Option<crate::store::item::Key>, u32) {
        (self.next.map(|cursor| cursor.0), self.limit)
    }
}
