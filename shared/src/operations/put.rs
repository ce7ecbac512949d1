//! put: values sealed as new versions, one or several at once.

use base64::prelude::{BASE64_STANDARD, Engine};
use futures_util::stream::{StreamExt, TryStreamExt, iter};

use crate::backoff::Backoff;
use crate::chain::{Act, Caller};
use crate::context::Context;
use crate::envelope;
use crate::error::Error;
use crate::generate::Rules;
use crate::moment::Moment;
use crate::name::{Name, Revision, Version};
use crate::row::{self, Attribute, Row};
use crate::secret::{DataKey, Secret};
use crate::store::Store;
use crate::store::ledger::Token;
use crate::store::transaction::{Committed, Transaction};

use super::Coffer;
use super::idempotency::Once;
use super::placement::{Place, place};
use super::policy::Rotation;

/// A secret to be put.
#[derive(Debug)]
pub struct Put {
    /// The name of the secret.
    pub name: Name,
    /// The plaintext, or how to make it.
    pub value: Value,
    /// The encryption context that KMS binds the data key to: needed again to open it.
    pub context: Context,
    /// Free text, shown by list. Empty is as none.
    pub comment: Option<String>,
    /// From when on it is refused, and removed some time later; never if none.
    pub expiry: Option<Expiry>,
    /// The version it is to become, if that is free; the one after the highest if none.
    pub version: Option<Version>,
}

/// Where the value of a secret comes from.
#[derive(Debug)]
pub enum Value {
    /// From the caller.
    Given(Secret),
    /// From the operating system's generator.
    Generated(Rules),
}

/// When a version ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// At this second.
    At(Moment),
    /// So many seconds after it is put.
    After(u64),
}

impl Expiry {
    fn moment(self) -> Result<Moment, Error> {
        let now = Moment::now();
        match self {
            Self::At(end) => Some(end),
            Self::After(seconds) => now.after(seconds),
        }
        .filter(|end| *end > now)
        .ok_or(Error::invalid("`expires_at` is in the future, `ttl` 1 second or more."))
    }
}

/// A version that was written.
#[derive(Debug, serde::Serialize)]
pub struct Stored {
    /// The name of the secret.
    pub name: Name,
    /// The version that it became.
    pub version: Version,
    /// The random mark by which this very write can be told from any other.
    pub revision: Revision,
    /// False if a higher version was there already, so that this one is not the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<bool>,
}

impl Coffer {
    /// A value longer than this many bytes never fits an item, whatever its description.
    const MAX_VALUE: usize = row::MAX_BYTES / 4 * 3;
    /// How many secrets are prepared at a time.
    const PREPARED: usize = 8;

    /// Seals values as the next versions of their secrets, or as the ones asked for: all of them,
    /// or none. For each, a read of the highest version and of the ledger's end beside one
    /// `GenerateDataKey`, then one transaction for all, with an event for each; more only where
    /// others write the same name at the same moment. Every writer gets a version of its own,
    /// without gaps, above all that the ledger knows of, deleted and expired ones too.
    ///
    /// With a token it is done once in 24 hours, however often it is asked for, and answered the
    /// same each time.
    ///
    /// # Errors
    /// [`Error::Exists`] where a version asked for is taken, the highest version is one that
    /// cannot be counted on from, or the token was another request's; [`Error::TooLarge`],
    /// [`Error::Invalid`], also for rules that allow too few values; [`Error::Unavailable`];
    /// [`Error::Unreadable`].
    pub async fn put(
        &self,
        puts: Vec<Put>,
        token: Option<Token>,
        caller: &Caller,
    ) -> Result<Vec<Stored>, Error> {
        self.write(puts, token, None, caller).await
    }

