//! Whether a graph's nodes and codes are those of the rows.
//!
//! Links were checked to lead to nodes when the bytes were read; where they lead is for the sample search to judge.

use super::Graph;
use crate::check::{disagrees, same_metric, same_rows};
use crate::{BuildParams, IndexError};

/// Nodes whose codes are made again.
const SAMPLE: usize = 256;

pub(super) fn check(graph: &Graph, rows: &BuildParams) -> Result<(), IndexError> {
    let Graph { metric, nodes, codes, .. } = graph;
    same_metric(*metric, rows)?;
    same_rows(nodes.indexed(), rows)?;
    for node in 0..nodes.count() as u32 {
        let (first, others) = (nodes.first_row(node), &nodes.rows_of(node)[1..]);
        let bits = |row: usize| rows.vector(row).iter().map(|element| element.to_bits());
        if let Some(other) = others.iter().find(|other| !bits(first).eq(bits(**other as usize))) {
            return Err(disagrees(format!("rows {first} and {other} differ and share a node")));
        }
    }
    let Some(codes) = codes else { return Ok(()) };
    let step = (nodes.count() / SAMPLE).max(1);
    for node in (0..nodes.count() as u32).step_by(step).take(SAMPLE) {
        let row = nodes.first_row(node);
        if !codes.are_of(node, rows.vector(row)) {
            return Err(disagrees(format!("the code of row {row} is another row's")));
        }
    }
    Ok(())
}
