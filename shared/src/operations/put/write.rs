//! The writing of versions: prepare, attempt, refresh, until all are written or none can be.

use futures_util::stream::{StreamExt, TryStreamExt, iter};

use crate::audit_chain::{Caller, EventKind};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::row::{self, Row};
use crate::store::ledger::Ledger;
use crate::store::policies::Replaces;
use crate::store::scan::Stores;
use crate::store::tokens::Token;
use crate::store::transaction::{Committed, Transaction, WriteLabel};
use crate::timestamp::Timestamp;

use super::super::Coffer;
use super::super::rotation_policy::RotationPolicy;
use super::draft::Draft;
use super::idempotency::IdempotentRequest;
use super::new_version::{NewVersion, StoredVersion};

/// How many versions are prepared at a time.
const AT_ONCE: usize = 8;

impl Coffer {
    /// Writes versions, all or none. With a rotation policy, the same transaction records when the
    /// policy is due next.
    ///
    /// # Errors
    /// As [`super::Put::apply`]. With a policy also [`Error::Renewed`] if it is no longer what was
    /// read, [`Error::NotFound`] if the name has no version, and [`Error::PolicySuspended`] if the policy
    /// belongs to an earlier life of the name.
    pub(in super::super) async fn write_versions(
        &self,
        versions: Vec<NewVersion>,
        token: Option<Token>,
        policy: Option<&RotationPolicy>,
        caller: &Caller,
    ) -> Result<Vec<StoredVersion>, Error> {
        let stores = self.stores()?;
        // Two writes each, and one for the token.
        if versions.len() * 2 + usize::from(token.is_some()) > Transaction::MAX_WRITES {
            return Err(Error::too_many_secrets());
        }
        let kind = if policy.is_some() { EventKind::Renew } else { EventKind::Put };
        let request = token.map(|token| IdempotentRequest::new(&token, kind, &versions));
        let request = request.as_ref();
        // The earlier response counts even if the request could no longer be done.
        let (earlier, drafts) = tokio::join!(
            earlier_response(request, stores.ledger),
            self.prepare(stores, versions, policy)
        );
        if let Some(stored) = earlier? {
            return Ok(stored);
        }
        let mut drafts = drafts?;
        let mut backoff = Backoff::default();
        loop {
            let attempt = self.attempt(stores, &drafts, request, policy, kind, caller)?;
            let failed = match stores.ledger.commit(&attempt.transaction).await? {
                Committed::Done => {
                    write_heads(stores.ledger, attempt.heads).await;
                    return Ok(attempt.stored);
                }
                Committed::Refused(failed) => Some(failed),
                Committed::Conflict => None,
            };
            // The same request may have been done in another call.
            if let Some(stored) = earlier_response(request, stores.ledger).await? {
                return Ok(stored);
            }
            if let Some(failed) = &failed {
                check_refused(failed, &drafts)?;
            }
            backoff.wait().await?;
            drafts = refresh(stores, drafts, failed.as_deref(), policy).await?;
        }
    }

    async fn prepare(
        &self,
        stores: Stores<'_>,
        versions: Vec<NewVersion>,
        policy: Option<&RotationPolicy>,
    ) -> Result<Vec<Draft>, Error> {
        let several = versions.len() > 1;
        let drafts = iter(versions.into_iter().enumerate()).map(|(index, version)| async move {
            let draft = Box::pin(Draft::prepare(self, stores, version, policy)).await;
            draft.map_err(|error| at_index(index, several, error))
        });
        drafts.buffered(AT_ONCE).try_collect().await
    }

