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

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};
use base64::prelude::{BASE64_STANDARD, Engine};
use hkdf::HkdfExtract;
use hmac::{EagerHash, Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use crate::row::{Attribute, Row, canonical};
use crate::secret::{DataKey, Secret};

/// The only digest that is written, under the name that credstash gives it.
const WRITTEN_DIGEST: &str = "SHA256";
/// What the sealing key is for (RFC 5869's `info`).
const SEAL_INFO: &[u8] = b"coffer/seal/v1";
/// What the seal leaves out.
const UNSEALED: [&str; 3] = ["key", "hmac", "seal"];

/// credstash's first counter block: `Counter.new(128)` begins at 1.
const ONE: [u8; 16] = 1_u128.to_be_bytes();
/// The first counter block of Haskell's `credentials`.
const ZERO: [u8; 16] = [0; 16];

/// Why a row was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The row lacks an attribute, or one is of a type or form that no dialect has.
    #[error("the row is no secret")]
    Malformed,
    /// A check failed. Which one is not said.
    #[error("the row failed its integrity check")]
    Integrity,
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
    /// Its ciphertext and MAC are as Coffer writes them: only the seal lacks. Whether the
    /// plaintext is text.
    AsItIs(bool),
    /// Another counter, or a digest that is no longer written: the plaintext, to be sealed under a
    /// data key of its own. Under the old one, another counter would be a two-time pad.
    Anew(Secret),
    /// credstash's or rucredstash's, and nothing in it says which.
    Ambiguous,
}

/// What came out of a row.
#[derive(Debug)]
pub struct Opened {
    /// The plaintext.
    pub secret: Secret,
    /// Who wrote the row, if it carried no seal.
    pub dialect: Option<Dialect>,
}

/// Seals `secret` under `key`: adds `contents`, `digest`, `hmac`, `seal` and, for a plaintext that
/// is not UTF-8, `binary` to the describing attributes in `row`. Only `key` is left for the caller
/// to add. To seal the same secret as another version, start again from the describing attributes:
/// the same plaintext under the same key gives away nothing, another plaintext would.
///
/// # Errors
/// [`Refusal::Malformed`] where `row` has an attribute that no seal can cover.
pub fn seal(key: &DataKey, secret: &Secret, mut row: Row) -> Result<Row, Refusal> {
    let mut contents = secret.expose().to_vec();
    ctr_be(key, ONE, &mut contents);
    let hmac = mac::<Sha256>(key, &contents)?;
    let mut put = |name: &str, attribute| row.insert(name.to_owned(), attribute);
    if !secret.is_text() {
        put("binary", Attribute::Flag(true));
    }
    put("contents", Attribute::Text(BASE64_STANDARD.encode(&contents)));
    put("digest", Attribute::Text(WRITTEN_DIGEST.to_owned()));
    put("hmac", Attribute::Text(hex::encode(hmac)));
    seal_over(key, row)
}

/// Adds the seal to a row that has everything else: a legacy row that [`Envelope::examine`] found
/// to be good as it is. `hmac` becomes text, which every client reads; credstash on Python 3 wrote
/// bytes, which nodecredstash and gcredstash do not.
///
/// # Errors
/// [`Refusal::Malformed`] where `row` has an attribute that no seal can cover.
pub fn seal_over(key: &DataKey, mut row: Row) -> Result<Row, Refusal> {
    if let Some(bytes) = row.get("hmac").and_then(Attribute::bytes) {
        let text = String::from_utf8(bytes.to_vec()).map_err(|_| Refusal::Malformed)?;
        row.insert("hmac".to_owned(), Attribute::Text(text));
    }
    let seal = seal_of(key, &row)?;
    row.insert("seal".to_owned(), Attribute::Text(BASE64_STANDARD.encode(seal)));
    Ok(row)
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
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Sealed,
    Base64,
    Raw,
}

