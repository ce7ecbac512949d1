//! What can be done with secrets: put, get and list, over the keys and the store.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use rand::TryRng;
use rand::rngs::SysRng;

use crate::context::Context;
use crate::envelope::{self, Dialect, Envelope, Refusal};
use crate::error::Error;
use crate::generate::Rules;
use crate::keys::{Keys, Unwrapped};
use crate::moment::Moment;
use crate::name::{Label, Name, OUT_OF_RANGE, Prefix, Revision, Stage, Version};
use crate::row::{self, Attribute, Row};
use crate::secret::{DataKey, Secret};
use crate::store::{Inserted, Key, Page, Store};

/// The secrets of one stack.
#[derive(Debug)]
pub struct Coffer {
    keys: Option<Keys>,
    store: Option<Store>,
    legacy: Legacy,
}

/// What to do with rows that carry no seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Legacy {
    /// Open them.
    Read,
    /// Refuse them, whoever wrote them.
    Refuse,
}

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
    /// The second from which on it is refused, and removed some time later; never if none.
    pub expires_at: Option<Moment>,
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

/// A version that was written.
#[derive(Debug)]
pub struct Stored {
    /// The name of the secret.
    pub name: Name,
    /// The version that it became.
    pub version: Version,
    /// The random mark by which this very write can be told from any other.
    pub revision: Revision,
}

/// Which version of a secret is meant.
#[derive(Debug)]
pub enum Which {
    /// The one at this stage.
    Stage(Stage),
    /// The one with this sort key.
    Version(Label),
    /// The one with this revision.
    Revision(Revision),
}

/// A version that was opened.
#[derive(Debug)]
pub struct Got {
    /// What is known of it.
    pub description: Description,
    /// Its plaintext.
    pub secret: Secret,
    /// Where it stands, if the way it was asked for tells.
    pub stages: Option<Vec<Stage>>,
    /// Who wrote it, if it carries no seal.
    pub dialect: Option<Dialect>,
}

/// What a row says of a version besides its value.
#[derive(Debug, serde::Serialize)]
pub struct Description {
    /// The name of the secret.
    pub name: String,
    /// The version, a number wherever it is one.
    pub version: Label,
    /// The random mark of the write; rows of most other clients have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// When it was put, to the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Moment>,
    /// The second from which on it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// The encryption context it was put with; none if that was empty or is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<std::collections::BTreeMap<String, String>>,
}

/// Some descriptions, and how to ask for the next ones.
#[derive(Debug)]
pub struct Listed {
    /// What was found.
    pub descriptions: Vec<Description>,
    /// Given back, it continues where this ended; none at the end.
    pub next: Option<Key>,
}

impl Coffer {
    /// The most descriptions in one answer of [`Coffer::list`] and [`Coffer::versions`].
    pub const MAX_LIMIT: u32 = 1000;
    /// How many there are if nothing is said.
    pub const DEFAULT_LIMIT: u32 = 100;

    /// A value longer than this many bytes never fits an item, whatever its description.
    const MAX_VALUE: usize = row::MAX_BYTES / 4 * 3;
    /// After this many pages, or bytes of descriptions, what was found is answered: a page is 1 MB
    /// at most, and Lambda returns 6 MB of JSON at most.
    const PAGES: u32 = 32;
    const BYTES: usize = 1 << 20;

    /// Opens secrets with `keys` and keeps them in `store`. What lacks answers
    /// [`Error::Unavailable`] once it is needed: to list takes no keys.
    #[must_use]
    pub fn new(keys: Option<Keys>, store: Option<Store>, legacy: Legacy) -> Self {
        Self { keys, store, legacy }
    }

