//! The rows of a cursor and the place among them, for all who read it: FETCH, MOVE, and the protocol's Execute.
//!
//! Rows come as they are asked for. Those of a SCROLL cursor are kept once they were seen, and those of one WITH HOLD
//! when its transaction commits, in the tenant's memory for queries. Where a direction leads, and what it finds at the
//! ends, is PostgreSQL's `DoPortalRunFetch` (`pquery.c`).

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, RecordBatchOptions, UInt64Array},
    compute::take,
};
use sepal_query::{
    budget::KeptMemory,
    sql::{Count, Direction},
};
use sepal_storage::batch_bytes;
use sepal_types::{Error, Result, SqlState};
use tokio::sync::Mutex;

use super::super::rows::Upstream;

/// See the module.
pub(in crate::session) struct Source {
    name: String,
    /// What is still to come; `None` once all was seen.
    coming: Option<Upstream>,
    kept: Option<Kept>,
    scroll: bool,
    /// The number, from 1, of the row that it stands on; 0 before the first. Behind the last one: that one's number.
    at: u64,
    /// It stands behind the last row.
    ended: bool,
    /// Reading has failed.
    broken: bool,
    /// Which FETCH may read, and what it has yet to.
    fetches: u64,
    fetch: Option<Stretch>,
}

/// Rows from where the cursor stands.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    forward: bool,
    /// `None`: to the end.
    left: Option<u64>,
}

/// Rows that were seen, or were to be before their snapshot went.
struct Kept {
    batches: Vec<RecordBatch>,
    /// How many rows are kept up to the end of each batch.
    ends: Vec<u64>,
    /// Rows before the first that is kept.
    before: u64,
    memory: KeptMemory,
}

/// Reads a cursor: what one FETCH asked for, or whatever comes.
pub(in crate::session) struct Reader {
    source: Arc<Mutex<Source>>,
    /// The number of the FETCH; `None` for an Execute of the protocol, which goes on from wherever the cursor stands.
    fetch: Option<u64>,
}

impl Reader {
    pub fn of_fetch(source: Arc<Mutex<Source>>, fetch: u64) -> Self {
        Self { source, fetch: Some(fetch) }
    }

    pub fn of_portal(source: Arc<Mutex<Source>>) -> Self {
        Self { source, fetch: None }
    }

    /// The next rows, `most` at most; `None` when there are no more.
    pub async fn pull(&mut self, most: usize) -> Result<Option<RecordBatch>> {
        let mut source = self.source.lock().await;
        match self.fetch {
            Some(fetch) => source.next_of(fetch, most).await,
            None => {
                source.settle().await?;
                source.step(true, most).await
            }
        }
    }
}

impl Source {
    /// `scroll`: where to keep what was seen.
    pub fn new(name: &str, coming: Upstream, scroll: Option<KeptMemory>) -> Self {
        Self {
            name: name.to_owned(),
            coming: Some(coming),
            scroll: scroll.is_some(),
            kept: scroll.map(|memory| Kept::new(0, memory)),
            at: 0,
            ended: false,
            broken: false,
            fetches: 0,
            fetch: None,
        }
    }

    /// Goes to where the rows of a FETCH begin, and gives its number. They are read by [`Reader::of_fetch`].
    ///
    /// Errors: 55000 for going back in a cursor that may not; the query's.
    pub async fn begin(&mut self, direction: Direction) -> Result<u64> {
        self.settle().await?;
        let stretch = self.aim(direction, false).await?;
        self.fetches += 1;
        self.fetch = Some(stretch);
        Ok(self.fetches)
    }

    /// MOVE: how many rows a FETCH would have given. Errors: those of [`Self::begin`].
    pub async fn pass(&mut self, direction: Direction) -> Result<u64> {
        self.settle().await?;
        let on_row = self.at > 0 && !self.ended;
        if matches!(direction, Direction::Forward(Count::Rows(0)) | Direction::Backward(Count::Rows(0)))
            || direction == Direction::Relative(0)
        {
            return Ok(u64::from(on_row));
        }
        let stretch = self.aim(direction, true).await?;
        self.skip(stretch).await
    }

