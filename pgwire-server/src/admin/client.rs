//! Asks a running server, for the command line. Blocking: a command does one thing.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use zeroize::Zeroizing;

use super::{Answer, MAX_LINE_BYTES, Refusal, Reply, Request, socket};

/// Dropping a tenant waits for its statements to end and its files to go.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// Nobody answers on the socket.
    NoServer {
        data: PathBuf,
    },
    /// The socket exists but is not ours to open.
    NotAllowed {
        path: PathBuf,
    },
    Refused(Refusal),
    /// The server went away, or speaks another version.
    Broken(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer { data } => write!(
                f,
                "no server is running on {data} (no answer on {data}/{name}): start one with \
                 `sepal serve --data {data}`",
                data = data.display(),
                name = socket::NAME
            ),
            Self::NotAllowed { path } => write!(
                f,
                "may not open {}: run this command as the user that the server runs as",
                path.display()
            ),
            Self::Refused(refusal) => {
                f.write_str(&refusal.message)?;
                if let Some(hint) = &refusal.hint {
                    write!(f, ". {hint}")?;
                }
                Ok(())
            }
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for AskError {}

/// Sends one request to the server on a data directory and waits for its answer.
pub fn ask(data: &Path, request: &Request) -> Result<Answer, AskError> {
    let mut stream = connect(data)?;
    let broken = |error: io::Error| AskError::Broken(format!("the server went away: {error}"));
    // A secret's value may be in it.
    let line = serde_json::to_vec(request).map_err(|error| AskError::Broken(error.to_string()))?;
    let mut line = Zeroizing::new(line);
    line.push(b'\n');
    stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    stream.write_all(&line).map_err(broken)?;
    // A new key's token may be in it.
    let mut answer = Zeroizing::new(Vec::<u8>::new());
    BufReader::new(stream.take(MAX_LINE_BYTES as u64)).read_until(b'\n', &mut answer).map_err(broken)?;
    match serde_json::from_slice(&answer) {
        Ok(Reply::Ok(answer)) => Ok(answer),
        Ok(Reply::Error(refusal)) => Err(AskError::Refused(refusal)),
        Err(_) if answer.is_empty() => Err(AskError::Broken("the server closed without an answer".into())),
        Err(error) => Err(AskError::Broken(format!(
            "the server's answer is not understood ({error}): use the `sepal` of the server's version"
        ))),
    }
}

fn connect(data: &Path) -> Result<UnixStream, AskError> {
    let no_server = || AskError::NoServer { data: data.to_path_buf() };
    let directory = socket::SocketDir::open(data).map_err(|_| no_server())?;
    UnixStream::connect(directory.join(socket::NAME)).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => AskError::NotAllowed { path: data.join(socket::NAME) },
        _ => no_server(),
    })
}
