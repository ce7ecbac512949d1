//! The current version of every secret under a prefix.

use coffer::coffer::Coffer;
use coffer::context::Context;
use coffer::cursor::Cursor;
use coffer::document::Format;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::name::Prefix;

use crate::Opened;

pub(crate) struct Request {
    pub(crate) prefix: Prefix,
    context: Context,
    how: How,
}

enum How {
    /// Everything in one document.
    Whole(Format),
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
        let how = match (fields.parsed("format")?, &next, limit) {
            (None, _, limit) => How::Pages(next, limit.unwrap_or(Coffer::DEFAULT_LIMIT)),
            (Some(format), None, None) => How::Whole(format),
            _ => {
                return Err(Error::invalid(
                    "With `format` the answer is one whole document. Leave `next` and `limit` out.",
                ));
            }
        };
        Ok(Self { prefix, context: fields.context("context")?, how })
    }

    pub(crate) async fn apply(self, coffer: &Coffer) -> Result<Answer, Error> {
        let Self { prefix, context, how } = self;
        match how {
            How::Whole(format) => format.write(&coffer.whole_bundle(&prefix, &context).await?),
            How::Pages(next, limit) => {
                let after = next.map(|cursor| cursor.0);
                let bundle = coffer.bundle(&prefix, &context, after, limit).await?;
                let secrets = bundle.secrets.into_iter().map(Opened::from).collect();
                Answer::json(&Bundle { secrets, next: bundle.next.map(Cursor) })
            }
        }
    }
}
