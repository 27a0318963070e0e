//! What is left of a process after `confine` and `filter_calls`: this binary is started again, once per question.
//!
//! A test runs in a thread beside the harness' own, so namespaces are refused here and landlock holds one thread; the
//! filter of system calls holds all of them, as in a worker.

use std::{
    fs::File,
    net::UdpSocket,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus},
    thread,
    time::Duration,
};

use crate::worker::sandbox::{SandboxLimits, confine, filter_calls};

const QUESTION: &str = "SEPAL_TEST_SANDBOX";
const YES: i32 = 40;
const NO: i32 = 41;
/// The kernel has no seccomp.
const CANNOT_SAY: i32 = 42;

/// The other process. Does nothing unless the tests below start it.
#[test]
#[ignore = "run by the tests beside it, in a process of its own"]
fn inside() {
    let Ok(question) = std::env::var(QUESTION) else { return };
    let parent = std::os::unix::process::parent_id().cast_signed();
    let mut report = confine(&SandboxLimits::default());
    filter_calls(&mut report);
    if let Some(refusal) = report.refusal() {
        eprintln!("{refusal}");
        std::process::exit(CANNOT_SAY);
    }
    let yes = match question.as_str() {
        "compute" => computes(),
        "open" => File::open("/proc/self/status").is_ok(),
        "socket" => UdpSocket::bind("127.0.0.1:0").is_ok(),
        "run" => Command::new("/bin/true").status().is_ok(),
        // SAFETY: signal 0 is sent to nobody; it asks whether one could be sent.
        "signal" => unsafe { libc::kill(parent, 0) == 0 },
        // SAFETY: as above; the process that started this one would be told of file events.
        "own" => unsafe { libc::fcntl(0, libc::F_SETOWN, parent) == 0 },
        _ => false,
    };
    std::process::exit(if yes { YES } else { NO });
}

/// Threads, time, memory, the runtime: what running guests takes.
fn computes() -> bool {
    let threads: Vec<_> = (0_u8..4)
        .map(|number| {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(1));
                vec![number; 1 << 20].iter().map(|number| u64::from(*number)).sum::<u64>()
            })
        })
        .collect();
    let sums: u64 = threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum();
    let slept = tokio::runtime::Builder::new_current_thread().enable_time().build().map(|runtime| {
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    });
    let caught = std::panic::catch_unwind(|| panic!("caught")).is_err();
    sums == (1 + 2 + 3) << 20 && slept.is_ok() && caught
}

fn ask(question: &str) -> ExitStatus {
    let this = std::env::current_exe().expect("this binary");
    let mut command = Command::new(this);
    command.args(["--exact", "worker::tests::sandboxed::inside", "--ignored"]).env(QUESTION, question);
    command.output().expect("this binary runs").status
}

#[test]
fn a_worker_can_compute_and_nothing_else() {
    if ask("compute").code() == Some(CANNOT_SAY) {
        eprintln!("skipped: this kernel has no seccomp");
        return;
    }
    assert_eq!(ask("compute").code(), Some(YES), "threads, time and memory are still there");
    assert_eq!(ask("open").code(), Some(NO), "files cannot be opened");
    assert_eq!(ask("signal").code(), Some(NO), "the server cannot be signalled");
    assert_eq!(ask("own").code(), Some(NO), "nor by way of a descriptor");
    for deadly in ["socket", "run"] {
        let status = ask(deadly);
        let ended = status.signal() == Some(libc::SIGSYS);
        // Starting a program makes a process first, which is refused before anything deadly comes.
        assert!(ended || (deadly == "run" && status.code() == Some(NO)), "{deadly}: {status:?}");
    }
}
