//! Does the tutorial of plugin authors work as it is written?
//!
//! Runs every console block of `docs/plugins/tutorial.md`, in order, in one shell and an empty directory, as its reader
//! would: a line that begins with `$ ` is typed, what follows it within the block is the rest of its here-document. It
//! ends with the first command that fails. Needs the crates of the SDK, from the registry or cargo's cache, and the
//! ports that the tutorial names.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::server::{binary, repository};

/// A cold build of a guest is most of it.
const PATIENCE: Duration = Duration::from_secs(400);

/// The blocks as a script.
fn script() -> String {
    let page = fs::read_to_string(repository().join("docs/plugins/tutorial.md")).expect("the tutorial");
    let mut script = String::from("set -euo pipefail\n");
    let mut commands = 0;
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            line if inside => {
                commands += usize::from(line.starts_with("$ "));
                script.push_str(line.strip_prefix("$ ").unwrap_or(line));
                script.push('\n');
            }
            _ => {}
        }
    }
    assert!(commands > 15, "only {commands} commands found in the tutorial");
    script
}

#[test]
fn the_tutorial_works_as_it_is_written() {
    let directory = TempDir::new().expect("a directory");
    let (script, said) = (directory.path().join("tutorial.sh"), directory.path().join("said.txt"));
    fs::write(&script, self::script()).expect("the script");
    let log = fs::File::create(&said).expect("a file");
    let sepal = binary().parent().expect("a folder").to_owned();
    let path = format!("{}:{}", sepal.display(), std::env::var("PATH").expect("PATH"));
    let mut shell = Command::new("bash")
        .arg("-x")
        .arg(&script)
        .current_dir(directory.path())
        .env("PATH", path)
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor"))
        .stderr(log)
        .process_group(0)
        .spawn()
        .expect("bash");
    let group = i32::try_from(shell.id()).expect("a process id");
    let begun = Instant::now();
    let status = loop {
        match shell.try_wait().expect("bash") {
            Some(status) => break Some(status),
            None if begun.elapsed() > PATIENCE => break None,
            None => thread::sleep(Duration::from_millis(100)),
        }
    };
    // The server and the receiver, when a command before the last has failed.
    // SAFETY: the group was made for this shell and what it started.
    unsafe { libc::killpg(group, libc::SIGKILL) };
    let said = fs::read_to_string(&said).expect("what was said");
    let end: Vec<&str> = said.lines().rev().take(40).collect();
    let end: Vec<&str> = end.into_iter().rev().map(|line| line.get(..300).unwrap_or(line)).collect();
    assert!(status.is_some_and(|status| status.success()), "{status:?}:\n{}", end.join("\n"));
    let received = fs::read_to_string(directory.path().join("my-hook/received.txt")).expect("what arrived");
    assert!(received.contains("\"total\":250") && !received.contains("\"total\":7"), "{received}");
}
