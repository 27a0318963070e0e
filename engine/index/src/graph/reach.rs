//! How long a search's walk goes on: as long as its query is worth it.
//!
//! A plain beam follows as many nodes for every query. Queries differ: one's neighbours stand apart from all others and
//! are found in a dozen hops, another has hundreds of rows about as near as its tenth. A walk that instead goes on
//! while the next candidate is within a fixed factor of the tenth nearest so far spends its hops where they are needed
//! (Al-Jazzazi et al. 2025, "Distance Adaptive Beam Search"). Which factor costs how many hops depends on the rows, so a
//! build measures it: for each effort the factor, the *reach*, with which walks follow as many nodes on average as a
//! plain beam of that width. So `ef_search` costs what it says, and finds more. The questions are rows; queries that
//! are unlike them are followed further (sentences asked of dictionary definitions: 1.5 times as many nodes).
//!
//! [`Reach`] is measured by `calibration`, kept behind the index's bytes, and read by `search`, which hands
//! [`Effort`] to the walk. A graph that was never measured is walked by plain beams, and so are builds.

use sepal_types::Metric;

use super::scratch::{Candidate, limit};
use crate::distance::norm;

/// The nearest so many so far say how near is near. As many neighbours as searches usually ask for.
const REFERENCE: usize = 10;
/// No walk follows less than one part in so many of the nodes that its effort stands for, and none more than
/// [`MOST_TIMES`] as many: the hardest queries pay for all others' peace, and the answer's time stays bounded.
const LEAST_PART: usize = 2;
const MOST_TIMES: usize = 2;
/// Halvings while a reach is looked for: as many as an `f32` can tell apart.
const HALVINGS: usize = 32;

/// The reach for each effort that was measured; none for a graph that was not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reach {
    /// Ascending by effort.
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    /// Nodes followed on average.
    pub(crate) effort: u32,
    /// How far behind the tenth nearest the last of them is: a share of its distance; of an inner product, which can
    /// be anything, the difference, for a query of length 1 ([`unit`]).
    pub(crate) reach: f32,
}

/// What a walk is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Effort {
    /// Nodes followed in any case, if there are so many.
    least: usize,
    /// Candidates kept, which bounds the nodes followed.
    pub(super) most: usize,
    /// `None`: until all kept ones are followed.
    reach: Option<(f32, Scale)>,
    /// Candidates kept though they may be too far to be followed: no fewer than `least`.
    keeps: usize,
}

/// What a reach is a multiple of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    Distance,
    One,
}

impl Scale {
    fn of(metric: Metric) -> Self {
        match metric {
            Metric::InnerProduct => Self::One,
            _ => Self::Distance,
        }
    }

    /// The furthest that is worth following, where the tenth nearest is this far.
    fn limit(self, tenth: f32, reach: f32) -> f32 {
        match self {
            // An estimate of what is all but equal may be negative.
            Self::Distance => tenth + reach * tenth.max(0.0),
            Self::One => tenth + reach,
        }
    }
}

/// What a query's scores are multiples of, so that a reach means the same for all queries: an inner product grows with
/// the query's length, and says no more.
pub(super) fn unit(metric: Metric, query: &[f32]) -> f32 {
    match metric {
        Metric::InnerProduct => Some(norm(query) as f32).filter(|norm| norm.is_normal()).unwrap_or(1.0),
        _ => 1.0,
    }
}

impl Effort {
    /// The nearest `ef`, all of them followed.
    pub(super) fn beam(ef: usize) -> Self {
        Self { least: ef, most: ef, reach: None, keeps: ef }
    }

    /// The same, keeping as many candidates as it may: of a walk that meets rows which do not count, many are needed.
    pub(super) fn keeping_far(self) -> Self {
        Self { keeps: self.most, ..self }
    }

    /// Which of the nearest so far to tell of after so many hops: one after the other, once the walk may end.
    #[inline(always)]
    pub(super) fn likely(&self, followed: usize) -> Option<usize> {
        followed.checked_sub(self.least).filter(|place| *place < REFERENCE)
    }

    /// Only what is nearer than this is worth keeping. What is not will never be followed: as many as are followed in any
    /// case are nearer, and the tenth nearest only ever comes nearer.
    #[inline(always)]
    pub(super) fn limit(&self, best: &[Candidate]) -> f32 {
        let full = limit(best, self.most);
        let (Some((reach, scale)), Some(tenth)) = (self.reach, best.get(REFERENCE - 1)) else { return full };
        let Some(last) = best.get(self.keeps.saturating_sub(1)) else { return full };
        full.min(scale.limit(tenth.score(), reach).max(last.score()).next_up())
    }

