//! The server under test: `sepal dev` in a directory of its own, and what it takes of the processors.

use std::{
    collections::HashMap,
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use sepal_benches::{Failure, connection::Target};
use serde_json::Value;
use tempfile::TempDir;

const START: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
/// Of `/proc/<pid>/stat`: the kernel's USER_HZ, the same on every Linux that matters.
const TICKS_PER_SECOND: f64 = 100.0;

/// Ends when dropped, and its directory goes.
pub struct Sepal {
    program: PathBuf,
    process: Child,
    port: u16,
    token: String,
    folder: TempDir,
}

/// CPU time in seconds since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    pub server: f64,
    /// Processes that the server started, also those that have ended.
    pub workers: f64,
}

impl Sepal {
    pub fn start(program: &str, flags: &[String]) -> Result<Sepal, Failure> {
        let program = fs::canonicalize(program).map_err(|error| format!("{program}: {error}"))?;
        let place = env::var_os("SEPAL_BENCH_DIR").map_or_else(env::temp_dir, PathBuf::from);
        let folder = tempfile::Builder::new().prefix("sepal-pipeline-").tempdir_in(place)?;
        let environment = folder.path().join("env");
        let process = Command::new(&program)
            .arg("dev")
            .arg("--data")
            .arg(data(&folder))
            .arg("--env-file")
            .arg(&environment)
            .args(["--pg-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--insecure-plaintext"])
            .args(flags)
            .stdin(Stdio::null())
            // What it prints there is a token.
            .stdout(Stdio::null())
            .stderr(File::create(log(&folder))?)
            .spawn()?;
        let mut sepal = Sepal { program, process, port: 0, token: String::new(), folder };
        sepal.wait_for(&environment)?;
        let variables = fs::read_to_string(&environment)?;
        let variable = |name: &str| {
            let lines = variables.lines().filter_map(|line| line.strip_prefix("export "));
            let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            values.next().ok_or_else(|| format!("sepal dev did not say {name}"))
        };
        sepal.port = variable("PGPORT")?.parse()?;
        sepal.token = variable("PGPASSWORD")?.trim_matches('\'').to_owned();
        Ok(sepal)
    }

    /// The tenant that `sepal dev` makes. Its name as the user lets the token be the password in clear.
    pub fn target(&self) -> Target {
        Target::local(self.port, "dev", &self.token, "default")
    }

    /// Makes another tenant, and a key of its.
    pub fn tenant(&self, name: &str) -> Result<Target, Failure> {
        self.command(&["tenant", "create", name])?;
        let answer: Value = serde_json::from_str(&self.command(&["key", "create", "--tenant", name])?)?;
        let token = answer["token"].as_str().ok_or("sepal key create --json printed no token")?;
        Ok(Target::local(self.port, name, token, "default"))
    }

    pub fn cpu(&self) -> Result<Cpu, Failure> {
        let processes = processes()?;
        let own = processes.get(&self.process.id()).ok_or("the server has ended")?;
        let mut cpu = Cpu { server: own.ticks, workers: own.ended_ticks };
        for process in processes.values().filter(|process| process.parent == self.process.id()) {
            cpu.workers += process.ticks + process.ended_ticks;
        }
        Ok(Cpu { server: cpu.server / TICKS_PER_SECOND, workers: cpu.workers / TICKS_PER_SECOND })
    }

    fn wait_for(&mut self, environment: &Path) -> Result<(), Failure> {
        let begun = Instant::now();
        while !environment.exists() {
            if self.process.try_wait()?.is_some() || begun.elapsed() > START {
                let said = fs::read_to_string(log(&self.folder)).unwrap_or_default();
                return Err(format!("sepal dev did not start:\n{said}").into());
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new(&self.program);
        let output = command.args(words).arg("--data").arg(data(&self.folder)).arg("--json").output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("sepal {}: {said}", words.join(" ")).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Cpu {
    pub fn since(self, before: Cpu) -> Cpu {
        Cpu { server: self.server - before.server, workers: self.workers - before.workers }
    }
}

impl Drop for Sepal {
    fn drop(&mut self) {
        // As a person would, so that it is also the end of a server that is measured.
        let asked = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        let begun = Instant::now();
        while asked.as_ref().is_ok_and(|status| status.success()) && begun.elapsed() < END {
            match self.process.try_wait() {
                Ok(None) => thread::sleep(LOOK),
                Ok(Some(_)) | Err(_) => break,
            }
        }
        // Does nothing to one that has ended.
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("pipeline_load: the server was not ended: {error}");
        }
    }
}

fn data(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

fn log(folder: &TempDir) -> PathBuf {
    folder.path().join("log")
}

struct Process {
    parent: u32,
    /// All threads, user and system.
    ticks: f64,
    /// Of children that have ended and were waited for.
    ended_ticks: f64,
}

fn processes() -> Result<HashMap<u32, Process>, Failure> {
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that has ended meanwhile is none.
        if let Some(process) =
            fs::read_to_string(entry.path().join("stat")).ok().and_then(|stat| parse(&stat))
        {
            found.insert(id, process);
        }
    }
    Ok(found)
}

/// `pid (name) state ppid …`: the name may hold anything, so fields count from its end (proc(5)).
fn parse(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        ticks: ticks(11)? + ticks(12)?,
        ended_ticks: ticks(13)? + ticks(14)?,
    })
}
