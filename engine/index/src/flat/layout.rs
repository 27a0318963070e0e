//! Bytes of [`Flat`], after the header that `crate::layout` draws.
//!
//! ```text
//! offset size
//!     24    1  0: all rows are held; 1: a mask follows
//!     25    7  zero
//!     32  8·⌈n/64⌉  the mask, if any: bit i of word j is row 64·j + i
//! ```

use super::Flat;
use crate::layout::{HEADER_BYTES, Header, Kind, Reader, Writer};
use crate::{Bits, IndexError};

impl Flat {
    pub(super) fn encode(&self) -> Vec<u8> {
        let words = self.held.as_ref().map_or(&[] as &[u64], Bits::words);
        let mut writer = Writer::with_capacity(HEADER_BYTES + 8 + size_of_val(words));
        Header::new(Kind::Flat, self.metric, self.rows, self.dim).encode(&mut writer);
        writer.u8(u8::from(self.held.is_some()));
        writer.bytes(&[0; 7]);
        writer.u64s(words);
        writer.into_bytes()
    }

    /// # Errors
    /// [`IndexError::Corrupt`] for any bytes that [`Flat::encode`] does not write.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut reader = Reader::new(bytes);
        let header = Header::expect(&mut reader, Kind::Flat)?;
        let rows = header.rows as usize;
        let masked = reader.u8()?;
        if masked > 1 || reader.take(7)? != [0; 7] {
            return Err(reader.corrupt("the mask flag or its padding is damaged"));
        }
        let held = match masked {
            0 => None,
            _ => {
                let words = reader.u64s(rows.div_ceil(64))?;
                Some(Bits::from_words(words, rows).ok_or_else(|| reader.corrupt("bits past the last row"))?)
            }
        };
        reader.finish()?;
        Ok(Self::new(header.metric, rows, header.dim as usize, held))
    }
}