    /// Reads what is left, so that it needs neither the query nor its snapshot any more.
    ///
    /// Errors: the query's; 53200 where there is not memory enough.
    pub async fn keep_all(&mut self, memory: KeptMemory) -> Result<()> {
        self.settle().await?;
        let at = self.at;
        let kept = self.kept.get_or_insert_with(|| Kept::new(at, memory));
        while let Some(coming) = &mut self.coming {
            match coming.next_upto(usize::MAX).await {
                Some(batch) => kept.push(&batch?)?,
                None => self.coming = None,
            }
        }
        Ok(())
    }

    async fn next_of(&mut self, fetch: u64, most: usize) -> Result<Option<RecordBatch>> {
        if fetch != self.fetches {
            // Its rows were passed over when something else was asked of the cursor.
            return Err(self.cannot_run());
        }
        let Some(mut stretch) = self.fetch else { return Ok(None) };
        let wanted = stretch.left.map_or(most, |left| usize::try_from(left).unwrap_or(usize::MAX).min(most));
        let batch = if wanted == 0 { None } else { self.step(stretch.forward, wanted).await? };
        self.fetch = batch.as_ref().map(|batch| {
            stretch.left = stretch.left.map(|left| left.saturating_sub(batch.num_rows() as u64));
            stretch
        });
        Ok(batch)
    }

    /// Passes over what the last FETCH has not read: in PostgreSQL it has read all of that at once.
    async fn settle(&mut self) -> Result<()> {
        match self.fetch.take() {
            Some(stretch) => {
                // Whoever still reads it is told.
                self.fetches += 1;
                self.skip(stretch).await.map(drop)
            }
            None => Ok(()),
        }
    }

    async fn skip(&mut self, mut stretch: Stretch) -> Result<u64> {
        let mut passed = 0;
        while stretch.left != Some(0) {
            let most = stretch.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
            let Some(batch) = self.step(stretch.forward, most).await? else { break };
            let rows = batch.num_rows() as u64;
            passed += rows;
            stretch.left = stretch.left.map(|left| left.saturating_sub(rows));
        }
        Ok(passed)
    }

    /// Goes to where the rows of a direction begin. What they are from there. `passing`: they are not looked at.
    async fn aim(&mut self, direction: Direction, passing: bool) -> Result<Stretch> {
        use Direction as D;
        let stretch = |forward, left| Ok(Stretch { forward, left: Some(left) });
        match direction {
            D::Forward(Count::Rows(0)) | D::Backward(Count::Rows(0)) | D::Relative(0) => {
                // The row that it stands on, once more.
                if self.at == 0 || self.ended {
                    return stretch(true, 0);
                }
                self.check_scrolls()?;
                self.at -= 1;
                stretch(true, 1)
            }
            D::Forward(count) => Ok(Stretch { forward: true, left: rows(count) }),
            D::Backward(Count::All) if passing && self.at == 0 && !self.ended => stretch(true, 0),
            D::Backward(count) => {
                self.check_scrolls()?;
                Ok(Stretch { forward: false, left: rows(count) })
            }
            D::Absolute(number @ 0..) => {
                let number = number.unsigned_abs();
                let place = self.at + u64::from(self.ended);
                if number > place {
                    self.skip(Stretch { forward: true, left: Some(number - 1 - place) }).await?;
                } else if place > 0 {
                    self.check_scrolls()?;
                    self.at = number.saturating_sub(1);
                    self.ended = false;
                }
                stretch(true, number.min(1))
            }
            D::Absolute(number) => {
                self.skip(Stretch { forward: true, left: None }).await?;
                self.check_scrolls()?;
                self.skip(Stretch { forward: false, left: Some(number.unsigned_abs() - 1) }).await?;
                stretch(false, 1)
            }
            D::Relative(number) => {
                let forward = number > 0;
                if !forward {
                    self.check_scrolls()?;
                }
                self.skip(Stretch { forward, left: Some(number.unsigned_abs() - 1) }).await?;
                stretch(forward, 1)
            }
        }
    }

    /// The next rows in a direction, `most` at most.
    async fn step(&mut self, forward: bool, most: usize) -> Result<Option<RecordBatch>> {
        if self.broken {
            return Err(self.cannot_run());
        }
        let stepped = if forward { self.forward(most).await } else { self.backward(most) };
        if stepped.is_err() {
            self.broken = true;
            self.coming = None;
        }
        stepped
    }

