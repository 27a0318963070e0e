//! Making an index: what FAISS has to learn from a sample of the rows, then the rows, batch after batch.

use super::{
    Engine, Factory, Faiss, Rows, cells, empty, engine_metric, known_metric, sample_rows, stream, sys,
    with_table,
};
use crate::{BuildParams, IndexError};

/// Sampled rows at least, where there are so many: FAISS takes up to 256 for each of the 256 centroids that a part of a
/// product code commonly has.
const SAMPLE_LEAST: usize = 65_536;
/// Bytes of rows added in one call, between which a build can be cancelled.
const BATCH_BYTES: usize = 16 << 20;
/// Bytes of a row in FAISS' index beside its code: the row's number, and by what some codes are corrected.
const ROW_BYTES: usize = 24;

impl Faiss {
    /// FAISS trains in one long call that cannot be cancelled, but for the cells of rows as they are.
    ///
    /// # Errors
    /// [`IndexError::Factory`]; [`IndexError::UnsupportedMetric`] for L1; NaN or infinity in a valid row is
    /// [`IndexError::Shape`]; [`IndexError::Faiss`].
    pub(crate) fn build(factory: &str, params: &BuildParams) -> Result<Self, IndexError> {
        known_metric(params.metric)?;
        let factory = Factory::parse(factory, params.dim)?;
        let indexed = params.indexable();
        let positions: Vec<u32> = indexed.iter().map(|position| position as u32).collect();
        let rows = Rows::new(params, &positions)?;
        let scale = rows.scale;
        let engine = if positions.is_empty() || positions.len() < factory.least_rows {
            None
        } else {
            Some(engine(&factory, &rows)?)
        };
        params.report(params.rows())?;
        let shape = (params.metric, params.rows(), params.dim);
        Ok(Self::new(shape, factory, scale, indexed, engine))
    }

    /// What a build takes at most: the sample, and FAISS' copy of it where that is transformed; the centroids of the
    /// cells; the index, the bytes that it is read back from, and what either is copied from while it grows.
    pub(crate) fn build_bytes(factory: &str, rows: usize, dim: usize) -> u64 {
        let positions = (rows * size_of::<u32>()) as u64;
        // One that is not understood is refused by the build.
        let Ok(factory) = Factory::parse(factory, dim) else { return positions };
        if rows < factory.least_rows {
            return positions;
        }
        let (vector, cells) = (dim * size_of::<f32>(), factory.cells.unwrap_or(0));
        let training = 2 * sample_rows(cells, SAMPLE_LEAST, rows, dim) * vector + 3 * cells * vector;
        let index = rows * (factory.row_bytes + ROW_BYTES) + factory.table_bytes;
        positions + (training + 3 * index + 2 * BATCH_BYTES) as u64
    }
}

fn engine(factory: &Factory, rows: &Rows) -> Result<Engine, IndexError> {
    let params = rows.params;
    let index = sys::on_build_thread(params.threads, params.cancelled, || {
        let mut index = empty(factory, params.metric, params.dim)?;
        train(&mut index, factory, rows)?;
        add(&mut index, rows)?;
        Ok(index)
    })?;
    // Read back, an index has what one from disk has, and nothing left from being built.
    let written = stream::write(&index)?;
    drop(index);
    let index = stream::read(&written, with_table(factory))?;
    Ok(Engine::new(index, written.len(), factory))
}

fn train(index: &mut sys::Index, factory: &Factory, rows: &Rows) -> Result<(), IndexError> {
    if index.is_trained() {
        return Ok(());
    }
    let sample = rows.sample(factory.cells.unwrap_or(0), SAMPLE_LEAST);
    if let Some(lists) = factory.cells.filter(|_| factory.plain_cells) {
        let (_, centroids) = cells::train(rows, &sample, lists, engine_metric(rows.params.metric))?;
        index.set_centroids(&centroids)?;
    }
    rows.params.report(0)?;
    index.train(&sample)
}

fn add(index: &mut sys::Index, rows: &Rows) -> Result<(), IndexError> {
    let (params, count) = (rows.params, rows.positions.len());
    let batch = (BATCH_BYTES / (params.dim * size_of::<f32>())).max(256);
    let mut buffer = Vec::with_capacity(batch.min(count) * params.dim);
    let mut added = 0;
    while added < count {
        // In rows of the segment: some have no place in an index.
        params.report((added as u64 * params.rows() as u64 / count as u64) as usize)?;
        let end = (added + batch).min(count);
        buffer.clear();
        rows.gather(added..end, &mut buffer);
        index.add(&buffer)?;
        added = end;
    }
    Ok(())
}
