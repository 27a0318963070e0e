//! What people keep so that a lost root key is no end: a recovery key, whole or in shares.
//!
//! ```text
//! sepal_rec_root_<id 12>_<secret 43>_<crc 6>            the secret: 32 bytes in base62, most significant digit first
//! sepal_share_<t>of<n>n<x>_<id 12>_<share 43>_<crc 6>   share x of n, any t of which are the key
//! ```
//! The id is the same on a key and its shares: it comes from the key's check value, so it also tells whether shares
//! were put together rightly. As with API tokens, the CRC-32 finds typing errors and protects nothing.

use std::fmt;

use sepal_crypto::{Key, ResidentKey, Share, combine_shares, split_key};
use zeroize::Zeroizing;

use crate::token::{BASE62, CRC_BYTES, checksum};

const KEY_PREFIX: &str = "sepal_rec_root_";
const SHARE_PREFIX: &str = "sepal_share_";
const ID_BYTES: usize = 12;
/// 62^43 exceeds 2^256.
const SECRET_BYTES: usize = 43;

/// Opens the recovery package, and so gives the root key.
#[derive(Clone)]
pub struct RecoveryKey(ResidentKey);

/// One person's share of it.
#[derive(Clone)]
pub struct RecoveryShare {
    threshold: u8,
    count: u8,
    id: String,
    share: Share,
}

impl RecoveryKey {
    pub(super) fn random() -> Self {
        Self(Key::random().into())
    }

    pub(crate) fn from_key(key: Key) -> Self {
        Self(key.into())
    }

    pub(super) fn key(&self) -> &Key {
        &self.0
    }

    /// Reads a key as it was shown. `None`: its form or its checksum is wrong.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = body_of(text, KEY_PREFIX)?;
        let key = Self::from_key(Key::from_bytes(*decode(secret)?));
        (key.id() == id).then_some(key)
    }

    /// The whole text. Show it to its keeper once; never log or store it.
    pub fn expose(&self) -> Zeroizing<String> {
        with_checksum(&format!("{KEY_PREFIX}{}_", self.id()), self.0.expose())
    }

    /// Public: tells recovery keys from each other.
    pub fn id(&self) -> String {
        let mut number = u128::from_be_bytes(self.0.check_value());
        let mut digits = [b'0'; ID_BYTES];
        for digit in digits.iter_mut().rev() {
            *digit = BASE62[usize::try_from(number % 62).unwrap_or(0)];
            number /= 62;
        }
        digits.map(char::from).iter().collect()
    }

    /// `None` unless 2 ≤ threshold ≤ count.
    pub fn split(&self, threshold: u8, count: u8) -> Option<Vec<RecoveryShare>> {
        let id = self.id();
        let shares = split_key(&self.0, threshold, count)?;
        Some(
            shares
                .into_iter()
                .map(|share| RecoveryShare { threshold, count, id: id.clone(), share })
                .collect(),
        )
    }

    /// Puts shares together. Errors: too few, of different keys, the same twice, or damaged; said for their keepers.
    pub fn combine(shares: &[RecoveryShare]) -> Result<Self, String> {
        let first = shares.first().ok_or("no share was given")?;
        if let Some(other) = shares.iter().find(|share| share.id != first.id) {
            return Err(format!(
                "share {} belongs to recovery key {}, share {} to {}: give shares of one key",
                first.share.number, first.id, other.share.number, other.id
            ));
        }
        if let Some(other) =
            shares.iter().find(|share| (share.threshold, share.count) != (first.threshold, first.count))
        {
            return Err(format!(
                "share {} is one of {}, of which {} are needed, share {} one of {} and {}: they do not fit together",
                first.share.number,
                first.count,
                first.threshold,
                other.share.number,
                other.count,
                other.threshold
            ));
        }
        let mut distinct: Vec<Share> = Vec::new();
        for share in shares {
            if distinct.iter().all(|known| known.number != share.share.number) {
                distinct.push(share.share.clone());
            }
        }
        if distinct.len() < usize::from(first.threshold) {
            return Err(format!(
                "{} different shares were given, and {} of {} are needed",
                distinct.len(),
                first.threshold,
                first.count
            ));
        }
        let combined = combine_shares(&distinct).map(Self::from_key);
        match combined {
            Some(key) if key.id() == first.id => Ok(key),
            _ => {
                Err("the shares do not give the recovery key: one of them is not what was handed out".into())
            }
        }
    }
}

