//! A hash of several parts.

use sha2::{Digest, Sha256};

/// Returns SHA-256 (FIPS 180-4) over the parts, each after its length as 8 bytes, big-endian. So
/// two different lists of parts are never the same input.
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
    fn another_division_gives_another_hash() {
        let whole = Sha256::digest(b"\0\0\0\0\0\0\0\x02ab\0\0\0\0\0\0\0\x01c");
        assert_eq!(of_parts(["ab", "c"]), <[u8; 32]>::from(whole));
        assert_ne!(of_parts(["ab", "c"]), of_parts(["a", "bc"]));
        assert_ne!(of_parts(["abc"]), of_parts(["abc", ""]));
    }
}
