//! How far a graph that goes on from others is from one that was built afresh.
//!
//! Counted by `graph::merge`, kept by `calibration` behind the index's bytes. What a merge costs in recall is a
//! hundredth or less, which no measurement of a build tells from chance (64 questions have a standard error of 0.012 at
//! 0.95), and the next merge measures itself by the one before: so it has to be a count.

/// Ten-thousandths of an index's rows that are not where a fresh build would have put them, for all that is known: the
/// share that went since the last one, with the links that led there. Rows that came are where an insertion puts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wear(u16);

impl Wear {
    /// As a fresh build leaves it.
    pub const NONE: Self = Self(0);
    /// A graph that has more is built afresh. A model of graphs of rows without any structure, the worst there are,
    /// loses 0.013 to 0.019 of the truth at 0.49 (docs/decisions/0003-vector-index.md): half of that at this.
    const MOST: Self = Self(2_500);
    const ALL: u16 = 10_000;

    /// What a graph has that goes on from one with this wear: which had `before` rows, `survivors` of which are still
    /// there.
    pub(crate) fn merged(self, survivors: usize, before: usize) -> Self {
        let (whole, all) = (u64::from(Self::ALL), before.max(1) as u64);
        let kept = (whole - u64::from(self.0)) * survivors as u64 / all;
        // Rounded to the side of wear; no more survive than there are, but for a bug of the caller.
        Self((whole - kept.min(whole)) as u16)
    }

    pub(crate) fn is_too_much(self) -> bool {
        self > Self::MOST
    }

    /// From 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / f64::from(Self::ALL)
    }

    pub(crate) fn to_bits(self) -> u16 {
        self.0
    }

    /// `None` for more than all.
    pub(crate) fn from_bits(bits: u16) -> Option<Self> {
        (bits <= Self::ALL).then_some(Self(bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_counts() {
        let shares = |merges: &[(usize, usize)]| -> Vec<f64> {
            let mut wear = Wear::NONE;
            let merge = |(survivors, before): &(usize, usize)| {
                wear = wear.merged(*survivors, *before);
                wear.share()
            };
            merges.iter().map(merge).collect()
        };
        assert_eq!(shares(&[(1_000, 1_000)]), [0.0], "nothing is different");
        assert_eq!(shares(&[(800, 1_000); 3]), [0.2, 0.36, 0.488], "a fifth is replaced, again and again");
        assert_eq!(
            shares(&[(100, 1_000)]),
            [0.9],
            "all that is left is of it, and nearly all links are gone"
        );
        assert_eq!(shares(&[(0, 0), (0, 5)]), [1.0, 1.0]);
        assert_eq!(shares(&[(2, 1)]), [0.0], "a bug of the caller");
        assert_eq!(Wear::NONE.merged(2, 3).to_bits(), 3_334, "rounded up");
        let (quarter, more) = (Wear::NONE.merged(75, 100), Wear::NONE.merged(7_499, 10_000));
        assert!(!quarter.is_too_much() && more.is_too_much());
    }

    #[test]
    fn bits_are_bounded() {
        assert_eq!(Wear::from_bits(10_000).map(Wear::share), Some(1.0));
        assert_eq!(Wear::from_bits(10_001), None);
    }
}