impl<'row> Envelope<'row> {
    /// Reads a row's form. `contents` as B is Haskell's `credentials`, as S everybody else's.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] where an attribute is missing or cannot be what it should be.
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
        let digest = match row.get("digest") {
            None => Digest::Sha256,
            Some(attribute) => {
                attribute.text().and_then(Digest::named).ok_or(Refusal::Malformed)?
            }
        };
        let form = match (row.contains_key("seal"), raw) {
            (true, _) => Form::Sealed,
            (false, false) => Form::Base64,
            (false, true) => Form::Raw,
        };
        Ok(Self { row, wrapped_key, contents, hmac, digest, form })
    }

    /// The data key as KMS wrapped it.
    #[must_use]
    pub fn wrapped_key(&self) -> &[u8] {
        &self.wrapped_key
    }

    /// Whether the row carries a seal. Says nothing of whether the seal holds.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        matches!(self.form, Form::Sealed)
    }

    /// Verifies the whole row in constant time, then decrypts.
    ///
    /// # Errors
    /// [`Refusal::Integrity`] where the seal or the MAC is not the one that `key` gives.
    pub fn open(self, key: &DataKey) -> Result<Opened, Refusal> {
        let expected = hex::encode(self.digest.mac(key, &self.contents)?);
        // Compared as the text that is stored: other spellings of the same MAC, and every MAC
        // that is longer or shorter, are refused.
        let mut genuine = expected.as_bytes().ct_eq(self.hmac);
        if self.is_sealed() {
            let seal = seal_of(key, self.row).map_err(|_| Refusal::Integrity)?;
            let expected = BASE64_STANDARD.encode(seal);
            let stored = self.row.get("seal").and_then(Attribute::text).unwrap_or_default();
            genuine &= expected.as_bytes().ct_eq(stored.as_bytes());
        }
        if !bool::from(genuine) {
            return Err(Refusal::Integrity);
        }
        Ok(self.decrypt(key))
    }

    /// Verifies the MAC of a legacy row in constant time, then tells what it is, without a guess:
    /// `dialect` is what its owner says it is, where both would be possible.
    ///
    /// credstash and rucredstash agree on 16 bytes. Beyond them, rucredstash's rows have `hmac` as
    /// bytes, never the digest `SHA`, and a plaintext that is text. So a row whose one reading is
    /// text is that dialect's, if its form allows it; where both are text it may be either's.
    ///
    /// # Errors
    /// [`Refusal::Integrity`] where the MAC is not the one that `key` gives.
    pub fn examine(self, key: &DataKey, dialect: Option<Dialect>) -> Result<Examined, Refusal> {
        let (digest, form) = (self.digest, self.form);
        let bytes = self.row.get("hmac").and_then(Attribute::bytes).is_some();
        let name = self.row.get("digest").and_then(Attribute::text);
        let allows_rucredstash = bytes && name != Some("SHA");
        let contents = self.verified(key)?;
        let (secret, as_it_is) = match form {
            Form::Sealed => return Ok(Examined::Ambiguous),
            Form::Raw => (decrypted(contents, |bytes| ctr_be(key, ZERO, bytes)), false),
            Form::Base64 => {
                let little = decrypted(contents.clone(), |bytes| ctr_le32(key, bytes));
                let big = decrypted(contents, |bytes| ctr_be(key, ONE, bytes));
                let same = big.len() <= 16;
                let little_wins = match (big.is_text(), little.is_text(), dialect) {
                    _ if same => false,
                    // Not rucredstash's, or its owner says so.
                    (_, false, _) | (_, _, Some(Dialect::Credstash)) => false,
                    (true, true, _) if !allows_rucredstash => false,
                    (_, true, Some(Dialect::RucredstashLe32)) | (false, true, None)
                        if allows_rucredstash =>
                    {
                        true
                    }
                    _ => return Ok(Examined::Ambiguous),
                };
                if little_wins { (little, false) } else { (big, digest.is_written_still()) }
            }
        };
        Ok(if as_it_is { Examined::AsItIs(secret.is_text()) } else { Examined::Anew(secret) })
    }

    /// The ciphertext, once its MAC has been verified.
    fn verified(self, key: &DataKey) -> Result<Vec<u8>, Refusal> {
        let expected = hex::encode(self.digest.mac(key, &self.contents)?);
        let genuine = expected.as_bytes().ct_eq(self.hmac);
        if bool::from(genuine) { Ok(self.contents) } else { Err(Refusal::Integrity) }
    }

    fn decrypt(self, key: &DataKey) -> Opened {
        let mut contents = self.contents;
        let dialect = match self.form {
            Form::Sealed => {
                ctr_be(key, ONE, &mut contents);
                None
            }
            Form::Raw => {
                ctr_be(key, ZERO, &mut contents);
                Some(Dialect::CredentialsHaskell)
            }
            Form::Base64 => return open_base64(key, contents),
        };
        Opened { secret: Secret::new(contents), dialect }
    }
}

