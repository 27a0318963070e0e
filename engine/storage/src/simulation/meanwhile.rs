//! What sessions do while the owner's upkeep is at work: they get their turn when it asks for an index, and between the
//! phases of a copy.

use parking_lot::Mutex;
use sepal_types::{IndexDef, TableDef};

use super::{
    rows::blob,
    world::{Verdict, World},
};
use crate::{BlobBuilder, Pace, Phase};

/// What the upkeep at work shuts out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alone {
    /// All other upkeep.
    Upkeep,
    /// Compactions and copies only.
    Compaction,
}

pub(super) struct Meanwhile<'a> {
    world: Mutex<&'a mut World>,
    pub verdict: Mutex<Verdict>,
    alone: Alone,
}

impl<'a> Meanwhile<'a> {
    pub(super) fn new(world: &'a mut World, alone: Alone) -> Self {
        Self { world: Mutex::new(world), verdict: Mutex::new(Ok(())), alone }
    }

    /// A few changes and commits.
    fn act(&self) {
        let mut world = self.world.lock();
        for _ in 0..world.dice.below(4) {
            self.unless_over(&mut world, |world| {
                world.note("meanwhile");
                let ends = world.dice.once_in(2);
                world.act(ends)
            });
        }
    }

    fn unless_over(&self, world: &mut World, step: impl FnOnce(&mut World) -> Verdict) {
        let mut verdict = self.verdict.lock();
        if verdict.is_ok() && !world.machine.is_down() {
            *verdict = step(world);
        }
    }
}

impl BlobBuilder for Meanwhile<'_> {
    fn build(
        &self,
        _: &TableDef,
        index: &IndexDef,
        segment: &crate::Chunk,
        _: &[crate::MergeInput<'_>],
    ) -> Result<Option<Box<dyn crate::BlobBytes>>, crate::StoreError> {
        self.act();
        let mut world = self.world.lock();
        if self.alone == Alone::Compaction {
            match world.dice.below(12) {
                0..=3 => self.unless_over(&mut world, World::checkpoint),
                4 => self.unless_over(&mut world, World::replace_key),
                _ => {}
            }
        }
        let left_out = world.dice.once_in(4);
        Ok((!left_out)
            .then(|| Box::new(blob(index.id, segment.rows() as usize)) as Box<dyn crate::BlobBytes>))
    }
}

/// Of a copy. Nothing is locked then that a flush needs.
impl Pace for Meanwhile<'_> {
    fn phase(&self, phase: Phase) {
        if !matches!(phase, Phase::Writing | Phase::Committing) {
            return;
        }
        self.act();
        let mut world = self.world.lock();
        if world.dice.once_in(4) {
            self.unless_over(&mut world, World::checkpoint);
        }
    }
}
