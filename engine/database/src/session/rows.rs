//! A result on its way out: batches of just the described types, pulled by the caller.

use std::{pin::Pin, sync::Arc};

use arrow::array::RecordBatch;
use futures::{Stream, StreamExt, stream};
use sepal_query::output::{OutputColumn, conform};
use sepal_types::Result;

use super::CancelToken;

type Batches = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

/// Rows of a query, or of a RETURNING list. Dropping it stops the query.
pub struct RowStream {
    columns: Arc<[OutputColumn]>,
    batches: Batches,
    verb: Verb,
    cancel: CancelToken,
}

/// How the command tag reads.
enum Verb {
    /// `SELECT 3`, `SHOW`, …: with the count of rows sent, or without.
    Counted(&'static str),
    Fixed(String),
}

impl RowStream {
    /// A query that runs as it is pulled.
    pub(super) fn running(columns: Arc<[OutputColumn]>, batches: Batches, cancel: CancelToken) -> Self {
        Self { columns, batches, verb: Verb::Counted("SELECT"), cancel }
    }

    /// Rows that are there already.
    pub(super) fn ready(
        columns: Arc<[OutputColumn]>,
        batches: Vec<RecordBatch>,
        tag: String,
        cancel: CancelToken,
    ) -> Self {
        let batches = Box::pin(stream::iter(batches.into_iter().map(Ok)));
        Self { columns, batches, verb: Verb::Fixed(tag), cancel }
    }

    /// Rows that are there already, with a `SELECT n` tag.
    pub(super) fn selected(columns: Arc<[OutputColumn]>, batch: RecordBatch, cancel: CancelToken) -> Self {
        Self { columns, batches: Box::pin(stream::iter([Ok(batch)])), verb: Verb::Counted("SELECT"), cancel }
    }

    /// The next batch; its arrays have `arrow_type(column.ty)`.
    ///
    /// Errors: the query's, or 57014 once cancelled.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let columns = &self.columns;
        let batches = &mut self.batches;
        let pulled = self.cancel.guard(async { Ok(batches.next().await) }).await;
        match pulled {
            Ok(Some(Ok(batch))) => Some(conform(&batch, columns)),
            Ok(other) => other,
            Err(error) => Some(Err(error)),
        }
    }

    /// The command tag once `rows` rows were sent.
    pub fn tag(&self, rows: u64) -> String {
        match &self.verb {
            Verb::Counted(verb) => format!("{verb} {rows}"),
            Verb::Fixed(tag) => tag.clone(),
        }
    }

    pub fn columns(&self) -> &Arc<[OutputColumn]> {
        &self.columns
    }
}
