//! Items put in another order without a copy of all.
//!
//! Called by `graph::arrange` for links and by `quantize` for codes, which are most of an index.

use crate::Bits;

/// Puts the item that is at `order[i]` at `i`, for each of as many items of `size` elements: along the cycles, without a
/// copy of all.
pub(crate) fn permute<T: Copy>(items: &mut [T], size: usize, order: &[u32]) {
    debug_assert_eq!(items.len(), size * order.len());
    let mut placed = Bits::new(order.len());
    let mut first: Vec<T> = Vec::with_capacity(size);
    for start in 0..order.len() {
        if placed.get(start) {
            continue;
        }
        first.clear();
        first.extend_from_slice(&items[start * size..][..size]);
        let mut place = start;
        loop {
            placed.set(place);
            let from = order[place] as usize;
            if from == start {
                items[place * size..][..size].copy_from_slice(&first);
                break;
            }
            items.copy_within(from * size..(from + 1) * size, place * size);
            place = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn items_go_where_the_order_says(size in 1usize..4, seed in any::<u64>(), count in 0usize..40) {
            let mut order: Vec<u32> = (0..count as u32).collect();
            order.sort_by_key(|item| crate::quantize::mix(seed ^ u64::from(*item)));
            let mut items: Vec<u32> = (0..(count * size) as u32).collect();
            permute(&mut items, size, &order);
            let expected: Vec<u32> = order
                .iter()
                .flat_map(|from| (0..size as u32).map(move |element| from * size as u32 + element))
                .collect();
            prop_assert_eq!(items, expected);
        }
    }
}
