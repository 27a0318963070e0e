//! What a Sepal plugin is written with: a sink takes batches of changed rows somewhere, a resolver fetches secrets.
//!
//! ```ignore
//! use sepal_plugin::prelude::*;
//!
//! #[derive(Deserialize)]
//! struct Config {
//!     url: String,
//!     token: SecretSlot,
//! }
//!
//! struct Post(Config);
//!
//! impl Sink for Post {
//!     type Config = Config;
//!
//!     fn open(config: Config, _: &Context) -> Result<Self, Error> {
//!         Ok(Self(config))
//!     }
//!
//!     fn write(&mut self, batch: &Batch) -> Result<Outcome, Error> {
//!         let token = self.0.token.get()?;
//!         http::post(&self.0.url).bearer(&token).body(batch.payload()).send()?.ok()?;
//!         Ok(Outcome::delivered())
//!     }
//! }
//!
//! sepal_plugin::sink!(Post);
//! ```
//!
//! A plugin classifies what went wrong ([`ErrorKind`]); the host retries, backs off, dead-letters and pauses. It never
//! sees a secret: [`Secret`] is a handle, and the host puts the plaintext on the wire. Everything else that the host
//! offers is in the WIT beside this crate, `wit/plugin.wit`.

pub mod batch;
pub mod bindings;
mod error;
pub mod glue;
pub mod http;
mod resolver;
mod secrets;
mod sink;
pub mod state;
pub mod telemetry;
pub mod time;

pub use batch::{Batch, Op, Row};
pub use bindings::sink::sepal::plugin::{
    secrets::Secret,
    types::{Encoding, Envelope, ErrorKind},
};
pub use error::Error;
pub use resolver::{Answer, Request, Resolved, Resolver};
pub use secrets::{SecretSlot, secret};
pub use sink::{BadRow, Context, Opened, Outcome, Schema, Sink};

pub use {serde, serde_json};

/// What nearly every plugin needs.
pub mod prelude {
    pub use serde::Deserialize;

    pub use crate::{
        Answer, BadRow, Batch, Context, Error, ErrorKind, Op, Outcome, Request, Resolved, Resolver, Row,
        Secret, SecretSlot, Sink, http, log, secret, state,
    };
}

#[cfg(test)]
mod tests;
