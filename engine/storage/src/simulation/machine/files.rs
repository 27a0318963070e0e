//! The machine's disk as [`Files`]: every call is checked against the power, the faults and the rules of the house.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    Fate, State,
    image::failed_sync,
    nodes::{Entry, Inode},
    raw,
};
use crate::{FileHandle, Files};

/// A process on the machine.
pub(super) struct Process {
    machine: Arc<Mutex<State>>,
    run: u64,
}

/// A file that a process has open.
struct Handle {
    machine: Arc<Mutex<State>>,
    run: u64,
    inode: Inode,
    path: PathBuf,
}

/// A directory that a process has open.
struct DirectoryHandle {
    machine: Arc<Mutex<State>>,
    run: u64,
    path: PathBuf,
}

impl Process {
    pub(super) fn new(machine: Arc<Mutex<State>>) -> Self {
        let run = machine.lock().run;
        Self { machine, run }
    }

    fn handle(&self, inode: Inode, path: &Path) -> Arc<dyn FileHandle> {
        let machine = Arc::clone(&self.machine);
        Arc::new(Handle { machine, run: self.run, inode, path: path.to_owned() })
    }
}

impl Files for Process {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        let mut state = self.machine.lock();
        state.check_place(path);
        let fate = state.change_name(self.run)?;
        let run = self.run;
        let inode = state.nodes.create(path, run)?;
        state.end(fate)?;
        Ok(self.handle(inode, path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        let mut state = self.machine.lock();
        state.alive(self.run)?;
        let inode = state.nodes.file(path)?;
        let rate = state.faults.read;
        if state.strikes(rate) {
            return Err(raw(libc::EIO));
        }
        Ok(self.handle(inode, path))
    }

    fn open_writable(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        self.open(path)
    }

    fn open_directory(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        let mut state = self.machine.lock();
        state.alive(self.run)?;
        state.nodes.directory(path)?;
        let machine = Arc::clone(&self.machine);
        Ok(Arc::new(DirectoryHandle { machine, run: self.run, path: path.to_owned() }))
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.machine.lock();
        state.alive(self.run)?;
        let inode = state.nodes.file(path)?;
        Ok(state.nodes.content(inode)?.now.len() as u64)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.machine.lock();
        state.alive(self.run)?;
        let mut names: Vec<String> = state.nodes.directory(path)?.now.keys().cloned().collect();
        // In no order, and least of all in one that somebody could come to rely on.
        names.reverse();
        Ok(names)
    }

    fn is_directory(&self, path: &Path) -> bool {
        let state = self.machine.lock();
        state.nodes.given.contains(path) || state.nodes.entry(path) == Some(Entry::Directory)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.machine.lock();
        let fate = state.change_name(self.run)?;
        state.nodes.create_directory(path)?;
        state.end(fate)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.machine.lock();
        state.check_place(to);
        let fate = state.change_name(self.run)?;
        state.nodes.rename(from, to)?;
        state.end(fate)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.machine.lock();
        // Asked of a file that is not there it is no step: stores do so before they make one.
        state.alive(self.run)?;
        state.nodes.file(path)?;
        let fate = state.change_name(self.run)?;
        state.nodes.remove(path)?;
        state.end(fate)
    }
}

impl FileHandle for Handle {
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.machine.lock();
        state.alive(self.run)?;
        let (failing, flipping) = (state.faults.read, state.faults.flip);
        if state.strikes(failing) {
            return Err(raw(libc::EIO));
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let content = state.nodes.content(self.inode)?;
        let found = start.checked_add(bytes.len()).and_then(|end| content.now.get(start..end));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        // Not in the log: of its last frames nobody could tell a wrong bit from a torn write.
        let in_log = self.path.extension().is_some_and(|extension| extension == "wal");
        if !in_log && !bytes.is_empty() && state.strikes(flipping) {
            state.flipped += 1;
            let at = state.dice.index(bytes.len());
            bytes[at] ^= 1 << state.dice.below(8);
        }
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.machine.lock();
        state.write(self, bytes, usize::try_from(offset).unwrap_or(usize::MAX))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.machine.lock();
        let fate = state.step(self.run)?;
        let rate = state.faults.sync;
        let failing = state.strikes(rate);
        let State { nodes, dice, struck, .. } = &mut *state;
        let content = nodes.content(self.inode)?;
        if failing {
            failed_sync(content, dice);
            // Where blocks are allotted late, a device may turn out to be full only now. What is lost is the same.
            return Err(raw(if struck.is_multiple_of(2) { libc::EIO } else { libc::ENOSPC }));
        }
        content.sync();
        state.end(fate)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.machine.lock();
        let fate = state.step(self.run)?;
        state.check_run(self, "cut");
        let rate = state.faults.write;
        if state.strikes(rate) {
            return Err(raw(libc::EIO));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        state.nodes.content(self.inode)?.truncate(length);
        state.end(fate)
    }

    fn length(&self) -> io::Result<u64> {
        let mut state = self.machine.lock();
        state.alive(self.run)?;
        Ok(state.nodes.content(self.inode)?.now.len() as u64)
    }

    fn start_writeback(&self, _: u64, _: usize) {}
}

impl FileHandle for DirectoryHandle {
    fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(raw(libc::EISDIR))
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(raw(libc::EISDIR))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.machine.lock();
        let fate = state.step(self.run)?;
        let rate = state.faults.sync_directory;
        if state.strikes(rate) {
            state.read_only = true;
            return Err(raw(if state.struck.is_multiple_of(2) { libc::EIO } else { libc::ENOSPC }));
        }
        state.nodes.directory(&self.path)?.sync();
        state.end(fate)
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(raw(libc::EISDIR))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn start_writeback(&self, _: u64, _: usize) {}
}

impl State {
    fn change_name(&mut self, run: u64) -> io::Result<Fate> {
        let fate = self.step(run)?;
        let rate = self.faults.name;
        if self.strikes(rate) { Err(raw(libc::EIO)) } else { Ok(fate) }
    }

