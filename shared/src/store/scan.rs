//! Versions wherever they are stored, in the table of secrets or in the ledger: how a run reads
//! them and writes them back.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, Select};
use base64::prelude::{BASE64_STANDARD, Engine};

use crate::aws_error::AwsError;
use crate::error::Error;
use crate::row::Row;
use crate::timestamp::Timestamp;

use super::condition::Projection;
use super::deleted::BEFORE_RESEAL;
use super::item::{Item, Key, KeySchema, item_of, send_query, send_scan};
use super::ledger::{Ledger, Part};
use super::location::Location;
use super::scanned_version::ScannedVersion;
use super::secrets_table::SecretsTable;
use super::transaction::{Transaction, WriteLabel, is_about_size, item_too_large};

/// The attributes of a row that it takes to wrap its data key again.
pub(super) const WRAPPING: &[&str] = &["context", "hmac", "key", "name", "seal", "version"];
/// The attributes of a ledger entry that holds a row, except the row.
pub(super) const KEPT: &[&str] = &["entry", "name", "ttl"];

/// Selects the entries that hold a row and have not ended.
const HOLDS_ROW: &str = "attribute_exists(#row) AND (attribute_not_exists(#ttl) OR #ttl > :now)";
/// Excludes the forms of versions before a reseal. They stay as they are, except that their data
/// keys are wrapped again.
const NOT_BEFORE_RESEAL: &str = " AND attribute_not_exists(#before)";

/// Both tables.
#[derive(Clone, Copy, Debug)]
pub struct Stores<'a> {
    /// The table of secrets.
    pub table: &'a SecretsTable,
    /// The ledger.
    pub ledger: &'a Ledger,
}

