//! The table of secrets: one item per live version, in credstash's format.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::scan::builders::ScanFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, Select};

use crate::error::Error;
use crate::life::{HighestVersion, RowIdentity};
use crate::name::{Coverage, Name, Prefix, Revision, VersionKey};
use crate::row::{Attribute, Row};
use crate::timestamp::Timestamp;

use super::condition::{Condition, Projection};
use super::item::{
    Item, Key, KeySchema, identity_of, item_of, only, row_of, send_query, send_scan,
};
use super::transaction::{Transaction, WriteLabel};

/// The index of names. It has describing attributes only: never a key, a ciphertext or a MAC.
const NAMES: &str = "names";
/// The index of revisions within a name.
const REVISION: &str = "revision";

/// The attributes of a version that its successor may inherit.
pub(super) const DESCRIBED: &[&str] =
    &["comment", "context", "expires_at", "hmac", "json", "name", "seal", "version"];
/// The identity of a version, and when it expires.
pub(super) const TOP: &[&str] = &["expires_at", "hmac", "name", "version"];

/// The table of secrets.
#[derive(Debug)]
pub struct SecretsTable {
    pub(super) client: Client,
    pub(super) table: String,
}

/// A live version as it is in the table, with every attribute that another client gave it.
#[derive(Debug)]
pub struct LiveVersion {
    /// Its version.
    pub label: VersionKey,
    item: Item,
}

impl LiveVersion {
    fn of(item: Item) -> Option<Self> {
        let label = VersionKey::stored(item.get("version")?.as_s().ok()?);
        Some(Self { label, item })
    }

    /// Returns the identity of the row.
    pub(crate) fn identity(&self) -> Option<RowIdentity> {
        identity_of(&self.item)
    }

    /// Returns the row as an item.
    pub(crate) fn item(&self) -> &Item {
        &self.item
    }
}

/// A page of the index of names.
#[derive(Debug)]
pub struct Page {
    /// Rows of describing attributes, in the order of the index.
    pub rows: Vec<Row>,
    /// The key of the last row that was read, if there may be more.
    pub last: Option<Key>,
}

