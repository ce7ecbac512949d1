//! Soft delete: versions move to the ledger for the recovery window.

use crate::audit_chain::{Caller, NewEvent};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::name::{Name, VersionKey};
use crate::store::deleted::deleted_entry;
use crate::store::ledger::Ledger;
use crate::store::transaction::{Committed, Transaction};
use crate::timestamp::Timestamp;

use super::super::errors::not_found;
use super::super::{Coffer, DAY_SECONDS};
use super::batch::Batch;
use super::{Delete, Deleted, MAX_MOVED, stored_label};

impl Coffer {
    pub(super) async fn soft_delete(
        &self,
        delete: &Delete,
        days: u32,
        caller: &Caller,
    ) -> Result<Deleted, Error> {
        let stores = self.stores()?;
        let name = &delete.name;
        let version = stored_label(stores, delete).await?;
        let end = Timestamp::now().after(u64::from(days) * DAY_SECONDS).unwrap_or(Timestamp::now());
        let mut versions = Vec::new();
        let mut backoff = Backoff::default();
        loop {
            let head = stores.ledger.chain_head(name).await?;
            let batch = Batch::read(stores.table, name, version.as_ref(), MAX_MOVED).await?;
            if batch.versions.is_empty() {
                if !versions.is_empty() {
                    break;
                }
                let until = restorable_until(stores.ledger, name, version.as_ref()).await?;
                // A restore may have moved the versions between the two reads.
                if until.is_none() && stores.ledger.chain_head(name).await? != head {
                    backoff.wait().await?;
                    continue;
                }
                let recoverable_until = Some(until.ok_or_else(not_found)?);
                return Ok(Deleted { name: name.clone(), versions, recoverable_until });
            }
            let mut transaction = Transaction::default();
            let life = if batch.last { head.life_when_deleted() } else { head.life };
            for (index, version) in batch.versions.iter().enumerate() {
                let entry = deleted_entry(version.item(), head.sequence + 1, life, end);
                stores.table.remove_version(&mut transaction, index, version);
                stores.ledger.put_deleted(&mut transaction, index, entry);
            }
            let event = NewEvent { recoverable_until: Some(end), ..batch.event(&head, false) };
            if self.record(transaction, name, &head, &event, caller).await? == Committed::Done {
                versions.extend(batch.labels());
                if batch.last || version.is_some() {
                    break;
                }
            } else {
                backoff.wait().await?;
            }
        }
        Ok(Deleted { name: name.clone(), versions, recoverable_until: Some(end) })
    }
}

/// Returns until when versions that were deleted before can be restored, if they can.
async fn restorable_until(
    ledger: &Ledger,
    name: &Name,
    label: Option<&VersionKey>,
) -> Result<Option<Timestamp>, Error> {
    let (mut until, mut after) = (None, None);
    loop {
        let (deleted, more) = ledger.deleted_versions(name, label, after).await?;
        let deleted = deleted.into_iter().filter(|each| !each.before_reseal);
        until = deleted.map(|each| each.until).chain(until).max();
        if more.is_none() {
            return Ok(until.filter(|until| *until > Timestamp::now()));
        }
        after = more;
    }
}
