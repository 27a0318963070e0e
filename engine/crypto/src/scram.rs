//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677) as Postgres speaks them: the server's side.
//!
//! Control stores a [`Verifier`] per API key, sealed; `pgwire-server` runs one [`ServerExchange`] per login.
//! A password never reaches the server in this exchange, and the verifier alone does not let its holder log
//! in.
//!
//! ```text
//! C: client-first   n,,n=user,r=<client nonce>            | p=tls-server-end-point,,n=…
//! S: server-first   r=<client nonce><server nonce>,s=<salt>,i=<iterations>
//! C: client-final   c=<base64 of gs2 header and binding>,r=<both nonces>,p=<proof>
//! S: server-final   v=<signature>
//! ```

mod endpoint;
mod exchange;
mod scram_error;
mod verifier;

pub use endpoint::tls_server_end_point;
pub use exchange::{SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ServerExchange};
pub use scram_error::ScramError;
pub use verifier::{DEFAULT_ITERATIONS, Verifier};

#[cfg(test)]
mod tests;
