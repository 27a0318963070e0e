//! `sepal serve` in a directory of its own that survives its end, and the admin socket.

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use sepal_benches::{Failure, connection::Target};
use serde_json::{Value, json};
use tempfile::TempDir;

const START: Duration = Duration::from_mins(2);
const END: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(5);

/// Ends when dropped, and its directory goes.
pub struct Sepal {
    program: PathBuf,
    port: u16,
    flags: Vec<String>,
    process: Option<Child>,
    folder: TempDir,
}

/// An open admin socket.
pub struct Admin {
    port: u16,
    lines: BufReader<UnixStream>,
}

impl Sepal {
    /// A data directory; nothing runs yet.
    pub fn init(program: &str, port: u16, flags: Vec<String>) -> Result<Sepal, Failure> {
        let program = fs::canonicalize(program).map_err(|error| format!("{program}: {error}"))?;
        let place = env::var_os("SEPAL_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
        let folder = tempfile::Builder::new().prefix("sepal-tenants-").tempdir_in(place)?;
        let sepal = Sepal { program, port, flags, process: None, folder };
        let output = Command::new(&sepal.program).arg("init").arg("--data").arg(sepal.data()).output()?;
        if !output.status.success() {
            return Err(format!("sepal init: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(sepal)
    }

    /// How long it took until clients were accepted.
    pub fn start(&mut self) -> Result<Duration, Failure> {
        let begun = Instant::now();
        let process = Command::new(&self.program)
            .args(["serve", "--insecure-plaintext", "--http-listen", "127.0.0.1:0", "--data"])
            .arg(self.data())
            .args(["--pg-listen", &format!("127.0.0.1:{}", self.port)])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.log())?)
            .spawn()?;
        let process = self.process.insert(process);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if process.try_wait()?.is_some() || begun.elapsed() > START {
                let said = fs::read_to_string(self.log()).unwrap_or_default();
                return Err(format!("sepal serve did not start:\n{said}").into());
            }
            thread::sleep(LOOK);
        }
        Ok(begun.elapsed())
    }

    /// As a person would.
    pub fn stop(&mut self) -> Result<(), Failure> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        Command::new("kill").args(["-INT", &process.id().to_string()]).status()?;
        let begun = Instant::now();
        while process.try_wait()?.is_none() {
            if begun.elapsed() > END {
                process.kill()?;
                process.wait()?;
                return Err("the server did not end when it was asked to".into());
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// What the process holds in memory, in MB of 10^6 bytes.
    pub fn resident_mb(&self) -> Result<f64, Failure> {
        let process = self.process.as_ref().ok_or("the server has ended")?;
        let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS in /proc")?;
        Ok(kib.parse::<f64>()? * 1024.0 / 1e6)
    }

    pub fn admin(&self) -> Result<Admin, Failure> {
        let socket = UnixStream::connect(self.data().join("admin.sock"))?;
        Ok(Admin { port: self.port, lines: BufReader::new(socket) })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Admin {
    /// Makes a tenant and a key of its. Its name as the user lets the token be the password in clear.
    pub fn tenant(&mut self, name: &str) -> Result<Target, Failure> {
        self.ask(&json!({ "command": "tenant-create", "name": name }))?;
        let made = self.ask(&json!({
            "command": "key-create",
            "tenant": name,
            "environment": null,
            "write": true,
            "label": "tenant_load",
            "expires_at": null,
        }))?;
        let token = made["key"]["token"].as_str().ok_or("the answer to key-create has no token")?;
        Ok(Target::local(self.port, name, token, "default"))
    }

    fn ask(&mut self, request: &Value) -> Result<Value, Failure> {
        self.lines.get_mut().write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        let mut answer: Value = serde_json::from_str(&line)?;
        match answer.get_mut("ok") {
            Some(answer) => Ok(answer.take()),
            None => Err(format!("the server refused {request}: {answer}").into()),
        }
    }
}

impl Drop for Sepal {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("tenant_load: {error}");
        }
    }
}
