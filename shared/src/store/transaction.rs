//! Writes that are done together or not at all.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, Delete, Put, TransactWriteItem, Update,
};

use crate::aws_error::AwsError;
use crate::backoff::Backoff;
use crate::error::Error;
use crate::moment::Moment;
use crate::name::Name;
use crate::row::{Attribute, Row};

use super::scan::{Location, Projection, ScannedVersion};
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

    /// Puts a run in force, if there is none, or the one that was read: the same run of the same
    /// execution, with the same token, and not ended since.
    pub(super) fn put_run(&mut self, store: &Store, row: Row, before: Option<&Row>) {
        let condition = match before {
            None => Condition::new("attribute_not_exists(#name)"),
            Some(before) => {
                let read = ["ended_at", "execution", "run", "token"];
                let before = before.iter().filter(|(name, _)| read.contains(&name.as_str()));
                let before = before.map(|(name, value)| (name.clone(), value.clone())).collect();
                Condition::new("attribute_exists(#name)").same('r', &item_of(before), &read, None)
            }
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
    pub fn put_policy(&mut self, store: &Store, row: Row, before: Option<Option<u64>>) {
        let condition = match before {
            None => Condition::new("attribute_not_exists(#name)"),
            Some(Some(sequence)) => Condition::sequence(sequence),
            // One that was edited by hand can still be replaced.
            Some(None) => Condition::new("attribute_exists(#name)"),
        };
        self.put(&store.ledger, item_of(row), condition);
    }

    /// Removes the policy of a name, if there is one, unless it belongs to a later life of the
    /// name than this one.
    pub fn remove_policy(&mut self, store: &Store, name: &Name, life: u64) {
        let key = policy::key(name.as_str())
            .map(|(name, value)| (name.to_owned(), AttributeValue::S(value)));
        let condition = Condition::new("attribute_not_exists(#life) OR #life <= :life")
            .named("#life", "life")
            .valued(":life", AttributeValue::N(life.to_string()));
        self.delete(&store.ledger, Place::ENTRY, &Item::from(key), Some(condition));
    }

    /// Puts a sealed row in the place of a legacy one, if that is still what was read. Of an entry
    /// in the ledger nothing but the row is written: how long it is kept is not for this to say.
    pub fn reseal(&mut self, store: &Store, found: &ScannedVersion, row: Row) {
        let mut row = item_of(row);
        let condition = found.unchanged();
        match found.home {
            Location::Table => self.put(&store.table, row, condition),
            Location::Ledger => {
                row.remove("name");
                self.set_row(&store.ledger, found, row, condition);
            }
        }
    }

    /// Moves a live version to another sort key, if it is still what was read and no version is
    /// there: two writes, the removal first.
    pub fn renumber(&mut self, store: &Store, found: &ScannedVersion, row: Row) {
        self.delete(&store.table, Place::VERSION, &found.item, Some(found.unchanged()));
        self.put_version(store, row);
    }

    /// Keeps what a version was before it was sealed again.
    pub(crate) fn keep(&mut self, store: &Store, entry: Item) {
        self.put(&store.ledger, entry, Condition::new("attribute_not_exists(#name)"));
    }

    /// Moves a live version to the ledger, if it is still the one that was read.
    pub fn soft_delete(&mut self, store: &Store, live: &Item, buried: Item) {
        self.remove_version(store, live);
        let put = Put::builder().table_name(&store.ledger).set_item(Some(buried)).build();
        self.add(put.map(|put| TransactWriteItem::builder().put(put).build()));
    }

    /// Moves a version back from the ledger, if it is still the one that was read and its place is
    /// free.
    pub fn undelete(&mut self, store: &Store, buried: &Item, live: Item) {
        self.put(&store.table, live, Condition::new("attribute_not_exists(#name)"));
        self.remove_entry(store, buried);
    }

    /// Removes a live version, if it is still the one that was read.
    pub fn remove_version(&mut self, store: &Store, live: &Item) {
        let unchanged = Condition::live(live, Projection::Whole);
        self.delete(&store.table, Place::VERSION, live, Some(unchanged));
    }

    /// Removes an entry of the ledger that keeps a version, if it is still what was read.
    pub fn remove_entry(&mut self, store: &Store, buried: &Item) {
        let unchanged = Condition::kept(buried, Projection::Whole);
        self.delete(&store.ledger, Place::ENTRY, buried, Some(unchanged));
    }

    fn set_row(&mut self, table: &str, found: &ScannedVersion, row: Item, condition: Condition) {
        let update = Update::builder()
            .table_name(table)
            .set_key(Some(Place::ENTRY.of(&found.item)))
            .update_expression("SET #within = :row")
            .condition_expression(condition.expression)
            .set_expression_attribute_names(Some(condition.names))
            .set_expression_attribute_values(condition.values)
            .expression_attribute_values(":row", AttributeValue::M(row));
        self.add(update.build().map(|update| TransactWriteItem::builder().update(update).build()));
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
    fn failure<R>(&self, store: &Store, error: &SdkError<TransactWriteItemsError, R>) -> AwsError
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
        let resource = format!("table/{} and table/{}", store.table, store.ledger);
        AwsError::of(action, resource, error)
    }

    fn add<E>(&mut self, write: Result<TransactWriteItem, E>) {
        // The builders fail where a table, an item or a key is missing; each has them.
        self.writes.extend(write.ok());
    }
}

/// The attributes of a row that its wrapped data key goes with.
const WRAPPED: &[&str] = &["hmac", "key"];
/// The attribute of an entry that keeps a row.
const ROW: &str = "row";
/// The attributes of an entry that keeps a row, but its key and the row.
const ENTRY: &[&str] = &["before_reseal", "deleted_at", "sequence", "ttl"];
/// The attributes of a row, but its key and its ciphertext. One that is added to a row is noticed,
/// too.
const DESCRIBING: &[&str] = &[
    "key",
    "hmac",
    "seal",
    "digest",
    "context",
    "revision",
    "comment",
    "created_at",
    "expires_at",
    "binary",
    "json",
];

/// What must hold for a write to be done, in DynamoDB's terms.
pub(super) struct Condition {
    pub(super) expression: String,
    pub(super) names: std::collections::HashMap<String, String>,
    pub(super) values: Option<Item>,
}

impl Condition {
    /// The most attributes of one row that are compared.
    const COMPARED: usize = 100;

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

    /// That a live row is what was read of it.
    pub(super) fn live(row: &Item, view: Projection) -> Self {
        Self::new("attribute_exists(#name)").same_row(row, view, None)
    }

    /// That an entry of the ledger, and the row that it keeps, are what was read of them.
    pub(super) fn kept(entry: &Item, view: Projection) -> Self {
        let nothing = Item::new();
        let row = entry.get(ROW).and_then(|row| row.as_m().ok()).unwrap_or(&nothing);
        let about =
            entry.iter().filter(|(name, _)| !["entry", "name", ROW].contains(&name.as_str()));
        let about = about.map(|(name, value)| (name.clone(), value.clone()));
        let (about, known): (Item, &[&str]) = match view {
            Projection::Whole => (about.collect(), ENTRY),
            Projection::WrappedKey => (Item::new(), &[]),
        };
        let condition = Self::new("attribute_exists(#name)").same('e', &about, known, None);
        condition.named("#within", ROW).same_row(row, view, Some("#within."))
    }

    /// That every attribute of a row is what was read, but its key, and its ciphertext, which the
    /// MAC covers. Where only the data key is wrapped again, that the wrapped key and the MAC are:
    /// nothing else is written, and a role that may compare an attribute may also write it.
    fn same_row(self, row: &Item, view: Projection, within: Option<&str>) -> Self {
        let covered = row.contains_key("hmac");
        let skipped =
            |name: &str| ["name", "version"].contains(&name) || (covered && name == "contents");
        let rest = row.iter().filter(|(name, _)| match view {
            Projection::Whole => !skipped(name),
            Projection::WrappedKey => WRAPPED.contains(&name.as_str()),
        });
        let rest = rest.map(|(name, value)| (name.clone(), value.clone())).collect();
        let known = match view {
            Projection::Whole => DESCRIBING,
            Projection::WrappedKey => WRAPPED,
        };
        self.same('a', &rest, known, within)
    }

    /// And that these attributes are as they were read, the known ones also where there was none.
    /// `mark` tells their placeholders from others. The known ones are compared first: DynamoDB
    /// takes 4 KB and 300 operators, so of a row with more than [`Self::COMPARED`] attributes, which
    /// no client writes, not all are compared.
    fn same(mut self, mark: char, read: &Item, known: &[&str], within: Option<&str>) -> Self {
        let path = within.unwrap_or_default();
        let mut others: Vec<&str> =
            read.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
        others.sort_unstable();
        let names = known.iter().copied().chain(others).take(Self::COMPARED);
        for (number, name) in names.enumerate() {
            let (placeholder, value) = (format!("#{mark}{number}"), format!(":{mark}{number}"));
            let clause = match read.get(name) {
                Some(read) => {
                    self = self.valued(&value, read.clone());
                    format!("{path}{placeholder} = {value}")
                }
                None => format!("attribute_not_exists({path}{placeholder})"),
            };
            self.expression = format!("{} AND {clause}", self.expression);
            self = self.named(&placeholder, name);
        }
        self
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
        let mut backoff = Backoff::default();
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
            backoff.wait().await?;
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
fn unconfirmed(failure: AwsError) -> Error {
    Error::Unavailable {
        message: "DynamoDB did not confirm the write, and it may have been done. To delete or to \
                  restore, try again; to put, try again with the same `token`, or list the \
                  versions first."
            .into(),
        source: Box::new(failure),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::{Client, Config};

    use super::*;

    fn store() -> Store {
        let config = Config::builder().behavior_version_latest().build();
        Store::new(Client::from_conf(config), "table".to_owned(), Some("ledger".to_owned()))
    }

    fn text(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    fn number(number: u32) -> AttributeValue {
        AttributeValue::N(number.to_string())
    }

    fn item(pairs: &[(&str, AttributeValue)]) -> Item {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn legacy() -> Item {
        item(&[
            ("name", text("n")),
            ("version", text("0000000000000000001")),
            ("key", text("wrapped")),
            ("contents", text("ciphertext")),
            ("hmac", text("mac")),
            ("comment", text("theirs")),
            ("tag-of-theirs", AttributeValue::L(vec![text("x")])),
        ])
    }

    fn kept() -> Item {
        let mut row = legacy();
        row.remove("name");
        item(&[
            ("name", text("n")),
            ("entry", text("deleted#0000000000000000001#ab")),
            ("ttl", number(700)),
            ("sequence", number(2)),
            ("deleted_at", number(100)),
            ("row", AttributeValue::M(row)),
        ])
    }

    /// What a condition says, with its placeholders replaced.
    fn clauses(
        expression: &str,
        names: Option<&std::collections::HashMap<String, String>>,
    ) -> Vec<String> {
        let mut clauses: Vec<String> = expression
            .split(" AND ")
            .map(|clause| {
                let words = clause.split_inclusive(['.', ' ', '(', ')']);
                words
                    .map(|word| {
                        let bare = word.trim_end_matches(['.', ' ', '(', ')']);
                        match names.and_then(|names| names.get(bare)) {
                            Some(name) => word.replace(bare, name),
                            None => word.to_owned(),
                        }
                    })
                    .collect()
            })
            .collect();
        clauses.sort_unstable();
        clauses
    }

    #[test]
    fn the_reseal_of_a_deleted_version_leaves_its_recovery_window_alone() {
        let (store, mut transaction) = (store(), Transaction::default());
        let found = ScannedVersion::of(Location::Ledger, Projection::Whole, kept()).unwrap();
        let sealed = Row::from([
            ("name".to_owned(), Attribute::Text("n".to_owned())),
            ("seal".to_owned(), Attribute::Text("seal".to_owned())),
        ]);
        transaction.reseal(&store, &found, sealed);
        let [write] = transaction.writes.as_slice() else { panic!("one write") };
        // Not a put, which would write back the `ttl` and `sequence` that were read.
        let update = write.update().unwrap();
        assert_eq!(update.update_expression(), "SET #within = :row");
        let values = update.expression_attribute_values().unwrap();
        assert_eq!(values[":row"], AttributeValue::M(item(&[("seal", text("seal"))])));
        let key: std::collections::BTreeSet<_> = update.key().keys().map(String::as_str).collect();
        assert_eq!(key, ["entry", "name"].into());
        let said =
            clauses(update.condition_expression().unwrap(), update.expression_attribute_names());
        for attribute in ["ttl", "sequence", "deleted_at", "row.key", "row.hmac", "row.comment"] {
            let equals = format!("{attribute} = ");
            assert!(said.iter().any(|clause| clause.starts_with(&equals)), "{attribute}: {said:?}");
        }
        for attribute in ["before_reseal", "row.seal", "row.context", "row.expires_at"] {
            assert!(said.contains(&format!("attribute_not_exists({attribute})")), "{said:?}");
        }
        assert!(!said.iter().any(|clause| clause.contains("contents")));
        let ttl = update.expression_attribute_names().unwrap().iter();
        let ttl = ttl.clone().find(|(_, name)| *name == "ttl").unwrap().0.replace('#', ":");
        assert_eq!(values[&ttl], number(700));
    }

    #[test]
    fn a_live_row_is_replaced_or_removed_only_as_it_was_read() {
        let (store, mut transaction) = (store(), Transaction::default());
        let found = ScannedVersion::of(Location::Table, Projection::Whole, legacy()).unwrap();
        transaction.reseal(&store, &found, Row::new());
        transaction.remove_version(&store, &legacy());
        transaction.renumber(&store, &found, Row::new());
        let [put, delete, moved, free] = transaction.writes.as_slice() else { panic!("four") };
        let put = put.put().unwrap();
        let said = clauses(put.condition_expression().unwrap(), put.expression_attribute_names());
        assert!(said.iter().any(|clause| clause.starts_with("tag-of-theirs = ")), "{said:?}");
        assert!(said.contains(&"attribute_not_exists(seal)".to_owned()));
        for delete in [delete, moved] {
            let delete = delete.delete().unwrap();
            let names = delete.expression_attribute_names();
            assert_eq!(clauses(delete.condition_expression().unwrap(), names), said);
        }
        let free = free.put().unwrap().condition_expression();
        assert_eq!(free, Some("attribute_not_exists(#name)"));
    }

    #[test]
    fn a_rewrap_compares_only_what_its_role_may_write() {
        let narrow = item(&[
            ("name", text("n")),
            ("version", text("1")),
            ("key", text("wrapped")),
            ("hmac", text("mac")),
            ("context", AttributeValue::M(item(&[("a", text("b"))]))),
        ]);
        let condition = Condition::live(&narrow, Projection::WrappedKey);
        let mut names: Vec<_> = condition.names.values().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["hmac", "key", "name"]);
        let mut entry = item(&[("name", text("n")), ("entry", text("e")), ("ttl", number(1))]);
        entry.insert("row".to_owned(), AttributeValue::M(narrow));
        let condition = Condition::kept(&entry, Projection::WrappedKey);
        let mut names: Vec<_> = condition.names.values().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["hmac", "key", "name", "row"]);
    }

    #[test]
    fn a_row_without_a_mac_is_compared_by_its_ciphertext() {
        let mut row = legacy();
        row.remove("hmac");
        let condition = Condition::live(&row, Projection::Whole);
        assert!(condition.names.values().any(|name| name == "contents"));
    }

    #[test]
    fn a_condition_keeps_to_the_limits_of_dynamodb() {
        let mut row = legacy();
        for number in 0..5000 {
            row.insert(format!("{}{number}", "n".repeat(200)), text("value"));
        }
        let mut entry = kept();
        entry.insert("row".to_owned(), AttributeValue::M(row));
        let condition = Condition::kept(&entry, Projection::Whole);
        assert!(condition.expression.len() <= 4096, "{}", condition.expression.len());
        let operators = condition.expression.matches([' ', '(']).count();
        assert!(operators <= 600, "{operators}");
        assert!(condition.names.values().any(|name| name == "seal"));
    }

    #[test]
    fn a_run_is_taken_over_only_as_it_was_read() {
        let (store, mut transaction) = (store(), Transaction::default());
        let text = |text: &str| Attribute::Text(text.to_owned());
        let before = Row::from([
            ("name".to_owned(), text("/rotation")),
            ("run".to_owned(), text("one/7")),
            ("execution".to_owned(), text("one")),
        ]);
        transaction.put_run(&store, before.clone(), Some(&before));
        let put = transaction.writes[0].put().unwrap();
        let said = clauses(put.condition_expression().unwrap(), put.expression_attribute_names());
        // One that has ended meanwhile is not begun again.
        assert!(said.contains(&"attribute_not_exists(ended_at)".to_owned()), "{said:?}");
        assert!(said.iter().any(|clause| clause.starts_with("execution = ")), "{said:?}");
    }
}
