//! The three formats of `COPY`, between CopyData's bytes and Arrow batches.
//!
//! `session` pushes what the client sends into a [`Decoder`] and takes batches out of it, and lets an [`Encoder`]
//! write result batches. Both stream: memory holds one batch, one row and what was pushed last. Nothing here
//! sends, waits, or knows how rows are stored.
//!
//! ```text
//! text     value TAB value … LF                \N is NULL; \b \f \n \r \t \v \\ \ooo \xhh; \. alone ends the data
//! csv      value,"quoted ""value""" … LF       an empty unquoted value is NULL; quoted values may span lines
//! binary   header | row … | -1 i16
//!   header "PGCOPY\n\xff\r\n\0" | flags u32 | extension length i32 | extension
//!   row    columns i16 | columns × (length i32, -1 NULL | bytes)
//! ```

mod binary;
mod csv;
mod decode;
mod encode;
mod lines;
mod rows;
mod text;

#[cfg(test)]
mod tests;

pub use decode::Decoder;
pub use encode::{Encoder, RowWriter};

/// Longest row, in bytes as sent. A row must be in memory as a whole, so that this bounds a connection's memory.
pub const MAX_ROW_BYTES: usize = 256 << 20;
/// A batch is handed on once it has this many rows …
pub const BATCH_ROWS: usize = 8_192;
/// … or this many bytes: large enough to amortise a commit, small enough to stay in the cache.
pub const BATCH_BYTES: usize = 4 << 20;
