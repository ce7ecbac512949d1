//! pad: a version whose number is not padded, as clients wrote it before 2016, moves to the padded
//! number. As a text it sorts above all padded numbers, so no version that is put could follow it.

use crate::backoff::Backoff;
use crate::chain::{Act, Caller, Change as Told};
use crate::envelope::{self, Envelope};
use crate::error::Error;
use crate::keys::Unwrapped;
use crate::life::newest_after_rewrite;
use crate::name::{Label, Name};
use crate::row::{self, Attribute, Row};
use crate::store::Store;
use crate::store::scan::{Location, ScannedVersion};
use crate::store::transaction::{Committed, Transaction};

use super::Coffer;
use super::executor::{Applied, Change, Plan, Reason};
use super::reseal::old_form;
use super::rewrap::sealed_under;

/// Whether a row has a number that is to be padded. Deleted ones stay as they are.
pub(super) fn is_unpadded(found: &ScannedVersion) -> bool {
    found.home == Location::Table && found.label.padded() != found.label
}

/// A row, or what describes one, under its padded number where it is to be padded.
pub(super) fn padded(found: &ScannedVersion, mut row: Row) -> Row {
    if is_unpadded(found) {
        let version = Attribute::Text(found.label.padded().as_str().to_owned());
        row.insert("version".to_owned(), version);
    }
    row
}

impl Coffer {
    /// What a sealed row becomes: the same under its padded number, or nothing else. The seal covers
    /// the number, so the row is verified and sealed again, with the same plaintext under the same
    /// data key and counter, which is the same ciphertext.
    pub(super) async fn plan_pad(&self, found: &ScannedVersion) -> Result<Plan, Error> {
        if !is_unpadded(found) {
            return Ok(Plan::Skip);
        }
        if let Some(reason) = self.cannot_pad(found).await? {
            return Ok(Plan::Fail(reason));
        }
        let row = found.row();
        let (Some(context), Ok(envelope)) = (sealed_under(&row), Envelope::parse(&row)) else {
            return Ok(Plan::Fail(Reason::Malformed));
        };
        let key = match self.keys()?.unwrap(envelope.wrapped_key(), &context).await? {
            Unwrapped::Key(key) => key,
            Unwrapped::Foreign | Unwrapped::Unusable(_) => return Ok(Plan::Fail(Reason::Foreign)),
            Unwrapped::Refused => return Ok(Plan::Fail(Reason::Integrity)),
        };
        let Ok(opened) = envelope.open(&key) else { return Ok(Plan::Fail(Reason::Integrity)) };
        let mut row = padded(found, row);
        row.remove("seal");
        let Ok(row) = envelope::seal_over(&key, &opened.secret, row) else {
            return Ok(Plan::Fail(Reason::Unsealable));
        };
        Ok(if row::fits(&row) {
            Plan::Change(Change::Row(row))
        } else {
            Plan::Fail(Reason::TooLarge)
        })
    }

    /// Why a version will not be padded, as far as that is known before the others of its name are
    /// padded. It is asked again when it is written.
    pub(super) async fn cannot_pad(&self, found: &ScannedVersion) -> Result<Option<Reason>, Error> {
        /// How many of the highest versions are looked at.
        const LOOKED_AT: i32 = 100;
        if !is_unpadded(found) {
            return Ok(None);
        }
        let store = self.ledger()?;
        let name = Name::of_any_client(&found.name)?;
        if store.live(&name, &found.label.padded()).await?.is_some() {
            return Ok(Some(Reason::Exists));
        }
        let labels = store.highest(&name, LOOKED_AT).await?;
        // Those of lower numbers are padded before, and those of higher ones are in the way either
        // way.
        let (highest, others) = labels.split_first().map_or((None, &[][..]), |(a, b)| (Some(a), b));
        let second = others.iter().map(Label::padded).max_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok((!keeps_order(&found.label, highest, second.as_ref())).then_some(Reason::Order))
    }

