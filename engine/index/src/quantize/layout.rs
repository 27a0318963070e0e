//! Codes among an index's bytes, the same for `graph` and `ivf`.
//!
//! ```text
//! size
//! 4 · dim             centre, f32
//! 8 · c               factor and bias of each of the c codes, f32
//! c · 64 ⌈dim / 128⌉  codes, drawn in `encode`; twice as many bytes, drawn in `eight`, where the header's version
//!                     says 8 bits an element
//! ```
//!
//! How codes are rotated and levels drawn is part of the format, though no byte says it: another rotation is
//! another version of the header.

use std::io::{self, Write};

use super::{Aligned, Codes, Correction};
use crate::IndexError;
use crate::layout::{Header, Reader, Writer};

/// Corrections written at a time.
const BATCH: usize = 8_192;

impl Codes {
    /// How many bytes [`Codes::write`] writes.
    pub(crate) fn written_bytes(&self) -> usize {
        size_of_val(self.centre()) + size_of_val(self.corrections()) + self.bytes().len()
    }

    /// # Errors
    /// Those of `out`.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut writer = Writer::with_capacity(size_of_val(self.centre()));
        writer.f32s(self.centre());
        out.write_all(&writer.into_bytes())?;
        for corrections in self.corrections().chunks(BATCH) {
            let mut writer = Writer::with_capacity(size_of_val(corrections));
            corrections.iter().for_each(|Correction { factor, bias }| writer.f32s(&[*factor, *bias]));
            out.write_all(&writer.into_bytes())?;
        }
        out.write_all(self.bytes())
    }

    /// `count` codes for vectors as the header says, the long part straight into the memory that a search reads.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] for what no build writes, [`IndexError::Resources`], [`IndexError::Unreadable`].
    pub(crate) fn read(reader: &mut Reader, header: Header, count: usize) -> Result<Self, IndexError> {
        let Beginning { centre, corrections, len } = Beginning::read(reader, header, count)?;
        let mut bytes = Aligned::zeroed(len)?;
        reader.fill(&mut bytes)?;
        Self::from_parts(header.metric, header.width, centre, corrections, bytes)
            .ok_or_else(|| not_finite(reader))
    }
}

/// What comes before the codes themselves.
pub(super) struct Beginning {
    pub(super) centre: Vec<f32>,
    pub(super) corrections: Vec<Correction>,
    /// Bytes of the codes, which are there.
    pub(super) len: usize,
}

impl Beginning {
    /// # Errors
    /// As [`Codes::read`].
    pub(super) fn read(reader: &mut Reader, header: Header, count: usize) -> Result<Self, IndexError> {
        let dim = header.dim as usize;
        if !Codes::worthwhile(header.metric, dim, header.width) {
            let (metric, bits) = (header.metric, header.width.bits());
            return Err(reader.corrupt(format!("codes of {bits} bits for {metric:?} in {dim} dimensions")));
        }
        let centre = reader.f32s(dim)?;
        let corrections = reader.f32s(2 * count)?;
        let corrections = corrections.as_chunks::<2>().0.iter();
        let corrections =
            corrections.map(|[factor, bias]| Correction { factor: *factor, bias: *bias }).collect();
        let len = count * header.width.stride(dim);
        if len > reader.remaining() {
            return Err(reader.corrupt(format!("{len} bytes of codes wanted, {} left", reader.remaining())));
        }
        Ok(Self { centre, corrections, len })
    }
}

pub(super) fn not_finite(reader: &Reader) -> IndexError {
    reader.corrupt("a centre or correction is not a finite number")
}
