//! The four distance metrics, with pgvector's operators and operator classes.
//!
//! Used by the planner, the index crate and the catalogs. The arithmetic itself lives in `index/distance`.

use serde::{Deserialize, Serialize};

use crate::VectorKind;

/// How far two vectors are apart. Smaller is nearer for every metric, as in pgvector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Metric {
    /// `<=>`: one minus the cosine of the angle; NaN when a vector has length zero.
    Cosine,
    /// `<#>`: the inner product, negated so that ascending order means most similar first.
    InnerProduct,
    /// `<+>`: sum of absolute differences (taxicab).
    L1,
    /// `<->`: Euclidean distance.
    L2,
}

impl Metric {
    pub const ALL: [Metric; 4] = [Metric::Cosine, Metric::InnerProduct, Metric::L1, Metric::L2];

    /// The SQL operator.
    pub const fn operator(self) -> &'static str {
        match self {
            Metric::Cosine => "<=>",
            Metric::InnerProduct => "<#>",
            Metric::L1 => "<+>",
            Metric::L2 => "<->",
        }
    }

    /// The operator class that `CREATE INDEX` names for a column of this kind.
    pub const fn opclass_for(self, kind: VectorKind) -> &'static str {
        match (kind, self) {
            (VectorKind::Half, Metric::Cosine) => "halfvec_cosine_ops",
            (VectorKind::Half, Metric::InnerProduct) => "halfvec_ip_ops",
            (VectorKind::Half, Metric::L1) => "halfvec_l1_ops",
            (VectorKind::Half, Metric::L2) => "halfvec_l2_ops",
            (VectorKind::Single, metric) => metric.opclass(),
        }
    }

    /// The operator class of `vector`.
    pub const fn opclass(self) -> &'static str {
        match self {
            Metric::Cosine => "vector_cosine_ops",
            Metric::InnerProduct => "vector_ip_ops",
            Metric::L1 => "vector_l1_ops",
            Metric::L2 => "vector_l2_ops",
        }
    }

    /// The operator class of `sparsevec`, which only hnsw has.
    pub const fn sparse_opclass(self) -> &'static str {
        match self {
            Metric::Cosine => "sparsevec_cosine_ops",
            Metric::InnerProduct => "sparsevec_ip_ops",
            Metric::L1 => "sparsevec_l1_ops",
            Metric::L2 => "sparsevec_l2_ops",
        }
    }

    pub fn from_operator(operator: &str) -> Option<Metric> {
        Self::ALL.into_iter().find(|metric| metric.operator() == operator)
    }

    pub fn from_opclass(name: &str) -> Option<(VectorKind, Metric)> {
        let mut classes = VectorKind::ALL.into_iter().flat_map(|kind| Self::ALL.map(|metric| (kind, metric)));
        classes.find(|(kind, metric)| metric.opclass_for(*kind) == name)
    }

    pub fn from_sparse_opclass(name: &str) -> Option<Metric> {
        Self::ALL.into_iter().find(|metric| metric.sparse_opclass() == name)
    }
}
