//! Values that nobody thought up: characters drawn uniformly from the operating system's generator.

use rand::rngs::SysRng;
use rand::{Rng, RngExt, TryRng};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::row::{Attribute, Row};
use crate::secret::Secret;
use crate::template::Template;

/// Which values may be generated. The rules and the four classes are those of AWS Secrets
/// Manager's `GetRandomPassword`, the template those of its `GenerateSecretString`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    length: usize,
    classes: Vec<Vec<u8>>,
    require_each: bool,
    /// The classes and the characters that were excluded, to tell the rules as they were given.
    excluded: (Vec<Class>, String),
    /// The JSON object that the value becomes a field of, if any.
    template: Option<Template>,
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
    /// The most bytes that `exclude_characters` may have.
    pub const MAX_EXCLUDED_BYTES: usize = 256;
    /// The fewest possible values of a policy, in bits.
    pub const MIN_POLICY_BITS: f64 = 64.0;
    /// The fewest possible values of a single put: those of a code of six digits.
    pub const MIN_VALUES: f64 = 1_000_000.0;

    /// `length` characters of the given classes, less the `excluded` characters; with
    /// `require_each`, at least one of each class.
    ///
    /// # Errors
    /// [`Error::Invalid`] where no value can satisfy the rules, or `excluded` is too long.
    pub fn new(
        length: u64,
        classes: &[Class],
        excluded: &str,
        require_each: bool,
    ) -> Result<Self, Error> {
        let rules = Self::build(length, classes, excluded, require_each)?;
        if require_each && rules.classes.len() < classes.len() {
            return Err(Error::invalid(
                "`generate.exclude_characters` excludes every character of a class that \
                 `require_each_included_type` requires. Exclude the class, or fewer characters.",
            ));
        }
        Ok(rules)
    }

    /// As [`Rules::new`], but a required class without characters is ignored. Older policies in
    /// ledgers have such rules.
    fn build(
        length: u64,
        classes: &[Class],
        excluded: &str,
        require_each: bool,
    ) -> Result<Self, Error> {
        if !(1..=Self::MAX_LENGTH).contains(&length) {
            return Err(Error::invalid("`generate.length` is 1 to 4096."));
        }
        if excluded.len() > Self::MAX_EXCLUDED_BYTES {
            return Err(Error::invalid(
                "`generate.exclude_characters` has at most 256 bytes. Name each character once.",
            ));
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
        let excluded = (absent, excluded.to_owned());
        Ok(Self { length, classes, require_each, excluded, template: None })
    }

    /// The same rules, with the value as a field of a JSON object.
    #[must_use]
    pub fn within(self, template: Option<Template>) -> Self {
        Self { template, ..self }
    }

    /// The JSON object that the value becomes a field of, if any.
    #[must_use]
    pub fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// The number of values that satisfy the rules, as a logarithm to base 2:
    ///
    /// ```text
    /// log2 Σ (-1)^|S| · (n - |∪S|)^length, over the sets S of required classes
    /// ```
    ///
    /// where n is the number of all characters. (Inclusion and exclusion; the classes are
    /// disjoint.) All values are equally likely, so this is their entropy.
    #[must_use]
    pub fn bits(&self) -> f64 {
        let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let (all, length) = (count(self.classes.iter().map(Vec::len).sum()), count(self.length));
        let required = if self.require_each { self.classes.as_slice() } else { &[] };
        // The share of all values that satisfies the rules. n^length itself does not fit an f64.
        let mut part = 0.0;
        for subset in 0..1_u32 << required.len() {
            let missing = required.iter().enumerate().filter(|(index, _)| subset >> index & 1 == 1);
            let missing = count(missing.map(|(_, class)| class.len()).sum());
            let sign = if subset.count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
            part += sign * ((all - missing) / all).powf(length);
        }
        (length * all.log2() + part.log2()).max(0.0)
    }

    /// Whether there are enough values for a policy.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        self.bits() + Self::ROUNDED >= Self::MIN_POLICY_BITS
    }

    /// Whether a policy may hold these rules.
    ///
    /// # Errors
    /// [`Error::Invalid`] below [`Rules::MIN_POLICY_BITS`].
    pub fn check_policy(&self) -> Result<(), Error> {
        if self.is_strong() { Ok(()) } else { Err(weak_policy()) }
    }

    /// Whether a value may be put that is drawn by these rules.
    ///
    /// # Errors
    /// [`Error::Invalid`] below [`Rules::MIN_VALUES`].
    pub fn check_put(&self) -> Result<(), Error> {
        if self.bits() + Self::ROUNDED >= Self::MIN_VALUES.log2() {
            return Ok(());
        }
        Err(Error::invalid(
            "`generate` allows too few values: it needs at least 1000000, as a code of six digits \
             has. Use a larger `length`, or exclude fewer characters.",
        ))
    }

    /// A bound on the rounding error of [`Rules::bits`].
    const ROUNDED: f64 = 1e-6;

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
            template: self.template.as_ref().map(Template::text),
            key: self.template.as_ref().map(Template::key),
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
        row.extend(self.template_row());
        row
    }

    fn template_row(&self) -> impl Iterator<Item = (String, Attribute)> {
        let parts = self.template.as_ref().map(|template| {
            [("template", template.text()), ("template_key", template.key())]
                .map(|(name, text)| (name.to_owned(), Attribute::Text(text.to_owned())))
        });
        parts.into_iter().flatten()
    }

    /// Reads what [`Rules::to_row`] wrote; `None` if a row has no such rules, or larger ones than
    /// are accepted.
    #[must_use]
    pub fn of_row(row: &Row) -> Option<Self> {
        let set = |field: &str| row.get(field).is_some_and(Attribute::is_set);
        let classes = Class::ALL.into_iter().filter(|(_, field)| !set(field));
        let classes: Vec<_> = classes.map(|(class, _)| class).collect();
        let length = u64::try_from(row.get("length")?.integer()?).ok()?;
        let characters = row.get("exclude_characters").and_then(Attribute::text);
        let each = set("require_each_included_type");
        let rules = Self::build(length, &classes, characters.unwrap_or_default(), each).ok()?;
        let text = |name: &str| row.get(name).map(Attribute::text);
        let template = match (text("template"), text("template_key")) {
            (None, None) => None,
            (Some(text), Some(key)) => Some(Template::new(text?.to_owned(), key?.to_owned()).ok()?),
            _ => return None,
        };
        Some(rules.within(template))
    }

    /// What can be seen of the rules, so that two requests can be compared.
    pub(crate) fn visible(&self) -> Row {
        let classes = self.classes.join(&b'\n');
        let mut row = Row::from([
            ("length".to_owned(), Attribute::Number(self.length.to_string())),
            ("classes".to_owned(), Attribute::Bytes(classes)),
            ("require_each".to_owned(), Attribute::Flag(self.require_each)),
        ]);
        row.extend(self.template_row());
        row
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
                let mut value = match &self.template {
                    Some(template) => template.filled(&value),
                    None => value,
                };
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
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

/// The error for rules of a policy that allow too few values.
pub(crate) fn weak_policy() -> Error {
    Error::invalid(
        "The `generate` rules of this policy allow too few values: they need at least 64 bits, as \
         11 letters and digits have. Use a larger `length`, or exclude fewer characters.",
    )
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

    fn template() -> Template {
        Template::new(r#"{"user":"admin"}"#.to_owned(), "password".to_owned()).unwrap()
    }

    fn drawn(rules: &Rules) -> Vec<u8> {
        rules.draw().unwrap().into_bytes()
    }

    #[test]
    fn rules_are_kept_as_they_were_given() {
        for rules in [
            Rules::new(32, &ALL, "", false).unwrap(),
            Rules::new(9, &ALL[1..3], "0Oé", true).unwrap(),
            Rules::new(9, &ALL, "", false).unwrap().within(Some(template())),
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

    /// Two digits and one letter of each case: few enough values to count them all.
    #[test]
    fn the_bits_are_those_of_the_values_that_can_be_drawn() {
        let few = "23456789bcdefghijklmnopqrstuvwxyzBCDEFGHIJKLMNOPQRSTUVWXYZ";
        for length in 1..=6_u32 {
            for each in [false, true] {
                let Ok(rules) = Rules::new(length.into(), &ALL[..3], few, each) else { continue };
                let alphabet = rules.classes.concat();
                assert_eq!(alphabet.len(), 4);
                let satisfies = |mut number: u32| {
                    let mut value = Vec::new();
                    for _ in 0..length {
                        value.push(alphabet[(number % 4) as usize]);
                        number /= 4;
                    }
                    let complete = |class: &Vec<u8>| value.iter().any(|b| class.contains(b));
                    !each || rules.classes.iter().all(complete)
                };
                let count = (0..4_u32.pow(length)).filter(|number| satisfies(*number)).count();
                let expected = f64::from(u32::try_from(count).unwrap()).log2();
                assert!((rules.bits() - expected).abs() < 1e-9, "{length} {each} {count}");
            }
        }
        assert!(Rules::new(4096, &ALL, "", true).unwrap().bits() > 26_000.0);
        assert!(Rules::plain().unwrap().bits() > 200.0);
    }

    #[test]
    fn rules_of_a_policy_have_64_bits() {
        let all_but = |kept: char| -> String {
            (b'!'..=b'~').map(char::from).filter(|each| *each != kept).collect()
        };
        // 32 times the same letter.
        let one = Rules::new(32, &ALL, &all_but('A'), false).unwrap();
        assert_eq!(drawn(&one), b"A".repeat(32));
        assert_eq!(one.check_policy().unwrap_err().code().name, "Invalid");
        assert!(one.check_put().is_err());
        let digits = |length| Rules::new(length, &[Class::Numbers], "", false).unwrap();
        assert!(digits(19).check_policy().is_err() && digits(20).check_policy().is_ok());
        let hex =
            Rules::new(16, &ALL[..3], "ghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", false);
        assert!(hex.unwrap().check_policy().is_ok(), "64 bits to the bit");
        let eleven = Rules::new(11, &ALL[..3], "", false).unwrap();
        assert!(eleven.check_policy().is_ok() && Rules::plain().unwrap().check_policy().is_ok());
    }

    #[test]
    fn a_value_that_is_put_is_one_of_a_million() {
        let digits = |length| Rules::new(length, &[Class::Numbers], "", false).unwrap();
        assert_eq!(digits(5).check_put().unwrap_err().code().name, "Invalid");
        assert!(digits(6).check_put().is_ok());
        assert!(Rules::new(4, &ALL[..2], "", true).unwrap().check_put().is_ok());
    }

    #[test]
    fn a_required_class_that_is_emptied_is_refused_but_read() {
        let (digits, letters) = ("0123456789", "abcdefghijklmnopqrstuvwxyz");
        let error = Rules::new(32, &ALL, digits, true).unwrap_err();
        assert!(error.to_string().contains("`require_each_included_type`"), "{error}");
        assert!(Rules::new(32, &ALL, digits, false).is_ok());
        assert!(Rules::new(32, &ALL[1..], letters, true).is_ok(), "it is not included");
        let mut stored = Rules::new(32, &ALL, digits, false).unwrap().to_row();
        stored.insert("require_each_included_type".to_owned(), Attribute::Flag(true));
        let read = Rules::of_row(&stored).unwrap();
        assert!(read.require_each && drawn(&read).len() == 32);
    }

    #[test]
    fn what_is_too_large_is_refused_when_given_and_when_read() {
        let (fits, large) = ("0".repeat(256), "0".repeat(257));
        let rules = Rules::new(32, &ALL, &fits, false).unwrap();
        assert!(Rules::new(32, &ALL, &large, false).is_err());
        let with = |name: &str, value: &str| {
            let mut row = rules.clone().within(Some(template())).to_row();
            row.insert(name.to_owned(), Attribute::Text(value.to_owned()));
            Rules::of_row(&row)
        };
        assert!(with("exclude_characters", &fits).is_some());
        assert!(with("exclude_characters", &large).is_none());
        let object = format!("{{\"a\":\"{}\"}}", "x".repeat(4096));
        for (name, value) in
            [("template", object.as_str()), ("template", "[]"), ("template_key", &"k".repeat(257))]
        {
            assert!(with(name, value).is_none(), "{name}");
        }
        let mut half = rules.within(Some(template())).to_row();
        half.remove("template");
        assert!(Rules::of_row(&half).is_none());
    }

    #[test]
    fn a_value_is_drawn_into_its_template() {
        let rules = Rules::new(20, &ALL, "", true).unwrap().within(Some(template()));
        let read: BTreeMap<String, String> = serde_json::from_slice(&drawn(&rules)).unwrap();
        assert_eq!((read["user"].as_str(), read["password"].len()), ("admin", 20));
        let shown = serde_json::to_value(rules.shown()).unwrap();
        let expected = serde_json::json!({
            "length": 20,
            "require_each_included_type": true,
            "template": r#"{"user":"admin"}"#,
            "key": "password",
        });
        assert_eq!(shown, expected);
        let plain = rules.clone().within(None);
        assert_ne!(plain.visible(), rules.visible());
        assert!(!plain.visible().contains_key("template"));
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
