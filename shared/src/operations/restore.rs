//! restore: moves deleted versions back to the table of secrets.

mod candidates;

use crate::audit_chain::{Caller, ChainHead, EventKind, NameState, NewEvent};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::fields::Fields;
use crate::life::{HighestVersion, after_restore, life_of_deleted};
use crate::name::{Name, VersionKey};
use crate::request::Response;
use crate::store::deleted::DeletedVersion;
use crate::store::scan::Stores;
use crate::store::transaction::{Committed, Transaction, WriteLabel};
use crate::timestamp::Timestamp;

use super::delete::each_number_once;
use super::errors::{for_name, unless_reserved};
use super::{Coffer, Operation};
use candidates::{candidates, in_order};

/// A request to restore a secret or one version of it.
#[derive(Debug)]
pub struct Restore {
    /// The name of the secret.
    pub name: Name,
    /// The version; all that can be restored if `None`.
    pub version: Option<VersionKey>,
    /// Restores only what was deleted at this time or before.
    pub deleted_before: Option<Timestamp>,
    /// Restores the form of the version before a reseal, which a wrong hint may have damaged.
    /// Requires `version`.
    pub before_reseal: bool,
}

/// The versions that were restored.
#[derive(Debug, serde::Serialize)]
pub struct Restored {
    /// The name of the secret.
    pub name: Name,
    /// The versions, lowest first.
    pub versions: Vec<VersionKey>,
}

impl Operation for Restore {
    const NAME: &'static str = "restore";

    type Output = Restored;

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let restore = Self {
            name: Name::of_any_client(&fields.required_text("name")?)?,
            version: fields.number_or_text("version")?.map(|text| text.parse()).transpose()?,
            deleted_before: fields.moment("deleted_before")?,
            before_reseal: fields.flag("before_reseal")?,
        };
        if restore.before_reseal && restore.version.is_none() {
            return Err(Error::invalid(
                "`before_reseal` requires the `version` that was resealed.",
            ));
        }
        Ok(restore)
    }

    fn name(&self) -> Option<&Name> {
        Some(&self.name)
    }

    fn writes(&self) -> bool {
        true
    }

    /// Restores versions, the highest first, so that `AWSCURRENT` is right from the start. A
    /// restore that was interrupted continues when it is requested again. Of two rows of one
    /// version, the one that was deleted last is restored. A version whose number is taken stays in
    /// the ledger.
    ///
    /// # Errors
    /// [`Error::NotFound`] if nothing can be restored; [`Error::Invalid`] for a reserved name;
    /// [`Error::Exists`] if the name was put again after the delete, or the version exists;
    /// [`Error::Unavailable`].
    async fn apply(self, coffer: &Coffer, caller: &Caller) -> Result<Restored, Error> {
        unless_reserved(&self.name)?;
        let restored = Box::pin(coffer.undelete(&self, caller)).await;
        restored.map_err(|error| for_name(&self.name, error))
    }

    fn respond(restored: Restored) -> Result<Response, Error> {
        Response::json(&restored)
    }
}

/// What a restore has done so far.
#[derive(Default)]
struct Outcome {
    /// The versions that are restored.
    versions: Vec<VersionKey>,
    /// The same versions as they were stored in the ledger.
    restored: Vec<VersionKey>,
    /// The versions whose number is taken, by a later put or by another row of the number, as they
    /// are stored in the ledger.
    taken: Vec<VersionKey>,
    /// Whether a version would have become current in place of a higher number.
    hidden: bool,
}

impl Coffer {
    async fn undelete(&self, restore: &Restore, caller: &Caller) -> Result<Restored, Error> {
        let stores = self.stores()?;
        let name = &restore.name;
        let mut outcome = Outcome::default();
        let mut backoff = Backoff::default();
        loop {
            let done = [outcome.restored.as_slice(), outcome.taken.as_slice()].concat();
            // The chain head first: whatever Coffer writes after this read makes the transaction
            // fail.
            let head = stores.ledger.chain_head(name).await?;
            let ((deleted, more), live) = tokio::try_join!(
                candidates(stores.ledger, restore, &done),
                stores.table.tops(name, 1)
            )?;
            if deleted.is_empty() {
                break;
            }
            let top = live.first();
            let whole = restore.version.is_none() && outcome.restored.is_empty();
            if whole && was_put_again(&head, &deleted, top) {
                return Err(put_again());
            }
            let (above, deleted) = in_order(deleted, top);
            if deleted.is_empty() {
                outcome.hidden = true;
                outcome.taken.extend(above);
                continue;
            }
            let transaction = moves(stores, &deleted);
            let labels: Vec<_> = deleted.iter().map(|version| version.stored.clone()).collect();
            let event = event(&head, deleted, top);
            match self.record(transaction, name, &head, &event, caller).await? {
                Committed::Done => {
                    outcome.versions.extend(event.versions);
                    outcome.restored.extend(labels);
                    if !more {
                        break;
                    }
                }
                Committed::Refused(failed) => {
                    if !outcome.add_taken(labels, &failed) {
                        backoff.wait().await?;
                    }
                }
                Committed::Conflict => backoff.wait().await?,
            }
        }
        outcome.into_result(restore)
    }
}

