//! Cells: k-means by FAISS, one iteration a call, so that a build can be cancelled between two. Used by `ivf`, and by
//! this module's build for those factories whose cells FAISS would find in one long call.

use sepal_types::Metric;

use super::rows::Rows;
use super::sys;
use crate::IndexError;

/// FAISS's number for inverted files (`Level1Quantizer`, `cp.niter = 10`).
const ITERATIONS: usize = 10;

/// The centroids of `lists` cells of a [`Rows::sample`]: searchable, and as `lists × dim` floats in the sample's scale.
/// `metric` is [`Metric::L2`] or, with centroids of length one, [`Metric::InnerProduct`].
pub(crate) fn train(
    rows: &Rows,
    sample: &[f32],
    lists: usize,
    metric: Metric,
) -> Result<(sys::Quantizer, Vec<f32>), IndexError> {
    let dim = rows.params.dim;
    let mut quantizer = sys::Quantizer::new(dim, metric)?;
    let mut kmeans = sys::KMeans::new(dim, lists, metric == Metric::InnerProduct)?;
    for _ in 0..ITERATIONS {
        rows.params.report(0)?;
        kmeans.iterate(sample, &mut quantizer)?;
    }
    let centroids = kmeans.centroids().to_vec();
    if centroids.len() != lists * dim {
        let message = format!("{} floats for {lists} centroids of {dim}", centroids.len());
        return Err(IndexError::Faiss { operation: "train cells", code: 0, message });
    }
    Ok((quantizer, centroids))
}
