//! Answers the admin socket of a running server.
//!
//! Started by `cli::process` once the database is open, so only the process that holds the data directory's
//! lock ever touches the socket. Each client has a task; a line too long or not JSON is answered with an error.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use sepal_database::Database;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;
use zeroize::{Zeroize, Zeroizing};

use crate::backups::Backups;

use super::{MAX_LINE_BYTES, Refusal, Reply, Request, Status, handler, socket};

/// The open socket; [`AdminSocket::serve`] answers on it, dropping it removes the file.
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Opens the socket in the data directory, with mode 0600 from its first moment under that name. A file
    /// that a killed server left is replaced.
    pub fn bind(data: &Path) -> io::Result<Self> {
        let directory = socket::SocketDir::open(data)?;
        let temporary = format!("{}.new-{}", socket::NAME, std::process::id());
        match fs::remove_file(data.join(&temporary)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(directory.join(&temporary))?;
        let path = data.join(socket::NAME);
        fs::set_permissions(data.join(&temporary), fs::Permissions::from_mode(0o600))?;
        fs::rename(data.join(&temporary), &path)?;
        Ok(Self { listener, path })
    }

    /// Answers until `stop`; requests being answered then are finished.
    pub async fn serve(
        self,
        database: Arc<Database>,
        backups: Arc<Backups>,
        status: Status,
        stop: CancellationToken,
    ) {
        let status = Arc::new(status);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let backups = Arc::clone(&backups);
                    tokio::spawn(converse(stream, Arc::clone(&database), backups, Arc::clone(&status)));
                }
                Err(error) => {
                    tracing::warn!(%error, "admin socket: accept failed");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "admin socket already gone");
        }
    }
}

async fn converse(stream: UnixStream, database: Arc<Database>, backups: Arc<Backups>, status: Arc<Status>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    // A secret's value may be in it.
    let mut line = Zeroizing::new(Vec::<u8>::new());
    loop {
        line.zeroize();
        let limit = MAX_LINE_BYTES as u64;
        let reply = match (&mut read).take(limit).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) if line.last() == Some(&b'\n') => answer(&line, &database, &backups, &status).await,
            Ok(_) => Reply::Error(malformed(format!("a request must be one line of at most {limit} bytes"))),
        };
        // A new key's token is in it.
        let Ok(mut bytes) = serde_json::to_vec(&reply).map(Zeroizing::new) else { return };
        bytes.push(b'\n');
        if write.write_all(&bytes).await.is_err() || line.last() != Some(&b'\n') {
            return;
        }
    }
}

async fn answer(line: &[u8], database: &Arc<Database>, backups: &Backups, status: &Status) -> Reply {
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return Reply::Error(malformed(format!("request not understood: {error}"))),
    };
    match handler::handle(request, database, backups, status).await {
        Ok(answer) => Reply::Ok(answer),
        Err(error) => Reply::Error(Refusal {
            message: error.operator_message().to_owned(),
            code: error.state().code().to_owned(),
            hint: error.hint().map(str::to_owned),
        }),
    }
}

fn malformed(message: String) -> Refusal {
    Refusal { message, code: "08P01".into(), hint: Some("Use the `sepal` of the server's version.".into()) }
}
