//! The HMAC (RFC 2104) of a ciphertext, with every digest that a row can name.

use hmac::{EagerHash, Hmac, KeyInit, Mac};
use md5::Md5;
use ripemd::Ripemd160;
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};
use whirlpool::Whirlpool;

use super::OpenError;
use crate::secret::DataKey;

/// The digests that rows can name. MD5, SHA-1, RIPEMD-160 and Whirlpool are read, but never
/// written. As the hash inside an HMAC none of them is broken, and refusing them would lock users
/// out of their own secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Digest {
    Md5,
    Ripemd160,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Whirlpool,
}

impl Digest {
    /// The length of the longest spelling that is read.
    const LONGEST: usize = 16;

    /// Returns the digest with this name. Case, hyphens and underscores are ignored: nodecredstash
    /// stores the spelling of its caller, such as `sha256`.
    pub(super) fn named(name: &str) -> Option<Self> {
        if name.len() > Self::LONGEST {
            return None;
        }
        let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_')).collect();
        Some(match plain.to_ascii_uppercase().as_str() {
            "MD5" => Self::Md5,
            "RIPEMD" | "RIPEMD160" => Self::Ripemd160,
            "SHA" | "SHA1" => Self::Sha1,
            "SHA224" => Self::Sha224,
            "SHA256" => Self::Sha256,
            "SHA384" => Self::Sha384,
            "SHA512" => Self::Sha512,
            "WHIRLPOOL" => Self::Whirlpool,
            _ => return None,
        })
    }

    /// Returns the name that credstash writes and reads.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Ripemd160 => "RIPEMD",
            Self::Sha1 => "SHA",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
            Self::Whirlpool => "WHIRLPOOL",
        }
    }

    /// Returns whether a row with this digest can keep its MAC when it is sealed. HMAC-SHA-2 of any
    /// length is secure; credstash no longer reads RIPEMD-160 and Whirlpool.
    pub(super) fn is_kept(self) -> bool {
        match self {
            Self::Md5 | Self::Ripemd160 | Self::Sha1 | Self::Whirlpool => false,
            Self::Sha224 | Self::Sha256 | Self::Sha384 | Self::Sha512 => true,
        }
    }

    /// Computes the MAC of `contents` under bytes 32..64 of the data key.
    pub(super) fn mac(self, key: &DataKey, contents: &[u8]) -> Result<Vec<u8>, OpenError> {
        match self {
            Self::Md5 => mac::<Md5>(key, contents),
            Self::Ripemd160 => mac::<Ripemd160>(key, contents),
            Self::Sha1 => mac::<Sha1>(key, contents),
            Self::Sha224 => mac::<Sha224>(key, contents),
            Self::Sha256 => mac::<Sha256>(key, contents),
            Self::Sha384 => mac::<Sha384>(key, contents),
            Self::Sha512 => mac::<Sha512>(key, contents),
            Self::Whirlpool => mac::<Whirlpool>(key, contents),
        }
    }
}

fn mac<D: EagerHash>(key: &DataKey, contents: &[u8]) -> Result<Vec<u8>, OpenError>
where
    Hmac<D>: Mac + KeyInit,
{
    // HMAC accepts keys of any length, so this never fails. If it did, nothing would verify.
    let hmac = <Hmac<D> as KeyInit>::new_from_slice(key.authentication())
        .map_err(|_| OpenError::Integrity)?;
    Ok(hmac.chain_update(contents).finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Digest; 8] = [
        Digest::Md5,
        Digest::Ripemd160,
        Digest::Sha1,
        Digest::Sha224,
        Digest::Sha256,
        Digest::Sha384,
        Digest::Sha512,
        Digest::Whirlpool,
    ];

    #[test]
    fn a_digest_is_recognized_in_every_spelling() {
        for digest in ALL {
            let name = digest.as_str();
            let hyphened = name.replace("SHA", "SHA-");
            for spelling in [name.to_owned(), name.to_lowercase(), hyphened] {
                if spelling != "SHA-" {
                    assert_eq!(Digest::named(&spelling), Some(digest), "{spelling}");
                }
            }
        }
        for (spelling, digest) in [
            ("sha-512", Digest::Sha512),
            ("Sha_256", Digest::Sha256),
            ("sha-1", Digest::Sha1),
            ("ripemd160", Digest::Ripemd160),
            ("RIPEMD-160", Digest::Ripemd160),
        ] {
            assert_eq!(Digest::named(spelling), Some(digest));
        }
        for unknown in ["", "BLAKE99", "SHA3-256", "SHA 256", "SHA512/256", "MD55"] {
            assert_eq!(Digest::named(unknown), None, "{unknown}");
        }
        assert_eq!(Digest::named(&format!("SHA256{}", "-".repeat(100))), None);
    }

    /// Expected values computed with OpenSSL 3: `openssl dgst -mac HMAC -macopt hexkey:2021..3f`.
    #[test]
    fn macs_with_removed_digests_match_openssl() {
        let key = DataKey::new((0..64).collect()).unwrap();
        for (digest, message, expected) in [
            (Digest::Ripemd160, "", "9f2a039ebb832afd4816102cb8480d582da81a81"),
            (Digest::Ripemd160, "abc", "ed2f800dd1a9b9040ba0c4823d3f9c61bdd2ffed"),
            (
                Digest::Whirlpool,
                "",
                "89f590f5dab3075880159b6c265b5c1f05d0ae4bfc62c3faae1f5701818a817c388b6922cdb466c33b766f3babf81f50c020f9e251e1215077a44cf4e9f1ae58",
            ),
            (
                Digest::Whirlpool,
                "abc",
                "d6bc65e1b4faa5071e6051d45f92b33d5c330ab898d4a0b1db43302b5df49c0d31c461ae8c2407bbdbf69120b0ea315107640df2d3a3e6fe47b63711a0f3eea2",
            ),
        ] {
            let mac = digest.mac(&key, message.as_bytes()).unwrap();
            assert_eq!(hex::encode(mac), expected, "{digest:?} {message:?}");
        }
    }
}
