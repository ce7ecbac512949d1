//! list: names with their newest version, the versions of one name, what was done to it, or how a
//! rotation stands.

mod answer;

use std::process::ExitCode;

use coffer::chain::Caller;
use coffer::cursor::Cursor;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::lambda::{self, Operation};
use coffer::name::{Name, Prefix};
use coffer::operations::Coffer;
use coffer::operations::executor::Action;

use crate::answer::{Found, Listed, Reported, Verified};

enum Request {
    Names(Option<Prefix>, Page),
    Versions(Name, Page),
    History(Name, Page),
    Verify(Name),
    Report(Action, Page),
}

struct Page {
    next: Option<Cursor>,
    limit: u32,
}

impl Operation for Request {
    const NAME: &'static str = "list";

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let name = fields.text("name")?.map(|name| Name::of_any_client(&name)).transpose()?;
        let prefix = fields.parsed("prefix")?;
        let resource = fields.resource("list")?;
        let history = resource.as_deref() == Some("history");
        if history && fields.flag("verify")? {
            let name = name.ok_or(Error::invalid("`name` says whose history to verify."))?;
            return Ok(Self::Verify(name));
        }
        let limit = fields.limit("limit")?.unwrap_or(Coffer::DEFAULT_LIMIT);
        let page = Page { next: fields.parsed("next")?, limit };
        if matches!(resource.as_deref(), Some("report" | "reports")) {
            return Ok(Self::Report(fields.required("action")?, page));
        }
        match (resource.as_deref(), name, prefix) {
            (None | Some("names"), None, prefix) => Ok(Self::Names(prefix, page)),
            (None | Some("versions"), Some(name), None) => Ok(Self::Versions(name, page)),
            (Some("history"), Some(name), None) => Ok(Self::History(name, page)),
            _ => Err(Error::invalid(
                "`list` is names, of all or of a `prefix`, versions or history of a `name`, or \
                 report of an `action`.",
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

    async fn apply(self, coffer: &Coffer, _: &Caller) -> Result<Answer, Error> {
        let after = |page: &mut Page| page.next.take().map(|cursor| cursor.0);
        let (found, next) = match self {
            Self::Names(prefix, mut page) => {
                let listed = coffer.list(prefix.as_ref(), after(&mut page), page.limit).await?;
                (Found::Secrets(listed.descriptions), listed.next)
            }
            Self::Versions(name, mut page) => {
                let listed = coffer.versions(&name, after(&mut page), page.limit).await?;
                (Found::Versions(listed.descriptions), listed.next)
            }
            Self::History(name, mut page) => {
                let told = coffer.history(&name, after(&mut page), page.limit).await?;
                (Found::Events(told.events), told.next)
            }
            Self::Report(action, mut page) => {
                let after = after(&mut page);
                let mut report = coffer.report(action, after, page.limit).await?;
                let next = report.next.take().map(Cursor);
                return Answer::json(&Reported { report, next });
            }
            Self::Verify(name) => {
                let verified = coffer.verify(&name).await?;
                return Answer::json(&Verified {
                    name: name.as_str(),
                    whole: verified.broken.is_empty(),
                    entries: verified.entries,
                    broken: verified.broken,
                });
            }
        };
        Answer::json(&Listed { found, next: next.map(Cursor) })
    }
}

fn main() -> ExitCode {
    lambda::run::<Request>()
}
