//! Seals one version of a secret into a row, and opens rows of every dialect there is.
//!
//! ```text
//! data key   = K_enc ‖ K_mac                                    64 bytes from KMS
//! contents   = AES-256-CTR(K_enc, first block, plaintext)       NIST SP 800-38A, 6.5
//! hmac       = HMAC-SHA256(K_mac, contents)                     RFC 2104, as credstash
//! K_seal     = HKDF-SHA256(data key, info "coffer/seal/v1")     RFC 5869, 32 bytes, no salt
//! seal       = HMAC-SHA256(K_seal, canonical(row - key - hmac - seal))
//! ```
//!
//! The first counter block is fixed, so a data key encrypts exactly one plaintext: it is made for
//! one put and never sealed under again. `hmac` is there for old clients; it covers the ciphertext
//! alone. `seal` binds it to its name, version and description. It leaves out `key`, so that KMS
//! can wrap the data key anew, and `hmac`, which nobody can change without the data key.

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

/// The only digest that is written.
const WRITTEN_DIGEST: Digest = Digest::Sha256;
/// What the sealing key is for (RFC 5869's `info`).
const SEAL_INFO: &[u8] = b"coffer/seal/v1";
/// What the seal leaves out.
const UNSEALED: [&str; 3] = ["key", "hmac", "seal"];
/// What only sealed rows have, besides the seal: no other client writes these.
const SEALED_ONLY: [&str; 3] = ["binary", "context", "json"];

/// Why a row was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The row lacks an attribute, or one is of a type or form that no dialect has.
    #[error("the row is no secret")]
    Malformed,
    /// `digest` names a digest that is not supported.
    #[error("the digest of the row is not supported")]
    UnsupportedDigest,
    /// A check failed. Which one is not said.
    #[error("the row failed its integrity check")]
    Integrity,
    /// credstash or rucredstash wrote the row. Their readings differ, and both are possible.
    #[error("the row can be read in two ways")]
    Ambiguous,
}

/// Who wrote a legacy row, as far as its form shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// credstash and everything that writes as it does.
    Credstash,
    /// Haskell's `credentials`: raw bytes, and the counter begins at zero.
    CredentialsHaskell,
    /// rucredstash 0.9.1 and later: a 32-bit little-endian counter.
    RucredstashLe32,
}

