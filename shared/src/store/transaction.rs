//! Writes that are done together or not at all.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, CancellationReason, Delete, Put, TransactWriteItem};

use crate::error::Error;
use crate::failure::Failure;
use crate::moment::Moment;
use crate::name::Name;
use crate::pause::Pause;
use crate::row::{Attribute, Row};

use super::walk::Found;
use super::{Item, Place, Store, item_of, policy};

/// Writes to be done together, in DynamoDB's own terms: each has a condition of its own.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    writes: Vec<TransactWriteItem>,
}

/// What became of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub enum Committed {
    /// All of it is there.
    Done,
    /// Nothing was changed: the conditions of these writes, by their order, do not hold.
    Refused(Vec<usize>),
    /// Nothing was changed: another transaction is writing one of the rows.
    Conflict,
}

impl Transaction {
    /// The most writes in one transaction.
    pub const MAX_WRITES: usize = 100;
    /// The most bytes of one transaction that are asked for: DynamoDB takes 4 MB of items.
    pub const MAX_BYTES: usize = 4_000_000;

    /// How many writes there are.
    pub(crate) fn len(&self) -> usize {
        self.writes.len()
    }

    /// Puts a live version, if there is none of its name and version.
    pub fn put_version(&mut self, store: &Store, row: Row) {
        self.put(&store.table, item_of(row), Condition::new("attribute_not_exists(#name)"));
    }

    /// Puts an entry of the ledger, if there is none at its place.
    pub fn put_entry(&mut self, store: &Store, row: Row) {
        self.put(&store.ledger, item_of(row), Condition::new("attribute_not_exists(#name)"));
    }

    /// Puts the head of a name's events, unless a newer one is there.
    pub fn put_head(&mut self, store: &Store, row: Row) {
        let sequence = row.get("sequence").and_then(Attribute::integer).unwrap_or_default();
        let newer = "attribute_not_exists(#name) OR #sequence < :sequence";
        let condition = Condition::new(newer)
            .named("#sequence", "sequence")
            .valued(":sequence", AttributeValue::N(sequence.to_string()));
        self.put(&store.ledger, item_of(row), condition);
    }

    /// Puts an entry that ends by itself, if there is none at its place, or one that has ended by
    /// `now` and that DynamoDB has not yet removed.
    pub fn put_ending(&mut self, store: &Store, row: Row, now: Moment) {
        let condition = Condition::new("attribute_not_exists(#name) OR #ttl <= :now")
            .named("#ttl", "ttl")
            .valued(":now", AttributeValue::N(now.unix().to_string()));
        self.put(&store.ledger, item_of(row), condition);
    }

    /// Puts an entry of the ledger, whatever is there.
    pub(super) fn put_over(&mut self, store: &Store, row: Row) {
        self.put(&store.ledger, item_of(row), None);
    }

    /// Puts a run in force, if there was none, or the one that this execution worked on.
    pub(super) fn put_run(&mut self, store: &Store, row: Row, before: Option<&str>) {
        let condition = match before {
            None => Condition::new("attribute_not_exists(#name)"),
            Some(execution) => Condition::new("#execution = :execution")
                .named("#execution", "execution")
                .valued(":execution", AttributeValue::S(execution.to_owned())),
        };
        self.put(&store.ledger, item_of(row), condition);
    }

    /// Puts how far a part is, if it was written so many times before.
    pub(super) fn put_progress(&mut self, store: &Store, row: Row, page: u64) {
        let condition = match page {
            0 => Condition::new("attribute_not_exists(#name)"),
            page => Condition::new("#page = :page")
                .named("#page", "page")
                .valued(":page", AttributeValue::N(page.to_string())),
        };
        self.put(&store.ledger, item_of(row), condition);
    }

    /// Puts a policy, if there is none, or the one that was written by this event.
    pub fn put_policy(&mut self, store: &Store, row: Row, before: Option<u64>) {
        let condition = match before {
            None => Condition::new("attribute_not_exists(#name)"),
            Some(sequence) => Condition::sequence(sequence),
        };
        self.put(&store.ledger, item_of(row), condition);
    }

    /// Removes the policy of a name, if there is one.
    pub fn remove_policy(&mut self, store: &Store, name: &Name) {
        let key = policy::key(name.as_str())
            .map(|(name, value)| (name.to_owned(), AttributeValue::S(value)));
        self.delete(&store.ledger, Place::ENTRY, &Item::from(key), None);
    }

