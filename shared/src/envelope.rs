//! Encryption and authentication of versions: seals one version of a secret into a row, and opens
//! rows of every dialect.
//!
//! ```text
//! data key   = K_enc ‖ K_mac                                    64 bytes from KMS
//! contents   = AES-256-CTR(K_enc, first block, plaintext)       NIST SP 800-38A, 6.5
//! hmac       = HMAC-SHA256(K_mac, contents)                     RFC 2104, as credstash
//! K_seal     = HKDF-SHA256(data key, info "coffer/seal/v1")     RFC 5869, 32 bytes, no salt
//! seal       = HMAC-SHA256(K_seal, canonical(row - key - hmac - seal))
//! ```
//!
//! The first counter block is fixed, so a data key must encrypt exactly one plaintext: each put
//! gets its own data key, which never seals again.
//!
//! `hmac` is there for old clients and covers only the ciphertext. `seal` binds the ciphertext to
//! its name, version and description. It excludes `key`, so that KMS can re-encrypt the data key,
//! and `hmac`, which nobody can change without the data key.

use base64::prelude::{BASE64_STANDARD, Engine};
use hkdf::HkdfExtract;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::row::{Attribute, Row, canonical};
use crate::secret::{DataKey, Secret};

mod mac;
mod reading;

use mac::Digest;
use reading::{Form, Reading};

/// The only digest that Coffer writes.
const WRITTEN_DIGEST: Digest = Digest::Sha256;
/// The purpose of the sealing key (`info` of RFC 5869).
const SEAL_INFO: &[u8] = b"coffer/seal/v1";
/// The attributes that the seal does not cover.
const UNSEALED: [&str; 3] = ["key", "hmac", "seal"];
/// Attributes that only sealed rows have, in addition to the seal. No other client writes them.
const SEALED_ONLY: [&str; 3] = ["binary", "context", "json"];

/// Why a row was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// An attribute is missing, or has a type or form that no dialect has.
    #[error("the row is not a version of a secret")]
    Malformed,
    /// `digest` names a digest that is not supported.
    #[error("the digest of the row is not supported")]
    UnsupportedDigest,
    /// A check failed. The error does not say which one.
    #[error("the row failed its integrity check")]
    Integrity,
    /// credstash or rucredstash wrote the row. Both readings are possible and differ.
    #[error("the row can be read in two ways")]
    Ambiguous,
}

/// The dialect of a legacy row: whose format it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// credstash, and all clients that write the same format.
    Credstash,
    /// Haskell's `credentials`: raw bytes, and a counter that begins at zero.
    CredentialsHaskell,
    /// rucredstash 0.9.1 and later: a 32-bit little-endian counter.
    RucredstashLe32,
}

impl Dialect {
    /// Returns the dialect as responses show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credstash => "credstash",
            Self::CredentialsHaskell => "credentials-haskell",
            Self::RucredstashLe32 => "rucredstash-le32",
        }
    }
}

impl std::str::FromStr for Dialect {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Credstash, Self::CredentialsHaskell, Self::RucredstashLe32];
        all.into_iter().find(|dialect| dialect.as_str() == text).ok_or(())
    }
}

/// What a legacy row needs before it can be sealed.
#[derive(Debug)]
pub enum SealPlan {
    /// Only the seal: the ciphertext and its MAC are as Coffer writes them. Holds the plaintext,
    /// for [`add_seal`].
    AddSeal(Secret),
    /// A new data key: the row has another counter, or a digest that is no longer written. Holds
    /// the plaintext. The old data key must not be used again, because with another counter that
    /// would be a two-time pad.
    NewDataKey(Secret),
    /// A hint: credstash or rucredstash wrote the row, and nothing in it shows which.
    NeedsHint,
    /// A correction: the row does not have the dialect that its owner named.
    WrongHint,
}

/// An opened version.
#[derive(Debug)]
pub struct OpenedVersion {
    /// The plaintext.
    pub secret: Secret,
    /// The dialect of a legacy row; `None` for a sealed one.
    pub dialect: Option<Dialect>,
}

