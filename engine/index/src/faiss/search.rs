//! Reading the nearest cells.

use super::{IvfFlat, cell_metric};
use crate::distance::Scorer;
use crate::flat::{finish, scan_positions};
use crate::neighbor::TopK;
use crate::{Bits, Neighbor, SearchParams, Vectors};

impl IvfFlat {
    /// The best of the `probes` nearest cells; while those have not given `k` rows, of the next nearest ones
    /// too. A filter that leaves fewer rows than the cells would have been read for is answered exactly
    /// instead.
    pub(super) fn probe(&self, vectors: Vectors, query: &[f32], params: &SearchParams) -> Vec<Neighbor> {
        let k = params.k.min(self.positions.len());
        if k == 0 {
            return Vec::new();
        }
        let probes = params.probes.clamp(1, self.lists());
        let scorer = Scorer::new(self.metric, query);
        let mut top = TopK::new(k, self.positions.len());
        match params.allowed {
            Some(allowed) if allowed.count_and(&self.held) <= self.rows_in(probes).max(k) => {
                let mut wanted = self.held.clone();
                wanted.and(allowed);
                scan_positions(&scorer, self.dim, vectors, wanted.iter(), &mut top);
            }
            allowed => self.scan_cells(vectors, query, probes, allowed, &scorer, &mut top),
        }
        finish(&scorer, top)
    }

    fn scan_cells(
        &self,
        vectors: Vectors,
        query: &[f32],
        probes: usize,
        allowed: Option<&Bits>,
        scorer: &Scorer,
        top: &mut TopK,
    ) {
        let mut cells = self.cells(query);
        // Only the cells that are read need their order.
        if probes < cells.len() {
            cells.select_nth_unstable(probes - 1);
        }
        let (near, far) = cells.split_at_mut(probes);
        let scan = |cell: &Neighbor, top: &mut TopK| {
            let positions = self.list(cell.position as usize).iter().map(|position| *position as usize);
            match allowed {
                Some(allowed) => {
                    let positions = positions.filter(|position| allowed.get(*position));
                    scan_positions(scorer, self.dim, vectors, positions, top);
                }
                None => scan_positions(scorer, self.dim, vectors, positions, top),
            }
        };
        near.sort_unstable();
        near.iter().for_each(|cell| scan(cell, top));
        if top.is_full() {
            return;
        }
        far.sort_unstable();
        for cell in far {
            scan(cell, top);
            if top.is_full() {
                return;
            }
        }
    }

    /// All cells with their distance from the query, in the order of the lists.
    pub(super) fn cells(&self, query: &[f32]) -> Vec<Neighbor> {
        let scorer = Scorer::new(cell_metric(self.metric), query);
        let centroids = self.centroids.chunks_exact(self.dim).enumerate();
        centroids
            .map(|(list, centroid)| Neighbor { position: list as u32, distance: scorer.score(centroid) })
            .collect()
    }

    /// How many rows `probes` cells of average size have.
    fn rows_in(&self, probes: usize) -> usize {
        (self.positions.len() as u64 * probes as u64 / self.lists() as u64) as usize
    }
}
