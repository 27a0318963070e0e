//! One query: FAISS finds candidates, the best of them by exact distance are the answer.
//!
//! `hnsw.ef_search` is how many candidates there are, and how wide an HNSW graph is walked; `ivfflat.probes` is how many
//! cells are read. A filter goes to FAISS where the kind of index can select; else more candidates are asked for. Few
//! qualifying rows, a query that FAISS must not see, and an answer with fewer rows than qualify: all qualifying ones
//! are scored exactly. So a filter never costs rows, and FAISS failing costs time only.

use parking_lot::{RwLockReadGuard, RwLockWriteGuard};
use sepal_types::Metric;

use super::factory::Select;
use super::rows::{SAFE_MAGNITUDES, largest_magnitude, prepare};
use super::sys::Wanted;
use super::{Engine, Faiss, Walk};
use crate::calibration::same_bits;
use crate::distance::{Scorer, has_direction};
use crate::flat::{finish, scan_positions};
use crate::neighbor::TopK;
use crate::{Bits, BuildParams, Neighbor, SearchParams, Vectors, Work, search_exact};

/// So few qualifying rows are scored from their vectors: FAISS would look at more.
const FEW_ROWS: usize = 128;
/// More than this part of the rows is not asked of FAISS: scoring them all costs no more.
const MOST_ASKED: usize = 4;
/// More candidates than pgvector's greatest `ef_search` are no use; more cells are.
const MOST_CANDIDATES: usize = 1_000;

/// For a row that asks, as many more candidates as may equal it.
const MOST_EQUALS: usize = 16;

/// What one search is after.
struct Search<'a> {
    index: &'a Faiss,
    vectors: Vectors<'a>,
    query: &'a [f32],
    k: usize,
    probes: usize,
    ef: usize,
    /// Rows that qualify, indexed ones or not; `None`: all.
    allowed: Option<&'a Bits>,
    /// Indexed rows that qualify.
    count: usize,
}

impl Faiss {
    pub(super) fn find(
        &self,
        vectors: Vectors,
        query: &[f32],
        params: &SearchParams,
        work: &mut Work,
    ) -> Vec<Neighbor> {
        let count = match (params.allowed, &self.held) {
            (None, _) => self.rows_held(),
            (Some(allowed), None) => allowed.count(),
            (Some(allowed), Some(held)) => held.bits.count_and(allowed),
        };
        let k = params.k.min(count);
        if k == 0 {
            return Vec::new();
        }
        let allowed = params.allowed.filter(|_| count < self.rows_held());
        let (probes, ef) = (params.probes.max(1), params.ef_search);
        let search = Search { index: self, vectors, query, k, probes, ef, allowed, count };
        match self.engine.as_ref().and_then(|engine| search.by_faiss(engine, work)) {
            Some(found) if found.len() >= k => found,
            _ => {
                work.distances += count as u64;
                search.exact()
            }
        }
    }

    /// Numbers of the rows that FAISS finds nearest, in no order; `None` when it must not see the query, or fails.
    pub(super) fn ask(&self, engine: &Engine, query: &[f32], ask: &Ask) -> Option<Vec<i64>> {
        let question = self.question(query)?;
        let (mut labels, mut distances) = (vec![-1; ask.candidates], vec![0.0; ask.candidates]);
        let wanted =
            Wanted { probes: self.factory.cells.map(|cells| ask.probes.min(cells)), bitmap: ask.bitmap };
        let walk = if self.factory.walks { engine.walk_of(ask.width) } else { engine.walk.read() };
        walk.index.search(&question, wanted, &mut labels, &mut distances).ok()?;
        Some(labels)
    }

    /// How many candidates are scored exactly.
    fn candidates(&self, ef: usize, k: usize) -> usize {
        let spare = k.saturating_add(10);
        if self.factory.lossless {
            spare
        } else {
            ef.min(MOST_CANDIDATES).max(spare).max(k.saturating_mul(2))
        }
    }

    /// For calibration: what searches of all codes find, whose candidates at any effort are the first of those at the
    /// greatest one. `None` for indexes that do not read all codes.
    pub(super) fn hits_of_scan(
        &self,
        params: &BuildParams,
        row: usize,
        truth: &[Neighbor],
        efforts: &[u32],
    ) -> Option<Vec<u32>> {
        let engine = self.engine.as_ref().filter(|_| !self.factory.walks && self.factory.cells.is_none())?;
        let (question, k, furthest) = (params.vector(row), truth.len(), truth.last()?.distance);
        let most = self.candidates(*efforts.last()? as usize, k) + MOST_EQUALS;
        let ask = Ask { candidates: most.min(self.rows_held()), probes: 1, width: 0, bitmap: None };
        let labels = self.ask(engine, question, &ask)?;
        let scorer = Scorer::new(self.metric, question);
        let vectors =
            labels.into_iter().filter_map(|label| self.position(label)).map(|row| params.vector(row));
        let strangers = vectors.filter(|vector| !same_bits(question, vector));
        let near: Vec<bool> =
            strangers.map(|vector| scorer.finish(scorer.score(vector)) <= furthest).collect();
        let found = |effort: &u32| {
            let first = near.iter().take(self.candidates(*effort as usize, k));
            first.filter(|near| **near).count().min(k) as u32
        };
        Some(efforts.iter().map(found).collect())
    }

