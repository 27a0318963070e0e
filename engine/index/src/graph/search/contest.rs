//! The rows that graphs have named compete for the `k` places, and are fetched as far as that takes.
//!
//! Called by the query engine for tables that are larger than memory, with what `nominate` named in each segment. All
//! of them are scored in one order and to the same end as in `Search::rescored`, which has the vectors at hand, so that
//! the same rows come out. A page is read for each row that is fetched, and a file is opened each time that some are: so
//! the first time fetches what is mostly enough, and the next what is missing by then, by the error that was seen.
//!
//! It does no I/O: `fetch` does.

use super::{is_beyond, scored_at_least};
use crate::distance::Scorer;
use crate::neighbor::TopK;
use crate::{Candidates, Found, Neighbor, Query, Vectors, Work};

/// The `k` nearest of the rows that graphs named, ascending by exact distance (NaN last); fewer only when fewer are
/// named. `named`: of each segment its number, as [`Found::part`] has it, and candidates with their estimates.
///
/// `fetch` is given a segment's number and some of its rows, ascending, and gives their vectors, one for each,
/// row-major, to the third.
///
/// # Errors
/// What `fetch` says.
///
/// # Panics
/// When `fetch` gives other than the vectors that it was asked for.
pub fn search_named<E>(
    query: &Query,
    named: &[(u32, Candidates)],
    work: &mut Work,
    mut fetch: impl FnMut(u32, &[u32], &mut dyn FnMut(Vectors)) -> Result<(), E>,
) -> Result<Vec<Found>, E> {
    work.fetched += named.len() as u32;
    let mut contest = Contest::new(query, named);
    loop {
        let until = contest.reach();
        if until == contest.offered {
            break;
        }
        work.distances += (until - contest.offered) as u64;
        contest.score(until, &mut fetch)?;
        if contest.offer(until) {
            break;
        }
    }
    Ok(contest.into_found())
}

struct Contest<'a> {
    scorer: Scorer<'a>,
    dim: usize,
    k: usize,
    /// Nearest by estimate first.
    entries: Vec<Entry>,
    /// How many of them have been offered for a place.
    offered: usize,
    nearest: TopK<Found>,
    /// The sum of the squared errors of their estimates.
    squares: f64,
}

#[derive(Clone, Copy)]
struct Entry {
    estimate: f32,
    /// Without a distance until it was fetched.
    found: Found,
}

impl<'a> Contest<'a> {
    fn new(query: &Query<'a>, named: &[(u32, Candidates)]) -> Self {
        let Query { metric, vector, k } = *query;
        let mut entries: Vec<Entry> = named.iter().flat_map(|(part, rows)| entries_of(*part, rows)).collect();
        entries.sort_unstable_by(|one, other| {
            let place = |entry: &Entry| (entry.found.part, entry.found.neighbor.position);
            one.estimate.total_cmp(&other.estimate).then(place(one).cmp(&place(other)))
        });
        let (scorer, nearest) = (Scorer::new(metric, vector), TopK::new(k, entries.len()));
        Self { scorer, dim: vector.len(), k, entries, offered: 0, nearest, squares: 0.0 }
    }

    /// How far to fetch: to where it would end if the error stayed what it is. A little further than that, once it has
    /// turned out larger than what was fetched for.
    fn reach(&self) -> usize {
        let all = self.entries.len();
        if self.offered == 0 {
            return self.k.saturating_mul(2).max(self.k.saturating_add(10)).min(all);
        }
        let more = self.entries[self.offered..].partition_point(|entry| !self.is_beyond(entry));
        match more {
            0 => self.offered,
            _ => (self.offered + more.max(self.offered / 4)).min(all),
        }
    }

    fn is_beyond(&self, entry: &Entry) -> bool {
        is_beyond(entry.estimate, &self.nearest, self.offered, self.squares)
    }

    /// The distances of all that have not been offered, up to `until`.
    fn score<E>(
        &mut self,
        until: usize,
        fetch: &mut impl FnMut(u32, &[u32], &mut dyn FnMut(Vectors)) -> Result<(), E>,
    ) -> Result<(), E> {
        let (scorer, dim) = (&self.scorer, self.dim);
        let mut entries: Vec<&mut Found> =
            self.entries[self.offered..until].iter_mut().map(|entry| &mut entry.found).collect();
        entries.sort_unstable_by_key(|found| (found.part, found.neighbor.position));
        for segment in entries.chunk_by_mut(|one, next| one.part == next.part) {
            let part = segment[0].part;
            let rows: Vec<u32> = segment.iter().map(|found| found.neighbor.position).collect();
            fetch(part, &rows, &mut |vectors: Vectors| {
                assert_eq!(
                    vectors.len(),
                    rows.len() * dim,
                    "the vectors of {} rows were fetched",
                    rows.len()
                );
                for (place, found) in segment.iter_mut().enumerate() {
                    found.neighbor.distance = scorer.score(vectors.row(place, dim));
                }
            })?;
        }
        Ok(())
    }

    /// Offers them in their order; true once none behind can come in.
    fn offer(&mut self, until: usize) -> bool {
        while self.offered < until {
            let entry = self.entries[self.offered];
            if self.offered >= scored_at_least(self.k) && self.is_beyond(&entry) {
                return true;
            }
            self.squares += (entry.found.neighbor.distance - f64::from(entry.estimate)).powi(2);
            self.nearest.offer(entry.found);
            self.offered += 1;
        }
        false
    }

    /// Scores become distances.
    fn into_found(self) -> Vec<Found> {
        let mut found = self.nearest.into_sorted();
        found.iter_mut().for_each(|found| {
            found.neighbor.distance = self.scorer.finish(found.neighbor.distance);
        });
        found
    }
}

fn entries_of(part: u32, named: &Candidates) -> impl Iterator<Item = Entry> + '_ {
    named.rows.iter().zip(&named.estimates).map(move |(row, estimate)| Entry {
        estimate: *estimate,
        found: Found { neighbor: Neighbor { position: *row, distance: f64::NAN }, part },
    })
}

#[cfg(test)]
mod tests;
