//! The rows that a search scores from their vectors, named without having those.
//!
//! Called for tables that are larger than memory (`VectorIndex::candidates`). Walks and scans read codes alone, as
//! ever, and leave the same candidates, with their estimates: `contest` has as many of them fetched as it takes. Where
//! few rows are allowed, all are named. A walk on vectors names nothing: those have to be at hand.

use super::{GraphPart, Plan, Search, Side};
use crate::graph::Graph;
use crate::{Allowed, Candidates, SearchParams, Vectors, Work};

/// As many allowed rows are all named, of which a page each is read. More, where all of them would be scored, are first
/// told apart by their codes.
const MOST_NAMED: usize = 1_024;

impl Graph {
    /// What [`super::search`] would score from vectors, or more. `None` where that reads vectors on its way, or has to
    /// score too many.
    pub(crate) fn nominate(&self, query: &[f32], params: &SearchParams) -> Option<Candidates> {
        assert_eq!(query.len(), self.dim, "a query of other dimensions than the graph");
        let allowed = params.allowed.map(Allowed::new);
        let vectors = Vectors::F32(&[]);
        let part = GraphPart { number: 0, graph: self, vectors, allowed, ef: params.ef_search };
        Search { query, k: params.k, sides: vec![Side::over(&part)] }.named()
    }
}

impl Search<'_> {
    /// Of the only graph.
    fn named(&self) -> Option<Candidates> {
        let side = &self.sides[0];
        let indexed = side.count;
        if self.k == 0 || indexed == 0 {
            return Some(Candidates { indexed, ..Candidates::default() });
        }
        if side.is_few(self.k) && indexed <= MOST_NAMED {
            let work = Work { exact: 1, ..Work::default() };
            return Some(Candidates { rows: side.all(), indexed, work, ..Candidates::default() });
        }
        let (mut choices, mut work) = (Vec::new(), Work::default());
        match side.plan(self.query, self.k) {
            Plan::WalkVectors => return None,
            // All that are allowed: their codes tell which of them come first, if there are any for this query.
            Plan::Exact => {
                let query = side.graph.codes.as_ref()?.query(self.query)?;
                self.scan(0, &query, &mut choices, &mut work);
            }
            Plan::Scan(query) => self.scan(0, &query, &mut choices, &mut work),
            Plan::Walk(query) => {
                self.walk_codes(0, &query, &mut choices, &mut work);
                let found: usize = choices.iter().map(|choice| self.rows(choice).count()).sum();
                if found < self.k.min(indexed) {
                    choices.clear();
                    self.scan(0, &query, &mut choices, &mut work);
                }
            }
        }
        let estimated = |choice| self.rows(choice).map(|row| (row, choice.estimate));
        let mut named: Vec<(u32, f32)> = choices.iter().flat_map(estimated).collect();
        named.sort_unstable_by_key(|(row, _)| *row);
        let (rows, estimates): (Vec<u32>, Vec<f32>) = named.into_iter().unzip();
        Some(Candidates { rows, estimates, indexed, work })
    }
}

impl Side<'_> {
    /// All allowed rows.
    fn all(&self) -> Vec<u32> {
        let nodes = &self.graph.nodes;
        match self.filter.as_deref().or(nodes.indexed()) {
            Some(rows) => rows.iter().map(|row| row as u32).collect(),
            None => (0..nodes.rows() as u32).collect(),
        }
    }
}
