//! reseal: rows that other clients wrote are given a seal, in place.

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::chain::{Act, Caller, Change as Told};
use crate::context::Context;
use crate::envelope::{self, Envelope, Examined, Refusal};
use crate::error::Error;
use crate::keys::Unwrapped;
use crate::name::{Name, Revision};
use crate::pause::Pause;
use crate::row::{self, Attribute, Row};
use crate::store::transaction::{Committed, Transaction};
use crate::store::walk::Found;

use super::Coffer;
use super::hint::Hints;
use super::work::{Applied, Change, InVain, Plan, Reason};

/// How many rows of one name one transaction gives a seal: at their largest they are 3.2 MB.
pub(super) const RESEALED: usize = 8;

impl Coffer {
    /// What a legacy row becomes with a seal. Nothing is guessed: one that fails its MAC, or that
    /// may be two dialects', stays as it is.
    pub(super) async fn plan_reseal(
        &self,
        found: &Found,
        hints: &Hints,
        dry_run: bool,
    ) -> Result<Plan, Error> {
        let row = found.row();
        if row.contains_key("seal") {
            return Ok(Plan::Skip);
        }
        if envelope::is_stripped(&row) {
            return Ok(Plan::Fail(Reason::Stripped));
        }
        let envelope = match Envelope::parse(&row) {
            Ok(envelope) => envelope,
            Err(refusal) => return Ok(Plan::Fail(reason(refusal))),
        };
        let (mut unwrapped, mut in_vain) = (None, InVain::default());
        for context in hints.contexts(&found.name) {
            match self.keys()?.unwrap(envelope.wrapped_key(), &context).await {
                Ok(Unwrapped::Key(key)) => {
                    unwrapped = Some((key, context));
                    break;
                }
                Ok(Unwrapped::Foreign | Unwrapped::Unusable(_)) => {
                    return Ok(Plan::Fail(Reason::Foreign));
                }
                Ok(Unwrapped::Refused) => in_vain.refused = true,
                Err(error) => in_vain.failed(error)?,
            }
        }
        let Some((key, context)) = unwrapped else { return in_vain.plan(Reason::Context) };
        let examined = envelope.examine(&key, hints.dialect(&found.name));
        let Some(described) = described(&row, &context)? else {
            return Ok(Plan::Fail(Reason::Unsealable));
        };
        let resealed = match examined {
            Err(refusal) => return Ok(Plan::Fail(reason(refusal))),
            Ok(Examined::Ambiguous) => return Ok(Plan::Fail(Reason::Ambiguous)),
            Ok(Examined::Contradicted) => return Ok(Plan::Fail(Reason::Dialect)),
            Ok(Examined::AsItIs(secret)) => {
                let mut whole = described;
                for kept in ["key", "contents", "hmac", "digest"] {
                    whole.extend(row.get(kept).map(|value| (kept.to_owned(), value.clone())));
                }
                envelope::seal_over(&key, &secret, whole)
            }
            // What it would be is known without a key for it.
            Ok(Examined::Anew(_)) if dry_run => Ok(described),
            Ok(Examined::Anew(secret)) => {
                let (key, wrapped) = self.keys()?.generate(&context).await?;
                envelope::seal(&key, &secret, described).map(|mut row| {
                    let wrapped = BASE64_STANDARD.encode(wrapped);
                    row.insert("key".to_owned(), Attribute::Text(wrapped));
                    row
                })
            }
        };
        let Ok(resealed) = resealed else { return Ok(Plan::Fail(Reason::Unsealable)) };
        let size = row::size(&resealed) + row::index_size(&resealed).max(row::LEDGER_BYTES);
        if size > row::MAX_BYTES {
            return Ok(Plan::Fail(Reason::TooLarge));
        }
        Ok(Plan::Change(Change::Row(resealed)))
    }

    /// Writes the resealed rows of one name and the event that tells of them, all or none; leaves
    /// those out that are not what was read any more.
    pub(super) async fn apply_reseal(
        &self,
        name: &str,
        mut rows: Vec<(Found, Row)>,
        caller: &Caller,
    ) -> Result<Vec<(Found, Applied)>, Error> {
        let store = self.ledger()?;
        let name = Name::of_any_client(name)?;
        let mut done = Vec::new();
        let mut pause = Pause::default();
        while !rows.is_empty() {
            let tail = store.tail(&name).await?;
            let mut transaction = Transaction::default();
            for (found, row) in &rows {
                transaction.reseal(store, found, row.clone());
            }
            let versions = rows.iter().map(|(found, _)| found.label.clone()).collect();
            let told = Told { act: Act::Reseal, versions, forced: false, state: tail.state };
            match self.tell(store, transaction, &name, &tail, &told, caller).await {
                Ok(Committed::Done) => {
                    done.extend(rows.drain(..).map(|(found, _)| (found, Applied::Changed)));
                }
                Ok(Committed::Refused(failed)) => {
                    let mut index = 0..;
                    let (crossed, left) = rows
                        .into_iter()
                        .partition(|_| index.next().is_some_and(|index| failed.contains(&index)));
                    rows = left;
                    let crossed: Vec<(Found, Row)> = crossed;
                    done.extend(crossed.into_iter().map(|(found, _)| (found, Applied::Crossed)));
                    pause.wait().await?;
                }
                Ok(Committed::Conflict) => pause.wait().await?,
                // DynamoDB does not say which: one by one, it is the one.
                Err(Error::TooLarge(_)) if rows.len() > 1 => {
                    for row in std::mem::take(&mut rows) {
                        let one = vec![row];
                        done.extend(Box::pin(self.apply_reseal(name.as_str(), one, caller)).await?);
                    }
                }
                Err(Error::TooLarge(_)) => {
                    let failed = Applied::Failed(Reason::TooLarge);
                    done.extend(rows.drain(..).map(|(found, _)| (found, failed)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// Why a row that was not opened is left.
fn reason(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Integrity => Reason::Integrity,
        Refusal::Malformed | Refusal::UnsupportedDigest => Reason::Malformed,
        Refusal::Ambiguous => Reason::Ambiguous,
    }
}

/// The describing attributes that the sealed row has: those that are there, the context, and a
/// revision if it has none. None where one of them is not of the type that Coffer reads.
fn described(row: &Row, context: &Context) -> Result<Option<Row>, Error> {
    let mut described = row.clone();
    for part in ["key", "contents", "hmac", "digest"] {
        described.remove(part);
    }
    let revision = match row.get("revision") {
        None => Revision::random()?,
        Some(Attribute::Bytes(bytes)) => match Revision::stored(bytes) {
            Some(revision) => revision,
            None => return Ok(None),
        },
        Some(_) => return Ok(None),
    };
    let revision = Attribute::Bytes(revision.as_str().as_bytes().to_vec());
    described.insert("revision".to_owned(), revision);
    described.insert("context".to_owned(), Attribute::Map(context.pairs().clone()));
    let text = |name: &str| row.get(name).is_none_or(|value| value.text().is_some());
    let number = |name: &str| row.get(name).is_none_or(|value| value.integer().is_some());
    let fits = text("comment") && number("created_at") && number("expires_at");
    // A seal covers no attribute of another type.
    Ok(Some(described).filter(|row| fits && row::canonical(row).is_some()))
}