impl Dialect {
    /// The dialect as it is answered.
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

/// What is to be done with a legacy row so that it can carry a seal.
#[derive(Debug)]
pub enum Examined {
    /// Only the seal is missing: the ciphertext and its MAC are as Coffer writes them. The
    /// plaintext, for [`seal_over`].
    AsItIs(Secret),
    /// Another counter, or a digest that is no longer written: the plaintext, to be sealed under a
    /// data key of its own. Under the old one, another counter would be a two-time pad.
    Anew(Secret),
    /// credstash's or rucredstash's, and nothing in it says which.
    Ambiguous,
    /// The row cannot be of the dialect that its owner named.
    Contradicted,
}

/// What came out of a row.
#[derive(Debug)]
pub struct Opened {
    /// The plaintext.
    pub secret: Secret,
    /// Who wrote the row, if it carried no seal.
    pub dialect: Option<Dialect>,
}

/// Seals `secret` under `key`: adds `contents`, `digest`, `hmac`, `seal` and the marks of the
/// plaintext to the describing attributes in `row`. Only `key` is left for the caller to add. To
/// seal the same secret as another version, start again from the describing attributes: the same
/// plaintext under the same key gives away nothing, another plaintext would.
///
/// The marks are `binary` for a plaintext that is not UTF-8, and `json` for a JSON object.
///
/// # Errors
/// [`Refusal::Malformed`] where `row` has an attribute that no seal can cover.
pub fn seal(key: &DataKey, secret: &Secret, mut row: Row) -> Result<Row, Refusal> {
    let mut contents = secret.expose().to_vec();
    reading::crypt(key, &mut contents);
    let hmac = WRITTEN_DIGEST.mac(key, &contents)?;
    let mut put = |name: &str, text| row.insert(name.to_owned(), Attribute::Text(text));
    put("contents", BASE64_STANDARD.encode(&contents));
    put("digest", WRITTEN_DIGEST.as_str().to_owned());
    put("hmac", hex::encode(hmac));
    seal_over(key, secret, row)
}

/// Adds the seal and the marks of the plaintext to a row that has everything else: a legacy row
/// that [`Envelope::examine`] found to be good as it is.
///
/// `hmac` becomes lower-case text, which every client reads: credstash on Python 3 wrote bytes,
/// which nodecredstash and gcredstash do not read. `digest` gets the name that credstash reads.
///
/// # Errors
/// [`Refusal::Malformed`] where `row` has an attribute that no seal can cover, or no MAC;
/// [`Refusal::UnsupportedDigest`].
pub fn seal_over(key: &DataKey, secret: &Secret, mut row: Row) -> Result<Row, Refusal> {
    let hmac = match row.get("hmac") {
        Some(Attribute::Text(text)) => text.to_ascii_lowercase(),
        Some(Attribute::Bytes(bytes)) => {
            std::str::from_utf8(bytes).map_err(|_| Refusal::Malformed)?.to_ascii_lowercase()
        }
        _ => return Err(Refusal::Malformed),
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

/// Whether a row has no seal but attributes that only sealed rows have. No other client writes
/// these: somebody removed the seal, and may have changed the rest.
#[must_use]
pub fn is_stripped(row: &Row) -> bool {
    !row.contains_key("seal") && SEALED_ONLY.iter().any(|&name| row.contains_key(name))
}

/// The data key of a row as KMS wrapped it, raw as in Haskell's rows or base64 as in all others.
///
/// # Errors
/// [`Refusal::Malformed`] where there is none.
pub fn wrapped_key(row: &Row) -> Result<Vec<u8>, Refusal> {
    match row.get("key") {
        Some(Attribute::Bytes(bytes)) => Ok(bytes.clone()),
        Some(Attribute::Text(text)) => decode(text),
        _ => Err(Refusal::Malformed),
    }
}

/// The parts of a row that opening needs, with their form checked and nothing yet believed.
#[derive(Debug)]
pub struct Envelope<'row> {
    row: &'row Row,
    wrapped_key: Vec<u8>,
    contents: Vec<u8>,
    hmac: &'row [u8],
    digest: Digest,
    /// None for a sealed row: there is one way to read it.
    form: Option<Form>,
}

impl<'row> Envelope<'row> {
    /// Reads a row's form. `contents` as B is Haskell's `credentials`, as S everybody else's.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] where an attribute is missing or cannot be what it should be;
    /// [`Refusal::UnsupportedDigest`].
    pub fn parse(row: &'row Row) -> Result<Self, Refusal> {
        let required = |name: &str| row.get(name).ok_or(Refusal::Malformed);
        let (contents, raw) = match required("contents")? {
            Attribute::Bytes(bytes) => (bytes.clone(), true),
            Attribute::Text(text) => (decode(text)?, false),
            _ => return Err(Refusal::Malformed),
        };
        if required("key")?.bytes().is_some() != raw {
            return Err(Refusal::Malformed);
        }
        let wrapped_key = wrapped_key(row)?;
        let hmac = match required("hmac")? {
            Attribute::Text(text) => text.as_bytes(),
            Attribute::Bytes(bytes) => bytes,
            _ => return Err(Refusal::Malformed),
        };
        let form = if row.contains_key("seal") { None } else { Some(Form::of(row, raw)?) };
        Ok(Self { row, wrapped_key, contents, hmac, digest: digest_of(row)?, form })
    }

    /// The data key as KMS wrapped it.
    #[must_use]
    pub fn wrapped_key(&self) -> &[u8] {
        &self.wrapped_key
    }

    /// Whether the row carries a seal. Says nothing of whether the seal holds.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.form.is_none()
    }

    /// Verifies the whole row in constant time, then decrypts.
    ///
    /// A legacy row that credstash and rucredstash may have written, and that is text for both, is
    /// read as credstash's: nothing is written that could not be taken back.
    ///
    /// # Errors
    /// [`Refusal::Integrity`] where the seal or the MAC is not the one that `key` gives, or where
    /// `contents` was changed between S and B; [`Refusal::Ambiguous`] where credstash's reading is
    /// not text, and rucredstash's is so short that it may be text by chance.
    pub fn open(self, key: &DataKey) -> Result<Opened, Refusal> {
        let Some(form) = self.form else {
            let mut contents = self.verified(key)?;
            reading::crypt(key, &mut contents);
            return Ok(Opened { secret: Secret::new(contents), dialect: None });
        };
        let (dialect, secret) = match reading::read(key, self.verified(key)?, form)? {
            Reading::One(dialect, secret) => (dialect, secret),
            Reading::Same(secret) => (Dialect::Credstash, secret),
            Reading::Either { credstash, .. } if credstash.is_text() => {
                (Dialect::Credstash, credstash)
            }
            Reading::Either { .. } => return Err(Refusal::Ambiguous),
        };
        Ok(Opened { secret, dialect: Some(dialect) })
    }

    /// Verifies the MAC of a legacy row in constant time, then says what it needs for a seal.
    /// Nothing is guessed: `dialect` is what its owner says it is. It decides where two readings
    /// are possible, and never against the row.
    ///
    /// # Errors
    /// [`Refusal::Integrity`] where the MAC is not the one that `key` gives, or where `contents` was
    /// changed between S and B.
    pub fn examine(self, key: &DataKey, dialect: Option<Dialect>) -> Result<Examined, Refusal> {
        use Dialect::{Credstash, RucredstashLe32};
        let Some(form) = self.form else { return Ok(Examined::Contradicted) };
        let is_kept = self.digest.is_kept();
        let reading = reading::read(key, self.verified(key)?, form)?;
        let hinted = matches!(reading, Reading::Either { .. });
        let (whose, secret) = match (reading, dialect) {
            (Reading::One(whose, secret), None) => (whose, secret),
            (Reading::One(whose, secret), Some(dialect)) if whose == dialect => (whose, secret),
            (Reading::Same(secret), None | Some(Credstash | RucredstashLe32)) => {
                (Credstash, secret)
            }
            (Reading::Either { .. }, None) => return Ok(Examined::Ambiguous),
            (Reading::Either { credstash, .. }, Some(Credstash)) => (Credstash, credstash),
            (Reading::Either { rucredstash, .. }, Some(RucredstashLe32)) => {
                (RucredstashLe32, rucredstash)
            }
            _ => return Ok(Examined::Contradicted),
        };
        // What the hint alone decided gets a data key of its own, too, so that the row as it was is
        // kept: the hint may be wrong.
        let as_it_is = whose == Credstash && is_kept && !hinted;
        Ok(if as_it_is { Examined::AsItIs(secret) } else { Examined::Anew(secret) })
    }

    /// The ciphertext, once its MAC and the seal, if there is one, have been verified.
    fn verified(self, key: &DataKey) -> Result<Vec<u8>, Refusal> {
        let expected = hex::encode(self.digest.mac(key, &self.contents)?);
        // Compared as text, so a MAC that is longer or shorter is refused. Coffer writes lower
        // case; upper case is accepted from other clients only.
        let mut genuine = if self.is_sealed() {
            expected.as_bytes().ct_eq(self.hmac)
        } else {
            expected.as_bytes().ct_eq(&self.hmac.to_ascii_lowercase())
        };
        if self.is_sealed() {
            let seal = seal_of(key, self.row).map_err(|_| Refusal::Integrity)?;
            let expected = BASE64_STANDARD.encode(seal);
            let stored = self.row.get("seal").and_then(Attribute::text).unwrap_or_default();
            genuine &= expected.as_bytes().ct_eq(stored.as_bytes());
        }
        if bool::from(genuine) { Ok(self.contents) } else { Err(Refusal::Integrity) }
    }
}

/// HMAC-SHA256 over [`canonical`] under the sealing key.
fn seal_of(key: &DataKey, row: &Row) -> Result<[u8; 32], Refusal> {
    let covered = row.iter().filter(|(name, _)| !UNSEALED.contains(&name.as_str()));
    let message = canonical(covered).ok_or(Refusal::Malformed)?;
    let mut extract = HkdfExtract::<Sha256>::new(None);
    extract.input_ikm(key.encryption());
    extract.input_ikm(key.authentication());
    let mut sealing_key = zeroize::Zeroizing::new([0; 32]);
    let (_, hkdf) = extract.finalize();
    hkdf.expand(SEAL_INFO, sealing_key.as_mut()).map_err(|_| Refusal::Malformed)?;
    let hmac = <Hmac<Sha256> as KeyInit>::new_from_slice(sealing_key.as_ref())
        .map_err(|_| Refusal::Malformed)?;
    Ok(hmac.chain_update(message).finalize().into_bytes().into())
}

/// The digest of a row's MAC. A row without one has credstash's default.
fn digest_of(row: &Row) -> Result<Digest, Refusal> {
    match row.get("digest") {
        None => Ok(Digest::Sha256),
        Some(Attribute::Text(name)) => Digest::named(name).ok_or(Refusal::UnsupportedDigest),
        Some(_) => Err(Refusal::Malformed),
    }
}

/// Decodes base64. ASCII white space is skipped, as Python's decoder does: Ruby's encoder breaks
/// lines after 60 characters, MIME's after 76.
fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    let is_space = |byte: u8| byte.is_ascii_whitespace() || byte == b'\x0b';
    let decoded = if text.bytes().any(is_space) {
        let dense: Vec<u8> = text.bytes().filter(|&byte| !is_space(byte)).collect();
        BASE64_STANDARD.decode(dense)
    } else {
        BASE64_STANDARD.decode(text)
    };
    decoded.map_err(|_| Refusal::Malformed)
}
