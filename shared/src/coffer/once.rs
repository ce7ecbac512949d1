//! What a token is for: the same request done once, and answered the same each time.

use crate::digest;
use crate::error::Error;
use crate::moment::Moment;
use crate::name::{Name, Revision, Version};
use crate::row::{self, Attribute, Row};
use crate::store::Store;
use crate::store::ledger::{Remembered, Token};

use super::put::{Expiry, Put, Stored, Value};

/// A request that is to be done once.
pub(super) struct Once {
    token: Token,
    fingerprint: Vec<u8>,
    names: Vec<Name>,
}

impl Once {
    pub(super) fn new(token: Token, puts: &[Put]) -> Self {
        let names = puts.iter().map(|put| put.name.clone()).collect();
        Self { token, fingerprint: fingerprint(puts), names }
    }

    /// What was answered to it, if it was done.
    pub(super) async fn answer(&self, store: &Store) -> Result<Option<Vec<Stored>>, Error> {
        let Some(known) = store.remembered(&self.token, Moment::now()).await? else {
            return Ok(None);
        };
        let stored: Option<Vec<_>> = self
            .names
            .iter()
            .map(|name| {
                let (version, revision) = known.answer.get(name.as_str())?.split_once(' ')?;
                Some(Stored {
                    name: name.clone(),
                    version: Version::new(version.parse().ok()?)?,
                    revision: Revision::stored(revision.as_bytes())?,
                })
            })
            .collect();
        let same = known.fingerprint == self.fingerprint;
        stored.filter(|_| same).map(Some).ok_or(Error::Exists(
            "This `token` was another request's, within the last 24 hours. Give each request one \
             of its own, and keep it for sending that request again."
                .into(),
        ))
    }

    pub(super) fn entry(&self, stored: &[Stored], now: Moment) -> Row {
        let answer = stored.iter().map(|stored| {
            let Stored { name, version, revision } = stored;
            (name.as_str().to_owned(), format!("{} {}", version.number(), revision.as_str()))
        });
        let fingerprint = self.fingerprint.clone();
        self.token.entry(&Remembered { fingerprint, answer: answer.collect() }, now)
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

    #[test]
    fn a_fingerprint_is_of_what_can_be_seen() {
        let put = |change: fn(&mut Put)| {
            let mut put = Put {
                name: "n".parse().unwrap(),
                value: Value::Given(Secret::new(b"one".to_vec())),
                context: Context::default(),
                comment: None,
                expiry: None,
                version: None,
            };
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
