//! list: names with their newest version, or the versions of one name.

use std::process::ExitCode;

use coffer::coffer::{Coffer, Description};
use coffer::cursor::Cursor;
use coffer::error::Error;
use coffer::event::Answer;
use coffer::fields::Fields;
use coffer::lambda::{self, Operation};
use coffer::name::{Name, Prefix};

struct Request {
    what: What,
    next: Option<Cursor>,
    limit: u32,
}

enum What {
    Names(Option<Prefix>),
    Versions(Name),
}

#[derive(serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Found {
    Secrets(Vec<Description>),
    Versions(Vec<Description>),
}

#[derive(serde::Serialize)]
struct Listed {
    #[serde(flatten)]
    found: Found,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Cursor>,
}

impl Operation for Request {
    const NAME: &'static str = "list";

    fn parse(fields: &mut Fields) -> Result<Self, Error> {
        Ok(Self {
            what: match (fields.text("name")?, fields.parsed("prefix")?) {
                (None, prefix) => What::Names(prefix),
                (Some(name), None) => What::Versions(Name::of_any_client(&name)?),
                _ => {
                    return Err(Error::invalid("Give `prefix` for names or `name` for versions."));
                }
            },
            next: fields.parsed("next")?,
            limit: match fields.number("limit")?.map(u32::try_from) {
                None => Coffer::DEFAULT_LIMIT,
                Some(Ok(limit @ 1..=Coffer::MAX_LIMIT)) => limit,
                Some(_) => return Err(Error::invalid("`limit` is 1 to 1000.")),
            },
        })
    }

    fn name(&self) -> Option<&Name> {
        match &self.what {
            What::Names(_) => None,
            What::Versions(name) => Some(name),
        }
    }

    async fn apply(self, coffer: &Coffer) -> Result<Answer, Error> {
        let after = self.next.map(|cursor| cursor.0);
        let (listed, found): (_, fn(_) -> _) = match self.what {
            What::Names(prefix) => {
                (coffer.list(prefix.as_ref(), after, self.limit).await?, Found::Secrets)
            }
            What::Versions(name) => {
                (coffer.versions(&name, after, self.limit).await?, Found::Versions)
            }
        };
        Answer::json(&Listed { found: found(listed.descriptions), next: listed.next.map(Cursor) })
    }
}

fn main() -> ExitCode {
    lambda::run::<Request>()
}
