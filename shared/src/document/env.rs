//! Lines with environment variables, written so that every reader gets the same names and values.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::name::{Coverage, Prefix};
use crate::secret::Secret;

use super::{VariableNames, capacity};

/// The rule of a format: the quote for a variable and its value, or why the format cannot hold
/// them.
pub(super) type Line = fn(&str, &str) -> Result<Quote, &'static str>;

/// The quote around a value, if any.
type Quote = Option<u8>;

/// Writes one line for each secret.
///
/// # Errors
/// [`Error::Several`] with the names of the secrets that the format cannot hold.
pub(super) fn write(
    texts: &BTreeMap<&str, &str>,
    variables: VariableNames<'_>,
    line: Line,
) -> Result<Secret, Error> {
    let mut out = Vec::with_capacity(capacity(texts));
    let mut failed: BTreeMap<&str, &'static str> = BTreeMap::new();
    let mut written: BTreeMap<String, &str> = BTreeMap::new();
    for (name, text) in texts {
        let variable = variables.name(name);
        if variable.is_empty() {
            failed.insert(
                name,
                "No variable name is left after the prefix is removed from these names. Use \
                 `format` json.",
            );
            continue;
        }
        match line(&variable, text) {
            Ok(quote) => {
                out.extend_from_slice(variable.as_bytes());
                out.push(b'=');
                out.extend(quote);
                out.extend_from_slice(text.as_bytes());
                out.extend(quote);
                out.push(b'\n');
            }
            Err(why) => {
                failed.insert(name, why);
            }
        }
        if let Some(other) = written.insert(variable, *name) {
            failed.extend([other, *name].map(|name| (name, DUPLICATE)));
        }
    }
    let lines = Secret::new(out);
    if failed.is_empty() {
        return Ok(lines);
    }
    let failed = failed.into_iter().map(|(name, why)| (name.to_owned(), Error::invalid(why)));
    Err(Error::several(failed))
}

/// The message for names that become the same variable.
const DUPLICATE: &str =
    "Several of these names become the same variable. Use a longer prefix, or `format` json.";

/// Checks a line `NAME='value'` for POSIX shells (`. file`), python-dotenv, npm's dotenv, Rust's
/// dotenvy and Go's godotenv. They agree on few escapes, so none are written:
///
/// - In single quotes, python-dotenv reads two backslashes as one, and most readers do not end the
///   value at a quote after a backslash.
/// - In double quotes, `"`, `\`, `$` and `` ` `` have a meaning to some readers.
/// - python-dotenv and dotenv-expand expand `${` in every kind of quotes, dotenv-expand also `$(`.
/// - Readers that work line by line see a variable in each line of a value.
pub(super) fn dotenv(variable: &str, text: &str) -> Result<Quote, &'static str> {
    if is_special(variable) {
        return Err("Shells treat these variables specially, or do not set them. Rename the \
                    secrets, or use `format` json or env-file.");
    }
    let plain = is_line(text) && !text.contains("${") && !text.contains("$(");
    let single = !text.contains(r"\\") && !text.ends_with('\\');
    let quote = match (text.contains('\''), text.contains(['"', '\\', '$', '`'])) {
        (false, _) if single => Some(b'\''),
        (true, false) => Some(b'"'),
        _ => None,
    };
    quote.filter(|_| plain).map(Some).ok_or(
        "Readers of dotenv files would change these values. A value must not contain a line break \
         or another control character, `${`, `$(`, two backslashes in a row, a backslash at the \
         end, or a single quote together with one of \" \\ $ `. Use `format` json.",
    )
}

/// Checks a line `NAME=value` without quotes, as Docker (`--env-file`) and kubectl
/// (`--from-env-file`) read it. Some readers remove white space at both ends, and most read lines
/// up to 64 KiB.
pub(super) fn env_file(variable: &str, text: &str) -> Result<Quote, &'static str> {
    const MAX_BYTES: usize = 65_000;
    let trimmed = text.trim().len() == text.len();
    if trimmed && is_line(text) && variable.len() + text.len() < MAX_BYTES {
        return Ok(None);
    }
    Err("An env file cannot hold these values. A value must not contain a line break or another \
         control character, white space at the beginning or the end, or more than 65,000 bytes. \
         Use `format` json.")
}

/// Returns whether a value is a single line: it has no control characters except tabs, and no line
/// separators of Unicode.
fn is_line(text: &str) -> bool {
    !text.chars().any(|c| (c.is_control() && c != '\t') || c == '\u{2028}' || c == '\u{2029}')
}

/// Returns whether a shell or the dynamic linker acts on this variable, or a reader does not set it
/// to the value given. bash even evaluates the values of some of them.
fn is_special(variable: &str) -> bool {
    SPECIAL_NAMES.contains(&variable)
        || SPECIAL_PREFIXES.iter().any(|each| variable.starts_with(each))
}

