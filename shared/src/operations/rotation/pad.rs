//! The padding of version numbers. Clients before 2016 wrote numbers without leading zeros. As text,
//! such a number sorts above all padded ones, so no new version could follow it.

use crate::audit_chain::{EventKind, NewEvent};
use crate::backoff::Backoff;
use crate::envelope::{self, Envelope};
use crate::error::Error;
use crate::keys::Unwrapped;
use crate::life::newest_after_rewrite;
use crate::name::{Name, VersionKey};
use crate::row::{self, Attribute, Row};
use crate::store::location::Location;
use crate::store::scan::Stores;
use crate::store::scanned_version::ScannedVersion;
use crate::store::secrets_table::SecretsTable;
use crate::store::transaction::{Committed, Transaction, WriteLabel};

use super::action::Reason;
use super::plan::{Job, MAX_TRIES, Outcome, Plan};
use super::reseal::earlier_form;
use super::rewrap::sealed_context;

/// Whether a version has a number to be padded. Deleted versions stay as they are.
fn is_unpadded(version: &ScannedVersion) -> bool {
    version.location == Location::Table && version.label.padded() != version.label
}

/// Returns a row, or its description, under its padded number if it is to be padded.
pub(super) fn padded(version: &ScannedVersion, mut row: Row) -> Row {
    if is_unpadded(version) {
        let label = Attribute::Text(version.label.padded().as_str().to_owned());
        row.insert("version".to_owned(), label);
    }
    row
}

/// Plans the padding of a sealed row. The seal covers the number, so the row is verified and sealed
/// again, with the same plaintext under the same data key and counter, which is the same ciphertext.
pub(super) async fn plan(job: &Job<'_>, version: &ScannedVersion) -> Result<Plan<Row>, Error> {
    if !is_unpadded(version) {
        return Ok(Plan::Skip);
    }
    if let Some(reason) = cannot_pad(job.stores, version).await? {
        return Ok(Plan::Fail(reason));
    }
    let row = version.row();
    let (Some(context), Ok(envelope)) = (sealed_context(&row), Envelope::parse(&row)) else {
        return Ok(Plan::Fail(Reason::Malformed));
    };
    let key = match job.coffer.keys()?.unwrap(envelope.wrapped_key(), &context).await? {
        Unwrapped::Key(key) => key,
        Unwrapped::Foreign | Unwrapped::Unusable(_) => return Ok(Plan::Fail(Reason::Foreign)),
        Unwrapped::Refused => return Ok(Plan::Fail(Reason::Integrity)),
    };
    let Ok(opened) = envelope.open(&key) else { return Ok(Plan::Fail(Reason::Integrity)) };
    let mut row = padded(version, row);
    row.remove("seal");
    Ok(match envelope::add_seal(&key, &opened.secret, row) {
        Err(_) => Plan::Fail(Reason::Unsealable),
        Ok(row) if !row::fits(&row) => Plan::Fail(Reason::TooLarge),
        Ok(row) => Plan::Change(row),
    })
}

/// Returns why a version cannot be padded, as far as that is known before the others of its name are
/// padded. It is checked again before the write.
pub(super) async fn cannot_pad(
    stores: Stores<'_>,
    version: &ScannedVersion,
) -> Result<Option<Reason>, Error> {
    /// How many of the highest versions are compared.
    const COMPARED: i32 = 100;
    if !is_unpadded(version) {
        return Ok(None);
    }
    let name = Name::of_any_client(&version.name)?;
    if stores.table.live(&name, &version.label.padded()).await?.is_some() {
        return Ok(Some(Reason::Exists));
    }
    let labels = stores.table.highest_labels(&name, COMPARED).await?;
    // Versions with lower numbers are padded before. Those with higher ones are in the way whether
    // they are padded or not.
    let (highest, others) = labels.split_first().map_or((None, &[][..]), |(a, b)| (Some(a), b));
    let second = others.iter().map(VersionKey::padded).max_by(|a, b| a.as_str().cmp(b.as_str()));
    Ok((!keeps_order(&version.label, highest, second.as_ref())).then_some(Reason::Order))
}