    /// Seals a value as the next version, or as the one asked for. One read beside one
    /// `GenerateDataKey`, then one conditional write; more only where others write the same name
    /// at the same moment. Every writer gets a version of its own, without gaps.
    ///
    /// # Errors
    /// [`Error::Exists`] where the version asked for is taken, or the highest version is one that
    /// cannot be counted on from; [`Error::TooLarge`], [`Error::Invalid`], [`Error::Unavailable`].
    pub async fn put(&self, put: Put) -> Result<Stored, Error> {
        let secret = match put.value {
            Value::Given(secret) => secret,
            Value::Generated(rules) => rules.draw()?,
        };
        if secret.len() > Self::MAX_VALUE {
            return Err(Error::TooLarge(
                "A secret has at most 307200 bytes, less what its name and description take. \
                 Shorten it, or keep it elsewhere and put the key to it here."
                    .into(),
            ));
        }
        let revision = Revision::random()?;
        let description = describe(&put.name, &revision, &put.context, put.comment, put.expires_at);
        let seal = Seal { secret, description };

        let highest = async {
            match put.version {
                Some(version) => Ok(version),
                None => next(self.store()?.highest(&put.name).await?),
            }
        };
        let (version, data_key) = tokio::try_join!(highest, self.keys()?.generate(&put.context))?;

        let mut version = version;
        let mut pause = Pause::default();
        loop {
            let row = seal.as_version(version, &data_key)?;
            match self.store()?.insert(row).await? {
                Inserted::Done => {
                    return Ok(Stored { name: put.name, version, revision });
                }
                Inserted::Taken if put.version.is_some() => {
                    return Err(Error::Exists(
                        "This version is there already. Leave `version` out for the next one."
                            .into(),
                    ));
                }
                Inserted::Taken => {
                    pause.wait().await?;
                    version = next(self.store()?.highest(&put.name).await?)?;
                }
            }
        }
    }

