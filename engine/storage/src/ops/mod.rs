//! What a commit consists of, and its bytes in the log.
//!
//! `query` makes [`Op`]s, `group` encodes them into a commit's payload, `store::open` and the feed decode them. Nothing
//! here seals, checks a constraint or knows a file.
//!
//! Numbers are big-endian. The payload starts at a 64-byte boundary, and so does every body: a decoded Arrow
//! batch then uses the payload's own memory.
//!
//! ```text
//! payload  := head op*
//! head     := version u8 = 4 | flags u8 | zero 2 | ops u32 | sequences u32 | zero 4 | time i64 | sequence*
//!             | zero to 64
//! flags    := 1: has before-images; 2: has definitions with constraints, since version 4; the other bits are zero
//! time     := when it was committed, in microseconds since 1970-01-01 00:00 UTC; later than the commit before
//! sequence := table u32 | column u32 | next i64                  a serial's next value, if that is later
//! op       := zero 40 | kind u8 | zero 3 | table u32 | number u64 | length u64 | body | zero to 64
//!             kind                number          body
//!             1 create table      0               definition as JSON
//!             2 alter table       0               definition as JSON
//!             3 drop table        0               –
//!             4 truncate          0               –
//!             5 insert            first row id    Arrow IPC stream: schema, one batch, end
//!             6 delete            0               row ids, u64 each, ascending
//!             7 set sequence      column          next i64
//!             8 before            rows            Arrow IPC stream of the rows that the next op deletes
//!             9 clone             0               definition and the segments that it shares as JSON
//!             10 small insert     first row id    rows, as `rows` draws them
//! ```
//! Before-images are those of tables whose changes a pipeline reads. A recovery does not look at them. An insert of few
//! bytes is op 10, any other op 5.
//!
//! Older logs have heads of three other versions. Version 3 differs in having no op 10. Versions 2 and 1 have no flags
//! and no time: `version u8 | zero 3 | ops u32 | sequences u32 | zero 4 | sequence* | zero to 64`; version 2 has
//! before-images, version 1 has none, and neither has clones.

mod clone;
mod decode;
mod encode;
mod rows;

use arrow::record_batch::RecordBatch;
use sepal_types::{ColumnId, RowId, TableDef, TableId};

pub use clone::CloneSource;
pub(crate) use clone::ClonedSegment;
pub(crate) use decode::{Decoded, Record, decode, decode_wanted};
pub(crate) use encode::{EncodedOps, encode_head, encode_ops};

/// What every payload was before there were before-images.
const PLAIN: u8 = 1;
const WITH_BEFORE: u8 = 2;
/// With flags and the commit's time.
const TIMED: u8 = 3;
/// With small inserts: what is written today.
const COMPACT: u8 = 4;
/// A flag, since [`TIMED`].
const HAS_BEFORE: u8 = 1;
/// A flag: CHECK or FOREIGN KEY constraints are among the definitions. A program that does not know them must not take
/// these for all there is.
const HAS_CONSTRAINTS: u8 = 2;
const ALIGNMENT: usize = 64;
const OP_HEADER_BYTES: usize = 24;
const SEQUENCE_BYTES: usize = 16;

/// One change. A commit is a list of them, applied in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    CreateTable(TableDef),
    /// The whole new definition: columns, constraints, indexes, name.
    AlterTable(TableDef),
    DropTable(TableId),
    Truncate(TableId),
    /// Rows `first_row`, `first_row + 1`, …, from [`crate::TenantStore::reserve_rows`]. The batch has the table's
    /// columns in the definition's order, named by [`crate::stored_name`], typed by [`crate::arrow_type`].
    Insert {
        table: TableId,
        first_row: RowId,
        rows: RecordBatch,
    },
    /// Ascending row ids. An UPDATE is a delete and an insert.
    Delete {
        table: TableId,
        rows: Vec<RowId>,
    },
    /// `setval`, or `TRUNCATE … RESTART IDENTITY`: the next value, whatever it was before.
    SetSequence {
        table: TableId,
        column: ColumnId,
        next: i64,
    },
    /// A new table with the rows of another one, whose segments it shares. From
    /// [`crate::TenantStore::clone_ops`], which also gives what goes with it.
    Clone {
        def: TableDef,
        source: CloneSource,
    },
}

impl Op {
    /// The table that it changes.
    pub fn table(&self) -> TableId {
        match self {
            Self::CreateTable(def) | Self::AlterTable(def) | Self::Clone { def, .. } => def.id,
            Self::DropTable(table)
            | Self::Truncate(table)
            | Self::Insert { table, .. }
            | Self::Delete { table, .. }
            | Self::SetSequence { table, .. } => *table,
        }
    }
}

/// The rows that a delete takes away, for whoever reads the log: columns and order as an insert of them would have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BeforeImage {
    /// The delete's place among the commit's ops.
    pub op: usize,
    pub rows: RecordBatch,
}

/// How far a serial had counted when a commit was logged. Recovery never sets a sequence back by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SequenceMark {
    pub table: TableId,
    pub column: ColumnId,
    pub next: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    CreateTable = 1,
    AlterTable = 2,
    DropTable = 3,
    Truncate = 4,
    Insert = 5,
    Delete = 6,
    SetSequence = 7,
    Before = 8,
    Clone = 9,
    SmallInsert = 10,
}

#[cfg(test)]
mod tests;