    /// Whether a walk that has followed so many is done, though `next` has not been followed. `best` are the candidates
    /// so far, nearest first.
    #[inline(always)]
    pub(super) fn is_spent(&self, followed: usize, best: &[Candidate], next: Candidate) -> bool {
        let (Some((reach, scale)), Some(tenth)) = (self.reach, best.get(REFERENCE - 1)) else { return false };
        followed >= self.least && next.score() > scale.limit(tenth.score(), reach)
    }
}

impl Reach {
    /// Measures one from walks' candidates: for each question, how far all that a wide beam kept were, ascending. As
    /// far as they tell: a beam of `ef` tells of efforts up to `ef / 2`.
    pub(super) fn measure(metric: Metric, efforts: &[u32], questions: &[Vec<f32>]) -> Self {
        let scale = Scale::of(metric);
        let questions: Vec<&[f32]> =
            questions.iter().map(Vec::as_slice).filter(|scores| scores.len() >= REFERENCE).collect();
        let step = |effort: &u32| {
            let reach = reach_for(*effort, scale, &questions)?;
            Some(Step { effort: *effort, reach })
        };
        Self { steps: efforts.iter().map_while(step).collect() }
    }

    /// From stored steps; `None` unless efforts ascend from 1 on and all reaches are numbers from 0 on.
    pub(crate) fn from_steps(steps: Vec<Step>) -> Option<Self> {
        let rising = steps.windows(2).all(|pair| pair[0].effort < pair[1].effort);
        let sound = |step: &Step| step.effort > 0 && step.reach >= 0.0 && step.reach.is_finite();
        (rising && steps.iter().all(sound)).then_some(Self { steps })
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// For walks that follow `ef` nodes on average. At least `k` come out of each.
    pub(super) fn effort(&self, metric: Metric, ef: usize, k: usize, unit: f32) -> Effort {
        let least = (ef / LEAST_PART).max(k);
        match self.at(ef).map(|reach| reach * unit) {
            Some(reach) => Effort {
                least,
                most: ef.saturating_mul(MOST_TIMES),
                reach: Some((reach, Scale::of(metric))),
                // Their order is not yet the true one.
                keeps: least.max(k.saturating_mul(2)),
            },
            None => Effort::beam(ef),
        }
    }

    /// Between two steps the reach rises as the effort's logarithm. `None` past what was measured.
    fn at(&self, ef: usize) -> Option<f32> {
        let above = self.steps.partition_point(|step| (step.effort as usize) < ef);
        let (high, low) = (self.steps.get(above)?, self.steps.get(above.wrapping_sub(1)));
        let Some(low) = low else { return Some(high.reach) };
        let logarithm = |effort: f64| effort.ln() as f32;
        let (from, to) = (logarithm(f64::from(low.effort)), logarithm(f64::from(high.effort)));
        let share = (logarithm(ef as f64) - from) / (to - from);
        Some(low.reach + share * (high.reach - low.reach))
    }
}

/// The reach with which walks follow `effort` nodes on average, where they follow those within it.
fn reach_for(effort: u32, scale: Scale, questions: &[&[f32]]) -> Option<f32> {
    let (least, most) = (effort as usize / LEAST_PART, effort as usize * MOST_TIMES);
    let followed = |reach: f32| -> usize {
        let of = |scores: &&[f32]| {
            let limit = scale.limit(scores[REFERENCE - 1], reach);
            scores.partition_point(|score| *score <= limit).clamp(least, most)
        };
        questions.iter().map(of).sum()
    };
    let wanted = effort as usize * questions.len();
    let furthest = |scores: &&[f32]| {
        let (tenth, last) = (scores[REFERENCE - 1], scores[scores.len() - 1]);
        let behind = last - tenth;
        if scale == Scale::Distance { behind / tenth.max(f32::MIN_POSITIVE) } else { behind }
    };
    let mut high = questions.iter().map(furthest).fold(0f32, f32::max).min(f32::MAX);
    if wanted == 0 || followed(high) < wanted {
        return None;
    }
    let mut low = 0f32;
    for _ in 0..HALVINGS {
        let middle = low + (high - low) / 2.0;
        *(if followed(middle) < wanted { &mut low } else { &mut high }) = middle;
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores of a question whose neighbours lie this far apart.
    fn scores(apart: f32, count: usize) -> Vec<f32> {
        (0..count).map(|index| 1.0 + apart * index as f32).collect()
    }

    #[test]
    fn walks_follow_as_many_on_average_as_their_effort_says() {
        // Within a share r of the tenth's distance are 10 + r · tenth / apart.
        let questions = vec![scores(0.001, 400), scores(0.004, 400)];
        let reach = Reach::measure(Metric::L2, &[20, 40, 80, 160], &questions);
        assert_eq!(reach.steps().iter().map(|step| step.effort).collect::<Vec<_>>(), [20, 40, 80, 160]);
        for Step { effort, reach } in reach.steps() {
            let within = |scores: &Vec<f32>| {
                let limit = scores[9] * (1.0 + reach);
                let count = scores.iter().filter(|score| **score <= limit).count();
                count.clamp(*effort as usize / 2, *effort as usize * 2)
            };
            let mean = questions.iter().map(within).sum::<usize>() as f64 / 2.0;
            assert!((mean - f64::from(*effort)).abs() <= 1.0, "{mean} for {effort}");
        }
        assert!(reach.steps().windows(2).all(|pair| pair[0].reach < pair[1].reach));
    }

    #[test]
    fn what_was_not_measured_is_a_plain_beam() {
        let reach = Reach::measure(Metric::Cosine, &[10, 20], &[scores(0.01, 100)]);
        assert_eq!(Reach::default().effort(Metric::Cosine, 15, 10, 1.0), Effort::beam(15));
        assert_eq!(reach.effort(Metric::Cosine, 21, 10, 1.0), Effort::beam(21));
        let effort = reach.effort(Metric::Cosine, 15, 10, 1.0);
        assert_eq!((effort.least, effort.most), (10, 30), "no fewer than the k that are asked for");
        assert!(effort.reach.is_some());
        assert_eq!(Reach::measure(Metric::L2, &[10], &[scores(0.1, 9)]), Reach::default(), "no tenth");
        assert_eq!(Reach::measure(Metric::L2, &[10], &[]), Reach::default(), "nobody asked");
        // Of 100 candidates no more than a hundred are followed on average.
        assert_eq!(Reach::measure(Metric::L2, &[80, 120], &[scores(0.1, 100)]).steps().len(), 1);
    }

    #[test]
    fn a_walk_is_spent_where_the_next_is_out_of_reach() {
        let best: Vec<Candidate> = (0..20).map(|index| Candidate::new(1.0 + index as f32, index)).collect();
        let effort = Effort { least: 5, most: 20, reach: Some((0.2, Scale::Distance)), keeps: 5 };
        assert!(!effort.is_spent(4, &best, best[15]), "it has not followed enough");
        assert!(!effort.is_spent(5, &best, best[11]), "12 is within a fifth of 10");
        assert!(effort.is_spent(5, &best, best[12]));
        assert!(!effort.is_spent(5, &best[..9], best[12]), "no tenth yet");
        let absolute = Effort { reach: Some((0.2, Scale::One)), ..effort };
        assert!(absolute.is_spent(5, &best, best[10]));
        assert!(!Effort::beam(5).is_spent(9, &best, best[12]));
    }

    #[test]
    fn what_cannot_be_followed_any_more_is_not_kept_beyond_what_is_asked_for() {
        let best: Vec<Candidate> = (0..20).map(|index| Candidate::new(1.0 + index as f32, index)).collect();
        let effort = Effort { least: 5, most: 30, reach: Some((0.2, Scale::Distance)), keeps: 8 };
        assert_eq!(effort.limit(&best), 12f32.next_up(), "within a fifth of 10, which is the tenth nearest");
        assert_eq!(Effort { keeps: 15, ..effort }.limit(&best), 15f32.next_up(), "so many are kept");
        assert_eq!(effort.limit(&best[..9]), f32::INFINITY, "no tenth yet");
        assert_eq!(Effort { keeps: 25, ..effort }.limit(&best), f32::INFINITY, "not so many yet");
        assert_eq!(
            Effort { most: 20, ..effort }.keeping_far().limit(&best),
            20.0,
            "only what is nearer than the last"
        );
        assert_eq!(Effort::beam(20).limit(&best), 20.0);
        assert!(!effort.is_spent(9, &best, Candidate::new(effort.limit(&best).next_down(), 7)));
    }
}
