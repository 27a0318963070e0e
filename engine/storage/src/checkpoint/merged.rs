//! Where the rows of merged segments have gone: what a builder needs to keep of their indexes what still holds.
//!
//! Called when a new segment's indexes are built. Looks at row ids only.

use sepal_types::TableId;

use crate::{ChunkRef, StoreError, chunk::Chunk};

/// A segment whose rows, those that lived, are in a new one.
pub struct MergeInput<'a> {
    pub chunk: &'a Chunk,
    /// The position in the new segment of each of its rows; `u32::MAX`: it was deleted.
    pub positions: Vec<u32>,
}

/// Those of the inputs that have a part of the index.
pub(super) fn inputs<'a>(
    new: &Chunk,
    inputs: &'a [ChunkRef],
    index: TableId,
) -> Result<Vec<MergeInput<'a>>, StoreError> {
    let indexed = inputs.iter().filter(|input| input.chunk.has_index(index));
    indexed.map(|input| Ok(MergeInput { chunk: &input.chunk, positions: positions(new, input)? })).collect()
}

fn positions(new: &Chunk, input: &ChunkRef) -> Result<Vec<u32>, StoreError> {
    let (new, old) = (new.row_ids()?, input.chunk.row_ids()?);
    let (new, old) = (new.values(), old.values());
    let mut next = 0;
    let mut place = |(position, row): (u32, &u64)| {
        if input.deleted.contains(position) {
            return u32::MAX;
        }
        // Rows follow each other but where those of another segment lie between.
        if new.get(next) != Some(row) {
            next += new[next..].partition_point(|other| other < row);
        }
        let found = new.get(next) == Some(row);
        next += usize::from(found);
        // A new segment has no more rows than a `u32` counts.
        if found { u32::try_from(next - 1).unwrap_or(u32::MAX) } else { u32::MAX }
    };
    Ok((0..).zip(old.iter()).map(&mut place).collect())
}
