//! The cache of unwrapped data keys.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::encryption_context::EncryptionContext;
use crate::hash;
use crate::secret::DataKey;

/// Unwrapped data keys by wrapped key and context: a caller with another context gets no hit. A key
/// that is dropped is wiped. Expired keys are dropped at the next call, because a frozen Lambda
/// function runs no timers.
#[derive(Debug)]
pub(super) struct Cache {
    time_to_live: Duration,
    keys: Mutex<LruCache<Id, Entry>>,
}

pub(super) type Id = [u8; 32];
type Entry = (Instant, Arc<DataKey>);

impl Cache {
    const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

    pub(super) fn new(time_to_live: Duration) -> Self {
        Self { time_to_live, keys: Mutex::new(LruCache::new(Self::CAPACITY)) }
    }

    /// Returns SHA-256 over wrapped key and context, each part with its length.
    pub(super) fn id(wrapped: &[u8], context: &EncryptionContext) -> Id {
        let pairs = context.pairs().iter().flat_map(|(key, value)| [key, value]);
        hash::of_parts([wrapped].into_iter().chain(pairs.map(String::as_bytes)))
    }

    pub(super) fn get(&self, id: &Id) -> Option<Arc<DataKey>> {
        if self.time_to_live.is_zero() {
            return None;
        }
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let expired: Vec<_> = keys
            .iter()
            .filter(|(_, (since, _))| since.elapsed() >= self.time_to_live)
            .map(|(id, _)| *id)
            .collect();
        for id in &expired {
            keys.pop(id);
        }
        keys.get(id).map(|(_, key)| Arc::clone(key))
    }

    pub(super) fn insert(&self, id: Id, key: &Arc<DataKey>) {
        if !self.time_to_live.is_zero() {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.put(id, (Instant::now(), Arc::clone(key)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
        let pairs = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
        EncryptionContext::new(pairs.collect::<BTreeMap<_, _>>()).unwrap()
    }

    fn key() -> Arc<DataKey> {
        Arc::new(DataKey::new(vec![1; 64]).unwrap())
    }

    #[test]
    fn a_cached_key_is_returned_for_its_own_context_only() {
        let cache = Cache::new(Duration::from_mins(1));
        cache.insert(Cache::id(b"wrapped", &context(&[("a", "bc")])), &key());
        assert!(cache.get(&Cache::id(b"wrapped", &context(&[("a", "bc")]))).is_some());
        assert!(cache.get(&Cache::id(b"wrapped", &context(&[("ab", "c")]))).is_none());
        assert!(cache.get(&Cache::id(b"wrapped", &context(&[]))).is_none());
        assert!(cache.get(&Cache::id(b"other", &context(&[("a", "bc")]))).is_none());
    }

    #[test]
    fn nothing_is_cached_if_the_cache_is_off_and_nothing_longer_than_configured() {
        for time_to_live in [Duration::ZERO, Duration::from_nanos(1)] {
            let cache = Cache::new(time_to_live);
            let key = key();
            cache.insert([0; 32], &key);
            assert!(cache.get(&[0; 32]).is_none());
            assert_eq!(Arc::strong_count(&key), 1, "dropped, so wiped");
        }
    }
}