/// Beginnings of names of special variables; see [`is_special`].
const SPECIAL_PREFIXES: [&str; 5] = ["BASH", "DYLD_", "HIST", "LC_", "LD_"];

/// Names of special variables; see [`is_special`].
const SPECIAL_NAMES: &[&str] = &[
    "CDPATH",
    "CHILD_MAX",
    "COMP_WORDBREAKS",
    "DIRSTACK",
    "ENV",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EUID",
    "EXECIGNORE",
    "FIGNORE",
    "FUNCNAME",
    "FUNCNEST",
    "GLIBC_TUNABLES",
    "GLOBIGNORE",
    "GROUPS",
    "HOSTFILE",
    "IFS",
    "IGNOREEOF",
    "INPUTRC",
    "LANG",
    "LANGUAGE",
    "LINENO",
    "MAIL",
    "MAILCHECK",
    "MAILPATH",
    "OPTERR",
    "OPTIND",
    "PATH",
    "PIPESTATUS",
    "POSIXLY_CORRECT",
    "PPID",
    "PROMPT_COMMAND",
    "PS0",
    "PS1",
    "PS2",
    "PS4",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SHLVL",
    "SRANDOM",
    "TMOUT",
    "UID",
    "_",
    "auto_resume",
    "histchars",
    // JavaScript sets the prototype of the object instead.
    "__proto__",
];

impl VariableNames<'_> {
    /// Returns the variable for a secret: its name without the prefix, with `_` for every character
    /// that is not an ASCII letter or digit, and `_` before a leading digit.
    fn name(&self, name: &str) -> String {
        let rest = without_prefix(name, self.prefix);
        let mut variable = String::with_capacity(1 + rest.len());
        if rest.starts_with(|c: char| c.is_ascii_digit()) {
            variable.push('_');
        }
        variable.extend(rest.chars().map(|c| match c {
            'a'..='z' if self.uppercase => c.to_ascii_uppercase(),
            'a'..='z' | 'A'..='Z' | '0'..='9' => c,
            _ => '_',
        }));
        variable
    }
}

