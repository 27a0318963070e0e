//! A result on its way out: batches of just the described types, pulled by the caller.

use std::{pin::Pin, sync::Arc, vec};

use arrow::array::RecordBatch;
use futures::{Stream, StreamExt};
use sepal_query::output::{OutputColumn, conform};
use sepal_types::Result;

use super::CancelToken;

/// Rows of a query, or of a RETURNING list. Dropping it stops the query.
pub struct RowStream {
    columns: Arc<[OutputColumn]>,
    batches: Batches,
    verb: Verb,
    cancel: CancelToken,
}

enum Batches {
    /// As the query runs.
    Running(Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>),
    /// They were there before the first was asked for.
    There(vec::IntoIter<RecordBatch>),
}

/// How the command tag reads.
enum Verb {
    /// `SELECT 3`, `SHOW`, …: with the count of rows sent, or without.
    Counted(&'static str),
    Fixed(String),
}

impl RowStream {
    /// A query that runs as it is pulled.
    pub(super) fn running(
        columns: Arc<[OutputColumn]>,
        batches: Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>,
        cancel: CancelToken,
    ) -> Self {
        Self { columns, batches: Batches::Running(batches), verb: Verb::Counted("SELECT"), cancel }
    }

    /// Rows that are there already.
    pub(super) fn ready(
        columns: Arc<[OutputColumn]>,
        batches: Vec<RecordBatch>,
        tag: String,
        cancel: CancelToken,
    ) -> Self {
        Self { columns, batches: Batches::There(batches.into_iter()), verb: Verb::Fixed(tag), cancel }
    }

    /// Rows that are there already, with a `SELECT n` tag.
    pub(super) fn selected(columns: Arc<[OutputColumn]>, batch: RecordBatch, cancel: CancelToken) -> Self {
        let batches = Batches::There(vec![batch].into_iter());
        Self { columns, batches, verb: Verb::Counted("SELECT"), cancel }
    }

    /// The next batch; its arrays have `arrow_type(column.ty)`.
    ///
    /// Errors: the query's, or 57014 once cancelled.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        match self.pull().await {
            Ok(batch) => batch.map(|batch| conform(batch, &self.columns)),
            Err(error) => Some(Err(error)),
        }
    }

    async fn pull(&mut self) -> Result<Option<RecordBatch>> {
        match &mut self.batches {
            Batches::Running(batches) => {
                self.cancel.guard(async { Ok(batches.next().await) }).await?.transpose()
            }
            Batches::There(batches) => {
                if self.cancel.owes()? {
                    self.cancel.rest().await?;
                }
                Ok(batches.next())
            }
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
