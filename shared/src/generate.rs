//! Generated values: characters that are drawn uniformly from the operating system's random number
//! generator.

use rand::rngs::SysRng;
use rand::{Rng, RngExt, TryRng};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::secret::Secret;
use crate::template::Template;

pub use formats::Shown;
pub(crate) use strength::weak_policy_error;

mod formats;
mod strength;

/// The rules for generated values. Rules and character classes are those of `GetRandomPassword` of
/// AWS Secrets Manager, the template those of its `GenerateSecretString`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerateRules {
    length: usize,
    classes: Vec<Vec<u8>>,
    require_each: bool,
    /// The excluded classes and characters, to show the rules as they were given.
    excluded: (Vec<CharacterClass>, String),
    /// The JSON object that contains the value, if any.
    template: Option<Template>,
}

/// A character class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharacterClass {
    /// `a` to `z`.
    Lowercase,
    /// `A` to `Z`.
    Uppercase,
    /// `0` to `9`.
    Numbers,
    /// The 32 other printable ASCII characters, without the space.
    Punctuation,
}

impl CharacterClass {
    /// All classes, each with the request field that excludes it.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Lowercase, "exclude_lowercase"),
        (Self::Uppercase, "exclude_uppercase"),
        (Self::Numbers, "exclude_numbers"),
        (Self::Punctuation, "exclude_punctuation"),
    ];

    fn has(self, byte: u8) -> bool {
        match self {
            Self::Lowercase => byte.is_ascii_lowercase(),
            Self::Uppercase => byte.is_ascii_uppercase(),
            Self::Numbers => byte.is_ascii_digit(),
            Self::Punctuation => byte.is_ascii_punctuation(),
        }
    }
}

impl GenerateRules {
    /// The maximum number of characters.
    pub const MAX_LENGTH: u64 = 4096;
    /// The default number of characters.
    pub const DEFAULT_LENGTH: u64 = 32;
    /// The maximum size of `exclude_characters`, in bytes.
    pub const MAX_EXCLUDED_BYTES: usize = 256;

    /// Returns rules for values of `length` characters from these classes, without the `excluded`
    /// characters. With `require_each`, a value has at least one character of each class.
    ///
    /// # Errors
    /// [`Error::Invalid`] if no value can satisfy the rules, or if `excluded` is too long.
    pub fn new(
        length: u64,
        classes: &[CharacterClass],
        excluded: &str,
        require_each: bool,
    ) -> Result<Self, Error> {
        let rules = Self::build(length, classes, excluded, require_each)?;
        if require_each && rules.classes.len() < classes.len() {
            return Err(Error::invalid(
                "`generate.exclude_characters` excludes every character of a class that \
                 `require_each_included_type` requires. Exclude the class, or exclude fewer \
                 characters.",
            ));
        }
        Ok(rules)
    }

    /// Returns the default rules of `generate`.
    ///
    /// # Errors
    /// Never: these rules can be satisfied.
    pub fn plain() -> Result<Self, Error> {
        Self::new(Self::DEFAULT_LENGTH, &CharacterClass::ALL.map(|(class, _)| class), "", false)
    }

