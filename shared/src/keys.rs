//! Data keys from KMS: made and wrapped for a put, unwrapped for a get.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_kms::Client;
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::primitives::Blob;
use lru::LruCache;
use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::error::Error;
use crate::failure::Failure;
use crate::secret::DataKey;

/// The KMS key of the stack.
#[derive(Debug)]
pub struct Keys {
    client: Client,
    key_id: String,
    cache: Cache,
}

/// What KMS makes of a wrapped key.
#[derive(Debug)]
pub enum Unwrapped {
    /// The data key.
    Key(Arc<DataKey>),
    /// KMS refuses the pair of wrapped key and context: one of the two is not what it was.
    Refused,
    /// The wrapped key is another KMS key's, or no 64-byte data key at all.
    Foreign,
}

impl Keys {
    /// `key_id` is the ARN of the stack's key; unwrapped keys are kept for `cache`, zero for not
    /// at all.
    #[must_use]
    pub fn new(client: Client, key_id: String, cache: Duration) -> Self {
        Self { client, key_id, cache: Cache::new(cache) }
    }

    /// Makes a data key and wraps it under the context. Never cached: the counter block is fixed,
    /// so one data key seals one value.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or [`Error::Invalid`] where KMS refuses the context.
    pub async fn generate(&self, context: &Context) -> Result<(DataKey, Vec<u8>), Error> {
        let request = self.client.generate_data_key().key_id(&self.key_id).number_of_bytes(64);
        let answer = request
            .set_encryption_context(pairs(context))
            .send()
            .await
            .map_err(|error| Failure::of("kms:GenerateDataKey", &self.key_id, &error))
            .map_err(|failure| match failure.code() {
                "ValidationException" if !context.is_empty() => Error::invalid(
                    "KMS does not take this `context`. Use fewer, shorter, plain keys and values.",
                ),
                _ => failure.into(),
            })?;
        let key = answer.plaintext.map(Blob::into_inner).and_then(DataKey::new);
        key.zip(answer.ciphertext_blob.map(Blob::into_inner)).ok_or_else(|| Error::Unavailable {
            message: "KMS answered without a data key. Try again.".into(),
            source: "kms:GenerateDataKey answered without a 64-byte key".into(),
        })
    }

    /// Unwraps a data key under the context that the caller gives.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn unwrap(&self, wrapped: &[u8], context: &Context) -> Result<Unwrapped, Error> {
        let id = Cache::id(wrapped, context);
        if let Some(key) = self.cache.get(&id) {
            return Ok(Unwrapped::Key(key));
        }
        let request = self.client.decrypt().key_id(&self.key_id);
        let answer = request
            .ciphertext_blob(Blob::new(wrapped))
            .set_encryption_context(pairs(context))
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                return match error.as_service_error() {
                    Some(DecryptError::InvalidCiphertextException(_)) => Ok(Unwrapped::Refused),
                    Some(DecryptError::IncorrectKeyException(_)) => Ok(Unwrapped::Foreign),
                    _ => {
                        let failure = Failure::of("kms:Decrypt", &self.key_id, &error);
                        // KMS validates the blob's length before it looks at it.
                        match failure.code() {
                            "ValidationException" => Ok(Unwrapped::Refused),
                            _ => Err(failure.into()),
                        }
                    }
                };
            }
        };
        let Some(key) = answer.plaintext.map(Blob::into_inner).and_then(DataKey::new) else {
            return Ok(Unwrapped::Foreign);
        };
        let key = Arc::new(key);
        self.cache.keep(id, &key);
        Ok(Unwrapped::Key(key))
    }
}

fn pairs(context: &Context) -> Option<std::collections::HashMap<String, String>> {
    (!context.is_empty()).then(|| context.pairs().clone().into_iter().collect())
}

/// Unwrapped data keys by wrapped key and context, so that a hit answers no one whom KMS would
/// have refused when the key was kept. A key that is dropped is wiped. Keys past their time go at
/// the next call: a frozen Lambda function runs no timers.
#[derive(Debug)]
struct Cache {
    keep: Duration,
    keys: Mutex<LruCache<Id, Kept>>,
}

type Id = [u8; 32];
type Kept = (Instant, Arc<DataKey>);

impl Cache {
    const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

    fn new(keep: Duration) -> Self {
        Self { keep, keys: Mutex::new(LruCache::new(Self::CAPACITY)) }
    }

    /// SHA-256 over wrapped key and context, each part with its length.
    fn id(wrapped: &[u8], context: &Context) -> Id {
        let mut hash = Sha256::new();
        let pairs = context.pairs().iter().flat_map(|(key, value)| [key, value]);
        for part in [wrapped].into_iter().chain(pairs.map(String::as_bytes)) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn get(&self, id: &Id) -> Option<Arc<DataKey>> {
        if self.keep.is_zero() {
            return None;
        }
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let old: Vec<_> = keys
            .iter()
            .filter(|(_, (since, _))| since.elapsed() >= self.keep)
            .map(|(id, _)| *id)
            .collect();
        for id in &old {
            keys.pop(id);
        }
        keys.get(id).map(|(_, key)| Arc::clone(key))
    }

    fn keep(&self, id: Id, key: &Arc<DataKey>) {
        if !self.keep.is_zero() {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.put(id, (Instant::now(), Arc::clone(key)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn context(pairs: &[(&str, &str)]) -> Context {
        let pairs = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
        Context::new(pairs.collect::<BTreeMap<_, _>>()).unwrap()
    }

    fn key() -> Arc<DataKey> {
        Arc::new(DataKey::new(vec![1; 64]).unwrap())
    }

    #[test]
    fn a_kept_key_answers_its_own_context_only() {
        let cache = Cache::new(Duration::from_mins(1));
        cache.keep(Cache::id(b"wrapped", &context(&[("a", "bc")])), &key());
        assert!(cache.get(&Cache::id(b"wrapped", &context(&[("a", "bc")]))).is_some());
        assert!(cache.get(&Cache::id(b"wrapped", &context(&[("ab", "c")]))).is_none());
        assert!(cache.get(&Cache::id(b"wrapped", &context(&[]))).is_none());
        assert!(cache.get(&Cache::id(b"other", &context(&[("a", "bc")]))).is_none());
    }

    #[test]
    fn nothing_is_kept_when_off_and_nothing_longer_than_told() {
        for keep in [Duration::ZERO, Duration::from_nanos(1)] {
            let cache = Cache::new(keep);
            let key = key();
            cache.keep([0; 32], &key);
            assert!(cache.get(&[0; 32]).is_none());
            assert_eq!(Arc::strong_count(&key), 1, "dropped, so wiped");
        }
    }
}
