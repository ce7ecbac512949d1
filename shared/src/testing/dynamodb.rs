//! DynamoDB in memory: the four operations that the crate uses, on its two tables. A request that
//! DynamoDB would reject, or that is not recognized, panics.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::expression::Scope;
use super::{Item, Refused};

/// The attributes in the index of names, as in the template.
const NAMES: [&str; 7] =
    ["comment", "context", "created_at", "expires_at", "name", "revision", "version"];
/// The most bytes of an item.
const MAX_ITEM: usize = 400 * 1024;
const MAX_SORT_KEY: usize = 1024;
/// The most writes of a transaction.
const MAX_WRITES: usize = 100;

/// A table: the name of its sort key, and its items by name and sort key.
#[derive(Clone, Debug)]
pub(super) struct Table {
    sort: &'static str,
    pub(super) items: BTreeMap<(String, String), Item>,
}

impl Table {
    pub(super) fn key(&self, item: &Item) -> (String, String) {
        let part = |name: &str, most: usize| {
            let text = item.get(name).and_then(|value| value["S"].as_str());
            let text = text.unwrap_or_else(|| panic!("{name} is missing in {item:?}"));
            assert!((1..=most).contains(&text.len()), "{name} has {} bytes", text.len());
            text.to_owned()
        };
        (part("name", 2048), part(self.sort, 1024))
    }

    fn key_item(&self, (name, sort): &(String, String)) -> Value {
        json!({"name": {"S": name}, self.sort: {"S": sort}})
    }
}

/// All tables, and the tokens of the transactions that were done.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    pub(super) by_name: BTreeMap<&'static str, Table>,
    /// The most items of a page. DynamoDB ends one at 1 MB.
    pub(super) page: usize,
    done: BTreeSet<String>,
}

impl Default for Tables {
    fn default() -> Self {
        let table = |sort| Table { sort, items: BTreeMap::new() };
        let tables = [("secrets", table("version")), ("ledger", table("entry"))];
        Self { by_name: tables.into(), page: usize::MAX, done: BTreeSet::new() }
    }
}

impl Tables {
    pub(super) fn call(&mut self, operation: &str, request: &Value) -> Result<Value, Refused> {
        match operation {
            "Query" => Ok(self.query(request)),
            "Scan" => Ok(self.scan(request)),
            "UpdateItem" => self.update_item(request),
            "TransactWriteItems" => self.transact(request),
            _ => panic!("unknown operation {operation}"),
        }
    }

    pub(super) fn table(&self, name: &str) -> &Table {
        self.by_name.get(name).unwrap_or_else(|| panic!("no table {name}"))
    }

    pub(super) fn table_mut(&mut self, name: &str) -> &mut Table {
        self.by_name.get_mut(name).unwrap_or_else(|| panic!("no table {name}"))
    }

    fn query(&self, request: &Value) -> Value {
        let table = self.table(text(request, "TableName"));
        let scope = Scope::of(request);
        let condition = scope.tokens(text(request, "KeyConditionExpression"));
        assert_eq!(condition[..3], ["#name", "=", ":name"], "a query is about one name");
        let values = request["ExpressionAttributeValues"].as_object().unwrap();
        for (placeholder, value) in values {
            let is_key = condition.iter().any(|token| token == placeholder);
            let length = value["S"].as_str().map_or(0, str::len);
            assert!(!is_key || length <= MAX_SORT_KEY, "DynamoDB rejects {placeholder}");
        }
        let name = text(&request["ExpressionAttributeValues"][":name"], "S");
        let of_name = table.items.range((name.to_owned(), String::new())..);
        let of_name = of_name.take_while(|((each, _), _)| each == name);
        let mut found: Vec<_> =
            of_name.filter(|(_, item)| scope.holds(&condition, Some(item))).collect();
        if request["IndexName"] == "revision" {
            found.sort_by_key(|(_, item)| item["revision"]["B"].as_str().map(str::to_owned));
        }
        if request["ScanIndexForward"] == false {
            found.reverse();
        }
        self.page(request, scope, table, found)
    }

    fn scan(&self, request: &Value) -> Value {
        let table = self.table(text(request, "TableName"));
        let segments = request["TotalSegments"].as_u64().unwrap_or(1);
        let segment = request["Segment"].as_u64().unwrap_or(0);
        let hash = |name: &str| name.bytes().map(u64::from).sum::<u64>() % segments;
        let found = table.items.iter().filter(|((name, _), _)| hash(name) == segment).collect();
        self.page(request, Scope::of(request), table, found)
    }

