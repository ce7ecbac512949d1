//! Transactions: writes that are all done, or none of them. Each write has a label, and a failed
//! condition is reported by the label of its write.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::error::TransactionCanceledException;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, Delete, Put, TransactWriteItem, Update,
};

use crate::aws_error::AwsError;
use crate::backoff::Backoff;
use crate::error::Error;

use super::condition::Condition;
use super::item::Item;

/// What one write of a transaction is about. The number is the caller's: the index of a secret or
/// of a version in its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteLabel {
    /// A version is put or replaced.
    Version(usize),
    /// The row or entry of a version is removed, for good or because the version moves.
    Removal(usize),
    /// A row is copied to the ledger.
    Copy(usize),
    /// An event is appended to a history.
    Event(usize),
    /// The chain head of a history is put.
    Head(usize),
    /// A rotation policy is put or removed.
    Policy,
    /// The entry of an idempotency token is put.
    Token,
    /// The notice that a version expires is put.
    Notice,
    /// A run is put.
    Run,
    /// The progress of a part of a run is put.
    Progress,
    /// Another entry of a run is put: a hint or a failure.
    RunEntry,
}

/// Writes that are done together.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    labels: Vec<WriteLabel>,
    writes: Vec<TransactWriteItem>,
    /// The tables that are written, for the operator.
    tables: Vec<String>,
}

/// The result of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub enum Committed {
    /// All writes are done.
    Done,
    /// Nothing was changed: the conditions of these writes do not hold.
    Refused(Vec<WriteLabel>),
    /// Nothing was changed: another transaction is writing one of the items.
    Conflict,
}

impl Transaction {
    /// The most writes in one transaction.
    pub const MAX_WRITES: usize = 100;
    /// The most bytes that one transaction of Coffer writes: DynamoDB accepts 4 MB.
    pub const MAX_BYTES: usize = 4_000_000;

    /// Adds a put.
    pub(super) fn put(
        &mut self,
        label: WriteLabel,
        table: &str,
        item: Item,
        condition: Option<Condition>,
    ) {
        let mut put = Put::builder().table_name(table).set_item(Some(item));
        if let Some(condition) = condition {
            put = put
                .condition_expression(condition.expression)
                .set_expression_attribute_names(Some(condition.names))
                .set_expression_attribute_values(condition.values);
        }
        let put = put.build().map(|put| TransactWriteItem::builder().put(put).build());
        self.add(label, table, put);
    }

    /// Adds an update that sets the attribute `row` of an entry.
    pub(super) fn update_row(
        &mut self,
        label: WriteLabel,
        table: &str,
        key: Item,
        row: Item,
        condition: Condition,
    ) {
        let update = Update::builder()
            .table_name(table)
            .set_key(Some(key))
            .update_expression("SET #within = :row")
            .condition_expression(condition.expression)
            .set_expression_attribute_names(Some(condition.names))
            .set_expression_attribute_values(condition.values)
            .expression_attribute_values(":row", AttributeValue::M(row))
            .build();
        let update = update.map(|update| TransactWriteItem::builder().update(update).build());
        self.add(label, table, update);
    }

    /// Adds a delete.
    pub(super) fn delete(
        &mut self,
        label: WriteLabel,
        table: &str,
        key: Item,
        condition: Condition,
    ) {
        let delete = Delete::builder()
            .table_name(table)
            .set_key(Some(key))
            .condition_expression(condition.expression)
            .set_expression_attribute_names(Some(condition.names))
            .set_expression_attribute_values(condition.values)
            .build();
        let delete = delete.map(|delete| TransactWriteItem::builder().delete(delete).build());
        self.add(label, table, delete);
    }

    fn add<E>(&mut self, label: WriteLabel, table: &str, write: Result<TransactWriteItem, E>) {
        // The builders fail if a table, an item or a key is missing. Each write has them.
        let Ok(write) = write else { return };
        self.labels.push(label);
        self.writes.push(write);
        if !self.tables.iter().any(|known| known == table) {
            self.tables.push(table.to_owned());
        }
    }