impl Outcome {
    /// Adds the versions whose number is taken while their entry is still in the ledger: no other
    /// restore has moved them. Returns whether there was one.
    fn add_taken(&mut self, stored: Vec<VersionKey>, failed: &[WriteLabel]) -> bool {
        let before = self.taken.len();
        let taken = |(index, label): (usize, VersionKey)| {
            let has = |label| failed.contains(&label);
            let stays = has(WriteLabel::Version(index)) && !has(WriteLabel::Removal(index));
            stays.then_some(label)
        };
        self.taken.extend(stored.into_iter().enumerate().filter_map(taken));
        self.taken.len() > before
    }

    fn into_result(mut self, restore: &Restore) -> Result<Restored, Error> {
        if self.restored.is_empty() {
            return Err(match (self.hidden, self.taken.is_empty(), restore.before_reseal) {
                (true, _, _) => would_be_current(),
                (false, true, false) => nothing_to_restore(),
                (false, true, true) => nothing_before_reseal(),
                (false, false, false) => version_exists(),
                (false, false, true) => resealed_exists(),
            });
        }
        each_number_once(&mut self.versions);
        Ok(Restored { name: restore.name.clone(), versions: self.versions })
    }
}

fn moves(stores: Stores<'_>, deleted: &[DeletedVersion]) -> Transaction {
    let mut transaction = Transaction::default();
    for (index, version) in deleted.iter().enumerate() {
        stores.table.put_item(&mut transaction, index, version.to_live_item());
        stores.ledger.remove_deleted(&mut transaction, index, version);
    }
    transaction
}

fn event(head: &ChainHead, deleted: Vec<DeletedVersion>, top: Option<&HighestVersion>) -> NewEvent {
    let highest = deleted.first().and_then(|highest| {
        Some((highest.identity()?, life_of_deleted(head, highest.life, highest.sequence)))
    });
    let highest = highest.as_ref().map(|(identity, life)| (identity, *life));
    let (state, newest) = after_restore(head, highest, top);
    NewEvent {
        kind: EventKind::Restore,
        versions: deleted.into_iter().map(|version| version.label).collect(),
        forced: false,
        state,
        recoverable_until: None,
        newest,
    }
}

/// Whether the name was put again since one of these versions was deleted, by Coffer or by another
/// client, of which the ledger knows nothing.
fn was_put_again(
    head: &ChainHead,
    deleted: &[DeletedVersion],
    top: Option<&HighestVersion>,
) -> bool {
    let earlier = |version: &DeletedVersion| {
        life_of_deleted(head, version.life, version.sequence) != Some(head.life)
    };
    top.is_some()
        && (head.state == NameState::Deleted || head.is_unnumbered() || deleted.iter().any(earlier))
}

fn nothing_to_restore() -> Error {
    Error::NotFound(
        "Nothing of this secret can be restored: it was not deleted, its recovery window has \
         ended, or it was deleted with `force`. Its history shows which."
            .into(),
    )
}

fn nothing_before_reseal() -> Error {
    Error::NotFound(
        "There is no earlier form of this version: it was not resealed under a new data key, or \
         the recovery window has ended. To restore a deleted version, leave `before_reseal` out."
            .into(),
    )
}

fn resealed_exists() -> Error {
    Error::Exists(
        "The version exists. Delete it first, then restore with `before_reseal` again.".into(),
    )
}

fn would_be_current() -> Error {
    Error::Exists(
        "This version has a number without leading zeros, so it would sort above the current \
         version and replace it. Get it from a backup, or delete what is live, restore this one, \
         and rotate the name with action reseal."
            .into(),
    )
}

fn put_again() -> Error {
    Error::Exists(
        "This name was put again after the delete. Restore single versions with `version`: each \
         keeps its number, if that is free. Or delete what is live and restore then, which brings \
         back both; of two rows of one number, the one deleted last."
            .into(),
    )
}

fn version_exists() -> Error {
    Error::Exists(
        "A version of the same number exists: it was put after the delete. Restore others with \
         `version`, or delete that one and restore with `deleted_before`, a time before that \
         delete."
            .into(),
    )
}