    fn write(&mut self, handle: &Handle, bytes: &[u8], offset: usize) -> io::Result<()> {
        let fate = self.step(handle.run)?;
        let content = self.nodes.content(handle.inode)?;
        let length = content.now.len();
        self.audit.write(&content.now, bytes, offset, &mut self.misdeeds);
        if content.now.get(offset..offset + bytes.len()) != Some(bytes) {
            self.check_run(handle, "changed");
        }
        let grows = (offset + bytes.len()).saturating_sub(length);
        let rate = self.faults.write;
        let (taken, outcome) = if fate == Fate::Last {
            (self.dice.index(bytes.len() + 1), Ok(()))
        } else if self.strikes(rate) {
            (self.dice.index(bytes.len() + 1), Err(raw(libc::EIO)))
        } else if let Some(room) = self.faults.room {
            let short = grows.saturating_sub(usize::try_from(room).unwrap_or(usize::MAX));
            self.faults.room = Some(room.saturating_sub(grows as u64));
            self.struck += u64::from(short > 0);
            let full = if short > 0 { Err(raw(libc::ENOSPC)) } else { Ok(()) };
            (bytes.len().saturating_sub(short), full)
        } else {
            (bytes.len(), Ok(()))
        };
        self.nodes.content(handle.inode)?.write(&bytes[..taken], offset);
        outcome?;
        self.end(fate)
    }

    /// A log file is written by one process run. A later one may only repeat what is there.
    fn check_run(&mut self, handle: &Handle, what: &str) {
        let (run, is_log) = match self.nodes.content(handle.inode) {
            Ok(content) => (content.run, content.now.starts_with(b"sepalwal")),
            Err(_) => return,
        };
        if is_log && run != self.run {
            let path = handle.path.display();
            self.misdeeds.push(format!("{path} is of an earlier process run, and was {what}"));
        }
    }

    /// Files are made in three directories.
    fn check_place(&mut self, path: &Path) {
        let allowed = ["manifest", "wal", "segments"].map(|name| self.root.join(name));
        if !path.parent().is_some_and(|parent| allowed.iter().any(|place| place == parent)) {
            self.misdeeds.push(format!("{} lies outside the store's directories", path.display()));
        }
    }
}
