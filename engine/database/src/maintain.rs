//! Background work of one tenant: flush and compaction when the log has grown, and index builds.
//!
//! One task per open tenant. A build never blocks readers or writers: it reads a pinned snapshot's segments and
//! attaches the finished blob, or throws it away when the segment is gone meanwhile.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arrow::array::{Array, ArrayRef};
use sepal_index::{Bits, BuildParams, VectorIndex};
use sepal_storage::{BlobBuilder, Chunk};
use sepal_types::{Error, IndexDef, IndexMethod, Result, SqlState, TableDef, TableId, VectorIndexOptions};

use crate::{builds::Posted, session::CancelToken, tenant::OpenTenant};

/// How often the log's size is looked at without being told.
const PATROL: Duration = Duration::from_secs(5);

/// Segments with fewer rows are searched exactly: the scan is faster than a graph is worth.
const LEAST_INDEXED_ROWS: usize = 1_000;

/// Runs until the tenant is closed.
pub async fn maintain(tenant: Arc<OpenTenant>) {
    while !tenant.closed.load(Ordering::Acquire) {
        let _ = tokio::time::timeout(PATROL, tenant.work.notified()).await;
        if tenant.closed.load(Ordering::Acquire) || !tenant.store.wants_checkpoint() {
            continue;
        }
        let worker = Arc::clone(&tenant);
        match tokio::task::spawn_blocking(move || checkpoint(&worker)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(tenant = %tenant.id, %error, "checkpoint failed; it will be tried again");
                tokio::time::sleep(PATROL).await;
            }
            Err(problem) => tracing::error!(tenant = %tenant.id, %problem, "checkpoint panicked"),
        }
    }
}

/// Flushes, compacts and trims now. Blocking.
pub fn checkpoint(tenant: &OpenTenant) -> Result<()> {
    let report = tenant.store.checkpoint(&SegmentIndexer { tenant })?;
    tracing::debug!(tenant = %tenant.id, ?report, "checkpoint");
    Ok(())
}

/// Builds the indexes of the segments that a checkpoint writes.
struct SegmentIndexer<'a> {
    tenant: &'a OpenTenant,
}

impl BlobBuilder for SegmentIndexer<'_> {
    fn build(&self, def: &TableDef, index: &IndexDef, column: &ArrayRef) -> Option<Vec<u8>> {
        let IndexMethod::Vector(options) = &index.method else {
            return None;
        };
        if !index.valid || column.len() < LEAST_INDEXED_ROWS {
            return None;
        }
        let posted = self.tenant.builds.post(0, def.id, index.id, column.len() as u64);
        match build(options, column, self.tenant.threads, &posted, &|| {
            self.tenant.closed.load(Ordering::Acquire)
        }) {
            Ok(built) => Some(built.serialize()),
            Err(error) => {
                // The segment is searched exactly meanwhile: no row is lost to a search.
                tracing::error!(index = %index.name, table = %def.name, %error, "an index could not be built");
                None
            }
        }
    }
}

/// Builds an index over every segment of a table that lacks it, then marks it valid. Blocking.
///
/// Rows still in memory are flushed first. Errors: 57014 when cancelled, 0A000 for a metric the method has not.
pub fn build_index(
    tenant: &OpenTenant,
    table: TableId,
    index: TableId,
    pid: i32,
    cancel: &CancelToken,
) -> Result<()> {
    checkpoint(tenant)?;
    let snapshot = tenant.store.snapshot();
    let version = snapshot.table(table).ok_or_else(gone)?;
    let definition = version.def.indexes.iter().find(|candidate| candidate.id == index).ok_or_else(gone)?;
    let IndexMethod::Vector(options) = &definition.method else {
        return Ok(());
    };
    let column = definition.columns.first().and_then(|id| version.def.column_by_id(*id)).ok_or_else(gone)?;
    let total: u64 = version.chunks.iter().map(|reference| u64::from(reference.chunk.rows())).sum();
    let posted = tenant.builds.post(pid, table, index, total);
    let stop = || cancel.is_cancelled() || tenant.closed.load(Ordering::Acquire);
    for reference in &version.chunks {
        let chunk = &reference.chunk;
        let Some(segment) = chunk.segment().filter(|_| wants_index(chunk, index)) else {
            continue;
        };
        let vectors = chunk.column(column)?;
        let built = build(options, &vectors, tenant.threads, &posted, &stop)?;
        if tenant.store.attach_index(table, segment, index, &built.serialize())? {
            tenant.indexes.insert(segment, index, Arc::from(built));
        }
    }
    Ok(())
}

fn wants_index(chunk: &Chunk, index: TableId) -> bool {
    chunk.rows() as usize >= LEAST_INDEXED_ROWS && !chunk.has_index(index)
}

fn gone() -> Error {
    Error::new(SqlState::UndefinedObject, "the index or its table was dropped while it was being built")
}

fn build(
    options: &VectorIndexOptions,
    column: &ArrayRef,
    threads: usize,
    posted: &Posted,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<Box<dyn VectorIndex>> {
    let (vectors, dim) = sepal_query::vector::elements(column)?;
    let valid = (column.null_count() > 0).then(|| {
        let mut bits = Bits::full(column.len());
        for position in (0..column.len()).filter(|position| column.is_null(*position)) {
            bits.clear(position);
        }
        bits
    });
    let params = BuildParams {
        metric: options.metric(),
        dim,
        vectors,
        valid: valid.as_ref(),
        threads,
        progress: &|done, total| posted.report(done, total),
        cancelled: stop,
    };
    sepal_index::build(options, &params).map_err(|problem| match problem {
        sepal_index::IndexError::Cancelled => {
            Error::new(SqlState::QueryCanceled, "canceling statement due to user request")
        }
        sepal_index::IndexError::UnsupportedMetric { .. } => Error::unsupported(problem.to_string()),
        other => Error::new(SqlState::InternalError, format!("the index could not be built: {other}")),
    })
}
