//! One secret, as a request gives it.

use coffer::error::Error;
use coffer::fields::Fields;
use coffer::name::Version;
use coffer::operations::put::{Expiry, Put, Value};

pub(crate) fn parse(fields: &mut Fields) -> Result<Put, Error> {
    Ok(Put {
        name: fields.required("name")?,
        value: value(fields)?,
        context: fields.context("context")?,
        comment: fields.text("comment")?,
        expiry: expiry(fields)?,
        version: fields.number("version")?.map(Version::checked).transpose()?,
    })
}

fn value(fields: &mut Fields) -> Result<Value, Error> {
    let text = fields.secret("secret")?.map(Value::Given);
    let bytes = fields.secret_base64("secret_base64")?.map(Value::Given);
    let generated = fields.rules()?.map(Value::Generated);
    let mut given = [text, bytes, generated].into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(Error::invalid("Give one of `secret`, `secret_base64` and `generate`.")),
    }
}

fn expiry(fields: &mut Fields) -> Result<Option<Expiry>, Error> {
    match (fields.moment("expires_at")?, fields.number("ttl")?) {
        (None, None) => Ok(None),
        (Some(end), None) => Ok(Some(Expiry::At(end))),
        (None, Some(seconds)) => Ok(Some(Expiry::After(seconds))),
        (Some(_), Some(_)) => Err(Error::invalid("Give one of `expires_at` and `ttl`.")),
    }
}
