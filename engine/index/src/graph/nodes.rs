//! Which rows a node stands for, and in which layers it is.
//!
//! A node is one distinct vector: rows whose elements have the same bits share it. Nodes are numbered by
//! falling level, within a level by their first row (those that a merge keeps first), so that node `i` is in layer `l`
//! exactly when `i < counts[l]`, and node 0 is in all of them.

use crate::quantize::{mix, prefetch};
use crate::{Bits, BuildParams, IndexError};

/// Layers at most. Level 23 would need 16 million nodes at `m` = 2, the fewest links.
pub(super) const MOST_LAYERS: usize = 24;
/// Nodes at most: a candidate keeps one bit of the node's number for itself.
pub(super) const MOST_NODES: usize = 1 << 31;
/// No such node, no such row.
pub(super) const NONE: u32 = u32::MAX;

/// Levels are drawn from this and the row's position.
const LEVEL_SEED: u64 = 0x1e7e_15ee_d000_0001;

/// The nodes of one graph.
#[derive(Debug, PartialEq)]
pub(super) struct Nodes {
    /// Rows of the segment, indexed or not.
    rows: usize,
    /// The indexed rows; `None` means all.
    indexed: Option<Bits>,
    /// Row positions by node, ascending within one.
    positions: Vec<u32>,
    /// Where each node's rows start in `positions`, and the end; `None` while every node has one row.
    starts: Option<Vec<u32>>,
    /// The node of each row, [`NONE`] for a row that is not indexed.
    node_of: Vec<u32>,
}

impl Nodes {
    /// Groups the indexable rows and draws levels; also returns how many nodes each layer has, lowest first.
    pub(super) fn build(params: &BuildParams, m: usize) -> Result<(Self, Vec<u32>), IndexError> {
        Self::arrange(params, |rows| (level(rows[0], m), false))
    }

    /// The same where some rows are nodes of a graph already and keep their levels: `kept` has a level and one of each
    /// row, 0 for those that have none yet. No other node is higher than the highest of them, nor before it.
    pub(super) fn merge(params: &BuildParams, m: usize, kept: &[u8]) -> Result<(Self, Vec<u32>), IndexError> {
        let highest = usize::from(kept.iter().copied().max().unwrap_or(0)).saturating_sub(1);
        Self::arrange(params, |rows| {
            match rows.iter().map(|row| kept[*row as usize]).max().unwrap_or(0).checked_sub(1) {
                Some(level) => (usize::from(level), false),
                None => (level(rows[0], m).min(highest), true),
            }
        })
    }

    /// `place`: the level of a node with these rows, and whether it comes behind others of that level.
    fn arrange(
        params: &BuildParams,
        place: impl Fn(&[u32]) -> (usize, bool),
    ) -> Result<(Self, Vec<u32>), IndexError> {
        let indexed = params.indexable();
        let groups = group_equal(params, &indexed);
        if groups.len() >= MOST_NODES {
            return Err(IndexError::Resources(format!(
                "fewer than {MOST_NODES} distinct vectors in a segment"
            )));
        }
        let depth = |rows: &[u32]| {
            let (level, behind) = place(rows);
            (MOST_LAYERS - level, behind)
        };
        let mut order: Vec<((usize, bool), usize)> =
            groups.iter().enumerate().map(|(group, (_, rows))| (depth(rows), group)).collect();
        // By falling level; groups are in the order of their first row, and the sort is stable.
        order.sort_by_key(|(depth, _)| *depth);
        let mut counts = vec![groups.len() as u32];
        for layer in 1..MOST_LAYERS {
            let count = order.partition_point(|((depth, _), _)| *depth <= MOST_LAYERS - layer);
            if count == 0 {
                break;
            }
            counts.push(count as u32);
        }
        let members = order.iter().map(|(_, group)| &groups[*group].1);
        let starts = std::iter::once(0)
            .chain(members.clone().scan(0, |end, rows| {
                *end += rows.len() as u32;
                Some(*end)
            }))
            .collect();
        let positions = members.flatten().copied().collect();
        let nodes = Self::from_parts(params.rows(), Some(indexed), positions, Some(starts));
        let nodes =
            nodes.ok_or_else(|| IndexError::Shape("rows were grouped wrongly; report this".into()))?;
        Ok((nodes, counts))
    }

    /// From stored parts; `None` when they do not fit together.
    pub(super) fn from_parts(
        rows: usize,
        indexed: Option<Bits>,
        positions: Vec<u32>,
        starts: Option<Vec<u32>>,
    ) -> Option<Self> {
        if let Some(starts) = &starts {
            let ascending = starts.windows(2).all(|pair| pair[0] < pair[1]);
            let whole = starts.first() == Some(&0) && starts.last() == Some(&(positions.len() as u32));
            if !(ascending && whole) {
                return None;
            }
        }
        let indexed = indexed.filter(|indexed| indexed.count() < rows);
        if positions.len() != indexed.as_ref().map_or(rows, Bits::count) {
            return None;
        }
        let starts = starts.filter(|starts| starts.len() <= positions.len());
        let mut nodes = Self { rows, indexed, positions, starts, node_of: vec![NONE; rows] };
        let mut node_of = std::mem::take(&mut nodes.node_of);
        for node in 0..nodes.count() as u32 {
            for position in nodes.rows_of(node) {
                let indexed = nodes.indexed.as_ref().is_none_or(|indexed| indexed.get(*position as usize));
                match node_of.get_mut(*position as usize) {
                    Some(slot) if indexed && *slot == NONE => *slot = node,
                    _ => return None,
                }
            }
        }
        nodes.node_of = node_of;
        Some(nodes)
    }