/// Seals `secret` under `key`. Adds `contents`, `digest`, `hmac`, `seal` and the marks of the
/// plaintext to the describing attributes in `row`. The caller then adds `key`.
///
/// The marks are `binary` for a plaintext that is not UTF-8, and `json` for a JSON object.
///
/// To seal the same secret as another version, start again from the describing attributes. The same
/// plaintext under the same key reveals nothing; another plaintext would.
///
/// # Errors
/// [`OpenError::Malformed`] if `row` has an attribute that a seal cannot cover.
pub fn seal(key: &DataKey, secret: &Secret, mut row: Row) -> Result<Row, OpenError> {
    let mut contents = secret.expose().to_vec();
    reading::apply_keystream(key, &mut contents);
    let hmac = WRITTEN_DIGEST.mac(key, &contents)?;
    let mut put = |name: &str, text| row.insert(name.to_owned(), Attribute::Text(text));
    put("contents", BASE64_STANDARD.encode(&contents));
    put("digest", WRITTEN_DIGEST.as_str().to_owned());
    put("hmac", hex::encode(hmac));
    add_seal(key, secret, row)
}

/// Adds the seal and the marks of the plaintext to a row that is otherwise complete: a legacy row
/// for which [`Envelope::examine`] returned [`SealPlan::AddSeal`].
///
/// `hmac` becomes lower-case text, which every client reads. credstash on Python 3 wrote bytes,
/// which nodecredstash and gcredstash do not read. `digest` gets the name that credstash reads.
///
/// # Errors
/// [`OpenError::Malformed`] if `row` has no MAC, or an attribute that a seal cannot cover;
/// [`OpenError::UnsupportedDigest`].
pub fn add_seal(key: &DataKey, secret: &Secret, mut row: Row) -> Result<Row, OpenError> {
    let hmac = match row.get("hmac") {
        Some(Attribute::Text(text)) => text.to_ascii_lowercase(),
        Some(Attribute::Bytes(bytes)) => {
            std::str::from_utf8(bytes).map_err(|_| OpenError::Malformed)?.to_ascii_lowercase()
        }
        _ => return Err(OpenError::Malformed),
    };
    let digest = digest_of(&row)?.as_str().to_owned();
    row.insert("hmac".to_owned(), Attribute::Text(hmac));
    row.insert("digest".to_owned(), Attribute::Text(digest));
    for (mark, holds) in [("binary", !secret.is_text()), ("json", secret.is_json_object())] {
        if holds {
            row.insert(mark.to_owned(), Attribute::Flag(true));
        }
    }
    let seal = seal_of(key, &row)?;
    row.insert("seal".to_owned(), Attribute::Text(BASE64_STANDARD.encode(seal)));
    Ok(row)
}

/// Returns whether a row has no seal, but has attributes that only sealed rows have. Somebody
/// removed the seal, and may have changed the rest.
#[must_use]
pub fn is_seal_removed(row: &Row) -> bool {
    !row.contains_key("seal") && SEALED_ONLY.iter().any(|&name| row.contains_key(name))
}

/// Returns the wrapped key of a row. It is raw in rows of Haskell's `credentials` and base64 in all
/// others.
///
/// # Errors
/// [`OpenError::Malformed`] if there is none.
pub fn wrapped_key(row: &Row) -> Result<Vec<u8>, OpenError> {
    match row.get("key") {
        Some(Attribute::Bytes(bytes)) => Ok(bytes.clone()),
        Some(Attribute::Text(text)) => decode(text),
        _ => Err(OpenError::Malformed),
    }
}

/// The parts of a row that opening needs. Their form is checked, but nothing is authenticated yet.
#[derive(Debug)]
pub struct Envelope<'row> {
    row: &'row Row,
    wrapped_key: Vec<u8>,
    contents: Vec<u8>,
    hmac: &'row [u8],
    digest: Digest,
    /// The form of a legacy row; `None` for a sealed row, which can be read in only one way.
    form: Option<Form>,
}