    async fn forward(&mut self, most: usize) -> Result<Option<RecordBatch>> {
        if self.ended {
            return Ok(None);
        }
        loop {
            if let Some(batch) = self.kept.as_ref().and_then(|kept| kept.after(self.at, most)) {
                self.at += batch.num_rows() as u64;
                return Ok(Some(batch));
            }
            let Some(coming) = &mut self.coming else {
                self.ended = true;
                return Ok(None);
            };
            let batch = coming.next_upto(if self.kept.is_some() { usize::MAX } else { most }).await;
            match (batch.transpose()?, &mut self.kept) {
                (None, _) => self.coming = None,
                (Some(batch), Some(kept)) => kept.push(&batch)?,
                (Some(batch), None) if batch.num_rows() > 0 => {
                    self.at += batch.num_rows() as u64;
                    return Ok(Some(batch));
                }
                (Some(_), None) => {}
            }
        }
    }

    fn backward(&mut self, most: usize) -> Result<Option<RecordBatch>> {
        self.check_scrolls()?;
        let last = if self.ended { self.at } else { self.at.saturating_sub(1) };
        self.ended = false;
        let Some(kept) = self.kept.as_ref().filter(|_| last > 0) else {
            self.at = 0;
            return Ok(None);
        };
        let batch = kept.back_from(last, most)?;
        self.at = last + 1 - batch.num_rows() as u64;
        Ok(Some(batch))
    }

    fn check_scrolls(&self) -> Result<()> {
        if self.scroll {
            return Ok(());
        }
        Err(Error::new(SqlState::ObjectNotInPrerequisiteState, "cursor can only scan forward")
            .with_hint("Declare it with SCROLL option to enable backward scan."))
    }

    fn cannot_run(&self) -> Error {
        Error::new(SqlState::ObjectNotInPrerequisiteState, format!("portal \"{}\" cannot be run", self.name))
    }
}

impl Kept {
    fn new(before: u64, memory: KeptMemory) -> Self {
        Self { batches: Vec::new(), ends: Vec::new(), before, memory }
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows() as u64;
        if rows == 0 {
            return Ok(());
        }
        self.memory.grow(batch_bytes(batch))?;
        // A scan gives slices of whole columns, which would be kept with it.
        self.batches.push(gather(batch, &UInt64Array::from_iter_values(0..rows))?);
        self.ends.push(self.ends.last().copied().unwrap_or(0) + rows);
        Ok(())
    }

    /// The batch that holds a row, counted from 0 among those kept, and its place there.
    fn place(&self, row: u64) -> Option<(&RecordBatch, usize)> {
        let position = self.ends.partition_point(|end| *end <= row);
        let batch = self.batches.get(position)?;
        let start = position.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        Some((batch, usize::try_from(row - start).ok()?))
    }

    /// Rows after the row `at`, which is a number from 1.
    fn after(&self, at: u64, most: usize) -> Option<RecordBatch> {
        let (batch, place) = self.place(at.checked_sub(self.before)?)?;
        Some(batch.slice(place, most.min(batch.num_rows() - place)))
    }

    /// The row `last`, which is a number from 1, and those before it, backwards.
    fn back_from(&self, last: u64, most: usize) -> Result<RecordBatch> {
        let lost = || Error::bug("a cursor has lost rows that it has seen");
        let row = last.checked_sub(self.before + 1).ok_or_else(lost)?;
        let (batch, place) = self.place(row).ok_or_else(lost)?;
        let first = (place + 1).saturating_sub(most);
        let places = UInt64Array::from_iter_values((first as u64..=place as u64).rev());
        gather(batch, &places)
    }
}

/// Copies rows of a batch.
fn gather(batch: &RecordBatch, places: &UInt64Array) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| take(column.as_ref(), places, None));
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>().map_err(sepal_query::arrow_error)?;
    // A query may have no columns.
    let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).map_err(sepal_query::arrow_error)
}

fn rows(count: Count) -> Option<u64> {
    match count {
        Count::All => None,
        Count::Rows(rows) => Some(rows),
    }
}
