//! Making an index: what FAISS has to learn from a sample of the rows, then the rows, batch after batch.

use super::{
    Engine, Factory, Faiss, Rows, cells, empty, engine_metric, known_metric, stream, sys, with_table,
};
use crate::{BuildParams, IndexError};

/// Sampled rows at least, where there are so many: FAISS takes up to 256 for each of the 256 centroids that a part of a
/// product code commonly has.
const SAMPLE_LEAST: usize = 65_536;
/// Bytes of rows added in one call, between which a build can be cancelled.
const BATCH_BYTES: usize = 16 << 20;

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
    Ok(Engine::new(index, &written, factory))
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
