//! Idempotency: a request with a token is done once, and its response is the same each time.

use crate::audit_chain::EventKind;
use crate::error::Error;
use crate::hash;
use crate::name::{Name, Revision, Version};
use crate::row::{self, Attribute, Row};
use crate::store::ledger::Ledger;
use crate::store::tokens::{Token, TokenKey, TokenRecord};
use crate::store::transaction::Transaction;
use crate::timestamp::Timestamp;

use super::new_version::{Expiry, NewVersion, StoredVersion, Value};

/// A request with a token. The token belongs to the operation and the names: a request about other
/// names has an entry of its own, even with the same token.
pub(in super::super) struct IdempotentRequest {
    key: TokenKey,
    /// The key that earlier releases used, so that a request that is sent again after an update is
    /// not done twice.
    former_key: TokenKey,
    fingerprint: Vec<u8>,
    names: Vec<Name>,
}

impl IdempotentRequest {
    pub(in super::super) fn new(token: &Token, kind: EventKind, versions: &[NewVersion]) -> Self {
        let names: Vec<Name> = versions.iter().map(|version| version.name.clone()).collect();
        if let (EventKind::Renew, [name]) = (kind, names.as_slice()) {
            return Self::renewal(token, name);
        }
        let key = token.key(kind.as_str(), names.iter().map(Name::as_str));
        Self { key, former_key: token.former_key(), fingerprint: fingerprint(versions), names }
    }

    /// The renewal of a name. Its fingerprint is the name alone: the new version follows from the
    /// policy and the newest version, which may differ when the request is sent again.
    pub(in super::super) fn renewal(token: &Token, name: &Name) -> Self {
        let key = token.key(EventKind::Renew.as_str(), [name.as_str()]);
        let fingerprint = hash::of_parts([name.as_str()]).to_vec();
        Self { key, former_key: token.former_key(), fingerprint, names: vec![name.clone()] }
    }

    /// Returns what the request has written, if it was done.
    ///
    /// # Errors
    /// [`Error::Exists`] if another request about the same names used this token;
    /// [`Error::Unavailable`].
    pub(in super::super) async fn earlier(
        &self,
        ledger: &Ledger,
    ) -> Result<Option<Vec<StoredVersion>>, Error> {
        let now = Timestamp::now();
        let (known, former) = tokio::try_join!(
            ledger.token_record(&self.key, now),
            ledger.token_record(&self.former_key, now)
        )?;
        self.choose(known, former)
    }

    /// Chooses between the records of the two keys. Whoever guesses a token can write the former
    /// key, so its record counts only for this very request and is never a reason to refuse.
    fn choose(
        &self,
        known: Option<TokenRecord>,
        former: Option<TokenRecord>,
    ) -> Result<Option<Vec<StoredVersion>>, Error> {
        let Some(known) = known else {
            return Ok(former.and_then(|former| self.stored(&former)));
        };
        self.stored(&known).map(Some).ok_or(Error::Exists(
            "This `token` was used within the last 24 hours for another request about the same \
             names. Give each request its own token, and reuse it only to send the same request \
             again."
                .into(),
        ))
    }

    /// Returns the versions in a record, if it is of this very request.
    fn stored(&self, record: &TokenRecord) -> Option<Vec<StoredVersion>> {
        if record.fingerprint != self.fingerprint {
            return None;
        }
        let stored = |name: &Name| read_answer(name, record.answer.get(name.as_str())?);
        self.names.iter().map(stored).collect()
    }

    /// Adds the put of the token's entry.
    pub(super) fn put(
        &self,
        ledger: &Ledger,
        transaction: &mut Transaction,
        stored: &[StoredVersion],
        now: Timestamp,
    ) {
        let answer =
            stored.iter().map(|stored| (stored.name.as_str().to_owned(), write_answer(stored)));
        let fingerprint = self.fingerprint.clone();
        let record = TokenRecord { fingerprint, answer: answer.collect() };
        ledger.put_token(transaction, &self.key, &record, now);
    }
}

/// Writes `VERSION REVISION`, and ` below` if the version was not the highest.
fn write_answer(stored: &StoredVersion) -> String {
    let below = if stored.current == Some(false) { " below" } else { "" };
    format!("{} {}{below}", stored.version.number(), stored.revision.as_str())
}

fn read_answer(name: &Name, answer: &str) -> Option<StoredVersion> {
    let mut words = answer.split(' ');
    Some(StoredVersion {
        name: name.clone(),
        version: Version::new(words.next()?.parse().ok()?)?,
        revision: Revision::stored(words.next()?.as_bytes())?,
        current: words.next().map(|_| false),
    })
}

/// Hashes the visible part of a request, never a value: the hash of a short value could be
/// brute-forced.
fn fingerprint(versions: &[NewVersion]) -> Vec<u8> {
    // Sorted, because a map has no order.
    let mut versions: Vec<_> = versions.iter().collect();
    versions.sort_unstable_by_key(|version| &version.name);
    let rows = versions.into_iter().map(|version| row::canonical(&visible(version)));
    hash::of_parts(rows.map(Option::unwrap_or_default)).to_vec()
}

