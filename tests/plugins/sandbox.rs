//! The process that runs a tenant's plugins, looked at from outside while a guest in it holds a secret's handle.
//!
//! What the kernel says of it, what it has open, and what is in its memory. The last three need root; without it they
//! are skipped, and the skip is loud.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use super::{CANARY, Scene, guest};
use crate::{
    http::{Answer, PATIENCE, Request},
    pipeline_status::{run, until_status},
    server::skip,
};

/// In the guest's options, and so in its memory.
const MARKER: &str = "marker-in-options-Gc5yH8";
/// No mapping of a worker is read beyond this: what it may reserve is larger than the machine.
const MAPPING_BYTES: u64 = 1 << 30;

/// A door that answers wait at.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.1.wait_timeout_while(open, PATIENCE, |open| !*open));
    }
}

/// Processes of this server that run guests.
fn workers(server: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let is_worker = line.split(|byte| *byte == 0).any(|word| word == b"plugin-worker");
        is_worker && field(*id, "PPid").as_deref() == Some(server.to_string().as_str())
    })
    .collect()
}

fn field(process: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")))?;
    Some(line.trim().to_owned())
}

/// A pipeline whose plugin may wait long enough to be looked at.
async fn patient(scene: &Scene, path: &str) {
    let mut manifest = guest::manifest("1.0.0", &scene.hosts());
    manifest["plugin"]["name"] = "test/patient".into();
    manifest["limits"]["wall_per_call"] = 120_000.into();
    guest::install(&scene.client, "patient", &guest::pack(&guest::hostile(), &manifest)).await;
    let sink = scene.sink("held", "deliver", path).replace("PLUGIN hostile", "PLUGIN patient");
    run(&scene.client, &sink).await;
    scene.flow("held", "events").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_holds_nothing_worth_stealing() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let hold = move |request: &Request| {
        if request.path.starts_with("/hold") {
            held.wait();
        }
        Answer::status(204)
    };
    let scene = Scene::start(hold).await;
    let path = format!("/hold/{MARKER}");
    patient(&scene, &path).await;
    let arrived = scene.destination.wait_for(&path, "the batch", |requests| !requests.is_empty()).await;
    assert_eq!(arrived[0].bearer(), Some(CANARY), "the secret is on the wire");
    let found = workers(scene.server.pid());
    let [worker] = found[..] else { panic!("{} workers of one tenant", found.len()) };
    confined(worker);
    if fs::read(format!("/proc/{worker}/environ")).is_err() {
        skip("reading another process needs root: descriptors and memory of a worker were not looked at");
    } else {
        empty_handed(worker, scene.server.pid());
        // The guest is in the middle of its call: it is still there to be looked at.
        remembers_no_secret(worker);
    }
    gate.open();
    until_status(&scene.client, "held", "the row", |now| now.rows_delivered == 1).await;

    // With the server goes the worker.
    drop(scene);
    let gone =
        || !PathBuf::from(format!("/proc/{worker}")).exists() || field(worker, "State").is_none_or(is_dead);
    for _ in 0..600 {
        if gone() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the worker outlives its server: {:?}", field(worker, "State"));
}

fn is_dead(state: String) -> bool {
    state.starts_with(['Z', 'X'])
}

/// What the kernel enforces.
fn confined(worker: u32) {
    for (name, value) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        assert_eq!(field(worker, name).as_deref(), Some(value), "{name}");
    }
    for name in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(field(worker, name).as_deref(), Some("0000000000000000"), "{name}");
    }
}

/// No environment, no file, no socket but the one to the server.
fn empty_handed(worker: u32, server: u32) {
    let environment = fs::read(format!("/proc/{worker}/environ")).expect("environ");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let variables: Vec<&str> = environment.split('\0').filter(|variable| !variable.is_empty()).collect();
    // What keeps a library from starting threads says nothing of anybody.
    assert!(variables.iter().all(|variable| *variable == "OPENBLAS_NUM_THREADS=1"), "{variables:?}");
    let outward = internet_sockets(server);
    for (number, target) in descriptors(worker) {
        let socket = target.strip_prefix("socket:[").and_then(|inode| inode.strip_suffix(']'));
        let known = target == "/dev/null"
            || target.starts_with("anon_inode:")
            || target.starts_with("pipe:")
            || target.starts_with("/memfd:")
            || socket.is_some_and(|inode| !outward.contains(inode));
        assert!(known, "descriptor {number} is {target}");
    }
    // A kernel may refuse a namespace; landlock and the filter of system calls are there then.
    let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).expect("a network");
    if network("self") != network(&worker.to_string()) {
        assert!(internet_sockets(worker).is_empty(), "the worker's own network has sockets");
    }
}

fn descriptors(process: u32) -> Vec<(String, String)> {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).expect("its descriptors").flatten();
    let described = entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), target.to_string_lossy().into_owned()))
    });
    let described: Vec<_> = described.collect();
    assert!(!described.is_empty(), "a worker has at least its socket");
    described
}

/// Inodes of TCP and UDP sockets in a process' network.
fn internet_sockets(process: u32) -> BTreeSet<String> {
    let mut inodes = BTreeSet::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
        let lines = text.lines().skip(1);
        inodes.extend(lines.filter_map(|line| line.split_whitespace().nth(9)).map(ToOwned::to_owned));
    }
    inodes.remove("0");
    inodes
}

/// Everything that the worker can read is searched. That the search works shows in what the guest does hold.
fn remembers_no_secret(worker: u32) {
    let maps = fs::read_to_string(format!("/proc/{worker}/maps")).expect("maps");
    let Ok(memory) = File::open(format!("/proc/{worker}/mem")) else {
        skip("a worker's memory cannot be opened here: it was not searched");
        return;
    };
    let (mut marker, mut searched) = (false, 0);
    for line in maps.lines() {
        let Some((from, to)) = readable(line) else { continue };
        let mut bytes = vec![0; 1 << 20];
        // What lies across the border of two reads is in the second one too.
        let overlap = CANARY.len().max(MARKER.len()) as u64;
        let mut at = from;
        while at < to.min(from + MAPPING_BYTES) {
            let wanted = usize::try_from((to - at).min(1 << 20)).expect("a small read");
            let Ok(read) = memory.read_at(&mut bytes[..wanted], at) else { break };
            if read == 0 {
                break;
            }
            let text = &bytes[..read];
            assert!(!holds(text, CANARY), "the secret is in the worker's memory: {line}");
            marker |= holds(text, MARKER);
            searched += read;
            at += (read as u64).saturating_sub(overlap).max(1);
            if read as u64 <= overlap {
                break;
            }
        }
    }
    assert!(searched > 1 << 20, "only {searched} bytes were searched");
    assert!(marker, "the guest's options were not found: the search does not work");
}

/// The bounds of a mapping that can be read and holds more than a file's own bytes.
fn readable(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let of_kernel = ["[vvar]", "[vvar_vclock]", "[vsyscall]"].iter().any(|name| line.ends_with(name));
    let of_file = words.nth(3).is_some_and(|path| path.starts_with('/')) && !rights.contains('w');
    if !rights.starts_with('r') || of_kernel || of_file {
        return None;
    }
    let (from, to) = range.split_once('-')?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}

fn holds(text: &[u8], needle: &str) -> bool {
    let needle = needle.as_bytes();
    let mut from = 0;
    while let Some(next) = text[from..].iter().position(|byte| *byte == needle[0]) {
        from += next + 1;
        if text[from..].starts_with(&needle[1..]) {
            return true;
        }
    }
    false
}
