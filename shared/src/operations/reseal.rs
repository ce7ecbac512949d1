//! reseal: rows that other clients wrote are given a seal, in place or under their padded number.

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::backoff::Backoff;
use crate::chain::{Act, Caller, Change as Told};
use crate::context::Context;
use crate::envelope::{self, Envelope, Examined, Refusal};
use crate::error::Error;
use crate::keys::Unwrapped;
use crate::life::newest_after_rewrite;
use crate::moment::Moment;
use crate::name::{Label, Name, Revision};
use crate::row::{self, Attribute, Row};
use crate::store::ledger::before_reseal;
use crate::store::scan::{Location, ScannedVersion};
use crate::store::transaction::{Committed, Transaction};
use crate::store::{Item, Store};

use super::delete::Recovery;
use super::executor::{Applied, Change, InVain, Plan, Reason};
use super::legacy_hints::LegacyHints;
use super::{Coffer, DAY_SECONDS, Legacy, pad};

/// How many rows of one name one transaction writes, old forms included: at their largest they are
/// 3.2 MB.
const WRITTEN: usize = 8;

impl Coffer {
    /// What a legacy row becomes with a seal. Nothing is guessed: one that fails its MAC, or that
    /// may be two dialects', stays as it is.
    pub(super) async fn plan_reseal(
        &self,
        found: &ScannedVersion,
        hints: &LegacyHints,
        dry_run: bool,
    ) -> Result<Plan, Error> {
        let row = found.row();
        if row.contains_key("seal") {
            return self.plan_pad(found).await;
        }
        // The ledger keeps its own records under these names, so no event can tell of it.
        if Name::of_any_client(&found.name).is_ok_and(|name| name.is_reserved()) {
            return Ok(Plan::Fail(Reason::Unsealable));
        }
        if envelope::is_stripped(&row) {
            return Ok(Plan::Fail(Reason::Stripped));
        }
        // Or a row that was stripped of its seal would get another, under whatever name it lies.
        if self.policy.legacy == Legacy::Refuse {
            return Ok(Plan::Fail(Reason::Unsealed));
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
        // Where padding would make another version current, it gets its seal in place.
        let refused = self.cannot_pad(found).await?;
        let described = if refused.is_some() { described } else { pad::padded(found, described) };
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
        if !row::fits(&resealed) {
            return Ok(Plan::Fail(Reason::TooLarge));
        }
        Ok(Plan::Change(Change::Row(resealed)))
    }

    /// Writes the resealed rows of one name and the event that tells of them, all or none; leaves
    /// those out that are not what was read any more. A row that was sealed under another data key
    /// stays in the ledger as it was.
    pub(super) async fn apply_reseal(
        &self,
        name: &str,
        mut rows: Vec<(ScannedVersion, Row)>,
        caller: &Caller,
    ) -> Result<Vec<(ScannedVersion, Applied)>, Error> {
        let store = self.ledger()?;
        let name = Name::of_any_client(name)?;
        let mut done = Vec::new();
        let mut backoff = Backoff::default();
        for _ in 0..Self::CROSSED {
            if rows.is_empty() {
                break;
            }
            let tail = store.tail(&name).await?;
            let transaction = resealed(store, &rows, tail.sequence + 1);
            let live = rows.iter().filter(|(found, _)| found.home == Location::Table);
            let live: Vec<_> = live.map(|(found, row)| (found.row(), row)).collect();
            let told = Told {
                act: Act::Reseal,
                versions: rows.iter().map(|(found, _)| found.label.clone()).collect(),
                forced: false,
                state: tail.state,
                recoverable_until: None,
                newest: newest_after_rewrite(&tail, live.iter().map(|(old, new)| (old, *new))),
            };
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
                    let crossed: Vec<(ScannedVersion, Row)> = crossed;
                    done.extend(crossed.into_iter().map(|(found, _)| (found, Applied::Crossed)));
                    backoff.wait().await?;
                }
                Ok(Committed::Conflict) => backoff.wait().await?,
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
        // Others keep writing the name.
        done.extend(rows.into_iter().map(|(found, _)| (found, Applied::Crossed)));
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

/// How many of these rows one transaction writes: at least one of them, if there is one.
pub(super) fn batch(rows: &[(ScannedVersion, Row)]) -> usize {
    let mut left = WRITTEN;
    let fits = |(found, row): &&(ScannedVersion, Row)| {
        let writes = 1 + usize::from(is_anew(found, row));
        let fits = writes <= left;
        left = left.saturating_sub(writes);
        fits
    };
    rows.iter().take_while(fits).count()
}

/// Whether a row's plaintext was sealed under another data key.
fn is_anew(found: &ScannedVersion, row: &Row) -> bool {
    found.row().get("key") != row.get("key")
}

/// The writes of some rows, one for each in their order, then those of the old forms.
fn resealed(store: &Store, rows: &[(ScannedVersion, Row)], sequence: u64) -> Transaction {
    let mut transaction = Transaction::default();
    for (found, row) in rows {
        transaction.reseal(store, found, row.clone());
    }
    for (found, row) in rows {
        if let Some(entry) = old_form(found, row, sequence) {
            transaction.keep(store, entry);
        }
    }
    transaction
}

/// The entry that keeps a row as it was, if the event `sequence` seals its plaintext under another
/// data key. Should what was said of its dialect be wrong, the value is in the old form alone. It
/// is kept as long as a deleted version is, or as long as the version itself if that is deleted.
pub(super) fn old_form(found: &ScannedVersion, row: &Row, sequence: u64) -> Option<Item> {
    const SECONDS: u64 = Recovery::MAX_DAYS as u64 * DAY_SECONDS;
    if !is_anew(found, row) {
        return None;
    }
    let version = row.get("version").and_then(Attribute::text).unwrap_or(found.label.as_str());
    let now = Moment::now();
    let until = found.until().or_else(|| now.after(SECONDS)).unwrap_or(now);
    Some(before_reseal(&found.live(), &Label::stored(version), sequence, until))
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

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;

    use super::*;
    use crate::store::scan::{Location, Projection};

    fn text(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    fn found(home: Location) -> ScannedVersion {
        let row = Item::from([
            ("version".to_owned(), text("7")),
            ("key".to_owned(), text("old")),
            ("contents".to_owned(), text("ciphertext")),
            ("hmac".to_owned(), text("mac")),
        ]);
        let mut item = match home {
            Location::Table => row,
            Location::Ledger => Item::from([
                ("entry".to_owned(), text("deleted#7#ab")),
                ("ttl".to_owned(), AttributeValue::N("4102444800".to_owned())),
                ("row".to_owned(), AttributeValue::M(row)),
            ]),
        };
        item.insert("name".to_owned(), text("n"));
        ScannedVersion::of(home, Projection::Whole, item).unwrap()
    }

    fn row(key: &str, version: &str) -> Row {
        let pairs = [("name", "n"), ("version", version), ("key", key)];
        pairs.map(|(name, value)| (name.to_owned(), Attribute::Text(value.to_owned()))).into()
    }

    #[test]
    fn what_is_sealed_under_another_key_is_kept_as_it_was_for_the_recovery_window() {
        let padded = "0000000000000000007";
        let kept = old_form(&found(Location::Table), &row("new", padded), 3).unwrap();
        assert_eq!(kept["before_reseal"], AttributeValue::Bool(true));
        assert_eq!(kept["name"], text("n"));
        let entry = kept["entry"].as_s().unwrap();
        assert!(entry.starts_with("deleted#0000000000000000007#") && entry.ends_with("-3"));
        let old = kept["row"].as_m().unwrap();
        assert_eq!((&old["version"], &old["key"]), (&text("7"), &text("old")));
        let ttl: i64 = kept["ttl"].as_n().unwrap().parse().unwrap();
        let days = (ttl - Moment::now().unix()) / i64::try_from(DAY_SECONDS).unwrap();
        assert!((29..=30).contains(&days), "{days}");
    }

    #[test]
    fn the_old_form_of_a_deleted_version_goes_when_that_does() {
        let kept = old_form(&found(Location::Ledger), &row("new", "7"), 3).unwrap();
        assert_eq!(kept["ttl"], AttributeValue::N("4102444800".to_owned()));
    }

    #[test]
    fn what_is_sealed_as_it_is_needs_no_old_form() {
        assert!(old_form(&found(Location::Table), &row("old", "7"), 3).is_none());
    }

    #[test]
    fn a_transaction_has_room_for_the_old_forms() {
        let rows = |key: &str| vec![(found(Location::Table), row(key, "7")); 10];
        assert_eq!((batch(&rows("old")), batch(&rows("new")), batch(&[])), (8, 4, 0));
    }
}
