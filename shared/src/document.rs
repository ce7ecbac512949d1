//! Documents with several secrets, in the formats of credstash's `getall` and as env files.

mod env;

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::error::Error;
use crate::name::Prefix;
use crate::opened_secret::OpenedSecret;
use crate::request::Response;
use crate::secret::Secret;

/// The format of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object with names and values.
    Json,
    /// One line `NAME='value'` for each secret, for shells and dotenv libraries.
    Dotenv,
    /// One line `NAME=value` for each secret, for Docker and kubectl.
    EnvFile,
    /// A mapping of names to values. All values are quoted, and names that YAML 1.1 or 1.2 would
    /// read as another type.
    Yaml,
    /// One record of name and value for each secret (RFC 4180, with LF at the end of lines).
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

/// How names of secrets become names of environment variables.
#[derive(Clone, Copy, Debug)]
pub struct VariableNames<'a> {
    /// The prefix to remove from the names.
    pub prefix: &'a Prefix,
    /// Whether to convert the names to upper case.
    pub uppercase: bool,
}

impl Format {
    /// Returns whether the names in the document are names of environment variables.
    #[must_use]
    pub fn has_variables(self) -> bool {
        matches!(self, Self::Dotenv | Self::EnvFile)
    }

    /// Writes the secrets, sorted by name. JSON, YAML and CSV have the names of the secrets,
    /// unchanged.
    ///
    /// # Errors
    /// [`Error::Several`] with the names of the secrets that the format cannot hold.
    pub fn write(
        self,
        secrets: &[OpenedSecret],
        variables: VariableNames<'_>,
    ) -> Result<Response, Error> {
        let binary = secrets.iter().filter(|got| got.secret.text().is_none());
        let binary: Vec<_> = binary.map(|got| got.description.name.clone()).collect();
        if !binary.is_empty() {
            let error = "These values are not text. Leave `format` out to get them as base64.";
            return Err(Error::several(
                binary.into_iter().map(|name| (name, Error::invalid(error))),
            ));
        }
        let texts: BTreeMap<&str, &str> = secrets
            .iter()
            .map(|got| (got.description.name.as_str(), got.secret.text().unwrap_or_default()))
            .collect();
        self.write_texts(&texts, variables)
    }

    /// Writes values by the names of their secrets.
    fn write_texts(
        self,
        texts: &BTreeMap<&str, &str>,
        variables: VariableNames<'_>,
    ) -> Result<Response, Error> {
        match self {
            Self::Json => Response::json(texts),
            Self::Dotenv | Self::EnvFile => {
                let line = if self == Self::Dotenv { env::dotenv } else { env::env_file };
                let lines = env::write(texts, variables, line)?;
                Ok(Response::document(lines, "text/plain; charset=utf-8"))
            }
            Self::Yaml => {
                let options = serde_saphyr::ser_options! { quote_all: true };
                let mut text = Zeroizing::new(String::with_capacity(capacity(texts)));
                serde_saphyr::to_fmt_writer_with_options(&mut *text, texts, options)
                    .map_err(|_| write_error())?;
                let text = std::mem::take(&mut *text).into_bytes();
                Ok(Response::document(Secret::new(text), "application/yaml"))
            }
            Self::Csv => {
                let mut csv = csv::WriterBuilder::new();
                let mut csv = csv
                    // The writer does not wipe its own buffer, so keep it small.
                    .buffer_capacity(16)
                    .has_headers(false)
                    .terminator(csv::Terminator::Any(b'\n'))
                    .from_writer(Vec::with_capacity(capacity(texts)));
                for (name, text) in texts {
                    csv.write_record([name, text]).map_err(|_| write_error())?;
                }
                let bytes = csv.into_inner().map_err(|_| write_error())?;
                Ok(Response::document(Secret::new(bytes), "text/csv; charset=utf-8"))
            }
        }
    }
}

/// Returns the capacity for the document: if it grew, it would be copied, and the old copy would
/// not be wiped.
fn capacity(texts: &BTreeMap<&str, &str>) -> usize {
    texts.iter().map(|(name, text)| 3 * name.len() + 2 * text.len() + 8).sum()
}

/// Returns the error for a failed writer. It drops the writer's message, which may quote a secret.
fn write_error() -> Error {
    Error::Unavailable {
        message: "The document could not be written. Leave `format` out.".into(),
        source: "the format's writer failed".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Origin;

    /// Returns the media type and the text of a document, as the HTTP API returns it.
    fn written(format: &str, texts: &[(&str, &str)]) -> (String, String) {
        let variables = VariableNames { prefix: &"dev".parse().unwrap(), uppercase: true };
        let format = format.parse::<Format>().unwrap();
        let answer = format.write_texts(&texts.iter().copied().collect(), variables);
        let reply = serde_json::to_value(Origin::Http.reply(answer).unwrap()).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        (text(&reply["headers"]["content-type"]), text(&reply["body"]))
    }

    #[test]
    fn each_format_has_its_media_type_and_its_quotes() {
        let plain = "text/plain; charset=utf-8";
        let texts = [("dev/db", "a \"b\", c"), ("dev/on", "yes")];
        for (format, media, expected) in [
            ("json", "application/json", r#"{"dev/db":"a \"b\", c","dev/on":"yes"}"#),
            ("dotenv", plain, "DB='a \"b\", c'\nON='yes'\n"),
            ("env-file", plain, "DB=a \"b\", c\nON=yes\n"),
            ("yaml", "application/yaml", "dev/db: 'a \"b\", c'\ndev/on: 'yes'\n"),
            ("csv", "text/csv; charset=utf-8", "dev/db,\"a \"\"b\"\", c\"\ndev/on,yes\n"),
        ] {
            assert_eq!(written(format, &texts), (media.to_owned(), expected.to_owned()));
        }
    }

    #[test]
    fn yaml_quotes_names_that_are_other_types_unquoted() {
        let (_, text) = written("yaml", &[("1", "a"), ("null", "b"), ("yes", "c")]);
        assert_eq!(text, "\"1\": 'a'\n\"null\": 'b'\n\"yes\": 'c'\n");
    }

    #[test]
    fn an_unknown_format_is_refused() {
        assert_eq!("xml".parse::<Format>().unwrap_err().code().name, "Invalid");
    }
}
