//! The current version of every secret under a prefix: in pages, or as one document.

use std::time::Duration;

use tokio::time::Instant;

use crate::cursor::Cursor;
use crate::description::name_of;
use crate::document::{Format, VariableNames};
use crate::error::Error;
use crate::fields::{DEFAULT_LIMIT, Fields};
use crate::name::{Prefix, Stage};
use crate::opened_secret::OpenedSecret;
use crate::row::Row;
use crate::store::item::Key;

use super::super::Coffer;
use super::super::busy_retry::retry_while_busy;
use super::super::legacy_hints::parse_contexts_by_name;
use super::{BundleContexts, BundlePage, GetOutput};

/// How many versions are read or opened at a time.
pub(super) const AT_ONCE: usize = 16;
/// How long throttled calls are made again. A call may take 8 seconds with its own retries, and the
/// function has 29.
const BUSY_TIME: Duration = Duration::from_secs(18);
/// The most bytes of JSON in one response. Lambda returns 6 MB, and over HTTP, JSON within JSON has
/// each quote and backslash escaped once more.
pub(super) const MAX_JSON: usize = 2_500_000;

/// A request to open every secret under a prefix.
#[derive(Debug)]
pub struct GetBundle {
    /// The prefix.
    pub prefix: Prefix,
    /// The encryption contexts to open the secrets with.
    pub contexts: BundleContexts,
    /// The form of the response.
    pub form: BundleForm,
}

/// The form of a bundle.
#[derive(Debug)]
pub enum BundleForm {
    /// One document with everything.
    Document {
        /// The format.
        format: Format,
        /// Whether names of environment variables are in upper case.
        uppercase: bool,
    },
    /// Pages, with the description of each secret.
    Pages {
        /// Where the bundle continues.
        next: Option<Cursor>,
        /// The most secrets of the page.
        limit: u32,
    },
}

impl GetBundle {
    pub(super) fn parse(prefix: Prefix, fields: &mut Fields) -> Result<Self, Error> {
        let next = fields.parsed("next")?;
        let limit = fields.limit("limit")?;
        let format: Option<Format> = fields.parsed("format")?;
        let uppercase = fields.optional_flag("uppercase")?;
        if uppercase.is_some() && !format.is_some_and(Format::has_variables) {
            return Err(Error::invalid("`uppercase` requires `format` dotenv or env-file."));
        }
        let form = match (format, &next, limit) {
            (None, _, limit) => BundleForm::Pages { next, limit: limit.unwrap_or(DEFAULT_LIMIT) },
            (Some(format), None, None) => {
                BundleForm::Document { format, uppercase: uppercase.unwrap_or(true) }
            }
            _ => {
                return Err(Error::invalid(
                    "With `format`, the response is one whole document. Leave `next` and `limit` \
                     out.",
                ));
            }
        };
        let hints = parse_contexts_by_name(fields, "contexts")?;
        let rest = fields.context("context")?;
        let contexts = BundleContexts::new(hints, rest, fields.flag("only_context")?);
        Ok(Self { prefix, contexts, form })
    }

    /// Opens the current version of every secret that the prefix covers, all from one moment:
    /// secrets that are put together are returned together or not at all. A page has at most
    /// `limit` secrets, fewer if they are large or left out; only one without `next` is the last.
    ///
    /// # Errors
    /// [`Error::Several`], with the names of the secrets that cannot be opened, and no secret;
    /// [`Error::Unavailable`], also if the secrets keep changing; for a document also
    /// [`Error::TooLarge`], and [`Error::NotFound`] if there is no secret.
    pub async fn apply(self, coffer: &Coffer) -> Result<GetOutput, Error> {
        let end = Instant::now() + BUSY_TIME;
        let Self { prefix, contexts, form } = self;
        match form {
            BundleForm::Document { format, uppercase } => {
                let secrets = coffer.whole_bundle(&prefix, &contexts, end).await?;
                let variables = VariableNames { prefix: &prefix, uppercase };
                format.write(&secrets, variables).map(GetOutput::Document)
            }
            BundleForm::Pages { next, limit } => {
                let after = next.map(|cursor| cursor.0);
                let page = coffer.bundle_page(&prefix, &contexts, after, limit, end).await?;
                Ok(GetOutput::Page(page))
            }
        }
    }
}

impl Coffer {
    async fn bundle_page(
        &self,
        prefix: &Prefix,
        contexts: &BundleContexts,
        after: Option<Key>,
        limit: u32,
        end: Instant,
    ) -> Result<BundlePage, Error> {
        let (rows, mut next) = self.snapshot(prefix, after, Some(limit), end).await?;
        let mut secrets = self.open_all(rows, contexts, end).await?;
        let mut bytes = 0;
        let fits = secrets.iter().take_while(|opened| {
            bytes += opened.json_len();
            bytes <= MAX_JSON
        });
        let fits = fits.count().max(1);
        if fits < secrets.len() {
            secrets.truncate(fits);
            next = secrets.last().map(|opened| Key {
                name: opened.description.name.clone(),
                version: opened.description.version.as_str().to_owned(),
            });
        }
        Ok(BundlePage { secrets, next: next.map(Cursor) })
    }

    async fn whole_bundle(
        &self,
        prefix: &Prefix,
        contexts: &BundleContexts,
        end: Instant,
    ) -> Result<Vec<OpenedSecret>, Error> {
        let (rows, next) = self.snapshot(prefix, None, None, end).await?;
        if next.is_some() {
            return Err(document_too_large());
        }
        if rows.is_empty() {
            return Err(Error::NotFound(
                "There is no secret under this prefix. List the names.".into(),
            ));
        }
        let secrets = self.open_all(rows, contexts, end).await?;
        if secrets.is_empty() {
            return Err(Error::NotFound(
                "No secret under this prefix was put with this context. List the names with their \
                 contexts."
                    .into(),
            ));
        }
        if secrets.iter().map(OpenedSecret::json_len).sum::<usize>() > MAX_JSON {
            return Err(document_too_large());
        }
        Ok(secrets)
    }

    async fn open_all(
        &self,
        mut rows: Vec<Row>,
        contexts: &BundleContexts,
        end: Instant,
    ) -> Result<Vec<OpenedSecret>, Error> {
        rows.retain(|row| !contexts.leaves_out(row));
        let opened = retry_while_busy(rows, AT_ONCE, end, |row: Row| async move {
            let context = contexts.of(name_of(&row).unwrap_or_default());
            let opened = self.open(&row, context, Some(vec![Stage::Current])).await;
            (row, opened)
        });
        let (mut secrets, mut failed) = (Vec::new(), Vec::new());
        for (row, opened) in opened.await {
            match opened {
                Ok(opened) => secrets.push(opened),
                Err(error) if contexts.ignores(&row, &error) => {}
                Err(error) => failed.push((name_of(&row).unwrap_or_default().to_owned(), error)),
            }
        }
        if failed.is_empty() { Ok(secrets) } else { Err(Error::several(failed)) }
    }
}

pub(super) fn document_too_large() -> Error {
    Error::TooLarge(
        "The secrets under this prefix do not fit one response. Leave `format` out and page with \
         `next`, or use longer prefixes."
            .into(),
    )
}