    /// Opens one version with one call to DynamoDB and one to KMS. (A version that is not there is
    /// looked for once more, as the unpadded number of an old client.)
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] where nothing is found and the name or version is
    /// none that could be put; [`Error::Forbidden`] for the wrong context; [`Error::Expired`];
    /// [`Error::Integrity`], [`Error::Foreign`], [`Error::Unsealed`] or [`Error::Malformed`] for a
    /// row that is not opened; [`Error::Unavailable`].
    pub async fn get(&self, name: &Name, which: &Which, context: &Context) -> Result<Got, Error> {
        let (row, stages) = self.find(name, which).await.map_err(|e| for_name(name, e))?;
        let (secret, dialect) = self.open(&row, context).await?;
        // Only now: an expiry that was edited is a broken seal, not an expired version.
        let description = Description::of(&row)?;
        if description.expires_at.is_some_and(|end| end <= Moment::now()) {
            return Err(Error::Expired);
        }
        Ok(Got { description, secret, stages, dialect })
    }

    /// The newest version of each name, or of each that the prefix covers, from the names index.
    /// An answer may hold fewer than `limit`; only one without `next` is the last.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list(
        &self,
        prefix: Option<&Prefix>,
        after: Option<Key>,
        limit: u32,
    ) -> Result<Listed, Error> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut descriptions: Vec<Description> = Vec::new();
        let mut newest: Option<Row> = None;
        let mut bytes = 0;
        let mut from = after;
        let resumed = from.as_ref().map(|key| key.name.clone());
        // One row more than asked for tells that the last name is complete. Where the filter or
        // many versions leave few names, each page reads twice as much as the one before.
        let mut size = i32::try_from(limit).unwrap_or(i32::MAX).saturating_add(1);
        for page in 1.. {
            let Page { rows, last } = self.store()?.names(prefix, from.take(), size).await?;
            for row in rows {
                // A version put since to a name that was listed sorts behind the cursor.
                if name_of(&row) == resumed.as_deref() {
                    continue;
                }
                if let Some(complete) = newest.replace(row)
                    && name_of(&complete) != newest.as_ref().and_then(name_of)
                {
                    descriptions.push(Description::of(&complete)?);
                    bytes += row::size(&complete);
                    let enough = descriptions.len() == limit;
                    if enough || page > Self::PAGES || bytes > Self::BYTES {
                        return Ok(Listed { next: Key::of(&complete), descriptions });
                    }
                }
            }
            if last.is_none() {
                break;
            }
            from = last;
            size = size.saturating_mul(2);
        }
        if let Some(complete) = newest {
            descriptions.push(Description::of(&complete)?);
        }
        Ok(Listed { descriptions, next: None })
    }

    /// The versions of one secret, highest first, from the names index; at most `limit` of them.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] where nothing is found and the name is none that
    /// could be put; [`Error::Unavailable`].
    pub async fn versions(
        &self,
        name: &Name,
        after: Option<Key>,
        limit: u32,
    ) -> Result<Listed, Error> {
        let first = after.is_none();
        let after = after.map(|key| Key { name: name.as_str().to_owned(), ..key });
        let limit = i32::try_from(limit).unwrap_or(i32::MAX - 1);
        // One more than asked for, so that the last answer has no `next`.
        let Page { mut rows, mut last } = self.store()?.versions(name, after, limit + 1).await?;
        if rows.is_empty() && first {
            return Err(for_name(name, not_found()));
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if rows.len() > limit {
            rows.truncate(limit);
            last = rows.last().and_then(Key::of);
        }
        let descriptions = rows.iter().map(Description::of).collect::<Result<_, _>>()?;
        Ok(Listed { descriptions, next: last })
    }

    fn keys(&self) -> Result<&Keys, Error> {
        self.keys.as_ref().ok_or_else(|| unset("COFFER_KEY_ARN is not set: deploy the template"))
    }

    fn store(&self) -> Result<&Store, Error> {
        self.store.as_ref().ok_or_else(|| unset("COFFER_TABLE is not set: deploy the template"))
    }

    async fn find(&self, name: &Name, which: &Which) -> Result<(Row, Option<Vec<Stage>>), Error> {
        match which {
            Which::Stage(Stage::Current) => {
                let row = self.store()?.newest(name, 1).await?.into_iter().next();
                Ok((row.ok_or_else(not_found)?, Some(vec![Stage::Current])))
            }
            Which::Stage(Stage::Previous) => {
                let row = self.store()?.newest(name, 2).await?.into_iter().nth(1);
                Ok((row.ok_or_else(not_found)?, Some(vec![Stage::Previous])))
            }
            Which::Stage(Stage::Pending) => Err(not_found()),
            Which::Version(label) => {
                // Two more tell whether this is the highest version or the one below it.
                let padded = label.padded();
                let mut found = self.store()?.version(name, &padded, 2).await?;
                if found.is_none() && padded != *label {
                    // Written unpadded, before 2016.
                    found = self.store()?.version(name, label, 2).await?;
                }
                let (row, above) = found.ok_or_else(|| match label.number() {
                    Some(number) if Version::new(number).is_some() => not_found(),
                    _ => Error::invalid(OUT_OF_RANGE),
                })?;
                let stages = match above {
                    0 => vec![Stage::Current],
                    1 => vec![Stage::Previous],
                    _ => vec![],
                };
                Ok((row, Some(stages)))
            }
            Which::Revision(revision) => {
                let row = self.store()?.revision(name, revision).await?;
                Ok((row.ok_or_else(not_found)?, None))
            }
        }
    }

    async fn open(&self, row: &Row, context: &Context) -> Result<(Secret, Option<Dialect>), Error> {
        let envelope = Envelope::parse(row)?;
        if self.legacy == Legacy::Refuse && !envelope.is_sealed() {
            return Err(Error::Unsealed);
        }
        let key = match self.keys()?.unwrap(envelope.wrapped_key(), context).await? {
            Unwrapped::Key(key) => key,
            Unwrapped::Foreign => return Err(Error::Foreign),
            Unwrapped::Refused => return Err(refused(row, &envelope, context)),
        };
        let opened = envelope.open(&key)?;
        Ok((opened.secret, opened.dialect))
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Integrity => Self::Integrity,
            Refusal::Malformed => Self::Malformed(
                "What is stored under this name and version is no secret: an attribute is missing \
                 or has a form that no credstash client writes. Restore the row, or put anew."
                    .into(),
            ),
        }
    }
}

