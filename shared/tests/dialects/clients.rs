//! The formats of the clients that write the table, and rows as they write them.

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};
use base64::prelude::{BASE64_STANDARD, Engine};
use coffer::row::{Attribute, Row};
use hmac::{EagerHash, Hmac, KeyInit, Mac};

const ONE: [u8; 16] = 1_u128.to_be_bytes();
const ZERO: [u8; 16] = [0; 16];
/// The wrapped key of every row here, as long as those of KMS.
pub(crate) const WRAPPED: [u8; 225] = [0xa5; 225];

pub(crate) const SHA2: &[Option<&str>] =
    &[Some("SHA224"), Some("SHA256"), Some("SHA384"), Some("SHA512"), None];
const EVERY: &[Option<&str>] = &[
    Some("MD5"),
    Some("RIPEMD"),
    Some("SHA"),
    Some("SHA224"),
    Some("SHA256"),
    Some("SHA384"),
    Some("SHA512"),
    Some("WHIRLPOOL"),
    None,
];
const SPELLED: &[Option<&str>] =
    &[Some("sha1"), Some("sha-256"), Some("sha256"), Some("SHA-512"), Some("sha512"), Some("md5")];
const SHA256: &[Option<&str>] = &[None, Some("sha256")];
const NONE: &[Option<&str>] = &[None];
pub(crate) const RUST: &[Option<&str>] =
    &[Some("SHA1"), Some("SHA256"), Some("SHA384"), Some("SHA512")];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Counter {
    Big,
    Little,
    Zero,
}

/// The type of a stored MAC: S or B.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MacForm {
    Text,
    UpperText,
    Bytes,
}
use MacForm::{Bytes, Text, UpperText};

/// The format of one client.
#[derive(Debug)]
pub(crate) struct Client {
    pub name: &'static str,
    pub counter: Counter,
    pub hmac: MacForm,
    pub digests: &'static [Option<&'static str>],
    /// The columns of its base64 and the end of each line; `None` for one line.
    pub lines: Option<(usize, &'static str)>,
}

const fn client(
    name: &'static str,
    hmac: MacForm,
    digests: &'static [Option<&'static str>],
) -> Client {
    Client { name, counter: Counter::Big, hmac, digests, lines: None }
}

pub(crate) const CLIENTS: &[Client] = &[
    client("credstash on Python 3", Bytes, EVERY),
    client("credstash on Python 2", Text, EVERY),
    client("nodecredstash", Text, SPELLED),
    client("node-credstasher", Text, SHA256),
    client("unicreds", Bytes, NONE),
    client("an older unicreds", Text, NONE),
    client("jcredstash", Text, NONE),
    client("one with the MAC in upper case", UpperText, SHA2),
    Client { lines: Some((60, "\n")), ..client("rcredstash", Text, NONE) },
    Client { lines: Some((76, "\r\n")), ..client("one with MIME's base64", Text, NONE) },
    Client { counter: Counter::Little, ..client("rucredstash", Bytes, RUST) },
    Client { counter: Counter::Zero, ..client("Haskell's credentials", Text, NONE) },
];

fn mac<D: EagerHash>(key: &[u8], contents: &[u8]) -> String
where
    Hmac<D>: Mac + KeyInit,
{
    let mac = <Hmac<D> as KeyInit>::new_from_slice(key).unwrap();
    hex::encode(mac.chain_update(contents).finalize().into_bytes())
}

fn mac_with(digest: Option<&str>, key: &[u8], contents: &[u8]) -> String {
    let name = digest.unwrap_or("SHA256").to_uppercase().replace('-', "");
    match name.as_str() {
        "MD5" => mac::<md5::Md5>(key, contents),
        "RIPEMD" => mac::<ripemd::Ripemd160>(key, contents),
        "SHA" | "SHA1" => mac::<sha1::Sha1>(key, contents),
        "SHA224" => mac::<sha2::Sha224>(key, contents),
        "SHA256" => mac::<sha2::Sha256>(key, contents),
        "SHA384" => mac::<sha2::Sha384>(key, contents),
        "SHA512" => mac::<sha2::Sha512>(key, contents),
        "WHIRLPOOL" => mac::<whirlpool::Whirlpool>(key, contents),
        other => panic!("{other}"),
    }
}

pub(crate) fn crypt(counter: Counter, key: &[u8], bytes: &mut [u8]) {
    let key: [u8; 32] = key[..32].try_into().unwrap();
    match counter {
        Counter::Big => {
            ctr::Ctr128BE::<Aes256>::new(&key.into(), &ONE.into()).apply_keystream(bytes);
        }
        Counter::Zero => {
            ctr::Ctr128BE::<Aes256>::new(&key.into(), &ZERO.into()).apply_keystream(bytes);
        }
        Counter::Little => {
            ctr::Ctr32LE::<Aes256>::new(&key.into(), &ONE.into()).apply_keystream(bytes);
        }
    }
}

impl Client {
    fn base64(&self, bytes: &[u8]) -> Attribute {
        let text = BASE64_STANDARD.encode(bytes);
        let Some((columns, end)) = self.lines else { return Attribute::Text(text) };
        let lines = text.as_bytes().chunks(columns).map(|line| std::str::from_utf8(line).unwrap());
        Attribute::Text(lines.flat_map(|line| [line, end]).collect())
    }

    /// Creates a row as the client writes it.
    pub(crate) fn row(&self, key: &[u8], plaintext: &[u8], digest: Option<&str>) -> Row {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let mut contents = plaintext.to_vec();
        crypt(self.counter, key, &mut contents);
        let hex = mac_with(digest, &key[32..], &contents);
        let hmac = match self.hmac {
            Text => Attribute::Text(hex),
            UpperText => Attribute::Text(hex.to_uppercase()),
            Bytes => Attribute::Bytes(hex.into_bytes()),
        };
        let mut row = Row::from(
            [("name", text("n")), ("version", text("0000000000000000001")), ("hmac", hmac)]
                .map(|(name, value)| (name.to_owned(), value)),
        );
        let mut add = |name: &str, value| row.insert(name.to_owned(), value);
        if self.counter == Counter::Zero {
            add("key", Attribute::Bytes(WRAPPED.to_vec()));
            add("contents", Attribute::Bytes(contents));
            add("revision", Attribute::Bytes(b"d2bc0c9".to_vec()));
        } else {
            add("key", self.base64(&WRAPPED));
            add("contents", self.base64(&contents));
        }
        if let Some(digest) = digest {
            add("digest", text(digest));
        }
        row
    }

    /// Whether its rows have the attributes that rucredstash writes.
    pub(crate) fn looks_like_rucredstash(&self, digest: Option<&str>) -> bool {
        matches!(self.hmac, Bytes) && RUST.contains(&digest) && digest.is_some()
    }
}

pub(crate) fn the(name: &str) -> &'static Client {
    CLIENTS.iter().find(|client| client.name == name).unwrap()
}
