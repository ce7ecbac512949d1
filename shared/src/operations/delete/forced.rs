//! Forced delete: versions are removed for good, live ones and those that could be restored.

use crate::audit_chain::{Caller, ChainHead, NewEvent, NewestVersion};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::name::{Name, VersionKey};
use crate::store::deleted::DeletedVersion;
use crate::store::ledger::Ledger;
use crate::store::scan::Stores;
use crate::store::transaction::{Committed, Transaction};

use super::super::Coffer;
use super::super::errors::not_found;
use super::batch::{Batch, delete_event};
use super::{Delete, Deleted, each_number_once, stored_label};

/// The most versions that one transaction removes, besides the event and the head.
const MAX_REMOVED: i32 = 98;

impl Coffer {
    pub(super) async fn forced_delete(
        &self,
        delete: &Delete,
        caller: &Caller,
    ) -> Result<Deleted, Error> {
        let stores = self.stores()?;
        let name = &delete.name;
        let version = stored_label(stores, delete).await?;
        let mut versions = Vec::new();
        let mut backoff = Backoff::default();
        loop {
            let head = stores.ledger.chain_head(name).await?;
            let batch = Batch::read(stores.table, name, version.as_ref(), MAX_REMOVED).await?;
            let deleted = deleted_versions(stores.ledger, delete, version.as_ref()).await?;
            // Versions that can be restored go first: the secret exists until the last of it is
            // gone.
            let live = deleted.is_empty();
            let (transaction, event) = if live {
                removal_of_live(stores, &batch, &head)
            } else {
                removal_of_deleted(stores, deleted, &head)
            };
            if event.versions.is_empty() {
                // Another delete or a restore may have moved the versions between the reads.
                if versions.is_empty() && stores.ledger.chain_head(name).await? != head {
                    backoff.wait().await?;
                    continue;
                }
                // This also completes a delete that was interrupted after its last version.
                if version.is_none() && head.sequence > 0 {
                    remove_policy(stores.ledger, name, head.life).await?;
                }
                break;
            }
            if self.record(transaction, name, &head, &event, caller).await? != Committed::Done {
                backoff.wait().await?;
                continue;
            }
            versions.extend(event.versions);
            if live && batch.last {
                remove_policy(stores.ledger, name, head.life).await?;
            }
            if live && (batch.last || version.is_some()) {
                break;
            }
        }
        if versions.is_empty() {
            return Err(not_found());
        }
        each_number_once(&mut versions);
        Ok(Deleted { name: name.clone(), versions, recoverable_until: None })
    }
}

/// Reads the versions that could be restored, all or those of one number.
async fn deleted_versions(
    ledger: &Ledger,
    delete: &Delete,
    label: Option<&VersionKey>,
) -> Result<Vec<DeletedVersion>, Error> {
    let mut deleted = ledger.deleted_versions(&delete.name, label, None).await?.0;
    // The same number may be there unpadded, and padded since a reseal.
    let forms = [label.map(VersionKey::padded), delete.version.clone()];
    for form in forms.into_iter().flatten() {
        if deleted.is_empty() && label != Some(&form) {
            deleted = ledger.deleted_versions(&delete.name, Some(&form), None).await?.0;
        }
    }
    deleted.truncate(usize::try_from(MAX_REMOVED).unwrap_or(usize::MAX));
    Ok(deleted)
}

fn removal_of_live(stores: Stores<'_>, batch: &Batch, head: &ChainHead) -> (Transaction, NewEvent) {
    let mut transaction = Transaction::default();
    for (index, version) in batch.versions.iter().enumerate() {
        stores.table.remove_version(&mut transaction, index, version);
    }
    (transaction, batch.event(head, true))
}

fn removal_of_deleted(
    stores: Stores<'_>,
    deleted: Vec<DeletedVersion>,
    head: &ChainHead,
) -> (Transaction, NewEvent) {
    let mut transaction = Transaction::default();
    for (index, version) in deleted.iter().enumerate() {
        stores.ledger.remove_deleted(&mut transaction, index, version);
    }
    let labels = deleted.into_iter().map(|version| version.label).collect();
    (transaction, delete_event(labels, true, head.state, NewestVersion::Unchanged))
}

/// Removes the policy of a secret that is gone for good. If this is interrupted, a suspended policy
/// remains, which renews nothing. The removal is a transaction of its own because the role may
/// delete policies but not put them, and IAM checks every key of a transaction.
async fn remove_policy(ledger: &Ledger, name: &Name, life: u64) -> Result<(), Error> {
    // A name that breaks the rules has no policy.
    if name.check().is_err() {
        return Ok(());
    }
    let mut backoff = Backoff::default();
    loop {
        let mut transaction = Transaction::default();
        ledger.remove_policy(&mut transaction, name, life);
        match ledger.commit(&transaction).await? {
            // Refused: the name was put again and has a new policy.
            Committed::Done | Committed::Refused(_) => return Ok(()),
            Committed::Conflict => backoff.wait().await?,
        }
    }
}
