//! The host of what tenants bring: WASM sinks and secret resolvers, and the native sinks beside them.
//!
//! Fills `sepal_database::connector`. The only crate that names wasmtime.
//!
//! # A batch's way to a webhook
//! 1. `sepal_database::pipeline` calls [`runtime::Runtime`]'s sink with a batch.
//! 2. `runtime` makes a [`call::Call`] of it and hands it to a [`call::GuestHost`]: `worker::Workers`, which sends it
//!    over a socket to the tenant's worker process, or `host::LocalHost` in the same process (`sepal dev`).
//! 3. `host` instantiates the component, meters it, and runs `open`, `set-schema`, `write`.
//! 4. What the guest imports is asked of a [`call::Outside`]: over the same socket from a worker. `egress` answers in
//!    the server's process: it checks name and address, puts secrets on the wire, counts and scrubs.
//! 5. The reply carries the outcome, the staged state and what was used up.
//!
//! A worker process holds no key, no secret and no network.

pub mod author;
pub mod bundled;
pub mod call;
pub mod compile;
pub mod egress;
pub mod host;
pub mod kit;
pub mod manifest;
pub mod manifest_section;
pub mod package;
pub mod runtime;
pub mod sinks;
pub mod worker;
