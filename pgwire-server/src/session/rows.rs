//! Result rows on their way out: record batches become DataRow messages, at the client's pace.
//!
//! Called by `simple` and `extended`. Holds one batch at a time; the output buffer is sent whenever it is full,
//! and the next batch is not asked for before. No more rows are asked for than are sent: between two portions of a
//! portal another statement may read from it.

use std::time::Duration;

use arrow::record_batch::RecordBatch;
use sepal_database::values::ColumnEncoder;
use sepal_database::{Error, OutputColumn, RowStream, Session, Zone, snapshot_too_old};
use tokio::time::Instant;

use super::{errors::Failure, watch::Watch, wire::Wire};
use crate::frame::{
    Format, Formats,
    write::{close, open_data_row},
};

/// The formats of a result's columns, as Bind asked for them.
#[derive(Clone, Debug)]
pub enum ResultFormats {
    All(Format),
    Each(Box<[Format]>),
}

impl ResultFormats {
    /// `formats` must have been checked against the number of columns.
    pub fn new(formats: Formats<'_>) -> Self {
        match formats.len() {
            0 | 1 => Self::All(formats.get(0)),
            count => Self::Each((0..count).map(|position| formats.get(position)).collect()),
        }
    }

    pub fn get(&self, column: usize) -> Format {
        match self {
            Self::All(format) => *format,
            Self::Each(formats) => formats.get(column).copied().unwrap_or(Format::Text),
        }
    }
}

/// A result that is being sent. It outlives an Execute that asked for fewer rows.
pub struct Rows {
    stream: RowStream,
    /// When the query ran: from then on what it reads is held.
    begun: Instant,
    /// How long it may be held.
    most: Option<Duration>,
    iso_intervals: bool,
    /// In which times print.
    zone: Zone,
}

struct Batch {
    columns: Vec<ColumnEncoder>,
    rows: usize,
    next: usize,
}

/// What one call of [`Rows::send`] did.
pub struct Sent {
    pub rows: u64,
    /// False when the limit was reached first; there may or may not be more.
    pub finished: bool,
}

impl Rows {
    /// `session` says how long the rows may take to be sent, and how intervals and times print.
    pub fn new(stream: RowStream, session: &Session) -> Self {
        let (most, iso_intervals) = (session.max_snapshot_age(), session.has_iso_intervals());
        Self { stream, begun: Instant::now(), most, iso_intervals, zone: session.time_zone() }
    }

    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn columns(&self) -> &[OutputColumn] {
        self.stream.columns()
    }

    /// Whether they go out in binary whatever the client has asked for: see [`RowStream::is_binary`].
    pub fn is_binary(&self) -> bool {
        self.stream.is_binary()
    }

    /// The command tag for so many rows.
    pub fn tag(&self, rows: u64) -> String {
        self.stream.tag(rows)
    }

    /// Sends rows until there are none left or `limit` is reached (0: no limit).
    pub async fn send(
        &mut self,
        wire: &mut Wire,
        watch: &mut Watch,
        formats: &ResultFormats,
        limit: u64,
    ) -> Result<Sent, Failure> {
        let mut sent = 0;
        // At exactly the limit it is not looked up whether there is more, as in Postgres.
        while limit == 0 || sent < limit {
            if self.most.is_some_and(|most| self.begun.elapsed() > most) {
                return Err(snapshot_too_old().into());
            }
            let most =
                if limit == 0 { usize::MAX } else { usize::try_from(limit - sent).unwrap_or(usize::MAX) };
            let stream = &mut self.stream;
            let pulled = watch.run(wire, async { stream.next_upto(most).await.transpose() }).await?;
            let Some(batch) = pulled else { return Ok(Sent { rows: sent, finished: true }) };
            let (columns, iso_intervals) = (self.stream.columns(), self.iso_intervals);
            let mut batch = self.zone.within(|| Batch::new(&batch, columns, iso_intervals))?;
            while batch.next < batch.rows {
                batch.write_next(wire, formats)?;
                sent += 1;
                if wire.is_full() {
                    watch.flush(wire).await?;
                    watch.check_statement()?;
                }
            }
        }
        Ok(Sent { rows: sent, finished: false })
    }
}

impl Batch {
    fn new(batch: &RecordBatch, columns: &[OutputColumn], iso_intervals: bool) -> Result<Self, Error> {
        if batch.num_columns() != columns.len() {
            return Err(Error::bug(format!(
                "a result of {} columns was described as {}",
                batch.num_columns(),
                columns.len()
            )));
        }
        let encoders = batch
            .columns()
            .iter()
            .zip(columns)
            .map(|(array, column)| {
                let encoder = ColumnEncoder::new(array.as_ref(), &column.ty)?;
                Ok(encoder.with_intervals(iso_intervals))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { columns: encoders, rows: batch.num_rows(), next: 0 })
    }

    /// Appends one DataRow. A row that cannot be written leaves nothing behind.
    fn write_next(&mut self, wire: &mut Wire, formats: &ResultFormats) -> Result<(), Error> {
        let row = self.next;
        let start = wire.out.len();
        let message = open_data_row(&mut wire.out, self.columns.len());
        let written =
            self.columns.iter().enumerate().try_for_each(|(position, column)| match formats.get(position) {
                Format::Text => column.text_field(row, &mut wire.out),
                Format::Binary => column.binary_field(row, &mut wire.out),
            });
        match written.and_then(|()| close(&mut wire.out, message)) {
            Ok(()) => {
                self.next += 1;
                Ok(())
            }
            Err(error) => {
                wire.out.truncate(start);
                Err(error)
            }
        }
    }
}
