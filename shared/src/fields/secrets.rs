//! Secrets in a request.

use base64::prelude::{BASE64_STANDARD, Engine};
use zeroize::Zeroize;

use crate::error::Error;
use crate::secret::Secret;

use super::{Field, Fields};

impl Fields {
    /// Takes a secret as text, from a body only: URLs are logged.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn secret(&mut self, name: &'static str) -> Result<Option<Secret>, Error> {
        let Some(text) = self.confidential(name, "must be text, in the body of the request")?
        else {
            return Ok(None);
        };
        Ok(Some(Secret::new(text.into_bytes())))
    }

    /// Takes a secret as base64 (RFC 4648, section 4, padded), from a body only. ASCII white space is
    /// skipped, because `base64` and `openssl` break lines.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn secret_base64(&mut self, name: &'static str) -> Result<Option<Secret>, Error> {
        let what = "must be padded base64 (RFC 4648, section 4), in the body of the request";
        let Some(mut text) = self.confidential(name, what)? else {
            return Ok(None);
        };
        text.retain(|character| !character.is_ascii_whitespace());
        let bytes = BASE64_STANDARD.decode(&text);
        text.zeroize();
        bytes.map(|bytes| Some(Secret::new(bytes))).map_err(|_| self.wrong(name, what))
    }

    fn confidential(&mut self, name: &'static str, what: &str) -> Result<Option<String>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Field::Json(json)) => {
                serde_json::from_str(&json).map(Some).map_err(|_| self.wrong(name, what))
            }
            Some(Field::Text(_) | Field::Pairs(_)) => Err(self.wrong(name, what)),
        }
    }
}
