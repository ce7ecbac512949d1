//! Data keys from KMS: made and wrapped for a put, unwrapped for a get, and wrapped anew.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_kms::Client;
use aws_sdk_kms::config::Builder;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;
use lru::LruCache;

use crate::aws_error::AwsError;
use crate::context::Context;
use crate::digest;
use crate::error::Error;
use crate::rate_limit::RateLimit;
use crate::secret::DataKey;

/// The KMS key of the stack, and those it had before.
#[derive(Debug)]
pub struct Keys {
    client: Client,
    /// The stack's key, then the retired ones.
    key_ids: Vec<String>,
    cache: Cache,
    pace: RateLimit,
    /// Which key wrapped what was wrapped anew last: most likely the next one, too.
    wrapped_by: AtomicUsize,
}

/// How IAM knows `ReEncrypt`: by what it asks of either key.
const REENCRYPT: &str = "kms:ReEncryptFrom or kms:ReEncryptTo (kms:ReEncrypt)";

/// What a data key becomes that is wrapped anew.
#[derive(Debug, PartialEq, Eq)]
pub enum Rewrapped {
    /// The same data key, as the stack's key wraps it now.
    Anew(Vec<u8>),
    /// Nothing: it is wrapped by the stack's key and the newest of its key material.
    Current,
    /// KMS refuses the pair of wrapped key and context: one of the two is not what it was.
    Refused,
    /// The wrapped key is neither the stack's key's nor that of a retired one that can be used.
    Foreign,
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
    /// No key unwrapped it, and one that might have cannot be used.
    Unusable(Error),
}

/// Why KMS does not take a wrapped key.
enum NotTaken {
    Refused,
    Foreign,
}

impl NotTaken {
    fn of(failure: AwsError) -> Result<Self, AwsError> {
        match failure.code() {
            // The blob's length is validated before anybody looks at it.
            "InvalidCiphertextException" | "ValidationException" => Ok(Self::Refused),
            "IncorrectKeyException" => Ok(Self::Foreign),
            _ => Err(failure),
        }
    }
}

impl Keys {
    /// `key_id` is the ARN of the stack's key, `retired` those of keys that it had before: these
    /// unwrap what they wrapped and wrap nothing any more. Unwrapped keys are kept for `cache`,
    /// zero for not at all.
    #[must_use]
    pub fn new(client: Client, key_id: String, retired: Vec<String>, cache: Duration) -> Self {
        // Where there are retired keys, most are still wrapped by them.
        let wrapped_by = AtomicUsize::new(usize::from(!retired.is_empty()));
        let key_ids = [key_id].into_iter().chain(retired).collect();
        Self { client, key_ids, cache: Cache::new(cache), pace: RateLimit::default(), wrapped_by }
    }

    /// How fast calls to KMS may follow each other.
    #[must_use]
    pub fn pace(&self) -> &RateLimit {
        &self.pace
    }

    fn key_id(&self) -> &str {
        self.key_ids.first().map_or("", String::as_str)
    }

