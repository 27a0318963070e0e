//! Which segments are rewritten, when, and what that costs. No clock, and no I/O but where a column was added with a
//! long default: then a segment is asked whether it has that.
//!
//! A **flush** writes memory chunks, and with them what is cheap: segments below 1 MiB, and those of which more than a
//! fifth is deleted if they are below 16 MiB. It never waits for a large merge, so the log is freed soon.
//!
//! A **compaction** is one merge at a time. A segment may hold 1 GiB of values of varying length, because the offsets
//! of a text column end at 2 GiB, and 4 GiB in all (`StoreOptions::segment_bytes`): a million vectors of 768
//! dimensions are one segment with one index. What it has used up of the scarcer of the two is its weight, a whole
//! segment being 1 GiB. What lives of a segment is counted by its rows, of whatever size they are: so all that is read
//! for one segment, deleted rows included, weighs less than two. By its weight a segment belongs to a tier:
//!
//! ```text
//! tier             0         1          2           3            full
//! weight           < 1 MiB   < 8 MiB    < 64 MiB    < 512 MiB    more
//! text, at most      1 MiB     8 MiB      64 MiB      512 MiB    1 GiB
//! vectors, at most   4 MiB    32 MiB     256 MiB        2 GiB    4 GiB
//! ```
//! As long as at most four segments are not full, nothing is merged. Beyond, the lowest tier that has two is merged
//! into one, with everything below it: of five segments in four tiers two are in the same. Segments of which more than
//! a fifth is deleted are rewritten first, each alone.
//!
//! # What that costs
//! Every merge in a tier adds at least the tier's least weight to a segment, and the tiers grow by eight: after seven
//! merges a segment has left its tier. So a row is written once by its flush and at most seven times for each tier from
//! its flush's to the last ([`worst_amplification`]): eight times where flushes weigh 64 MiB, fifteen where they weigh
//! 8 MiB. In the mean it is far less (2.6 and 5.2), because tiers are merged only when there are too many segments.
//! Besides, a flush rewrites up to 1 MiB of the lowest tier, and a byte that is deleted costs at most four.

use std::collections::HashSet;

use sepal_types::{FileId, TableDef};

use crate::{
    ChunkRef, TableVersion,
    chunk::{Chunk, default_bytes},
};

/// The weight that a merged segment stays below.
pub(super) const FULL_WEIGHT: u64 = 1 << 30;
/// What is read for a merged segment stays below this, deleted rows included: those that live may be the large ones, and
/// a text column whose offsets do not reach its end could be written, but never be read again.
const MOST_READ_WEIGHT: u64 = 2 * FULL_WEIGHT;
const _: () = assert!(MOST_READ_WEIGHT - 1 <= i32::MAX as u64);
/// What a row weighs at least: a column that was added with a default costs its text in every row before.
const ROW_WEIGHT: u64 = 16;
/// Much-deleted segments below this are rewritten by a flush.
const CHEAP_BYTES: u64 = 16 << 20;
/// Segments per table to aim for, full ones aside.
pub(super) const MAX_SEGMENTS: usize = 4;
/// Where the tiers end. What is above is full: two below can always be merged.
const TIER_ENDS: [u64; MAX_SEGMENTS] = [1 << 20, 8 << 20, 64 << 20, FULL_WEIGHT / 2];
/// Segments below this are rewritten by every flush.
const TINY_BYTES: u64 = 1 << 20;
/// By how much they grow, and so how often a segment is merged within one.
#[cfg(test)]
const GROWTH: u64 = 8;

/// What becomes of one table in a flush.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Each list becomes one segment.
    pub rewrite: Vec<Vec<ChunkRef>>,
    /// Segments that stay.
    pub keep: Vec<ChunkRef>,
}

/// `busy`: segments that a compaction is reading. They stay. `most`: bytes that a segment may hold.
pub(super) fn flush(table: &TableVersion, busy: &HashSet<FileId>, most: u64) -> Plan {
    let is_busy = |chunk: &ChunkRef| chunk.chunk.segment().is_some_and(|file| busy.contains(&file));
    let must = |chunk: &ChunkRef| {
        let size = Size::of(chunk, most);
        let cheap = || size.bytes < CHEAP_BYTES && size.is_much_deleted() && !is_busy(chunk);
        chunk.chunk.segment().is_none() || cheap()
    };
    let (mut inputs, mut keep): (Vec<_>, Vec<_>) = table.chunks.iter().cloned().partition(must);
    let tiny = |chunk: &ChunkRef| Size::of(chunk, most).live_bytes() < TINY_BYTES && !is_busy(chunk);
    if !inputs.is_empty() || keep.iter().filter(|chunk| tiny(chunk)).count() > 1 {
        let (merged, stay): (Vec<_>, Vec<_>) = keep.into_iter().partition(tiny);
        inputs.extend(merged);
        keep = stay;
    }
    Plan { rewrite: pack(inputs, &table.def, most), keep }
}