    /// Does all writes or none. The client sends one token with every try of the same transaction,
    /// so a try that follows a successful one changes nothing more.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Unavailable`].
    pub(super) async fn commit(&self, client: &Client) -> Result<Committed, Error> {
        const BUSY_TRIES: u32 = 8;
        let mut backoff = Backoff::default();
        for tries in 1.. {
            #[cfg(feature = "crash")]
            super::crash::point();
            let sent = client
                .transact_write_items()
                .set_transact_items(Some(self.writes.clone()))
                .send()
                .await;
            #[cfg(feature = "crash")]
            super::crash::point();
            let Err(error) = sent else { return Ok(Committed::Done) };
            let Some(TransactWriteItemsError::TransactionCanceledException(canceled)) =
                error.as_service_error()
            else {
                return Err(self.failed(&error));
            };
            if let Some(committed) = self.refused(canceled)? {
                return Ok(committed);
            }
            // Throttled, or something new. The client does not retry a canceled transaction.
            let codes: Vec<_> = canceled
                .cancellation_reasons()
                .iter()
                .filter_map(CancellationReason::code)
                .collect();
            let busy = ["ThrottlingError", "ProvisionedThroughputExceeded"];
            if !codes.iter().any(|code| busy.contains(code)) || tries == BUSY_TRIES {
                let code = codes.into_iter().find(|code| *code != "None");
                let error = self.aws_error(&error);
                return Err(error.because(code.unwrap_or("TransactionCanceledException")).into());
            }
            backoff.wait().await?;
        }
        Ok(Committed::Conflict)
    }

    /// Returns why a transaction was canceled, if for a condition or a conflict.
    fn refused(&self, canceled: &TransactionCanceledException) -> Result<Option<Committed>, Error> {
        let reasons = canceled.cancellation_reasons();
        let has = |wanted: &str| reasons.iter().any(|reason| reason.code() == Some(wanted));
        if has("ItemCollectionSizeLimitExceeded") {
            return Err(Error::TooLarge(
                "The versions of this name fill the 10 GB that DynamoDB allows. Delete old \
                 versions, or use another name."
                    .into(),
            ));
        }
        let about_size = reasons.iter().any(|reason| is_about_size(reason.message()));
        if has("ValidationError") && about_size {
            return Err(item_too_large());
        }
        // First, because what another transaction is about to change is not yet visible.
        if has("TransactionConflict") {
            return Ok(Some(Committed::Conflict));
        }
        if has("ConditionalCheckFailed") {
            let failed = |reason: &CancellationReason| {
                reason.code().is_some_and(|code| code == "ConditionalCheckFailed")
            };
            let labels = reasons.iter().zip(&self.labels).filter(|(reason, _)| failed(reason));
            return Ok(Some(Committed::Refused(labels.map(|(_, label)| *label).collect())));
        }
        Ok(None)
    }

    fn failed<R>(&self, error: &SdkError<TransactWriteItemsError, R>) -> Error
    where
        SdkError<TransactWriteItemsError, R>: RequestId,
    {
        let aws_error = self.aws_error(error);
        if aws_error.code() == "ValidationException" && is_about_size(error.message()) {
            item_too_large()
        } else if aws_error.is_certain() {
            aws_error.into()
        } else {
            unconfirmed(aws_error)
        }
    }

    /// Describes a failed call. `TransactWriteItems` is not an IAM action: each write is
    /// authorized by its own.
    fn aws_error<R>(&self, error: &SdkError<TransactWriteItemsError, R>) -> AwsError
    where
        SdkError<TransactWriteItemsError, R>: RequestId,
    {
        let deletes = self.writes.iter().any(|write| write.delete().is_some());
        let updates = self.writes.iter().any(|write| write.update().is_some());
        let action = match (deletes, updates) {
            (false, false) => "dynamodb:PutItem (dynamodb:TransactWriteItems)",
            (true, false) => {
                "dynamodb:PutItem and dynamodb:DeleteItem (dynamodb:TransactWriteItems)"
            }
            (false, true) => {
                "dynamodb:PutItem and dynamodb:UpdateItem (dynamodb:TransactWriteItems)"
            }
            (true, true) => {
                "dynamodb:PutItem, dynamodb:DeleteItem and dynamodb:UpdateItem \
                 (dynamodb:TransactWriteItems)"
            }
        };
        let tables: Vec<_> = self.tables.iter().map(|table| format!("table/{table}")).collect();
        AwsError::of(action, tables.join(" and "), error)
    }

    #[cfg(test)]
    pub(super) fn writes(&self) -> &[TransactWriteItem] {
        &self.writes
    }
}

/// Whether DynamoDB complains about a size. It has no code for that.
pub(super) fn is_about_size(message: Option<&str>) -> bool {
    message.is_some_and(|message| message.to_lowercase().contains("size"))
}

pub(super) fn item_too_large() -> Error {
    Error::TooLarge(
        "DynamoDB rejected an item because of its size. An adopted table may have local indexes \
         that copy its items, and the ledger keeps a deleted version in one item. Shorten the \
         secret. To delete a version that is too large to be recoverable, use `force`, or delete \
         its row in DynamoDB."
            .into(),
    )
}

/// The error for a write that may have been done.
fn unconfirmed(source: AwsError) -> Error {
    Error::Unavailable {
        message: "DynamoDB did not confirm the write, and it may have been done. To delete or to \
                  restore, try again. To put, try again with the same `token`, or list the \
                  versions first."
            .into(),
        source: Box::new(source),
    }
}
