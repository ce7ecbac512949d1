//! The current version of every secret under a prefix.

use coffer::cursor::Cursor;
use coffer::document::{Format, Variables};
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::name::Prefix;
use coffer::operations::Coffer;
use coffer::operations::bundle::BundleContexts;

use crate::Opened;

pub(crate) struct Request {
    pub(crate) prefix: Prefix,
    contexts: BundleContexts,
    how: How,
}

enum How {
    /// Everything in one document, variables in upper case or as they are.
    Whole(Format, bool),
    /// In pages, with all that is known of each.
    Pages(Option<Cursor>, u32),
}

#[derive(serde::Serialize)]
struct Bundle {
    secrets: Vec<Opened>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Cursor>,
}

impl Request {
    pub(crate) fn parse(prefix: Prefix, fields: &mut Fields) -> Result<Self, Error> {
        let next = fields.parsed("next")?;
        let limit = fields.limit("limit")?;
        let format: Option<Format> = fields.parsed("format")?;
        let uppercase = fields.optional_flag("uppercase")?;
        if uppercase.is_some() && !format.is_some_and(Format::has_variables) {
            return Err(Error::invalid("`uppercase` goes with `format` dotenv or env-file."));
        }
        let how = match (format, &next, limit) {
            (None, _, limit) => How::Pages(next, limit.unwrap_or(Coffer::DEFAULT_LIMIT)),
            (Some(format), None, None) => How::Whole(format, uppercase.unwrap_or(true)),
            _ => {
                return Err(Error::invalid(
                    "With `format` the answer is one whole document. Leave `next` and `limit` out.",
                ));
            }
        };
        let (contexts, rest) = (fields.contexts_by_name("contexts")?, fields.context("context")?);
        let contexts = BundleContexts::new(contexts, rest, fields.flag("only_context")?);
        Ok(Self { prefix, contexts, how })
    }

    pub(crate) async fn apply(self, coffer: &Coffer) -> Result<Answer, Error> {
        let Self { prefix, contexts, how } = self;
        match how {
            How::Whole(format, uppercase) => {
                let secrets = coffer.whole_bundle(&prefix, &contexts).await?;
                format.write(&secrets, Variables { prefix: &prefix, uppercase })
            }
            How::Pages(next, limit) => {
                let after = next.map(|cursor| cursor.0);
                let bundle = coffer.bundle(&prefix, &contexts, after, limit).await?;
                let secrets = bundle.secrets.into_iter().map(Opened::from).collect();
                Answer::json(&Bundle { secrets, next: bundle.next.map(Cursor) })
            }
        }
    }
}
