//! Work on many nodes by several threads: shared out in chunks, heard when cancelled, told as progress.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::quantize::on_threads;
use crate::{BuildParams, IndexError};

/// Nodes that a thread takes at a time, at most: neighbours in the order are neighbours in space, and are best kept by
/// one thread, whose cache has what they read.
const CHUNK: usize = 256;
/// Nodes that a thread works on at a time, between two looks at whether the build is cancelled.
const STEP: usize = 32;
/// Chunks for each thread, at least, so that none ends much later than others.
const CHUNKS: usize = 8;
/// Rows between two reports of progress.
const REPORT: u64 = 1000;

/// Hands `nodes` to `work`, a few at a time, in each thread with a `room` of its own.
///
/// # Errors
/// [`IndexError::Cancelled`].
pub(super) fn in_chunks<R>(
    params: &BuildParams,
    threads: usize,
    nodes: &[u32],
    room: impl Fn() -> R + Sync,
    work: impl Fn(&[u32], &mut R) + Sync,
) -> Result<(), IndexError> {
    let size = (nodes.len() / (CHUNKS * threads.max(1))).clamp(STEP, CHUNK);
    let (chunks, next) = (nodes.len().div_ceil(size), AtomicUsize::new(0));
    on_threads(threads.min(chunks), || {
        let mut room = room();
        while let Some(chunk) = nodes.chunks(size).nth(next.fetch_add(1, Relaxed)) {
            for step in chunk.chunks(STEP) {
                if (params.cancelled)() {
                    return;
                }
                work(step, &mut room);
            }
        }
    });
    if (params.cancelled)() { Err(IndexError::Cancelled) } else { Ok(()) }
}

/// How far a build is, told in rows: some nodes stand for several, some rows have none.
pub(super) struct Progress<'a> {
    params: &'a BuildParams<'a>,
    /// Nodes.
    done: AtomicU64,
    all: u64,
}

impl<'a> Progress<'a> {
    /// Of a graph that has `there` nodes and gets `inserted` more.
    pub(super) fn new(params: &'a BuildParams<'a>, there: usize, inserted: usize) -> Self {
        let done = there as u64;
        Self { params, done: AtomicU64::new(done), all: done + inserted as u64 }
    }

    pub(super) fn inserted(&self, nodes: usize) {
        let nodes = nodes as u64;
        let rows = self.params.rows() as u64;
        let in_rows = |nodes: u64| {
            (u128::from(nodes) * u128::from(rows) / u128::from(self.all.max(1))).min(rows.into()) as u64
        };
        let before = self.done.fetch_add(nodes, Relaxed);
        let (before, after) = (in_rows(before), in_rows(before + nodes));
        if before / REPORT != after / REPORT {
            (self.params.progress)(after, rows);
        }
    }
}