    /// Puts, and with a rotation policy notes in the same transaction when it is due again.
    ///
    /// # Errors
    /// As [`Coffer::put`]; with a policy [`Error::Renewed`] where it is not what was read any
    /// more, [`Error::NotFound`] where the name has no version to follow, and
    /// [`Error::Suspended`] if the policy belongs to an earlier life of the name.
    pub(super) async fn write(
        &self,
        puts: Vec<Put>,
        token: Option<Token>,
        rotation: Option<&Rotation>,
        caller: &Caller,
    ) -> Result<Vec<Stored>, Error> {
        let store = self.ledger()?;
        // Each is two writes, and the token is one.
        if puts.len() * 2 + usize::from(token.is_some()) > Transaction::MAX_WRITES {
            return Err(Error::too_many_secrets());
        }
        let act = if rotation.is_some() { Act::Renew } else { Act::Put };
        let once = token.map(|token| Once::new(&token, act, &puts));
        let known = async {
            match &once {
                Some(once) => once.answer(store).await,
                None => Ok(None),
            }
        };
        let drafts = async {
            let several = puts.len() > 1;
            let drafts = iter(puts.into_iter().enumerate()).map(|(index, put)| async move {
                let draft = Box::pin(self.draft(store, put, rotation)).await;
                draft.map_err(|error| at(index, several, error))
            });
            drafts.buffered(Self::PREPARED).try_collect::<Vec<_>>().await
        };
        // What was answered once is answered again, even if it could not be done any more.
        let (known, drafts) = tokio::join!(known, drafts);
        if let Some(stored) = known? {
            return Ok(stored);
        }
        let mut drafts = drafts?;

        let mut backoff = Backoff::default();
        loop {
            let written = self.written(store, &drafts, once.as_ref(), rotation, caller)?;
            let (refused, stale) = match store.commit(written.transaction).await? {
                Committed::Done => {
                    write_heads(store, written.heads).await;
                    return Ok(written.stored);
                }
                Committed::Refused(failed) => {
                    let stale = failed.iter().map(|index| index / written.step).collect();
                    (failed, stale)
                }
                Committed::Conflict => (Vec::new(), (0..drafts.len()).collect::<Vec<_>>()),
            };
            let asked = |index: &&usize| {
                let draft = drafts.get(*index / written.step);
                index.is_multiple_of(written.step) && draft.is_some_and(|d| d.asked.is_some())
            };
            let there = refused.iter().find(asked).map(|index| index / written.step);
            // Perhaps it was this very request, sent twice.
            if let Some(once) = &once
                && let Some(stored) = once.answer(store).await?
            {
                return Ok(stored);
            }
            if written.policy.is_some_and(|index| refused.contains(&index)) {
                return Err(Error::Renewed);
            }
            if let Some(index) = there {
                let error = Error::Exists(
                    "This version is there already. Leave `version` out for the next one.".into(),
                );
                return Err(at(index, drafts.len() > 1, error));
            }
            backoff.wait().await?;
            let stale = &stale;
            drafts = iter(drafts.into_iter().enumerate())
                .map(|(index, draft)| async move {
                    if stale.contains(&index) {
                        draft.refreshed(store, rotation).await
                    } else {
                        Ok(draft)
                    }
                })
                .buffered(Self::PREPARED)
                .try_collect()
                .await?;
        }
    }

    /// Draws or takes the value, and gets all that its first try needs.
    async fn draft(
        &self,
        store: &Store,
        put: Put,
        rotation: Option<&Rotation>,
    ) -> Result<Draft, Error> {
        let secret = match put.value {
            Value::Given(secret) => secret,
            Value::Generated(rules) => {
                rules.check_put()?;
                rules.draw()?
            }
        };
        if secret.len() > Self::MAX_VALUE {
            return Err(Error::TooLarge(
                "A secret has at most 307200 bytes, less what its name and description take. \
                 Shorten it, or keep it elsewhere and put the key to it here."
                    .into(),
            ));
        }
        let expires_at = put.expiry.map(Expiry::moment).transpose()?;
        let revision = Revision::random()?;
        let description = describe(&put.name, &revision, &put.context, put.comment, expires_at);
        let (place, data_key) = tokio::try_join!(
            place(store, &put.name, put.version, rotation),
            self.keys()?.generate(&put.context)
        )?;
        let seal = Seal { secret, description };
        let (name, asked) = (put.name, put.version);
        Ok(Draft { name, revision, seal, data_key, asked, place })
    }

    /// The transaction of all drafts, as they stand.
    fn written(
        &self,
        store: &Store,
        drafts: &[Draft],
        once: Option<&Once>,
        rotation: Option<&Rotation>,
        caller: &Caller,
    ) -> Result<Written, Error> {
        let act = if rotation.is_some() { Act::Renew } else { Act::Put };
        // Where there is no room for the heads, they follow.
        let headless = drafts.len() * 3 + usize::from(once.is_some()) > Transaction::MAX_WRITES;
        let ttl = self.end_of_history();
        let mut transaction = Transaction::default();
        let (mut stored, mut heads, mut bytes) = (Vec::new(), Vec::new(), 0);
        for draft in drafts {
            let Place { tail, version, .. } = &draft.place;
            let row = draft.seal.as_version(*version, &draft.data_key);
            let row = row.map_err(|error| at(stored.len(), drafts.len() > 1, error))?;
            let change = draft.place.change(act, &row);
            let (event, tail) = tail.follow(&draft.name, &change, caller, ttl, headless);
            let head = tail.to_head(&draft.name);
            bytes += [&row, &event, &head].into_iter().map(row::size).sum::<usize>();
            transaction.put_version(store, row);
            transaction.put_entry(store, event);
            if headless {
                heads.push(head);
            } else {
                transaction.put_head(store, head);
            }
            stored.push(draft.stored());
        }
        if bytes > Transaction::MAX_BYTES {
            return Err(Error::TooLarge(
                "The secrets of one request have at most 4 MB together, as they are stored: that \
                 is DynamoDB's limit. Put some of them in another request."
                    .into(),
            ));
        }
        let now = Moment::now();
        let policy = rotation.zip(drafts.first()).map(|(rotation, draft)| {
            let row = rotation.renewed(draft.place.tail.sequence + 1, now);
            transaction.put_policy(store, row, Some(Some(rotation.sequence)));
            transaction.len() - 1
        });
        if let Some(once) = once {
            transaction.put_ending(store, once.entry(&stored, now), now);
        }
        let step = if headless { 2 } else { 3 };
        Ok(Written { transaction, step, heads, stored, policy })
    }
}

