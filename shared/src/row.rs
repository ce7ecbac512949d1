//! Rows as attribute names and values, independent of the AWS SDK, and their canonical encoding.

use std::collections::{BTreeMap, BTreeSet};

pub use identity::RowIdentity;

pub(crate) mod identity;

/// The attributes of one row, sorted by name.
pub type Row = BTreeMap<String, Attribute>;

/// The value of an attribute, of one of the types that Coffer uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// DynamoDB's S.
    Text(String),
    /// DynamoDB's N, in the decimal form that DynamoDB returns.
    Number(String),
    /// DynamoDB's B.
    Bytes(Vec<u8>),
    /// DynamoDB's BOOL.
    Flag(bool),
    /// DynamoDB's M, with values of type S only.
    Map(BTreeMap<String, String>),
    /// DynamoDB's SS. Rows of the ledger have sets; rows of secrets do not.
    Set(BTreeSet<String>),
    /// Any other type. Coffer never writes one, and refuses a sealed row that has one.
    Foreign,
}

impl Attribute {
    /// Returns the text, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the whole number, if it is one.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// Returns the bytes, if they are bytes.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Returns whether it is a flag with the value true.
    #[must_use]
    pub fn is_set(&self) -> bool {
        matches!(self, Self::Flag(true))
    }

    /// Returns the members, if it is a set of text.
    #[must_use]
    pub fn members(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::Set(members) => Some(members),
            _ => None,
        }
    }

    /// Returns the pairs, if it is a map of text.
    #[must_use]
    pub fn map(&self) -> Option<&BTreeMap<String, String>> {
        match self {
            Self::Map(pairs) => Some(pairs),
            _ => None,
        }
    }
}

/// Returns the canonical encoding of a row: the bytes that a seal authenticates and that the hash
/// of an event covers. `None` for a row with an attribute of an unsupported type.
///
/// It has each attribute, in the order of the names, as
///
/// ```text
/// length(name) ‖ name ‖ tag ‖ length(value) ‖ value
/// ```
///
/// A length is 8 bytes, big-endian. A tag is one ASCII byte:
///
/// | tag | value |
/// |---|---|
/// | `S` | UTF-8 text |
/// | `N` | decimal digits |
/// | `B` | bytes |
/// | `?` | a flag: one byte, 0 or 1 |
/// | `M` | the entries of a map, in this same form with tag `S` |
/// | `L` | the members of a set in the order of their bytes, each as length and UTF-8 |
///
/// Every part has its length, so two different rows never have the same encoding.
#[must_use]
pub fn canonical<'a>(
    row: impl IntoIterator<Item = (&'a String, &'a Attribute)>,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (name, attribute) in row {
        match attribute {
            Attribute::Text(text) => write_attribute(&mut out, name, b'S', text.as_bytes()),
            Attribute::Number(digits) => write_attribute(&mut out, name, b'N', digits.as_bytes()),
            Attribute::Bytes(bytes) => write_attribute(&mut out, name, b'B', bytes),
            Attribute::Flag(flag) => write_attribute(&mut out, name, b'?', &[u8::from(*flag)]),
            Attribute::Map(pairs) => {
                let mut inner = Vec::new();
                for (key, value) in pairs {
                    write_attribute(&mut inner, key, b'S', value.as_bytes());
                }
                write_attribute(&mut out, name, b'M', &inner);
            }
            Attribute::Set(members) => {
                let mut inner = Vec::new();
                for member in members {
                    write_part(&mut inner, member.as_bytes());
                }
                write_attribute(&mut out, name, b'L', &inner);
            }
            Attribute::Foreign => return None,
        }
    }
    Some(out)
}

/// Appends an attribute in the form that [`canonical`] documents.
fn write_attribute(out: &mut Vec<u8>, name: &str, tag: u8, value: &[u8]) {
    write_part(out, name.as_bytes());
    out.push(tag);
    write_part(out, value);
}

/// Appends the length of `bytes`, then `bytes`.
fn write_part(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Returns the size of a row in bytes, as DynamoDB counts it against [`MAX_BYTES`]: names and
/// values in UTF-8 bytes, a number at most 21 bytes, a flag 1, a map 3 and 1 for each entry in
/// addition.
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

/// Returns how many bytes the local index `revision` adds to a row. DynamoDB limits the size of an
/// item together with its entries in local indexes. The index holds only keys.
///
/// Source: AWS, "Local secondary indexes", and "Service quotas in DynamoDB".
#[must_use]
pub fn index_size(row: &Row) -> usize {
    let keys = ["name", "version", "revision"];
    let key = |name: &str| row.get(name).map(|value| (name.to_owned(), value.clone()));
    size(&keys.into_iter().filter_map(key).collect())
}

/// The bytes that the ledger adds to a deleted version that it holds: its sort key, the time and
/// operation of the delete, the end of the recovery window, and a byte for each attribute of the
/// nested map.
///
/// Put leaves room for the larger of this and [`index_size`], so that every version can be deleted
/// with a recovery window.
///
/// Source: AWS, "DynamoDB item sizes and formats".
pub const LEDGER_OVERHEAD: usize = 128;

/// Returns whether a row fits into an item of the table of secrets and, when deleted, into an item
/// of the ledger.
#[must_use]
pub fn fits(row: &Row) -> bool {
    stored_size(row) <= MAX_BYTES
}

/// The size of a row with its entry in the local index, or in an entry of the ledger, whichever is
/// larger.
#[must_use]
pub fn stored_size(row: &Row) -> usize {
    size(row) + index_size(row).max(LEDGER_OVERHEAD)
}

/// The maximum size of an item in DynamoDB: 400 KiB.
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
        fn different_rows_have_different_encodings(
            a in proptest::collection::btree_map(".{0,4}", attribute(), 0..4),
            b in proptest::collection::btree_map(".{0,4}", attribute(), 0..4),
        ) {
            prop_assert_eq!(a == b, canonical(&a) == canonical(&b));
        }
    }

    #[test]
    fn moving_a_byte_between_name_and_value_changes_the_encoding() {
        let row = |name: &str, value: &str| {
            Row::from([(name.to_owned(), Attribute::Text(value.to_owned()))])
        };
        assert_ne!(canonical(&row("ab", "c")), canonical(&row("a", "bc")));
    }

    #[test]
    fn the_encoding_is_as_documented() {
        let row = Row::from([("n".to_owned(), Attribute::Flag(true))]);
        let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 1, b'n', b'?', 0, 0, 0, 0, 0, 0, 0, 1];
        bytes.push(1);
        assert_eq!(canonical(&row), Some(bytes));
        assert_eq!(canonical(&Row::from([("n".to_owned(), Attribute::Foreign)])), None);
    }
}
