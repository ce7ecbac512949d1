//! Values that nobody thought up: characters drawn uniformly from the operating system's generator.

use rand::rngs::SysRng;
use rand::{Rng, RngExt, TryRng};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::row::{Attribute, Row};
use crate::secret::Secret;

/// Which values may be generated. The rules and the four classes are those of AWS Secrets
/// Manager's `GetRandomPassword`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    length: usize,
    classes: Vec<Vec<u8>>,
    require_each: bool,
    /// The classes and the characters that were excluded, to tell the rules as they were given.
    excluded: (Vec<Class>, String),
}

/// A class of characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `a` to `z`.
    Lowercase,
    /// `A` to `Z`.
    Uppercase,
    /// `0` to `9`.
    Numbers,
    /// The 32 other printable ASCII characters; not the space.
    Punctuation,
}

impl Class {
    /// All of them, each with the field by which a request excludes it.
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

impl Rules {
    /// The most characters that can be asked for.
    pub const MAX_LENGTH: u64 = 4096;
    /// How many characters there are if nothing is said.
    pub const DEFAULT_LENGTH: u64 = 32;

    /// `length` characters of the given classes, less the `excluded` characters; with
    /// `require_each`, at least one of each class that has any left.
    ///
    /// # Errors
    /// [`Error::Invalid`] where no value can satisfy the rules.
    pub fn new(
        length: u64,
        classes: &[Class],
        excluded: &str,
        require_each: bool,
    ) -> Result<Self, Error> {
        if !(1..=Self::MAX_LENGTH).contains(&length) {
            return Err(Error::invalid("`generate.length` is 1 to 4096."));
        }
        let left = |class: &Class| -> Vec<u8> {
            let allowed = |byte: &u8| class.has(*byte) && !excluded.contains(char::from(*byte));
            (b'!'..=b'~').filter(allowed).collect()
        };
        let absent = Class::ALL.map(|(class, _)| class).into_iter();
        let absent = absent.filter(|class| !classes.contains(class)).collect();
        let classes: Vec<_> = classes.iter().map(left).filter(|left| !left.is_empty()).collect();
        if classes.is_empty() {
            return Err(Error::invalid("`generate` excludes every character."));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if require_each && length < classes.len() {
            return Err(Error::invalid("`generate.length` is too short to require each class."));
        }
        Ok(Self { length, classes, require_each, excluded: (absent, excluded.to_owned()) })
    }

    /// What `generate` gives if nothing is said.
    ///
    /// # Errors
    /// None: these rules can be satisfied.
    pub fn plain() -> Result<Self, Error> {
        Self::new(Self::DEFAULT_LENGTH, &Class::ALL.map(|(class, _)| class), "", false)
    }

    /// The rules as a request gives them.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        let (classes, characters) = &self.excluded;
        let excluded = |class| classes.contains(&class).then_some(true);
        Shown {
            length: self.length,
            exclude_characters: Some(characters.as_str()).filter(|text| !text.is_empty()),
            exclude_lowercase: excluded(Class::Lowercase),
            exclude_uppercase: excluded(Class::Uppercase),
            exclude_numbers: excluded(Class::Numbers),
            exclude_punctuation: excluded(Class::Punctuation),
            require_each_included_type: self.require_each.then_some(true),
        }
    }

    /// The rules as the ledger keeps them; what is not said is left out.
    #[must_use]
    pub fn to_row(&self) -> Row {
        let length = Attribute::Number(self.length.to_string());
        let mut row = Row::from([("length".to_owned(), length)]);
        let (classes, characters) = &self.excluded;
        let named = Class::ALL.into_iter().filter(|(class, _)| classes.contains(class));
        let each = self.require_each.then_some("require_each_included_type");
        let flags = named.map(|(_, field)| field).chain(each);
        row.extend(flags.map(|field| (field.to_owned(), Attribute::Flag(true))));
        if !characters.is_empty() {
            let characters = Attribute::Text(characters.clone());
            row.insert("exclude_characters".to_owned(), characters);
        }
        row
    }

