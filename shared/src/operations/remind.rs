//! expiry: what will soon be refused is told ahead of time, once.

use futures_util::stream::{StreamExt, iter};

use crate::error::Error;
use crate::moment::Moment;
use crate::name::Name;
use crate::row::Row;
use crate::store::Key;
use crate::store::ledger::notice;
use crate::store::transaction::{Committed, Transaction};

use super::list::Description;
use super::{Coffer, DAY_SECONDS};

impl Coffer {
    /// How many notices are written at a time.
    const NOTICES: usize = 16;

    /// Writes a notice for each version that expires within the stack's days of notice and has
    /// none. Asked twice, it writes nothing twice; interrupted, it goes on. Answers how many it
    /// wrote.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn remind(&self) -> Result<u64, Error> {
        let store = self.ledger()?;
        let now = Moment::now();
        let until = now.after(u64::from(self.policy.notice_days) * DAY_SECONDS).unwrap_or(now);
        let mut written = 0;
        let mut after: Option<Key> = None;
        loop {
            let page = store.expiring(now, until, after).await?;
            let notices = page.rows.iter().filter_map(notice_of);
            let done: Vec<Result<Committed, Error>> = iter(notices)
                .map(|row| async move {
                    let mut transaction = Transaction::default();
                    transaction.put_entry(store, row);
                    store.commit(transaction).await
                })
                .buffer_unordered(Self::NOTICES)
                .collect()
                .await;
            for committed in done {
                // Refused is written before; a conflict is with another who writes it.
                written += u64::from(committed? == Committed::Done);
            }
            if page.last.is_none() {
                return Ok(written);
            }
            after = page.last;
        }
    }
}

fn notice_of(row: &Row) -> Option<Row> {
    let Description { name, version, expires_at, .. } = Description::of(row).ok()?;
    // The ledger keeps its own records under these names, and this role may not write there.
    if Name::of_any_client(&name).is_ok_and(|name| name.is_reserved()) {
        return None;
    }
    Some(notice(&name, &version, expires_at?))
}