    /// Makes a data key and wraps it under the context. Never cached: the counter block is fixed,
    /// so one data key seals one value.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or [`Error::Invalid`] where KMS refuses the context.
    pub async fn generate(&self, context: &Context) -> Result<(DataKey, Vec<u8>), Error> {
        let answer = self
            .paced(|config| {
                let request = self.client.generate_data_key().key_id(self.key_id());
                let request = request.number_of_bytes(64).set_encryption_context(pairs(context));
                request.customize().config_override(config).send()
            })
            .await
            .map_err(|error| AwsError::of("kms:GenerateDataKey", self.key_id(), &error))
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

    /// Unwraps a data key under the context that the caller gives: with the stack's key, or with
    /// a retired one that wrapped it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn unwrap(&self, wrapped: &[u8], context: &Context) -> Result<Unwrapped, Error> {
        let id = Cache::id(wrapped, context);
        if let Some(key) = self.cache.get(&id) {
            return Ok(Unwrapped::Key(key));
        }
        let mut disabled = None;
        for key_id in &self.key_ids {
            match self.unwrap_with(key_id, wrapped, context).await {
                Ok(Unwrapped::Foreign) => {}
                Ok(unwrapped) => {
                    if let Unwrapped::Key(key) = &unwrapped {
                        self.cache.keep(id, key);
                    }
                    return Ok(unwrapped);
                }
                // Perhaps another one wrapped it; without the stack's own nothing goes on.
                Err(failure) if failure.is_of_key() && key_id != self.key_id() => {
                    disabled = Some(failure);
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(disabled.map_or(Unwrapped::Foreign, |failure| Unwrapped::Unusable(failure.into())))
    }

    async fn unwrap_with(
        &self,
        key_id: &str,
        wrapped: &[u8],
        context: &Context,
    ) -> Result<Unwrapped, AwsError> {
        let answer = self
            .paced(|config| {
                let request = self.client.decrypt().key_id(key_id);
                let request = request.ciphertext_blob(Blob::new(wrapped));
                let request = request.set_encryption_context(pairs(context));
                request.customize().config_override(config).send()
            })
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                return match NotTaken::of(AwsError::of("kms:Decrypt", key_id, &error))? {
                    NotTaken::Refused => Ok(Unwrapped::Refused),
                    NotTaken::Foreign => Ok(Unwrapped::Foreign),
                };
            }
        };
        let key = answer.plaintext.map(Blob::into_inner).and_then(DataKey::new);
        Ok(key.map_or(Unwrapped::Foreign, |key| Unwrapped::Key(Arc::new(key))))
    }

    /// Has KMS wrap a data key anew, under the stack's key and the same context, without ever
    /// seeing it. One call, and one more for each key that was tried in vain.
    ///
    /// Source: AWS KMS, `ReEncrypt`, whose answer names the key material on both sides.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn rewrap(&self, wrapped: &[u8], context: &Context) -> Result<Rewrapped, Error> {
        let first = self.wrapped_by.load(Ordering::Relaxed);
        let others = (0..self.key_ids.len()).filter(|index| *index != first);
        for index in [first].into_iter().chain(others) {
            let Some(key_id) = self.key_ids.get(index) else { continue };
            match self.rewrap_from(key_id, wrapped, context).await? {
                Rewrapped::Foreign => {}
                rewrapped => {
                    self.wrapped_by.store(index, Ordering::Relaxed);
                    return Ok(rewrapped);
                }
            }
        }
        Ok(Rewrapped::Foreign)
    }

    async fn rewrap_from(
        &self,
        key_id: &str,
        wrapped: &[u8],
        context: &Context,
    ) -> Result<Rewrapped, Error> {
        let answer = self
            .paced(|config| {
                let request = self.client.re_encrypt().ciphertext_blob(Blob::new(wrapped));
                let request = request.source_key_id(key_id).destination_key_id(self.key_id());
                let request = request.set_source_encryption_context(pairs(context));
                let request = request.set_destination_encryption_context(pairs(context));
                request.customize().config_override(config).send()
            })
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                return match NotTaken::of(AwsError::of(REENCRYPT, key_id, &error)) {
                    Ok(NotTaken::Refused) => Ok(Rewrapped::Refused),
                    Ok(NotTaken::Foreign) => Ok(Rewrapped::Foreign),
                    // What a retired key wraps that cannot be used stays as it is.
                    Err(failure) if failure.is_of_key() && key_id != self.key_id() => {
                        Ok(Rewrapped::Foreign)
                    }
                    Err(failure) => Err(failure.into()),
                };
            }
        };
        // A key without material that can be told apart has but one.
        let same_key = answer.source_key_id == answer.key_id;
        if same_key && answer.source_key_material_id == answer.destination_key_material_id {
            return Ok(Rewrapped::Current);
        }
        let anew = answer.ciphertext_blob.map(Blob::into_inner).map(Rewrapped::Anew);
        anew.ok_or_else(|| Error::Unavailable {
            message: "KMS answered without a wrapped key. Try again.".into(),
            source: "kms:ReEncrypt answered without a ciphertext".into(),
        })
    }

    /// Makes a call at its turn. Where there is a pace, the client's own retries are off, so that
    /// each try has a turn of its own.
    async fn paced<T, E, F>(&self, call: impl Fn(Builder) -> F) -> Result<T, SdkError<E>>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata,
        SdkError<E>: RequestId,
    {
        if !self.pace.is_limited() {
            return call(Builder::new()).await;
        }
        loop {
            let turn = self.pace.turn().await;
            let once = Builder::new().retry_config(RetryConfig::disabled());
            match call(once).await {
                Err(error) if AwsError::of("", "", &error).is_passing() => {
                    if !self.pace.throttled(turn) {
                        return Err(error);
                    }
                }
                answer => {
                    self.pace.answered();
                    return answer;
                }
            }
        }
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
        let pairs = context.pairs().iter().flat_map(|(key, value)| [key, value]);
        digest::of_parts([wrapped].into_iter().chain(pairs.map(String::as_bytes)))
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
