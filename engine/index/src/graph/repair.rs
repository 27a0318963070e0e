//! Makes every node reachable on the lowest layer.
//!
//! Called at the end of a build. Choosing links anew can drop the last link that led to a node, and tight
//! groups of rows can end up linked only to each other. Rare, but a row that no query can find is a wrong
//! answer for ever.

use std::sync::atomic::Ordering::Relaxed;

use super::beam::Walk;
use super::links::Layers;
use super::nodes::NONE;
use super::scratch::Scratch;
use super::space::RowSpace;
use crate::{Bits, BuildParams, IndexError};

/// Making room for one node can cut off another, which the next round finds.
const ROUNDS: usize = 4;
/// Links are taken from others only while one node in this many is cut off. Where it is more, the measure
/// itself leads away from them (short vectors under the inner product), and only free slots are used.
const RARE: usize = 50;

/// # Errors
/// [`IndexError::Cancelled`].
pub(super) fn reach_all<S: RowSpace>(
    space: &S,
    layers: &Layers,
    ef: usize,
    params: &BuildParams,
) -> Result<(), IndexError> {
    let nodes = layers.count(0);
    let mut scratch = Scratch::new(nodes);
    for _ in 0..ROUNDS {
        let mut reached = reachable(layers);
        let missing = nodes - reached.count();
        if missing == 0 {
            break;
        }
        let may_take = missing <= nodes / RARE + 1;
        for node in 0..nodes as u32 {
            if reached.get(node as usize) {
                continue;
            }
            if (params.cancelled)() {
                return Err(IndexError::Cancelled);
            }
            let query = space.row(node);
            let walk = Walk { space, layers, query: &query };
            // From the entry and on the lowest layer: a descent might end among the unreachable.
            let entry = walk.start(0, &mut scratch);
            walk.beam(0, entry, ef, &mut scratch);
            if link_from_one(layers, &scratch, node, may_take) {
                spread(layers, node, &mut reached);
            }
        }
    }
    Ok(())
}

/// The nodes that a walk on the lowest layer can meet.
pub(super) fn reachable(layers: &Layers) -> Bits {
    let mut reached = Bits::new(layers.count(0));
    if !reached.is_empty() {
        spread(layers, 0, &mut reached);
    }
    reached
}

/// Marks `node` and all that can be met from it.
fn spread(layers: &Layers, node: u32, reached: &mut Bits) {
    let mut waiting = vec![node];
    reached.set(node as usize);
    while let Some(node) = waiting.pop() {
        for link in layers.links(0, node) {
            if !reached.get(link as usize) {
                reached.set(link as usize);
                waiting.push(link);
            }
        }
    }
}

/// Links to `node` from the nearest of the walk's candidates with a free slot; failing that, and if it may,
/// from the nearest in place of its last link.
fn link_from_one(layers: &Layers, scratch: &Scratch, node: u32, may_take: bool) -> bool {
    for candidate in &scratch.best {
        let slots = layers.slots(0, candidate.node());
        if let Some(free) = slots.iter().find(|slot| slot.load(Relaxed) == NONE) {
            free.store(node, Relaxed);
            return true;
        }
    }
    let taken = scratch.best.first().and_then(|nearest| layers.slots(0, nearest.node()).last());
    match taken {
        Some(slot) if may_take => {
            slot.store(node, Relaxed);
            true
        }
        _ => false,
    }
}