impl Stores<'_> {
    /// Reads a page of the versions in a part of a table, at most `limit` items and 1 MB, strongly
    /// consistent. Returns the key of the last item that was read as well if there may be more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn scan(
        self,
        location: Location,
        projection: Projection,
        part: Part,
        after: Option<Key>,
        limit: i32,
    ) -> Result<(Vec<ScannedVersion>, Option<Key>), Error> {
        let mut scan = self
            .client(location)
            .scan()
            .table_name(self.name(location))
            .consistent_read(true)
            .segment(part.segment())
            .total_segments(part.total_segments())
            .limit(limit)
            .set_exclusive_start_key(after.map(|key| location.keys().to_item(key)));
        if let Some((expression, names)) = projected(location, projection) {
            scan = scan.select(Select::SpecificAttributes).projection_expression(expression);
            for name in names {
                scan = scan.expression_attribute_names(format!("#{name}"), name);
            }
        }
        if location == Location::Ledger {
            let (filter, names) = holding_rows(projection);
            scan = scan.filter_expression(filter).expression_attribute_values(":now", now());
            for (placeholder, name) in names {
                scan = scan.expression_attribute_names(placeholder, name);
            }
        }
        let (items, last) = send_scan(scan, self.resource(location)).await?;
        Ok(scanned(location, projection, items, last))
    }

    /// Reads a page of the versions of one name, as [`Stores::scan`].
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn scan_name(
        self,
        location: Location,
        projection: Projection,
        name: &str,
        after: Option<Key>,
        limit: i32,
    ) -> Result<(Vec<ScannedVersion>, Option<Key>), Error> {
        let mut query = self
            .query(location, projection, name)
            .limit(limit)
            .set_exclusive_start_key(after.map(|key| location.keys().to_item(key)));
        if location == Location::Ledger {
            let (filter, names) = holding_rows(projection);
            query = query.filter_expression(filter).expression_attribute_values(":now", now());
            for (placeholder, name) in names {
                query = query.expression_attribute_names(placeholder, name);
            }
        }
        let (items, last) = send_query(query, self.resource(location)).await?;
        Ok(scanned(location, projection, items, last))
    }

    /// Reads a version again where it was stored, strongly consistent; `None` if it is gone.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn reread(
        self,
        version: &ScannedVersion,
        projection: Projection,
    ) -> Result<Option<ScannedVersion>, Error> {
        let ScannedVersion { location, .. } = *version;
        let Key { name, version: sort } = version.key();
        let query = self
            .query(location, projection, &name)
            .key_condition_expression("#name = :name AND #sort = :sort")
            .expression_attribute_names("#sort", location.keys().sort)
            .expression_attribute_values(":sort", AttributeValue::S(sort));
        let (items, _) = send_query(query, self.resource(location)).await?;
        Ok(items.into_iter().find_map(|item| ScannedVersion::of(location, projection, item)))
    }

    /// Replaces the wrapped key of a version, if it is still what was read. Returns whether it was.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn set_wrapped_key(
        self,
        version: &ScannedVersion,
        wrapped: &[u8],
    ) -> Result<bool, Error> {
        let ScannedVersion { location, .. } = *version;
        let condition = version.unchanged();
        let path = match location {
            Location::Table => "#key",
            Location::Ledger => "#within.#key",
        };
        // In its former type: bytes in rows of the Haskell client, base64 in all others.
        let raw = version.inner().and_then(|row| row.get("key")).is_some_and(AttributeValue::is_b);
        let wrapped = if raw {
            AttributeValue::B(Blob::new(wrapped))
        } else {
            AttributeValue::S(BASE64_STANDARD.encode(wrapped))
        };
        #[cfg(feature = "crash")]
        super::crash::point();
        let sent = self
            .client(location)
            .update_item()
            .table_name(self.name(location))
            .set_key(Some(location.keys().key_of(&version.item)))
            .update_expression(format!("SET {path} = :wrapped"))
            .condition_expression(condition.expression)
            .set_expression_attribute_names(Some(condition.names))
            .set_expression_attribute_values(condition.values)
            .expression_attribute_names("#key", "key")
            .expression_attribute_values(":wrapped", wrapped)
            .send()
            .await;
        #[cfg(feature = "crash")]
        super::crash::point();
        let Err(error) = sent else { return Ok(true) };
        // A transaction that is writing the item counts as having written it.
        if let Some(
            UpdateItemError::ConditionalCheckFailedException(_)
            | UpdateItemError::TransactionConflictException(_),
        ) = error.as_service_error()
        {
            return Ok(false);
        }
        let aws_error = AwsError::of("dynamodb:UpdateItem", self.resource(location), &error);
        if aws_error.code() == "ValidationException" && is_about_size(error.message()) {
            return Err(item_too_large());
        }
        Err(aws_error.into())
    }

    /// Adds the write that replaces a legacy row by a sealed one, if it is still what was read. In
    /// the ledger only the row is written: the reseal does not change how long the entry is kept.
    pub fn reseal(
        self,
        transaction: &mut Transaction,
        index: usize,
        version: &ScannedVersion,
        row: Row,
    ) {
        let mut row = item_of(row);
        let (label, unchanged) = (WriteLabel::Version(index), version.unchanged());
        let table = self.name(version.location);
        match version.location {
            Location::Table => transaction.put(label, table, row, Some(unchanged)),
            Location::Ledger => {
                row.remove("name");
                let key = KeySchema::LEDGER.key_of(&version.item);
                transaction.update_row(label, table, key, row, unchanged);
            }
        }
    }

    /// Adds the two writes that move a live version to another sort key, if it is still what was
    /// read and the new sort key is free. The removal comes first.
    pub fn renumber(
        self,
        transaction: &mut Transaction,
        index: usize,
        version: &ScannedVersion,
        row: Row,
    ) {
        self.table.remove_item(transaction, index, &version.item, version.unchanged());
        self.table.put_version(transaction, index, row);
    }

    fn client(&self, location: Location) -> &Client {
        match location {
            Location::Table => &self.table.client,
            Location::Ledger => &self.ledger.client,
        }
    }

    fn name(&self, location: Location) -> &str {
        match location {
            Location::Table => &self.table.table,
            Location::Ledger => &self.ledger.table,
        }
    }

    fn resource(self, location: Location) -> String {
        format!("table/{}", self.name(location))
    }

    fn query(self, location: Location, projection: Projection, name: &str) -> QueryFluentBuilder {
        let mut query = self
            .client(location)
            .query()
            .table_name(self.name(location))
            .consistent_read(true)
            .key_condition_expression("#name = :name")
            .expression_attribute_names("#name", "name")
            .expression_attribute_values(":name", AttributeValue::S(name.to_owned()));
        if let Some((expression, names)) = projected(location, projection) {
            query = query.select(Select::SpecificAttributes).projection_expression(expression);
            for name in names {
                query = query.expression_attribute_names(format!("#{name}"), name);
            }
        }
        query
    }
}

fn scanned(
    location: Location,
    projection: Projection,
    items: Vec<Item>,
    last: Option<Item>,
) -> (Vec<ScannedVersion>, Option<Key>) {
    let last = last.and_then(|item| location.keys().read(&item));
    let versions = items.into_iter();
    let versions = versions.filter_map(|item| ScannedVersion::of(location, projection, item));
    (versions.collect(), last)
}

