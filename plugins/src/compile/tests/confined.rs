//! What the compiler's process can do after it has bound itself: this binary is started again, once per question.

use std::{
    fs::File,
    net::UdpSocket,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus},
};

use crate::{compile::child::confine, host::engine};

const QUESTION: &str = "SEPAL_TEST_COMPILER";
const YES: i32 = 40;
const NO: i32 = 41;
/// The kernel has not what it takes.
const CANNOT_SAY: i32 = 42;

/// The other process. Does nothing unless the test below starts it.
#[test]
#[ignore = "run by the test beside it, in a process of its own"]
fn inside() {
    let Ok(question) = std::env::var(QUESTION) else { return };
    if let Err(error) = confine() {
        eprintln!("{error}");
        std::process::exit(CANNOT_SAY);
    }
    let yes = match question.as_str() {
        "compile" => {
            crate::bundled::component("webhook").is_some_and(|webhook| engine::compile(webhook).is_ok())
        }
        "open" => File::open("/proc/self/status").is_ok(),
        "socket" => UdpSocket::bind("127.0.0.1:0").is_ok(),
        _ => false,
    };
    std::process::exit(if yes { YES } else { NO });
}

fn ask(question: &str) -> ExitStatus {
    let this = std::env::current_exe().expect("this binary");
    let mut command = Command::new(this);
    command.args(["--exact", "compile::tests::confined::inside", "--ignored"]).env(QUESTION, question);
    // As the parent of a compiler has them.
    command.env("RAYON_NUM_THREADS", "2").env("MALLOC_ARENA_MAX", "2").env("OPENBLAS_NUM_THREADS", "1");
    command.output().expect("this binary runs").status
}

#[test]
fn a_compiler_can_compile_and_nothing_else() {
    if ask("open").code() == Some(CANNOT_SAY) {
        eprintln!("skipped: this kernel has no seccomp");
        return;
    }
    assert_eq!(ask("open").code(), Some(NO), "files cannot be opened");
    let socket = ask("socket");
    assert_eq!(socket.signal(), Some(libc::SIGSYS), "{socket:?}: no socket");
    let compiled = ask("compile");
    assert_eq!(compiled.code(), Some(YES), "{compiled:?}: threads, time and memory are still there");
}