fn visible(version: &NewVersion) -> Row {
    let text = |text: &str| Attribute::Text(text.to_owned());
    let mut row = match &version.value {
        Value::Given(_) => Row::new(),
        Value::Generated(rules) => rules.visible(),
    };
    row.insert("name".to_owned(), text(version.name.as_str()));
    row.insert("context".to_owned(), Attribute::Map(version.context.pairs().clone()));
    if let Some(comment) = version.comment.as_ref().filter(|comment| !comment.is_empty()) {
        row.insert("comment".to_owned(), text(comment));
    }
    if let Some(number) = version.version {
        row.insert("version".to_owned(), Attribute::Number(number.number().to_string()));
    }
    let expiry = match version.expiry {
        None => None,
        Some(Expiry::At(end)) => Some(("expires_at", end.unix().to_string())),
        Some(Expiry::After(seconds)) => Some(("ttl", seconds.to_string())),
    };
    row.extend(expiry.map(|(name, number)| (name.to_owned(), Attribute::Number(number))));
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encryption_context::EncryptionContext;
    use crate::generate::{CharacterClass, GenerateRules};
    use crate::secret::Secret;

    fn version(name: &str) -> NewVersion {
        NewVersion {
            name: name.parse().unwrap(),
            value: Value::Given(Secret::new(b"one".to_vec())),
            context: EncryptionContext::default(),
            comment: None,
            expiry: None,
            version: None,
        }
    }

    fn request(kind: EventKind, names: &[&str], token: &str) -> IdempotentRequest {
        let versions: Vec<_> = names.iter().map(|name| version(name)).collect();
        IdempotentRequest::new(&token.parse().unwrap(), kind, &versions)
    }

    fn record(request: &IdempotentRequest, fingerprint: &[u8]) -> TokenRecord {
        let answer = request.names.iter().map(|name| (name.as_str().to_owned(), "7 ab".to_owned()));
        TokenRecord { fingerprint: fingerprint.to_vec(), answer: answer.collect() }
    }

    #[test]
    fn a_token_belongs_to_its_operation_and_its_names() {
        let key = |kind, names: &[&str], token: &str| request(kind, names, token).key;
        let own = key(EventKind::Put, &["prod/db", "prod/api"], "nightly");
        assert_eq!(own, key(EventKind::Put, &["prod/api", "prod/db"], "nightly"));
        for other in [
            key(EventKind::Put, &["dev/db", "dev/api"], "nightly"),
            key(EventKind::Put, &["prod/db"], "nightly"),
            key(EventKind::Put, &["prod/api", "prod/db", "nightly"], "nightly"),
            key(EventKind::Put, &["prod/api", "prod/dbn"], "ightly"),
            key(EventKind::Renew, &["prod/db", "prod/api"], "nightly"),
            key(EventKind::Put, &["prod/db", "prod/api"], "weekly"),
            request(EventKind::Put, &["prod/db", "prod/api"], "nightly").former_key,
        ] {
            assert_ne!(own, other);
        }
    }

    #[test]
    fn the_former_key_returns_the_response_of_this_request_and_refuses_no_other() {
        let request = request(EventKind::Put, &["n"], "nightly");
        let mine = || Some(record(&request, &request.fingerprint));
        let theirs = || Some(record(&request, b"another request"));
        let version = |found: Result<Option<Vec<StoredVersion>>, Error>| {
            found.map(|stored| stored.map(|stored| stored[0].version.number())).ok()
        };
        assert_eq!(version(request.choose(None, None)), Some(None));
        assert_eq!(version(request.choose(mine(), None)), Some(Some(7)));
        assert_eq!(version(request.choose(None, mine())), Some(Some(7)));
        // Anyone who knows the token may have written this one.
        assert_eq!(version(request.choose(None, theirs())), Some(None));
        assert_eq!(version(request.choose(mine(), theirs())), Some(Some(7)));
        assert!(matches!(request.choose(theirs(), None), Err(Error::Exists(_))));
        assert!(matches!(request.choose(theirs(), mine()), Err(Error::Exists(_))));
    }

    #[test]
    fn a_stored_version_is_read_as_it_was_recorded() {
        let name: Name = "n".parse().unwrap();
        for (current, remembered) in [(None, "7 0a1b"), (Some(false), "7 0a1b below")] {
            let stored = read_answer(&name, remembered).unwrap();
            assert_eq!((stored.version.number(), stored.revision.as_str()), (7, "0a1b"));
            assert_eq!(stored.current, current);
            assert_eq!(write_answer(&stored), remembered);
        }
        assert!(read_answer(&name, "7").is_none());
    }

    #[test]
    fn a_fingerprint_covers_what_is_visible() {
        let put = |change: fn(&mut NewVersion)| {
            let mut put = version("n");
            change(&mut put);
            fingerprint(&[put])
        };
        let same: [fn(&mut NewVersion); 3] = [
            |_| {},
            |put| put.value = Value::Given(Secret::new(b"two".to_vec())),
            |put| put.comment = Some(String::new()),
        ];
        let other: [fn(&mut NewVersion); 7] = [
            |put| put.name = "m".parse().unwrap(),
            |put| {
                put.value = Value::Generated(
                    GenerateRules::new(8, &[CharacterClass::Numbers], "", false).unwrap(),
                );
            },
            |put| {
                put.value = Value::Generated(
                    GenerateRules::new(9, &[CharacterClass::Numbers], "", false).unwrap(),
                );
            },
            |put| put.comment = Some("c".to_owned()),
            |put| put.expiry = Some(Expiry::After(60)),
            |put| put.expiry = Some(Expiry::At(Timestamp::from_unix_seconds(60).unwrap())),
            |put| put.version = Version::new(1),
        ];
        let plain = put(|_| {});
        assert!(same.into_iter().all(|change| put(change) == plain));
        let others: std::collections::BTreeSet<_> = other.into_iter().map(put).collect();
        assert_eq!(others.len(), 7);
        assert!(!others.contains(&plain));
    }
}
