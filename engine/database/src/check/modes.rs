//! Files that others than their owner may use.
//!
//! What most of them hold is sealed, so this is a second wall; but whoever may write there may damage, what is not to be
//! read is not to be read in a backup either, and root and TLS keys have no other wall.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{Problem, Severity};

/// Others may read, write or search.
const OTHERS: u32 = 0o077;
/// Others may write. Directories below the data directory may be searched by those who cannot reach them.
const OTHERS_WRITE: u32 = 0o022;

/// The directory and everything in it, but for what a link leads to.
pub(super) fn too_wide(data: &Path) -> Vec<Problem> {
    let mut found = Vec::new();
    judge(data, data, OTHERS, &mut found);
    let mut waiting: Vec<PathBuf> = vec![data.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => {
                    judge(data, &path, OTHERS_WRITE, &mut found);
                    waiting.push(path);
                }
                Ok(kind) if kind.is_symlink() => {}
                Ok(_) => judge(data, &path, forbidden(&path), &mut found),
                Err(_) => {}
            }
        }
    }
    found
}

/// Certificates are there to be read, and an operator's settings have no secret among them.
fn forbidden(file: &Path) -> u32 {
    let may_be_read = file.extension().is_some_and(|extension| extension == "crt" || extension == "toml");
    if may_be_read { OTHERS_WRITE } else { OTHERS }
}

fn judge(data: &Path, path: &Path, forbidden: u32, found: &mut Vec<Problem>) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & forbidden == 0 {
        return;
    }
    let right = if metadata.is_dir() { "700" } else { "600" };
    let shown = path.strip_prefix(data).unwrap_or(path).display().to_string();
    found.push(Problem {
        severity: Severity::Warning,
        tenant: None,
        file: if shown.is_empty() { ".".to_owned() } else { shown },
        what: format!("it has mode {mode:03o}, so others than its owner may use it"),
        consequence: format!("run: chmod {right} {}", path.display()),
    });
}
