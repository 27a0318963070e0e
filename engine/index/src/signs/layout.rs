//! Bytes of [`Signs`], after the header that `crate::layout` draws.
//!
//! ```text
//! offset size
//!     24    1  0: all rows have a vector; 1: a mask follows
//!     25    7  zero
//!     32  8·⌈n/64⌉  the mask, if any: bit i of word j is row 64·j + i
//!          n·⌈dim/8⌉  the signs: a row's first element is the highest bit of its first byte; the last byte is filled
//!                     up with zeros
//! ```

use sepal_types::Metric;

use super::Signs;
use crate::layout::{HEADER_BYTES, Header, Kind, Reader, Writer};
use crate::{Bits, IndexError};

impl Signs {
    /// All but the signs.
    pub(super) fn encoded_head(&self) -> Vec<u8> {
        let words = self.held.as_ref().map_or(&[] as &[u64], Bits::words);
        let mut writer = Writer::with_capacity(HEADER_BYTES + 8 + size_of_val(words));
        Header::new(Kind::Signs, Metric::L2, self.rows, self.dim).encode(&mut writer);
        writer.u8(u8::from(self.held.is_some()));
        writer.bytes(&[0; 7]);
        writer.u64s(words);
        writer.into_bytes()
    }

    /// # Errors
    /// [`IndexError::Corrupt`] for any bytes that are not written so, and those of reading.
    pub(crate) fn read(mut reader: Reader) -> Result<Self, IndexError> {
        let header = Header::expect(&mut reader, Kind::Signs)?;
        let (rows, dim) = (header.rows as usize, header.dim as usize);
        let masked = reader.u8()?;
        if header.metric != Metric::L2 || masked > 1 || reader.take(7)? != [0; 7] {
            return Err(reader.corrupt("the metric, the mask flag or its padding is damaged"));
        }
        let held = match masked {
            0 => None,
            _ => {
                let words = reader.u64s(rows.div_ceil(64))?;
                Some(Bits::from_words(words, rows).ok_or_else(|| reader.corrupt("bits past the last row"))?)
            }
        };
        let width = dim.div_ceil(8);
        let Some(bytes) = rows.checked_mul(width) else {
            return Err(reader.corrupt(format!("{rows} rows of {width} bytes are too many")));
        };
        let bytes = reader.take(bytes)?;
        reader.finish()?;
        let used = dim - 8 * (width - 1);
        let past = 0x7f_u8 >> (used - 1);
        if bytes.chunks(width).any(|row| row.last().is_some_and(|last| last & past != 0)) {
            return Err(reader.corrupt("bits past a row's last element"));
        }
        Ok(Self::new(rows, dim, held, bytes))
    }
}