/// An error of one secret, by its place in the request if there are others.
fn at(index: usize, several: bool, error: Error) -> Error {
    if several { Error::several([(format!("secrets[{index}]"), error)]) } else { error }
}

/// A secret ready to be put, at the place where it would go as far as is known.
struct Draft {
    name: Name,
    revision: Revision,
    seal: Seal,
    data_key: (DataKey, Vec<u8>),
    asked: Option<Version>,
    place: Place,
}

impl Draft {
    /// The same at the place where it goes now.
    async fn refreshed(self, store: &Store, rotation: Option<&Rotation>) -> Result<Self, Error> {
        let place = place(store, &self.name, self.asked, rotation).await?;
        Ok(Self { place, ..self })
    }

    fn stored(&self) -> Stored {
        let Self { name, revision, place, .. } = self;
        Stored {
            name: name.clone(),
            version: place.version,
            revision: revision.clone(),
            current: place.above.is_some().then_some(false),
        }
    }
}

/// A transaction with what is to be known of it.
struct Written {
    transaction: Transaction,
    /// How many writes each secret has in it; the first of them is its version.
    step: usize,
    /// The heads that had no room.
    heads: Vec<Row>,
    stored: Vec<Stored>,
    /// Which write is the policy's, if there is one.
    policy: Option<usize>,
}

/// Writes the heads of entries that were written without them. What comes in between only leaves
/// them to whoever writes the names next: until then, nobody would miss an entry that is taken
/// from the end of a chain.
async fn write_heads(store: &Store, mut heads: Vec<Row>) {
    const TRIES: u32 = 8;
    let mut backoff = Backoff::default();
    for _ in 0..TRIES {
        if heads.is_empty() {
            return;
        }
        let mut transaction = Transaction::default();
        for head in &heads {
            transaction.put_head(store, head.clone());
        }
        match store.commit(transaction).await {
            // A newer head is there already.
            Ok(Committed::Refused(newer)) => {
                let mut index = 0..;
                heads.retain(|_| index.next().is_some_and(|index| !newer.contains(&index)));
            }
            Ok(Committed::Conflict) if backoff.wait().await.is_ok() => {}
            Ok(Committed::Done | Committed::Conflict) | Err(_) => return,
        }
    }
}

/// A secret ready to be sealed as any version.
struct Seal {
    secret: Secret,
    description: Row,
}

impl Seal {
    fn as_version(&self, version: Version, key: &(DataKey, Vec<u8>)) -> Result<Row, Error> {
        let (data_key, wrapped_key) = key;
        let mut row = self.description.clone();
        row.insert("version".to_owned(), Attribute::Text(version.padded()));
        let now = Moment::now().unix().to_string();
        row.insert("created_at".to_owned(), Attribute::Number(now));
        let mut row = envelope::seal(data_key, &self.secret, row)?;
        let wrapped_key = BASE64_STANDARD.encode(wrapped_key);
        row.insert("key".to_owned(), Attribute::Text(wrapped_key));
        let size = row::size(&row) + row::index_size(&row).max(row::LEDGER_BYTES);
        if size > row::MAX_BYTES {
            let contents = row.get("contents").and_then(Attribute::text).map_or(0, str::len);
            return Err(too_large(row::MAX_BYTES.saturating_sub(size - contents) / 4 * 3));
        }
        Ok(row)
    }
}

/// The describing attributes of a row that is to be sealed, all but its version and when.
fn describe(
    name: &Name,
    revision: &Revision,
    context: &Context,
    comment: Option<String>,
    expires_at: Option<Moment>,
) -> Row {
    let mut row = Row::from([
        ("name".to_owned(), Attribute::Text(name.as_str().to_owned())),
        ("revision".to_owned(), Attribute::Bytes(revision.as_str().as_bytes().to_vec())),
        ("context".to_owned(), Attribute::Map(context.pairs().clone())),
    ]);
    if let Some(comment) = comment.filter(|comment| !comment.is_empty()) {
        row.insert("comment".to_owned(), Attribute::Text(comment));
    }
    if let Some(end) = expires_at {
        row.insert("expires_at".to_owned(), Attribute::Number(end.unix().to_string()));
    }
    row
}

fn too_large(most: usize) -> Error {
    if most == 0 {
        return Error::TooLarge(
            "The comment and the context leave no room for a secret: DynamoDB keeps 409600 bytes \
             in one item. Shorten them."
                .into(),
        );
    }
    Error::TooLarge(
        format!(
            "A secret with this name and description has at most {most} bytes. Shorten it, or keep \
             it elsewhere and put the key to it here."
        )
        .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_of_its_version() {
        let seal = Seal {
            secret: Secret::new(b"s".to_vec()),
            description: Row::from([("name".to_owned(), Attribute::Text("n".to_owned()))]),
        };
        let key = (DataKey::new(vec![1; 64]).unwrap(), b"wrapped".to_vec());
        let row = |number| seal.as_version(Version::new(number).unwrap(), &key).unwrap();
        assert_eq!(row(1).get("contents"), row(2).get("contents"));
        assert_ne!(row(1).get("seal"), row(2).get("seal"));
    }
}
