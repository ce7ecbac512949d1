//! One hash of several parts.

use sha2::{Digest, Sha256};

/// SHA-256 (FIPS 180-4) over parts, each behind its length in eight bytes, big-endian, so that no
/// two lists of parts are the same bytes.
#[must_use]
pub fn of_parts<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_divided_otherwise_hashes_otherwise() {
        let whole = Sha256::digest(b"\0\0\0\0\0\0\0\x02ab\0\0\0\0\0\0\0\x01c");
        assert_eq!(of_parts(["ab", "c"]), <[u8; 32]>::from(whole));
        assert_ne!(of_parts(["ab", "c"]), of_parts(["a", "bc"]));
        assert_ne!(of_parts(["abc"]), of_parts(["abc", ""]));
    }
}
