//! What the server stores of a SCRAM password: salt, iterations, StoredKey, ServerKey (RFC 5802, section 3).
//!
//! Control seals the text form; its layout is Postgres' `pg_authid.rolpassword`:
//!
//! ```text
//! SCRAM-SHA-256$<iterations>:<salt base64>$<StoredKey base64>:<ServerKey base64>
//! ```

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::Mac;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    Aad, Key, hmac_sha256,
    mac::{hmac_parts, keyed},
    sha256,
};

/// Postgres' own default, and RFC 7677's minimum. Tokens carry 256 random bits, so more rounds would only
/// slow logins down; a guessable password would need them.
pub const DEFAULT_ITERATIONS: u32 = 4096;

/// Longest accepted salt in bytes. A stored text is ours, so this only stops a damaged one.
const MAX_SALT_BYTES: usize = 1024;

/// A stored verifier. Wiped on drop: ServerKey would let its holder pose as the server.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Verifier {
    pub salt: Vec<u8>,
    pub iterations: u32,
    pub stored_key: [u8; 32],
    pub server_key: [u8; 32],
}

impl Verifier {
    /// Computes the verifier of `password`, which must be ASCII, as our tokens are: SASLprep (RFC 4013),
    /// which normalises other texts, is then the identity. `iterations` of 0 counts as 1.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let iterations = iterations.max(1);
        let salted = salted_password(password.as_bytes(), salt, iterations);
        let client_key = Zeroizing::new(hmac_parts(&*salted, &[b"Client Key"]));
        Self {
            salt: salt.to_vec(),
            iterations,
            stored_key: sha256(&*client_key),
            server_key: hmac_parts(&*salted, &[b"Server Key"]),
        }
    }

    /// The verifier to use for a user that does not exist: always the same for the same name, so that asking
    /// twice does not tell, and matched by no password.
    pub fn mock(key: &Key, user: &str) -> Self {
        let part = |what: &str| hmac_sha256(key, &Aad::new("scram-mock").text(what).text(user).finish());
        Self {
            salt: part("salt")[..16].to_vec(),
            iterations: DEFAULT_ITERATIONS,
            stored_key: part("stored key"),
            server_key: part("server key"),
        }
    }

    /// Postgres' text form.
    pub fn serialize(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key),
            STANDARD.encode(self.server_key)
        )
    }

    /// Reads the text form; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (parameters, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let salt = STANDARD.decode(salt).ok()?;
        let iterations = iterations.parse().ok()?;
        if salt.is_empty() || salt.len() > MAX_SALT_BYTES || iterations == 0 {
            return None;
        }
        Some(Self {
            salt,
            iterations,
            stored_key: decode_key(stored_key)?,
            server_key: decode_key(server_key)?,
        })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// RFC 5802's `Hi`: PBKDF2-HMAC-SHA-256 (RFC 8018) with one block of output.
fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<[u8; 32]> {
    let mac = keyed(password);
    let mut round: [u8; 32] =
        mac.clone().chain_update(salt).chain_update([0, 0, 0, 1]).finalize().into_bytes().into();
    let mut sum = Zeroizing::new(round);
    for _ in 1..iterations {
        round = mac.clone().chain_update(round).finalize().into_bytes().into();
        sum.iter_mut().zip(round).for_each(|(sum, byte)| *sum ^= byte);
    }
    round.zeroize();
    sum
}

fn decode_key(text: &str) -> Option<[u8; 32]> {
    Zeroizing::new(STANDARD.decode(text).ok()?).as_slice().try_into().ok()
}
