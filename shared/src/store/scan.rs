//! Versions wherever they lie, live or kept in the ledger, one after the other: what goes over a
//! whole stack reads them here and writes them back.

use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, Select};
use base64::prelude::{BASE64_STANDARD, Engine};

use crate::aws_error::AwsError;
use crate::error::Error;
use crate::moment::Moment;
use crate::name::Label;
use crate::row::Row;

use super::transaction::{Condition, about_size, misfit};
use super::{Item, Key, Place, Store, queried, row_of, scanned};

/// Where versions lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// In the table of live secrets.
    Table,
    /// In the ledger, under `row`: deleted and awaiting recovery, or pending.
    Ledger,
}

impl Location {
    /// As entries of the ledger and answers have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "live",
            Self::Ledger => "kept",
        }
    }

    /// The one that is written so, if any.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        [Self::Table, Self::Ledger].into_iter().find(|home| home.as_str() == text)
    }

    fn place(self) -> Place {
        match self {
            Self::Table => Place::VERSION,
            Self::Ledger => Place::ENTRY,
        }
    }
}

/// How much of each row is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// What wrapping a data key anew takes: no ciphertext.
    WrappedKey,
    /// All of it.
    Whole,
}

/// The attributes of a live row that wrapping its data key anew takes.
const WRAPPING: &[&str] = &["context", "hmac", "key", "name", "seal", "version"];
/// The attributes of an entry that keeps a row, but the row itself.
const KEPT: &[&str] = &["entry", "name", "ttl"];

/// An entry that keeps a row. What has had its time is as if it were not there.
const KEEPS: &str = "attribute_exists(#row) AND (attribute_not_exists(#ttl) OR #ttl > :now)";
/// And not what a version was before it was sealed again: that stays as it is. Where data keys are
/// wrapped again it is read, too.
const NOT_BEFORE: &str = " AND attribute_not_exists(#before)";
/// Says of an entry that it keeps what a version was before it was sealed again.
pub(super) const BEFORE_RESEAL: &str = "before_reseal";

/// Which part of a table is read, of how many.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// From 0.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

/// A version as it lies somewhere.
#[derive(Clone, Debug)]
pub struct ScannedVersion {
    /// Where it lies.
    pub home: Location,
    /// The name of the secret.
    pub name: String,
    /// Its version.
    pub label: Label,
    /// How much of it was read.
    view: Projection,
    pub(super) item: Item,
}

impl ScannedVersion {
    pub(crate) fn of(home: Location, view: Projection, item: Item) -> Option<Self> {
        let name = item.get("name")?.as_s().ok()?.clone();
        let row = match home {
            Location::Table => &item,
            Location::Ledger => item.get("row")?.as_m().ok()?,
        };
        let label = Label::stored(row.get("version")?.as_s().ok()?);
        Some(Self { home, name, label, view, item })
    }

    /// The key of the item in its table.
    #[must_use]
    pub fn key(&self) -> Key {
        let sort = match self.home {
            Location::Table => "version",
            Location::Ledger => "entry",
        };
        let sort = self.item.get(sort).and_then(|value| value.as_s().ok());
        Key { name: self.name.clone(), version: sort.cloned().unwrap_or_default() }
    }

    /// The row, with its name wherever it lies.
    #[must_use]
    pub fn row(&self) -> Row {
        let mut row = row_of(self.inner().cloned().unwrap_or_default());
        row.insert("name".to_owned(), crate::row::Attribute::Text(self.name.clone()));
        row
    }

    /// Whether it has a seal, and with it its context.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.inner().is_some_and(|row| row.contains_key("seal"))
    }

    fn inner(&self) -> Option<&Item> {
        match self.home {
            Location::Table => Some(&self.item),
            Location::Ledger => self.item.get("row").and_then(|row| row.as_m().ok()),
        }
    }

    /// The row as it lies in the live table, or lay there.
    pub(crate) fn live(&self) -> Item {
        let mut row = self.inner().cloned().unwrap_or_default();
        row.insert("name".to_owned(), AttributeValue::S(self.name.clone()));
        row
    }

    /// Until when a row in the ledger is kept, if that is known.
    pub(crate) fn until(&self) -> Option<Moment> {
        let ttl = self.item.get("ttl")?.as_n().ok()?.parse().ok()?;
        Moment::from_unix(ttl).filter(|_| self.home == Location::Ledger)
    }

    /// That it is still what was read.
    pub(super) fn unchanged(&self) -> Condition {
        match self.home {
            Location::Table => Condition::live(&self.item, self.view),
            Location::Ledger => Condition::kept(&self.item, self.view),
        }
    }
}

