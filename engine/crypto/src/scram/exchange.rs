//! One login: a state machine of two steps, each taking the client's message and giving the server's.
//!
//! The three checks of client-final (nonce, channel binding, proof) each run in constant time. Postgres looks
//! the verifier up by the startup packet's user and ignores the name inside SCRAM; so does this.

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{constant_time_eq, mac::hmac_parts, random_bytes, sha256};

use super::{ScramError, Verifier};

/// The mechanism without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// The mechanism bound to the TLS channel; offered on TLS connections only.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Bytes of randomness in the server's nonce, as in Postgres (`SCRAM_RAW_NONCE_LEN`).
const NONCE_BYTES: usize = 18;
/// Longest accepted message in bytes; libpq's are below 200.
const MAX_MESSAGE_BYTES: usize = 4096;

/// The server's side of one login. Used once: after a failure start a new connection.
#[derive(Debug)]
pub struct ServerExchange {
    verifier: Verifier,
    /// The hash from [`super::tls_server_end_point`] if PLUS was offered.
    end_point: Option<Vec<u8>>,
    /// Whether the client chose PLUS.
    plus: bool,
    server_nonce: String,
    state: State,
}

#[derive(Debug)]
enum State {
    Start,
    /// server-first was sent.
    Challenged {
        client_first_bare: String,
        server_first: String,
        nonce: String,
        binding: String,
    },
    Done,
}

impl ServerExchange {
    /// The mechanisms to offer, best first. `bound`: TLS is on and its certificate has an end-point hash.
    pub const fn mechanisms(bound: bool) -> &'static [&'static str] {
        if bound { &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256] } else { &[SCRAM_SHA_256] }
    }

    /// Starts an exchange with the mechanism that the client chose. `end_point` must be given exactly if PLUS
    /// was offered, whichever mechanism the client chose: only so is a downgrade noticed.
    pub fn new(mechanism: &str, end_point: Option<&[u8]>, verifier: Verifier) -> Result<Self, ScramError> {
        let server_nonce = STANDARD.encode(random_bytes::<NONCE_BYTES>());
        Self::with_nonce(mechanism, end_point, verifier, server_nonce)
    }

    pub(crate) fn with_nonce(
        mechanism: &str,
        end_point: Option<&[u8]>,
        verifier: Verifier,
        server_nonce: String,
    ) -> Result<Self, ScramError> {
        if !Self::mechanisms(end_point.is_some()).contains(&mechanism) {
            return Err(ScramError::UnknownMechanism);
        }
        let plus = mechanism == SCRAM_SHA_256_PLUS;
        let end_point = end_point.map(<[u8]>::to_vec);
        Ok(Self { verifier, end_point, plus, server_nonce, state: State::Start })
    }

    /// Takes client-first (the body of SASLInitialResponse), gives server-first (AuthenticationSASLContinue).
    pub fn client_first(&mut self, message: &[u8]) -> Result<String, ScramError> {
        if !matches!(std::mem::replace(&mut self.state, State::Done), State::Start) {
            return Err(ScramError::Malformed("client-first-message came twice."));
        }
        let message = as_text(message)?;
        let (gs2_header, bare) = split_gs2(message)?;
        self.check_binding_flag(gs2_header)?;
        let client_nonce = client_nonce(bare)?;
        let nonce = format!("{client_nonce}{}", self.server_nonce);
        let salt = STANDARD.encode(&self.verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", self.verifier.iterations);

        let mut binding = gs2_header.as_bytes().to_vec();
        if self.plus {
            binding.extend_from_slice(self.end_point.as_deref().unwrap_or_default());
        }
        self.state = State::Challenged {
            client_first_bare: bare.to_owned(),
            server_first: server_first.clone(),
            nonce,
            binding: STANDARD.encode(binding),
        };
        Ok(server_first)
    }

    /// Takes client-final (SASLResponse); when it proves the password, gives server-final
    /// (AuthenticationSASLFinal).
    pub fn client_final(&mut self, message: &[u8]) -> Result<String, ScramError> {
        let State::Challenged { client_first_bare, server_first, nonce, binding } =
            std::mem::replace(&mut self.state, State::Done)
        else {
            return Err(ScramError::Malformed("client-final-message came without a client-first-message."));
        };
        let message = ClientFinal::parse(as_text(message)?)?;
        if !constant_time_eq(message.binding.as_bytes(), binding.as_bytes()) {
            return Err(ScramError::BindingMismatch);
        }
        if !constant_time_eq(message.nonce.as_bytes(), nonce.as_bytes()) {
            return Err(ScramError::NonceMismatch);
        }
        let signed =
            [client_first_bare.as_bytes(), b",", server_first.as_bytes(), b",", message.unproved.as_bytes()];
        let mut client_key = Zeroizing::new(hmac_parts(&self.verifier.stored_key, &signed));
        client_key.iter_mut().zip(message.proof).for_each(|(byte, proof)| *byte ^= proof);
        if !constant_time_eq(&sha256(&*client_key), &self.verifier.stored_key) {
            return Err(ScramError::WrongProof);
        }
        Ok(format!("v={}", STANDARD.encode(hmac_parts(&self.verifier.server_key, &signed))))
    }

    /// RFC 5802, section 6: the flag must fit the mechanism, and `y` on a bound channel means that somebody
    /// removed PLUS from the offer on its way to the client.
    fn check_binding_flag(&self, gs2_header: &str) -> Result<(), ScramError> {
        let flag = gs2_header.split(',').next().unwrap_or_default();
        match (self.plus, flag) {
            (false, "n") | (true, "p=tls-server-end-point") => Ok(()),
            (false, "y") if self.end_point.is_none() => Ok(()),
            (false, "y") => Err(ScramError::BindingNegotiation(
                "The client supports SCRAM channel binding but thinks the server does not. However, this \
                 server does support channel binding.",
            )),
            (false, flag) if flag.starts_with("p=") => Err(ScramError::BindingNegotiation(
                "The client selected SCRAM-SHA-256 without channel binding, but its message includes \
                 channel binding data.",
            )),
            (true, "n" | "y") => Err(ScramError::BindingNegotiation(
                "The client selected SCRAM-SHA-256-PLUS, but its message does not include channel \
                 binding data.",
            )),
            (true, flag) if flag.starts_with("p=") => Err(ScramError::BindingNegotiation(
                "Only the channel binding type tls-server-end-point is supported.",
            )),
            _ => Err(ScramError::Malformed("Unexpected channel-binding flag.")),
        }
    }
}

