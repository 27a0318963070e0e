//! The Postgres 3.0 frame codec: bytes in, messages out, and back. No sockets, no SQL, no state.
//!
//! Called by `session`. Written here rather than taken from a library so that a hostile frame is refused by
//! construction: exactly one frame is cut out of the input, decoded by a cursor that cannot leave it, and must
//! be used up to the last byte. Nothing in this folder panics on input, and nothing allocates by a length or
//! count that the client declared.
//!
//! ```text
//! message         | type u8 | length u32 (itself + body) | body … |
//! startup packet            | length u32                 | code u32 | body … |
//! ```

mod message;
mod read;
mod write_error;

pub mod write;

#[cfg(test)]
mod tests;

pub use message::{
    Bind, Format, Formats, Frontend, Parse, SaslInitial, Target, TypeOids, Values, decode,
    sasl_initial_response,
};
pub use read::{
    CANCEL_REQUEST, FrameLimits, GSSENC_REQUEST, MAX_STARTUP_BYTES, Progress, Rejection, SSL_REQUEST,
    Startup, scan, startup,
};
pub use write_error::{Severity, error_response, notice_response};
