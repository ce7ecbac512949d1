//! Descriptions of secrets from the index of names.

use crate::description::{Description, name_of};
use crate::error::Error;
use crate::name::{Name, Prefix};
use crate::row::{self, Row};
use crate::store::item::Key;
use crate::store::secrets_table::Page;

use super::super::Coffer;
use super::super::errors::{for_name, not_found};

/// A page of descriptions.
#[derive(Debug)]
pub(in super::super) struct ListPage {
    pub(in super::super) descriptions: Vec<Description>,
    /// Where the list continues; `None` at the end.
    pub(in super::super) next: Option<Key>,
}

/// A page ends after this many pages of the index or bytes of descriptions: a page of the index has
/// at most 1 MB, and Lambda returns at most 6 MB of JSON.
const MAX_PAGES: u32 = 32;
const MAX_BYTES: usize = 1 << 20;

impl Coffer {
    /// Lists the newest version of each name, or of each that the prefix covers. A page may have
    /// fewer than `limit` entries; only one without `next` is the last.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(in super::super) async fn list_names(
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
        // One row more shows that the last name is complete. If the filter or many versions leave
        // few names, each page reads twice as much as the one before.
        let mut size = i32::try_from(limit).unwrap_or(i32::MAX).saturating_add(1);
        for page in 1.. {
            let Page { rows, last } = self.table()?.names(prefix, from.take(), size).await?;
            for row in rows {
                // A new version of a name on the page before sorts after the cursor.
                if name_of(&row) == resumed.as_deref() {
                    continue;
                }
                if let Some(complete) = newest.replace(row)
                    && name_of(&complete) != newest.as_ref().and_then(name_of)
                {
                    descriptions.push(Description::of(&complete)?);
                    bytes += row::size(&complete);
                    let enough = descriptions.len() == limit;
                    if enough || page > MAX_PAGES || bytes > MAX_BYTES {
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

    /// Lists at most `limit` versions of one secret, highest first.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] if nothing is found and the name breaks the rules;
    /// [`Error::Unavailable`].
    pub(super) async fn list_versions(
        &self,
        name: &Name,
        after: Option<Key>,
        limit: u32,
    ) -> Result<ListPage, Error> {
        let first = after.is_none();
        let after = after.map(|key| Key { name: name.as_str().to_owned(), ..key });
        let limit = i32::try_from(limit).unwrap_or(i32::MAX - 1);
        // One more, so that the last page has no `next`.
        let Page { mut rows, mut last } = self.table()?.versions(name, after, limit + 1).await?;
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
