//! Many small commits, few chunks: like-sized memory chunks at a table's end become one.
//!
//! Called after each insert. With four of a size merged into one, n single-row commits leave at most 3 log4 n
//! chunks and copy each row log4 n times. Deleted rows are left behind.

use super::TableVersion;
use crate::{
    ChunkRef, StoreError,
    chunk::{self, Chunk},
};

const FAN: usize = 4;
/// Chunks are not merged beyond this: copying more costs a commit more than it saves a scan.
const MAX_MERGED_BYTES: u64 = 16 << 20;

pub(super) fn merge_tail(version: &mut TableVersion, generation: u64) -> Result<(), StoreError> {
    while let Some(from) = mergeable(version, generation) {
        let parts = version.chunks.split_off(from);
        if let Some(merged) = chunk::merge(&version.def, &parts, generation)? {
            version.chunks.push(ChunkRef::new(Chunk::memory(merged)));
        }
    }
    Ok(())
}

/// Where a tail of at least [`FAN`] chunks begins that are no larger than the last one's size class.
fn mergeable(version: &TableVersion, generation: u64) -> Option<usize> {
    let chunks = &version.chunks;
    let class = size_class(chunks.last()?);
    let mut bytes = 0;
    let mut count = 0;
    for chunk in chunks.iter().rev() {
        let memory = chunk.chunk.as_memory().filter(|memory| memory.generation() == generation);
        let size = memory.map_or(u64::MAX, |memory| memory.complete_bytes(&version.def));
        bytes = size.saturating_add(bytes);
        if size_class(chunk) > class || bytes > MAX_MERGED_BYTES {
            break;
        }
        count += 1;
    }
    (count >= FAN).then(|| chunks.len() - count)
}

fn size_class(chunk: &ChunkRef) -> u32 {
    chunk.live_rows().max(1).ilog2() / 2
}
