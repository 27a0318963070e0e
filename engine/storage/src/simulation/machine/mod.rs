//! A machine in memory: a disk, a page cache, a power switch.
//!
//! The store gets its files through [`Machine::process`]; the driver kills the process ([`Machine::kill`]: the page
//! cache stays), cuts the power ([`Machine::power_cut`]: what was not synced is kept, lost or torn as the dice say) and
//! has operations fail. One lock, one source of chance, ordered maps only: the same calls give the same machine.
//!
//! What is promised is what POSIX promises and ext4 keeps, no more:
//! - A file's bytes and length are durable after its sync; its name after a sync of its directory.
//! - Before that every sector and every change of a name is there or not, in any order. A sector may be half written,
//!   and a file may have grown without its bytes: then they are zero, or what lay there before.
//! - A rename is whole: afterwards the name means the old file or the new one.
//! - A file's sync that failed, with EIO or ENOSPC, leaves its pages clean: the next one succeeds and writes nothing.
//! - A directory's sync that failed is an aborted journal: the file system is read-only until the machine restarts.

mod audit;
mod damage;
mod files;
mod image;
mod nodes;

use std::{io, path::PathBuf, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use super::dice::Dice;
use crate::Files;
use audit::Audit;
use files::Process;
use nodes::Nodes;

pub(super) use damage::Damage;
pub(super) use image::Image;

/// How the drive's unit of writing is torn.
const SECTOR: usize = 512;

/// What fails. 0 for never, n for once in n.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub read: u64,
    /// A bit of what is read from a data file is wrong, this once.
    pub flip: u64,
    pub write: u64,
    pub sync: u64,
    /// Creating, renaming, removing.
    pub name: u64,
    pub sync_directory: u64,
    /// Bytes until the device is full.
    pub room: Option<u64>,
}

/// See the module.
#[derive(Clone)]
pub(super) struct Machine(Arc<Mutex<State>>);

pub(super) struct State {
    root: PathBuf,
    nodes: Nodes,
    dice: Dice,
    /// Which process run the handles of now belong to.
    run: u64,
    /// Operations so far that change something.
    steps: u64,
    crash_at: Option<u64>,
    /// The process is dead, and maybe the machine: nothing works.
    down: bool,
    read_only: bool,
    faults: Faults,
    /// Faults that struck.
    struck: u64,
    /// Of them those that gave wrong bytes.
    flipped: u64,
    audit: Audit,
    /// What the store did that it must never do.
    misdeeds: Vec<String>,
}

/// What becomes of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// It happens, or a part of it, and nobody learns of it.
    Last,
}

impl Machine {
    pub(super) fn new(root: PathBuf, dice: Dice) -> Self {
        let nodes = Nodes::new(root.parent());
        Self(Arc::new(Mutex::new(State {
            root,
            nodes,
            dice,
            run: 1,
            steps: 0,
            crash_at: None,
            down: false,
            read_only: false,
            faults: Faults::default(),
            struck: 0,
            flipped: 0,
            audit: Audit::default(),
            misdeeds: Vec::new(),
        })))
    }

    /// The file system as the process of now sees it. After a restart it is dead.
    pub(super) fn process(&self) -> Arc<dyn Files> {
        Arc::new(Process::new(Arc::clone(&self.0)))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// The process dies at the `steps`-th operation from now.
    pub(super) fn arm(&self, steps: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.steps + steps);
    }

    pub(super) fn disarm(&self) {
        self.state().crash_at = None;
    }

    pub(super) fn is_down(&self) -> bool {
        self.state().down
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.state().read_only
    }

    /// Faults that struck so far, a death included, and of them those that gave wrong bytes.
    pub(super) fn struck(&self) -> (u64, u64) {
        let state = self.state();
        (state.struck, state.flipped)
    }

    pub(super) fn steps(&self) -> u64 {
        self.state().steps
    }

    /// What the store did that it must never do, since the last call.
    pub(super) fn misdeeds(&self) -> Vec<String> {
        std::mem::take(&mut self.state().misdeeds)
    }

    /// The process is gone, its handles with it. What it wrote is in the page cache.
    pub(super) fn kill(&self) {
        self.state().restart();
    }

    /// The machine is gone, and comes back with what its disk holds.
    pub(super) fn power_cut(&self) {
        let mut state = self.state();
        let State { nodes, dice, .. } = &mut *state;
        nodes.power_cut(dice);
        state.read_only = false;
        state.restart();
    }
}

impl State {
    fn restart(&mut self) {
        self.run += 1;
        self.down = false;
        self.crash_at = None;
        self.faults = Faults::default();
    }

    /// Before every operation.
    fn alive(&self, run: u64) -> io::Result<()> {
        if self.down || run != self.run { Err(raw(libc::ESHUTDOWN)) } else { Ok(()) }
    }

    /// Before every operation that changes something.
    fn step(&mut self, run: u64) -> io::Result<Fate> {
        self.alive(run)?;
        self.steps += 1;
        if self.crash_at != Some(self.steps) {
            return if self.read_only { Err(raw(libc::EROFS)) } else { Ok(Fate::Done) };
        }
        self.struck += 1;
        if self.read_only || self.dice.once_in(2) {
            self.down = true;
            return Err(raw(libc::ESHUTDOWN));
        }
        Ok(Fate::Last)
    }

    /// After every operation that changed something.
    fn end(&mut self, fate: Fate) -> io::Result<()> {
        if fate == Fate::Done {
            return Ok(());
        }
        self.down = true;
        Err(raw(libc::ESHUTDOWN))
    }

    /// Whether a fault strikes that does so once in `n`.
    fn strikes(&mut self, n: u64) -> bool {
        // No draw where nothing is to fail.
        let strikes = n > 0 && self.dice.once_in(n);
        self.struck += u64::from(strikes);
        strikes
    }
}

fn raw(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
