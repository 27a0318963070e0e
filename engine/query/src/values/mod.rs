//! Postgres' text and binary forms of every SQL type, from Arrow and to Arrow.
//!
//! `session` encodes result rows with [`ColumnEncoder`] and decodes parameters with [`decode_text`] and
//! [`decode_binary`]; `copy` feeds whole columns through [`Builder`]. Forms, checks and wording are those of
//! Postgres 17 and pgvector 0.8 in a session whose `DateStyle` is ISO, whose `IntervalStyle` is postgres, or iso_8601
//! where [`ColumnEncoder::with_intervals`] says so, and whose time zone is [`Zone::current`](crate::Zone::current). Nothing
//! here knows of messages, statements or sockets.
//!
//! ```text
//! type                   | binary form, big-endian
//! bool, "char"           | u8
//! int2, int4, int8, oid  | i16, i32, i64, u32
//! float4, float8         | IEEE 754
//! numeric                | digits u16 | weight i16 | sign u16 | scale u16 | digits × (0..9999 as u16)
//! text, varchar, name, json, enums | UTF-8      jsonb | 1 u8 | UTF-8      bytea | bytes      uuid | 16 bytes
//! date                   | i32 days since 2000-01-01
//! time                   | i64 µs since midnight
//! timestamp, timestamptz | i64 µs since 2000-01-01 00:00:00 (UTC)
//! interval               | i64 µs | i32 days | i32 months
//! array                  | dimensions i32 | has nulls i32 | element oid u32 | per dimension: length i32, lower bound i32 |
//!                        | per element: length i32 (-1 NULL), bytes
//! bit                    | bits i32 | ⌈bits/8⌉ bytes
//! tsvector, tsquery      | drawn in `text_search/mod.rs`
//! vector, halfvec        | dimensions u16 | 0 u16 | dimensions × f32, × f16
//! sparsevec              | dimensions i32 | elements i32 | 0 i32 | elements × index i32 from 0 | elements × f32
//! ```

mod array;
mod binary_in;
mod binary_out;
mod bit;
mod builder;
mod column;
mod datetime;
mod interval;
mod json;
mod numeric;
mod sparse;
mod text_in;
mod text_out;
pub(crate) mod text_search;
mod vector;

#[cfg(test)]
mod tests;

pub use bit::{BitBuilder, BitColumn};
pub use builder::{Builder, decode_binary, decode_text};
pub use column::{ColumnEncoder, encode_binary, encode_text};
pub(crate) use json::{normalize as normalize_json, quote as quote_json};
pub use sparse::{SparseBuilder, SparseColumn};