    /// Moves one version to its padded number, in one transaction with the event that tells of it,
    /// if the same version is current afterwards.
    pub(super) async fn apply_pad(
        &self,
        found: &ScannedVersion,
        row: &Row,
        caller: &Caller,
    ) -> Result<Applied, Error> {
        let store = self.ledger()?;
        let name = Name::of_any_client(&found.name)?;
        let mut backoff = Backoff::default();
        for _ in 0..Self::CROSSED {
            // The end of the chain first: whatever Coffer writes after it was read makes this one
            // fail.
            let tail = store.tail(&name).await?;
            if let Some(reason) = refused(store, &name, &found.label).await? {
                return Ok(Applied::Failed(reason));
            }
            let mut transaction = Transaction::default();
            transaction.renumber(store, found, row.clone());
            if let Some(entry) = old_form(found, row, tail.sequence + 1) {
                transaction.keep(store, entry);
            }
            let told = Told {
                act: Act::Reseal,
                versions: vec![found.label.clone()],
                forced: false,
                state: tail.state,
                recoverable_until: None,
                newest: newest_after_rewrite(&tail, [(&found.row(), row)]),
            };
            match self.tell(store, transaction, &name, &tail, &told, caller).await {
                Ok(Committed::Done) => return Ok(Applied::Changed),
                // It is not what was read any more.
                Ok(Committed::Refused(failed)) if failed.contains(&0) => break,
                Ok(Committed::Refused(failed)) if failed.contains(&1) => {
                    return Ok(Applied::Failed(Reason::Exists));
                }
                Ok(Committed::Refused(_) | Committed::Conflict) => backoff.wait().await?,
                Err(Error::TooLarge(_)) => return Ok(Applied::Failed(Reason::TooLarge)),
                Err(error) => return Err(error),
            }
        }
        Ok(Applied::Crossed)
    }
}

/// Why a version may not be padded now, if it may not.
async fn refused(store: &Store, name: &Name, label: &Label) -> Result<Option<Reason>, Error> {
    let labels = store.highest(name, 2).await?;
    let (highest, second) = (labels.first(), labels.get(1));
    if second == Some(&label.padded()) {
        return Ok(Some(Reason::Exists));
    }
    Ok((!keeps_order(label, highest, second)).then_some(Reason::Order))
}

/// Whether the same version is current after `label` is padded, by the two highest sort keys. They
/// are compared as texts, as DynamoDB does.
fn keeps_order(label: &Label, highest: Option<&Label>, second: Option<&Label>) -> bool {
    let padded = label.padded();
    let above = |other: &Label| other.as_str() > padded.as_str();
    match highest {
        // It is current, and has to stay it.
        Some(highest) if highest == label => !second.is_some_and(above),
        // Another is current, and has to stay it.
        Some(highest) => above(highest),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps(label: &str, highest: &[&str]) -> bool {
        let labels: Vec<_> = highest.iter().map(|text| Label::stored(*text)).collect();
        keeps_order(&Label::stored(label), labels.first(), labels.get(1))
    }

    #[test]
    fn the_same_version_is_current_after_it_was_padded() {
        let (seven, eight) = ("0000000000000000007", "0000000000000000008");
        for (label, highest, padded) in [
            ("7", ["7", ""].as_slice(), true),
            // The lower one was padded before.
            ("8", &["8", seven], true),
            ("7", &["8", "7"], true),
            // A higher number was padded, or put: it would become current.
            ("7", &["7", eight], false),
            // The other one, which is not padded yet, would.
            ("8", &["8", "7"], false),
            // As a text "2" is above "10", and current.
            ("10", &["2", "10"], true),
            ("2", &["2", "0000000000000000010"], false),
            // A version of free text is above all numbers, and stays it.
            ("7", &["v2", "7"], true),
            ("00000000000000000007", &[eight, "00000000000000000007"], true),
            ("00000000000000000009", &[eight, "00000000000000000009"], false),
            // It is gone.
            ("7", &[], false),
        ] {
            assert_eq!(keeps(label, highest), padded, "{label} {highest:?}");
        }
    }

    /// All sets of versions of up to four numbers, each padded or not: whatever order says, the
    /// current version is the same after each step.
    #[test]
    fn no_step_changes_which_version_is_current() {
        let numbers = [1_u64, 2, 9, 10, 100];
        for set in 0..3_usize.pow(5) {
            let mut labels: Vec<(u64, Label)> = Vec::new();
            for (index, number) in numbers.iter().enumerate() {
                match set / 3_usize.pow(u32::try_from(index).unwrap()) % 3 {
                    1 => labels.push((*number, Label::stored(number.to_string()))),
                    2 => labels.push((*number, Label::stored(format!("{number:019}")))),
                    _ => {}
                }
            }
            let current = |labels: &[(u64, Label)]| {
                labels.iter().max_by(|a, b| a.1.as_str().cmp(b.1.as_str())).map(|it| it.0)
            };
            let before = current(&labels);
            for index in 0..labels.len() {
                let mut sorted: Vec<Label> = labels.iter().map(|it| it.1.clone()).collect();
                sorted.sort_by(|a, b| b.as_str().cmp(a.as_str()));
                let label = labels[index].1.clone();
                if label.padded() != label && keeps_order(&label, sorted.first(), sorted.get(1)) {
                    labels[index].1 = label.padded();
                }
                assert_eq!(current(&labels), before, "{labels:?}");
            }
        }
    }
}