    /// The same with node `order[i]` as node `i`. `None` unless `order` has each once.
    pub(super) fn in_order(&self, order: &[u32]) -> Option<Self> {
        let rows = order.iter().map(|node| self.rows_of(*node));
        let starts = self.starts.as_ref().map(|_| {
            let mut end = 0;
            let ends = rows.clone().map(|rows| {
                end += rows.len() as u32;
                end
            });
            std::iter::once(0).chain(ends).collect()
        });
        let positions = rows.flatten().copied().collect();
        Self::from_parts(self.rows, self.indexed.clone(), positions, starts)
    }

    /// How many nodes.
    pub(super) fn count(&self) -> usize {
        self.starts.as_ref().map_or(self.positions.len(), |starts| starts.len() - 1)
    }

    /// A node's rows, ascending; never none.
    #[inline]
    pub(super) fn rows_of(&self, node: u32) -> &[u32] {
        let node = node as usize;
        match &self.starts {
            None => &self.positions[node..=node],
            Some(starts) => &self.positions[starts[node] as usize..starts[node + 1] as usize],
        }
    }

    /// A node's first row.
    #[inline]
    pub(super) fn first_row(&self, node: u32) -> usize {
        let at = self.starts.as_ref().map_or(node, |starts| starts[node as usize]);
        self.positions[at as usize] as usize
    }

    /// Starts loading where a node's rows are listed.
    #[inline(always)]
    pub(super) fn prefetch_start(&self, node: u32) {
        if let Some(starts) = &self.starts {
            prefetch(starts, node as usize, 1);
        }
    }

    /// Starts loading a node's rows, where they are listed being loaded.
    #[inline(always)]
    pub(super) fn prefetch_rows(&self, node: u32) {
        let at = self.starts.as_ref().map_or(node, |starts| starts[node as usize]);
        prefetch(&self.positions, at as usize, 1);
    }

    /// The first row of each node.
    pub(super) fn first_rows(&self) -> Vec<u32> {
        (0..self.count() as u32).map(|node| self.rows_of(node)[0]).collect()
    }

    /// The node of a row, [`NONE`] when the row is not indexed.
    #[inline]
    pub(super) fn node_of(&self, position: usize) -> u32 {
        self.node_of[position]
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn indexed_rows(&self) -> usize {
        self.positions.len()
    }

    pub(super) fn indexed(&self) -> Option<&Bits> {
        self.indexed.as_ref()
    }

    pub(super) fn positions(&self) -> &[u32] {
        &self.positions
    }

    pub(super) fn starts(&self) -> Option<&[u32]> {
        self.starts.as_deref()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let starts = self.starts.as_ref().map_or(0, Vec::len);
        (self.positions.len() + starts + self.node_of.len()) * size_of::<u32>()
            + self.indexed.as_ref().map_or(0, |indexed| size_of_val(indexed.words()))
    }
}

/// The indexable rows in groups of the same bits, each with its hash, in the order of their first rows.
fn group_equal(params: &BuildParams, indexed: &Bits) -> Vec<(u64, Vec<u32>)> {
    let mut hashed: Vec<(u64, u32)> =
        indexed.iter().map(|position| (hash(params.vector(position)), position as u32)).collect();
    hashed.sort_unstable();
    let mut groups: Vec<(u64, Vec<u32>)> = Vec::with_capacity(hashed.len());
    for (hash, position) in hashed {
        match groups.last_mut() {
            // A row that shares only the hash makes a group of its own, and ends this one: a few copies may
            // then be several nodes, which is correct, only slower.
            Some((last, rows)) if *last == hash && same_bits(params, rows[0], position) => {
                rows.push(position)
            }
            _ => groups.push((hash, vec![position])),
        }
    }
    groups.sort_unstable_by_key(|(_, rows)| rows[0]);
    groups
}

fn same_bits(params: &BuildParams, a: u32, b: u32) -> bool {
    let (a, b) = (params.vector(a as usize), params.vector(b as usize));
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Not for adversaries: a collision costs nothing but a node.
fn hash(vector: &[f32]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = vector.len() as u64;
    for value in vector {
        hash = (hash.rotate_left(23) ^ u64::from(value.to_bits())).wrapping_mul(FACTOR);
    }
    mix(hash)
}

/// A level with probability `m^-level`, at most the top one.
fn level(position: u32, m: usize) -> usize {
    // In (0, 1].
    let uniform = ((mix(LEVEL_SEED ^ u64::from(position)) >> 11) + 1) as f64 / (1u64 << 53) as f64;
    let level = -uniform.ln() / (m as f64).ln();
    (level as usize).min(MOST_LAYERS - 1)
}
