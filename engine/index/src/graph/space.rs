//! How far apart: by codes, or exactly. The walk and the builder are compiled once for each.

use sepal_types::Metric;

use super::nodes::Nodes;
use crate::Vectors;
use crate::distance::{Scorer, prefetch};
use crate::quantize::{Codes, QueryRef, RowQueries};

/// Distances from a query to nodes, in whatever order-keeping measure; smaller is nearer.
pub(super) trait Space: Sync {
    type Query;

    /// `out[i]`: how far `nodes[i]` is.
    fn score(&self, query: &Self::Query, nodes: &[u32], out: &mut Vec<f32>);

    /// Starts loading what `score` reads of a node.
    fn prefetch(&self, node: u32);
}

/// A space whose nodes can be the query too, as the builder needs.
pub(super) trait RowSpace: Space {
    fn row(&self, node: u32) -> Self::Query;
}

/// Exact distances, from the vectors.
#[derive(Clone, Copy)]
pub(super) struct Exact<'a> {
    pub(super) metric: Metric,
    pub(super) dim: usize,
    pub(super) vectors: Vectors<'a>,
    pub(super) nodes: &'a Nodes,
}

/// Estimates, from the codes.
#[derive(Clone, Copy)]
pub(super) struct Estimate<'a> {
    pub(super) codes: &'a Codes,
}

/// A space in which one node is infinitely far from everything: a walk passes it by.
pub(super) struct Without<'a, S> {
    pub(super) space: &'a S,
    pub(super) node: u32,
}

/// Estimates between nodes: one side by its code, the other rounded to 8 bits.
#[derive(Clone, Copy)]
pub(super) struct EstimateRows<'a> {
    pub(super) codes: &'a Codes,
    pub(super) rows: &'a RowQueries,
}

impl<'a> Exact<'a> {
    #[inline(always)]
    fn vector(&self, node: u32) -> Vectors<'a> {
        self.vectors.row(self.nodes.first_row(node), self.dim)
    }
}

impl<'a> Space for Exact<'a> {
    type Query = Scorer<'a>;

    #[inline]
    fn score(&self, query: &Scorer<'a>, nodes: &[u32], out: &mut Vec<f32>) {
        out.clear();
        out.extend(nodes.iter().map(|node| query.score(self.vector(*node)) as f32));
    }

    #[inline(always)]
    fn prefetch(&self, node: u32) {
        prefetch(self.vector(node));
    }
}

impl RowSpace for Exact<'_> {
    fn row(&self, node: u32) -> Self::Query {
        Scorer::new(self.metric, self.vector(node).widened())
    }
}

impl<'a> Space for Estimate<'a> {
    type Query = QueryRef<'a>;

    #[inline]
    fn score(&self, query: &QueryRef<'a>, nodes: &[u32], out: &mut Vec<f32>) {
        self.codes.score(query, nodes, out);
    }

    #[inline(always)]
    fn prefetch(&self, node: u32) {
        self.codes.prefetch(node);
    }
}

impl<S: Space> Space for Without<'_, S> {
    type Query = S::Query;

    #[inline]
    fn score(&self, query: &S::Query, nodes: &[u32], out: &mut Vec<f32>) {
        self.space.score(query, nodes, out);
        if let Some(place) = nodes.iter().position(|node| *node == self.node) {
            out[place] = f32::INFINITY;
        }
    }

    #[inline(always)]
    fn prefetch(&self, node: u32) {
        self.space.prefetch(node);
    }
}

impl<'a> Space for EstimateRows<'a> {
    type Query = QueryRef<'a>;

    #[inline]
    fn score(&self, query: &QueryRef<'a>, nodes: &[u32], out: &mut Vec<f32>) {
        self.codes.score(query, nodes, out);
    }

    #[inline(always)]
    fn prefetch(&self, node: u32) {
        self.codes.prefetch(node);
    }
}

impl RowSpace for EstimateRows<'_> {
    fn row(&self, node: u32) -> Self::Query {
        self.rows.get(node)
    }
}
