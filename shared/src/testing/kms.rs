//! KMS in memory: three operations on keys whose material can be rotated. A wrapped key states in
//! plain text what KMS would encrypt.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use rand::TryRng;
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Refused;

/// A KMS key.
#[derive(Clone, Debug, Default)]
pub(super) struct Key {
    /// How many times its material was rotated.
    pub(super) material: u32,
    pub(super) disabled: bool,
}

/// All keys, by ARN.
#[derive(Clone, Debug, Default)]
pub(super) struct Kms {
    pub(super) keys: BTreeMap<String, Key>,
}

/// What a wrapped key states.
#[derive(Serialize, Deserialize)]
struct Wrapped {
    key: String,
    material: u32,
    context: BTreeMap<String, String>,
    data_key: Vec<u8>,
}

impl Kms {
    pub(super) fn call(&self, operation: &str, request: &Value) -> Result<Value, Refused> {
        match operation {
            "GenerateDataKey" => self.generate(request),
            "Decrypt" => self.decrypt(request),
            "ReEncrypt" => self.re_encrypt(request),
            _ => panic!("unknown operation {operation}"),
        }
    }

    /// Wraps a data key.
    pub(super) fn wrap(
        &self,
        key: &str,
        context: BTreeMap<String, String>,
        data_key: &[u8],
    ) -> Vec<u8> {
        let material = self.keys[key].material;
        let data_key = data_key.to_vec();
        let wrapped = Wrapped { key: key.to_owned(), material, context, data_key };
        let mut wrapped = serde_json::to_vec(&wrapped).unwrap();
        // As with KMS, the length does not depend on the bytes of the data key.
        wrapped.resize(wrapped.len().next_multiple_of(512), b' ');
        wrapped
    }

    fn generate(&self, request: &Value) -> Result<Value, Refused> {
        let key = self.usable(&request["KeyId"])?;
        let context = context(request, "EncryptionContext");
        // KMS limits a context to 8 KB.
        if context.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > 8192 {
            return Err(Refused::code("ValidationException"));
        }
        let mut data_key = vec![0; request["NumberOfBytes"].as_u64().unwrap().try_into().unwrap()];
        SysRng.try_fill_bytes(&mut data_key).unwrap();
        let plaintext = BASE64_STANDARD.encode(&data_key);
        let wrapped = BASE64_STANDARD.encode(self.wrap(key, context, &data_key));
        Ok(json!({"KeyId": key, "Plaintext": plaintext, "CiphertextBlob": wrapped}))
    }

    fn decrypt(&self, request: &Value) -> Result<Value, Refused> {
        let key = self.usable(&request["KeyId"])?;
        let wrapped = unwrap(request, key, "EncryptionContext")?;
        Ok(json!({"KeyId": key, "Plaintext": BASE64_STANDARD.encode(wrapped.data_key)}))
    }

    fn re_encrypt(&self, request: &Value) -> Result<Value, Refused> {
        let from = self.usable(&request["SourceKeyId"])?;
        let to = self.usable(&request["DestinationKeyId"])?;
        let wrapped = unwrap(request, from, "SourceEncryptionContext")?;
        let context = context(request, "DestinationEncryptionContext");
        let source = format!("{from}#{}", wrapped.material);
        let destination = format!("{to}#{}", self.keys[to].material);
        let blob = BASE64_STANDARD.encode(self.wrap(to, context, &wrapped.data_key));
        Ok(json!({
            "CiphertextBlob": blob, "SourceKeyId": from, "KeyId": to,
            "SourceKeyMaterialId": source, "DestinationKeyMaterialId": destination,
        }))
    }

    fn usable<'a>(&self, key_id: &'a Value) -> Result<&'a str, Refused> {
        let key_id = key_id.as_str().unwrap();
        match self.keys.get(key_id) {
            None => Err(Refused::code("NotFoundException")),
            Some(Key { disabled: true, .. }) => Err(Refused::code("DisabledException")),
            Some(_) => Ok(key_id),
        }
    }
}

fn unwrap(request: &Value, key: &str, field: &str) -> Result<Wrapped, Refused> {
    let blob = BASE64_STANDARD.decode(request["CiphertextBlob"].as_str().unwrap()).unwrap();
    let wrapped: Wrapped =
        serde_json::from_slice(&blob).map_err(|_| Refused::code("InvalidCiphertextException"))?;
    if wrapped.key != key {
        return Err(Refused::code("IncorrectKeyException"));
    }
    if wrapped.context != context(request, field) {
        return Err(Refused::code("InvalidCiphertextException"));
    }
    Ok(wrapped)
}

fn context(request: &Value, field: &str) -> BTreeMap<String, String> {
    let pairs = request[field].as_object().into_iter().flatten();
    pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}
