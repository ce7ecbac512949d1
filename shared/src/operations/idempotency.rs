//! What a token is for: the same request done once, and answered the same each time.

use crate::chain::Act;
use crate::digest;
use crate::error::Error;
use crate::moment::Moment;
use crate::name::{Name, Revision, Version};
use crate::row::{self, Attribute, Row};
use crate::store::Store;
use crate::store::ledger::{Token, TokenKey, TokenRecord};

use super::put::{Expiry, Put, Stored, Value};

/// A request that is to be done once. Its token belongs to the operation and the names: a request
/// that is about other names has an entry of its own, even with the same token.
pub(super) struct Once {
    key: TokenKey,
    /// The key that earlier releases used, so that a request that is sent again after an update is
    /// not done twice.
    former: TokenKey,
    fingerprint: Vec<u8>,
    names: Vec<Name>,
}

impl Once {
    pub(super) fn new(token: &Token, act: Act, puts: &[Put]) -> Self {
        let names: Vec<Name> = puts.iter().map(|put| put.name.clone()).collect();
        if let (Act::Renew, [name]) = (act, names.as_slice()) {
            return Self::of_renewal(token, name);
        }
        let key = token.key(act.as_str(), names.iter().map(Name::as_str));
        Self { key, former: token.former_key(), fingerprint: fingerprint(puts), names }
    }

    /// A renewal, which is asked for by its name alone: what it puts follows from the policy and
    /// the newest version, and these may have changed when it is sent again.
    pub(super) fn of_renewal(token: &Token, name: &Name) -> Self {
        let key = token.key(Act::Renew.as_str(), [name.as_str()]);
        let fingerprint = digest::of_parts([name.as_str()]).to_vec();
        Self { key, former: token.former_key(), fingerprint, names: vec![name.clone()] }
    }

    /// What was answered to it, if it was done.
    ///
    /// # Errors
    /// [`Error::Exists`] where the same names were put with this token by another request;
    /// [`Error::Unavailable`].
    pub(super) async fn answer(&self, store: &Store) -> Result<Option<Vec<Stored>>, Error> {
        let now = Moment::now();
        let (known, former) = tokio::try_join!(
            store.remembered(&self.key, now),
            store.remembered(&self.former, now)
        )?;
        self.choose(known, former)
    }

    /// The answer among what is known under the two keys. Whoever guesses a token can write the
    /// former key, so that one counts only for this very request, and is never a reason to refuse.
    fn choose(
        &self,
        known: Option<TokenRecord>,
        former: Option<TokenRecord>,
    ) -> Result<Option<Vec<Stored>>, Error> {
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

    /// What was answered, if it was to this very request.
    fn stored(&self, known: &TokenRecord) -> Option<Vec<Stored>> {
        if known.fingerprint != self.fingerprint {
            return None;
        }
        let remembered = |name: &Name| Stored::remembered(name, known.answer.get(name.as_str())?);
        self.names.iter().map(remembered).collect()
    }

    pub(super) fn entry(&self, stored: &[Stored], now: Moment) -> Row {
        let answer = stored
            .iter()
            .map(|stored| (stored.name.as_str().to_owned(), stored.to_be_remembered()));
        let fingerprint = self.fingerprint.clone();
        self.key.entry(&TokenRecord { fingerprint, answer: answer.collect() }, now)
    }
}

impl Stored {
    /// `VERSION REVISION`, and a third word if the version was below the highest.
    fn to_be_remembered(&self) -> String {
        let below = if self.current == Some(false) { " below" } else { "" };
        format!("{} {}{below}", self.version.number(), self.revision.as_str())
    }