/// In row-id order into as few segments as stay below [`FULL_WEIGHT`].
fn pack(mut inputs: Vec<ChunkRef>, def: &TableDef, most: u64) -> Vec<Vec<ChunkRef>> {
    inputs.sort_by_key(|chunk| chunk.chunk.first_row());
    let sizes: Vec<Size> =
        inputs.iter().map(|held| Size::of(held, most).completed(def, &held.chunk)).collect();
    let packs = packs(&sizes);
    packs.into_iter().map(|pack| pack.into_iter().map(|at| inputs[at].clone()).collect()).collect()
}

/// A segment as far as plans care.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub rows: u32,
    pub deleted: u64,
    /// Of all rows, uncompressed.
    pub bytes: u64,
    /// Of all rows; a whole segment weighs [`FULL_WEIGHT`].
    pub weight: u64,
}

impl Size {
    /// `most`: bytes that a segment may hold.
    pub(super) fn of(chunk: &ChunkRef, most: u64) -> Self {
        let held = &chunk.chunk;
        Self::new(held.rows(), chunk.deleted.len(), held.plain_bytes(), held.variable_bytes(), most)
    }

    /// `variable`: of `bytes`, those of values that vary in length.
    pub(super) fn new(rows: u32, deleted: u64, bytes: u64, variable: u64, most: u64) -> Self {
        let share = u128::from(bytes) * u128::from(FULL_WEIGHT) / u128::from(most.max(1));
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        let weight = share.max(variable).max(u64::from(rows) * ROW_WEIGHT);
        Self { rows, deleted, bytes, weight }
    }

    /// With what its rows have in columns of varying length that were added after them. Which columns those are a
    /// segment's file tells, which is asked where it matters.
    pub(super) fn completed(self, def: &TableDef, chunk: &Chunk) -> Self {
        let of_all = |bytes: u64| bytes.saturating_mul(u64::from(self.rows));
        let most = of_all(default_bytes(&def.columns));
        let added = match most < TINY_BYTES {
            true => most,
            false => of_all(default_bytes(def.columns.iter().filter(|column| chunk.lacks(column.id)))),
        };
        Self { weight: self.weight.saturating_add(added), ..self }
    }

    pub(super) fn live_bytes(self) -> u64 {
        self.live(self.bytes)
    }

    fn live_weight(self) -> u64 {
        self.live(self.weight)
    }

