//! Data keys from KMS: generated for a put, unwrapped for a get, and re-encrypted for a rewrap.

mod cache;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::Builder;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;

use crate::aws_error::AwsError;
use crate::encryption_context::EncryptionContext;
use crate::error::Error;
use crate::rate_limit::RateLimit;
use crate::secret::DataKey;
use cache::Cache;

/// The KMS key of the stack, and its retired keys.
#[derive(Debug)]
pub struct Keys {
    client: Client,
    /// The stack's key, then the retired ones.
    key_ids: Vec<String>,
    cache: Cache,
    rate_limit: RateLimit,
    /// The index of the key that wrapped the last rewrapped data key. It most likely wrapped the next
    /// one.
    wrapped_by: AtomicUsize,
}

/// The IAM actions of `ReEncrypt`, one for each of the two keys.
const REENCRYPT: &str = "kms:ReEncryptFrom or kms:ReEncryptTo (kms:ReEncrypt)";

/// The result of a rewrap.
#[derive(Debug, PartialEq, Eq)]
pub enum Rewrapped {
    /// The same data key, wrapped by the stack's key.
    Changed(Vec<u8>),
    /// No change: it is wrapped by the stack's key and its newest key material.
    Current,
    /// KMS refuses the pair of wrapped key and context: one of the two was changed.
    Refused,
    /// Neither the stack's key nor a usable retired key wrapped it.
    Foreign,
}

/// The result of unwrapping a data key.
#[derive(Debug)]
pub enum Unwrapped {
    /// The data key.
    Key(Arc<DataKey>),
    /// KMS refuses the pair of wrapped key and context: one of the two was changed.
    Refused,
    /// Another KMS key wrapped it, or it is not a 64-byte data key.
    Foreign,
    /// No key unwrapped it, and a key that might have cannot be used.
    Unusable(Error),
}

/// Why KMS does not accept a wrapped key.
enum NotAccepted {
    Refused,
    Foreign,
}

impl NotAccepted {
    fn of(error: AwsError) -> Result<Self, AwsError> {
        match error.code() {
            // KMS validates the length of the blob first.
            "InvalidCiphertextException" | "ValidationException" => Ok(Self::Refused),
            "IncorrectKeyException" => Ok(Self::Foreign),
            _ => Err(error),
        }
    }
}

impl Keys {
    /// `key_id` is the ARN of the stack's key. `retired` are the ARNs of its former keys, which only
    /// unwrap. Unwrapped data keys are cached for `cache`; not at all if it is zero.
    #[must_use]
    pub fn new(client: Client, key_id: String, retired: Vec<String>, cache: Duration) -> Self {
        // If there are retired keys, most data keys are still wrapped by them.
        let wrapped_by = AtomicUsize::new(usize::from(!retired.is_empty()));
        let key_ids = [key_id].into_iter().chain(retired).collect();
        Self {
            client,
            key_ids,
            cache: Cache::new(cache),
            rate_limit: RateLimit::default(),
            wrapped_by,
        }
    }

    /// The rate limit of calls to KMS.
    #[must_use]
    pub fn rate_limit(&self) -> &RateLimit {
        &self.rate_limit
    }

    fn key_id(&self) -> &str {
        self.key_ids.first().map_or("", String::as_str)
    }

    /// Generates a data key and wraps it under the context. It is never cached: the counter block is
    /// fixed, so one data key seals one value.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or [`Error::Invalid`] if KMS refuses the context.
    pub async fn generate(&self, context: &EncryptionContext) -> Result<(DataKey, Vec<u8>), Error> {
        let output = self
            .rate_limited(|config| {
                let request = self.client.generate_data_key().key_id(self.key_id());
                let request = request.number_of_bytes(64).set_encryption_context(pairs(context));
                request.customize().config_override(config).send()
            })
            .await
            .map_err(|error| AwsError::of("kms:GenerateDataKey", self.key_id(), &error))
            .map_err(|error| match error.code() {
                "ValidationException" if !context.is_empty() => Error::invalid(
                    "KMS does not accept this `context`. Use fewer and shorter keys and values of plain \
                     text.",
                ),
                _ => error.into(),
            })?;
        let key = output.plaintext.map(Blob::into_inner).and_then(DataKey::new);
        key.zip(output.ciphertext_blob.map(Blob::into_inner)).ok_or_else(|| Error::Unavailable {
            message: "KMS returned no data key. Try again.".into(),
            source: "kms:GenerateDataKey returned no 64-byte key".into(),
        })
    }

