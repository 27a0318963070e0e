//! A PostgreSQL of our own, where one is installed.
//!
//! For `slt` it is the oracle: what `slt/postgres` says must be what PostgreSQL does. For `pipelines` it is a
//! destination.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::server::{Login, run_within, spawn};

/// Gone when dropped.
pub struct Oracle {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Oracle {
    /// In a new directory, without a password. `None`: none is installed. Blocks; for a runtime with several threads.
    pub fn start() -> Option<Oracle> {
        let binaries = ["15", "16", "17"]
            .iter()
            .map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")));
        let binaries = binaries.into_iter().find(|path| path.join("initdb").exists())?;
        let directory = TempDir::new().expect("a temporary directory");
        let data = directory.path().join("data");
        let port = free_port();
        let mut initdb = as_postgres(&directory, &binaries.join("initdb"))?;
        initdb.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
            "-A",
            "trust",
        ]);
        let (status, text) = run_within(Duration::from_secs(60), initdb);
        assert!(status.success(), "initdb: {text}");
        let mut server = as_postgres(&directory, &binaries.join("postgres"))?;
        server.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-F", "-k", ""]).arg("-p").arg(port.to_string());
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let oracle = Oracle { process: spawn(server), port, _directory: directory };
        oracle.wait();
        Some(oracle)
    }

    pub fn login(&self) -> Login {
        Login {
            port: self.port,
            user: "postgres".into(),
            token: String::new(),
            database: "postgres".into(),
            authority: None,
        }
    }

    fn wait(&self) {
        let config = self.login().config();
        for _ in 0..300 {
            let config = config.clone();
            let up = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async move { config.connect(NoTls).await.is_ok() })
            });
            if up {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL did not start on port {}", self.port);
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// PostgreSQL refuses to run as root: then its own user runs it, if there is one.
fn as_postgres(directory: &TempDir, program: &Path) -> Option<Command> {
    // SAFETY: `geteuid` has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some(Command::new(program));
    }
    let chown = Command::new("chown").arg("postgres").arg(directory.path()).status();
    if !chown.is_ok_and(|status| status.success()) {
        return None;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL"]).arg(program);
    command.current_dir(directory.path());
    Some(command)
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}
