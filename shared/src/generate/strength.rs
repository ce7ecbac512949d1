//! The strength of rules: how many values satisfy them, and how many are required.

use super::GenerateRules;
use crate::error::Error;

impl GenerateRules {
    /// The minimum strength of a rotation policy's rules, in bits.
    pub const MIN_POLICY_BITS: f64 = 64.0;
    /// The minimum number of values for a single put: that of a code with six digits.
    pub const MIN_VALUES: f64 = 1_000_000.0;

    /// A bound on the rounding error of [`GenerateRules::bits`].
    const ROUNDED: f64 = 1e-6;

    /// Returns the number of values that satisfy the rules, as a logarithm to base 2:
    ///
    /// ```text
    /// log2 Σ (-1)^|S| · (n - |∪S|)^length, over the sets S of required classes
    /// ```
    ///
    /// where n is the number of all characters. This is inclusion-exclusion; the classes are
    /// disjoint. All values are equally likely, so the result is their entropy in bits.
    #[must_use]
    pub fn bits(&self) -> f64 {
        let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let (all, length) = (count(self.classes.iter().map(Vec::len).sum()), count(self.length));
        let required = if self.require_each { self.classes.as_slice() } else { &[] };
        // The share of all values that satisfy the rules: n^length does not fit an `f64`.
        let mut share = 0.0;
        for subset in 0..1_u32 << required.len() {
            let missing = required.iter().enumerate().filter(|(index, _)| subset >> index & 1 == 1);
            let missing = count(missing.map(|(_, class)| class.len()).sum());
            let sign = if subset.count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
            share += sign * ((all - missing) / all).powf(length);
        }
        (length * all.log2() + share.log2()).max(0.0)
    }

    /// Returns whether the rules are strong enough for a rotation policy.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        self.bits() + Self::ROUNDED >= Self::MIN_POLICY_BITS
    }

    /// Checks that the rules are strong enough for a rotation policy.
    ///
    /// # Errors
    /// [`Error::Invalid`] below [`GenerateRules::MIN_POLICY_BITS`].
    pub fn check_policy(&self) -> Result<(), Error> {
        if self.is_strong() { Ok(()) } else { Err(weak_policy_error()) }
    }

    /// Checks that the rules are strong enough for a single put.
    ///
    /// # Errors
    /// [`Error::Invalid`] below [`GenerateRules::MIN_VALUES`].
    pub fn check_put(&self) -> Result<(), Error> {
        if self.bits() + Self::ROUNDED >= Self::MIN_VALUES.log2() {
            return Ok(());
        }
        Err(Error::invalid(
            "`generate` allows too few values. It must allow at least 1000000, as a code of six \
             digits does. Use a larger `length`, or exclude fewer characters.",
        ))
    }
}

/// Returns the error for a rotation policy whose rules allow too few values.
pub(crate) fn weak_policy_error() -> Error {
    Error::invalid(
        "The `generate` rules of this policy allow too few values. They must have at least 64 \
         bits, as 11 letters and digits do. Use a larger `length`, or exclude fewer characters.",
    )
}

#[cfg(test)]
mod tests {
    use super::super::CharacterClass;
    use super::super::tests::{ALL, drawn};
    use super::*;

    /// Two digits and one letter of each case: few enough values to count all of them.
    #[test]
    fn bits_count_the_values_that_can_be_drawn() {
        let few = "23456789bcdefghijklmnopqrstuvwxyzBCDEFGHIJKLMNOPQRSTUVWXYZ";
        for length in 1..=6_u32 {
            for each in [false, true] {
                let Ok(rules) = GenerateRules::new(length.into(), &ALL[..3], few, each) else {
                    continue;
                };
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
        assert!(GenerateRules::new(4096, &ALL, "", true).unwrap().bits() > 26_000.0);
        assert!(GenerateRules::plain().unwrap().bits() > 200.0);
    }

    #[test]
    fn a_policy_requires_64_bits() {
        let all_but = |kept: char| -> String {
            (b'!'..=b'~').map(char::from).filter(|each| *each != kept).collect()
        };
        // 32 times the same letter.
        let one = GenerateRules::new(32, &ALL, &all_but('A'), false).unwrap();
        assert_eq!(drawn(&one), b"A".repeat(32));
        assert_eq!(one.check_policy().unwrap_err().code().name, "Invalid");
        assert!(one.check_put().is_err());
        let digits =
            |length| GenerateRules::new(length, &[CharacterClass::Numbers], "", false).unwrap();
        assert!(digits(19).check_policy().is_err() && digits(20).check_policy().is_ok());
        let hex = GenerateRules::new(
            16,
            &ALL[..3],
            "ghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
            false,
        );
        assert!(hex.unwrap().check_policy().is_ok(), "64 bits to the bit");
        let eleven = GenerateRules::new(11, &ALL[..3], "", false).unwrap();
        assert!(
            eleven.check_policy().is_ok() && GenerateRules::plain().unwrap().check_policy().is_ok()
        );
    }

    #[test]
    fn a_put_requires_a_million_values() {
        let digits =
            |length| GenerateRules::new(length, &[CharacterClass::Numbers], "", false).unwrap();
        assert_eq!(digits(5).check_put().unwrap_err().code().name, "Invalid");
        assert!(digits(6).check_put().is_ok());
        assert!(GenerateRules::new(4, &ALL[..2], "", true).unwrap().check_put().is_ok());
    }
}