    fn page(
        &self,
        request: &Value,
        scope: Scope<'_>,
        table: &Table,
        mut found: Vec<(&(String, String), &Item)>,
    ) -> Value {
        let index = request["IndexName"].as_str();
        assert!(
            index != Some("names") || request["ConsistentRead"] != true,
            "a global index has no consistent reads"
        );
        if let Some(start) = request["ExclusiveStartKey"].as_object() {
            let start = table.key(start);
            found = match found.iter().position(|(key, _)| **key == start) {
                Some(place) => found.split_off(place + 1),
                // The item of the key was removed since.
                None if request["ScanIndexForward"] == false => {
                    found.into_iter().filter(|(key, _)| **key < start).collect()
                }
                None => found.into_iter().filter(|(key, _)| **key > start).collect(),
            };
        }
        let limit = request["Limit"].as_u64().map_or(usize::MAX, |limit| limit.try_into().unwrap());
        assert!(limit > 0, "Limit must be 1 or more");
        let last = (limit <= self.page && found.len() >= limit) || found.len() > self.page;
        found.truncate(limit.min(self.page));
        let last = last.then(|| found.last().map(|(key, _)| table.key_item(key))).flatten();
        let filter = request["FilterExpression"].as_str().map(|filter| scope.tokens(filter));
        let projection = request["ProjectionExpression"].as_str().map(|each| scope.tokens(each));
        let specific = request["Select"] == "SPECIFIC_ATTRIBUTES";
        assert_eq!(projection.is_some(), specific, "a projection goes with SPECIFIC_ATTRIBUTES");
        let mut items = Vec::new();
        for (_, item) in found {
            let mut item = item.clone();
            if index == Some("names") {
                item.retain(|name, _| NAMES.contains(&name.as_str()));
            }
            if filter.as_ref().is_none_or(|filter| scope.holds(filter, Some(&item))) {
                items.push(match &projection {
                    Some(projection) => scope.project(projection, &item),
                    None => item,
                });
            }
        }
        scope.finish();
        let mut output = json!({"Count": items.len(), "Items": items});
        if let Some(last) = last {
            output["LastEvaluatedKey"] = last;
        }
        output
    }

    fn update_item(&mut self, request: &Value) -> Result<Value, Refused> {
        match self.write("Update", request) {
            Ok((table, key, item)) => {
                self.set(&table, key, item);
                Ok(json!({}))
            }
            Err("ConditionalCheckFailed") => Err(Refused::code("ConditionalCheckFailedException")),
            Err(_) => Err(Refused::message("ValidationException", ITEM_SIZE)),
        }
    }

    fn transact(&mut self, request: &Value) -> Result<Value, Refused> {
        let token = text(request, "ClientRequestToken");
        if self.done.contains(token) {
            return Ok(json!({}));
        }
        let writes = request["TransactItems"].as_array().unwrap();
        assert!((1..=MAX_WRITES).contains(&writes.len()), "{} writes", writes.len());
        let (mut changes, mut keys) = (Vec::new(), BTreeSet::new());
        let mut reasons = Vec::new();
        for write in writes {
            let (kind, write) = write.as_object().unwrap().iter().next().unwrap();
            let change = self.write(kind, write);
            reasons.push(change.as_ref().err().copied().unwrap_or("None"));
            let table = text(write, "TableName");
            let key = write.get("Key").unwrap_or(&write["Item"]).as_object().unwrap();
            let key = (table, self.table(table).key(key));
            assert!(keys.insert(key), "two writes of one item: {write}");
            changes.extend(change.ok());
        }
        if reasons.iter().any(|reason| *reason != "None") {
            return Err(Refused::canceled(&reasons));
        }
        self.done.insert(token.to_owned());
        for (table, key, item) in changes {
            self.set(&table, key, item);
        }
        Ok(json!({}))
    }

    /// Returns what a write changes, or why it is refused.
    fn write(&self, kind: &str, write: &Value) -> Result<Change, &'static str> {
        let name = text(write, "TableName");
        let table = self.table(name);
        let scope = Scope::of(write);
        let key = write.get(if kind == "Put" { "Item" } else { "Key" }).unwrap();
        let key = table.key(key.as_object().unwrap());
        let before = table.items.get(&key);
        let condition = write["ConditionExpression"].as_str().map(|text| scope.tokens(text));
        let holds = condition.is_none_or(|condition| scope.holds(&condition, before));
        let after = match kind {
            "Put" => write["Item"].as_object().cloned(),
            "Delete" => None,
            "Update" => {
                let update = scope.tokens(text(write, "UpdateExpression"));
                let item = holds.then(|| {
                    let mut item = before.expect("an item to update").clone();
                    scope.update(&update, &mut item);
                    item
                });
                item.or_else(|| before.cloned())
            }
            _ => panic!("unknown write {kind}"),
        };
        scope.finish();
        if !holds {
            return Err("ConditionalCheckFailed");
        }
        if after.as_ref().is_some_and(|item| item_size(item) > MAX_ITEM) {
            return Err("ValidationError");
        }
        Ok((name.to_owned(), key, after))
    }

    pub(super) fn set(&mut self, table: &str, key: (String, String), item: Option<Item>) {
        let items = &mut self.table_mut(table).items;
        match item {
            Some(item) => items.insert(key, item),
            None => items.remove(&key),
        };
    }
}

/// The table, the key, and the item after a write; `None` if it is removed.
type Change = (String, (String, String), Option<Item>);

pub(super) const ITEM_SIZE: &str = "Item size has exceeded the maximum allowed size";

fn text<'a>(request: &'a Value, field: &str) -> &'a str {
    request[field].as_str().unwrap_or_else(|| panic!("{field} is missing in {request}"))
}

/// Returns about the size of an item: names and values without DynamoDB's overhead.
fn item_size(item: &Item) -> usize {
    fn size(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::Array(each) => each.iter().map(size).sum(),
            Value::Object(map) => map.values().map(size).sum(),
            _ => 1,
        }
    }
    item.iter().map(|(name, value)| name.len() + size(value)).sum()
}