impl<'row> Envelope<'row> {
    /// Parses a row. `contents` of type B comes from Haskell's `credentials`, of type S from all
    /// other clients.
    ///
    /// # Errors
    /// [`OpenError::Malformed`] if an attribute is missing or has the wrong type or form;
    /// [`OpenError::UnsupportedDigest`].
    pub fn parse(row: &'row Row) -> Result<Self, OpenError> {
        let required = |name: &str| row.get(name).ok_or(OpenError::Malformed);
        let (contents, raw) = match required("contents")? {
            Attribute::Bytes(bytes) => (bytes.clone(), true),
            Attribute::Text(text) => (decode(text)?, false),
            _ => return Err(OpenError::Malformed),
        };
        if required("key")?.bytes().is_some() != raw {
            return Err(OpenError::Malformed);
        }
        let wrapped_key = wrapped_key(row)?;
        let hmac = match required("hmac")? {
            Attribute::Text(text) => text.as_bytes(),
            Attribute::Bytes(bytes) => bytes,
            _ => return Err(OpenError::Malformed),
        };
        let form = if row.contains_key("seal") { None } else { Some(Form::of(row, raw)?) };
        Ok(Self { row, wrapped_key, contents, hmac, digest: digest_of(row)?, form })
    }

    /// Returns the wrapped key.
    #[must_use]
    pub fn wrapped_key(&self) -> &[u8] {
        &self.wrapped_key
    }

    /// Returns whether the row has a seal. The seal may be invalid.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.form.is_none()
    }

    /// Verifies the whole row in constant time, then decrypts it.
    ///
    /// A legacy row that credstash or rucredstash may have written, and that both read as text, is
    /// read as credstash's. Reading changes nothing, so an error here can be corrected later.
    ///
    /// # Errors
    /// [`OpenError::Integrity`] if the seal or the MAC does not match `key`, or if `contents` was
    /// changed between S and B. [`OpenError::Ambiguous`] if credstash's reading is not text, and
    /// rucredstash's is so short that it may be text by chance.
    pub fn open(self, key: &DataKey) -> Result<OpenedVersion, OpenError> {
        let Some(form) = self.form else {
            let mut contents = self.verified(key)?;
            reading::apply_keystream(key, &mut contents);
            return Ok(OpenedVersion { secret: Secret::new(contents), dialect: None });
        };
        let (dialect, secret) = match reading::read(key, self.verified(key)?, form)? {
            Reading::One(dialect, secret) => (dialect, secret),
            Reading::Same(secret) => (Dialect::Credstash, secret),
            Reading::Either { credstash, .. } if credstash.is_text() => {
                (Dialect::Credstash, credstash)
            }
            Reading::Either { .. } => return Err(OpenError::Ambiguous),
        };
        Ok(OpenedVersion { secret, dialect: Some(dialect) })
    }

    /// Verifies the MAC of a legacy row in constant time, and returns what the row needs before it
    /// can be sealed.
    ///
    /// `dialect` is a hint from the owner. It decides if two readings are possible, and never
    /// against what the row shows. Without it, nothing is guessed.
    ///
    /// # Errors
    /// [`OpenError::Integrity`] if the MAC does not match `key`, or if `contents` was changed between
    /// S and B.
    pub fn examine(self, key: &DataKey, dialect: Option<Dialect>) -> Result<SealPlan, OpenError> {
        use Dialect::{Credstash, RucredstashLe32};
        let Some(form) = self.form else { return Ok(SealPlan::WrongHint) };
        let is_kept = self.digest.is_kept();
        let reading = reading::read(key, self.verified(key)?, form)?;
        let hinted = matches!(reading, Reading::Either { .. });
        let (found, secret) = match (reading, dialect) {
            (Reading::One(found, secret), None) => (found, secret),
            (Reading::One(found, secret), Some(dialect)) if found == dialect => (found, secret),
            (Reading::Same(secret), None | Some(Credstash | RucredstashLe32)) => {
                (Credstash, secret)
            }
            (Reading::Either { .. }, None) => return Ok(SealPlan::NeedsHint),
            (Reading::Either { credstash, .. }, Some(Credstash)) => (Credstash, credstash),
            (Reading::Either { rucredstash, .. }, Some(RucredstashLe32)) => {
                (RucredstashLe32, rucredstash)
            }
            _ => return Ok(SealPlan::WrongHint),
        };
        // If only the hint decided, use a new data key as well, so that the original row is kept:
        // the hint may be wrong.
        let as_it_is = found == Credstash && is_kept && !hinted;
        Ok(if as_it_is { SealPlan::AddSeal(secret) } else { SealPlan::NewDataKey(secret) })
    }

    /// Returns the ciphertext after verifying its MAC and, if there is one, the seal.
    fn verified(self, key: &DataKey) -> Result<Vec<u8>, OpenError> {
        let expected = hex::encode(self.digest.mac(key, &self.contents)?);
        // Compare as text, so that a longer or shorter MAC is refused. Coffer writes lower case;
        // upper case is accepted only from other clients.
        let mut genuine = if self.is_sealed() {
            expected.as_bytes().ct_eq(self.hmac)
        } else {
            expected.as_bytes().ct_eq(&self.hmac.to_ascii_lowercase())
        };
        if self.is_sealed() {
            let seal = seal_of(key, self.row).map_err(|_| OpenError::Integrity)?;
            let expected = BASE64_STANDARD.encode(seal);
            let stored = self.row.get("seal").and_then(Attribute::text).unwrap_or_default();
            genuine &= expected.as_bytes().ct_eq(stored.as_bytes());
        }
        if bool::from(genuine) { Ok(self.contents) } else { Err(OpenError::Integrity) }
    }
}

