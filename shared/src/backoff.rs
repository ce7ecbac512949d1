//! Exponential backoff with full jitter between two tries.

use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;

use crate::error::Error;

/// The pauses between the tries of one call. Source: AWS, "Exponential backoff and jitter".
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    const FIRST_MILLISECONDS: u64 = 10;
    const MAX_MILLISECONDS: u64 = 2_000;

    /// Waits for a random time, up to 10 ms at first, and up to twice as long at each further
    /// call, but never more than 2 s.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the operating system has no random numbers.
    pub async fn wait(&mut self) -> Result<(), Error> {
        let most = Self::FIRST_MILLISECONDS << self.tries.min(10);
        let most = most.min(Self::MAX_MILLISECONDS);
        self.tries += 1;
        let random = SysRng.try_next_u64().map_err(Error::no_randomness)?;
        tokio::time::sleep(Duration::from_millis(random % (most + 1))).await;
        Ok(())
    }
}