    /// The rules that [`Rules::to_row`] gave; none where a row has no such rules.
    #[must_use]
    pub fn of_row(row: &Row) -> Option<Self> {
        let set = |field: &str| row.get(field).is_some_and(Attribute::is_set);
        let classes = Class::ALL.into_iter().filter(|(_, field)| !set(field));
        let classes: Vec<_> = classes.map(|(class, _)| class).collect();
        let length = u64::try_from(row.get("length")?.integer()?).ok()?;
        let characters = row.get("exclude_characters").and_then(Attribute::text);
        let each = set("require_each_included_type");
        Self::new(length, &classes, characters.unwrap_or_default(), each).ok()
    }

    /// What can be seen of the rules, so that two requests can be compared.
    pub(crate) fn visible(&self) -> Row {
        let classes = self.classes.join(&b'\n');
        Row::from([
            ("length".to_owned(), Attribute::Number(self.length.to_string())),
            ("classes".to_owned(), Attribute::Bytes(classes)),
            ("require_each".to_owned(), Attribute::Flag(self.require_each)),
        ])
    }

    /// Draws a value, uniformly from all that satisfy the rules: whole values are drawn until one
    /// does, for to place the required characters by hand would favour some values.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where the operating system has no random numbers to give.
    pub fn draw(&self) -> Result<Secret, Error> {
        // One read tells whether the generator works; after it, none fails.
        SysRng.try_next_u32().map_err(Error::no_randomness)?;
        let alphabet = self.classes.concat();
        let mut random = rand::rand_core::UnwrapErr(SysRng);
        let mut value = Zeroizing::new(vec![0; self.length]);
        loop {
            fill(&mut value, &alphabet, &mut random);
            let complete = || self.classes.iter().all(|c| value.iter().any(|b| c.contains(b)));
            if !self.require_each || complete() {
                return Ok(Secret::new(std::mem::take(&mut value)));
            }
        }
    }
}

/// Rules as a request gives them; what is not said is left out.
#[derive(Debug, serde::Serialize)]
pub struct Shown<'a> {
    length: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_characters: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_lowercase: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_uppercase: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_numbers: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude_punctuation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    require_each_included_type: Option<bool>,
}

fn fill(value: &mut [u8], alphabet: &[u8], random: &mut impl Rng) {
    for byte in value {
        // The range is never empty: an alphabet has a character at least.
        *byte = alphabet.get(random.random_range(..alphabet.len())).copied().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const ALL: [Class; 4] =
        [Class::Lowercase, Class::Uppercase, Class::Numbers, Class::Punctuation];

    fn drawn(rules: &Rules) -> Vec<u8> {
        rules.draw().unwrap().into_bytes()
    }

    #[test]
    fn rules_are_kept_as_they_were_given() {
        for rules in [
            Rules::new(32, &ALL, "", false).unwrap(),
            Rules::new(9, &ALL[1..3], "0Oé", true).unwrap(),
        ] {
            assert_eq!(Rules::of_row(&rules.to_row()), Some(rules));
        }
        assert_eq!(Rules::of_row(&Row::new()), None);
    }

    proptest! {
        #[test]
        fn what_is_drawn_keeps_the_rules(
            length in 4_u64..64,
            excluded in "[!-~]{0,20}",
            picked in proptest::sample::subsequence(ALL.to_vec(), 1..=4),
        ) {
            if let Ok(rules) = Rules::new(length, &picked, &excluded, true) {
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
    fn the_punctuation_is_secrets_managers() {
        let rules = Rules::new(1, &[Class::Punctuation], "", false).unwrap();
        let expected = r##"!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~"##;
        assert_eq!(rules.classes[0], expected.as_bytes());
    }

    #[test]
    fn rules_that_nothing_satisfies_are_refused() {
        for (length, classes, excluded, each) in [
            (0, &ALL[..], "", false),
            (4097, &ALL[..], "", false),
            (3, &ALL[..], "", true),
            (8, &[][..], "", false),
            (8, &[Class::Numbers][..], "0123456789", false),
        ] {
            assert!(Rules::new(length, classes, excluded, each).is_err());
        }
        assert_eq!(drawn(&Rules::new(4096, &ALL, "", true).unwrap()).len(), 4096);
    }

    /// Pearson's chi-squared over ten digits, nine degrees of freedom: a fair generator exceeds 45
    /// about once in a million runs; one that favours a digit by a tenth always does.
    #[test]
    fn every_character_is_as_likely_as_any_other() {
        let rules = Rules::new(4096, &[Class::Numbers], "", false).unwrap();
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