/// Moves one version to its padded number, in one transaction with the event that records it, if the
/// same version is current afterwards.
pub(super) async fn apply(
    job: &Job<'_>,
    version: &ScannedVersion,
    row: &Row,
) -> Result<Outcome, Error> {
    let Job { stores, .. } = *job;
    let name = Name::of_any_client(&version.name)?;
    let mut backoff = Backoff::default();
    for _ in 0..MAX_TRIES {
        // The chain head first: whatever Coffer writes after this read makes the transaction fail.
        let head = stores.ledger.chain_head(&name).await?;
        if let Some(reason) = refused(stores.table, &name, &version.label).await? {
            return Ok(Outcome::Failed(reason));
        }
        let mut transaction = Transaction::default();
        stores.renumber(&mut transaction, 0, version, row.clone());
        if let Some(entry) = earlier_form(version, row, head.sequence + 1) {
            stores.ledger.put_before_reseal(&mut transaction, 0, entry);
        }
        let event = NewEvent {
            kind: EventKind::Reseal,
            versions: vec![version.label.clone()],
            forced: false,
            state: head.state,
            recoverable_until: None,
            newest: newest_after_rewrite(&head, [(&version.row(), row)]),
        };
        match job.coffer.record(transaction, &name, &head, &event, job.caller).await {
            Ok(Committed::Done) => return Ok(Outcome::Changed),
            // It is no longer what was read.
            Ok(Committed::Refused(failed)) if failed.contains(&WriteLabel::Removal(0)) => break,
            Ok(Committed::Refused(failed)) if failed.contains(&WriteLabel::Version(0)) => {
                return Ok(Outcome::Failed(Reason::Exists));
            }
            Ok(Committed::Refused(_) | Committed::Conflict) => backoff.wait().await?,
            Err(Error::TooLarge(_)) => return Ok(Outcome::Failed(Reason::TooLarge)),
            Err(error) => return Err(error),
        }
    }
    Ok(Outcome::Crossed)
}

/// Returns why a version cannot be padded now.
async fn refused(
    table: &SecretsTable,
    name: &Name,
    label: &VersionKey,
) -> Result<Option<Reason>, Error> {
    let labels = table.highest_labels(name, 2).await?;
    let (highest, second) = (labels.first(), labels.get(1));
    if second == Some(&label.padded()) {
        return Ok(Some(Reason::Exists));
    }
    Ok((!keeps_order(label, highest, second)).then_some(Reason::Order))
}

/// Whether the same version is current after `label` is padded, judged by the two highest sort keys.
/// They are compared as text, as DynamoDB does.
fn keeps_order(
    label: &VersionKey,
    highest: Option<&VersionKey>,
    second: Option<&VersionKey>,
) -> bool {
    let padded = label.padded();
    let above = |other: &VersionKey| other.as_str() > padded.as_str();
    match highest {
        // It is current and must stay current.
        Some(highest) if highest == label => !second.is_some_and(above),
        // Another version is current and must stay current.
        Some(highest) => above(highest),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeps(label: &str, highest: &[&str]) -> bool {
        let labels: Vec<_> = highest.iter().map(|text| VersionKey::stored(*text)).collect();
        keeps_order(&VersionKey::stored(label), labels.first(), labels.get(1))
    }

    #[test]
    fn padding_keeps_the_current_version() {
        let (seven, eight) = ("0000000000000000007", "0000000000000000008");
        for (label, highest, padded) in [
            ("7", ["7", ""].as_slice(), true),
            // The lower one is padded.
            ("8", &["8", seven], true),
            ("7", &["8", "7"], true),
            // A higher number was padded, or put: it would become current.
            ("7", &["7", eight], false),
            // The other one, which is not padded yet, would become current.
            ("8", &["8", "7"], false),
            // As a text "2" is above "10", and current.
            ("10", &["2", "10"], true),
            ("2", &["2", "0000000000000000010"], false),
            // A version of free text stays above all numbers.
            ("7", &["v2", "7"], true),
            ("00000000000000000007", &[eight, "00000000000000000007"], true),
            ("00000000000000000009", &[eight, "00000000000000000009"], false),
            // It is gone.
            ("7", &[], false),
        ] {
            assert_eq!(keeps(label, highest), padded, "{label} {highest:?}");
        }
    }

    /// In every set of versions of these numbers, each padded or not, the current version is the same
    /// after each step.
    #[test]
    fn no_step_changes_the_current_version() {
        let numbers = [1_u64, 2, 9, 10, 100];
        for set in 0..3_usize.pow(5) {
            let mut labels: Vec<(u64, VersionKey)> = Vec::new();
            for (index, number) in numbers.iter().enumerate() {
                match set / 3_usize.pow(u32::try_from(index).unwrap()) % 3 {
                    1 => labels.push((*number, VersionKey::stored(number.to_string()))),
                    2 => labels.push((*number, VersionKey::stored(format!("{number:019}")))),
                    _ => {}
                }
            }
            let current = |labels: &[(u64, VersionKey)]| {
                labels.iter().max_by(|a, b| a.1.as_str().cmp(b.1.as_str())).map(|it| it.0)
            };
            let before = current(&labels);
            for index in 0..labels.len() {
                let mut sorted: Vec<VersionKey> = labels.iter().map(|it| it.1.clone()).collect();
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