    /// Puts a sealed row in the place of a legacy one, wherever it lies, if it is still what was
    /// read and without a seal: a row that was sealed as it was has the same key and MAC.
    pub fn reseal(&mut self, store: &Store, found: &Found, row: Row) {
        let condition = found.unchanged().unsealed(found.within());
        self.put(store.table_of(found.home), found.with(row), condition);
    }

    /// Moves a live version to the ledger, if it is still the one that was read.
    pub fn bury(&mut self, store: &Store, live: &Item, buried: Item) {
        self.remove_version(store, live);
        let put = Put::builder().table_name(&store.ledger).set_item(Some(buried)).build();
        self.add(put.map(|put| TransactWriteItem::builder().put(put).build()));
    }

    /// Moves a version back from the ledger, if it is still the one that was read and its place is
    /// free.
    pub fn unearth(&mut self, store: &Store, buried: &Item, live: Item) {
        self.put(&store.table, live, Condition::new("attribute_not_exists(#name)"));
        self.remove_entry(store, buried);
    }

    /// Removes a live version, if it is still the one that was read.
    pub fn remove_version(&mut self, store: &Store, live: &Item) {
        let unchanged = Condition::unchanged(live, None);
        self.delete(&store.table, Place::VERSION, live, Some(unchanged));
    }

    /// Removes an entry of the ledger, if it still keeps the version that was read.
    pub fn remove_entry(&mut self, store: &Store, buried: &Item) {
        let row = buried.get("row").and_then(|row| row.as_m().ok());
        let unchanged = row.map(|row| Condition::unchanged(row, Some("row")));
        let condition = unchanged.unwrap_or_else(|| Condition::new("attribute_exists(#name)"));
        self.delete(&store.ledger, Place::ENTRY, buried, Some(condition));
    }

    fn put(&mut self, table: &str, item: Item, condition: impl Into<Option<Condition>>) {
        let mut put = Put::builder().table_name(table).set_item(Some(item));
        if let Some(condition) = condition.into() {
            put = put
                .condition_expression(condition.expression)
                .set_expression_attribute_names(Some(condition.names))
                .set_expression_attribute_values(condition.values);
        }
        self.add(put.build().map(|put| TransactWriteItem::builder().put(put).build()));
    }

    fn delete(&mut self, table: &str, place: Place, of: &Item, condition: Option<Condition>) {
        let mut delete = Delete::builder().table_name(table).set_key(Some(place.of(of)));
        if let Some(condition) = condition {
            delete = delete
                .condition_expression(condition.expression)
                .set_expression_attribute_names(Some(condition.names))
                .set_expression_attribute_values(condition.values);
        }
        self.add(delete.build().map(|delete| TransactWriteItem::builder().delete(delete).build()));
    }

    /// `TransactWriteItems` is no action that can be allowed: each write is authorised by its own.
    fn failure<R>(&self, store: &Store, error: &SdkError<TransactWriteItemsError, R>) -> Failure
    where
        SdkError<TransactWriteItemsError, R>: RequestId,
    {
        let deletes = self.writes.iter().any(|write| write.delete().is_some());
        let action = if deletes {
            "dynamodb:PutItem and dynamodb:DeleteItem (dynamodb:TransactWriteItems)"
        } else {
            "dynamodb:PutItem (dynamodb:TransactWriteItems)"
        };
        let resource = format!("table/{} and table/{}", store.table, store.ledger);
        Failure::of(action, resource, error)
    }

    fn add<E>(&mut self, write: Result<TransactWriteItem, E>) {
        // The builders fail where a table, an item or a key is missing; each has them.
        self.writes.extend(write.ok());
    }
}

/// What must hold for a write to be done, in DynamoDB's terms.
pub(super) struct Condition {
    pub(super) expression: String,
    pub(super) names: std::collections::HashMap<String, String>,
    pub(super) values: Option<Item>,
}

impl Condition {
    fn new(expression: &str) -> Self {
        let used = expression.contains("#name");
        let names = used.then(|| ("#name".to_owned(), "name".to_owned()));
        Self { expression: expression.to_owned(), names: names.into_iter().collect(), values: None }
    }

    fn named(mut self, placeholder: &str, name: &str) -> Self {
        self.names.insert(placeholder.to_owned(), name.to_owned());
        self
    }

    fn valued(mut self, placeholder: &str, value: AttributeValue) -> Self {
        self.values.get_or_insert_default().insert(placeholder.to_owned(), value);
        self
    }

    /// That an entry was written by this event.
    fn sequence(sequence: u64) -> Self {
        Self::new("#sequence = :sequence")
            .named("#sequence", "sequence")
            .valued(":sequence", AttributeValue::N(sequence.to_string()))
    }

