//! A result on its way out: batches of just the described types, pulled by the caller.
//!
//! A result has its rows for itself, or shares them with a cursor, which goes on from wherever any of its readers
//! stopped (`cursor::source`).

use std::{pin::Pin, sync::Arc, vec};

use arrow::array::RecordBatch;
use futures::{Stream, StreamExt};
use sepal_query::output::{OutputColumn, conform};
use sepal_types::Result;

use super::{CancelToken, cursor::Reader};

/// Rows of a query, or of a RETURNING list. Dropping it stops the query, unless a cursor has it.
pub struct RowStream {
    columns: Arc<[OutputColumn]>,
    rows: Rows,
    verb: Verb,
    binary: bool,
}

enum Rows {
    Own(Upstream),
    Shared(Reader),
}

/// Rows as they are made.
pub(super) struct Upstream {
    columns: Arc<[OutputColumn]>,
    batches: Batches,
    /// What nobody has asked for yet of a batch that was pulled.
    rest: Option<RecordBatch>,
    cancel: CancelToken,
}

enum Batches {
    /// As the query runs.
    Running(Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>),
    /// They were there before the first was asked for.
    There(vec::IntoIter<RecordBatch>),
}

/// How the command tag reads.
#[derive(Clone)]
pub(super) enum Verb {
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
        Self::own(columns, Batches::Running(batches), Verb::Counted("SELECT"), cancel)
    }

    /// Rows that are there already.
    pub(super) fn ready(
        columns: Arc<[OutputColumn]>,
        batches: Vec<RecordBatch>,
        tag: String,
        cancel: CancelToken,
    ) -> Self {
        Self::own(columns, Batches::There(batches.into_iter()), Verb::Fixed(tag), cancel)
    }

    /// Rows that are there already, with a `SELECT n` tag.
    pub(super) fn selected(columns: Arc<[OutputColumn]>, batch: RecordBatch, cancel: CancelToken) -> Self {
        Self::own(columns, Batches::There(vec![batch].into_iter()), Verb::Counted("SELECT"), cancel)
    }

    /// Rows that a cursor has. `binary`: its client wants them in binary, whatever else it says.
    pub(super) fn shared(columns: Arc<[OutputColumn]>, reader: Reader, verb: Verb, binary: bool) -> Self {
        Self { columns, rows: Rows::Shared(reader), verb, binary }
    }

    fn own(columns: Arc<[OutputColumn]>, batches: Batches, verb: Verb, cancel: CancelToken) -> Self {
        let upstream = Upstream { columns: Arc::clone(&columns), batches, rest: None, cancel };
        Self { columns, rows: Rows::Own(upstream), verb, binary: false }
    }

    /// Its rows, for a cursor to have, and how its tag reads. Errors: itself where a cursor has them already.
    pub(super) fn give_up(self) -> std::result::Result<(Upstream, Verb), Box<Self>> {
        match self.rows {
            Rows::Own(upstream) => Ok((upstream, self.verb)),
            Rows::Shared(_) => Err(Box::new(self)),
        }
    }

    /// The next batch; its arrays have `arrow_type(column.ty)`.
    ///
    /// Errors: the query's, or 57014 once cancelled.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        self.next_upto(usize::MAX).await
    }

    /// The same, of `most` rows at most, which are one or more. The next call gives what follows these.
    pub async fn next_upto(&mut self, most: usize) -> Option<Result<RecordBatch>> {
        match &mut self.rows {
            Rows::Own(upstream) => upstream.next_upto(most).await,
            Rows::Shared(reader) => reader.pull(most).await.transpose(),
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

    /// FETCH from a BINARY cursor: the simple protocol sends these in binary, too.
    pub fn is_binary(&self) -> bool {
        self.binary
    }
}

impl Upstream {
    /// See [`RowStream::next_upto`].
    pub async fn next_upto(&mut self, most: usize) -> Option<Result<RecordBatch>> {
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.pull().await.transpose()? {
                Ok(batch) => match conform(batch, &self.columns) {
                    Ok(batch) => batch,
                    Err(error) => return Some(Err(error)),
                },
                Err(error) => return Some(Err(error)),
            },
        };
        let rows = batch.num_rows();
        if rows > most {
            self.rest = Some(batch.slice(most, rows - most));
            return Some(Ok(batch.slice(0, most)));
        }
        Some(Ok(batch))
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
}
