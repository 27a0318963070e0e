//! What a power cut leaves: the dice say for every sector and every name that was not synced.
//!
//! A cut rarely loses an even half. So each file and directory first draws how it fares: all kept, nothing kept, a
//! first part kept (what a journal gives), or each thing for itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    Machine, SECTOR,
    nodes::{Content, Directory, Entry, Nodes},
};
use crate::simulation::dice::Dice;

/// Every file with its content, to come back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Image(pub BTreeMap<PathBuf, Vec<u8>>);

impl Machine {
    /// What the files hold now.
    pub(in super::super) fn image(&self) -> Image {
        let state = self.state();
        let named = state.nodes.named();
        let content = |inode| state.nodes.files.get(&inode).map(|file| file.now.clone()).unwrap_or_default();
        Image(named.into_iter().map(|(path, inode)| (path, content(inode))).collect())
    }

    /// Puts the files back, durable, and starts a new process.
    pub(in super::super) fn restore(&self, image: &Image) {
        let mut state = self.state();
        for directory in state.nodes.directories.values_mut() {
            directory.now.retain(|_, entry| *entry == Entry::Directory);
        }
        state.restart();
        let run = state.run;
        for (path, bytes) in &image.0 {
            let made = state.nodes.create(path, run).and_then(|inode| {
                let file = state.nodes.content(inode)?;
                file.write(bytes, 0);
                file.sync();
                Ok(())
            });
            made.expect("a directory of the image is there");
        }
        state.nodes.settle_names();
    }
}

impl Nodes {
    pub(super) fn power_cut(&mut self, dice: &mut Dice) {
        for directory in self.directories.values_mut() {
            directory.power_cut(dice);
        }
        self.forget_lost_directories();
        for file in self.files.values_mut() {
            file.power_cut(dice);
        }
        self.settle_names();
    }

    /// A directory whose own name was lost takes with it what is in it.
    fn forget_lost_directories(&mut self) {
        let paths: Vec<PathBuf> = self.directories.keys().cloned().collect();
        // Parents sort before what is in them.
        for path in paths {
            let known = self.given.contains(&path) || self.entry(&path) == Some(Entry::Directory);
            if !known {
                self.directories.remove(&path);
            }
        }
    }

    /// The names are durable as they are; files without one are gone.
    fn settle_names(&mut self) {
        let named: BTreeSet<_> = self.named().into_values().collect();
        self.files.retain(|inode, _| named.contains(inode));
        for directory in self.directories.values_mut() {
            directory.durable = directory.now.clone();
            directory.pending.clear();
        }
    }
}

impl Directory {
    fn power_cut(&mut self, dice: &mut Dice) {
        let pending = std::mem::take(&mut self.pending);
        let kept = survivors(pending.len(), dice);
        for change in pending.into_iter().zip(kept).filter_map(|(change, kept)| kept.then_some(change)) {
            self.keep(change);
        }
        self.now = self.durable.clone();
    }
}

impl Content {
    fn power_cut(&mut self, dice: &mut Dice) {
        let dirty: Vec<usize> = std::mem::take(&mut self.dirty).into_iter().collect();
        if !dirty.is_empty() || self.now.len() != self.durable.len() {
            let kept = survivors(dirty.len(), dice);
            let kept: Vec<usize> =
                dirty.into_iter().zip(kept).filter_map(|(sector, kept)| kept.then_some(sector)).collect();
            self.resize(&kept, dice);
            let torn = dice.once_in(2);
            for sector in kept {
                let whole = !torn || !dice.once_in(4);
                let bytes = if whole { SECTOR } else { dice.index(SECTOR) };
                self.store(sector, bytes);
            }
        }
        self.now.clone_from(&self.durable);
    }

    /// The length that the disk has: the old one, the new one, or one that just holds what was kept.
    fn resize(&mut self, kept: &[usize], dice: &mut Dice) {
        let (old, new) = (self.durable.len(), self.now.len());
        let needed = kept.last().map_or(old, |last| ((last + 1) * SECTOR).min(new).max(old.min(new)));
        let length = match dice.below(4) {
            0 => new,
            1 if new < old => old,
            _ => needed,
        };
        // What was never written is zero, or what the blocks held before.
        let stale = if dice.once_in(8) { 0xa5 } else { 0 };
        self.durable.resize(length, stale);
    }
}

/// Which of so many things that were not synced are kept.
fn survivors(count: usize, dice: &mut Dice) -> Vec<bool> {
    if count == 0 {
        return Vec::new();
    }
    match dice.below(5) {
        0 => vec![true; count],
        1 => vec![false; count],
        2 => {
            let first = dice.index(count + 1);
            (0..count).map(|at| at < first).collect()
        }
        mode => {
            let lost = if mode == 3 { 2 } else { 8 };
            (0..count).map(|_| !dice.once_in(lost)).collect()
        }
    }
}

/// After an fdatasync that failed: some of it arrived, and the rest is forgotten.
pub(super) fn failed_sync(file: &mut Content, dice: &mut Dice) {
    let dirty: Vec<usize> = std::mem::take(&mut file.dirty).into_iter().collect();
    let kept = survivors(dirty.len(), dice);
    if dice.once_in(2) {
        file.durable.resize(file.now.len(), 0);
    }
    for (sector, kept) in dirty.into_iter().zip(kept) {
        if kept {
            file.store(sector, SECTOR);
        }
    }
}
