//! A row of the table as names and values, free of any client's types, and its canonical bytes.

use std::collections::{BTreeMap, BTreeSet};

/// The attributes of one row, sorted by name.
pub type Row = BTreeMap<String, Attribute>;

/// The value of an attribute, as far as rows of secrets have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// DynamoDB's S.
    Text(String),
    /// DynamoDB's N, in the decimal form that DynamoDB answers.
    Number(String),
    /// DynamoDB's B.
    Bytes(Vec<u8>),
    /// DynamoDB's BOOL.
    Flag(bool),
    /// DynamoDB's M, of S alone.
    Map(BTreeMap<String, String>),
    /// DynamoDB's SS. Entries of the ledger have one, rows of secrets none.
    Set(BTreeSet<String>),
    /// Any other type. No row that Coffer writes has one, and a sealed row that has is refused.
    Foreign,
}

impl Attribute {
    /// The text, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, if it is one.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// The bytes, if they are bytes.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Whether it is a flag that is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        matches!(self, Self::Flag(true))
    }

    /// The members, if it is a set of text.
    #[must_use]
    pub fn members(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::Set(members) => Some(members),
            _ => None,
        }
    }

    /// The pairs, if it is a map of text.
    #[must_use]
    pub fn map(&self) -> Option<&BTreeMap<String, String>> {
        match self {
            Self::Map(pairs) => Some(pairs),
            _ => None,
        }
    }
}

/// The bytes that a seal authenticates, and that the hash of a ledger's entry is of: each attribute in the order of its name as
///
/// ```text
/// length(name) ‖ name ‖ tag ‖ length(value) ‖ value
/// ```
///
/// where a length is 8 bytes, big-endian, and the tag is one ASCII byte: `S` (UTF-8), `N` (decimal
/// digits), `B` (bytes), `?` (BOOL, one byte 0 or 1), `M` (the map's entries, in this same form),
/// `L` (a set's members in the order of their bytes, each as length and UTF-8). Every part carries its length, so no two different rows have the same bytes. `None` for a row
/// with an attribute of a foreign type.
#[must_use]
pub fn canonical<'a>(
    row: impl IntoIterator<Item = (&'a String, &'a Attribute)>,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (name, attribute) in row {
        match attribute {
            Attribute::Text(text) => entry(&mut out, name, b'S', text.as_bytes()),
            Attribute::Number(digits) => entry(&mut out, name, b'N', digits.as_bytes()),
            Attribute::Bytes(bytes) => entry(&mut out, name, b'B', bytes),
            Attribute::Flag(flag) => entry(&mut out, name, b'?', &[u8::from(*flag)]),
            Attribute::Map(pairs) => {
                let mut inner = Vec::new();
                for (key, value) in pairs {
                    entry(&mut inner, key, b'S', value.as_bytes());
                }
                entry(&mut out, name, b'M', &inner);
            }
            Attribute::Set(members) => {
                let mut inner = Vec::new();
                for member in members {
                    part(&mut inner, member.as_bytes());
                }
                entry(&mut out, name, b'L', &inner);
            }
            Attribute::Foreign => return None,
        }
    }
    Some(out)
}

fn entry(out: &mut Vec<u8>, name: &str, tag: u8, value: &[u8]) {
    part(out, name.as_bytes());
    out.push(tag);
    part(out, value);
}

fn part(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The size of a row as DynamoDB counts it against its limit of [`MAX_BYTES`]: names and values in
/// UTF-8 bytes, a number at most 21 bytes, a flag 1, a map 3 and 1 for each entry besides.
///
/// Source: AWS, "DynamoDB item sizes and formats".
#[must_use]
pub fn size(row: &Row) -> usize {
    row.iter()
        .map(|(name, attribute)| {
            name.len()
                + match attribute {
                    Attribute::Text(text) => text.len(),
                    Attribute::Number(digits) => digits.len().div_ceil(2) + 1,
                    Attribute::Bytes(bytes) => bytes.len(),
                    Attribute::Flag(_) => 1,
                    Attribute::Map(pairs) => {
                        pairs.iter().map(|(k, v)| k.len() + v.len() + 1).sum::<usize>() + 3
                    }
                    Attribute::Set(members) => members.iter().map(String::len).sum(),
                    Attribute::Foreign => 0,
                }
        })
        .sum()
}

/// What the row's entry in the local index `revision` adds to its size: DynamoDB's limit is on an
/// item and its entries in local indexes together. The index holds keys only.
///
/// Source: AWS, "Local secondary indexes", and "Service quotas in DynamoDB".
#[must_use]
pub fn index_size(row: &Row) -> usize {
    let keys = ["name", "version", "revision"];
    let key = |name: &str| row.get(name).map(|value| (name.to_owned(), value.clone()));
    size(&keys.into_iter().filter_map(key).collect())
}

/// What an entry of the ledger that keeps this row takes besides: its key, when, why and until when
/// it is there, and a byte for each attribute of a nested map. So that every version that was put can be deleted
/// for recovery, put leaves as much room as the larger of this and [`index_size`].
///
/// Source: AWS, "DynamoDB item sizes and formats".
pub const LEDGER_BYTES: usize = 128;

/// Whether a row fits in an item of the live table and in an entry of the ledger.
#[must_use]
pub fn fits(row: &Row) -> bool {
    stored_size(row) <= MAX_BYTES
}

/// The size of a row with its entry in the local index, or in an entry of the ledger, whichever is
/// larger.
#[must_use]
pub fn stored_size(row: &Row) -> usize {
    size(row) + index_size(row).max(LEDGER_BYTES)
}

/// The most bytes that DynamoDB keeps in one item: 400 KiB.
pub const MAX_BYTES: usize = 400 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn attribute() -> impl Strategy<Value = Attribute> {
        prop_oneof![
            ".{0,8}".prop_map(Attribute::Text),
            (0..9999_u32).prop_map(|number| Attribute::Number(number.to_string())),
            proptest::collection::vec(any::<u8>(), 0..8).prop_map(Attribute::Bytes),
            any::<bool>().prop_map(Attribute::Flag),
            proptest::collection::btree_map(".{1,4}", ".{0,4}", 0..3).prop_map(Attribute::Map),
            proptest::collection::btree_set(".{0,4}", 1..3).prop_map(Attribute::Set),
        ]
    }

    proptest! {
        #[test]
        fn different_rows_have_different_bytes(
            a in proptest::collection::btree_map(".{0,4}", attribute(), 0..4),
            b in proptest::collection::btree_map(".{0,4}", attribute(), 0..4),
        ) {
            prop_assert_eq!(a == b, canonical(&a) == canonical(&b));
        }
    }

    #[test]
    fn moving_a_byte_between_name_and_value_changes_the_bytes() {
        let row = |name: &str, value: &str| {
            Row::from([(name.to_owned(), Attribute::Text(value.to_owned()))])
        };
        assert_ne!(canonical(&row("ab", "c")), canonical(&row("a", "bc")));
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let row = Row::from([("n".to_owned(), Attribute::Flag(true))]);
        let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 1, b'n', b'?', 0, 0, 0, 0, 0, 0, 0, 1];
        bytes.push(1);
        assert_eq!(canonical(&row), Some(bytes));
        assert_eq!(canonical(&Row::from([("n".to_owned(), Attribute::Foreign)])), None);
    }
}
