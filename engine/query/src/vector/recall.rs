//! `sepal_recall`: how much of the truth an index finds, measured on rows of its table.
//!
//! Called by the catalog's function, on a thread that may take its time. A row that asks is not there for its own
//! question, nor are those of its segment that equal it, as when an index is calibrated (`sepal_index`): what is
//! measured is what a stranger would find. All else is as in [`super::search`]: deleted rows, rows that no index covers
//! yet, every segment with its own effort.

use datafusion::arrow::array::ArrayRef;
use sepal_index::{Bits, Candidates, Effort, Neighbor, SearchParams, Vectors, search_exact};
use sepal_storage::{ChunkRef, TableVersion};
use sepal_types::{ColumnDef, Error, Metric, Result, SqlState, TableId};

use super::{
    ChunkIndex, IndexCache,
    filter::Selected,
    search::{effort, elements, without_deleted, without_nulls},
};
use crate::context::SearchSettings;

/// One measurement.
pub struct Measurement<'a> {
    pub version: &'a TableVersion,
    pub index: TableId,
    pub column: &'a ColumnDef,
    pub metric: Metric,
    /// Whether the rows count as `halfvec`, of a column of `vector`.
    pub as_halves: bool,
    /// At least 1.
    pub k: usize,
    /// Rows that ask, at most; at least 1.
    pub sample: usize,
    pub settings: SearchSettings,
    pub indexes: &'a IndexCache,
    pub interrupted: &'a dyn Fn() -> bool,
}

/// A row that asks.
struct Question {
    chunk: usize,
    position: usize,
    vector: Vec<f32>,
    /// The distances of the nearest rows, ascending.
    truth: Vec<f64>,
    /// Those of the rows found.
    found: Vec<f64>,
}

/// The rows of one chunk.
struct Rows<'a> {
    number: usize,
    vectors: Vectors<'a>,
    /// Live rows with a vector; `None` means all.
    allowed: Option<Bits>,
    /// `None` where the chunk is scanned.
    index: Option<&'a ChunkIndex>,
}