    /// Builds the transaction of all drafts.
    fn attempt(
        &self,
        stores: Stores<'_>,
        drafts: &[Draft],
        request: Option<&IdempotentRequest>,
        policy: Option<&RotationPolicy>,
        kind: EventKind,
        caller: &Caller,
    ) -> Result<Attempt, Error> {
        // If there is no room for the chain heads, they are written afterwards.
        let headless = drafts.len() * 3 + usize::from(request.is_some()) > Transaction::MAX_WRITES;
        let ttl = self.end_of_history();
        let mut transaction = Transaction::default();
        let (mut written, mut heads, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (index, draft) in drafts.iter().enumerate() {
            let row = draft.seal().map_err(|error| at_index(index, drafts.len() > 1, error))?;
            let event = draft.placement.event(kind, &row);
            let before = &draft.placement.head;
            let (event, head) = before.follow(&draft.name, &event, caller, ttl, headless);
            let head = head.to_head(&draft.name);
            bytes += [&row, &event, &head].into_iter().map(row::size).sum::<usize>();
            stores.table.put_version(&mut transaction, index, row);
            stores.ledger.put_event(&mut transaction, index, event);
            if headless {
                heads.push((index, head));
            } else {
                stores.ledger.put_head(&mut transaction, index, head);
            }
            written.push(draft.stored());
        }
        if bytes > Transaction::MAX_BYTES {
            return Err(Error::TooLarge(
                "The secrets of one request have at most 4 MB together, as they are stored: that \
                 is DynamoDB's limit. Put some of them in another request."
                    .into(),
            ));
        }
        let now = Timestamp::now();
        if let Some((policy, draft)) = policy.zip(drafts.first()) {
            let row = policy.renewed(draft.placement.head.sequence + 1, now);
            let replaces = Replaces::WrittenBy(policy.sequence);
            stores.ledger.put_policy(&mut transaction, row, replaces);
        }
        if let Some(request) = request {
            request.put(stores.ledger, &mut transaction, &written, now);
        }
        Ok(Attempt { transaction, heads, stored: written })
    }
}

/// One try to write all drafts.
struct Attempt {
    transaction: Transaction,
    /// The chain heads that had no room in the transaction.
    heads: Vec<(usize, Row)>,
    stored: Vec<StoredVersion>,
}

async fn earlier_response(
    request: Option<&IdempotentRequest>,
    ledger: &Ledger,
) -> Result<Option<Vec<StoredVersion>>, Error> {
    match request {
        Some(request) => request.earlier(ledger).await,
        None => Ok(None),
    }
}

/// Reports refused writes that another try does not change.
fn check_refused(failed: &[WriteLabel], drafts: &[Draft]) -> Result<(), Error> {
    if failed.contains(&WriteLabel::Policy) {
        return Err(Error::Renewed);
    }
    let exists = failed.iter().find_map(|label| match label {
        WriteLabel::Version(index) => {
            drafts.get(*index).filter(|draft| draft.requested.is_some()).map(|_| *index)
        }
        _ => None,
    });
    match exists {
        Some(index) => {
            let error = Error::Exists(
                "This version exists. Leave `version` out to put the next one.".into(),
            );
            Err(at_index(index, drafts.len() > 1, error))
        }
        None => Ok(()),
    }
}

/// Finds the placement of those drafts again whose writes failed, or of all after a conflict.
async fn refresh(
    stores: Stores<'_>,
    drafts: Vec<Draft>,
    failed: Option<&[WriteLabel]>,
    policy: Option<&RotationPolicy>,
) -> Result<Vec<Draft>, Error> {
    let is_stale = |index: usize| {
        let labels =
            [WriteLabel::Version(index), WriteLabel::Event(index), WriteLabel::Head(index)];
        failed.is_none_or(|failed| labels.iter().any(|label| failed.contains(label)))
    };
    let drafts = drafts.into_iter().enumerate().map(|(index, draft)| (is_stale(index), draft));
    iter(drafts.collect::<Vec<_>>())
        .map(|(stale, draft)| async move {
            if stale { draft.refresh(stores, policy).await } else { Ok(draft) }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// An error about one secret, with its index if there are several.
fn at_index(index: usize, several: bool, error: Error) -> Error {
    if several { Error::several([(format!("secrets[{index}]"), error)]) } else { error }
}

/// Writes the chain heads of events that were written without them. If this does not succeed, the
/// next writer of a name writes its head. Until then, the removal of an event from the end of its
/// chain would not be detected.
async fn write_heads(ledger: &Ledger, mut heads: Vec<(usize, Row)>) {
    const TRIES: u32 = 8;
    let mut backoff = Backoff::default();
    for _ in 0..TRIES {
        if heads.is_empty() {
            return;
        }
        let mut transaction = Transaction::default();
        for (index, head) in &heads {
            ledger.put_head(&mut transaction, *index, head.clone());
        }
        match ledger.commit(&transaction).await {
            // A newer head exists.
            Ok(Committed::Refused(newer)) => {
                heads.retain(|(index, _)| !newer.contains(&WriteLabel::Head(*index)));
            }
            Ok(Committed::Conflict) if backoff.wait().await.is_ok() => {}
            Ok(Committed::Done | Committed::Conflict) | Err(_) => return,
        }
    }
}
