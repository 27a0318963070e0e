//! Every way to count against counting bit by bit, and pgvector's own answers.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn every_way_counts_the_same(pairs in prop::collection::vec(any::<(u8, u8)>(), 0..300)) {
        let (a, b): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
        let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (at % 8) & 1 == 1;
        let count = |wanted: &dyn Fn(bool, bool) -> bool| {
            (0..8 * a.len()).filter(|at| wanted(bit(&a, *at), bit(&b, *at))).count() as u64
        };
        let expected = (count(&|a, b| a && b), count(&|a, _| a), count(&|_, b| b));
        for kernels in available() {
            // SAFETY: `available` gives only what this CPU has.
            let (differing, common) = unsafe { ((kernels.differing)(&a, &b), (kernels.common)(&a, &b)) };
            prop_assert_eq!(differing, count(&|a, b| a != b), "{}", kernels.name);
            prop_assert_eq!(common, expected, "{}", kernels.name);
        }
    }
}

/// What pgvector 0.8 prints for the same operands.
#[test]
fn means_what_pgvector_means() {
    assert_eq!(hamming(&[0b1010_0000], &[0b1100_0000]), 2.0);
    assert_eq!(jaccard(&[0b1010_0000], &[0b1100_0000]), 1.0 - 1.0 / 3.0);
    assert_eq!(jaccard(&[0b1100_0000], &[0b0110_0000]), 1.0 - 1.0 / 3.0);
    assert_eq!((jaccard(&[0], &[0]), jaccard(&[], &[]), hamming(&[], &[])), (1.0, 1.0, 0.0));
    assert_eq!(jaccard(&[7, 1], &[7, 1]), 0.0);
}
