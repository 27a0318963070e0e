//! Which chunks a checkpoint rewrites, and into how many segments. Pure: no I/O, no clock.
//!
//! Always: memory chunks, and segments of which more than a fifth is deleted. With them, segments small enough
//! that another small one would only add a search. Beyond four segments, the smallest are merged, so that a search
//! visits few; full segments do not count, because merging them would exceed what one column may hold.

use crate::{ChunkRef, TableVersion};

/// A merged segment stays below this size in memory: a text column's offsets end at 2 GiB.
pub(super) const FULL_BYTES: u64 = 1 << 30;
/// Segments below this are merged whenever something is written anyway.
pub(super) const SMALL_BYTES: u64 = 16 << 20;
/// Segments per table to aim for.
pub(super) const MAX_SEGMENTS: usize = 4;

/// What becomes of one table.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Each list becomes one segment.
    pub rewrite: Vec<Vec<ChunkRef>>,
    /// Segments that stay.
    pub keep: Vec<ChunkRef>,
}

pub(super) fn plan(table: &TableVersion) -> Plan {
    let (mut inputs, mut keep): (Vec<_>, Vec<_>) = table.chunks.iter().cloned().partition(must_rewrite);
    let small = |chunk: &ChunkRef| chunk.chunk.plain_bytes() < SMALL_BYTES;
    let smalls = keep.iter().filter(|chunk| small(chunk)).count();
    if !inputs.is_empty() || smalls > 1 {
        let (merged, stay): (Vec<_>, Vec<_>) = keep.into_iter().partition(small);
        inputs.extend(merged);
        keep = stay;
    }
    // Smallest first, so that the merges that keep the count down copy the least.
    keep.sort_by_key(|chunk| std::cmp::Reverse(chunk.chunk.plain_bytes()));
    loop {
        let bytes: u64 = inputs.iter().map(live_bytes).sum();
        let open = keep.iter().filter(|chunk| live_bytes(chunk) < FULL_BYTES / 2).count();
        let produced = usize::from(!inputs.is_empty());
        if open + produced <= MAX_SEGMENTS {
            break;
        }
        let Some(smallest) = keep.pop() else { break };
        if bytes + live_bytes(&smallest) > FULL_BYTES {
            keep.push(smallest);
            break;
        }
        inputs.push(smallest);
    }
    Plan { rewrite: pack(inputs), keep }
}

fn must_rewrite(chunk: &ChunkRef) -> bool {
    chunk.chunk.as_sealed().is_none() || chunk.deleted.len() * 5 > u64::from(chunk.chunk.rows())
}

/// In row-id order into as few segments as stay below [`FULL_BYTES`].
fn pack(mut inputs: Vec<ChunkRef>) -> Vec<Vec<ChunkRef>> {
    inputs.sort_by_key(|chunk| chunk.chunk.first_row());
    let mut packs: Vec<Vec<ChunkRef>> = Vec::new();
    let mut bytes = 0;
    for chunk in inputs {
        let more = live_bytes(&chunk);
        match packs.last_mut() {
            Some(pack) if bytes + more <= FULL_BYTES => {
                bytes += more;
                pack.push(chunk);
            }
            _ => {
                bytes = more;
                packs.push(vec![chunk]);
            }
        }
    }
    packs
}

fn live_bytes(chunk: &ChunkRef) -> u64 {
    let rows = u64::from(chunk.chunk.rows()).max(1);
    chunk.chunk.plain_bytes() / rows * u64::from(chunk.live_rows())
}
