//! COPY TO STDOUT: batches in, bytes out.
//!
//! Called by `session`, which puts the bytes into CopyData messages. Postgres sends one row per message and some
//! clients count on it; in binary the header is in the same message as the first row and the trailer has one of
//! its own, in csv and text the header line has one.

use arrow::array::RecordBatch;
use bytes::{BufMut, BytesMut};
use sepal_database::{CopyFormat, CopyHeader, CopyKind, Error, OutputColumn, Result, SqlType};

use super::binary::SIGNATURE;
use sepal_database::values::ColumnEncoder;

/// Encodes one `COPY … TO STDOUT`: [`Encoder::header`], rows, [`Encoder::trailer`].
pub struct Encoder {
    kind: CopyKind,
    delimiter: u8,
    null: Vec<u8>,
    header: bool,
    quote: u8,
    escape: u8,
    columns: Vec<Column>,
    iso_intervals: bool,
}

struct Column {
    name: String,
    ty: SqlType,
    force_quote: bool,
}

impl Encoder {
    pub fn new(format: &CopyFormat, columns: &[OutputColumn]) -> Self {
        let forced = |name: &String| {
            format.force_quote.as_ref().is_some_and(|names| names.is_empty() || names.contains(name))
        };
        let columns = columns
            .iter()
            .map(|column| Column {
                name: column.name.clone(),
                ty: column.ty.clone(),
                force_quote: forced(&column.name),
            })
            .collect();
        Self {
            kind: format.kind,
            delimiter: format.delimiter,
            null: format.null.clone().into_bytes(),
            header: format.header != CopyHeader::No,
            quote: format.quote,
            escape: format.escape,
            columns,
            iso_intervals: false,
        }
    }

    /// Whether intervals print as `P1DT2H`.
    #[must_use]
    pub fn with_intervals(mut self, iso_8601: bool) -> Self {
        self.iso_intervals = iso_8601;
        self
    }

    /// Appends what comes before the first row; nothing for text or csv without a header line.
    pub fn header(&self, out: &mut BytesMut) {
        if self.kind == CopyKind::Binary {
            out.extend_from_slice(SIGNATURE);
            out.put_u32(0);
            out.put_i32(0);
            return;
        }
        if !self.header {
            return;
        }
        for (position, column) in self.columns.iter().enumerate() {
            self.separate(position, out);
            match self.kind {
                CopyKind::Csv => self.csv_value(column.name.as_bytes(), false, out),
                CopyKind::Text | CopyKind::Binary => self.text_value(column.name.as_bytes(), out),
            }
        }
        out.put_u8(b'\n');
    }

    /// Prepares a batch, whose columns must have `sepal_database::arrow_type` of the described ones.
    ///
    /// Errors: they have not (XX000).
    pub fn start(&self, batch: &RecordBatch) -> Result<RowWriter<'_>> {
        if batch.num_columns() != self.columns.len() {
            let (got, expected) = (batch.num_columns(), self.columns.len());
            return Err(Error::bug(format!("COPY got a batch of {got} columns, expected {expected}")));
        }
        let values = batch
            .columns()
            .iter()
            .zip(&self.columns)
            .map(|(array, column)| {
                let encoder = ColumnEncoder::new(array.as_ref(), &column.ty)?;
                Ok(encoder.with_intervals(self.iso_intervals))
            })
            .collect::<Result<_>>()?;
        Ok(RowWriter { encoder: self, values, scratch: BytesMut::new() })
    }

    /// Appends all rows of a batch. Errors: as [`Encoder::start`].
    pub fn rows(&self, batch: &RecordBatch, out: &mut BytesMut) -> Result<()> {
        let mut writer = self.start(batch)?;
        (0..batch.num_rows()).try_for_each(|row| writer.row(row, out))
    }

    /// Appends what comes after the last row; nothing for text and csv.
    pub fn trailer(&self, out: &mut BytesMut) {
        if self.kind == CopyKind::Binary {
            out.put_i16(-1);
        }
    }

    fn separate(&self, position: usize, out: &mut BytesMut) {
        if position > 0 {
            out.put_u8(self.delimiter);
        }
    }

    fn text_value(&self, value: &[u8], out: &mut BytesMut) {
        let mut rest = value;
        let special = |byte: &u8| matches!(byte, 8..=13 | b'\\') || *byte == self.delimiter;
        while let Some(at) = rest.iter().position(special) {
            out.extend_from_slice(&rest[..at]);
            out.put_u8(b'\\');
            out.put_u8(match rest[at] {
                8 => b'b',
                b'\t' => b't',
                b'\n' => b'n',
                11 => b'v',
                12 => b'f',
                b'\r' => b'r',
                other => other,
            });
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
    }

    fn csv_value(&self, value: &[u8], force_quote: bool, out: &mut BytesMut) {
        let special =
            |byte: &u8| *byte == self.delimiter || *byte == self.quote || matches!(byte, b'\n' | b'\r');
        // A line of only `\.` would end the data.
        let is_end_marker = self.columns.len() == 1 && value == b"\\.";
        if !force_quote && value != self.null && !is_end_marker && !value.iter().any(special) {
            out.extend_from_slice(value);
            return;
        }
        out.put_u8(self.quote);
        for byte in value {
            if *byte == self.quote || *byte == self.escape {
                out.put_u8(self.escape);
            }
            out.put_u8(*byte);
        }
        out.put_u8(self.quote);
    }
}

/// Writes the rows of one batch.
pub struct RowWriter<'a> {
    encoder: &'a Encoder,
    values: Vec<ColumnEncoder>,
    scratch: BytesMut,
}

impl RowWriter<'_> {
    /// Appends one row. Errors: a value is larger than a field can be (54000).
    pub fn row(&mut self, row: usize, out: &mut BytesMut) -> Result<()> {
        let encoder = self.encoder;
        if encoder.kind == CopyKind::Binary {
            let count =
                i16::try_from(self.values.len()).map_err(|_| Error::bug("more columns than i16 counts"))?;
            out.put_i16(count);
            return self.values.iter().try_for_each(|values| values.binary_field(row, out));
        }
        for (position, (values, column)) in self.values.iter().zip(&encoder.columns).enumerate() {
            encoder.separate(position, out);
            if values.is_null(row) {
                out.extend_from_slice(&encoder.null);
                continue;
            }
            self.scratch.clear();
            values.text(row, &mut self.scratch)?;
            if encoder.kind == CopyKind::Csv {
                encoder.csv_value(&self.scratch, column.force_quote, out);
            } else {
                encoder.text_value(&self.scratch, out);
            }
        }
        out.put_u8(b'\n');
        Ok(())
    }
}