impl SecretsTable {
    /// Creates a client of the table with this name.
    #[must_use]
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Returns the sort keys of the `count` highest versions, highest first, strongly consistent.
    /// Reads no other attribute: the roles of most functions allow no other.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn highest_labels(&self, name: &Name, count: i32) -> Result<Vec<VersionKey>, Error> {
        let query = self
            .query(name)
            .consistent_read(true)
            .scan_index_forward(false)
            .limit(count)
            .select(Select::SpecificAttributes)
            .projection_expression("#version")
            .expression_attribute_names("#version", "version");
        let items = self.send(query, None).await?.0;
        let label = |item: Item| item.get("version")?.as_s().ok().map(VersionKey::stored);
        Ok(items.into_iter().filter_map(label).collect())
    }

    /// Returns the identities of the `count` highest versions, highest first, strongly consistent,
    /// without ciphertext or key.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn tops(&self, name: &Name, count: i32) -> Result<Vec<HighestVersion>, Error> {
        let query = self.query(name).consistent_read(true).scan_index_forward(false).limit(count);
        let items = self.send(only(TOP, query), None).await?.0;
        Ok(items.into_iter().filter_map(|item| HighestVersion::of(&row_of(item))).collect())
    }

    /// Returns the live version with this identity, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn top(
        &self,
        name: &Name,
        identity: &RowIdentity,
    ) -> Result<Option<HighestVersion>, Error> {
        let query = self.query_version(name, identity.version());
        let items = self.send(only(TOP, query), None).await?.0;
        let mut tops = items.into_iter().filter_map(|item| HighestVersion::of(&row_of(item)));
        Ok(tops.find(|top| top.identity == *identity))
    }

    /// Returns the lowest versions, lowest first, strongly consistent: at most `count` and 1 MB of
    /// them. Returns true as well if there may be more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn lowest(&self, name: &Name, count: i32) -> Result<(Vec<LiveVersion>, bool), Error> {
        let query = self.query(name).consistent_read(true).limit(count);
        let (items, last) = self.send(query, None).await?;
        Ok((items.into_iter().filter_map(LiveVersion::of).collect(), last.is_some()))
    }

    /// Returns the row with exactly this sort key, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn live(
        &self,
        name: &Name,
        label: &VersionKey,
    ) -> Result<Option<LiveVersion>, Error> {
        let query = self.query_version(name, label.as_str());
        Ok(self.send(query, None).await?.0.into_iter().find_map(LiveVersion::of))
    }

    /// Returns the description of the highest version, strongly consistent, without ciphertext or
    /// key.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn described(&self, name: &Name) -> Result<Option<Row>, Error> {
        let query = self.query(name).consistent_read(true).scan_index_forward(false).limit(1);
        Ok(self.send(only(DESCRIBED, query), None).await?.0.into_iter().next().map(row_of))
    }

    /// Returns the `count` highest versions, highest first, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn newest(&self, name: &Name, count: i32) -> Result<Vec<Row>, Error> {
        let query = self.query(name).consistent_read(true).scan_index_forward(false).limit(count);
        Ok(self.send(query, None).await?.0.into_iter().map(row_of).collect())
    }

    /// Returns the row with this sort key and how many rows are above it, counted up to `above`.
    /// Strongly consistent, in one call.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn version(
        &self,
        name: &Name,
        label: &VersionKey,
        above: i32,
    ) -> Result<Option<(Row, usize)>, Error> {
        let query = self
            .query(name)
            .key_condition_expression("#name = :name AND #version >= :version")
            .expression_attribute_names("#version", "version")
            .expression_attribute_values(":version", AttributeValue::S(label.as_str().to_owned()))
            .consistent_read(true)
            .limit(1 + above);
        let (items, last) = self.send(query, None).await?;
        // A page also ends at 1 MB. There is at least one row behind it, which was not counted.
        let cut = usize::from(last.is_some());
        let mut rows = items.into_iter().map(row_of);
        let found = rows
            .next()
            .filter(|row| row.get("version").and_then(Attribute::text) == Some(label.as_str()));
        Ok(found.map(|row| (row, rows.count() + cut)))
    }

    /// Returns the version with this revision, strongly consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`], also if an adopted table does not have the index.
    pub async fn revision(&self, name: &Name, revision: &Revision) -> Result<Option<Row>, Error> {
        let bytes = Blob::new(revision.as_str().as_bytes());
        let query = self
            .query(name)
            .index_name(REVISION)
            .key_condition_expression("#name = :name AND #revision = :revision")
            .expression_attribute_names("#revision", "revision")
            .expression_attribute_values(":revision", AttributeValue::B(bytes))
            // The index has keys only. A local index fetches the rest from its table.
            .select(Select::AllAttributes)
            .consistent_read(true)
            .limit(1);
        Ok(self.send(query, Some(REVISION)).await?.0.into_iter().next().map(row_of))
    }

    /// Reads a page of the index of names: every version of every name that the prefix covers, the
    /// versions of one name together and in ascending order. Eventually consistent. Reads at most
    /// `limit` rows or 1 MB, before the prefix is applied.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn names(
        &self,
        prefix: Option<&Prefix>,
        after: Option<Key>,
        limit: i32,
    ) -> Result<Page, Error> {
        let mut scan = self.scan_names(after).limit(limit);
        let text = |text: String| AttributeValue::S(text);
        match prefix.map_or(Coverage::All, Prefix::reach) {
            Coverage::All => {}
            Coverage::Characters(characters) => {
                scan = scan
                    .filter_expression("begins_with(#name, :prefix)")
                    .expression_attribute_names("#name", "name")
                    .expression_attribute_values(":prefix", text(characters.to_owned()));
            }
            Coverage::Segments(name) => {
                let mut clauses = vec!["#name = :prefix".to_owned()];
                scan = scan
                    .expression_attribute_names("#name", "name")
                    .expression_attribute_values(":prefix", text(name.to_owned()));
                for (number, separator) in Prefix::SEPARATORS.into_iter().enumerate() {
                    let below = text(format!("{name}{separator}"));
                    clauses.push(format!("begins_with(#name, :below{number})"));
                    scan = scan.expression_attribute_values(format!(":below{number}"), below);
                }
                scan = scan.filter_expression(clauses.join(" OR "));
            }
        }
        self.scan(scan).await
    }

    /// Reads a page of the index of names: every version that expires after `from` and not after
    /// `to`, in any order. Eventually consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn expiring(
        &self,
        from: Timestamp,
        to: Timestamp,
        after: Option<Key>,
    ) -> Result<Page, Error> {
        let number = |moment: Timestamp| AttributeValue::N(moment.unix().to_string());
        let scan = self
            .scan_names(after)
            .filter_expression("#expires_at > :from AND #expires_at <= :to")
            .expression_attribute_names("#expires_at", "expires_at")
            .expression_attribute_values(":from", number(from))
            .expression_attribute_values(":to", number(to));
        self.scan(scan).await
    }

    /// Reads a page of the versions of one name from the index of names, highest first. Eventually
    /// consistent.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn versions(
        &self,
        name: &Name,
        after: Option<Key>,
        limit: i32,
    ) -> Result<Page, Error> {
        let query = self
            .query(name)
            .index_name(NAMES)
            .scan_index_forward(false)
            .limit(limit)
            .set_exclusive_start_key(after.map(|key| KeySchema::SECRETS.to_item(key)));
        let (items, last) = self.send(query, Some(NAMES)).await?;
        Ok(Page { rows: items.into_iter().map(row_of).collect(), last })
    }

    /// Adds the put of a version, if its name and version are free.
    pub fn put_version(&self, transaction: &mut Transaction, index: usize, row: Row) {
        self.put_item(transaction, index, item_of(row));
    }

    /// Adds the put of a version that comes back from the ledger, if its place is free.
    pub(crate) fn put_item(&self, transaction: &mut Transaction, index: usize, item: Item) {
        let absent = Some(Condition::absent());
        transaction.put(WriteLabel::Version(index), &self.table, item, absent);
    }

    /// Adds the removal of a version, if it is still what was read.
    pub fn remove_version(
        &self,
        transaction: &mut Transaction,
        index: usize,
        version: &LiveVersion,
    ) {
        let unchanged = Condition::live_unchanged(&version.item, Projection::Whole);
        self.remove_item(transaction, index, &version.item, unchanged);
    }

    pub(super) fn remove_item(
        &self,
        transaction: &mut Transaction,
        index: usize,
        item: &Item,
        condition: Condition,
    ) {
        let key = KeySchema::SECRETS.key_of(item);
        transaction.delete(WriteLabel::Removal(index), &self.table, key, condition);
    }

    fn query(&self, name: &Name) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.table)
            .key_condition_expression("#name = :name")
            .expression_attribute_names("#name", "name")
            .expression_attribute_values(":name", AttributeValue::S(name.as_str().to_owned()))
    }

    fn query_version(&self, name: &Name, version: &str) -> QueryFluentBuilder {
        self.query(name)
            .key_condition_expression("#name = :name AND #version = :version")
            .expression_attribute_names("#version", "version")
            .expression_attribute_values(":version", AttributeValue::S(version.to_owned()))
            .consistent_read(true)
    }

    fn scan_names(&self, after: Option<Key>) -> ScanFluentBuilder {
        self.client
            .scan()
            .table_name(&self.table)
            .index_name(NAMES)
            .set_exclusive_start_key(after.map(|key| KeySchema::SECRETS.to_item(key)))
    }

    async fn scan(&self, scan: ScanFluentBuilder) -> Result<Page, Error> {
        let (items, last) = send_scan(scan, self.resource(Some(NAMES))).await?;
        let last = last.and_then(|item| KeySchema::SECRETS.read(&item));
        Ok(Page { rows: items.into_iter().map(row_of).collect(), last })
    }

    async fn send(
        &self,
        query: QueryFluentBuilder,
        index: Option<&str>,
    ) -> Result<(Vec<Item>, Option<Key>), Error> {
        let (items, last) = send_query(query, self.resource(index)).await?;
        Ok((items, last.and_then(|item| KeySchema::SECRETS.read(&item))))
    }

    fn resource(&self, index: Option<&str>) -> String {
        match index {
            Some(index) => format!("table/{}/index/{index}", self.table),
            None => format!("table/{}", self.table),
        }
    }
}
