//! Which of a tenant's keys a log file needs: told by its header, without opening it.
//!
//! Asked by `rotation`, which must know when an older key is needed no more.

use sepal_crypto::{KeyRing, WRAPPED_KEY_BYTES};

use super::header::HEADER_BYTES;
use crate::{
    StoreError,
    disk::{Disk, io_error},
    paths::Paths,
};

/// Whether the file's key is wrapped under the ring's current one.
pub(crate) fn is_under_current(
    disk: &Disk,
    paths: &Paths,
    keys: &KeyRing,
    number: u64,
) -> Result<bool, StoreError> {
    let path = paths.wal_file(number);
    let mut wrapped = [0; WRAPPED_KEY_BYTES];
    let at = (HEADER_BYTES - WRAPPED_KEY_BYTES) as u64;
    let read = disk.open(&path)?.read_exact_at(&mut wrapped, at);
    read.map_err(|error| io_error("read", &path, &error))?;
    Ok(keys.is_current(&wrapped))
}
