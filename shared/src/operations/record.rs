//! The recording of a change: its writes and its event in one transaction.

use crate::audit_chain::{Caller, ChainHead, NewEvent};
use crate::error::Error;
use crate::name::Name;
use crate::store::transaction::{Committed, Transaction};

use super::Coffer;

impl Coffer {
    /// Commits a transaction together with the event that records it, which follows `head`. Any
    /// other event since `head` was read makes the transaction fail.
    pub(super) async fn record(
        &self,
        mut transaction: Transaction,
        name: &Name,
        head: &ChainHead,
        event: &NewEvent,
        caller: &Caller,
    ) -> Result<Committed, Error> {
        let ledger = self.ledger()?;
        let (event, next) = head.follow(name, event, caller, self.end_of_history(), false);
        ledger.put_event(&mut transaction, 0, event);
        ledger.put_head(&mut transaction, 0, next.to_head(name));
        ledger.commit(&transaction).await
    }
}
