//! list: names with their newest version, and the versions of one name.

use crate::envelope::Refusal;
use crate::error::Error;
use crate::moment::Moment;
use crate::name::{Label, Name, Prefix, Revision};
use crate::row::{self, Attribute, Row};
use crate::store::{Key, Page};

use super::{Coffer, for_name, not_found};

/// What a row says of a version besides its value.
#[derive(Debug, serde::Serialize)]
pub struct Description {
    /// The name of the secret.
    pub name: String,
    /// The version, a number wherever it is one.
    pub version: Label,
    /// The random mark of the write; rows of most other clients have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// When it was put, to the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Moment>,
    /// The second from which on it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// The encryption context it was put with; none if that was empty or is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<std::collections::BTreeMap<String, String>>,
}

/// Some descriptions, and how to ask for the next ones.
#[derive(Debug)]
pub struct ListPage {
    /// What was found.
    pub descriptions: Vec<Description>,
    /// Given back, it continues where this ended; none at the end.
    pub next: Option<Key>,
}

impl Coffer {
    /// The most entries in one answer.
    pub const MAX_LIMIT: u32 = 1000;
    /// How many there are if nothing is said.
    pub const DEFAULT_LIMIT: u32 = 100;

    /// After this many pages, or bytes of descriptions, what was found is answered: a page is 1 MB
    /// at most, and Lambda returns 6 MB of JSON at most.
    const PAGES: u32 = 32;
    const BYTES: usize = 1 << 20;

    /// The newest version of each name, or of each that the prefix covers, from the names index.
    /// An answer may hold fewer than `limit`; only one without `next` is the last.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list(
        &self,
        prefix: Option<&Prefix>,
        after: Option<Key>,
        limit: u32,
    ) -> Result<ListPage, Error> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut descriptions: Vec<Description> = Vec::new();
        let mut newest: Option<Row> = None;
        let mut bytes = 0;
        let mut from = after;
        let resumed = from.as_ref().map(|key| key.name.clone());
        // One row more than asked for tells that the last name is complete. Where the filter or
        // many versions leave few names, each page reads twice as much as the one before.
        let mut size = i32::try_from(limit).unwrap_or(i32::MAX).saturating_add(1);
        for page in 1.. {
            let Page { rows, last } = self.store()?.names(prefix, from.take(), size).await?;
            for row in rows {
                // A version put since to a name that was listed sorts behind the cursor.
                if name_of(&row) == resumed.as_deref() {
                    continue;
                }
                if let Some(complete) = newest.replace(row)
                    && name_of(&complete) != newest.as_ref().and_then(name_of)
                {
                    descriptions.push(Description::of(&complete)?);
                    bytes += row::size(&complete);
                    let enough = descriptions.len() == limit;
                    if enough || page > Self::PAGES || bytes > Self::BYTES {
                        return Ok(ListPage { next: Key::of(&complete), descriptions });
                    }
                }
            }
            if last.is_none() {
                break;
            }
            from = last;
            size = size.saturating_mul(2);
        }
        if let Some(complete) = newest {
            descriptions.push(Description::of(&complete)?);
        }
        Ok(ListPage { descriptions, next: None })
    }

    /// The versions of one secret, highest first, from the names index; at most `limit` of them.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] where nothing is found and the name is none that
    /// could be put; [`Error::Unavailable`].
    pub async fn versions(
        &self,
        name: &Name,
        after: Option<Key>,
        limit: u32,
    ) -> Result<ListPage, Error> {
        let first = after.is_none();
        let after = after.map(|key| Key { name: name.as_str().to_owned(), ..key });
        let limit = i32::try_from(limit).unwrap_or(i32::MAX - 1);
        // One more than asked for, so that the last answer has no `next`.
        let Page { mut rows, mut last } = self.store()?.versions(name, after, limit + 1).await?;
        if rows.is_empty() && first {
            return Err(for_name(name, not_found()));
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if rows.len() > limit {
            rows.truncate(limit);
            last = rows.last().and_then(Key::of);
        }
        let descriptions = rows.iter().map(Description::of).collect::<Result<_, _>>()?;
        Ok(ListPage { descriptions, next: last })
    }
}

impl Description {
    pub(super) fn of(row: &Row) -> Result<Self, Error> {
        let key = Key::of(row).ok_or(Refusal::Malformed)?;
        let moment = |name| row.get(name).and_then(Attribute::integer).and_then(Moment::from_unix);
        let text = |name| row.get(name).and_then(Attribute::text);
        Ok(Self {
            name: key.name,
            version: Label::stored(key.version),
            revision: row.get("revision").and_then(Attribute::bytes).and_then(Revision::stored),
            comment: text("comment").filter(|text| !text.is_empty()).map(str::to_owned),
            created_at: moment("created_at"),
            expires_at: moment("expires_at"),
            context: row
                .get("context")
                .and_then(Attribute::map)
                .filter(|pairs| !pairs.is_empty())
                .cloned(),
        })
    }
}

pub(super) fn name_of(row: &Row) -> Option<&str> {
    row.get("name").and_then(Attribute::text)
}
