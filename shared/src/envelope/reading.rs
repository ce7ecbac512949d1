//! Decrypts legacy rows. `get` and `reseal` both use [`read`], so that reseal never seals a value
//! that differs from what get returns.
//!
//! Clients use three counters, and no row says which one encrypted it:
//!
//! | dialect | first block | counter |
//! |---|---|---|
//! | credstash | `00..01` | 128 bits, big-endian |
//! | Haskell's `credentials` | `00..00` | 128 bits, big-endian |
//! | rucredstash | `00..01` | 32 bits, little-endian, in the first four bytes |
//!
//! The attributes distinguish the first two. credstash and rucredstash agree on the first 16 bytes
//! of a value. For a longer value, a row is rucredstash's only if its attributes allow it (see
//! [`allows_rucredstash`]) and the little-endian reading is UTF-8, because rucredstash stores text.

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};

use super::{Dialect, OpenError};
use crate::name::Revision;
use crate::row::{Attribute, Row};
use crate::secret::{DataKey, Secret};

/// credstash's first counter block: `Counter.new(128)` begins at 1.
const ONE: [u8; 16] = 1_u128.to_be_bytes();
/// The first counter block of Haskell's `credentials`.
const ZERO: [u8; 16] = [0; 16];
/// The number of bytes on which credstash and rucredstash agree: the first block.
const SHARED: usize = 16;

/// The dialects that the attributes of a legacy row allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Raw bytes: Haskell's `credentials`.
    Raw,
    /// Base64: credstash.
    Base64,
    /// Base64 with the attributes that Haskell's `credentials` writes.
    Base64OfHaskell,
    /// Base64 with the attributes that rucredstash writes: rucredstash or credstash.
    Base64OfRucredstash,
}

impl Form {
    /// Returns the form of a legacy row. `raw` says that `contents` has type B.
    ///
    /// # Errors
    /// [`OpenError::Malformed`] if `contents` has type B and the other attributes are not those of
    /// Haskell's `credentials`: no other supported client writes B.
    pub(super) fn of(row: &Row, raw: bool) -> Result<Self, OpenError> {
        match (raw, is_haskell(row)) {
            (true, true) => Ok(Self::Raw),
            (true, false) => Err(OpenError::Malformed),
            (false, true) => Ok(Self::Base64OfHaskell),
            (false, false) if allows_rucredstash(row) => Ok(Self::Base64OfRucredstash),
            (false, false) => Ok(Self::Base64),
        }
    }
}