impl Store {
    /// A page of the versions in a part of a table, at most `limit` items and 1 MB, strongly
    /// consistent; the key of the last item that was read, if there may be more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn walk(
        &self,
        home: Location,
        view: Projection,
        part: Part,
        after: Option<Key>,
        limit: i32,
    ) -> Result<(Vec<ScannedVersion>, Option<Key>), Error> {
        let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let mut scan = self
            .client
            .scan()
            .table_name(self.table_of(home))
            .consistent_read(true)
            .segment(count(part.number))
            .total_segments(count(part.of))
            .limit(limit)
            .set_exclusive_start_key(after.map(|key| home.place().to_item(key)));
        if let Some((projection, names)) = projected(home, view) {
            scan = scan.select(Select::SpecificAttributes).projection_expression(projection);
            for name in names {
                scan = scan.expression_attribute_names(format!("#{name}"), name);
            }
        }
        if home == Location::Ledger {
            let (filter, names) = keeps(view);
            scan = scan.filter_expression(filter).expression_attribute_values(":now", now());
            for (placeholder, name) in names {
                scan = scan.expression_attribute_names(placeholder, name);
            }
        }
        let (items, last) = scanned(scan, format!("table/{}", self.table_of(home))).await?;
        let last = last.and_then(|item| home.place().read(&item));
        Ok((
            items.into_iter().filter_map(|item| ScannedVersion::of(home, view, item)).collect(),
            last,
        ))
    }

    /// A page of the versions of one name, as [`Store::walk`].
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn walk_name(
        &self,
        home: Location,
        view: Projection,
        name: &str,
        after: Option<Key>,
        limit: i32,
    ) -> Result<(Vec<ScannedVersion>, Option<Key>), Error> {
        let mut query = self
            .keyed(home, view, name)
            .limit(limit)
            .set_exclusive_start_key(after.map(|key| home.place().to_item(key)));
        if home == Location::Ledger {
            let (filter, names) = keeps(view);
            query = query.filter_expression(filter).expression_attribute_values(":now", now());
            for (placeholder, name) in names {
                query = query.expression_attribute_names(placeholder, name);
            }
        }
        let (items, last) = queried(query, format!("table/{}", self.table_of(home))).await?;
        let last = last.and_then(|item| home.place().read(&item));
        Ok((
            items.into_iter().filter_map(|item| ScannedVersion::of(home, view, item)).collect(),
            last,
        ))
    }

    /// A version read again where it lay, strongly consistent; none if it is there no more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn again(
        &self,
        found: &ScannedVersion,
        view: Projection,
    ) -> Result<Option<ScannedVersion>, Error> {
        let Key { name, version } = found.key();
        let sort = found.home.place().0[1];
        let query = self
            .keyed(found.home, view, &name)
            .key_condition_expression("#name = :name AND #sort = :sort")
            .expression_attribute_names("#sort", sort)
            .expression_attribute_values(":sort", AttributeValue::S(version));
        let (items, _) = queried(query, format!("table/{}", self.table_of(found.home))).await?;
        Ok(items.into_iter().find_map(|item| ScannedVersion::of(found.home, view, item)))
    }

    /// Gives a version another wrapping of its data key, if it is still the one that was read;
    /// whether it was.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn set_key(&self, found: &ScannedVersion, wrapped: &[u8]) -> Result<bool, Error> {
        let condition = found.unchanged();
        let path = match found.home {
            Location::Table => "#key",
            Location::Ledger => "#within.#key",
        };
        // As it was written: raw in Haskell's rows, base64 in all others.
        let raw = found.inner().and_then(|row| row.get("key")).is_some_and(AttributeValue::is_b);
        let wrapped = if raw {
            AttributeValue::B(Blob::new(wrapped))
        } else {
            AttributeValue::S(BASE64_STANDARD.encode(wrapped))
        };
        #[cfg(feature = "crash")]
        super::crash::point();
        let sent = self
            .client
            .update_item()
            .table_name(self.table_of(found.home))
            .set_key(Some(found.home.place().of(&found.item)))
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
        // Where a transaction is writing it, it is as if that had been done already.
        if let Some(
            UpdateItemError::ConditionalCheckFailedException(_)
            | UpdateItemError::TransactionConflictException(_),
        ) = error.as_service_error()
        {
            return Ok(false);
        }
        let table = format!("table/{}", self.table_of(found.home));
        let failure = AwsError::of("dynamodb:UpdateItem", table, &error);
        if failure.code() == "ValidationException" && about_size(error.message()) {
            return Err(misfit());
        }
        Err(failure.into())
    }

    pub(super) fn table_of(&self, home: Location) -> &str {
        match home {
            Location::Table => &self.table,
            Location::Ledger => &self.ledger,
        }
    }

    fn keyed(&self, home: Location, view: Projection, name: &str) -> QueryFluentBuilder {
        let mut query = self
            .client
            .query()
            .table_name(self.table_of(home))
            .consistent_read(true)
            .key_condition_expression("#name = :name")
            .expression_attribute_names("#name", "name")
            .expression_attribute_values(":name", AttributeValue::S(name.to_owned()));
        if let Some((projection, names)) = projected(home, view) {
            query = query.select(Select::SpecificAttributes).projection_expression(projection);
            for name in names {
                query = query.expression_attribute_names(format!("#{name}"), name);
            }
        }
        query
    }
}

/// What is read of each item, and the names in it; all of it if none. For IAM a kept row is one
/// attribute; here no more of it is asked for than of a live one.
fn projected(home: Location, view: Projection) -> Option<(String, Vec<&'static str>)> {
    let placed = |names: &[&str]| names.iter().map(|name| format!("#{name}")).collect::<Vec<_>>();
    match (home, view) {
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

/// Which entries of the ledger are read, and the names in that.
fn keeps(view: Projection) -> (String, Vec<(&'static str, &'static str)>) {
    let mut names = vec![("#row", "row"), ("#ttl", "ttl")];
    match view {
        Projection::WrappedKey => (KEEPS.to_owned(), names),
        Projection::Whole => {
            names.push(("#before", BEFORE_RESEAL));
            (format!("{KEEPS}{NOT_BEFORE}"), names)
        }
    }
}

fn now() -> AttributeValue {
    AttributeValue::N(Moment::now().unix().to_string())
}
