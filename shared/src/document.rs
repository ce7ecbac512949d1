//! Several secrets as one document, in the formats of credstash's `getall`.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::coffer::get::Got;
use crate::error::Error;
use crate::event::Answer;
use crate::secret::Secret;

/// The format of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An object of names and values.
    Json,
    /// `NAME='value'`, a line each.
    Dotenv,
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
            "yaml" => Ok(Self::Yaml),
            "csv" => Ok(Self::Csv),
            _ => Err(Error::invalid("`format` is json, dotenv, yaml or csv.")),
        }
    }
}

impl Format {
    /// Writes the secrets, sorted by name.
    ///
    /// # Errors
    /// [`Error::Several`], with the names of those that the format cannot hold: a value that is no
    /// text; for dotenv, a value that its readers would not agree on, or a name that would not be
    /// a name any more.
    pub fn write(self, secrets: &[Got]) -> Result<Answer, Error> {
        let failed = |wrong: Vec<&str>, why: &'static str| {
            let error = || Error::Invalid(why.into());
            Error::several(wrong.into_iter().map(|name| (name.to_owned(), error())))
        };
        let binary = secrets.iter().filter(|got| got.secret.text().is_none());
        let binary: Vec<_> = binary.map(|got| got.description.name.as_str()).collect();
        if !binary.is_empty() {
            return Err(failed(
                binary,
                "These values are no text. Leave `format` out to get them in base64.",
            ));
        }
        let texts: BTreeMap<&str, &str> = secrets
            .iter()
            .map(|got| (got.description.name.as_str(), got.secret.text().unwrap_or_default()))
            .collect();
        match self {
            Self::Json => Answer::json(&texts),
            Self::Dotenv => {
                let (lines, wrong) = dotenv(&texts);
                if wrong.is_empty() {
                    return Ok(Answer::document(lines, "text/plain; charset=utf-8"));
                }
                Err(failed(
                    wrong,
                    "Not every reader of a dotenv file would read these as they are: a value with \
                     a single quote besides one of \" \\ $ `, with `${`, with two backslashes in a \
                     row or one at its end, or with a carriage return or NUL; a name with anything \
                     but letters, digits and _ - . / : @ +; two names that differ in case only. \
                     Ask for json.",
                ))
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

/// `NAME='value'` as credstash writes it, the name in upper case and otherwise as it is. credstash
/// writes every value so; one with a single quote is in double quotes here, if nothing in it means
/// something there to a shell or to another reader. Answers the names, too, for which there is no
/// form that all readers agree on.
fn dotenv<'a>(texts: &BTreeMap<&'a str, &str>) -> (Secret, Vec<&'a str>) {
    let mut out = Vec::with_capacity(capacity(texts));
    let mut wrong = Vec::new();
    let mut written: BTreeMap<String, &str> = BTreeMap::new();
    for (name, text) in texts {
        let upper = name.to_uppercase();
        let unnamed = |c: char| !(c.is_alphanumeric() || "_-./:@+".contains(c));
        // python-dotenv reads two backslashes and ${ in single quotes, too, and \' as no end.
        let plain = !(text.contains(r"\\") || text.ends_with('\\') || text.contains("${"));
        let quote = match (text.contains('\''), text.contains(['"', '\\', '$', '`'])) {
            (false, _) if plain => Some(b'\''),
            (true, false) => Some(b'"'),
            _ => None,
        };
        let quote = quote.filter(|_| !text.contains(['\r', '\0']) && !upper.contains(unnamed));
        if let Some(twin) = written.insert(upper.clone(), *name) {
            wrong.extend([twin, *name]);
        } else if let Some(quote) = quote {
            out.extend_from_slice(upper.as_bytes());
            out.extend_from_slice(&[b'=', quote]);
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(&[quote, b'\n']);
        } else {
            wrong.push(*name);
        }
    }
    wrong.sort_unstable();
    wrong.dedup();
    (Secret::new(out), wrong)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[(&'static str, &str)]) -> Result<String, Vec<&'static str>> {
        let (text, wrong) = dotenv(&texts.iter().copied().collect());
        if wrong.is_empty() { Ok(text.text().unwrap().to_owned()) } else { Err(wrong) }
    }

    #[test]
    fn dotenv_is_credstashs_where_that_can_be_read() {
        let written = lines(&[("dev/db", "hunter2"), ("straße", "a\n\"b\" $c")]).unwrap();
        assert_eq!(written, "DEV/DB='hunter2'\nSTRASSE='a\n\"b\" $c'\n");
        assert_eq!(lines(&[("a", "it's")]).unwrap(), "A=\"it's\"\n");
    }

    #[test]
    fn dotenv_refuses_what_its_readers_disagree_on() {
        for text in
            ["it's \"", "it's $x", "it's `", "it's \\", "a\rb", "a\0", "a\\", r"a\\b", "${a}"]
        {
            assert_eq!(lines(&[("a", text), ("b", "fine")]), Err(vec!["a"]), "{text:?}");
        }
        for name in ["a=b", "c\nd", "a b", "a;b", "$(a)", "a#b"] {
            assert_eq!(lines(&[(name, "x")]), Err(vec![name]));
        }
        assert_eq!(lines(&[("a", "x"), ("A", "y")]), Err(vec!["A", "a"]));
    }
}
