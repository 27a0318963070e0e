//! A segment's rows to a file under another key.
//!
//! Called when file keys are rotated. Columns are copied as they are stored, those too that some table no longer has, and
//! deleted rows as well: nothing but key and file id is different.

use std::path::Path;

use super::{
    Identity,
    read::Footer,
    write::{Gathered, write_file},
};
use crate::{StoreError, disk::Disk};

/// Writes what `footer` opened at `from` anew, as `identity` says. Gives the new file's length; its bytes are durable on
/// return, its name is not.
pub(crate) fn copy(
    disk: &Disk,
    footer: &Footer,
    from: &Path,
    to: &Path,
    identity: &Identity,
) -> Result<u64, StoreError> {
    let gathered = Gathered::stored(footer.stored(disk, from)?)?;
    let written = write_file(disk, to, identity, &gathered);
    if written.is_err() {
        disk.discard("segment", to);
    }
    Ok(written?.bytes)
}
