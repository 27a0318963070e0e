//! Values in the server's own environment and files: where a container's platform puts them.
//!
//! Only an operator names them, and only below what the operator's configuration opens: a name of a tenant's choice
//! would read the server's files. Nothing falls through from one source to another.

use std::{
    fs::OpenOptions,
    io::Read,
    os::unix::{ffi::OsStringExt, fs::OpenOptionsExt},
    path::{Component, Path},
};

use zeroize::Zeroizing;

use crate::options::SecretSources;

const MAX_FILE_BYTES: u64 = 64 << 10;

/// An environment variable of this process. Errors say why not, and nothing of the value.
pub fn variable(sources: &SecretSources, name: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let prefix = sources.env_prefix.as_deref().filter(|prefix| !prefix.is_empty());
    let Some(prefix) = prefix else {
        return Err("this server takes no secrets from its environment (secret_env_source)".to_owned());
    };
    if !name.starts_with(prefix) {
        return Err(format!(
            "the environment variable {name} does not begin with {prefix} (secret_env_source)"
        ));
    }
    let value =
        std::env::var_os(name).ok_or_else(|| format!("the environment variable {name} is not set"))?;
    not_empty(Zeroizing::new(value.into_vec()))
}

/// A file below the operator's folder, without the newline at its end.
///
/// `path` is relative and stays below: no `..`, no link that leads out. Links within are followed, as Kubernetes
/// mounts need.
pub fn file(sources: &SecretSources, path: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let Some(root) = &sources.file_root else {
        return Err("this server takes no secrets from files (secret_file_root)".to_owned());
    };
    let relative = Path::new(path);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !plain {
        return Err(format!("\"{path}\" is no path below the folder of secrets (secret_file_root)"));
    }
    let unreadable =
        |problem: std::io::Error| format!("the file \"{path}\" cannot be read: {}", problem.kind());
    let root = root.canonicalize().map_err(|problem| {
        format!("the folder of secrets (secret_file_root) cannot be read: {}", problem.kind())
    })?;
    let target = root.join(relative).canonicalize().map_err(unreadable)?;
    if !target.starts_with(&root) {
        return Err(format!("the file \"{path}\" leads out of the folder of secrets (secret_file_root)"));
    }
    // Not blocking: a pipe that nobody writes to must not hold a thread.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(&target).map_err(unreadable)?;
    let about = opened.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(format!("\"{path}\" is not a regular file"));
    }
    if about.len() > MAX_FILE_BYTES {
        return Err(format!("the file \"{path}\" has {} bytes; {MAX_FILE_BYTES} is the most", about.len()));
    }
    // At its full size at once: a buffer that grows leaves copies behind.
    let mut value = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize + 1));
    opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut value).map_err(unreadable)?;
    if value.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("the file \"{path}\" has more than {MAX_FILE_BYTES} bytes"));
    }
    if value.ends_with(b"\n") {
        value.pop();
        if value.ends_with(b"\r") {
            value.pop();
        }
    }
    not_empty(value)
}

fn not_empty(value: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, String> {
    if value.is_empty() { Err("its value is empty".to_owned()) } else { Ok(value) }
}
