//! What a provider asks for, and where it comes from.

use std::{
    fmt,
    io::{self, IsTerminal, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use zeroize::Zeroizing;

use crate::config::Config;

/// systemd's name for it: `LoadCredential=sepal-root-secret:…`.
const CREDENTIAL: &str = "sepal-root-secret";
const MAX_BYTES: u64 = 4096;

/// A secret, or where it is.
#[derive(Clone)]
pub enum Secret {
    /// Read at each use: an agent may renew it.
    File(PathBuf),
    /// Read from standard input, once.
    Held(Arc<Zeroizing<String>>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "Secret(file {})", path.display()),
            Self::Held(_) => f.write_str("Secret(redacted)"),
        }
    }
}

impl Secret {
    /// The root key's, as the settings say: `root_secret_file`, `-` for standard input; else systemd's credential.
    pub fn of(config: &Config) -> Result<Self, String> {
        match &config.root_secret_file {
            Some(path) if path.as_os_str() == "-" => from_stdin(),
            Some(path) => Ok(Self::File(path.clone())),
            None => {
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
                let credential = directory.map(|directory| directory.join(CREDENTIAL));
                credential.filter(|path| path.is_file()).map(Self::File).ok_or_else(|| {
                    "it needs a passphrase, PIN or token, and none was given: name the file that holds it with \
                     --root-secret-file (`-` for standard input), or give systemd the credential sepal-root-secret"
                        .into()
                })
            }
        }
    }

    /// Without the line's end.
    pub fn read(&self) -> Result<Zeroizing<String>, String> {
        match self {
            Self::File(path) => from_file(path),
            Self::Held(text) => Ok((**text).clone()),
        }
    }
}

fn from_file(path: &Path) -> Result<Zeroizing<String>, String> {
    let named = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| named(&error))?;
    // The open file is judged, not the path: nobody can exchange it in between.
    let metadata = file.metadata().map_err(|error| named(&error))?;
    if !metadata.is_file() {
        return Err(named(&"it is not a regular file"));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    // SAFETY: geteuid takes no argument, touches no memory and cannot fail (POSIX).
    let user = unsafe { libc::geteuid() };
    if mode & 0o077 != 0 && !is_credential(path) {
        return Err(format!(
            "{0} has mode {mode:04o}, so others than its owner may read it. Run: chmod 600 {0}",
            path.display()
        ));
    }
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(format!(
            "{0} belongs to user {1}, but this process runs as user {user}. Run: chown {user} {0}",
            path.display(),
            metadata.uid()
        ));
    }
    read_line(file).map_err(|why| named(&why))
}

/// systemd makes these, with modes of its own, in a directory that only the service can enter.
fn is_credential(path: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|directory| path.starts_with(directory))
}

fn from_stdin() -> Result<Secret, String> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err("it would be shown on the terminal as it is typed: give it by a pipe or a file".into());
    }
    let text = read_line(stdin.lock()).map_err(|why| format!("standard input: {why}"))?;
    Ok(Secret::Held(Arc::new(text)))
}

fn read_line(source: impl Read) -> Result<Zeroizing<String>, String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_BYTES).unwrap_or(0) + 1));
    source.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("a passphrase, PIN or token has {MAX_BYTES} bytes at most"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err("it is empty".into());
    }
    Ok(Zeroizing::new(text.to_owned()))
}
