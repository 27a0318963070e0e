//! The links: one flat array a layer, a fixed number of slots a node.
//!
//! Read by every walk and written by the builder, at the same time from several threads: each slot is atomic,
//! and the builder's locks (not here) let one thread at a time write a node's slots. A reader may see a list
//! half old, half new; every entry of it is a node all the same. Relaxed loads are plain loads on x86-64 and
//! ARM.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::nodes::NONE;
use crate::IndexError;
use crate::quantize::{Aligned, prefetch};

/// All layers of a graph, the lowest first. There is always a lowest one.
pub(super) struct Layers {
    layers: Vec<Layer>,
    m: usize,
}

struct Layer {
    /// Nodes 0 to `count - 1` are in this layer.
    count: u32,
    /// Slots of a node.
    slots: usize,
    /// `count × slots`; a list ends at the first [`NONE`] or with its slots.
    links: Aligned<AtomicU32>,
}

impl Layers {
    /// Without links. `counts` are the nodes of each layer.
    ///
    /// # Errors
    /// [`IndexError::Resources`] when there is not enough memory.
    pub(super) fn empty(m: usize, counts: &[u32]) -> Result<Self, IndexError> {
        let layers = counts
            .iter()
            .enumerate()
            .map(|(layer, count)| {
                let slots = slots(layer, m);
                let mut links = Aligned::<AtomicU32>::zeroed(*count as usize * slots)?;
                links.iter_mut().for_each(|slot| *slot.get_mut() = NONE);
                Ok(Layer { count: *count, slots, links })
            })
            .collect::<Result<_, IndexError>>()?;
        Ok(Self { layers, m })
    }

    pub(super) fn m(&self) -> usize {
        self.m
    }

    /// How many layers.
    pub(super) fn len(&self) -> usize {
        self.layers.len()
    }

    /// Nodes of a layer.
    pub(super) fn count(&self, layer: usize) -> usize {
        self.layers[layer].count as usize
    }

    /// The highest layer that a node is in.
    pub(super) fn top_of(&self, node: u32) -> usize {
        self.layers.partition_point(|layer| node < layer.count) - 1
    }

    /// A node's slots in a layer it is in.
    #[inline(always)]
    pub(super) fn slots(&self, layer: usize, node: u32) -> &[AtomicU32] {
        let Layer { slots, links, .. } = &self.layers[layer];
        &links[node as usize * slots..][..*slots]
    }

    /// A node's links in a layer it is in.
    #[inline(always)]
    pub(super) fn links(&self, layer: usize, node: u32) -> impl Iterator<Item = u32> + '_ {
        self.slots(layer, node).iter().map(|slot| slot.load(Relaxed)).take_while(|link| *link != NONE)
    }

    /// Replaces a node's links; no more than it has slots.
    pub(super) fn set(&self, layer: usize, node: u32, links: &[u32]) {
        let slots = self.slots(layer, node);
        debug_assert!(links.len() <= slots.len());
        for (index, slot) in slots.iter().enumerate() {
            slot.store(links.get(index).copied().unwrap_or(NONE), Relaxed);
        }
    }

    /// Starts loading a node's links.
    #[inline(always)]
    pub(super) fn prefetch(&self, layer: usize, node: u32) {
        let Layer { slots, links, .. } = &self.layers[layer];
        prefetch(links, node as usize * slots, *slots);
    }

    /// All slots of a layer as little-endian bytes, appended.
    pub(super) fn write(&self, layer: usize, out: &mut Vec<u8>) {
        let links = &self.layers[layer].links;
        out.reserve(links.len() * size_of::<u32>());
        out.extend(links.iter().flat_map(|slot| slot.load(Relaxed).to_le_bytes()));
    }

    /// Fills a layer from the bytes of [`Layers::write`]. False when their length is another, or one names a
    /// node that is not in the layer.
    pub(super) fn read(&mut self, layer: usize, bytes: &[u8]) -> bool {
        let Layer { count, links, .. } = &mut self.layers[layer];
        let (chunks, rest) = bytes.as_chunks::<4>();
        if chunks.len() != links.len() || !rest.is_empty() {
            return false;
        }
        let mut sound = true;
        for (slot, chunk) in links.iter_mut().zip(chunks) {
            let link = u32::from_le_bytes(*chunk);
            sound &= link < *count || link == NONE;
            *slot.get_mut() = link;
        }
        sound
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.links.bytes()).sum()
    }
}

/// Slots of a node: the lowest layer has twice as many, as in the paper (`Mmax0`).
pub(super) fn slots(layer: usize, m: usize) -> usize {
    if layer == 0 { 2 * m } else { m }
}
