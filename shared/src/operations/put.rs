//! put: seals values as new versions, one or several at once.

mod draft;
pub(super) mod idempotency;
mod new_version;
mod placement;
pub(super) mod write;

use crate::audit_chain::Caller;
use crate::error::Error;
use crate::fields::Fields;
use crate::name::{Name, Prefix, Version, VersionKey};
use crate::request::Response;
use crate::store::tokens::Token;

use super::{Coffer, Operation};
pub use new_version::{Expiry, NewVersion, StoredVersion, Value};

/// A request to put one secret, or several under a prefix.
#[derive(Debug)]
pub struct Put {
    /// The secrets.
    pub versions: Vec<NewVersion>,
    /// The prefix of several secrets.
    pub prefix: Option<Prefix>,
    /// The idempotency token.
    pub token: Option<Token>,
}

/// A response of put.
#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
pub enum PutOutput {
    /// The version of one secret.
    One(StoredVersion),
    /// The versions of several secrets.
    Several {
        /// In the order of the request.
        secrets: Vec<StoredVersion>,
    },
}

impl Operation for Put {
    const NAME: &'static str = "put";

    type Output = PutOutput;

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let token = fields.parsed("token")?;
        let prefix = fields.parsed("prefix")?;
        let versions = match &prefix {
            None => vec![parse_one(fields)?],
            Some(prefix) => parse_several(prefix, fields)?,
        };
        Ok(Self { versions, prefix, token })
    }

    fn name(&self) -> Option<&Name> {
        let one = self.versions.first().map(|version| &version.name);
        self.prefix.as_ref().map(Prefix::name).or(one)
    }

    fn writes(&self) -> bool {
        true
    }

    /// Seals the values as the next versions of their secrets, or as the requested versions: all of
    /// them, or none.
    ///
    /// Each takes a read of the highest version and of the chain head, one `GenerateDataKey` at the
    /// same time, and one transaction for all, with an event for each. It takes more only if others
    /// write the same name at the same moment. Every writer gets a version of its own, without
    /// gaps, above all versions that the ledger knows, deleted and expired ones included.
    ///
    /// With a token, a request is done once in 24 hours, and its response is the same each time.
    ///
    /// # Errors
    /// [`Error::Exists`] if a requested version exists, no version can follow the highest one, or
    /// the token belongs to another request; [`Error::TooLarge`]; [`Error::Invalid`], also for
    /// rules that allow too few values; [`Error::Unavailable`]; [`Error::UnreadableChain`].
    async fn apply(self, coffer: &Coffer, caller: &Caller) -> Result<PutOutput, Error> {
        let Self { versions, prefix, token } = self;
        let mut secrets = coffer.write_versions(versions, token, None, caller).await?;
        Ok(match (secrets.pop(), secrets.is_empty() && prefix.is_none()) {
            (Some(one), true) => PutOutput::One(one),
            (last, _) => {
                secrets.extend(last);
                PutOutput::Several { secrets }
            }
        })
    }

    fn respond(output: PutOutput) -> Result<Response, Error> {
        let answer = Response::json(&output)?;
        Ok(match output {
            PutOutput::One(stored) => answer.of_version(VersionKey::from(stored.version)),
            PutOutput::Several { .. } => answer,
        })
    }
}

fn parse_one(fields: &mut Fields) -> Result<NewVersion, Error> {
    Ok(NewVersion {
        name: fields.required("name")?,
        value: parse_value(fields)?,
        context: fields.context("context")?,
        comment: fields.text("comment")?,
        expiry: parse_expiry(fields)?,
        version: fields.number("version")?.map(Version::checked).transpose()?,
    })
}

fn parse_value(fields: &mut Fields) -> Result<Value, Error> {
    let text = fields.secret("secret")?.map(Value::Given);
    let bytes = fields.secret_base64("secret_base64")?.map(Value::Given);
    let generated = fields.rules()?.map(Value::Generated);
    let mut given = [text, bytes, generated].into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(Error::invalid("Give one of `secret`, `secret_base64` and `generate`.")),
    }
}

fn parse_expiry(fields: &mut Fields) -> Result<Option<Expiry>, Error> {
    match (fields.moment("expires_at")?, fields.number("ttl")?) {
        (None, None) => Ok(None),
        (Some(end), None) => Ok(Some(Expiry::At(end))),
        (None, Some(seconds)) => Ok(Some(Expiry::After(seconds))),
        (Some(_), Some(_)) => Err(Error::invalid("Give at most one of `expires_at` and `ttl`.")),
    }
}

/// Reads several secrets. The error reports everything that is wrong, each with its index.
fn parse_several(prefix: &Prefix, fields: &mut Fields) -> Result<Vec<NewVersion>, Error> {
    let (mut versions, mut wrong) = (Vec::<NewVersion>::new(), Vec::new());
    for (index, mut fields) in fields.several("secrets")?.into_iter().enumerate() {
        let version = parse_one(&mut fields);
        let version = version.and_then(|version| fields.finish().map(|()| version));
        match version.and_then(|version| check_name(prefix, &versions, version)) {
            Ok(version) => versions.push(version),
            Err(error) => wrong.push((format!("secrets[{index}]"), error)),
        }
    }
    if wrong.is_empty() { Ok(versions) } else { Err(Error::several(wrong)) }
}

fn check_name(
    prefix: &Prefix,
    before: &[NewVersion],
    version: NewVersion,
) -> Result<NewVersion, Error> {
    if before.iter().any(|other| other.name == version.name) {
        return Err(Error::invalid("A name is given twice. Put each secret once."));
    }
    if !prefix.covers(&version.name) {
        return Err(Error::invalid(
            "Each name in `secrets` must be whole and under the prefix: `dev` covers `dev`, `dev/db` \
             and `dev.db`, `dev/` covers `dev/db`, and `db_*` covers `db_password`.",
        ));
    }
    Ok(version)
}
