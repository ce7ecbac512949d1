//! One version of one secret.

use coffer::context::Context;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::name::{Name, Stage};
use coffer::operations::Coffer;
use coffer::operations::get::VersionSelector;

use crate::Opened;

pub(crate) struct Request {
    pub(crate) name: Name,
    which: VersionSelector,
    context: Context,
    bare: bool,
}

impl Request {
    pub(crate) fn parse(fields: &mut Fields) -> Result<Self, Error> {
        Ok(Self {
            name: Name::of_any_client(&fields.required_text("name")?)?,
            which: which(fields)?,
            context: fields.context("context")?,
            bare: match fields.text("format")?.as_deref() {
                None | Some("json") => false,
                Some("text") => true,
                Some(_) => return Err(Error::invalid("`format` is json or text.")),
            },
        })
    }

    pub(crate) async fn apply(self, coffer: &Coffer) -> Result<Answer, Error> {
        let got = coffer.get(&self.name, &self.which, &self.context).await?;
        let version = got.description.version.clone();
        let answer =
            if self.bare { Answer::bare(got.secret) } else { Answer::json(&Opened::from(got))? };
        Ok(answer.of_version(version))
    }
}

fn which(fields: &mut Fields) -> Result<VersionSelector, Error> {
    let version = fields.number_or_text("version")?.map(|text| text.parse()).transpose()?;
    let revision = fields.parsed("revision")?;
    let stage = fields.parsed("stage")?;
    match (version, revision, stage) {
        (None, None, None) => Ok(VersionSelector::Stage(Stage::Current)),
        (Some(label), None, None) => Ok(VersionSelector::Version(label)),
        (None, Some(revision), None) => Ok(VersionSelector::Revision(revision)),
        (None, None, Some(stage)) => Ok(VersionSelector::Stage(stage)),
        _ => Err(Error::invalid("Give at most one of `version`, `revision` and `stage`.")),
    }
}
