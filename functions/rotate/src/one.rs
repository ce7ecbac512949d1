//! A rotation of one name, at once.

use coffer::chain::Caller;
use coffer::cursor::Cursor;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::name::{Label, Name, Revision, Version};
use coffer::operations::Coffer;
use coffer::operations::executor::Action;
use coffer::operations::legacy_hints::LegacyHints;
use coffer::operations::run::{Report, RunOptions};
use coffer::store::ledger::Token;

pub(crate) struct Request {
    pub(crate) name: Name,
    asked: RunOptions,
    next: Option<Cursor>,
    token: Option<Token>,
}

#[derive(serde::Serialize)]
struct Rotated<'a> {
    name: &'a str,
    #[serde(flatten)]
    report: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Cursor>,
}

#[derive(serde::Serialize)]
struct Renewed<'a> {
    name: &'a str,
    action: &'static str,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<Revision>,
}

impl Request {
    pub(crate) fn parse(action: Action, fields: &mut Fields) -> Result<Self, Error> {
        let name = fields.text("name")?.ok_or(Error::invalid(
            "`name` is required. To rotate everything, start the stack's state machine.",
        ))?;
        let renews = action == Action::Renew;
        Ok(Self {
            name: Name::of_any_client(&name)?,
            asked: RunOptions {
                dry_run: fields.flag("dry_run")?,
                hints: if renews { LegacyHints::default() } else { fields.contexts()? },
            },
            next: if renews { None } else { fields.parsed("next")? },
            token: if renews { fields.parsed("token")? } else { None },
        })
    }

    pub(crate) async fn apply(
        self,
        action: Action,
        coffer: &Coffer,
        caller: &Caller,
    ) -> Result<Answer, Error> {
        let Self { name, asked, next, token } = self;
        if action == Action::Renew {
            let stored = coffer.renew(&name, asked.dry_run, token, caller).await?;
            let version = stored.as_ref().map(|stored| stored.version);
            let answer = Answer::json(&Renewed {
                name: name.as_str(),
                action: action.as_str(),
                dry_run: asked.dry_run,
                version,
                revision: stored.map(|stored| stored.revision),
            })?;
            return Ok(match version {
                Some(version) => answer.of_version(Label::from(version)),
                None => answer,
            });
        }
        let after = next.map(|cursor| cursor.0);
        let mut report = coffer.rotate(action, &name, &asked, after, caller).await?;
        let next = report.next.take().map(Cursor);
        Answer::json(&Rotated { name: name.as_str(), report, next })
    }
}