impl Measurement<'_> {
    /// The share of the `k` nearest rows that is found; `None` when the table has no two rows to measure with.
    ///
    /// The same table gives the same rows that ask.
    ///
    /// # Errors
    /// 57014 when interrupted, XX001 for a column that does not open.
    pub fn run(&self) -> Result<Option<f64>> {
        let mut questions = self.questions()?;
        let all_bytes = || self.version.index_bytes(self.index).unwrap_or(0);
        for (number, reference) in self.version.chunks.iter().enumerate() {
            let column = reference.chunk.column(self.column)?;
            let (vectors, dim) = self.rows(&column)?;
            let index = match self.settings.use_indexes {
                true => self.indexes.get(&reference.chunk, self.index, dim, all_bytes)?,
                false => None,
            };
            let allowed = live(&column, reference);
            let rows = Rows { number, vectors, allowed, index: index.as_ref() };
            for question in &mut questions {
                if (self.interrupted)() {
                    let message = "canceling statement due to user request";
                    return Err(Error::new(SqlState::QueryCanceled, message));
                }
                self.ask(question, &rows)?;
            }
        }
        let (mut found, mut all) = (0, 0);
        for question in &questions {
            // A query without direction has no nearest.
            let Some(furthest) = question.truth.last().filter(|furthest| furthest.is_finite()) else {
                continue;
            };
            // By distance: of rows equally far any will do.
            let near = question.found.iter().filter(|distance| *distance <= furthest).count();
            found += near.min(question.truth.len());
            all += question.truth.len();
        }
        Ok((all > 0).then(|| found as f64 / all as f64))
    }

    /// A chunk's rows as they are compared, and their dimensions.
    fn rows<'c>(&self, column: &'c ArrayRef) -> Result<(Vectors<'c>, usize)> {
        let (vectors, dim) = elements(column)?;
        Ok((if self.as_halves { vectors.rounded() } else { vectors }, dim))
    }

    /// Rows, one from each of as many equal stretches of the table as are asked for; none from where all are gone.
    fn questions(&self) -> Result<Vec<Question>> {
        let total: usize = self.version.chunks.iter().map(|reference| reference.chunk.rows() as usize).sum();
        let count = self.sample.min(total);
        let mut drawn = (0..count).map(|stretch| {
            let (start, end) = (bound(stretch, count, total), bound(stretch + 1, count, total));
            (start + scatter(stretch) % (end - start), end)
        });
        let (mut questions, mut next, mut first) = (Vec::with_capacity(count), drawn.next(), 0);
        for (chunk, reference) in self.version.chunks.iter().enumerate() {
            let after = first + reference.chunk.rows() as usize;
            let mut stretches = Vec::new();
            while let Some((start, end)) = next.filter(|(start, _)| *start < after) {
                stretches.push(start - first..end.min(after) - first);
                next = drawn.next();
            }
            if !stretches.is_empty() {
                self.draw(chunk, reference, stretches, &mut questions)?;
            }
            first = after;
        }
        Ok(questions)
    }

    /// The first live row with a vector in each stretch of a chunk.
    fn draw(
        &self,
        chunk: usize,
        reference: &ChunkRef,
        stretches: Vec<std::ops::Range<usize>>,
        questions: &mut Vec<Question>,
    ) -> Result<()> {
        let column = reference.chunk.column(self.column)?;
        let (vectors, dim) = self.rows(&column)?;
        let allowed = live(&column, reference);
        let there = |position: &usize| allowed.as_ref().is_none_or(|allowed| allowed.get(*position));
        for position in stretches.into_iter().filter_map(|mut stretch| stretch.find(there)) {
            let vector = vectors.row(position, dim).widened().into_owned();
            questions.push(Question { chunk, position, vector, truth: Vec::new(), found: Vec::new() });
        }
        Ok(())
    }

    fn ask(&self, question: &mut Question, rows: &Rows) -> Result<()> {
        let own = (question.chunk == rows.number).then_some(question.position);
        let others = match own {
            Some(_) => Some(rows.without(&question.vector)),
            None => rows.allowed.clone(),
        };
        let dim = question.vector.len();
        let exact = search_exact(self.metric, dim, rows.vectors, &question.vector, self.k, others.as_ref());
        let searched = self.search(question, rows, own)?;
        // As in a search: what an index leaves out for want of a distance fills up.
        let found = searched.filter(|found| found.len() >= exact.len());
        merge(&mut question.found, found.as_ref().unwrap_or(&exact), self.k);
        merge(&mut question.truth, &exact, self.k);
        Ok(())
    }

    /// What the chunk's index finds; `None` where all rows are scored. `own`: the row that asks, where it is one of
    /// them.
    fn search(&self, question: &Question, rows: &Rows, own: Option<usize>) -> Result<Option<Vec<Neighbor>>> {
        let Some(index) = rows.index else { return Ok(None) };
        let Some(Effort { ef_search, probes }) = effort(&**index, &self.settings, self.k) else {
            return Ok(None);
        };
        let wanted = SearchParams { k: self.k, ef_search, probes, allowed: rows.allowed.as_ref() };
        if index.is_in_place() {
            return self.score(index, &wanted, question, (rows, own.is_some()));
        }
        Ok(Some(match own {
            Some(position) => index.search_unseen(rows.vectors, position, &wanted),
            None => index.search(rows.vectors, &question.vector, &wanted),
        }))
    }

    /// What the candidates of an index in place are worth. `unseen`: the rows that equal the question are not there;
    /// then more are asked for until enough are left.
    fn score(
        &self,
        index: &ChunkIndex,
        wanted: &SearchParams,
        question: &Question,
        (rows, unseen): (&Rows, bool),
    ) -> Result<Option<Vec<Neighbor>>> {
        let dim = question.vector.len();
        let equals = |row: &u32| rows.vectors.row(*row as usize, dim).equals(&question.vector);
        let mut k = self.k.saturating_add(usize::from(unseen));
        loop {
            let candidates = index.candidates(&question.vector, &SearchParams { k, ..*wanted })?;
            let Some(Candidates { rows: mut named, indexed, .. }) = candidates else { return Ok(None) };
            let all = named.len() >= indexed;
            named.retain(|row| !unseen || !equals(row));
            if all || named.len() >= self.k {
                let named = Selected::at(&named, rows.vectors.len() / dim).into_bits();
                let (metric, k) = (self.metric, self.k);
                return Ok(Some(search_exact(metric, dim, rows.vectors, &question.vector, k, Some(&named))));
            }
            k = k.saturating_mul(2);
        }
    }
}

impl Rows<'_> {
    /// The allowed rows that differ from a vector.
    fn without(&self, vector: &[f32]) -> Bits {
        let rows = self.vectors.len() / vector.len();
        let mut bits = self.allowed.clone().unwrap_or_else(|| Bits::full(rows));
        for position in (0..rows).filter(|position| self.vectors.row(*position, vector.len()).equals(vector))
        {
            bits.clear(position);
        }
        bits
    }
}

/// The rows of a chunk that have a vector and are not deleted; `None` when all are.
fn live(column: &ArrayRef, reference: &ChunkRef) -> Option<Bits> {
    without_nulls(column, without_deleted(reference, None).as_ref()).map(Selected::into_bits)
}

/// Keeps the `k` least distances.
fn merge(kept: &mut Vec<f64>, more: &[Neighbor], k: usize) {
    kept.extend(more.iter().map(|neighbor| neighbor.distance));
    kept.sort_by(f64::total_cmp);
    kept.truncate(k);
}

/// Where the `stretch`-th of `count` equal stretches begins.
fn bound(stretch: usize, count: usize, total: usize) -> usize {
    (stretch as u128 * total as u128 / count as u128) as usize
}

/// A number that looks random (Steele et al., "Fast splittable pseudorandom number generators", 2014).
fn scatter(number: usize) -> usize {
    let mixed = (number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as usize
}
