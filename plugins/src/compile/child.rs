//! The compiler's process, seen from both sides.
//!
//! ```text
//! parent -> child   standard input: the component, to the end
//! child -> parent   standard output: machine code, to the end, and exit status 0
//!                   standard error: one message for the author, and exit status 1
//!                   standard error: one message for the operator, and exit status 3: it could not bind itself
//! ```
//! The child binds itself before it reads a byte: memory, CPU time, no files, no new privileges, the system calls of a
//! worker and no others, and it ends with its parent. Where the kernel has not what that takes, nothing is compiled.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr};

use super::{CHILD_CPU_SECONDS, CHILD_MEMORY_BYTES, CHILD_THREADS, CompileError, MAX_CODE_BYTES};
use crate::{host::engine, package::MAX_COMPONENT_BYTES, worker};

const MAX_MESSAGE_BYTES: u64 = 4 << 10;
/// The fault is the machine's, not the component's.
const UNCONFINED: u8 = 3;

/// What the program does when its first argument is [`super::CHILD_ARGUMENT`], before anything else.
pub fn child_main() -> ExitCode {
    if let Err(error) = confine() {
        return failed(&format!("it cannot limit itself: {error}"), ExitCode::from(UNCONFINED));
    }
    match compile_once() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => failed(&problem, ExitCode::FAILURE),
    }
}

fn failed(problem: &str, status: ExitCode) -> ExitCode {
    // The parent reads it; if it is gone there is nobody to tell.
    let _ = io::stderr().lock().write_all(problem.as_bytes());
    status
}

fn compile_once() -> Result<(), String> {
    let mut component = Vec::new();
    let most = MAX_COMPONENT_BYTES as u64 + 1;
    io::stdin().lock().take(most).read_to_end(&mut component).map_err(|error| error.to_string())?;
    if component.len() > MAX_COMPONENT_BYTES {
        return Err(format!("it has more than {MAX_COMPONENT_BYTES} bytes"));
    }
    let machine_code = engine::compile(&component)?;
    let mut output = io::stdout().lock();
    output.write_all(&machine_code).and_then(|()| output.flush()).map_err(|error| error.to_string())
}

/// Limits of this process from now on.
pub(super) fn confine() -> io::Result<()> {
    limit(libc::RLIMIT_AS, CHILD_MEMORY_BYTES)?;
    limit(libc::RLIMIT_CPU, CHILD_CPU_SECONDS)?;
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_FSIZE, 0)?;
    // SAFETY: prctl with these operations reads its integer arguments only.
    let (privileges, parent) = unsafe {
        (
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL),
        )
    };
    if privileges != 0 || parent != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: nothing in this process has opened a file yet but the three that stay. Kernels before 5.9 do not know
    // the call; there every file of the parent is closed by its own close-on-exec flag.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
    // No file can be opened by name. A kernel without Landlock leaves the other limits.
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(ABI::V1));
    ruleset.and_then(Ruleset::create).and_then(|rules| rules.restrict_self()).map_err(io::Error::other)?;
    worker::filter_system_calls().map_err(|why| {
        io::Error::other(format!("seccomp: {why}; plugins need a kernel that has it (CONFIG_SECCOMP_FILTER)"))
    })
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: `limit` is a valid rlimit for the time of the call.
    match unsafe { libc::setrlimit(resource, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs the child to its end. Blocks.
pub(super) fn run(
    program: &Path,
    arguments: &[OsString],
    component: &[u8],
    patience: Duration,
) -> Result<Vec<u8>, CompileError> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        // Threads and the allocator's arenas count as address space.
        .env("RAYON_NUM_THREADS", CHILD_THREADS)
        .env("MALLOC_ARENA_MAX", "2")
        // As in a worker: a library's own threads would be there before the limits are.
        .env("OPENBLAS_NUM_THREADS", "1")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| CompileError::Unavailable(format!("{}: {error}", program.display())))?;
    let answer = converse(&mut child, component, patience);
    // Whatever it does now, nobody listens. It has ended already when all went well.
    let _ = child.kill();
    let _ = child.wait();
    answer
}

fn converse(child: &mut Child, component: &[u8], patience: Duration) -> Result<Vec<u8>, CompileError> {
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut input), Some(output), Some(errors)) = pipes else {
        return Err(CompileError::Unavailable("its pipes are missing".to_owned()));
    };
    let until = Instant::now() + patience;
    let (sender, answers) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            // A child that ends early says why on its standard error.
            let _ = input.write_all(component);
        });
        let message = scope.spawn(move || drain(errors, MAX_MESSAGE_BYTES));
        scope.spawn(move || {
            let _ = sender.send(drain(output, MAX_CODE_BYTES as u64 + 1));
        });
        let machine_code = answers.recv_timeout(patience);
        let status = match machine_code {
            Ok(_) => wait_until(child, until),
            Err(_) => None,
        };
        // The pipes close with it, so that the threads end.
        let _ = child.kill();
        let message = message.join().unwrap_or_default();
        judge(status, machine_code.unwrap_or_default(), &String::from_utf8_lossy(&message))
    })
}

fn judge(status: Option<ExitStatus>, machine_code: Vec<u8>, message: &str) -> Result<Vec<u8>, CompileError> {
    let Some(status) = status else { return Err(CompileError::TooSlow) };
    if status.success() && machine_code.len() <= MAX_CODE_BYTES && !machine_code.is_empty() {
        return Ok(machine_code);
    }
    match (status.code(), status.signal()) {
        (_, Some(libc::SIGXCPU)) => Err(CompileError::TooSlow),
        (Some(1), _) if !message.is_empty() => Err(CompileError::Rejected(message.to_owned())),
        (Some(code), _) if code == i32::from(UNCONFINED) => {
            Err(CompileError::Unavailable(message.to_owned()))
        }
        // A limit reached inside the allocator is an abort with its own words.
        _ => Err(CompileError::Died(status.to_string())),
    }
}

/// Reads to the end and keeps the first `most` bytes: a full pipe would stop the child.
fn drain(mut from: impl Read, most: u64) -> Vec<u8> {
    let mut kept = Vec::new();
    let read = from.by_ref().take(most).read_to_end(&mut kept);
    let rest = read.and_then(|_| io::copy(&mut from, &mut io::sink()));
    // What was read before a failure is judged by the exit status.
    drop(rest);
    kept
}

fn wait_until(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(2)),
            Ok(None) | Err(_) => return None,
        }
    }
}
