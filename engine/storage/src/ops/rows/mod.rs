//! The rows of a small insert: column after column, each with its type in a few bytes and its values as they are.
//!
//! Called by `encode` and `decode`, for the body of op 10. An Arrow stream says more about one row than the row has,
//! and building it was a tenth of what a server does for an INSERT. Here a column says its id and type, so that whoever
//! reads the log needs no definition beside it, whatever ALTER TABLE came between. Rows that are many are still an
//! Arrow stream (op 5): that takes the columns as they are, this copies them. So are columns of a type that is not
//! listed below.
//!
//! ```text
//! rows     := rows u32 | columns u16 | column*
//! column   := id u32 | type | array
//! type     := code u8 | what follows the code
//!              1 boolean    2 int16   3 int32   4 int64   5 float16   6 float32   7 float64
//!              8 decimal    precision u8 | scale i8
//!              9 text      10 bytes   11 fixed bytes      width u32
//!             12 date      13 time    14 timestamp        15 timestamp in UTC           16 interval
//!             17 list       item
//!             18 fixed list size u32 | item
//!             19 byte
//! item     := nullable u8 | name length u8 | name | type
//! array    := nulls u8 | bits, where nulls = 1 | values             a bit is 1 where there is a value
//! values   := boolean       bits
//!             text, bytes   end u32 for each | bytes                the first one begins at 0
//!             fixed bytes   width for each
//!             list          end u32 for each | array of the items
//!             fixed list    array of size items for each
//!             others        for each what Arrow has in memory: 1 to 16 bytes, little-endian
//! bits     := a byte for every 8, the first in the lowest bit; the last byte's rest is zero
//! ```

mod decode;
mod encode;
mod types;

pub(super) use decode::decode;
pub(super) use encode::encode;

/// Bodies beyond this are Arrow streams.
pub(super) const MAX_BYTES: usize = 64 << 10;
/// How deep lists may lie in lists.
const MAX_DEPTH: u32 = 8;
const _: () = assert!(cfg!(target_endian = "little"), "values are copied, not converted");

#[cfg(test)]
mod tests;