    /// What live rows have of it.
    fn live(self, of_all: u64) -> u64 {
        let live = u64::from(self.rows).saturating_sub(self.deleted);
        let share = u128::from(of_all) * u128::from(live) / u128::from(self.rows.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    fn is_much_deleted(self) -> bool {
        self.deleted * 5 > u64::from(self.rows)
    }

    fn is_full(self) -> bool {
        self.live_weight() >= TIER_ENDS[MAX_SEGMENTS - 1]
    }

    fn tier(self) -> usize {
        TIER_ENDS.iter().position(|end| self.live_weight() < *end).unwrap_or(MAX_SEGMENTS)
    }
}

/// The segments, by their places, that a compaction makes one of; none when nothing pays. `max_bytes`: of the new one.
pub(super) fn compaction(sizes: &[Size], max_bytes: u64) -> Vec<usize> {
    let fits = |size: &Size| size.live_bytes() <= max_bytes;
    let much = sizes.iter().enumerate().filter(|(_, size)| size.is_much_deleted() && fits(size));
    if let Some((most, _)) = much.max_by_key(|(_, size)| size.deleted) {
        return vec![most];
    }
    let mut open: Vec<usize> = (0..sizes.len()).filter(|at| !sizes[*at].is_full()).collect();
    if open.len() <= MAX_SEGMENTS {
        return Vec::new();
    }
    open.sort_by_key(|at| sizes[*at].live_weight());
    let crowded =
        (0..MAX_SEGMENTS).find(|tier| open.iter().filter(|at| sizes[**at].tier() == *tier).count() > 1);
    let Some(tier) = crowded else { return Vec::new() };
    let (mut bytes, mut weight) = (0, 0);
    // Of none more than a fifth is deleted: less than `MOST_READ_WEIGHT` is read.
    let merged = open.into_iter().take_while(|at| {
        bytes += sizes[*at].live_bytes();
        weight += sizes[*at].live_weight();
        sizes[*at].tier() <= tier && bytes <= max_bytes && weight <= FULL_WEIGHT
    });
    let merged: Vec<usize> = merged.collect();
    // Where the limit allows no merge, one alone would be rewritten for nothing.
    if merged.len() > 1 { merged } else { Vec::new() }
}

/// In their order into as few lists as stay below [`FULL_WEIGHT`], and of which less than [`MOST_READ_WEIGHT`] is read; a
/// larger one stands alone.
pub(super) fn packs(sizes: &[Size]) -> Vec<Vec<usize>> {
    let mut packs: Vec<Vec<usize>> = Vec::new();
    let (mut weight, mut read) = (0, 0_u64);
    for (at, size) in sizes.iter().enumerate() {
        let more = size.live_weight();
        let all = read.saturating_add(size.weight);
        match packs.last_mut() {
            Some(pack) if weight + more <= FULL_WEIGHT && all < MOST_READ_WEIGHT => {
                weight += more;
                read = all;
                pack.push(at);
            }
            _ => {
                (weight, read) = (more, size.weight);
                packs.push(vec![at]);
            }
        }
    }
    packs
}

/// How often a row is written at most, where each flush weighs so much and nothing is deleted. Below 1 MiB a flush, up
/// to 1 MiB more for each flush.
#[cfg(test)]
pub(super) fn worst_amplification(flush_weight: u64) -> u64 {
    let passed = TIER_ENDS.iter().skip(1).filter(|end| flush_weight < **end).count() as u64;
    1 + (GROWTH - 1) * passed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sepal_types::{ColumnDef, ColumnId, RowId, SqlType};

    use super::*;
    use crate::{
        chunk::MemoryChunk,
        fixtures::{batch, items},
    };

    const MIB: u64 = 1 << 20;

    /// Of texts.
    fn sized(bytes: u64) -> Size {
        Size::new(1_000, 0, bytes, bytes, 4 << 30)
    }

    /// Of vectors.
    fn vectors(bytes: u64) -> Size {
        Size::new(1_000, 0, bytes, 0, 4 << 30)
    }

    /// Flushes of that size until `total` is in, compacted after each; bytes written for each that came in. `of`: what
    /// the rows are.
    fn ingest(of: fn(u64) -> Size, flush_bytes: u64, total: u64) -> f64 {
        let (mut segments, mut written): (Vec<u64>, u64) = (Vec::new(), 0);
        for _ in 0..total / flush_bytes {
            let (tiny, stay): (Vec<u64>, Vec<u64>) =
                segments.into_iter().partition(|bytes| *bytes < TINY_BYTES);
            let flushed = flush_bytes + tiny.iter().sum::<u64>();
            segments = stay;
            segments.push(flushed);
            written += flushed;
            loop {
                let sizes: Vec<Size> = segments.iter().map(|bytes| of(*bytes)).collect();
                let chosen = compaction(&sizes, u64::MAX);
                if chosen.is_empty() {
                    break;
                }
                let merged: u64 = chosen.iter().map(|at| segments[*at]).sum();
                assert!(chosen.len() > 1 && of(merged).live_weight() <= FULL_WEIGHT);
                written += merged;
                let stays = |(at, bytes): (usize, u64)| (!chosen.contains(&at)).then_some(bytes);
                segments = segments.into_iter().enumerate().filter_map(stays).collect();
                segments.push(merged);
            }
            let open = segments.iter().filter(|bytes| !of(**bytes).is_full()).count();
            assert!(open <= MAX_SEGMENTS, "{open} segments");
        }
        ratio(written, total / flush_bytes * flush_bytes)
    }

    fn ratio(one: u64, other: u64) -> f64 {
        one as f64 / other as f64
    }

    #[test]
    fn amplification_stays_within_its_bound() {
        for (flush_mib, mean) in [(1, 12.0), (3, 9.0), (8, 6.0), (17, 5.0), (64, 3.0), (100, 3.0), (300, 2.0)]
        {
            let found = ingest(sized, flush_mib * MIB, 8 << 30);
            let bound = ratio(worst_amplification(flush_mib * MIB), 1);
            assert!(found <= bound, "{flush_mib} MiB: {found} of at most {bound}");
            assert!(found <= mean, "{flush_mib} MiB: {found}, in the mean at most {mean}");
        }
        assert_eq!([64, 8, 1, 512].map(|mib| worst_amplification(mib * MIB)), [8, 15, 22, 1]);
    }

    /// As docs/maintenance.md has it.
    #[test]
    fn vectors_are_written_somewhat_more_often_and_within_their_bound() {
        for (flush_mib, most, mean) in [
            (1, 25, 13.0),
            (4, 22, 10.0),
            (8, 22, 8.0),
            (17, 22, 6.3),
            (64, 15, 4.0),
            (100, 15, 3.8),
            (300, 8, 2.7),
        ] {
            let flush = flush_mib * MIB;
            // Four flushes of 1 MiB fill the lowest tier.
            let lowest = (MIB / vectors(flush).live_weight()).saturating_sub(1);
            assert_eq!(worst_amplification(vectors(flush).live_weight()) + lowest, most, "{flush_mib} MiB");
            let found = ingest(vectors, flush, 16 << 30);
            assert!(found <= ratio(most, 1).min(mean), "{flush_mib} MiB: {found}");
        }
    }

    #[test]
    fn small_flushes_cost_no_more_than_the_lowest_tier() {
        let flush = 64 << 10;
        let bound = worst_amplification(MIB) + MIB / flush;
        assert!(ingest(sized, flush, 256 * MIB) <= ratio(bound, 1));
    }

    #[test]
    fn what_is_deleted_goes_first_and_alone() {
        let mut sizes = vec![sized(600 * MIB), sized(300 * MIB), sized(2 * MIB), sized(2 * MIB)];
        assert!(compaction(&sizes, u64::MAX).is_empty(), "four at most are left alone");
        sizes[0].deleted = 200;
        assert!(compaction(&sizes, u64::MAX).is_empty(), "a fifth is not more than a fifth");
        sizes[0].deleted = 201;
        sizes[1].deleted = 900;
        assert_eq!(compaction(&sizes, u64::MAX), [1], "who has most");
        sizes[1].deleted = 0;
        assert_eq!(compaction(&sizes, u64::MAX), [0]);
        assert!(compaction(&sizes, 100 * MIB).is_empty(), "more than the limit allows");
    }

    #[test]
    fn a_crowded_tier_takes_what_is_below_it_along() {
        let sizes = [2, 100, 40, 90, 900, 3, 300].map(|mib| sized(mib * MIB));
        assert_eq!(compaction(&sizes, u64::MAX), [0, 5], "the lowest tier that has two");
        let sizes = [2, 100, 40, 90, 900, 80, 300].map(|mib| sized(mib * MIB));
        assert_eq!(compaction(&sizes, u64::MAX), [0, 2, 5, 3, 1, 6], "2, 40, 80, 90, 100, 300");
        assert_eq!(compaction(&sizes, 130 * MIB), [0, 2, 5]);
        assert!(compaction(&sizes, 41 * MIB).is_empty());
    }

    #[test]
    fn packs_keep_the_order_and_the_limit() {
        let sizes = [400, 400, 300, 1_100, 10, 20].map(|mib| sized(mib * MIB));
        assert_eq!(packs(&sizes), [vec![0, 1], vec![2], vec![3], vec![4, 5]]);
    }

    /// Whoever deletes the small rows leaves the large ones, and nobody knows how large those are.
    #[test]
    fn what_is_left_of_a_segment_counts_as_all_that_it_may_be() {
        let rest = Size::new(1_000, 990, 900 * MIB, 900 * MIB, 4 << 30);
        assert_eq!(rest.live_bytes(), 9 * MIB);
        assert_eq!(packs(&[rest; 5]), [vec![0, 1], vec![2, 3], vec![4]], "offsets end at 2 GiB");
        let vectors = Size::new(1_000, 990, 3_500 * MIB, 0, 4 << 30);
        assert_eq!(packs(&[vectors; 3]), [vec![0, 1], vec![2]], "what is read is in memory");
    }

    proptest! {
        /// Whatever is deleted, and however large what is left may be.
        #[test]
        fn no_pack_can_be_too_long_to_be_read(
            segments in prop::collection::vec((1..70_000_000_u32, 0..=100_u64, 0..1_500_u64, 0..=100_u64), 0..12),
        ) {
            let size = |(rows, deleted, mib, variable): (u32, u64, u64, u64)| {
                let bytes = mib * MIB;
                Size::new(rows, u64::from(rows) * deleted / 100, bytes, bytes * variable / 100, 4 << 30)
            };
            let sizes: Vec<Size> = segments.into_iter().map(size).collect();
            let packs = packs(&sizes);
            prop_assert_eq!(packs.concat(), (0..sizes.len()).collect::<Vec<_>>());
            for pack in packs.iter().filter(|pack| pack.len() > 1) {
                let sum = |of: fn(Size) -> u64| pack.iter().map(|at| of(sizes[*at])).sum::<u64>();
                prop_assert!(i32::try_from(sum(|size| size.weight)).is_ok());
                prop_assert!(sum(Size::live_weight) <= FULL_WEIGHT);
            }
        }
    }

    #[test]
    fn a_default_counts_in_every_row_that_has_not_its_column() {
        let mut def = items(20_000, "items");
        let chunk = Chunk::memory(MemoryChunk::inserted(RowId(1), &batch(&[1]), 1).unwrap());
        let rows = Size::new(2_000_000, 0, 32 * MIB, 0, 4 << 30);
        assert_eq!(rows.completed(&def, &chunk).weight, rows.weight, "nothing was added");
        let added = |ty: SqlType, missing: usize| {
            let missing = Some("1".repeat(missing));
            ColumnDef { missing, ..ColumnDef::new(ColumnId(90), "added", ty) }
        };
        // A number takes its place in the row, and has no offset.
        def.columns.push(added(SqlType::Int8, 300));
        assert_eq!(rows.completed(&def, &chunk).weight, rows.weight);
        def.columns[3] = added(SqlType::Text, 300);
        let completed = rows.completed(&def, &chunk);
        assert!(completed.weight > 2_000_000 * 300, "{}", completed.weight);
        assert_eq!(packs(&[rows; 4]).len(), 1);
        assert_eq!(packs(&[completed; 4]).len(), 4, "a text of 600 MB each");
        // The rows of this one were inserted with it.
        def.columns[3].missing = None;
        def.columns[1].missing = Some("x".repeat(300));
        assert_eq!(rows.completed(&def, &chunk).weight, rows.weight);
    }

    #[test]
    fn vectors_fill_a_segment_later_than_texts() {
        let million = Size::new(1_000_000, 0, 1_000_000 * 768 * 4, 0, 4 << 30);
        assert_eq!(packs(&[million, vectors(900 * MIB), vectors(300 * MIB)]), [vec![0, 1], vec![2]]);
        assert_eq!(packs(&[vectors(3_000 * MIB), sized(200 * MIB), sized(200 * MIB)]), [vec![0, 1], vec![2]]);
        let half = |bytes| Size::new(1_000, 0, bytes, bytes / 2, 4 << 30);
        assert_eq!(packs(&[half(1_000 * MIB), half(1_000 * MIB), half(50 * MIB)]), [vec![0, 1], vec![2]]);
        let few = Size::new(40_000_000, 0, 640 * MIB, 0, 4 << 30);
        assert_eq!(packs(&[few, few]), [vec![0], vec![1]], "by their rows");
        assert_eq!(
            packs(&[Size::new(9, 0, 300 * MIB, 0, 512 * MIB); 2]),
            [vec![0], vec![1]],
            "a smaller limit"
        );
    }

    #[test]
    fn two_segments_that_are_not_full_always_fit_together() {
        for one in [vectors(2_047 * MIB), sized(511 * MIB), Size::new(1_000, 500, 3_000 * MIB, 0, 4 << 30)] {
            assert!(!one.is_full());
            for other in [vectors(2_047 * MIB), sized(511 * MIB)] {
                assert_eq!(packs(&[one, other]).len(), 1, "{one:?} {other:?}");
            }
        }
        assert!(vectors(2_048 * MIB).is_full() && sized(512 * MIB).is_full());
        let sizes = [70, 900, 800, 300, 1_000].map(|mib| vectors(mib * MIB));
        assert_eq!(compaction(&sizes, u64::MAX), [0, 3, 2, 1, 4], "3,070 MiB of vectors become one");
        assert_eq!(compaction(&sizes, 1_200 * MIB), [0, 3, 2], "as much as the limit allows");
    }
}
