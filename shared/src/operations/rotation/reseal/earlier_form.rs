//! The earlier form of a version that is sealed under a new data key.

use crate::name::VersionKey;
use crate::row::{Attribute, Row};
use crate::store::deleted::before_reseal_entry;
use crate::store::item::Item;
use crate::store::scanned_version::ScannedVersion;
use crate::timestamp::Timestamp;

use super::super::super::DAY_SECONDS;
use super::super::super::delete::Recovery;

/// Creates the entry that keeps a row as it was, if the event `sequence` seals its plaintext under a
/// new data key. If the hint about its dialect is wrong, the value is in the earlier form alone. It
/// is kept as long as a deleted version is, or as long as the version itself if that is deleted.
pub(in super::super) fn earlier_form(
    version: &ScannedVersion,
    row: &Row,
    sequence: u64,
) -> Option<Item> {
    const SECONDS: u64 = Recovery::MAX_DAYS as u64 * DAY_SECONDS;
    if !has_new_key(version, row) {
        return None;
    }
    let label = row.get("version").and_then(Attribute::text).unwrap_or(version.label.as_str());
    let now = Timestamp::now();
    let until = version.until().or_else(|| now.after(SECONDS)).unwrap_or(now);
    Some(before_reseal_entry(&version.to_live_item(), &VersionKey::stored(label), sequence, until))
}

/// Whether the plaintext of a row is sealed under a new data key.
pub(super) fn has_new_key(version: &ScannedVersion, row: &Row) -> bool {
    version.row().get("key") != row.get("key")
}

#[cfg(test)]
pub(super) mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;

    use super::*;
    use crate::store::condition::Projection;
    use crate::store::item::Item;
    use crate::store::location::Location;

    fn text(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    pub(in super::super) fn scanned(location: Location) -> ScannedVersion {
        let row = Item::from([
            ("version".to_owned(), text("7")),
            ("key".to_owned(), text("old")),
            ("contents".to_owned(), text("ciphertext")),
            ("hmac".to_owned(), text("mac")),
        ]);
        let mut item = match location {
            Location::Table => row,
            Location::Ledger => Item::from([
                ("entry".to_owned(), text("deleted#7#ab")),
                ("ttl".to_owned(), AttributeValue::N("4102444800".to_owned())),
                ("row".to_owned(), AttributeValue::M(row)),
            ]),
        };
        item.insert("name".to_owned(), text("n"));
        ScannedVersion::of(location, Projection::Whole, item).unwrap()
    }

    pub(in super::super) fn row(key: &str, version: &str) -> Row {
        let pairs = [("name", "n"), ("version", version), ("key", key)];
        pairs.map(|(name, value)| (name.to_owned(), Attribute::Text(value.to_owned()))).into()
    }

    #[test]
    fn a_version_sealed_under_a_new_key_keeps_its_earlier_form_for_the_recovery_window() {
        let padded = "0000000000000000007";
        let entry = earlier_form(&scanned(Location::Table), &row("new", padded), 3).unwrap();
        assert_eq!(entry["before_reseal"], AttributeValue::Bool(true));
        assert_eq!(entry["name"], text("n"));
        let key = entry["entry"].as_s().unwrap();
        assert!(key.starts_with("deleted#0000000000000000007#") && key.ends_with("-3"));
        let old = entry["row"].as_m().unwrap();
        assert_eq!((&old["version"], &old["key"]), (&text("7"), &text("old")));
        let ttl: i64 = entry["ttl"].as_n().unwrap().parse().unwrap();
        let days = (ttl - Timestamp::now().unix()) / i64::try_from(DAY_SECONDS).unwrap();
        assert!((29..=30).contains(&days), "{days}");
    }

    #[test]
    fn the_earlier_form_of_a_deleted_version_ends_with_it() {
        let entry = earlier_form(&scanned(Location::Ledger), &row("new", "7"), 3).unwrap();
        assert_eq!(entry["ttl"], AttributeValue::N("4102444800".to_owned()));
    }

    #[test]
    fn what_is_sealed_as_it_is_needs_no_earlier_form() {
        assert!(earlier_form(&scanned(Location::Table), &row("old", "7"), 3).is_none());
    }
}
