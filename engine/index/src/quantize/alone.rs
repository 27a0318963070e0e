//! Codes without the rows as queries, for a build that has not the memory for both, or no use for them.
//!
//! Called by `graph`'s builder when it is told how little it may take, and by `ivf`'s. What comes out is the same codes.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use super::{Aligned, CHUNK_ROWS, Codec, Codes, Correction, Width, centre, on_threads};
use crate::{BuildParams, IndexError};

impl Codes {
    /// [`Codes::build`] without [`super::RowQueries`], and of either width.
    ///
    /// # Errors
    /// [`IndexError::Cancelled`] and [`IndexError::Resources`].
    pub(crate) fn build_alone(
        params: &BuildParams,
        positions: &[u32],
        width: Width,
    ) -> Result<Option<Codes>, IndexError> {
        let codec = Codec::new(params.metric, width, centre(params, positions));
        let (stride, padded) = (codec.stride(), codec.padded());
        let mut bytes = Aligned::zeroed(positions.len() * stride)?;
        let mut corrections = vec![Correction::default(); positions.len()];
        let chunks = bytes
            .chunks_mut(CHUNK_ROWS * stride)
            .zip(corrections.chunks_mut(CHUNK_ROWS))
            .zip(positions.chunks(CHUNK_ROWS));
        let (chunks, usable) = (Mutex::new(chunks), AtomicBool::new(true));
        on_threads(params.threads, || {
            let (mut unit, mut values) = (vec![0f32; padded], vec![0i8; padded]);
            loop {
                // Its own statement, so that the lock is not held while encoding.
                let chunk = chunks.lock().next();
                let Some(((bytes, corrections), positions)) = chunk else { break };
                if (params.cancelled)() {
                    break;
                }
                for (index, position) in positions.iter().enumerate() {
                    let row = params.vector(*position as usize);
                    let code = &mut bytes[index * stride..][..stride];
                    let (correction, head) = codec.encode_row(row, code, &mut values, &mut unit);
                    corrections[index] = correction;
                    if !(correction.is_finite() && head.is_finite()) {
                        usable.store(false, Relaxed);
                    }
                }
            }
        });
        if (params.cancelled)() {
            return Err(IndexError::Cancelled);
        }
        Ok(usable.into_inner().then_some(Codes { codec, bytes, corrections }))
    }
}
