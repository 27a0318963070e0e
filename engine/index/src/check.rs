//! Whether an index belongs to the rows it lies beside.
//!
//! Called by `sepal check`, which has the segment and the index in its hands and trusts neither. [`crate::open`] has
//! made sure that a search cannot stumble; here the question is whether it finds what it should. It never repairs: an
//! index that does not belong is built anew.

use sepal_types::Metric;

use crate::{Bits, BuildParams, IndexError, SearchParams, VectorIndex, search_exact};

/// Rows whose neighbours are looked for.
const QUERIES: usize = 16;
const NEAREST: usize = 10;
/// Wide, so that an index that belongs finds nearly all whatever its own settings are.
const EF_SEARCH: usize = 200;
const PROBES: usize = 64;

/// Looks at every row that the index holds, then searches it for a sample of them. `rows` are what it should have been
/// built from.
///
/// # Errors
/// [`IndexError::Disagrees`]: drop the bytes and build the index anew. [`IndexError::Shape`]: `rows` do not fit
/// together.
pub fn verify(index: &dyn VectorIndex, rows: &BuildParams) -> Result<(), IndexError> {
    rows.check()?;
    let (expected, found) = ((rows.rows(), rows.dim), index.shape());
    if expected != found {
        return Err(disagrees(format!(
            "it is over {} rows of {} dimensions, the segment has {} of {}",
            found.0, found.1, expected.0, expected.1
        )));
    }
    index.check(rows)?;
    search(index, rows)
}

/// The rows that an index holds (`None`: all) are the ones that it should hold.
pub(crate) fn same_rows(held: Option<&Bits>, rows: &BuildParams) -> Result<(), IndexError> {
    let indexable = rows.indexable();
    let same = held.map_or(indexable.count() == rows.rows(), |held| *held == indexable);
    if same {
        return Ok(());
    }
    let held = held.map_or(rows.rows(), Bits::count);
    Err(disagrees(format!("it holds {held} rows, but not the {} that can be indexed", indexable.count())))
}

pub(crate) fn same_metric(metric: Metric, rows: &BuildParams) -> Result<(), IndexError> {
    if metric == rows.metric {
        return Ok(());
    }
    Err(disagrees(format!("it is for {}, not for {}", metric.opclass(), rows.metric.opclass())))
}

pub(crate) fn disagrees(why: String) -> IndexError {
    IndexError::Disagrees(why)
}

/// Up to `most` of the indexable rows, evenly spread.
pub(crate) fn sample(rows: &BuildParams, most: usize) -> Vec<usize> {
    let indexable = rows.indexable();
    let step = (indexable.count() / most).max(1);
    indexable.iter().step_by(step).take(most).collect()
}

fn search(index: &dyn VectorIndex, rows: &BuildParams) -> Result<(), IndexError> {
    let indexable = rows.indexable();
    let wanted = SearchParams { k: NEAREST, ef_search: EF_SEARCH, probes: PROBES, allowed: None };
    let (mut hits, mut expected) = (0, 0);
    for position in sample(rows, QUERIES) {
        let query = rows.vector(position);
        let exact = search_exact(rows.metric, rows.dim, rows.vectors, query, NEAREST, Some(&indexable));
        // Lengths past what sums of `f32` can hold: nothing is far or near there.
        let Some(furthest) = exact.last().map(|last| last.distance).filter(|last| last.is_finite()) else {
            continue;
        };
        let found = index.search(rows.vectors.into(), query, &wanted);
        if let Some(stray) = found.iter().find(|found| !indexable.get(found.position as usize)) {
            return Err(disagrees(format!("it finds row {}, which cannot be indexed", stray.position)));
        }
        expected += exact.len();
        hits += found.iter().filter(|found| found.distance <= furthest).count().min(exact.len());
    }
    if (hits as f64) < index.least_recall() * expected as f64 {
        return Err(disagrees(format!("it finds {hits} of the {expected} nearest rows of a sample")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sepal_types::VectorIndexOptions;

    use super::*;
    use crate::{build, open};

    const ROWS: usize = 500;
    const DIM: usize = 20;

    /// Numbers in -1 to 1 that look random and are the same every time; rows 10 and 11 are equal.
    fn scattered(seed: u32) -> Vec<f32> {
        let mix = |index: u32| (index.wrapping_mul(2_654_435_761) ^ seed).wrapping_mul(747_796_405) >> 8;
        let mut rows: Vec<f32> = (0..(ROWS * DIM) as u32)
            .map(|index| mix(index ^ (index << 13)) as f32 / 8_388_608.0 - 1.0)
            .collect();
        rows.copy_within(10 * DIM..11 * DIM, 11 * DIM);
        rows
    }

    fn params<'a>(metric: Metric, vectors: &'a [f32], valid: Option<&'a Bits>) -> BuildParams<'a> {
        let (progress, cancelled) = (&|_, _| {}, &|| false);
        BuildParams { metric, dim: DIM, vectors, valid, threads: 2, progress, cancelled }
    }

    fn kinds(metric: Metric) -> Vec<VectorIndexOptions> {
        let mut kinds = vec![
            VectorIndexOptions::Flat { metric },
            VectorIndexOptions::Hnsw { metric, m: 8, ef_construction: 60 },
            VectorIndexOptions::Graph { metric, m: 8, ef_construction: 60 },
        ];
        if metric != Metric::L1 {
            kinds.push(VectorIndexOptions::IvfFlat { metric, lists: 16 });
            kinds.push(VectorIndexOptions::Faiss { metric, factory: "HNSW16".into() });
            kinds.push(VectorIndexOptions::Faiss { metric, factory: "IVF8,SQ8".into() });
        }
        kinds
    }

    #[test]
    fn an_index_belongs_to_its_own_rows_only() {
        let (own, other) = (scattered(1), scattered(2));
        let mut valid = Bits::full(ROWS);
        valid.clear(17);
        for metric in Metric::ALL {
            for options in kinds(metric) {
                let bytes = build(&options, &params(metric, &own, Some(&valid))).unwrap().serialize();
                let index = open(&bytes).unwrap();
                verify(&*index, &params(metric, &own, Some(&valid)))
                    .unwrap_or_else(|error| panic!("{options:?}: {error}"));
                let refused = |rows: &BuildParams, what: &str| {
                    let judged = verify(&*index, rows);
                    assert!(
                        matches!(judged, Err(IndexError::Disagrees(_))),
                        "{options:?} {what}: {judged:?}"
                    );
                };
                refused(&params(metric, &own, None), "a row that was NULL");
                refused(&params(metric, &own[DIM..], None), "a row less");
                let another = if metric == Metric::L2 { Metric::Cosine } else { Metric::L2 };
                refused(&params(another, &own, Some(&valid)), "another metric");
                if matches!(options, VectorIndexOptions::IvfFlat { .. } | VectorIndexOptions::Faiss { .. }) {
                    refused(&params(metric, &other, Some(&valid)), "other rows");
                }
            }
        }
    }

    #[test]
    fn rows_that_share_a_node_must_be_equal() {
        let mut rows = scattered(1);
        let options = VectorIndexOptions::Hnsw { metric: Metric::L2, m: 8, ef_construction: 60 };
        let index = build(&options, &params(Metric::L2, &rows, None)).unwrap();
        rows[11 * DIM] += 1.0;
        let error = verify(&*index, &params(Metric::L2, &rows, None)).unwrap_err().to_string();
        assert!(error.contains("rows 10 and 11"), "{error}");
    }
}
