//! What lies behind a frame that does not open: later frames, found by the marks of their headers.
//!
//! `recover` asks whether one of them proves that the frame was acknowledged, `survey` how many commits are lost. A tail
//! is as long as the file says, and nothing vouches for that: it is read in pieces of one size.

use std::ops::ControlFlow;

use super::{
    frame::{FRAME_HEADER_BYTES, FrameHeader, Place},
    read::LogFile,
};
use crate::StoreError;

/// How much of a file is in memory at a time.
pub(super) const PIECE_BYTES: usize = 64 << 10;

const _: () = assert!(PIECE_BYTES >= FRAME_HEADER_BYTES);

impl LogFile {
    /// Looks at every place from `offset` on where a frame could begin, and hands on those whose header was made for
    /// it, until `found` has seen enough. `wanted` is asked before the mark is: that is a hash.
    pub(super) fn each_marked(
        &self,
        offset: u64,
        wanted: impl Fn(&Place) -> bool,
        mut found: impl FnMut(Place) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut buffer = vec![0; PIECE_BYTES];
        let mut start = offset;
        loop {
            let rest = self.length.saturating_sub(start);
            let length = usize::try_from(rest).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            if length < FRAME_HEADER_BYTES {
                return Ok(());
            }
            let piece = &mut buffer[..length];
            self.read_at(piece, start)?;
            for (index, bytes) in piece.array_windows::<FRAME_HEADER_BYTES>().enumerate() {
                let at = start + index as u64;
                let Some(FrameHeader { place, .. }) = FrameHeader::decode(bytes) else { continue };
                if place.synced <= at
                    && wanted(&place)
                    && self.key.is_marked(bytes, at)
                    && found(place).is_break()
                {
                    return Ok(());
                }
            }
            // Where a header would not have been whole, the next piece begins.
            start += (length - FRAME_HEADER_BYTES + 1) as u64;
        }
    }
}