    /// As [`GenerateRules::new`], but ignores a required class that has no characters left. Ledgers hold
    /// such rules of older policies.
    fn build(
        length: u64,
        classes: &[CharacterClass],
        excluded: &str,
        require_each: bool,
    ) -> Result<Self, Error> {
        if !(1..=Self::MAX_LENGTH).contains(&length) {
            return Err(Error::invalid("`generate.length` must be a number from 1 to 4096."));
        }
        if excluded.len() > Self::MAX_EXCLUDED_BYTES {
            return Err(Error::invalid(
                "`generate.exclude_characters` must have at most 256 bytes. Give each character \
                 once.",
            ));
        }
        let remaining = |class: &CharacterClass| -> Vec<u8> {
            let allowed = |byte: &u8| class.has(*byte) && !excluded.contains(char::from(*byte));
            (b'!'..=b'~').filter(allowed).collect()
        };
        let missing = CharacterClass::ALL.map(|(class, _)| class).into_iter();
        let missing = missing.filter(|class| !classes.contains(class)).collect();
        let classes: Vec<_> =
            classes.iter().map(remaining).filter(|remaining| !remaining.is_empty()).collect();
        if classes.is_empty() {
            return Err(Error::invalid(
                "`generate` excludes every character. Exclude fewer characters or classes.",
            ));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if require_each && length < classes.len() {
            return Err(Error::invalid(
                "`generate.length` is too short to require each class. Use a larger `length`, or \
                 leave `require_each_included_type` out.",
            ));
        }
        let excluded = (missing, excluded.to_owned());
        Ok(Self { length, classes, require_each, excluded, template: None })
    }

    /// Returns the same rules, with the value as a field of this JSON object.
    #[must_use]
    pub fn within(self, template: Option<Template>) -> Self {
        Self { template, ..self }
    }

    /// Returns the JSON object that contains the value, if any.
    #[must_use]
    pub fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// Draws a value, uniformly from all values that satisfy the rules. It draws whole values until
    /// one does: placing the required characters separately would favor some values.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the operating system provides no random numbers.
    pub fn draw(&self) -> Result<Secret, Error> {
        // If the first read succeeds, the generator works and later reads do not fail.
        SysRng.try_next_u32().map_err(Error::no_randomness)?;
        let alphabet = self.classes.concat();
        let mut random = rand::rand_core::UnwrapErr(SysRng);
        let mut value = Zeroizing::new(vec![0; self.length]);
        loop {
            fill(&mut value, &alphabet, &mut random);
            let complete = || self.classes.iter().all(|c| value.iter().any(|b| c.contains(b)));
            if !self.require_each || complete() {
                let mut value = match &self.template {
                    Some(template) => template.filled(&value),
                    None => value,
                };
                return Ok(Secret::new(std::mem::take(&mut value)));
            }
        }
    }
}

/// Fills `value` with characters that are drawn uniformly from `alphabet`.
fn fill(value: &mut [u8], alphabet: &[u8], random: &mut impl Rng) {
    for byte in value {
        // The range is never empty: an alphabet has at least one character.
        *byte = alphabet.get(random.random_range(..alphabet.len())).copied().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    pub(super) const ALL: [CharacterClass; 4] = [
        CharacterClass::Lowercase,
        CharacterClass::Uppercase,
        CharacterClass::Numbers,
        CharacterClass::Punctuation,
    ];

    pub(super) fn template() -> Template {
        Template::new(r#"{"user":"admin"}"#.to_owned(), "password".to_owned()).unwrap()
    }

    pub(super) fn drawn(rules: &GenerateRules) -> Vec<u8> {
        rules.draw().unwrap().into_bytes()
    }

    proptest! {
        #[test]
        fn a_generated_value_satisfies_the_rules(
            length in 4_u64..64,
            excluded in "[!-~]{0,20}",
            picked in proptest::sample::subsequence(ALL.to_vec(), 1..=4),
        ) {
            if let Ok(rules) = GenerateRules::new(length, &picked, &excluded, true) {
                let value = drawn(&rules);
                prop_assert_eq!(value.len() as u64, length);
                for byte in &value {
                    prop_assert!(picked.iter().any(|class| class.has(*byte)));
                    prop_assert!(!excluded.contains(char::from(*byte)));
                }
                for class in &rules.classes {
                    prop_assert!(value.iter().any(|byte| class.contains(byte)));
                }
            }
        }
    }

    #[test]
    fn punctuation_is_the_same_as_in_secrets_manager() {
        let rules = GenerateRules::new(1, &[CharacterClass::Punctuation], "", false).unwrap();
        let expected = r##"!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~"##;
        assert_eq!(rules.classes[0], expected.as_bytes());
    }

    #[test]
    fn rules_that_no_value_satisfies_are_refused() {
        for (length, classes, excluded, each) in [
            (0, &ALL[..], "", false),
            (4097, &ALL[..], "", false),
            (3, &ALL[..], "", true),
            (8, &[][..], "", false),
            (8, &[CharacterClass::Numbers][..], "0123456789", false),
        ] {
            assert!(GenerateRules::new(length, classes, excluded, each).is_err());
        }
        assert_eq!(drawn(&GenerateRules::new(4096, &ALL, "", true).unwrap()).len(), 4096);
    }

    /// Pearson's chi-squared test over ten digits, nine degrees of freedom. A fair generator
    /// exceeds 45 about once in a million runs; one that favors a digit by a tenth always does.
    #[test]
    fn every_character_is_equally_likely() {
        let rules = GenerateRules::new(4096, &[CharacterClass::Numbers], "", false).unwrap();
        let mut counts = BTreeMap::new();
        for _ in 0..25 {
            for byte in drawn(&rules) {
                *counts.entry(byte).or_insert(0_u32) += 1;
            }
        }
        let expected = f64::from(4096 * 25) / 10.0;
        let distance = |count: &u32| (f64::from(*count) - expected).powi(2) / expected;
        assert_eq!(counts.len(), 10);
        assert!(counts.values().map(distance).sum::<f64>() < 45.0, "{counts:?}");
    }
}
