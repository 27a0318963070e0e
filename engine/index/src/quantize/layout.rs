//! Bytes of [`Codes`], which stand at the end of an index that has them: for `graph` and `ivf`.
//!
//! ```text
//! 4·dim               centre, f32
//! 8·n                 factor and bias of each code, f32
//! n·64 ⌈dim / 128⌉    codes, drawn in `encode`
//! ```

use super::{Aligned, Codes, Correction};
use crate::IndexError;
use crate::layout::{Header, Reader};

impl Codes {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.centre().iter().flat_map(|value| value.to_le_bytes()));
        for Correction { factor, bias } in self.corrections() {
            out.extend_from_slice(&factor.to_le_bytes());
            out.extend_from_slice(&bias.to_le_bytes());
        }
        out.extend_from_slice(self.bytes());
    }

    /// Reads `count` codes of an index with this header.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] for bytes that [`Codes::write`] does not write, [`IndexError::Resources`] without memory.
    pub(crate) fn read(reader: &mut Reader, header: Header, count: usize) -> Result<Self, IndexError> {
        let dim = header.dim as usize;
        if !Self::worthwhile(header.metric, dim) {
            return Err(reader.corrupt(format!("codes for {:?} in {dim} dimensions", header.metric)));
        }
        let centre = reader.f32s(dim)?;
        let corrections = reader.f32s(2 * count)?;
        let corrections = corrections.as_chunks::<2>().0.iter();
        let corrections =
            corrections.map(|[factor, bias]| Correction { factor: *factor, bias: *bias }).collect();
        let stored = reader.take(count * Self::stride(dim))?;
        let mut bytes = Aligned::zeroed(stored.len())?;
        bytes.copy_from_slice(stored);
        Self::from_parts(header.metric, centre, corrections, bytes)
            .ok_or_else(|| reader.corrupt("a centre or correction is not a finite number"))
    }
}
