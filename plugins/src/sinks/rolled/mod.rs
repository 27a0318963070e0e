//! Files of rows: batches gather until one is worth a file, which then appears at once or not at all.
//!
//! A file is named after the position of its first batch. After a crash the pipeline goes on from the last durable
//! position, which is where the unfinished or unacknowledged file began: it is written again under the same name.
//! Hence a row stands in exactly one file, whatever happened in between. Dead letters that are sent again come from
//! before that position, where a file may begin already: theirs is named after their batch.

mod bucket;
mod directory;

use std::{collections::BTreeMap, fmt, io::Cursor, sync::Arc};

use arrow::{ipc::reader::StreamReader, record_batch::RecordBatch};
use async_trait::async_trait;
use bytes::Bytes;
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use sepal_database::connector::{
    Batch, BatchSchema, Delivered, Encoding, Fault, FaultKind, Opened, Sink, SinkSpec, StateChange,
};

use super::{REPLAY, misconfigured, options::Options};

pub(super) use bucket::{Bucket, OpenBucket};
pub(super) use directory::Directory;

const DEFAULT_ROLL_ROWS: u64 = 100_000;
const DEFAULT_ROLL_MIB: u64 = 64;
/// A file is gathered in memory and put together there once more.
const MOST_ROLL_MIB: u64 = 64;

/// Where files go.
#[async_trait]
pub(super) trait Shelf: fmt::Debug + Send + Sync {
    /// Makes a file appear, whole and durable, in place of one of the same name.
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), Fault>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Ndjson,
    Parquet,
}

/// How large files get and what they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rolling {
    form: Form,
    rows: u64,
    bytes: u64,
}

impl Rolling {
    pub fn parse(options: &Options<'_>) -> Result<Self, Fault> {
        let form = match options.text("format")?.unwrap_or("ndjson") {
            "ndjson" => Form::Ndjson,
            "parquet" => Form::Parquet,
            other => {
                return Err(misconfigured(format!("/format: ndjson or parquet is wanted, not \"{other}\"")));
            }
        };
        let rows = options.count("roll_rows", DEFAULT_ROLL_ROWS, 10_000_000)?;
        let bytes = options.count("roll_mib", DEFAULT_ROLL_MIB, MOST_ROLL_MIB)? << 20;
        Ok(Self { form, rows, bytes })
    }
}

/// Batches on their way into a file.
#[derive(Debug)]
struct Gathered {
    /// Of the file: the first position, or the first batch's id.
    name: String,
    rows: u64,
    bytes: u64,
    held: Vec<Held>,
}

/// A batch in memory.
#[derive(Debug)]
struct Held {
    last: String,
    rows: u64,
    payload: Bytes,
}

impl Gathered {
    fn new(first: &Batch) -> Self {
        let name = if first.id.starts_with(REPLAY) { &first.id } else { &first.first };
        Self { name: name.clone(), rows: 0, bytes: 0, held: Vec::new() }
    }

    fn push(&mut self, batch: &Batch) {
        // A roll that was broken off has left it here.
        if self.held.last().is_some_and(|held| held.last == batch.last) {
            return;
        }
        self.rows += u64::from(batch.rows);
        self.bytes += batch.payload.len() as u64;
        let (last, payload) = (batch.last.clone(), batch.payload.clone());
        self.held.push(Held { last, rows: batch.rows.into(), payload });
    }

    fn pop(&mut self) {
        if let Some(held) = self.held.pop() {
            self.rows -= held.rows;
            self.bytes -= held.payload.len() as u64;
        }
    }

    fn payloads(&self) -> Vec<Bytes> {
        self.held.iter().map(|batch| batch.payload.clone()).collect()
    }
}

/// A sink over a [`Shelf`].
#[derive(Debug)]
pub(super) struct RolledSink {
    rolling: Rolling,
    encoding: Encoding,
    /// Begins every file's name: two pipelines may share a shelf.
    id: String,
    shelf: Arc<dyn Shelf>,
    gathered: Option<Gathered>,
    /// The end of the last file.
    durable: Option<String>,
}

