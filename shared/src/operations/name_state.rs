//! The state of a name: its chain head, its highest version, and whether its life continues.

use std::future::Future;

use crate::audit_chain::ChainHead;
use crate::backoff::Backoff;
use crate::error::Error;
use crate::life::{HighestVersion, LifeStatus, life_status, may_be_partial};
use crate::name::Name;
use crate::row::Row;
use crate::store::ledger::Ledger;
use crate::store::scan::Stores;
use crate::timestamp::Timestamp;

/// Reads the chain head of a name and its highest version.
pub(super) async fn read(
    stores: Stores<'_>,
    name: &Name,
) -> Result<(ChainHead, Option<HighestVersion>), Error> {
    let highest = || async { Ok(stores.table.tops(name, 1).await?.into_iter().next()) };
    read_with(stores.ledger, name, highest, Clone::clone).await
}

/// Reads the chain head of a name and the description of its highest version.
pub(super) async fn read_described(
    stores: Stores<'_>,
    name: &Name,
) -> Result<(ChainHead, Option<Row>), Error> {
    let described = || stores.table.described(name);
    let top = |row: &Option<Row>| row.as_ref().and_then(HighestVersion::of);
    read_with(stores.ledger, name, described, top).await
}

/// Reads the chain head, then the highest version: if Coffer writes a version in between, the
/// transaction that follows this head is refused.
async fn read_with<T, F: Future<Output = Result<T, Error>>>(
    ledger: &Ledger,
    name: &Name,
    highest: impl Fn() -> F,
    top_of: impl Fn(&T) -> Option<HighestVersion>,
) -> Result<(ChainHead, T), Error> {
    let head = ledger.chain_head(name).await?;
    let version = highest().await?;
    if !may_be_partial(&head, top_of(&version).as_ref(), Timestamp::now()) {
        return Ok((head, version));
    }
    // A read during a transaction can return its event before its version.
    Backoff::default().wait().await?;
    Ok((head, highest().await?))
}

/// Whether the life of a name continues, judged by its chain head and its highest live version.
/// Reads one more row only if another client has put the highest version.
pub(super) async fn life_continues(
    stores: Stores<'_>,
    name: &Name,
    head: &ChainHead,
    top: Option<&HighestVersion>,
) -> Result<bool, Error> {
    let now = Timestamp::now();
    match life_status(head, top, now) {
        LifeStatus::Continues => Ok(true),
        LifeStatus::Ended => Ok(false),
        LifeStatus::IfLive(identity) => {
            let below = stores.table.top(name, &identity).await?;
            Ok(below.is_some_and(|below| !below.has_expired(now)))
        }
    }
}