/// Returns a name without the whole segments of its prefix. For a name that equals the prefix,
/// returns its last segment.
fn without_prefix<'a>(name: &'a str, prefix: &Prefix) -> &'a str {
    let separators = Prefix::SEPARATORS;
    let cut = match prefix.reach() {
        Coverage::Segments(segments) => {
            let below = name.strip_prefix(segments).and_then(|rest| rest.strip_prefix(separators));
            return below.or_else(|| name.rsplit(separators).next()).unwrap_or(name);
        }
        Coverage::Characters(text) => text.rfind(separators).and_then(|end| text.get(..=end)),
        Coverage::All => None,
    };
    cut.and_then(|cut| name.strip_prefix(cut)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variable(name: &str, prefix: &str, uppercase: bool) -> String {
        VariableNames { prefix: &prefix.parse().unwrap(), uppercase }.name(name)
    }

    fn written(line: Line, prefix: &str, texts: &[(&str, &str)]) -> Result<String, String> {
        let variables = VariableNames { prefix: &prefix.parse().unwrap(), uppercase: true };
        let lines = write(&texts.iter().copied().collect(), variables, line);
        lines.map(|lines| lines.text().unwrap().to_owned()).map_err(|error| error.to_string())
    }

    /// Reads a document with dotenvy.
    fn read_by_dotenvy(text: &str) -> Result<Vec<(String, String)>, dotenvy::Error> {
        dotenvy::from_read_iter(text.as_bytes()).collect()
    }

    #[test]
    fn a_name_becomes_a_variable_without_its_prefix() {
        for (name, prefix, expected) in [
            ("dev/db", "dev", "DB"),
            ("dev.db", "dev", "DB"),
            ("dev/db.main-host", "dev", "DB_MAIN_HOST"),
            ("dev/db", "dev/", "DB"),
            ("dev/db", "*", "DEV_DB"),
            ("dev", "dev", "DEV"),
            ("a/dev", "a/dev", "DEV"),
            ("a.dev", "a.dev", "DEV"),
            ("dev/2fa", "dev", "_2FA"),
            ("dev/straße", "dev", "STRA_E"),
            ("db_password", "db_*", "DB_PASSWORD"),
            ("prod/db_password", "prod/db_*", "DB_PASSWORD"),
            ("/prod/db", "/prod", "DB"),
            ("/prod/db", "/", "PROD_DB"),
            ("/prod/db", "*", "_PROD_DB"),
            ("dev/", "dev", ""),
        ] {
            assert_eq!(variable(name, prefix, true), expected, "{name} under {prefix}");
        }
        assert_eq!(variable("dev/dbHost", "dev", false), "dbHost");
    }

    #[test]
    fn a_secret_without_a_unique_variable_is_refused_by_name() {
        let error = written(dotenv, "a", &[("a/b", "1"), ("a.b", "2"), ("a/c", "3")]).unwrap_err();
        assert!(error.contains(r#""a.b", "a/b""#) && !error.contains("a/c"), "{error}");
        let error = written(env_file, "a", &[("a/", "1"), ("a/b", "2")]).unwrap_err();
        assert!(error.contains(r#""a/""#) && !error.contains("a/b"), "{error}");
        let upper = [("a/b", "1"), ("a/B", "2")];
        assert!(written(dotenv, "a", &upper).is_err());
        let variables = VariableNames { prefix: &"a".parse().unwrap(), uppercase: false };
        assert!(write(&upper.into_iter().collect(), variables, dotenv).is_ok());
    }

    #[test]
    fn dotenv_uses_only_quotes_that_readers_agree_on() {
        let texts = [("a/b", "a \"b\" $c\t#\\n"), ("a/c", "it's"), ("a/d", "")];
        let text = written(dotenv, "a", &texts).unwrap();
        assert_eq!(text, "B='a \"b\" $c\t#\\n'\nC=\"it's\"\nD=''\n");
    }

    #[test]
    fn dotenv_refuses_values_that_readers_disagree_on() {
        for text in [
            "it's \"",
            "it's $x",
            "it's `",
            "it's \\",
            "a\nB=c",
            "a\rb",
            "a\0",
            "a\u{85}",
            "a\x1b",
            "a\u{2028}b",
            "a\u{2029}b",
            "a\\",
            r"a\\b",
            "${a}",
            "$(a)",
        ] {
            let error = written(dotenv, "a", &[("a/x", text), ("a/fine", "s")]).unwrap_err();
            assert!(error.contains(r#""a/x""#) && !error.contains("fine"), "{text:?}: {error}");
        }
    }

    #[test]
    fn dotenv_refuses_variables_that_shells_act_on() {
        for name in ["path", "ifs", "ld_preload", "bash_env", "random", "ps4", "uid", "lc_all", "-"]
        {
            let name = format!("a/{name}");
            assert!(written(dotenv, "a", &[(&name, "s")]).is_err(), "{name}");
            assert!(written(env_file, "a", &[(&name, "s")]).is_ok(), "{name}");
        }
        assert_eq!(written(dotenv, "a", &[("a/user", "s")]).unwrap(), "USER='s'\n");
        let variables = VariableNames { prefix: &Prefix::all(), uppercase: false };
        assert!(write(&BTreeMap::from([("__proto__", "s")]), variables, dotenv).is_err());
    }

    #[test]
    fn an_env_file_holds_values_unchanged_or_refuses_them() {
        let texts = [("a/b", "'$x' \"y\" \\ # z"), ("a/c", "")];
        assert_eq!(written(env_file, "a", &texts).unwrap(), "B='$x' \"y\" \\ # z\nC=\n");
        let long = "x".repeat(65_000);
        for text in
            [" a", "a\t", "a\u{a0}", "\u{3000}a", "a\nB=c", "a\r", "a\0b", "\u{2028}", &long]
        {
            let error = written(env_file, "a", &[("a/x", text), ("a/fine", "s")]).unwrap_err();
            assert!(error.contains(r#""a/x""#) && !error.contains("fine"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn dotenvy_reads_the_values_that_were_written(
            values in prop::collection::vec(
                prop_oneof![r#"[ab '"\\$`#={}()!&;~\t]{0,8}"#, "\\PC{0,12}", ".{0,12}"], 1..8,
            ),
        ) {
            let kept = values.iter().filter(|value| dotenv("V", value).is_ok());
            let kept: Vec<_> =
                kept.enumerate().map(|(n, value)| (format!("V{n}"), value.clone())).collect();
            let texts: BTreeMap<_, _> = kept.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let variables = VariableNames { prefix: &Prefix::all(), uppercase: true };
            let text = write(&texts, variables, dotenv).unwrap();
            prop_assert_eq!(read_by_dotenvy(text.text().unwrap()).unwrap(), kept);
        }

        #[test]
        fn every_variable_is_an_identifier(name in ".{1,12}", prefix in "[a-c./]{1,3}[*]?") {
            if let Ok(prefix) = prefix.parse::<Prefix>() {
                let name = VariableNames { prefix: &prefix, uppercase: true }.name(&name);
                prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
                prop_assert!(!name.starts_with(|c: char| c.is_ascii_digit()));
            }
        }
    }
}
