//! The process `sepal`: Postgres on one port, HTTP on another. `main.rs` only hands its arguments to [`cli`].
//!
//! The journey of a query over Postgres' wire:
//! 1. [`server::serve`] accepts the socket, counts it and gives it a task of its own.
//! 2. `session::startup` negotiates TLS ([`tls`]) and reads the startup packet; `session::auth` proves the key
//!    (SCRAM or the token over TLS) and binds the connection to one `Principal` and one environment.
//! 3. [`frame`] cuts exactly one message out of the bytes that arrived and decodes it without copying. A
//!    malformed frame ends the connection; it never panics and never reaches the session.
//! 4. `session::simple` or `session::extended` hands SQL to `sepal_database::Session`, which answers with a
//!    stream of record batches.
//! 5. [`sepal_database::values`] writes each row into the output buffer, which is sent at Sync, Flush or 64 KiB
//!    and never grows with the result: a slow client slows the query down.
//!
//! Nothing here knows how data is stored or planned; that is behind `sepal_database`.

pub mod admin;
pub mod backups;
pub mod certificates;
pub mod cli;
pub mod config;
pub mod copy;
pub mod demo;
pub mod frame;
pub mod http;
pub mod metrics;
pub mod plugins;
pub mod root_key;
pub mod server;
pub mod session;
pub mod tls;