/// Computes the seal: HMAC-SHA256 over [`canonical`], under the sealing key.
fn seal_of(key: &DataKey, row: &Row) -> Result<[u8; 32], OpenError> {
    let covered = row.iter().filter(|(name, _)| !UNSEALED.contains(&name.as_str()));
    let message = canonical(covered).ok_or(OpenError::Malformed)?;
    let mut extract = HkdfExtract::<Sha256>::new(None);
    extract.input_ikm(key.encryption());
    extract.input_ikm(key.authentication());
    let mut sealing_key = zeroize::Zeroizing::new([0; 32]);
    let (_, hkdf) = extract.finalize();
    hkdf.expand(SEAL_INFO, sealing_key.as_mut()).map_err(|_| OpenError::Malformed)?;
    let hmac = <Hmac<Sha256> as KeyInit>::new_from_slice(sealing_key.as_ref())
        .map_err(|_| OpenError::Malformed)?;
    Ok(hmac.chain_update(message).finalize().into_bytes().into())
}

/// Returns the digest of a row's MAC. A row without `digest` has credstash's default.
fn digest_of(row: &Row) -> Result<Digest, OpenError> {
    match row.get("digest") {
        None => Ok(Digest::Sha256),
        Some(Attribute::Text(name)) => Digest::named(name).ok_or(OpenError::UnsupportedDigest),
        Some(_) => Err(OpenError::Malformed),
    }
}

/// Decodes base64. It skips ASCII white space, as Python's decoder does: Ruby's encoder breaks
/// lines after 60 characters, MIME's after 76.
fn decode(text: &str) -> Result<Vec<u8>, OpenError> {
    let is_space = |byte: u8| byte.is_ascii_whitespace() || byte == b'\x0b';
    let decoded = if text.bytes().any(is_space) {
        let dense: Vec<u8> = text.bytes().filter(|&byte| !is_space(byte)).collect();
        BASE64_STANDARD.decode(dense)
    } else {
        BASE64_STANDARD.decode(text)
    };
    decoded.map_err(|_| OpenError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialect_is_parsed_from_the_name_that_is_shown() {
        for dialect in [Dialect::Credstash, Dialect::CredentialsHaskell, Dialect::RucredstashLe32] {
            assert_eq!(dialect.as_str().parse(), Ok(dialect));
        }
        assert_eq!("nodecredstash".parse::<Dialect>(), Err(()));
    }
}
