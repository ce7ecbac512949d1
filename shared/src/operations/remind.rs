//! remind: writes a notice, once, for each version that expires soon.

use futures_util::stream::{StreamExt, iter};

use crate::audit_chain::Caller;
use crate::description::Description;
use crate::error::Error;
use crate::fields::Fields;
use crate::name::{Name, VersionKey};
use crate::request::Response;
use crate::row::Row;
use crate::store::item::Key;
use crate::timestamp::Timestamp;

use super::errors::unless_reserved;
use super::{Coffer, DAY_SECONDS, Operation};

/// How many notices are written at a time.
const AT_ONCE: usize = 16;

/// A request to write the notices that are due.
#[derive(Debug)]
pub struct Remind;

/// The result of remind.
#[derive(Debug, serde::Serialize)]
pub struct Reminded {
    /// How many notices were written.
    pub notices: u64,
}

impl Operation for Remind {
    const NAME: &'static str = "remind";

    type Output = Reminded;

    fn parse(_: &mut Fields) -> Result<Self, Error> {
        Ok(Self)
    }

    fn name(&self) -> Option<&Name> {
        None
    }

    fn writes(&self) -> bool {
        true
    }

    /// Writes a notice for each version that expires within the stack's days of notice and has no
    /// notice yet.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn apply(self, coffer: &Coffer, _: &Caller) -> Result<Reminded, Error> {
        let stores = coffer.stores()?;
        let now = Timestamp::now();
        let until = now.after(u64::from(coffer.options.notice_days) * DAY_SECONDS).unwrap_or(now);
        let mut notices = 0;
        let mut after: Option<Key> = None;
        loop {
            let page = stores.table.expiring(now, until, after).await?;
            let due = page.rows.iter().filter_map(due);
            let written: Vec<Result<bool, Error>> = iter(due)
                .map(|(name, label, end)| async move {
                    stores.ledger.put_notice(&name, &label, end).await
                })
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            for written in written {
                notices += u64::from(written?);
            }
            if page.last.is_none() {
                return Ok(Reminded { notices });
            }
            after = page.last;
        }
    }

    fn respond(reminded: Reminded) -> Result<Response, Error> {
        Response::json(&reminded)
    }
}

/// Returns what a notice says. There is none for a reserved name: the role may not write there.
fn due(row: &Row) -> Option<(String, VersionKey, Timestamp)> {
    let Description { name, version, expires_at, .. } = Description::of(row).ok()?;
    let reserved = Name::of_any_client(&name).is_ok_and(|name| unless_reserved(&name).is_err());
    (!reserved).then_some((name, version, expires_at?))
}

#[cfg(test)]
mod tests;