/// Returns the projection expression and the names in it; `None` for whole items. To IAM, a row in
/// the ledger is one attribute. The expression asks for no more of it than of a live row.
fn projected(location: Location, projection: Projection) -> Option<(String, Vec<&'static str>)> {
    let placed = |names: &[&str]| names.iter().map(|name| format!("#{name}")).collect::<Vec<_>>();
    match (location, projection) {
        (Location::Table, Projection::WrappedKey) => {
            Some((placed(WRAPPING).join(", "), WRAPPING.to_vec()))
        }
        (Location::Ledger, Projection::WrappedKey) => {
            let inner: Vec<_> = WRAPPING.iter().copied().filter(|name| *name != "name").collect();
            let mut paths = placed(KEPT);
            paths.extend(inner.iter().map(|name| format!("#row.#{name}")));
            Some((paths.join(", "), [KEPT, &["row"], &inner].concat()))
        }
        (_, Projection::Whole) => None,
    }
}

/// Returns the filter for entries of the ledger that hold a row, and the names in it.
fn holding_rows(projection: Projection) -> (String, HashMap<&'static str, &'static str>) {
    let mut names = HashMap::from([("#row", "row"), ("#ttl", "ttl")]);
    match projection {
        Projection::WrappedKey => (HOLDS_ROW.to_owned(), names),
        Projection::Whole => {
            names.insert("#before", BEFORE_RESEAL);
            (format!("{HOLDS_ROW}{NOT_BEFORE_RESEAL}"), names)
        }
    }
}

fn now() -> AttributeValue {
    AttributeValue::N(Timestamp::now().unix().to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aws_sdk_dynamodb::Config;

    use super::super::condition::tests::{clauses, deleted_entry, item, legacy_row};
    use super::*;
    use crate::row::Attribute;

    fn transaction(fill: impl FnOnce(Stores<'_>, &mut Transaction)) -> Transaction {
        let client = Client::from_conf(Config::builder().behavior_version_latest().build());
        let table = SecretsTable::new(client.clone(), "table".to_owned());
        let ledger = Ledger::new(client, "ledger".to_owned());
        let mut transaction = Transaction::default();
        fill(Stores { table: &table, ledger: &ledger }, &mut transaction);
        transaction
    }

    #[test]
    fn the_reseal_of_a_deleted_version_does_not_change_its_recovery_window() {
        let version = ScannedVersion::of(Location::Ledger, Projection::Whole, deleted_entry());
        let sealed = Row::from([
            ("name".to_owned(), Attribute::Text("n".to_owned())),
            ("seal".to_owned(), Attribute::Text("seal".to_owned())),
        ]);
        let transaction = transaction(|stores, transaction| {
            stores.reseal(transaction, 0, &version.unwrap(), sealed);
        });
        let [write] = transaction.writes() else { panic!("one write") };
        // Not a put, which would write back the `ttl` and `sequence` that were read.
        let update = write.update().unwrap();
        assert_eq!(update.update_expression(), "SET #within = :row");
        let values = update.expression_attribute_values().unwrap();
        let seal = item(&[("seal", AttributeValue::S("seal".to_owned()))]);
        assert_eq!(values[":row"], AttributeValue::M(seal));
        let key: BTreeSet<_> = update.key().keys().map(String::as_str).collect();
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
        assert_eq!(values[&ttl], AttributeValue::N("700".to_owned()));
    }

    #[test]
    fn a_live_row_is_replaced_or_moved_only_as_it_was_read() {
        let version = ScannedVersion::of(Location::Table, Projection::Whole, legacy_row()).unwrap();
        let transaction = transaction(|stores, transaction| {
            stores.reseal(transaction, 0, &version, Row::new());
            stores.renumber(transaction, 1, &version, Row::new());
        });
        let [put, moved, free] = transaction.writes() else { panic!("three") };
        let put = put.put().unwrap();
        let said = clauses(put.condition_expression().unwrap(), put.expression_attribute_names());
        assert!(said.iter().any(|clause| clause.starts_with("tag-of-theirs = ")), "{said:?}");
        assert!(said.contains(&"attribute_not_exists(seal)".to_owned()));
        let moved = moved.delete().unwrap();
        let names = moved.expression_attribute_names();
        assert_eq!(clauses(moved.condition_expression().unwrap(), names), said);
        let free = free.put().unwrap().condition_expression();
        assert_eq!(free, Some("attribute_not_exists(#name)"));
    }
}