/// Decrypts a row that credstash or rucredstash wrote; nothing in it says which. They agree on the
/// first 16 bytes. The big-endian reading is believed unless it is not text and the other one is:
/// a value that is meant to be binary and happens to be text the other way round is next to
/// impossible beyond a few blocks, and credstash itself only stores text.
fn open_base64(key: &DataKey, contents: Vec<u8>) -> Opened {
    let little = contents.clone();
    let big = decrypted(contents, |bytes| ctr_be(key, ONE, bytes));
    if !big.is_text() {
        let little = decrypted(little, |bytes| ctr_le32(key, bytes));
        if little.is_text() {
            return Opened { secret: little, dialect: Some(Dialect::RucredstashLe32) };
        }
    }
    Opened { secret: big, dialect: Some(Dialect::Credstash) }
}

/// AES-256-CTR with a 128-bit big-endian counter (NIST SP 800-38A, 6.5), in place.
fn ctr_be(key: &DataKey, first_block: [u8; 16], bytes: &mut [u8]) {
    ctr::Ctr128BE::<Aes256>::new(key.encryption().into(), (&first_block).into())
        .apply_keystream(bytes);
}

/// AES-256-CTR as rucredstash has it since 0.9.1: a 32-bit little-endian counter in front of a
/// block that ends in 1, in place.
fn ctr_le32(key: &DataKey, bytes: &mut [u8]) {
    ctr::Ctr32LE::<Aes256>::new(key.encryption().into(), (&ONE).into()).apply_keystream(bytes);
}

fn decrypted(mut contents: Vec<u8>, with: impl FnOnce(&mut [u8])) -> Secret {
    with(&mut contents);
    Secret::new(contents)
}

/// HMAC (RFC 2104) of the ciphertext under bytes 32..64 of the data key.
fn mac<D: EagerHash>(key: &DataKey, contents: &[u8]) -> Result<Vec<u8>, Refusal>
where
    Hmac<D>: Mac + KeyInit,
{
    // HMAC takes keys of any length, so this never fails; if it did, nothing would verify.
    let hmac = <Hmac<D> as KeyInit>::new_from_slice(key.authentication())
        .map_err(|_| Refusal::Integrity)?;
    Ok(hmac.chain_update(contents).finalize().into_bytes().to_vec())
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

fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    BASE64_STANDARD.decode(text).map_err(|_| Refusal::Malformed)
}

/// The digests that rows name. MD5 and SHA-1 are read, never written: as the hash inside an HMAC
/// neither is broken, and refusing them would lock people out of what they stored.
#[derive(Clone, Copy, Debug)]
enum Digest {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Digest {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "MD5" => Self::Md5,
            "SHA" | "SHA1" => Self::Sha1,
            "SHA224" => Self::Sha224,
            "SHA256" => Self::Sha256,
            "SHA384" => Self::Sha384,
            "SHA512" => Self::Sha512,
            _ => return None,
        })
    }

    /// Whether a row with this digest may stay as it is. HMAC-SHA-2 of any length is good.
    fn is_written_still(self) -> bool {
        match self {
            Self::Md5 | Self::Sha1 => false,
            Self::Sha224 | Self::Sha256 | Self::Sha384 | Self::Sha512 => true,
        }
    }

    fn mac(self, key: &DataKey, contents: &[u8]) -> Result<Vec<u8>, Refusal> {
        match self {
            Self::Md5 => mac::<Md5>(key, contents),
            Self::Sha1 => mac::<Sha1>(key, contents),
            Self::Sha224 => mac::<Sha224>(key, contents),
            Self::Sha256 => mac::<Sha256>(key, contents),
            Self::Sha384 => mac::<Sha384>(key, contents),
            Self::Sha512 => mac::<Sha512>(key, contents),
        }
    }
}
