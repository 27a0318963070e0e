//! DataFusion's temporary files, as storage keeps them: sealed, without a name, counted against the tenant.
//!
//! With files of one's own DataFusion counts nothing itself: the limit is [`SpillSpace`]'s.

use std::{
    io::{self, Write},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SpillFile, SpillWriter, TempFileFactory},
};
use futures::{Stream, stream};
use sepal_storage::{SpillSink, SpillSpace};
use sepal_types::Error;

use crate::error::{carry, carry_store};

/// Makes the files of one tenant's queries.
#[derive(Debug)]
pub struct SealedFiles {
    pub space: Arc<SpillSpace>,
}

impl TempFileFactory for SealedFiles {
    fn create_temp_file(&self, _: &str) -> Result<Arc<dyn SpillFile>> {
        let file = self.space.create().map_err(|error| carry(Error::from(error)))?;
        Ok(Arc::new(SealedFile(file)))
    }
}

struct SealedFile(Arc<sepal_storage::SpillFile>);

impl SpillFile for SealedFile {
    fn size(&self) -> Option<u64> {
        Some(self.0.bytes())
    }

    /// What is written by then, chunk by chunk. Read and opened on threads that may block.
    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        let file = Arc::clone(&self.0);
        Ok(Box::pin(stream::try_unfold((file, 0), |(file, chunk)| async move {
            let reader = Arc::clone(&file);
            let read = tokio::task::spawn_blocking(move || reader.read(chunk)).await;
            let read = read.map_err(|problem| {
                carry(Error::bug(format!("reading a temporary file panicked: {problem}")))
            })?;
            let plain = read.map_err(carry_store)?;
            Ok::<_, DataFusionError>(plain.map(|plain| (Bytes::from(plain), (file, chunk + 1))))
        })))
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        Ok(Box::new(Sealing(self.0.writer())))
    }
}

struct Sealing(SpillSink);

impl Write for Sealing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl SpillWriter for Sealing {
    fn finish(&mut self) -> Result<()> {
        Ok(self.0.finish()?)
    }
}