    /// The query as FAISS may see it.
    fn question(&self, query: &[f32]) -> Option<Vec<f32>> {
        if self.metric == Metric::Cosine && !has_direction(query) {
            return None;
        }
        let mut question = Vec::with_capacity(self.dim);
        prepare(self.metric, self.scale, query, &mut question);
        let largest = largest_magnitude(&question);
        (largest <= *SAFE_MAGNITUDES.end()).then_some(question)
    }

    /// The row that FAISS knows by a number.
    pub(super) fn position(&self, label: i64) -> Option<usize> {
        let number = usize::try_from(label).ok()?;
        match &self.held {
            None => (number < self.rows).then_some(number),
            Some(held) => held.positions.get(number).map(|position| *position as usize),
        }
    }

    fn rows_held(&self) -> usize {
        self.held.as_ref().map_or(self.rows, |held| held.positions.len())
    }

    /// The rows that qualify, by FAISS' numbers, eight to a byte.
    fn bitmap(&self, allowed: &Bits) -> Vec<u8> {
        match &self.held {
            None => allowed.words().iter().flat_map(|word| word.to_le_bytes()).collect(),
            Some(held) => {
                let mut bytes = vec![0u8; held.positions.len().div_ceil(8)];
                for (number, position) in held.positions.iter().enumerate() {
                    bytes[number / 8] |= u8::from(allowed.get(*position as usize)) << (number % 8);
                }
                bytes
            }
        }
    }
}

/// What FAISS is asked for.
pub(super) struct Ask<'a> {
    pub(super) candidates: usize,
    pub(super) probes: usize,
    /// Of a walk.
    pub(super) width: usize,
    pub(super) bitmap: Option<&'a [u8]>,
}

impl Search<'_> {
    /// `None` where the exact scan is due.
    fn by_faiss(&self, engine: &Engine, work: &mut Work) -> Option<Vec<Neighbor>> {
        let index = self.index;
        let candidates = index.candidates(self.ef, self.k);
        if self.allowed.is_some() && self.count <= candidates.saturating_mul(2).max(FEW_ROWS) {
            return None;
        }
        let rows = index.rows_held();
        // As many more as it takes until so many of them qualify.
        let more = |wanted: usize| {
            let wanted = wanted as u128 * rows as u128 / self.count as u128;
            usize::try_from(wanted).unwrap_or(usize::MAX)
        };
        let selects = index.factory.select != Select::Never;
        let asked = if selects { candidates } else { more(candidates) };
        // A walk keeps what qualifies and passes through what does not.
        let width = more(self.ef.max(self.k));
        let walked = if index.factory.walks { width } else { 0 };
        if self.allowed.is_some() && asked.max(walked) > rows / MOST_ASKED {
            return None;
        }
        let bitmap = self.allowed.filter(|_| selects).map(|allowed| index.bitmap(allowed));
        let ask = Ask {
            candidates: asked.min(rows),
            probes: self.probes,
            width: width.min(rows),
            bitmap: bitmap.as_deref(),
        };
        let labels = index.ask(engine, self.query, &ask)?;
        let qualifies = |position: &usize| self.allowed.is_none_or(|allowed| allowed.get(*position));
        let mut positions: Vec<usize> =
            labels.into_iter().filter_map(|label| index.position(label)).filter(qualifies).collect();
        positions.sort_unstable();
        positions.dedup();
        work.distances += positions.len() as u64;
        let scorer = Scorer::new(index.metric, self.query);
        let mut top = TopK::new(self.k, positions.len());
        scan_positions(&scorer, index.dim, self.vectors, positions.into_iter(), &mut top);
        Some(finish(&scorer, top))
    }

    fn exact(&self) -> Vec<Neighbor> {
        let index = self.index;
        let exact = |allowed: Option<&Bits>| {
            search_exact(index.metric, index.dim, self.vectors, self.query, self.k, allowed)
        };
        match (&index.held, self.allowed) {
            (Some(held), Some(allowed)) => {
                let mut both = held.bits.clone();
                both.and(allowed);
                exact(Some(&both))
            }
            (held, allowed) => exact(held.as_ref().map(|held| &held.bits).or(allowed)),
        }
    }
}

impl Engine {
    /// The index, set to a width. FAISS keeps the width in the index, so a search that wants another one waits for those
    /// that run, and then runs beside others again.
    fn walk_of(&self, width: usize) -> RwLockReadGuard<'_, Walk> {
        {
            let walk = self.walk.read();
            if walk.width == width {
                return walk;
            }
        }
        let mut walk = self.walk.write();
        if walk.width != width && walk.index.set(c"efSearch", width as f64).is_ok() {
            walk.width = width;
        }
        RwLockWriteGuard::downgrade(walk)
    }
}
