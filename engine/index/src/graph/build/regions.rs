//! Which nodes lie near each other, as the upper layers tell.
//!
//! Called between the insertion of the upper layers and that of the lowest. A node's home is where its descent ends:
//! about the nearest node in the layer above its own. Nodes of one home are a region, homes of one home a wider one,
//! and so on: with `m` = 16, of 16 nodes, of 256, and of 4,096. In an order by regions, searches for one node after the
//! other read much the same codes and links.
//!
//! It costs little but the sorting: an insertion begins where the descent ended, and descends no more.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::work::in_chunks;
use crate::graph::beam::Walk;
use crate::graph::links::Layers;
use crate::graph::scratch::Scratch;
use crate::graph::space::RowSpace;
use crate::quantize::mix;
use crate::{BuildParams, IndexError};

/// Rounds are drawn from this and the node's number.
const ROUND_SEED: u64 = 0xb110_0000_0000_0001;

pub(super) struct Regions {
    /// By node; the entry for those that nobody asked for.
    home: Vec<u32>,
    /// The place of each node above the lowest layer in an order of these, by region.
    rank: Vec<u32>,
}

impl Regions {
    /// The homes of `nodes` of the lowest layer, and of all nodes above it. The upper layers change no more.
    ///
    /// # Errors
    /// [`IndexError::Cancelled`].
    pub(super) fn find<S: RowSpace>(
        space: &S,
        layers: &Layers,
        params: &BuildParams,
        nodes: &[u32],
    ) -> Result<Self, IndexError> {
        let homes: Vec<AtomicU32> = (0..layers.count(0)).map(|_| AtomicU32::new(0)).collect();
        let upper: Vec<u32> = (0..layers.above_lowest() as u32).collect();
        let work = |nodes: &[u32], scratch: &mut Scratch| {
            for node in nodes {
                let query = space.row(*node);
                let walk = Walk { space, layers, query: &query };
                let entry = walk.start(0, scratch);
                let home = walk.descend(entry, layers.top_of(*node) + 1..layers.len(), scratch);
                homes[*node as usize].store(home.node(), Relaxed);
            }
        };
        // A descent marks no node.
        in_chunks(params, params.threads, &upper, || Scratch::new(0), work)?;
        in_chunks(params, params.threads, nodes, || Scratch::new(0), work)?;
        let home: Vec<u32> = homes.into_iter().map(AtomicU32::into_inner).collect();
        let rank = ranks(layers, &home);
        Ok(Self { home, rank })
    }

    /// Where the descent of a node ends.
    pub(super) fn home(&self, node: u32) -> u32 {
        self.home[node as usize]
    }

    /// Sorts nodes by region within each of so many rounds; 0 leaves them as they are.
    ///
    /// The last round has half of the nodes, the one before it half of the rest, and so on: drawn at random, so that a
    /// node finds those around it there in about the share that it would in random order (Amenta, Choi and Rote 2003:
    /// "biased randomized insertion orders").
    pub(super) fn sort(&self, nodes: &mut [u32], rounds: u32) {
        if rounds > 0 {
            nodes.sort_by_cached_key(|node| {
                u64::from(round(*node, rounds)) << 32 | u64::from(self.place(*node))
            });
        }
    }

    /// The rank of a node's region.
    fn place(&self, node: u32) -> u32 {
        let ranked = self.rank.get(node as usize);
        ranked.copied().unwrap_or_else(|| self.rank[self.home(node) as usize])
    }
}

/// Ranks the nodes above the lowest layer: those of the highest by their numbers, all others by their homes.
fn ranks(layers: &Layers, home: &[u32]) -> Vec<u32> {
    let mut rank: Vec<u32> = (0..layers.count(layers.len() - 1) as u32).collect();
    for layer in (1..layers.len().saturating_sub(1)).rev() {
        let mut nodes: Vec<u32> = (0..layers.count(layer) as u32).collect();
        let of_region = |node: u32| {
            rank.get(node as usize).copied().unwrap_or_else(|| rank[home[node as usize] as usize])
        };
        nodes.sort_unstable_by_key(|node| (of_region(*node), *node));
        let mut ranked = vec![0; nodes.len()];
        for (place, node) in nodes.iter().enumerate() {
            ranked[*node as usize] = place as u32;
        }
        rank = ranked;
    }
    rank
}

/// The round of a node, of at least one.
fn round(node: u32, rounds: u32) -> u32 {
    let last = rounds - 1;
    last - mix(ROUND_SEED ^ u64::from(node)).trailing_zeros().min(last)
}

#[cfg(test)]
mod tests;
