//! Worker processes as the operating system sees them: started, killed, waited for.
//!
//! One thread does all three. It has to be one that stays: a child that asks for a signal when its parent dies
//! (`PR_SET_PDEATHSIG`) gets it when the *thread* that made it ends, and the threads of an async runtime come and go.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use tokio::sync::oneshot;

/// The hidden argument that makes the binary a worker.
pub const WORKER_ARGUMENT: &str = "plugin-worker";

/// Starts and ends processes. Dropping the last copy, processes included, ends the thread.
#[derive(Clone, Debug)]
pub(super) struct Spawner {
    orders: mpsc::Sender<Order>,
}

enum Order {
    Start { program: PathBuf, loud: bool, done: oneshot::Sender<io::Result<(UnixStream, Child)>> },
    End { child: Child, done: Option<oneshot::Sender<io::Result<ExitStatus>>> },
}

/// A worker process; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Option<Child>,
    spawner: Spawner,
}

impl Spawner {
    pub fn new() -> io::Result<Self> {
        let (orders, received) = mpsc::channel();
        thread::Builder::new().name("sepal-workers".to_owned()).spawn(move || obey(&received))?;
        Ok(Self { orders })
    }

    /// The process and our end of its socket. `loud`: its standard error is ours.
    pub async fn start(&self, program: PathBuf, loud: bool) -> io::Result<(UnixStream, Process)> {
        let (done, started) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts workers has ended");
        self.orders.send(Order::Start { program, loud, done }).map_err(|_| gone())?;
        let (socket, child) = started.await.map_err(|_| gone())??;
        Ok((socket, Process { child: Some(child), spawner: self.clone() }))
    }
}

impl Process {
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it, unless it has ended by itself, and says how it ended.
    pub async fn end(mut self) -> io::Result<ExitStatus> {
        let gone = || io::Error::other("the thread that ends workers has ended");
        let child = self.child.take().ok_or_else(gone)?;
        let (done, ended) = oneshot::channel();
        self.spawner.orders.send(Order::End { child, done: Some(done) }).map_err(|_| gone())?;
        ended.await.map_err(|_| gone())?
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.child.take()
            && let Err(mpsc::SendError(Order::End { child, .. })) =
                self.spawner.orders.send(Order::End { child, done: None })
        {
            // Nobody is there to be told.
            drop(end(child));
        }
    }
}

fn obey(orders: &mpsc::Receiver<Order>) {
    for order in orders {
        match order {
            Order::Start { program, loud, done } => {
                // One that nobody waits for any more must not stay.
                if let Err(Ok((_, child))) = done.send(start(program, loud)) {
                    drop(end(child));
                }
            }
            Order::End { child, done } => {
                let status = end(child);
                if let Some(done) = done {
                    // Who asked may have gone.
                    drop(done.send(status));
                }
            }
        }
    }
}

fn end(mut child: Child) -> io::Result<ExitStatus> {
    // Does nothing to a process that has ended: its own status stays.
    child.kill()?;
    child.wait()
}

fn start(program: PathBuf, loud: bool) -> io::Result<(UnixStream, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    let parent = std::process::id();
    let mut command = Command::new(program);
    command
        .arg0("sepal")
        .arg(WORKER_ARGUMENT)
        .env_clear()
        // FAISS brings OpenBLAS along, which starts a thread per core before `main`; namespaces want a single one.
        .env("OPENBLAS_NUM_THREADS", "1")
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(if loud { Stdio::inherit() } else { Stdio::null() })
        .process_group(0);
    // SAFETY: `before_exec` makes system calls and nothing else: no allocation, no lock, as fork from a process with
    // threads demands.
    unsafe {
        command.pre_exec(move || before_exec(parent));
    }
    let child = command.spawn()?;
    Ok((ours, child))
}

/// In the new process, before it becomes the worker.
fn before_exec(parent: u32) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    let signal: libc::c_ulong = libc::SIGKILL.cast_unsigned().into();
    // SAFETY: the option takes a number.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, none, none, none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes nothing, always succeeds.
    let now = unsafe { libc::getppid() };
    if now.cast_unsigned() != parent {
        // It died between fork and the line above.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    close_on_exec();
    Ok(())
}

/// What the standard library opens closes by itself; a library's descriptor might not.
fn close_on_exec() {
    let first: libc::c_uint = 3;
    // SAFETY: takes numbers; marks descriptors, closes none.
    let marked =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked == 0 {
        return;
    }
    // Before Linux 5.11: one by one, as far as a process of ours can have come.
    for descriptor in 3..65_536 {
        // SAFETY: takes numbers; fails for a descriptor that is not open.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
