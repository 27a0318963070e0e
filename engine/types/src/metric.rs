//! The distance metrics, with pgvector's operators and operator classes: four of vectors, two of bit strings.
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

/// How far two bit strings are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BitMetric {
    /// `<~>`: how many bits differ.
    Hamming,
    /// `<%>`: one minus the share of common bits among those set in either.
    Jaccard,
}

impl BitMetric {
    pub const ALL: [BitMetric; 2] = [BitMetric::Hamming, BitMetric::Jaccard];

    /// The SQL operator.
    pub const fn operator(self) -> &'static str {
        match self {
            BitMetric::Hamming => "<~>",
            BitMetric::Jaccard => "<%>",
        }
    }

    /// The operator class of `bit`.
    pub const fn opclass(self) -> &'static str {
        match self {
            BitMetric::Hamming => "bit_hamming_ops",
            BitMetric::Jaccard => "bit_jaccard_ops",
        }
    }

    pub fn from_opclass(name: &str) -> Option<BitMetric> {
        Self::ALL.into_iter().find(|metric| metric.opclass() == name)
    }
}

/// What a search, or an index for it, compares of a column's rows, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Its vectors: `embedding`.
    Vectors(Metric),
    /// Its vectors, rounded to half precision: `embedding::halfvec(n)`.
    Halves(Metric),
    /// Its bit strings: `bits`.
    Bits(BitMetric),
    /// One bit an element of its vectors: `binary_quantize(embedding)::bit(n)`.
    Signs(BitMetric),
}

impl Measure {
    /// The SQL operator.
    pub const fn operator(self) -> &'static str {
        match self {
            Self::Vectors(metric) | Self::Halves(metric) => metric.operator(),
            Self::Bits(metric) | Self::Signs(metric) => metric.operator(),
        }
    }

    /// A name that tells measures of one column apart: an operator class.
    pub const fn opclass(self) -> &'static str {
        match self {
            Self::Vectors(metric) => metric.opclass(),
            Self::Halves(metric) => metric.opclass_for(VectorKind::Half),
            Self::Bits(metric) | Self::Signs(metric) => metric.opclass(),
        }
    }
}
