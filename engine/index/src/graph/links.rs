//! The links: one flat array a layer, a fixed number of slots a node.
//!
//! Read by every walk and written by the builder, at the same time from several threads: each slot is atomic,
//! and the builder's locks (not here) let one thread at a time write a node's slots. A reader may see a list
//! half old, half new; every entry of it is a node all the same. Relaxed loads are plain loads on x86-64 and
//! ARM.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::nodes::NONE;
use crate::IndexError;
use crate::layout::Reader;
use crate::permute::permute;
use crate::quantize::{Aligned, prefetch};

/// Links written at a time.
const BATCH: usize = 16_384;

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
        let mut layers = Self::zeroed(m, counts)?;
        for layer in &mut layers.layers {
            layer.links.iter_mut().for_each(|slot| *slot.get_mut() = NONE);
        }
        Ok(layers)
    }

    /// For [`Layers::read`] to fill: all links lead to node 0.
    ///
    /// # Errors
    /// [`IndexError::Resources`] when there is not enough memory.
    pub(super) fn zeroed(m: usize, counts: &[u32]) -> Result<Self, IndexError> {
        let layers = counts
            .iter()
            .enumerate()
            .map(|(layer, count)| {
                let slots = slots(layer, m);
                let links = Aligned::<AtomicU32>::zeroed(*count as usize * slots)?;
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

    /// Nodes above the lowest layer: the first so many.
    pub(super) fn above_lowest(&self) -> usize {
        self.layers.get(1).map_or(0, |layer| layer.count as usize)
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

    /// Puts node `order[i]` at `i`, whose links follow to `places`, the inverse. Every node stays in its layers.
    pub(super) fn arrange(&mut self, order: &[u32], places: &[u32]) {
        for Layer { count, slots, links } in &mut self.layers {
            permute(bytes_mut(links), *slots * size_of::<u32>(), &order[..*count as usize]);
            for slot in links.iter_mut() {
                let slot = slot.get_mut();
                *slot = places.get(*slot as usize).copied().unwrap_or(NONE);
            }
        }
    }

    /// All slots of a layer as little-endian bytes.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn write(&self, layer: usize, out: &mut dyn Write) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(BATCH * size_of::<u32>());
        for slots in self.layers[layer].links.chunks(BATCH) {
            bytes.clear();
            bytes.extend(slots.iter().flat_map(|slot| slot.load(Relaxed).to_le_bytes()));
            out.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Fills a layer from the bytes of [`Layers::write`], straight into its memory. False when one names a node that is
    /// not in the layer.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] when there are fewer bytes, [`IndexError::Unreadable`].
    pub(super) fn read(&mut self, layer: usize, reader: &mut Reader) -> Result<bool, IndexError> {
        let Layer { count, links, .. } = &mut self.layers[layer];
        reader.fill(bytes_mut(links))?;
        let mut sound = true;
        for slot in links.iter_mut() {
            let link = u32::from_le(*slot.get_mut());
            sound &= link < *count || link == NONE;
            *slot.get_mut() = link;
        }
        Ok(sound)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.links.bytes()).sum()
    }
}

/// The slots' memory, in whose bytes any value is a link.
fn bytes_mut(slots: &mut [AtomicU32]) -> &mut [u8] {
    let len = size_of_val(slots);
    // SAFETY: an AtomicU32 is laid out as a u32, of which any four bytes are one; the slots are borrowed exclusively
    // for as long as the bytes are, and these are no more than the slots have.
    unsafe { std::slice::from_raw_parts_mut(slots.as_mut_ptr().cast::<u8>(), len) }
}

/// Slots of a node: the lowest layer has twice as many, as in the paper (`Mmax0`).
pub(super) fn slots(layer: usize, m: usize) -> usize {
    if layer == 0 { 2 * m } else { m }
}
