//! Memory that a scan's runs of vectors lie in, used again once nobody reads what lies there.
//!
//! `query` has one for each partition of a scan, and `pages` fills what is taken of it. The kernel zeroes and maps
//! fresh memory page by page, and takes it back in the same way, which costs more than opening what is put there. Of one
//! scan alone: no tenant's rows come near another's. What is spare is few pieces, and goes with the last reader.

use std::{mem, sync::Arc};

use arrow::buffer::Buffer;
use bytes::Bytes;
use parking_lot::Mutex;
use sepal_types::advise_large;

use super::read::LINE_BYTES;

/// Pieces that wait to be used again, at most.
const MOST_SPARE: usize = 4;
/// Smaller ones the allocator keeps at hand itself.
const LEAST_BYTES: usize = 1 << 20;

/// Where runs of rows are read to ([`crate::Chunk::column_run`]).
#[derive(Clone, Default)]
pub struct RunSpace(Arc<Mutex<Vec<Vec<u8>>>>);

/// A piece of it, given back when it is dropped.
pub(super) struct Lent {
    memory: Vec<u8>,
    /// Where a line of the processor's cache begins.
    begin: usize,
    bytes: usize,
    home: RunSpace,
}

impl RunSpace {
    /// So many bytes, of any content.
    pub(super) fn take(&self, bytes: usize) -> Lent {
        let wanted = bytes + LINE_BYTES;
        let memory = self.spare(wanted).unwrap_or_else(|| {
            // The next run may be somewhat larger. What nobody touches is not there.
            let memory = vec![0; wanted + wanted / 8];
            advise_large(memory.as_ptr(), memory.len());
            memory
        });
        let begin = memory.as_ptr().align_offset(LINE_BYTES).min(LINE_BYTES);
        Lent { memory, begin, bytes, home: self.clone() }
    }

    /// One that is large enough, and not much too large.
    fn spare(&self, wanted: usize) -> Option<Vec<u8>> {
        let mut spare = self.0.lock();
        let fits = |memory: &Vec<u8>| memory.len() >= wanted && memory.len() / 2 <= wanted;
        let at = spare.iter().position(fits)?;
        Some(spare.swap_remove(at))
    }

    /// Keeps the newest: of columns of other widths, or of longer runs, the older ones may be.
    fn give(&self, memory: Vec<u8>) {
        let mut spare = self.0.lock();
        let gone = (spare.len() >= MOST_SPARE).then(|| spare.remove(0));
        spare.push(memory);
        // What the kernel does with it takes time.
        drop(spare);
        drop(gone);
    }
}

impl Lent {
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.begin..self.begin + self.bytes]
    }

    /// To be read by many; the last one gives it back.
    pub(super) fn into_buffer(self) -> Buffer {
        Buffer::from(Bytes::from_owner(self))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.begin..self.begin + self.bytes]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let memory = mem::take(&mut self.memory);
        if memory.len() >= LEAST_BYTES {
            self.home.give(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 2 << 20;

    fn spare(space: &RunSpace) -> Vec<usize> {
        space.0.lock().iter().map(Vec::len).collect()
    }

    #[test]
    fn the_last_reader_gives_it_back() {
        let space = RunSpace::default();
        let mut lent = space.take(PIECE);
        let place: *const u8 = lent.bytes_mut().as_ptr();
        assert_eq!((lent.bytes_mut().len(), place.align_offset(LINE_BYTES)), (PIECE, 0));
        lent.bytes_mut().fill(7);
        let buffer = lent.into_buffer();
        assert_eq!((buffer.as_ptr(), buffer.len()), (place, PIECE), "nothing is copied");
        let slice = buffer.slice_with_length(PIECE - 10, 10);
        drop(buffer);
        assert!(spare(&space).is_empty(), "somebody reads the end of it");
        assert_eq!(slice.as_slice(), [7; 10]);
        drop(slice);
        assert_eq!(spare(&space).len(), 1);
        // A little more fits as well, which is what the rest is for; much less would waste it.
        let mut again = space.take(PIECE + PIECE / 16);
        assert_eq!(again.bytes_mut().as_ptr(), place);
        drop(again);
        let mut small = space.take(PIECE / 4);
        assert_ne!(small.bytes_mut().as_ptr(), place);
    }

    #[test]
    fn little_is_kept_and_small_pieces_are_not() {
        let space = RunSpace::default();
        drop(space.take(LEAST_BYTES / 4));
        assert!(spare(&space).is_empty());
        let lent: Vec<Lent> = (0..2 * MOST_SPARE).map(|more| space.take(PIECE + more)).collect();
        let lengths: Vec<usize> = lent.iter().map(|lent| lent.memory.len()).collect();
        drop(lent);
        assert_eq!(spare(&space), lengths[MOST_SPARE..], "the newest");
    }

    #[test]
    fn it_may_be_given_back_when_the_scan_is_over() {
        let space = RunSpace::default();
        let alive = Arc::downgrade(&space.0);
        let buffer = space.take(PIECE).into_buffer();
        drop(space);
        assert_eq!(buffer.len(), PIECE);
        drop(buffer);
        assert!(alive.upgrade().is_none(), "and nothing of it stays");
    }
}
