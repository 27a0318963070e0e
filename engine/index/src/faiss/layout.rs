//! Bytes of [`Faiss`], after the header that `crate::layout` draws.
//!
//! ```text
//! offset size
//!     24    2  bytes of the factory string, 1 to 100
//!     26    1  1: a mask follows the string, some rows are not indexed; else 0
//!     27    1  zero
//!     28    4  scale, f32: positive; elements were multiplied by it
//!     32    8  F, bytes of FAISS' index; 0: too few rows for the factory
//!     40    8  check sum of those bytes
//!     48       the factory string, ASCII, as the user wrote it
//!           8·⌈n/64⌉  the mask, if any: bit i of word j is row 64·j + i
//!           F  what FAISS wrote (`faiss/impl/index_write.cpp` of FAISS 1.12), its own vectors scaled, of length one for
//!              cosine
//! ```
//!
//! FAISS checks little of what it reads. Storage's seal says that the bytes are ours, and the check sum that FAISS gets
//! all of them; it is no defence against anybody. Another FAISS that writes otherwise is another kind.

use std::io::{self, Write};

use super::{Engine, Factory, Faiss, engine_metric, known_metric, stream, with_table};
use crate::layout::{HEADER_BYTES, Header, Kind, Reader, Writer};
use crate::{Bits, IndexError};

impl Faiss {
    /// How many bytes [`Faiss::encode`] writes.
    pub(super) fn encoded_bytes(&self) -> usize {
        self.encoded_head() + self.engine.as_ref().map_or(0, |engine| engine.written)
    }

    /// Those before FAISS'.
    fn encoded_head(&self) -> usize {
        let mask = self.held.as_ref().map_or(0, |held| size_of_val(held.bits.words()));
        HEADER_BYTES + 24 + self.factory.given.len() + mask
    }

    /// # Errors
    /// Those of `out`, and FAISS' when memory runs out while it writes.
    pub(super) fn encode(&self, out: &mut dyn Write) -> io::Result<()> {
        let engine = self.engine.as_ref();
        let faiss = engine.map(|engine| stream::write(&engine.walk.read().index));
        let faiss = faiss.transpose().map_err(io::Error::other)?.unwrap_or_default();
        let mask = self.held.as_ref().map(|held| held.bits.words());
        let mut writer = Writer::with_capacity(self.encoded_head());
        Header::new(Kind::Faiss, self.metric, self.rows, self.dim).encode(&mut writer);
        writer.u16(self.factory.given.len() as u16);
        writer.u8(u8::from(mask.is_some()));
        writer.u8(0);
        writer.f32s(&[self.scale]);
        writer.u64s(&[faiss.len() as u64, check_sum(&faiss)]);
        writer.bytes(self.factory.given.as_bytes());
        writer.u64s(mask.unwrap_or_default());
        out.write_all(&writer.into_bytes())?;
        out.write_all(&faiss)
    }

    /// `reader` stands at the header and ends with the index.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] for any bytes that [`Faiss::encode`] does not write, and [`IndexError::Unreadable`].
    pub(crate) fn read(mut reader: Reader) -> Result<Self, IndexError> {
        let header = Header::expect(&mut reader, Kind::Faiss)?;
        let (rows, dim) = (header.rows as usize, header.dim as usize);
        let (len, masked, zero) = (reader.u16()?, reader.u8()?, reader.u8()?);
        let scale = reader.f32s(1)?[0];
        let numbers = reader.u64s(2)?;
        let sound = masked <= 1 && zero == 0 && scale.is_finite() && scale > 0.0;
        if !sound || known_metric(header.metric).is_err() {
            let why = format!("flag {masked}, zero {zero}, scale {scale} or metric {:?}", header.metric);
            return Err(reader.corrupt(why));
        }
        let given = reader.take(usize::from(len))?;
        let given = String::from_utf8_lossy(&given);
        let factory = Factory::parse(&given, dim).map_err(|problem| reader.corrupt(problem.to_string()))?;
        let indexed = match masked {
            0 => Bits::full(rows),
            _ => {
                let words = reader.u64s(rows.div_ceil(64))?;
                Bits::from_words(words, rows).ok_or_else(|| reader.corrupt("bits past the last row"))?
            }
        };
        let faiss = reader.take(usize::try_from(numbers[0]).unwrap_or(usize::MAX))?;
        if check_sum(&faiss) != numbers[1] {
            return Err(reader.corrupt("the check sum of FAISS' bytes is another one"));
        }
        reader.finish()?;
        let engine = match faiss.as_slice() {
            [] => None,
            faiss => Some(decode_engine(&reader, header, faiss, &factory, indexed.count())?),
        };
        Ok(Self::new((header.metric, rows, dim), factory, scale, indexed, engine))
    }
}

fn decode_engine(
    reader: &Reader,
    header: Header,
    faiss: &[u8],
    factory: &Factory,
    indexed: usize,
) -> Result<Engine, IndexError> {
    let index =
        stream::read(faiss, with_table(factory)).map_err(|problem| reader.corrupt(problem.to_string()))?;
    let (expected, found) = ((indexed, header.dim as usize), index.shape());
    if expected != found || !index.is_for(engine_metric(header.metric)) {
        let why = format!("FAISS' index is over {found:?}, not {expected:?}, or for another metric");
        return Err(reader.corrupt(why));
    }
    Ok(Engine::new(index, faiss.len(), factory))
}

/// Over words of 8 bytes, the last one filled up with zeros, and the length: FNV-1a's step, and a turn that brings high
/// bits down.
fn check_sum(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(PRIME).rotate_left(23);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let sum = words.iter().fold(0xcbf2_9ce4_8422_2325, |sum, word| step(sum, u64::from_le_bytes(*word)));
    step(step(sum, u64::from_le_bytes(last)), bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_the_length_count() {
        let bytes: Vec<u8> = (0..61_u8).map(|number| number.wrapping_mul(7)).collect();
        let sum = check_sum(&bytes);
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[place] ^= 1 << bit;
                assert_ne!(check_sum(&other), sum, "byte {place}, bit {bit}");
            }
            assert_ne!(check_sum(&bytes[..place]), sum);
        }
        assert_ne!(check_sum(&[0; 8]), check_sum(&[0; 9]));
    }
}