    /// And that it has no seal.
    fn unsealed(mut self, within: Option<&str>) -> Self {
        let path = within.map_or("", |_| "#within.");
        self.expression = format!("{} AND attribute_not_exists({path}#seal)", self.expression);
        self.named("#seal", "seal")
    }

    /// That the wrapped key and the MAC of a version are what they were: the one changes when the
    /// key is wrapped anew, the other with everything else.
    pub(super) fn unchanged(row: &Item, within: Option<&str>) -> Self {
        let mut condition = Self::new("attribute_exists(#name)");
        let path = within.map_or("", |_| "#within.");
        if let Some(within) = within {
            condition = condition.named("#within", within);
        }
        for name in ["key", "hmac"] {
            let placeholder = format!("#{name}");
            let clause = match row.get(name) {
                Some(value) => {
                    condition = condition.valued(&format!(":{name}"), value.clone());
                    format!("{path}{placeholder} = :{name}")
                }
                None => format!("attribute_not_exists({path}{placeholder})"),
            };
            condition.expression = format!("{} AND {clause}", condition.expression);
            condition = condition.named(&placeholder, name);
        }
        condition
    }
}

impl Store {
    /// Writes all of it or nothing. The client sends one token with every try of the same
    /// transaction, so a try that meets what an earlier one has done changes nothing more.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Unavailable`].
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, Error> {
        const BUSY_TRIES: u32 = 8;
        let mut pause = Pause::default();
        for tries in 1.. {
            #[cfg(feature = "crash")]
            super::crash::point();
            let sent = self
                .client
                .transact_write_items()
                .set_transact_items(Some(transaction.writes.clone()))
                .send()
                .await;
            #[cfg(feature = "crash")]
            super::crash::point();
            let Err(error) = sent else {
                return Ok(Committed::Done);
            };
            let Some(TransactWriteItemsError::TransactionCanceledException(canceled)) =
                error.as_service_error()
            else {
                let failure = transaction.failure(self, &error);
                if failure.code() == "ValidationException" && about_size(error.message()) {
                    return Err(misfit());
                }
                return Err(if failure.is_certain() {
                    failure.into()
                } else {
                    unconfirmed(failure)
                });
            };
            let reasons: Vec<_> =
                canceled.cancellation_reasons().iter().map(CancellationReason::code).collect();
            let told = |wanted: &str| reasons.contains(&Some(wanted));
            if told("ItemCollectionSizeLimitExceeded") {
                return Err(Error::TooLarge(
                    "The versions of this name fill the 10 GB that DynamoDB allows. Delete old \
                     versions, or use another name."
                        .into(),
                ));
            }
            let messages = canceled.cancellation_reasons().iter().map(CancellationReason::message);
            if told("ValidationError") && messages.into_iter().any(about_size) {
                return Err(misfit());
            }
            // First, for what another transaction is about to change is not seen as it will be.
            if told("TransactionConflict") {
                return Ok(Committed::Conflict);
            }
            if told("ConditionalCheckFailed") {
                let failed = reasons.iter().enumerate();
                let failed = failed.filter(|(_, code)| **code == Some("ConditionalCheckFailed"));
                return Ok(Committed::Refused(failed.map(|(index, _)| index).collect()));
            }
            // Throttled, or something new. The client does not retry what was cancelled.
            let busy = told("ThrottlingError") || told("ProvisionedThroughputExceeded");
            if !busy || tries == BUSY_TRIES {
                let code = reasons.into_iter().flatten().find(|code| *code != "None");
                let failure = transaction.failure(self, &error);
                return Err(failure.because(code.unwrap_or("TransactionCanceledException")).into());
            }
            pause.wait().await?;
        }
        Ok(Committed::Conflict)
    }
}

/// Whether DynamoDB complains of a size: it has no code for that.
pub(super) fn about_size(message: Option<&str>) -> bool {
    message.is_some_and(|message| message.to_lowercase().contains("size"))
}

pub(super) fn misfit() -> Error {
    Error::TooLarge(
        "DynamoDB does not take an item of this size: a table that was adopted may have local \
         indexes that copy its items, and the ledger keeps a deleted version in one item. Shorten \
         the secret; what cannot be deleted for recovery is deleted with `force`, or by hand."
            .into(),
    )
}

/// A write of which nobody knows whether it was done: only the caller can tell.
fn unconfirmed(failure: Failure) -> Error {
    Error::Unavailable {
        message: "DynamoDB did not confirm the write, and it may have been done. To delete or to \
                  restore, try again; to put, try again with the same `token`, or list the \
                  versions first."
            .into(),
        source: Box::new(failure),
    }
}