impl Description {
    fn of(row: &Row) -> Result<Self, Error> {
        let key = Key::of(row).ok_or(Refusal::Malformed)?;
        let moment = |name| row.get(name).and_then(Attribute::integer).and_then(Moment::from_unix);
        let text = |name| row.get(name).and_then(Attribute::text);
        Ok(Self {
            name: key.name,
            version: Label::stored(key.version),
            revision: row.get("revision").and_then(Attribute::bytes).and_then(Revision::stored),
            comment: text("comment").filter(|text| !text.is_empty()).map(str::to_owned),
            created_at: moment("created_at"),
            expires_at: moment("expires_at"),
            context: row
                .get("context")
                .and_then(Attribute::map)
                .filter(|pairs| !pairs.is_empty())
                .cloned(),
        })
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
        let mut row = envelope::seal(data_key, &self.secret, row)?;
        let wrapped_key = BASE64_STANDARD.encode(wrapped_key);
        row.insert("key".to_owned(), Attribute::Text(wrapped_key));
        let size = row::size(&row) + row::index_size(&row);
        if size > row::MAX_BYTES {
            let contents = row.get("contents").and_then(Attribute::text).map_or(0, str::len);
            return Err(too_large(row::MAX_BYTES.saturating_sub(size - contents) / 4 * 3));
        }
        Ok(row)
    }
}

/// The describing attributes of a row that is to be sealed, all but the version.
fn describe(
    name: &Name,
    revision: &Revision,
    context: &Context,
    comment: Option<String>,
    expires_at: Option<Moment>,
) -> Row {
    let number = |moment: Moment| Attribute::Number(moment.unix().to_string());
    let mut row = Row::from([
        ("name".to_owned(), Attribute::Text(name.as_str().to_owned())),
        ("revision".to_owned(), Attribute::Bytes(revision.as_str().as_bytes().to_vec())),
        ("created_at".to_owned(), number(Moment::now())),
        ("context".to_owned(), Attribute::Map(context.pairs().clone())),
    ]);
    if let Some(comment) = comment.filter(|comment| !comment.is_empty()) {
        row.insert("comment".to_owned(), Attribute::Text(comment));
    }
    if let Some(end) = expires_at {
        row.insert("expires_at".to_owned(), number(end));
    }
    row
}

/// The version after the highest one that is there.
fn next(highest: Option<Label>) -> Result<Version, Error> {
    let Some(highest) = highest else {
        return Ok(Version::FIRST);
    };
    let padded = highest.padded() == highest;
    // credstash's putall and its library begin at 0.
    let number = highest.number().filter(|_| padded).ok_or(Error::Exists(
        "The highest version of this name is no padded number: another client wrote it, and it \
         sorts above every number, so a new version would never be the latest. Delete that row, \
         or use another name."
            .into(),
    ))?;
    Version::new(number + 1)
        .ok_or(Error::Exists("The last version there can be is taken. Use another name.".into()))
}

/// Why KMS refused: the caller's context is another one, or the wrapped key was altered.
fn refused(row: &Row, envelope: &Envelope<'_>, context: &Context) -> Error {
    let sealed_with = row.get("context").and_then(Attribute::map);
    match sealed_with {
        Some(pairs) if envelope.is_sealed() => {
            // Not verified, for that takes the key. What put never wrote is not shown.
            if pairs == context.pairs() || Context::new(pairs.clone()).is_err() {
                Error::Integrity
            } else if pairs.is_empty() {
                Error::Forbidden(
                    "This version was put without encryption context. Leave `context` out.".into(),
                )
            } else {
                let keys: Vec<_> = pairs.keys().map(|key| format!("{key:?}")).collect();
                let keys = keys.join(", ");
                Error::Forbidden(
                    format!(
                        "The encryption context is not the one this version was put with. Give \
                         `context` these keys with their values, and no others: {keys}."
                    )
                    .into(),
                )
            }
        }
        _ => Error::Forbidden(
            "KMS does not unwrap the data key of this version under the encryption context given. \
             A legacy row does not say which one it was put with: ask whoever put it. If the \
             context is right, the row is damaged."
                .into(),
        ),
    }
}