impl RolledSink {
    pub fn new(spec: &SinkSpec, shelf: Box<dyn Shelf>) -> Result<Self, Fault> {
        let rolling = Rolling::parse(&Options::new(spec))?;
        let id = spec.id.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
        let shelf = Arc::from(shelf);
        Ok(Self { rolling, encoding: spec.encoding, id, shelf, gathered: None, durable: None })
    }

    /// Writes the file. What was gathered stays if it fails.
    async fn roll(&mut self) -> Result<(), Fault> {
        let Some(gathered) = &self.gathered else { return Ok(()) };
        let Some(last) = gathered.held.last().map(|batch| batch.last.clone()) else { return Ok(()) };
        let (extension, bytes) = match self.rolling.form {
            Form::Ndjson => ("ndjson", Bytes::from(gathered.payloads().concat())),
            Form::Parquet => ("parquet", Bytes::from(parquet_file(&gathered.payloads())?)),
        };
        let name = format!("{}-{}.{extension}", self.id, gathered.name);
        self.shelf.put(&name, bytes).await?;
        tracing::debug!(file = %name, rows = gathered.rows, "a file of rows was written");
        self.gathered = None;
        self.durable = Some(last);
        Ok(())
    }

    /// A batch that was not taken is not held: it comes again, or the pipeline has set its rows aside.
    fn let_go(&mut self) {
        let Some(gathered) = &mut self.gathered else { return };
        gathered.pop();
        if gathered.held.is_empty() {
            self.gathered = None;
        }
    }
}

#[async_trait]
impl Sink for RolledSink {
    async fn open(&mut self, _: BTreeMap<String, Vec<u8>>) -> Result<Opened, Fault> {
        let wanted = match self.rolling.form {
            Form::Ndjson => Encoding::Ndjson,
            Form::Parquet => Encoding::ArrowIpcStream,
        };
        if self.encoding != wanted {
            return Err(misconfigured(
                "/format: ndjson needs a pipeline with FORMAT NDJSON, parquet one with FORMAT ARROW",
            ));
        }
        (self.gathered, self.durable) = (None, None);
        Ok(Opened { committed_through: None, max_writers: Some(1) })
    }

    async fn set_schema(&mut self, _: &BatchSchema) -> Result<(), Fault> {
        // A Parquet file has one schema, and a reader of NDJSON is glad of it.
        self.roll().await
    }

    async fn write(&mut self, batch: &Batch) -> Result<Delivered, Fault> {
        let gathered = self.gathered.get_or_insert_with(|| Gathered::new(batch));
        gathered.push(batch);
        if gathered.rows < self.rolling.rows && gathered.bytes < self.rolling.bytes {
            return Ok(Delivered::Buffered);
        }
        match self.roll().await {
            Ok(()) => Ok(Delivered::Durable(Vec::new())),
            Err(fault) => {
                self.let_go();
                Err(fault)
            }
        }
    }

    /// The last position in a file, were it written now or before: batches may wait for an answer about those.
    async fn flush(&mut self) -> Result<Option<String>, Fault> {
        self.roll().await?;
        Ok(self.durable.clone())
    }

    fn take_state_changes(&mut self) -> Vec<StateChange> {
        Vec::new()
    }

    async fn close(&mut self) {
        self.gathered = None;
    }
}

/// The batches of Arrow IPC streams as one Parquet file.
fn parquet_file(streams: &[Bytes]) -> Result<Vec<u8>, Fault> {
    let broken =
        |error: &dyn fmt::Display| Fault::new(FaultKind::Internal, format!("a Parquet file: {error}"));
    let mut writer: Option<ArrowWriter<Vec<u8>>> = None;
    for stream in streams {
        let reader = StreamReader::try_new(Cursor::new(stream), None).map_err(|error| broken(&error))?;
        let schema = reader.schema();
        let properties = WriterProperties::builder().set_compression(Compression::LZ4_RAW).build();
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(
                ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(|error| broken(&error))?,
            ),
        };
        for batch in reader {
            let batch: RecordBatch = batch.map_err(|error| broken(&error))?;
            writer.write(&batch).map_err(|error| broken(&error))?;
        }
    }
    match writer {
        Some(writer) => writer.into_inner().map_err(|error| broken(&error)),
        None => Ok(Vec::new()),
    }
}
