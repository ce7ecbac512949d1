//! One version of one secret.

use crate::encryption_context::EncryptionContext;
use crate::error::Error;
use crate::fields::Fields;
use crate::name::{NO_SUCH_VERSION, Name, Revision, Stage, Version, VersionKey};
use crate::row::Row;
use crate::store::secrets_table::SecretsTable;

use super::super::Coffer;
use super::super::errors::{for_name, not_found};
use super::GetOutput;

/// A request to open one version.
#[derive(Debug)]
pub struct GetOne {
    /// The name of the secret.
    pub name: Name,
    /// Which version.
    pub selector: VersionSelector,
    /// The encryption context of the put.
    pub context: EncryptionContext,
    /// Whether the response is the bare value.
    pub bare: bool,
}

/// Which version of a secret is requested.
#[derive(Debug)]
pub enum VersionSelector {
    /// The version at this stage.
    Stage(Stage),
    /// The version with this number or text.
    Version(VersionKey),
    /// The version with this revision.
    Revision(Revision),
}

impl GetOne {
    pub(super) fn parse(fields: &mut Fields) -> Result<Self, Error> {
        Ok(Self {
            name: Name::of_any_client(&fields.required_text("name")?)?,
            selector: VersionSelector::parse(fields)?,
            context: fields.context("context")?,
            bare: match fields.text("format")?.as_deref() {
                None | Some("json") => false,
                Some("text") => true,
                Some(_) => return Err(Error::invalid("`format` must be json or text.")),
            },
        })
    }

    /// Opens one version with one call to DynamoDB and one to KMS. (If the version is not found, a
    /// second call looks for the unpadded number of an old client.)
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] if nothing is found and the name or version breaks
    /// the rules; [`Error::Forbidden`] for the wrong context; [`Error::Expired`];
    /// [`Error::Integrity`], [`Error::Foreign`], [`Error::Unsealed`] or [`Error::Malformed`] for a
    /// row that is not opened; [`Error::Unavailable`].
    pub async fn apply(self, coffer: &Coffer) -> Result<GetOutput, Error> {
        let found = self.selector.find(coffer.table()?, &self.name).await;
        let (row, stages) = found.map_err(|error| for_name(&self.name, error))?;
        let opened = coffer.open(&row, &self.context, stages).await?;
        Ok(if self.bare {
            GetOutput::Bare(opened.description.version, opened.secret)
        } else {
            GetOutput::Secret(opened)
        })
    }
}

impl VersionSelector {
    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        let version = fields.number_or_text("version")?.map(|text| text.parse()).transpose()?;
        let revision = fields.parsed("revision")?;
        let stage = fields.parsed("stage")?;
        match (version, revision, stage) {
            (None, None, None) => Ok(Self::Stage(Stage::Current)),
            (Some(label), None, None) => Ok(Self::Version(label)),
            (None, Some(revision), None) => Ok(Self::Revision(revision)),
            (None, None, Some(stage)) => Ok(Self::Stage(stage)),
            _ => Err(Error::invalid("Give at most one of `version`, `revision` and `stage`.")),
        }
    }

    /// Reads the row of the version, and its stages if the read shows them.
    async fn find(
        &self,
        table: &SecretsTable,
        name: &Name,
    ) -> Result<(Row, Option<Vec<Stage>>), Error> {
        match self {
            Self::Stage(Stage::Current) => {
                let row = table.newest(name, 1).await?.into_iter().next();
                Ok((row.ok_or_else(not_found)?, Some(vec![Stage::Current])))
            }
            Self::Stage(Stage::Previous) => {
                let row = table.newest(name, 2).await?.into_iter().nth(1);
                Ok((row.ok_or_else(not_found)?, Some(vec![Stage::Previous])))
            }
            Self::Stage(Stage::Pending) => Err(not_found()),
            Self::Version(label) => find_version(table, name, label).await,
            Self::Revision(revision) => {
                let row = table.revision(name, revision).await?;
                Ok((row.ok_or_else(not_found)?, None))
            }
        }
    }
}

async fn find_version(
    table: &SecretsTable,
    name: &Name,
    label: &VersionKey,
) -> Result<(Row, Option<Vec<Stage>>), Error> {
    // Two more rows show whether this is the highest version or the one below it.
    let padded = label.padded();
    let mut found = table.version(name, &padded, 2).await?;
    if found.is_none() && padded != *label {
        // Written without padding, before 2016.
        found = table.version(name, label, 2).await?;
    }
    let (row, above) = found.ok_or_else(|| match label.number() {
        Some(number) if Version::new(number).is_some() => not_found(),
        _ => Error::invalid(NO_SUCH_VERSION),
    })?;
    let stages = match above {
        0 => vec![Stage::Current],
        1 => vec![Stage::Previous],
        _ => vec![],
    };
    Ok((row, Some(stages)))
}
