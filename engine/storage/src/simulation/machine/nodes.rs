//! Files and names, as they are and as the disk knows them.
//!
//! Changed by `files`, cut back by `image`. Fails for the reasons for which any file system would.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use super::{SECTOR, raw};

/// A file's number. Names come and go, it stays.
pub(super) type Inode = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    File(Inode),
    Directory,
}

/// A change of a name that no sync of its directory has made durable.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    Bind(String, Entry),
    Rename(String, String, Inode),
    Unbind(String, Inode),
}

#[derive(Default)]
pub(super) struct Directory {
    pub now: BTreeMap<String, Entry>,
    pub durable: BTreeMap<String, Entry>,
    pub pending: Vec<Pending>,
}

#[derive(Default)]
pub(super) struct Content {
    pub now: Vec<u8>,
    pub durable: Vec<u8>,
    /// Sectors that were written since.
    pub dirty: BTreeSet<usize>,
    /// The process run that made it.
    pub run: u64,
}

pub(super) struct Nodes {
    pub directories: BTreeMap<PathBuf, Directory>,
    pub files: BTreeMap<Inode, Content>,
    next: Inode,
    /// Directories that were there before the store.
    pub given: BTreeSet<PathBuf>,
}

impl Nodes {
    /// `above`: what the store's directory is made in.
    pub(super) fn new(above: Option<&Path>) -> Self {
        let given: BTreeSet<PathBuf> =
            above.into_iter().flat_map(Path::ancestors).map(Path::to_owned).collect();
        let directories = given.iter().map(|path| (path.clone(), Directory::default())).collect();
        Self { directories, files: BTreeMap::new(), next: 1, given }
    }

    pub(super) fn entry(&self, path: &Path) -> Option<Entry> {
        let (directory, name) = split(path).ok()?;
        self.directories.get(&directory)?.now.get(&name).copied()
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Inode> {
        match self.entry(path) {
            Some(Entry::File(inode)) => Ok(inode),
            Some(Entry::Directory) => Err(raw(libc::EISDIR)),
            None => Err(raw(libc::ENOENT)),
        }
    }

    pub(super) fn content(&mut self, inode: Inode) -> io::Result<&mut Content> {
        self.files.get_mut(&inode).ok_or_else(|| raw(libc::EBADF))
    }

    pub(super) fn create(&mut self, path: &Path, run: u64) -> io::Result<Inode> {
        let inode = self.next;
        self.bind(path, Entry::File(inode))?;
        self.next += 1;
        self.files.insert(inode, Content { run, ..Content::default() });
        Ok(inode)
    }

    pub(super) fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        self.bind(path, Entry::Directory)?;
        self.directories.insert(path.to_owned(), Directory::default());
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.file(from)?;
        let ((directory, from), (other, to)) = (split(from)?, split(to)?);
        self.directory(&other)?.now.insert(to.clone(), Entry::File(inode));
        if directory == other {
            let directory = self.directory(&directory)?;
            directory.now.remove(&from);
            directory.pending.push(Pending::Rename(from, to, inode));
            return Ok(());
        }
        // Each directory's own matter, which is less than ext4 promises.
        self.directory(&other)?.pending.push(Pending::Bind(to, Entry::File(inode)));
        let directory = self.directory(&directory)?;
        directory.now.remove(&from);
        directory.pending.push(Pending::Unbind(from, inode));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.file(path)?;
        let (directory, name) = split(path)?;
        let directory = self.directory(&directory)?;
        directory.now.remove(&name);
        directory.pending.push(Pending::Unbind(name, inode));
        Ok(())
    }

    pub(super) fn directory(&mut self, path: &Path) -> io::Result<&mut Directory> {
        self.directories.get_mut(path).ok_or_else(|| raw(libc::ENOENT))
    }

    fn bind(&mut self, path: &Path, entry: Entry) -> io::Result<()> {
        let (directory, name) = split(path)?;
        let directory = self.directory(&directory)?;
        if directory.now.contains_key(&name) {
            return Err(raw(libc::EEXIST));
        }
        directory.now.insert(name.clone(), entry);
        directory.pending.push(Pending::Bind(name, entry));
        Ok(())
    }

    /// Every file that has a name, with what a read gives.
    pub(super) fn named(&self) -> BTreeMap<PathBuf, Inode> {
        let mut named = BTreeMap::new();
        for (path, directory) in &self.directories {
            for (name, entry) in &directory.now {
                if let Entry::File(inode) = entry {
                    named.insert(path.join(name), *inode);
                }
            }
        }
        named
    }
}

impl Directory {
    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            self.keep(change);
        }
    }

    /// The disk learns of one change, whether it knows of those before or not.
    pub(super) fn keep(&mut self, change: Pending) {
        match change {
            Pending::Bind(name, entry) => {
                self.durable.insert(name, entry);
            }
            Pending::Rename(from, to, inode) => {
                self.unbind(&from, inode);
                self.durable.insert(to, Entry::File(inode));
            }
            Pending::Unbind(name, inode) => self.unbind(&name, inode),
        }
    }

    fn unbind(&mut self, name: &str, inode: Inode) {
        if self.durable.get(name) == Some(&Entry::File(inode)) {
            self.durable.remove(name);
        }
    }
}

impl Content {
    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / SECTOR..end.div_ceil(SECTOR));
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.now.resize(length, 0);
        self.dirty.retain(|sector| sector * SECTOR < length);
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            self.store(sector, SECTOR);
        }
    }

    /// The first `bytes` of a sector reach the disk, as far as the file there has room for them.
    pub(super) fn store(&mut self, sector: usize, bytes: usize) {
        let start = sector * SECTOR;
        let end = (start + bytes).min(self.now.len()).min(self.durable.len());
        if start < end {
            self.durable[start..end].copy_from_slice(&self.now[start..end]);
        }
    }
}

/// Directory and name.
fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    match (path.parent(), path.file_name()) {
        (Some(directory), Some(name)) => Ok((directory.to_owned(), name.to_string_lossy().into_owned())),
        _ => Err(raw(libc::EINVAL)),
    }
}
