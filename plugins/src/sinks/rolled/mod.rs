//! Files of rows: batches gather until one is worth a file, which then appears at once or not at all.
//!
//! A file is named after the position of its first batch. After a crash the pipeline goes on from the last durable
//! position, which is where the unfinished or unacknowledged file began: it is written again under the same name.
//! Hence a row stands in exactly one file, whatever happened in between.

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

use super::{misconfigured, options::Options};

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
#[derive(Debug, Default)]
struct Gathered {
    first: String,
    last: String,
    rows: u64,
    bytes: u64,
    payloads: Vec<Bytes>,
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
}

impl RolledSink {
    pub fn new(spec: &SinkSpec, shelf: Box<dyn Shelf>) -> Result<Self, Fault> {
        let rolling = Rolling::parse(&Options::new(spec))?;
        let id = spec.id.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
        Ok(Self { rolling, encoding: spec.encoding, id, shelf: Arc::from(shelf), gathered: None })
    }

    /// Writes the file. What was gathered stays if it fails.
    async fn roll(&mut self) -> Result<Option<String>, Fault> {
        let Some(gathered) = &self.gathered else { return Ok(None) };
        let (extension, bytes) = match self.rolling.form {
            Form::Ndjson => ("ndjson", Bytes::from(gathered.payloads.concat())),
            Form::Parquet => ("parquet", Bytes::from(parquet_file(&gathered.payloads)?)),
        };
        let name = format!("{}-{}.{extension}", self.id, gathered.first);
        self.shelf.put(&name, bytes).await?;
        tracing::debug!(file = %name, rows = gathered.rows, "a file of rows was written");
        Ok(self.gathered.take().map(|gathered| gathered.last))
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
        self.gathered = None;
        Ok(Opened { committed_through: None, max_writers: Some(1) })
    }

    async fn set_schema(&mut self, _: &BatchSchema) -> Result<(), Fault> {
        // A Parquet file has one schema, and a reader of NDJSON is glad of it.
        self.roll().await.map(drop)
    }

    async fn write(&mut self, batch: &Batch) -> Result<Delivered, Fault> {
        let gathered = self
            .gathered
            .get_or_insert_with(|| Gathered { first: batch.first.clone(), ..Gathered::default() });
        // A batch that comes again after a failed roll is held already.
        if gathered.last != batch.last {
            gathered.last.clone_from(&batch.last);
            gathered.rows += u64::from(batch.rows);
            gathered.bytes += batch.payload.len() as u64;
            gathered.payloads.push(batch.payload.clone());
        }
        if gathered.rows < self.rolling.rows && gathered.bytes < self.rolling.bytes {
            return Ok(Delivered::Buffered);
        }
        self.roll().await?;
        Ok(Delivered::Durable(Vec::new()))
    }

    async fn flush(&mut self) -> Result<Option<String>, Fault> {
        self.roll().await
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