    fn remembered(name: &Name, answer: &str) -> Option<Self> {
        let mut words = answer.split(' ');
        Some(Self {
            name: name.clone(),
            version: Version::new(words.next()?.parse().ok()?)?,
            revision: Revision::stored(words.next()?.as_bytes())?,
            current: words.next().map(|_| false),
        })
    }
}

/// A hash of what can be seen of a request. Never of a value: a hash of a short one tells it.
fn fingerprint(puts: &[Put]) -> Vec<u8> {
    let text = |text: &str| Attribute::Text(text.to_owned());
    // In any order: a map has none.
    let mut puts: Vec<_> = puts.iter().collect();
    puts.sort_unstable_by_key(|put| &put.name);
    let rows = puts.into_iter().map(|put| {
        let mut row = match &put.value {
            Value::Given(_) => Row::new(),
            Value::Generated(rules) => rules.visible(),
        };
        row.insert("name".to_owned(), text(put.name.as_str()));
        row.insert("context".to_owned(), Attribute::Map(put.context.pairs().clone()));
        if let Some(comment) = put.comment.as_ref().filter(|comment| !comment.is_empty()) {
            row.insert("comment".to_owned(), text(comment));
        }
        if let Some(version) = put.version {
            row.insert("version".to_owned(), Attribute::Number(version.number().to_string()));
        }
        let expiry = match put.expiry {
            None => None,
            Some(Expiry::At(end)) => Some(("expires_at", end.unix().to_string())),
            Some(Expiry::After(seconds)) => Some(("ttl", seconds.to_string())),
        };
        if let Some((name, number)) = expiry {
            row.insert(name.to_owned(), Attribute::Number(number));
        }
        row::canonical(&row).unwrap_or_default()
    });
    digest::of_parts(rows).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use crate::generate::{Class, Rules};
    use crate::secret::Secret;

    fn put(name: &str) -> Put {
        Put {
            name: name.parse().unwrap(),
            value: Value::Given(Secret::new(b"one".to_vec())),
            context: Context::default(),
            comment: None,
            expiry: None,
            version: None,
        }
    }

    fn once(act: Act, names: &[&str], token: &str) -> Once {
        let puts: Vec<_> = names.iter().map(|name| put(name)).collect();
        Once::new(&token.parse().unwrap(), act, &puts)
    }

    fn remembered(once: &Once, fingerprint: &[u8]) -> TokenRecord {
        let answer = once.names.iter().map(|name| (name.as_str().to_owned(), "7 ab".to_owned()));
        TokenRecord { fingerprint: fingerprint.to_vec(), answer: answer.collect() }
    }

    #[test]
    fn a_token_belongs_to_its_operation_and_its_names() {
        let key = |act, names: &[&str], token: &str| once(act, names, token).key;
        let own = key(Act::Put, &["prod/db", "prod/api"], "nightly");
        assert_eq!(own, key(Act::Put, &["prod/api", "prod/db"], "nightly"));
        for other in [
            key(Act::Put, &["dev/db", "dev/api"], "nightly"),
            key(Act::Put, &["prod/db"], "nightly"),
            key(Act::Put, &["prod/api", "prod/db", "nightly"], "nightly"),
            key(Act::Put, &["prod/api", "prod/dbn"], "ightly"),
            key(Act::Renew, &["prod/db", "prod/api"], "nightly"),
            key(Act::Put, &["prod/db", "prod/api"], "weekly"),
            once(Act::Put, &["prod/db", "prod/api"], "nightly").former,
        ] {
            assert_ne!(own, other);
        }
    }

    #[test]
    fn the_former_key_answers_this_very_request_and_refuses_none() {
        let once = once(Act::Put, &["n"], "nightly");
        let mine = || Some(remembered(&once, &once.fingerprint));
        let theirs = || Some(remembered(&once, b"another request"));
        let version = |found: Result<Option<Vec<Stored>>, Error>| {
            found.map(|stored| stored.map(|stored| stored[0].version.number())).ok()
        };
        assert_eq!(version(once.choose(None, None)), Some(None));
        assert_eq!(version(once.choose(mine(), None)), Some(Some(7)));
        assert_eq!(version(once.choose(None, mine())), Some(Some(7)));
        // Anybody may have written this one.
        assert_eq!(version(once.choose(None, theirs())), Some(None));
        assert_eq!(version(once.choose(mine(), theirs())), Some(Some(7)));
        assert!(matches!(once.choose(theirs(), None), Err(Error::Exists(_))));
        assert!(matches!(once.choose(theirs(), mine()), Err(Error::Exists(_))));
    }

    #[test]
    fn a_token_is_not_shown() {
        let token: Token = "predictable".parse().unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn what_is_remembered_is_answered_again() {
        let name: Name = "n".parse().unwrap();
        for (current, remembered) in [(None, "7 0a1b"), (Some(false), "7 0a1b below")] {
            let stored = Stored::remembered(&name, remembered).unwrap();
            assert_eq!((stored.version.number(), stored.revision.as_str()), (7, "0a1b"));
            assert_eq!(stored.current, current);
            assert_eq!(stored.to_be_remembered(), remembered);
        }
        assert!(Stored::remembered(&name, "7").is_none());
    }

    #[test]
    fn a_fingerprint_is_of_what_can_be_seen() {
        let put = |change: fn(&mut Put)| {
            let mut put = put("n");
            change(&mut put);
            fingerprint(&[put])
        };
        let same: [fn(&mut Put); 3] = [
            |_| {},
            |put| put.value = Value::Given(Secret::new(b"two".to_vec())),
            |put| put.comment = Some(String::new()),
        ];
        let other: [fn(&mut Put); 7] = [
            |put| put.name = "m".parse().unwrap(),
            |put| {
                put.value = Value::Generated(Rules::new(8, &[Class::Numbers], "", false).unwrap());
            },
            |put| {
                put.value = Value::Generated(Rules::new(9, &[Class::Numbers], "", false).unwrap());
            },
            |put| put.comment = Some("c".to_owned()),
            |put| put.expiry = Some(Expiry::After(60)),
            |put| put.expiry = Some(Expiry::At(Moment::from_unix(60).unwrap())),
            |put| put.version = Version::new(1),
        ];
        let plain = put(|_| {});
        assert!(same.into_iter().all(|change| put(change) == plain));
        let others: std::collections::BTreeSet<_> = other.into_iter().map(put).collect();
        assert_eq!(others.len(), 7);
        assert!(!others.contains(&plain));
    }
}
