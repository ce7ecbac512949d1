//! A version ready to be written: its value, data key and placement.

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::encryption_context::EncryptionContext;
use crate::envelope;
use crate::error::Error;
use crate::name::{Name, Revision, Version};
use crate::row::{self, Attribute, Row};
use crate::secret::{DataKey, Secret};
use crate::store::scan::Stores;
use crate::timestamp::Timestamp;

use super::super::Coffer;
use super::super::rotation_policy::RotationPolicy;
use super::new_version::{Expiry, NewVersion, StoredVersion, Value};
use super::placement::Placement;

/// A longer value never fits an item, however short its description.
const MAX_VALUE: usize = row::MAX_BYTES / 4 * 3;

/// A version ready to be written at its placement, as far as that is known.
pub(super) struct Draft {
    pub(super) name: Name,
    pub(super) requested: Option<Version>,
    pub(super) placement: Placement,
    revision: Revision,
    unsealed: Unsealed,
    data_key: DataKey,
    wrapped_key: Vec<u8>,
}

impl Draft {
    /// Generates the value if necessary, gets a data key, and finds the placement.
    pub(super) async fn prepare(
        coffer: &Coffer,
        stores: Stores<'_>,
        version: NewVersion,
        policy: Option<&RotationPolicy>,
    ) -> Result<Self, Error> {
        let NewVersion { name, value, context, comment, expiry, version: requested } = version;
        let secret = match value {
            Value::Given(secret) => secret,
            Value::Generated(rules) => {
                rules.check_put()?;
                rules.draw()?
            }
        };
        if secret.len() > MAX_VALUE {
            return Err(Error::TooLarge(
                "A secret has at most 307200 bytes, less what its name and description take. \
                 Shorten it, or store it elsewhere and put the key to it here."
                    .into(),
            ));
        }
        let expires_at = expiry.map(Expiry::moment).transpose()?;
        let revision = Revision::random()?;
        let description = describe(&name, &revision, &context, comment, expires_at);
        let (placement, (data_key, wrapped_key)) = tokio::try_join!(
            Placement::find(stores, &name, requested, policy),
            coffer.keys()?.generate(&context)
        )?;
        let unsealed = Unsealed { secret, description };
        Ok(Self { name, requested, placement, revision, unsealed, data_key, wrapped_key })
    }

    /// Finds the placement again.
    pub(super) async fn refresh(
        self,
        stores: Stores<'_>,
        policy: Option<&RotationPolicy>,
    ) -> Result<Self, Error> {
        let placement = Placement::find(stores, &self.name, self.requested, policy).await?;
        Ok(Self { placement, ..self })
    }

    /// Seals the version at its placement.
    pub(super) fn seal(&self) -> Result<Row, Error> {
        self.unsealed.seal(self.placement.version, &self.data_key, &self.wrapped_key)
    }

    pub(super) fn stored(&self) -> StoredVersion {
        StoredVersion {
            name: self.name.clone(),
            version: self.placement.version,
            revision: self.revision.clone(),
            current: self.placement.above.is_some().then_some(false),
        }
    }
}

/// Returns the describing attributes of a version, except its number and time.
fn describe(
    name: &Name,
    revision: &Revision,
    context: &EncryptionContext,
    comment: Option<String>,
    expires_at: Option<Timestamp>,
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

/// A value with its description, ready to be sealed as any version.
struct Unsealed {
    secret: Secret,
    description: Row,
}

impl Unsealed {
    fn seal(&self, version: Version, key: &DataKey, wrapped_key: &[u8]) -> Result<Row, Error> {
        let mut row = self.description.clone();
        row.insert("version".to_owned(), Attribute::Text(version.padded()));
        let now = Timestamp::now().unix().to_string();
        row.insert("created_at".to_owned(), Attribute::Number(now));
        let mut row = envelope::seal(key, &self.secret, row)?;
        row.insert("key".to_owned(), Attribute::Text(BASE64_STANDARD.encode(wrapped_key)));
        if row::fits(&row) { Ok(row) } else { Err(too_large(&row)) }
    }
}

/// The error for a row that does not fit an item. It says how long the value may be.
fn too_large(row: &Row) -> Error {
    let contents = row.get("contents").and_then(Attribute::text).map_or(0, str::len);
    let most = row::MAX_BYTES.saturating_sub(row::stored_size(row) - contents) / 4 * 3;
    if most == 0 {
        return Error::TooLarge(
            "The comment and the context leave no room for a secret: DynamoDB keeps 409600 bytes \
             in one item. Shorten them."
                .into(),
        );
    }
    Error::TooLarge(
        format!(
            "A secret with this name and description has at most {most} bytes. Shorten it, or \
             store it elsewhere and put the key to it here."
        )
        .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_bound_to_its_version() {
        let unsealed = Unsealed {
            secret: Secret::new(b"s".to_vec()),
            description: Row::from([("name".to_owned(), Attribute::Text("n".to_owned()))]),
        };
        let key = DataKey::new(vec![1; 64]).unwrap();
        let row = |number| unsealed.seal(Version::new(number).unwrap(), &key, b"wrapped").unwrap();
        assert_eq!(row(1).get("contents"), row(2).get("contents"));
        assert_ne!(row(1).get("seal"), row(2).get("seal"));
    }
}
