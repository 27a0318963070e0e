//! COPY FROM STDIN: chunks of bytes become batches of rows, one transaction for all of them.
//!
//! Called by `simple` and `extended` in the middle of a statement. Chunks end where the client likes, not at
//! rows; `copy::Decoder` puts them together. After an error nothing has been inserted, and what the client
//! still sends is ignored by the message loop until it has caught up, as in Postgres.

use arrow::record_batch::RecordBatch;
use sepal_database::{CopyIn, CopyKind, Error, SqlState};

use super::{
    Connection,
    errors::{End, Failure, protocol},
    wire::Frame,
};
use crate::{
    copy::Decoder,
    frame::{Format, Frontend, Rejection, decode, write},
};

impl Connection {
    /// Receives all rows and gives the command tag. `last`: whether the statement is its transaction's last;
    /// `None` in a pipeline, where the message after the rows tells.
    pub(super) async fn copy_in(&mut self, mut copy: CopyIn, last: Option<bool>) -> Result<String, Failure> {
        write::copy_in_response(&mut self.wire.out, wire_format(copy.format.kind), copy.columns.len());
        let received = match self.watch.flush(&mut self.wire).await {
            Ok(()) => self.receive(&mut copy).await,
            Err(end) => Err(end.into()),
        };
        let last = match (received, last) {
            (Ok(()), Some(last)) => Ok(last),
            (Ok(()), None) => {
                let last = self.sync_follows().await;
                self.start_clock();
                last
            }
            (Err(failure), _) => Err(failure),
        };
        match last {
            Ok(last) => self.watch.run(&mut self.wire, self.session.copy_finish(copy, last)).await,
            Err(failure) => {
                self.session.copy_abort(copy);
                Err(failure)
            }
        }
    }

    async fn receive(&mut self, copy: &mut CopyIn) -> Result<(), Failure> {
        let mut decoder = Decoder::new(&copy.format, &copy.columns, &copy.table);
        // Of the session for the whole of the COPY: nothing else runs in it meanwhile.
        let zone = self.session.time_zone();
        loop {
            let frame = self.copy_frame().await?;
            match decode(frame.kind, &frame.body) {
                Ok(Frontend::CopyData(bytes)) => {
                    self.shared.metrics.copy_bytes_received.inc_by(bytes.len() as u64);
                    zone.within(|| decoder.push(bytes))?;
                    copy.hold(decoder.held_bytes())?;
                    while let Some(batch) = zone.within(|| decoder.take_batch())? {
                        self.insert(copy, batch).await?;
                    }
                }
                Ok(Frontend::CopyDone) => {
                    return match zone.within(|| decoder.finish())? {
                        Some(batch) => self.insert(copy, batch).await,
                        None => Ok(()),
                    };
                }
                Ok(Frontend::CopyFail(reason)) => return Err(failed_by_client(reason).into()),
                // The Sync of the pipeline that started the COPY may come now.
                Ok(Frontend::Flush | Frontend::Sync) => {}
                Ok(Frontend::Terminate) => return Err(End::Gone.into()),
                Ok(_) => {
                    let message =
                        format!("unexpected message type 0x{:02X} during COPY from stdin", frame.kind);
                    return Err(protocol(message).into());
                }
                Err(rejection @ Rejection::Frame(_)) => return Err(self.violated(&rejection).into()),
                Err(Rejection::Content(error)) => return Err(error.into()),
            }
        }
    }

    async fn insert(&mut self, copy: &mut CopyIn, batch: RecordBatch) -> Result<(), Failure> {
        self.shared.metrics.copy_rows_received.inc_by(batch.num_rows() as u64);
        self.watch.run(&mut self.wire, self.session.copy_rows(copy, batch)).await
    }

    async fn copy_frame(&mut self) -> Result<Frame, Failure> {
        loop {
            match self.wire.take_frame() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => self.watch.statement_input(&mut self.wire).await?,
                Err(rejection) => return Err(self.violated(&rejection).into()),
            }
        }
    }
}

fn failed_by_client(reason: &str) -> Error {
    Error::new(SqlState::QueryCanceled, format!("COPY from stdin failed: {reason}"))
}

/// The overall format that CopyInResponse and CopyOutResponse announce.
pub(super) fn wire_format(kind: CopyKind) -> Format {
    match kind {
        CopyKind::Binary => Format::Binary,
        CopyKind::Text | CopyKind::Csv => Format::Text,
    }
}