    /// Unwraps a data key under the caller's context, with the stack's key or the retired key that
    /// wrapped it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn unwrap(
        &self,
        wrapped: &[u8],
        context: &EncryptionContext,
    ) -> Result<Unwrapped, Error> {
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
                        self.cache.insert(id, key);
                    }
                    return Ok(unwrapped);
                }
                // Another key may have wrapped it. The stack's own key must be usable.
                Err(error) if error.is_of_key() && key_id != self.key_id() => {
                    disabled = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(disabled.map_or(Unwrapped::Foreign, |error| Unwrapped::Unusable(error.into())))
    }

    async fn unwrap_with(
        &self,
        key_id: &str,
        wrapped: &[u8],
        context: &EncryptionContext,
    ) -> Result<Unwrapped, AwsError> {
        let output = self
            .rate_limited(|config| {
                let request = self.client.decrypt().key_id(key_id);
                let request = request.ciphertext_blob(Blob::new(wrapped));
                let request = request.set_encryption_context(pairs(context));
                request.customize().config_override(config).send()
            })
            .await;
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                return match NotAccepted::of(AwsError::of("kms:Decrypt", key_id, &error))? {
                    NotAccepted::Refused => Ok(Unwrapped::Refused),
                    NotAccepted::Foreign => Ok(Unwrapped::Foreign),
                };
            }
        };
        let key = output.plaintext.map(Blob::into_inner).and_then(DataKey::new);
        Ok(key.map_or(Unwrapped::Foreign, |key| Unwrapped::Key(Arc::new(key))))
    }

    /// Has KMS re-encrypt a data key under the stack's key and the same context. The data key never
    /// leaves KMS. One call, and one more for each key that did not wrap it.
    ///
    /// Source: AWS KMS, `ReEncrypt`, whose response names the key material on both sides.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn rewrap(
        &self,
        wrapped: &[u8],
        context: &EncryptionContext,
    ) -> Result<Rewrapped, Error> {
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
        context: &EncryptionContext,
    ) -> Result<Rewrapped, Error> {
        let output = self
            .rate_limited(|config| {
                let request = self.client.re_encrypt().ciphertext_blob(Blob::new(wrapped));
                let request = request.source_key_id(key_id).destination_key_id(self.key_id());
                let request = request.set_source_encryption_context(pairs(context));
                let request = request.set_destination_encryption_context(pairs(context));
                request.customize().config_override(config).send()
            })
            .await;
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                return match NotAccepted::of(AwsError::of(REENCRYPT, key_id, &error)) {
                    Ok(NotAccepted::Refused) => Ok(Rewrapped::Refused),
                    Ok(NotAccepted::Foreign) => Ok(Rewrapped::Foreign),
                    // A data key of an unusable retired key is not changed.
                    Err(error) if error.is_of_key() && key_id != self.key_id() => {
                        Ok(Rewrapped::Foreign)
                    }
                    Err(error) => Err(error.into()),
                };
            }
        };
        // Some keys have no key material ids. They have one key material.
        let same_key = output.source_key_id == output.key_id;
        if same_key && output.source_key_material_id == output.destination_key_material_id {
            return Ok(Rewrapped::Current);
        }
        let wrapped = output.ciphertext_blob.map(Blob::into_inner).map(Rewrapped::Changed);
        wrapped.ok_or_else(|| Error::Unavailable {
            message: "KMS returned no wrapped key. Try again.".into(),
            source: "kms:ReEncrypt returned no ciphertext".into(),
        })
    }

    /// Makes a call within the rate limit. If there is one, the client's own retries are off, so that
    /// each try waits for its turn.
    async fn rate_limited<T, E, F>(&self, call: impl Fn(Builder) -> F) -> Result<T, SdkError<E>>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: ProvideErrorMetadata,
        SdkError<E>: RequestId,
    {
        if !self.rate_limit.is_limited() {
            return call(Builder::new()).await;
        }
        loop {
            let turn = self.rate_limit.turn().await;
            let once = Builder::new().retry_config(RetryConfig::disabled());
            match call(once).await {
                Err(error) if AwsError::of("", "", &error).is_transient() => {
                    if !self.rate_limit.throttled(turn) {
                        return Err(error);
                    }
                }
                result => {
                    self.rate_limit.succeeded();
                    return result;
                }
            }
        }
    }
}

fn pairs(context: &EncryptionContext) -> Option<std::collections::HashMap<String, String>> {
    (!context.is_empty()).then(|| context.pairs().clone().into_iter().collect())
}

#[cfg(test)]
mod tests;
