//! COPY TO STDOUT: batches of rows become CopyData messages, one per row, at the client's pace.
//!
//! Called by `simple` and `extended` in the middle of a statement. An error ends it with an ErrorResponse and
//! nothing else: CopyFail is a client's message.

use bytes::BytesMut;
use sepal_database::{CopyKind, CopyOut, Error};

use super::{Connection, copy_in::wire_format, errors::Failure};
use crate::{copy::Encoder, frame::write};

impl Connection {
    /// Sends all rows and gives the command tag.
    pub(super) async fn copy_out(&mut self, copy: CopyOut) -> Result<String, Failure> {
        let CopyOut { mut rows, format } = copy;
        let zone = self.session.time_zone();
        let encoder = Encoder::new(&format, rows.columns()).with_intervals(self.session.has_iso_intervals());
        write::copy_out_response(&mut self.wire.out, wire_format(format.kind), rows.columns().len());
        let mut head = BytesMut::new();
        encoder.header(&mut head);
        if format.kind != CopyKind::Binary && !head.is_empty() {
            copy_data(&mut self.wire.out, &mut head, |_| Ok(()))?;
        }
        let mut sent: u64 = 0;
        while let Some(batch) =
            self.watch.run(&mut self.wire, async { rows.next().await.transpose() }).await?
        {
            let mut writer = zone.within(|| encoder.start(&batch))?;
            for row in 0..batch.num_rows() {
                copy_data(&mut self.wire.out, &mut head, |out| writer.row(row, out))?;
                sent += 1;
                if self.wire.is_full() {
                    self.watch.flush(&mut self.wire).await?;
                    self.watch.check_statement()?;
                }
            }
        }
        encoder.trailer(&mut head);
        if !head.is_empty() {
            copy_data(&mut self.wire.out, &mut head, |_| Ok(()))?;
        }
        write::copy_done(&mut self.wire.out);
        self.shared.metrics.rows_sent.inc_by(sent);
        Ok(format!("COPY {sent}"))
    }
}

/// One message: `head`, which it takes, then what `body` appends. A body that fails leaves nothing behind.
fn copy_data(
    out: &mut BytesMut,
    head: &mut BytesMut,
    body: impl FnOnce(&mut BytesMut) -> Result<(), Error>,
) -> Result<(), Error> {
    let start = out.len();
    let message = write::open(out, b'd');
    out.extend_from_slice(head);
    head.clear();
    let written = body(out).and_then(|()| write::close(out, message));
    if written.is_err() {
        out.truncate(start);
    }
    written
}
