//! A segment: one sealed Parquet file of one table's rows.
//!
//! Checkpoints write them, `chunk::sealed` reads single columns, or some rows of one. Only this module names Parquet.
//! `write` gathers rows, and `encode` makes the file's bytes of them: it has parquet-rs encode, and seals; `thrift` has
//! the few structures that parquet-rs does not write then. `read` and `rows` read by way of parquet-rs, `pages` without
//! it where values stand as they are.
//!
//! ```text
//! file := Parquet, modular encryption: AES-256-GCM, one key per file for footer, pages and page indexes;
//!         encrypted footer ("PARE"); associated data prefix {tenant, table, file}, not stored in the file;
//!         key metadata = the file's id
//! columns: row_id (INT64, unsigned), then c<column id> for each column
//! row groups of about 1,048,576 rows at most, and about 16 MiB
//! ```

mod copy;
mod encode;
mod layout;
mod opened;
mod pages;
mod read;
mod rows;
mod run;
mod space;
mod thrift;
mod write;

use sepal_crypto::{Aad, Key};
use sepal_types::{FileId, TableId, TenantId};

pub(crate) use copy::copy;
pub(crate) use read::Footer;
pub use run::Run;
pub use space::RunSpace;
pub(crate) use write::write;

/// The column that holds row ids.
const ROW_ID: &str = "row_id";

/// What and where a segment is, and its key.
#[derive(Clone)]
pub(crate) struct Identity {
    pub tenant: TenantId,
    pub table: TableId,
    pub file: FileId,
    pub key: Key,
}

impl Identity {
    /// Parquet appends module, row group, column and page to it for every sealed part.
    fn aad_prefix(&self) -> Vec<u8> {
        Aad::new("segment 1").tenant(self.tenant).table(self.table).file(self.file).finish()
    }
}

#[cfg(test)]
mod tests;
