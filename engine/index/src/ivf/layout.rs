//! Bytes of [`IvfFlat`], after the header that `crate::layout` draws.
//!
//! ```text
//! offset size
//!     24    4  L, lists; 0 only when m is
//!     28    4  m, indexed rows; at least L, at most n
//!     32    4·L·dim  centroids, f32, row-major
//!           4·(L+1)  offsets, u32: list i is positions[offset i .. offset i+1]; ascending from 0 to m
//!           4·m      positions, u32: rows below n, each at most once
//!                    and, where the header's kind is 5 and not 3, in the order of the positions:
//!                    m codes, drawn in `quantize/layout`
//! ```
//! A list's codes are one range of bytes, which a search can read by itself.
//!
//! Kind 3 is also what builds wrote before there were codes.

use std::io::{self, Write};

use super::IvfFlat;
use crate::layout::{HEADER_BYTES, Header, Kind, Reader, Writer};
use crate::quantize::{Codes, StoredCodes, Width};
use crate::{Bits, IndexError, Left};

impl IvfFlat {
    /// How many bytes [`IvfFlat::encode`] writes.
    pub(super) fn encoded_bytes(&self) -> usize {
        self.encoded_cells() + self.codes.as_ref().map_or(0, Codes::written_bytes)
    }

    /// Those before the codes.
    fn encoded_cells(&self) -> usize {
        let words = 2 + self.centroids.len() + self.offsets.len() + self.positions.len();
        HEADER_BYTES + 4 * words
    }

    /// # Errors
    /// Those of `out`.
    pub(super) fn encode(&self, out: &mut dyn Write) -> io::Result<()> {
        let kind = if self.codes.is_some() { Kind::IvfCodes } else { Kind::IvfFlat };
        let mut writer = Writer::with_capacity(self.encoded_cells());
        let header = Header::new(kind, self.metric, self.rows, self.dim);
        Header { width: self.codes.as_ref().map_or(Width::Four, Codes::width), ..header }.encode(&mut writer);
        // Both are counts of rows or less, which `Header::new` has just found to fit.
        writer.u32(self.lists() as u32);
        writer.u32(self.positions.len() as u32);
        writer.f32s(&self.centroids);
        writer.u32s(&self.offsets);
        writer.u32s(&self.positions);
        out.write_all(&writer.into_bytes())?;
        self.codes.as_ref().map_or(Ok(()), |codes| codes.write(out))
    }

    /// # Errors
    /// [`IndexError::Corrupt`] for any bytes that a search could stumble over.
    #[cfg(test)]
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        Self::read(Reader::new(bytes), Left::Nothing)
    }

    /// The same from wherever they are stored, or all but the codes; `reader` stands at the header and ends with the
    /// index.
    ///
    /// # Errors
    /// The same, [`IndexError::Resources`] and [`IndexError::Unreadable`].
    pub(crate) fn read(mut reader: Reader, left: Left) -> Result<Self, IndexError> {
        let header = Header::decode(&mut reader)?;
        if !matches!(header.kind, Kind::IvfFlat | Kind::IvfCodes) {
            return Err(reader.corrupt(format!("kind {:?} where cells were expected", header.kind)));
        }
        let (rows, dim) = (header.rows as usize, header.dim as usize);
        let (lists, len) = (reader.u32()? as usize, reader.u32()? as usize);
        if len > rows || lists > len || (lists == 0) != (len == 0) {
            return Err(reader.corrupt(format!("{lists} lists for {len} of {rows} rows")));
        }
        let centroids = reader.f32s(lists * dim)?;
        let offsets = reader.u32s(lists + 1)?;
        if offsets[0] != 0 || !offsets.is_sorted() || offsets[lists] as usize != len {
            return Err(reader.corrupt(format!("offsets do not ascend from 0 to {len}")));
        }
        let positions = reader.u32s(len)?;
        let mut seen = Bits::new(rows);
        for position in &positions {
            if *position as usize >= rows || seen.get(*position as usize) {
                return Err(
                    reader.corrupt(format!("position {position} is no row of {rows} or listed twice"))
                );
            }
            seen.set(*position as usize);
        }
        let (mut codes, mut left_codes) = (None, None);
        match (header.kind, left) {
            (Kind::IvfCodes, Left::Nothing) => codes = Some(Codes::read(&mut reader, header, len)?),
            (Kind::IvfCodes, Left::Codes) => left_codes = Some(StoredCodes::read(&mut reader, header, len)?),
            _ => {}
        }
        reader.finish()?;
        let metric = header.metric;
        Ok(Self { metric, rows, dim, centroids, offsets, positions, held: seen, codes, left_codes })
    }
}
