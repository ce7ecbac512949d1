//! A pause between two tries that grows, with full jitter.

use std::time::Duration;

use rand::TryRng;
use rand::rngs::SysRng;

use crate::error::Error;

/// How long the next pause may be. Source: AWS, "Exponential backoff and jitter".
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    const FIRST_MILLISECONDS: u64 = 10;
    const LAST_MILLISECONDS: u64 = 500;

    /// Waits.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where the operating system has no random numbers to give.
    pub async fn wait(&mut self) -> Result<(), Error> {
        let most = Self::FIRST_MILLISECONDS << self.tries.min(10);
        let most = most.min(Self::LAST_MILLISECONDS);
        self.tries += 1;
        let random = SysRng.try_next_u64().map_err(Error::no_randomness)?;
        tokio::time::sleep(Duration::from_millis(random % (most + 1))).await;
        Ok(())
    }
}
