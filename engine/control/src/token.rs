//! The token that its holder keeps: made once, shown once, never stored.
//!
//! ```text
//! sepal_live_<env 1-16 of a-z0-9>_<id 12>_<secret 43>_<crc 6>      id, secret, crc in base62 (0-9A-Za-z)
//! ```
//! At least one letter of the id is a capital. Names of tenants have none, so a login's user is either the one
//! or the other, whatever tenants are called.
//!
//! The secret carries 256 bits, so one fast HMAC is enough to store. The CRC-32 of everything before it lets
//! a mistyped or made-up token be refused without a database read, and lets scanners tell real ones from
//! fakes; it protects nothing. `<env>` is for its reader's eyes: the stored key says which environment
//! counts.

use std::fmt;

use sepal_crypto::random_bytes;
use zeroize::{Zeroize, Zeroizing};

const PREFIX: &str = "sepal_live_";
const MAX_ENVIRONMENT_BYTES: usize = 16;
const ID_BYTES: usize = 12;
const SECRET_BYTES: usize = 43;
pub(crate) const CRC_BYTES: usize = 6;
pub(crate) const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A whole API token: well-formed, which says nothing about its being valid. Wiped on drop.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// A new token for a key limited to `environment`, or for all environments.
    pub(crate) fn generate(environment: Option<&str>) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(128));
        text.push_str(PREFIX);
        push_slug(environment, &mut text);
        text.push('_');
        push_id(&mut text);
        text.push('_');
        push_random(SECRET_BYTES, &mut text);
        text.push('_');
        let crc = checksum(&text);
        text.push_str(&crc);
        Self(text)
    }

    /// Reads a token; `None` when its form or its checksum is wrong. Touches no database.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        let mut parts = rest.split('_');
        let (environment, id, secret, crc) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let slug = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let base62 =
            |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_alphanumeric());
        let well_formed = parts.next().is_none()
            && (1..=MAX_ENVIRONMENT_BYTES).contains(&environment.len())
            && environment.bytes().all(slug)
            && base62(id, ID_BYTES)
            && base62(secret, SECRET_BYTES)
            && base62(crc, CRC_BYTES)
            && checksum(&text[..text.len() - CRC_BYTES]) == crc;
        well_formed.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The whole text: the password. Show it to its owner once; never log or store it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The public part that names the key: the Postgres user for SCRAM.
    pub fn key_id(&self) -> &str {
        let end = self.0.len() - CRC_BYTES - 1 - SECRET_BYTES - 1;
        &self.0[end - ID_BYTES..end]
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, redacted)", self.key_id())
    }
}

/// CRC-32 in six base62 digits, as in GitHub's tokens: 62^6 exceeds 2^32, so each value has one spelling.
pub(crate) fn checksum(text: &str) -> String {
    let mut number = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; CRC_BYTES];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(number % 62) as usize];
        number /= 62;
    }
    digits.map(char::from).iter().collect()
}

fn push_slug(environment: Option<&str>, text: &mut String) {
    let start = text.len();
    let kept = environment.unwrap_or("all").chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.extend(kept.take(MAX_ENVIRONMENT_BYTES));
    if text.len() == start {
        text.push_str("env");
    }
}

/// Ids without a capital, one in 700, are drawn again.
fn push_id(text: &mut String) {
    let start = text.len();
    while !text[start..].bytes().any(|byte| byte.is_ascii_uppercase()) {
        text.truncate(start);
        push_random(ID_BYTES, text);
    }
}

/// Uniform base62 characters: bytes of 248 and above are drawn again, else the first 8 letters would be
/// likelier.
fn push_random(count: usize, text: &mut String) {
    let wanted = text.len() + count;
    while text.len() < wanted {
        let mut bytes: [u8; 64] = random_bytes();
        let usable = bytes.iter().filter(|byte| **byte < 248).take(wanted - text.len());
        text.extend(usable.map(|byte| char::from(BASE62[usize::from(byte % 62)])));
        bytes.zeroize();
    }
}

#[cfg(test)]
mod tests;
