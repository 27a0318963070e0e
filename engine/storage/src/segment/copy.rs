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
use crate::{
    StoreError,
    checkpoint::{Pace, Phase},
    disk::Disk,
};

/// Writes what `footer` opened at `from` anew, as `identity` says, no faster than `pace` lets it. Gives the new file's
/// length; its bytes are durable on return, its name is not.
pub(crate) fn copy(
    disk: &Disk,
    footer: &Footer,
    from: &Path,
    to: &Path,
    identity: &Identity,
    pace: &dyn Pace,
) -> Result<u64, StoreError> {
    pace.phase(Phase::Reading);
    let rows = footer.stored(disk, from)?;
    pace.spend(rows.get_array_memory_size() as u64);
    let gathered = Gathered::stored(rows)?;
    pace.phase(Phase::Writing);
    let written = write_file(disk, to, identity, &gathered, pace);
    if written.is_err() {
        disk.discard("segment", to);
    }
    Ok(written?.bytes)
}
