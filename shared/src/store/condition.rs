//! Conditions of writes: an item is absent, or is still what was read.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::item::Item;

/// How much of each row is read, and so how much of it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// What it takes to wrap the data key again: no ciphertext.
    WrappedKey,
    /// All of it.
    Whole,
}

/// The attributes that a write of a wrapped key compares.
const WRAPPED: &[&str] = &["hmac", "key"];
/// The attribute of a ledger entry that holds a row.
const ROW: &str = "row";
/// The attributes of a ledger entry that holds a row, except its key and the row.
const ENTRY: &[&str] = &["before_reseal", "deleted_at", "sequence", "ttl"];
/// The attributes of a row, except its key and its ciphertext. They are compared even if they were
/// absent, so that an added attribute is noticed.
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

/// What must hold for a write, as a DynamoDB condition expression.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) expression: String,
    pub(super) names: HashMap<String, String>,
    pub(super) values: Option<Item>,
}

impl Condition {
    /// The most attributes of one row that are compared.
    const MAX_COMPARED: usize = 100;

    pub(super) fn new(expression: &str) -> Self {
        let used = expression.contains("#name");
        let names = used.then(|| ("#name".to_owned(), "name".to_owned()));
        Self { expression: expression.to_owned(), names: names.into_iter().collect(), values: None }
    }

    /// The item does not exist.
    pub(super) fn absent() -> Self {
        Self::new("attribute_not_exists(#name)")
    }

    /// The item exists.
    pub(super) fn present() -> Self {
        Self::new("attribute_exists(#name)")
    }

    /// The entry was written by the event of this number.
    pub(super) fn sequence(sequence: u64) -> Self {
        Self::new("#sequence = :sequence")
            .named("#sequence", "sequence")
            .valued(":sequence", AttributeValue::N(sequence.to_string()))
    }

    pub(super) fn named(mut self, placeholder: &str, name: &str) -> Self {
        self.names.insert(placeholder.to_owned(), name.to_owned());
        self
    }

    pub(super) fn valued(mut self, placeholder: &str, value: AttributeValue) -> Self {
        self.values.get_or_insert_default().insert(placeholder.to_owned(), value);
        self
    }

    /// A row in the table of secrets is still what was read of it.
    pub(super) fn live_unchanged(row: &Item, projection: Projection) -> Self {
        Self::present().and_same_row(row, projection, None)
    }

    /// An entry of the ledger, and the row in it, are still what was read of them.
    pub(super) fn entry_unchanged(entry: &Item, projection: Projection) -> Self {
        let empty = Item::new();
        let row = entry.get(ROW).and_then(|row| row.as_m().ok()).unwrap_or(&empty);
        let about =
            entry.iter().filter(|(name, _)| !["entry", "name", ROW].contains(&name.as_str()));
        let about = about.map(|(name, value)| (name.clone(), value.clone()));
        let (about, known): (Item, &[&str]) = match projection {
            Projection::Whole => (about.collect(), ENTRY),
            Projection::WrappedKey => (Item::new(), &[]),
        };
        let condition = Self::present().and_same('e', &about, known, None);
        condition.named("#within", ROW).and_same_row(row, projection, Some("#within."))
    }

    /// Adds that the attributes of a row are what was read: all except its key and its ciphertext,
    /// which the MAC covers. For a new wrapped key, compares only the wrapped key and the MAC:
    /// nothing else is written, and a role that may compare an attribute may also write it.
    fn and_same_row(self, row: &Item, projection: Projection, within: Option<&str>) -> Self {
        let covered = row.contains_key("hmac");
        let skipped =
            |name: &str| ["name", "version"].contains(&name) || (covered && name == "contents");
        let compared = row.iter().filter(|(name, _)| match projection {
            Projection::Whole => !skipped(name),
            Projection::WrappedKey => WRAPPED.contains(&name.as_str()),
        });
        let compared = compared.map(|(name, value)| (name.clone(), value.clone())).collect();
        let known = match projection {
            Projection::Whole => DESCRIBING,
            Projection::WrappedKey => WRAPPED,
        };
        self.and_same('a', &compared, known, within)
    }

    /// Adds that these attributes are what was read, and that the `known` ones among them are
    /// still absent if they were. `mark` separates their placeholders from others.
    ///
    /// The known ones come first: DynamoDB accepts 4 KB and 300 operators, so of a row with more
    /// than [`Self::MAX_COMPARED`] attributes, which no client writes, not all are compared.
    pub(super) fn and_same(
        mut self,
        mark: char,
        read: &Item,
        known: &[&str],
        within: Option<&str>,
    ) -> Self {
        let path = within.unwrap_or_default();
        let mut others: Vec<&str> =
            read.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
        others.sort_unstable();
        let names = known.iter().copied().chain(others).take(Self::MAX_COMPARED);
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn text(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    fn number(number: u32) -> AttributeValue {
        AttributeValue::N(number.to_string())
    }

    pub(in super::super) fn item(pairs: &[(&str, AttributeValue)]) -> Item {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    /// A row that another client wrote.
    pub(in super::super) fn legacy_row() -> Item {
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

    /// A ledger entry that holds it.
    pub(in super::super) fn deleted_entry() -> Item {
        let mut row = legacy_row();
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

    /// The clauses of a condition, sorted, with placeholders replaced by the names they stand for.
    pub(in super::super) fn clauses(
        expression: &str,
        names: Option<&HashMap<String, String>>,
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

    fn compared(condition: &Condition) -> Vec<&str> {
        let mut names: Vec<_> = condition.names.values().map(String::as_str).collect();
        names.sort_unstable();
        names
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
        let condition = Condition::live_unchanged(&narrow, Projection::WrappedKey);
        assert_eq!(compared(&condition), ["hmac", "key", "name"]);
        let mut entry = item(&[("name", text("n")), ("entry", text("e")), ("ttl", number(1))]);
        entry.insert("row".to_owned(), AttributeValue::M(narrow));
        let condition = Condition::entry_unchanged(&entry, Projection::WrappedKey);
        assert_eq!(compared(&condition), ["hmac", "key", "name", "row"]);
    }

    #[test]
    fn a_row_without_a_mac_is_compared_by_its_ciphertext() {
        let mut row = legacy_row();
        row.remove("hmac");
        let condition = Condition::live_unchanged(&row, Projection::Whole);
        assert!(condition.names.values().any(|name| name == "contents"));
    }

    #[test]
    fn a_condition_stays_within_the_limits_of_dynamodb() {
        let mut row = legacy_row();
        for number in 0..5000 {
            row.insert(format!("{}{number}", "n".repeat(200)), text("value"));
        }
        let mut entry = deleted_entry();
        entry.insert("row".to_owned(), AttributeValue::M(row));
        let condition = Condition::entry_unchanged(&entry, Projection::Whole);
        assert!(condition.expression.len() <= 4096, "{}", condition.expression.len());
        let operators = condition.expression.matches([' ', '(']).count();
        assert!(operators <= 600, "{operators}");
        assert!(condition.names.values().any(|name| name == "seal"));
    }
}
