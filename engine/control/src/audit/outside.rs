//! `audit.head`: the newest checkpoint again, in a file beside control.db.
//!
//! ```text
//! {"number":812,"time":1900000000,"hash":"…","signature":"…"}    one line, mode 0600; as in `audit_checkpoints`
//! ```
//! Chain and head are inside of control.db and fit an older control.db as well. This file shows that one was put back,
//! to whoever left it in its place: it is compared at each start and by `sepal audit verify`. It is replaced by a
//! newer checkpoint only as long as the chain has the one that is in it.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{ControlError, control_error::Result, keys::key_file::parent};

use super::AuditCheckpoint;

const NAME: &str = "audit.head";

/// Errors: why it cannot be read, for people.
pub(super) fn read(database: &Path) -> Result<Option<AuditCheckpoint>, String> {
    let path = parent(database).join(NAME);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| format!("{} is no checkpoint ({error})", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be read ({error})", path.display())),
    }
}

/// Durable on return.
pub(super) fn write(database: &Path, checkpoint: &AuditCheckpoint) -> Result<()> {
    let directory = parent(database);
    let (path, new) = (directory.join(NAME), directory.join("audit.head.new"));
    let io = |source| ControlError::Io { path: path.clone(), source };
    let mut text = serde_json::to_vec(checkpoint).expect("numbers and strings always serialise");
    text.push(b'\n');
    write_synced(&new, &text).map_err(io)?;
    fs::rename(&new, &path).map_err(io)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)
}

fn write_synced(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}