impl RecoveryShare {
    /// Reads a share as it was shown. `None`: its form or its checksum is wrong.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(SHARE_PREFIX)?;
        let (label, _) = rest.split_once('_')?;
        let (threshold, more) = label.split_once("of")?;
        let (count, number) = more.split_once('n')?;
        let (threshold, count, number) = (threshold.parse().ok()?, count.parse().ok()?, number.parse().ok()?);
        // One spelling each: no leading zero, no sign.
        if label != label_of(threshold, count, number) || number == 0 || number > count || threshold > count {
            return None;
        }
        let (id, secret) = body_of(text, &format!("{SHARE_PREFIX}{label}_"))?;
        Some(Self { threshold, count, id: id.to_owned(), share: Share { number, bytes: decode(secret)? } })
    }

    /// The whole text, for its keeper.
    pub fn expose(&self) -> Zeroizing<String> {
        let label = label_of(self.threshold, self.count, self.share.number);
        with_checksum(&format!("{SHARE_PREFIX}{label}_{}_", self.id), &self.share.bytes)
    }

    /// How many are needed.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// Which one, from 1.
    pub fn number(&self) -> u8 {
        self.share.number
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoveryKey({}, redacted)", self.id())
    }
}

impl fmt::Debug for RecoveryShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoveryShare({} of {}, redacted)", self.share.number, self.id)
    }
}

fn label_of(threshold: u8, count: u8, number: u8) -> String {
    format!("{threshold}of{count}n{number}")
}

/// Id and secret of a text that begins with `prefix` and whose checksum is right.
fn body_of<'a>(text: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let mut parts = text.strip_prefix(prefix)?.split('_');
    let (id, secret, crc) = (parts.next()?, parts.next()?, parts.next()?);
    let base62 = |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_alphanumeric());
    let well_formed = parts.next().is_none()
        && base62(id, ID_BYTES)
        && base62(secret, SECRET_BYTES)
        && base62(crc, CRC_BYTES)
        && checksum(&text[..text.len() - CRC_BYTES]) == crc;
    well_formed.then_some((id, secret))
}

fn with_checksum(head: &str, secret: &[u8; 32]) -> Zeroizing<String> {
    // Room for all of it, so that no copy is left behind by growing.
    let mut text = Zeroizing::new(String::with_capacity(head.len() + SECRET_BYTES + 1 + CRC_BYTES));
    text.push_str(head);
    encode(secret, &mut text);
    text.push('_');
    let crc = checksum(&text);
    text.push_str(&crc);
    text
}

/// As one big number, in 43 digits.
fn encode(bytes: &[u8; 32], text: &mut String) {
    let mut number = Zeroizing::new(*bytes);
    let mut digits = Zeroizing::new([b'0'; SECRET_BYTES]);
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in number.iter_mut() {
            let dividend = (rest << 8) | u32::from(*byte);
            *byte = u8::try_from(dividend / 62).unwrap_or(u8::MAX);
            rest = dividend % 62;
        }
        *digit = BASE62[rest as usize];
    }
    text.extend(digits.iter().copied().map(char::from));
}

/// `None` for a digit that is none, and for numbers of 2^256 and above.
fn decode(digits: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut number = Zeroizing::new([0_u8; 32]);
    for digit in digits.bytes() {
        let value = BASE62.iter().position(|known| *known == digit)?;
        let mut carry = u32::try_from(value).ok()?;
        for byte in number.iter_mut().rev() {
            let product = u32::from(*byte) * 62 + carry;
            *byte = product.to_be_bytes()[3];
            carry = product >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests;
