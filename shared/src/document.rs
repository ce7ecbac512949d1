//! Several secrets as one document, in the formats of credstash's `getall` and as an env file.

mod env;

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::event::Answer;
use crate::name::Prefix;
use crate::opened_secret::OpenedSecret;
use crate::secret::Secret;

/// The format of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object of names and values.
    Json,
    /// `NAME='value'`, a line each, for shells and dotenv libraries.
    Dotenv,
    /// `NAME=value`, a line each, for docker and kubectl.
    EnvFile,
    /// A mapping of names and values, in quotes where YAML 1.1 or 1.2 could read anything else.
    Yaml,
    /// A record of name and value each (RFC 4180, lines ending in LF).
    Csv,
}

impl std::str::FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "json" => Ok(Self::Json),
            "dotenv" => Ok(Self::Dotenv),
            "env-file" => Ok(Self::EnvFile),
            "yaml" => Ok(Self::Yaml),
            "csv" => Ok(Self::Csv),
            _ => Err(Error::invalid("`format` must be json, dotenv, env-file, yaml or csv.")),
        }
    }
}

/// How the names of secrets become names of environment variables.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a> {
    /// The prefix that is cut off the names.
    pub prefix: &'a Prefix,
    /// Whether the variables are in upper case.
    pub uppercase: bool,
}

impl Format {
    /// Whether the names in the document are names of environment variables.
    #[must_use]
    pub fn has_variables(self) -> bool {
        matches!(self, Self::Dotenv | Self::EnvFile)
    }

    /// Writes the secrets, sorted by name. JSON, YAML and CSV have the names as they are stored.
    ///
    /// # Errors
    /// [`Error::Several`], with the names of the secrets that the format cannot hold.
    pub fn write(
        self,
        secrets: &[OpenedSecret],
        variables: Variables<'_>,
    ) -> Result<Answer, Error> {
        let binary = secrets.iter().filter(|got| got.secret.text().is_none());
        let binary: Vec<_> = binary.map(|got| got.description.name.clone()).collect();
        if !binary.is_empty() {
            let error = "These values are no text. Leave `format` out to get them in base64.";
            return Err(Error::several(
                binary.into_iter().map(|name| (name, Error::invalid(error))),
            ));
        }
        let texts: BTreeMap<&str, &str> = secrets
            .iter()
            .map(|got| (got.description.name.as_str(), got.secret.text().unwrap_or_default()))
            .collect();
        match self {
            Self::Json => Answer::json(&texts),
            Self::Dotenv | Self::EnvFile => {
                let line = if self == Self::Dotenv { env::dotenv } else { env::env_file };
                let lines = env::write(&texts, variables, line)?;
                Ok(Answer::document(lines, "text/plain; charset=utf-8"))
            }
            Self::Yaml => {
                let options = serde_saphyr::ser_options! { quote_all: true };
                let mut text = Zeroizing::new(String::with_capacity(capacity(&texts)));
                serde_saphyr::to_fmt_writer_with_options(&mut *text, &texts, options)
                    .map_err(|_| unwritten())?;
                let text = std::mem::take(&mut *text).into_bytes();
                Ok(Answer::document(Secret::new(text), "application/yaml"))
            }
            Self::Csv => {
                let mut csv = csv::WriterBuilder::new();
                let mut csv = csv
                    // Its own buffer is not wiped.
                    .buffer_capacity(16)
                    .has_headers(false)
                    .terminator(csv::Terminator::Any(b'\n'))
                    .from_writer(Vec::with_capacity(capacity(&texts)));
                for (name, text) in &texts {
                    csv.write_record([name, text]).map_err(|_| unwritten())?;
                }
                let bytes = csv.into_inner().map_err(|_| unwritten())?;
                Ok(Answer::document(Secret::new(bytes), "text/csv; charset=utf-8"))
            }
        }
    }
}

/// Room for the document, so that it is not copied while it grows and left behind unwiped.
fn capacity(texts: &BTreeMap<&str, &str>) -> usize {
    texts.iter().map(|(name, text)| 3 * name.len() + 2 * text.len() + 8).sum()
}

/// What a writer says is not told: it may quote what it could not write.
fn unwritten() -> Error {
    Error::Unavailable {
        message: "The document could not be written. Leave `format` out.".into(),
        source: "the format's writer failed".into(),
    }
}