/// The parts of client-final. `unproved` is everything before `,p=`.
struct ClientFinal<'a> {
    binding: &'a str,
    nonce: &'a str,
    unproved: &'a str,
    proof: [u8; 32],
}

impl<'a> ClientFinal<'a> {
    fn parse(message: &'a str) -> Result<Self, ScramError> {
        // The proof is the last attribute, so an extension that contains ",p=" cannot be taken for it.
        let (unproved, proof) =
            message.rsplit_once(",p=").ok_or(ScramError::Malformed("The proof is missing."))?;
        let proof = STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok());
        let proof = proof.ok_or(ScramError::Malformed("The proof is not 32 bytes in base64."))?;
        let mut attributes = unproved.split(',');
        let mut attribute = |name: &str| attributes.next().and_then(|text| text.strip_prefix(name));
        let binding = attribute("c=").ok_or(ScramError::Malformed("Expected attribute \"c\"."))?;
        let nonce = attribute("r=").ok_or(ScramError::Malformed("Expected attribute \"r\"."))?;
        Ok(Self { binding, nonce, unproved, proof })
    }
}

fn as_text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(ScramError::Malformed("The message is longer than 4096 bytes."));
    }
    if message.contains(&0) {
        return Err(ScramError::Malformed("The message contains a zero byte."));
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("The message is not UTF-8."))
}

/// `n,,n=user,r=nonce` into `n,,` and the rest.
fn split_gs2(message: &str) -> Result<(&str, &str), ScramError> {
    let malformed = ScramError::Malformed("Expected a GS2 header, such as \"n,,\".");
    let mut commas = message.match_indices(',').map(|(position, _)| position);
    let (first, second) = commas.next().zip(commas.next()).ok_or(malformed)?;
    if second != first + 1 {
        return Err(ScramError::Malformed("An authorization identity is not supported."));
    }
    Ok(message.split_at(second + 1))
}

/// The nonce of `n=user,r=nonce[,extensions]`.
fn client_nonce(bare: &str) -> Result<&str, ScramError> {
    let mut attributes = bare.split(',');
    let user = attributes.next().unwrap_or_default();
    if user.starts_with("m=") {
        return Err(ScramError::Malformed("Mandatory extensions are not supported."));
    }
    if !user.starts_with("n=") {
        return Err(ScramError::Malformed("Expected attribute \"n\"."));
    }
    let nonce = attributes.next().and_then(|text| text.strip_prefix("r="));
    let nonce = nonce.ok_or(ScramError::Malformed("Expected attribute \"r\"."))?;
    if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ScramError::Malformed("The nonce is empty or has non-printable characters."));
    }
    Ok(nonce)
}