fn unset(what: &'static str) -> Error {
    Error::Unavailable {
        message: "The function lacks a setting. Ask the stack's operator: the function's log \
                  names it."
            .into(),
        source: what.into(),
    }
}

/// A name that breaks the rules was asked for in case another client wrote it; where none did, the
/// rule is the better answer.
fn for_name(name: &Name, error: Error) -> Error {
    match (&error, name.check()) {
        (Error::NotFound(_), Err(rule)) => rule,
        _ => error,
    }
}

fn not_found() -> Error {
    Error::NotFound("There is no such secret, or no such version of it. List the names.".into())
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

fn name_of(row: &Row) -> Option<&str> {
    row.get("name").and_then(Attribute::text)
}

/// A pause between two tries that grows, with full jitter (AWS, "Exponential backoff and jitter").
#[derive(Default)]
struct Pause {
    tries: u32,
}

impl Pause {
    const FIRST_MILLISECONDS: u64 = 10;
    const LAST_MILLISECONDS: u64 = 500;

    async fn wait(&mut self) -> Result<(), Error> {
        let most = Self::FIRST_MILLISECONDS << self.tries.min(10);
        let most = most.min(Self::LAST_MILLISECONDS);
        self.tries += 1;
        let random = SysRng.try_next_u64().map_err(Error::no_randomness)?;
        tokio::time::sleep(Duration::from_millis(random % (most + 1))).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn next_after(highest: &str) -> Result<u64, &'static str> {
        let version = next(Some(Label::stored(highest)));
        version.map(Version::number).map_err(|error| error.code().name)
    }

    #[test]
    fn versions_count_on_from_what_can_be_counted_on() {
        assert_eq!(next(None).unwrap(), Version::FIRST);
        assert_eq!(next_after("0000000000000000000"), Ok(1));
        assert_eq!(next_after("0000000000000000041"), Ok(42));
        assert_eq!(next_after("9999999999999999998"), Ok(Version::LAST.number()));
        for stuck in ["9999999999999999999", "41", "release-2", "", "00000000000000000041"] {
            assert_eq!(next_after(stuck), Err("Exists"), "{stuck}");
        }
    }

    fn context(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_refusal_of_kms_is_told_apart_by_the_context_that_the_row_carries() {
        let told = |stored: Option<&[(&str, &str)]>, sealed: bool, given: &[(&str, &str)]| {
            let text = |value: &str| Attribute::Text(value.to_owned());
            let mut row =
                Row::from(["key", "contents", "hmac"].map(|name| (name.to_owned(), text("AAAA"))));
            if let Some(pairs) = stored {
                row.insert("context".to_owned(), Attribute::Map(context(pairs)));
            }
            if sealed {
                row.insert("seal".to_owned(), text("AAAA"));
            }
            let envelope = Envelope::parse(&row).unwrap();
            refused(&row, &envelope, &Context::new(context(given)).unwrap())
        };
        let web: &[_] = &[("app", "web")];
        assert_eq!(told(Some(web), true, web).code().name, "Integrity");
        let wrong = told(Some(web), true, &[("app", "other")]);
        assert_eq!(wrong.code().name, "Forbidden");
        assert!(wrong.to_string().contains("\"app\"") && !wrong.to_string().contains("web"));
        assert!(told(Some(&[]), true, web).to_string().contains("without encryption context"));
        assert!(told(None, false, web).to_string().contains("legacy"));
        // No put could have stored this, so nobody is shown it.
        let planted = "x".repeat(9000);
        let absurd = told(Some(&[(&planted, "")]), true, web);
        assert_eq!(absurd.code().name, "Integrity");
    }

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