/// Returns whether `hmac`, `digest` and `revision` are as Haskell's `credentials` writes them:
/// `hmac` is S, `digest` is missing, and `revision` is B with at least seven ASCII hexadecimal
/// characters.
fn is_haskell(row: &Row) -> bool {
    let revision = row.get("revision").and_then(Attribute::bytes).and_then(Revision::stored);
    row.get("hmac").and_then(Attribute::text).is_some()
        && !row.contains_key("digest")
        && revision.is_some_and(|revision| {
            let text = revision.as_str();
            text.len() >= 7 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
}

/// Returns whether rucredstash may have written a row: every version with the little-endian counter
/// writes `hmac` as B and one of these names as `digest`.
fn allows_rucredstash(row: &Row) -> bool {
    let digest = row.get("digest").and_then(Attribute::text);
    row.get("hmac").and_then(Attribute::bytes).is_some()
        && matches!(digest, Some("SHA1" | "SHA256" | "SHA384" | "SHA512"))
}

/// The possible readings of a legacy row.
pub(super) enum Reading {
    /// The value in this dialect: no other reading is possible.
    One(Dialect, Secret),
    /// The value in both credstash's and rucredstash's dialect: they give the same bytes.
    Same(Secret),
    /// Two values, credstash's and rucredstash's: they differ, and both are possible.
    Either {
        /// The big-endian reading.
        credstash: Secret,
        /// The little-endian reading, which is text.
        rucredstash: Secret,
    },
}

/// Reads a ciphertext whose MAC was verified.
///
/// If the attributes allow rucredstash and the value is longer than 16 bytes:
///
/// | big-endian | little-endian | reading |
/// |---|---|---|
/// | any | not text | credstash's |
/// | text | text | either |
/// | not text | text, maybe by chance | either |
/// | not text | text, not by chance | rucredstash's |
///
/// Text is UTF-8. [`is_beyond_chance`] defines what can be text by chance.
///
/// # Errors
/// [`OpenError::Integrity`] if the value is not text, but would be with the counter of another
/// dialect: somebody changed `contents` from S to B, or from B to S.
pub(super) fn read(key: &DataKey, contents: Vec<u8>, form: Form) -> Result<Reading, OpenError> {
    match form {
        Form::Raw => {
            let secret = unless_retyped(key, contents, ZERO, ONE)?;
            Ok(Reading::One(Dialect::CredentialsHaskell, secret))
        }
        Form::Base64OfHaskell => {
            let secret = unless_retyped(key, contents, ONE, ZERO)?;
            Ok(Reading::One(Dialect::Credstash, secret))
        }
        Form::Base64 => {
            let secret = decrypt_big_endian(key, contents.clone(), ONE);
            if !secret.is_text() && is_another_clients(key, contents) {
                return Err(OpenError::Integrity);
            }
            Ok(Reading::One(Dialect::Credstash, secret))
        }
        Form::Base64OfRucredstash if contents.len() <= SHARED => {
            Ok(Reading::Same(decrypt_big_endian(key, contents, ONE)))
        }
        Form::Base64OfRucredstash => {
            let rucredstash = decrypt_little_endian(key, contents.clone());
            let credstash = decrypt_big_endian(key, contents, ONE);
            Ok(if !rucredstash.is_text() {
                Reading::One(Dialect::Credstash, credstash)
            } else if !credstash.is_text() && is_beyond_chance(&rucredstash, SHARED) {
                Reading::One(Dialect::RucredstashLe32, rucredstash)
            } else {
                Reading::Either { credstash, rucredstash }
            })
        }
    }
}

/// Returns whether a ciphertext is text, not by chance, with the counter of rucredstash or of
/// Haskell's `credentials`. The row does not have their attributes, so somebody changed these.
fn is_another_clients(key: &DataKey, contents: Vec<u8>) -> bool {
    is_beyond_chance(&decrypt_little_endian(key, contents.clone()), SHARED)
        || is_beyond_chance(&decrypt_big_endian(key, contents, ZERO), 0)
}

/// Returns the value with the counter that begins at `own`, unless only the counter that begins at
/// `other` gives text.
fn unless_retyped(
    key: &DataKey,
    contents: Vec<u8>,
    own: [u8; 16],
    other: [u8; 16],
) -> Result<Secret, OpenError> {
    let retyped = contents.clone();
    let secret = decrypt_big_endian(key, contents, own);
    if !secret.is_text() && decrypt_big_endian(key, retyped, other).is_text() {
        return Err(OpenError::Integrity);
    }
    Ok(secret)
}

/// Returns whether random bytes after the first `shared` ones would be this text less than once in
/// 2^21 cases.
///
/// If a value is not text, the bytes of its little-endian reading after the first 16 are random.
/// One random byte is an ASCII character other than a control character in 98 of 256 cases (tab,
/// line feed and carriage return are allowed), so 16 of them are in one of 2^22. With characters of
/// several bytes, each further byte makes text 0.47 times as likely, and 20 bytes are text in one
/// of 2^21 cases. With control characters it takes 32 bytes.
fn is_beyond_chance(secret: &Secret, shared: usize) -> bool {
    let Some(text) = secret.text() else { return false };
    let tail = text.as_bytes().get(shared..).unwrap_or_default();
    let enough = if tail.is_ascii() { 16 } else { 20 };
    let mut characters =
        text.char_indices().filter(|(start, c)| start + c.len_utf8() > shared).map(|(_, c)| c);
    let mut printable = || characters.all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r'));
    tail.len() >= 32 || (tail.len() >= enough && printable())
}

/// Encrypts or decrypts in place: AES-256-CTR with a 128-bit big-endian counter (NIST SP 800-38A,
/// 6.5).
fn ctr_be(key: &DataKey, first_block: [u8; 16], bytes: &mut [u8]) {
    ctr::Ctr128BE::<Aes256>::new(key.encryption().into(), (&first_block).into())
        .apply_keystream(bytes);
}

/// Encrypts or decrypts in place, as credstash does. All sealed rows are encrypted like this.
pub(super) fn apply_keystream(key: &DataKey, bytes: &mut [u8]) {
    ctr_be(key, ONE, bytes);
}

fn decrypt_big_endian(key: &DataKey, mut contents: Vec<u8>, first_block: [u8; 16]) -> Secret {
    ctr_be(key, first_block, &mut contents);
    Secret::new(contents)
}

/// Decrypts as rucredstash does since 0.9.1: AES-256-CTR with a 32-bit little-endian counter at the
/// start of a block that ends in 1.
fn decrypt_little_endian(key: &DataKey, mut contents: Vec<u8>) -> Secret {
    ctr::Ctr32LE::<Aes256>::new(key.encryption().into(), (&ONE).into())
        .apply_keystream(&mut contents);
    Secret::new(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the share of strings of each length that are UTF-8. `ascii` and `others` are how
    /// many characters of one and of two bytes count.
    fn shares_of_text(longest: usize, ascii: f64, others: f64) -> Vec<f64> {
        let mut shares = vec![1.0_f64];
        for length in 1..=longest {
            // Characters of one to four bytes.
            let characters = [(1, ascii), (2, others), (3, 61_440.0), (4, 1_048_576.0)];
            let of_length = characters
                .into_iter()
                .filter(|(bytes, _)| *bytes <= length)
                .map(|(bytes, count): (usize, f64)| {
                    shares[length - bytes] * count / 256_f64.powi(i32::try_from(bytes).unwrap())
                })
                .sum();
            shares.push(of_length);
        }
        shares
    }

    #[test]
    fn text_by_chance_is_as_rare_as_documented() {
        // Without control characters, and with them.
        let shares = shares_of_text(64, 98.0, 1920.0 - 32.0);
        assert!(shares_of_text(64, 128.0, 1920.0)[29] < 2_f64.powi(-21));
        assert!((98.0_f64 / 256.0).powi(16) < 2_f64.powi(-22));
        // The first of 20 bytes may be the rest of a character that began in the first block.
        let quarters = [1.0, 0.25, 0.0625, 0.015_625];
        let straddling = quarters.iter().enumerate().map(|(rest, share)| share * shares[20 - rest]);
        assert!(straddling.sum::<f64>() < 2_f64.powi(-21));
        assert!(shares[20] < 2_f64.powi(-21));
        assert!(shares.windows(2).skip(4).all(|pair| pair[1] < 0.48 * pair[0]));
    }

    #[test]
    fn long_text_without_control_characters_is_not_by_chance() {
        let text = |tail: &str| Secret::new(format!("sixteen letters.{tail}").into_bytes());
        for (tail, beyond) in [
            ("", false),
            ("fifteen letters", false),
            ("sixteen letters!", true),
            ("tab\tand\r\nline feed", true),
            ("sixteen letters\u{7}", false),
            ("sixteen letters and a control\u{85}", false),
            ("sixteen and öö.", false),
            ("nineteen and öööö.", true),
        ] {
            assert_eq!(is_beyond_chance(&text(tail), SHARED), beyond, "{tail:?}");
        }
        // The character across the boundary counts.
        let across = Secret::new("fifteen letters\u{85}sixteen letters!xxxxx".into());
        assert!(!is_beyond_chance(&across, SHARED));
        assert!(!is_beyond_chance(&Secret::new(vec![0xff; 64]), SHARED));
        assert!(is_beyond_chance(&text("thirty-two bytes and a form feed\u{c}"), SHARED));
    }
}
