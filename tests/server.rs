//! A `sepal dev` process to test against, and ways to log in.
//!
//! Every other module starts here: [`Server::shared`] is one server for the whole test process,
//! [`Server::start`] a private one that may be killed. It runs the built binary as a user would: command
//! line, env file, admin socket. It never links a crate of the product, so a test can only see what a client
//! or an operator sees.

use std::{
    ffi::OsStr,
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::{Client, Config, Error, NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a server may take until it serves. Recovery of a large log in a debug build is the slowest.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a server may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server and its directory, both gone when this is dropped.
pub struct Server {
    directory: TempDir,
    flags: Vec<String>,
    /// What the process is started by, with its arguments. It must become the server, not start it.
    wrapper: Vec<String>,
    /// Variables of its environment, beside the test's own.
    variables: Vec<(String, String)>,
    process: Option<Child>,
    login: Login,
}

/// What one client needs to connect.
#[derive(Clone, Debug)]
pub struct Login {
    pub port: u16,
    /// A key id (SCRAM) or a tenant's name (token as password over TLS).
    pub user: String,
    pub token: String,
    pub database: String,
    /// The server's authority; `None` connects without TLS.
    pub authority: Option<PathBuf>,
}

/// A key as `sepal key create --json` tells it: valid until revoked, over restarts too.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: String,
    pub token: String,
    pub environment: Option<String>,
}

impl Server {
    /// The server that all tests of this process share. Tests keep apart by table names.
    pub fn shared() -> &'static Server {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Server::start().for_a_static())
    }

    /// A server to be kept in a static, which is never dropped: its directory is removed when the process exits.
    /// The server itself dies with the process.
    pub fn for_a_static(self) -> Server {
        remove_at_exit(self.directory.path());
        self
    }

    /// A private server in a new directory.
    pub fn start() -> Server {
        Server::start_with(&[])
    }

    /// A private server with more flags.
    pub fn start_with(flags: &[&str]) -> Server {
        Server::start_in(TempDir::new().expect("a temporary directory"), flags)
    }

    /// A private server whose directory is already there.
    pub fn start_in(directory: TempDir, flags: &[&str]) -> Server {
        Server::start_in_with(directory, flags, &[])
    }

    /// The same, with variables of its environment.
    pub fn start_in_with(directory: TempDir, flags: &[&str], variables: &[(&str, &str)]) -> Server {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut server = Server {
            directory,
            flags: flags.iter().map(ToString::to_string).collect(),
            wrapper: Vec::new(),
            variables: variables.iter().map(own).collect(),
            process: None,
            login: Login {
                port: 0,
                user: String::new(),
                token: String::new(),
                database: String::new(),
                authority: None,
            },
        };
        if let Err(ended) = server.try_start() {
            panic!("sepal dev did not start ({}):\n{}", ended.status, ended.log);
        }
        server
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// From the next start on the server runs under this, or under nothing.
    pub fn run_under(&mut self, wrapper: &[String]) {
        self.wrapper = wrapper.to_vec();
    }

    /// Everything the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// The process, which must be running.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|child| child.try_wait().expect("wait").is_none())
    }

    /// Bytes of memory that the process holds now (`VmRSS`).
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("process status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number");
        kib * 1024
    }

    /// Starts the process on the directory as it is. `Err` if it ends instead of serving.
    pub fn try_start(&mut self) -> Result<(), Ended> {
        assert!(self.process.is_none(), "the server runs already");
        let env_file = self.directory.path().join("env");
        let _ = fs::remove_file(&env_file);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("log file");
        let offset = log.metadata().expect("log file").len();
        let program = binary();
        let mut words = self.wrapper.iter().map(OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().expect("a program"));
        command
            .args(words)
            .arg("dev")
            .arg("--data")
            .arg(self.data())
            .arg("--env-file")
            .arg(&env_file)
            .args(["--pg-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
            .args(&self.flags)
            // Else it depends on the machine, and with it where segments end.
            .env("SEPAL_CACHE_MIB", "1024")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let mut child = spawn(command);
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = child.try_wait().expect("wait for the server") {
                let log = fs::read(self.log_path()).expect("log file");
                let log = String::from_utf8_lossy(&log[usize::try_from(offset).expect("a small log")..])
                    .into_owned();
                return Err(Ended { status, log });
            }
            // Written whole and renamed, so a file that is there is complete.
            if let Ok(text) = fs::read_to_string(&env_file) {
                self.login = Login::parse(&text);
                self.process = Some(child);
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("sepal dev did not serve within {START_TIMEOUT:?}:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL: what a crash, an out-of-memory killer or an impatient operator does.
    pub fn kill(&mut self) {
        let mut child = self.process.take().expect("the server runs");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// SIGTERM, then waits for a clean end.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.process.take().expect("the server runs");
        terminate(child.id());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().expect("wait") {
                return status;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("sepal dev did not end within {STOP_TIMEOUT:?} of SIGTERM:\n{}", self.log());
    }

    /// Stops and starts again on the same directory.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Starts after [`Server::kill`] or [`Server::stop`].
    pub fn start_again(&mut self) {
        if let Err(ended) = self.try_start() {
            panic!("sepal dev did not start again ({}):\n{}", ended.status, ended.log);
        }
    }

    /// The development tenant's key, the same at every start; the port changes.
    pub fn login(&self) -> Login {
        self.login.clone()
    }

    /// A client of the development tenant.
    pub async fn connect(&self) -> Client {
        self.login.connect().await.expect("connect")
    }

    /// Runs an admin command (`tenant create acme`) and gives the JSON it prints.
    pub fn admin(&self, arguments: &[&str]) -> Value {
        let output = self.try_admin(arguments);
        assert!(
            output.status.success(),
            "sepal {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("JSON on stdout")
    }

    /// Runs an admin command, whatever comes of it.
    pub fn try_admin(&self, arguments: &[&str]) -> Output {
        Command::new(binary())
            .args(arguments)
            .arg("--data")
            .arg(self.data())
            .arg("--json")
            .stdin(Stdio::null())
            .output()
            .expect("run sepal")
    }

    /// Makes a tenant and a key with both scopes.
    pub fn tenant(&self, name: &str) -> Key {
        self.admin(&["tenant", "create", name]);
        self.key(name, &[])
    }

    /// Makes a key; `flags` as `["--scope", "read"]`.
    pub fn key(&self, tenant: &str, flags: &[&str]) -> Key {
        let mut arguments = vec!["key", "create", "--tenant", tenant];
        arguments.extend_from_slice(flags);
        let made = self.admin(&arguments);
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        Key {
            id: text(&made["key"]["id"]).expect("a key id"),
            token: text(&made["token"]).expect("a token"),
            environment: text(&made["key"]["environment"]),
        }
    }

    /// A login with this key, by SCRAM.
    pub fn login_with(&self, key: &Key) -> Login {
        Login {
            user: key.id.clone(),
            token: key.token.clone(),
            database: key.environment.clone().unwrap_or_else(|| "default".to_owned()),
            ..self.login.clone()
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A server that ended instead of serving.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub log: String,
}

impl Login {
    fn parse(env_file: &str) -> Login {
        let value = |name: &str| {
            let prefix = format!("export {name}=");
            env_file.lines().find_map(|line| line.strip_prefix(&prefix)).map(unquote)
        };
        let need = |name: &str| value(name).unwrap_or_else(|| panic!("{name} is not in the env file"));
        Login {
            port: need("PGPORT").parse().expect("PGPORT is a port"),
            user: need("PGUSER"),
            token: need("PGPASSWORD"),
            database: need("PGDATABASE"),
            authority: (need("PGSSLMODE") != "disable").then(|| PathBuf::from(need("PGSSLROOTCERT"))),
        }
    }

    /// The same login to another database.
    pub fn database(mut self, name: &str) -> Login {
        name.clone_into(&mut self.database);
        self
    }

    /// The same login without TLS; the server must run with `--insecure-plaintext`.
    pub fn plaintext(mut self) -> Login {
        self.authority = None;
        self
    }

    /// The same password under another user.
    pub fn user(mut self, name: &str) -> Login {
        name.clone_into(&mut self.user);
        self
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The libpq variables of this login, for programs.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("PGHOST", "localhost".to_owned()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", self.user.clone()),
            ("PGPASSWORD", self.token.clone()),
            ("PGDATABASE", self.database.clone()),
        ];
        match &self.authority {
            Some(path) => {
                variables.push(("PGSSLMODE", "verify-full".to_owned()));
                variables.push(("PGSSLROOTCERT", path.display().to_string()));
            }
            None => variables.push(("PGSSLMODE", "disable".to_owned())),
        }
        variables
    }

    /// What `tokio_postgres` is told.
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config
            .host("localhost")
            .hostaddr(Ipv4Addr::LOCALHOST.into())
            .port(self.port)
            .user(&self.user)
            .password(&self.token)
            .dbname(&self.database)
            .connect_timeout(Duration::from_secs(20))
            .ssl_mode(if self.authority.is_some() { SslMode::Require } else { SslMode::Disable });
        config
    }

    /// Connects; the connection's task ends with the client.
    pub async fn connect(&self) -> Result<Client, Error> {
        self.connect_with(&self.config()).await
    }

    /// Connects with a configuration of the test's own.
    pub async fn connect_with(&self, config: &Config) -> Result<Client, Error> {
        if let Some(authority) = &self.authority {
            let tls = MakeRustlsConnect::new(tls_config(authority));
            let (client, connection) = config.connect(tls).await?;
            tokio::spawn(connection);
            return Ok(client);
        }
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// A TLS client that trusts one authority and nothing else.
pub fn tls_config(authority: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority).expect("the server's authority"))
        .expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The `sepal` binary that was built beside this test, or the one that `SEPAL_BIN` names.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SEPAL_BIN") {
        return PathBuf::from(path);
    }
    // target/<profile>/deps/product-<hash> → target/<profile>/sepal
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let path = profile.join("sepal");
    assert!(
        path.exists(),
        "{} does not exist: build it first: cargo build --bin sepal (with the same profile), or set SEPAL_BIN",
        path.display()
    );
    path
}

/// The repository.
pub fn repository() -> PathBuf {
    // Asked of cargo when the test runs: clones share a target directory, and the path that was compiled in may be
    // another clone's.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package).parent().expect("the repository").to_owned()
}

/// Says that something was not tested, where a person and a log find it.
pub fn skip(what: &str) {
    eprintln!("\n*** SKIPPED: {what}\n");
    assert!(std::env::var_os("SEPAL_NO_SKIP").is_none(), "SEPAL_NO_SKIP is set, but: {what}");
}

/// Undoes the quoting of a POSIX shell word made of plain and single-quoted parts.
fn unquote(word: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    let mut characters = word.chars();
    while let Some(character) = characters.next() {
        match character {
            '\'' => quoted = !quoted,
            '\\' if !quoted => out.extend(characters.next()),
            other => out.push(other),
        }
    }
    out
}

fn terminate(pid: u32) {
    let pid = libc::pid_t::try_from(pid).expect("a process id");
    // SAFETY: `kill` takes two integers; the process is our child and not yet waited for, so the id is its own.
    let done = unsafe { libc::kill(pid, libc::SIGTERM) };
    assert_eq!(done, 0, "SIGTERM");
}

type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts a process that dies with this one, however this one ends.
///
/// Linux sends the parent-death signal when the *thread* that started the child ends, and test threads end
/// early: a thread that lives as long as the process starts them all.
pub fn spawn(command: Command) -> Child {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, waiting) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in waiting {
                // SAFETY: the closure runs between fork and exec and makes one system call, which is
                // async-signal-safe; it touches no memory of ours.
                unsafe {
                    command.pre_exec(|| {
                        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                        Ok(())
                    });
                }
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let name = command.get_program().to_owned();
    let (answer, started) = mpsc::channel();
    spawner.lock().expect("the spawner").send((command, answer)).expect("the spawner lives");
    started
        .recv()
        .expect("the spawner answers")
        .unwrap_or_else(|error| panic!("start {}: {error}", name.display()))
}

/// Runs a program to its end; kills it after `limit` and fails.
pub fn run_within(limit: Duration, mut command: Command) -> (ExitStatus, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = format!("{:?} {:?}", command.get_program(), command.get_args().collect::<Vec<_>>());
    let mut child = spawn(command);
    let mut out = child.stdout.take().expect("stdout");
    let mut err = child.stderr.take().expect("stderr");
    let out = thread::spawn(move || read_all(&mut out));
    let err = thread::spawn(move || read_all(&mut err));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            let text = out.join().expect("stdout") + &err.join().expect("stderr");
            panic!("{name} did not end within {limit:?}:\n{text}");
        }
        thread::sleep(Duration::from_millis(20));
    };
    (status, out.join().expect("stdout") + &err.join().expect("stderr"))
}

fn read_all(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn remove_at_exit(directory: &Path) {
    static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    extern "C" fn remove() {
        if let Ok(directories) = DIRECTORIES.lock() {
            for directory in directories.iter() {
                let _ = fs::remove_dir_all(directory);
            }
        }
    }
    let mut directories = DIRECTORIES.lock().expect("the list");
    if directories.is_empty() {
        // SAFETY: `remove` takes no arguments, lives as long as the process and does not unwind: every failure
        // in it is ignored.
        unsafe { libc::atexit(remove) };
    }
    directories.push(directory.to_owned());
}
