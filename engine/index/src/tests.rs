//! What holds for every kind of index, through the crate's own doors.

use std::error::Error;

use half::f16;
use sepal_types::{Metric, VectorIndexOptions};

use crate::{
    Bits, BuildParams, IndexError, SearchParams, Stored, Vectors, build, build_memory, distance, open,
    open_in_place, open_stored, search_exact,
};

const ROWS: usize = 600;
const DIM: usize = 12;

/// Numbers in -1 to 1 that look random and are the same every time.
fn scattered(len: usize) -> Vec<f32> {
    let mix = |index: u32| (index.wrapping_mul(2_654_435_761) ^ 0x5bd1_e995).wrapping_mul(747_796_405) >> 8;
    (0..len as u32).map(|index| mix(index ^ (index << 13)) as f32 / 8_388_608.0 - 1.0).collect()
}

fn params(metric: Metric, vectors: &[f32]) -> BuildParams<'_> {
    BuildParams {
        metric,
        dim: DIM,
        vectors,
        valid: None,
        threads: 2,
        progress: &|_, _| (),
        cancelled: &|| false,
    }
}

fn kinds(metric: Metric) -> Vec<VectorIndexOptions> {
    let mut kinds = vec![
        VectorIndexOptions::Flat { metric },
        VectorIndexOptions::Hnsw { metric, m: 8, ef_construction: 60 },
        VectorIndexOptions::Graph { metric, m: 8, ef_construction: 60 },
    ];
    if metric != Metric::L1 {
        kinds.push(VectorIndexOptions::IvfFlat { metric, lists: 8 });
        kinds.push(VectorIndexOptions::Faiss { metric, factory: "HNSW16,SQ8,RFlat".into() });
        kinds.push(VectorIndexOptions::Faiss { metric, factory: "IVF8,Flat".into() });
    }
    kinds
}

#[test]
fn every_kind_builds_serialises_opens_and_answers() {
    let vectors = scattered(ROWS * DIM);
    let mut allowed = Bits::new(ROWS);
    (0..ROWS).filter(|position| position % 5 == 0).for_each(|position| allowed.set(position));
    for metric in Metric::ALL {
        for options in kinds(metric) {
            let index = build(&options, &params(metric, &vectors)).unwrap();
            let bytes = index.serialize();
            let opened = open(&bytes).unwrap();
            let elsewhere = Elsewhere { bytes, until: usize::MAX };
            let piecemeal = open_stored(&elsewhere).unwrap();
            let in_place = open_in_place(&elsewhere).unwrap();
            for index in [&index, &opened, &piecemeal, &in_place] {
                assert_eq!((index.len(), index.shape()), (ROWS, (ROWS, DIM)), "{options:?}");
                for allowed in [None, Some(&allowed)] {
                    let query = &vectors[7 * DIM..8 * DIM];
                    let wanted = SearchParams { k: 10, ef_search: 200, probes: 8, allowed };
                    let found = index.search((&vectors).into(), query, &wanted);
                    let exact = search_exact(metric, DIM, &vectors, query, 10, allowed);
                    let hits = found.iter().filter(|neighbor| exact.contains(neighbor)).count();
                    assert!(found.len() == 10 && found.is_sorted_by(|a, b| a < b), "{options:?}: {found:?}");
                    assert!(hits >= 9, "{options:?} found {hits} of the 10 nearest");
                }
            }
        }
    }
}

/// Bytes of which those from `until` on cannot be read.
struct Elsewhere {
    bytes: Vec<u8>,
    until: usize,
}

impl Stored for Elsewhere {
    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync>> {
        let end = offset + into.len();
        if end > self.until {
            return Err(format!("nothing from {} on", self.until).into());
        }
        into.copy_from_slice(&self.bytes[offset..end]);
        Ok(())
    }
}

#[test]
fn what_a_build_takes_is_told_before() {
    let vectors = scattered(ROWS * DIM);
    for metric in Metric::ALL {
        for options in kinds(metric) {
            let needed = build_memory(&options, ROWS, DIM);
            assert!(needed.least <= needed.usual, "{options:?}: {needed:?}");
            // `flat` holds next to nothing.
            let index = build(&options, &params(metric, &vectors)).unwrap();
            assert!(index.memory_bytes() as u64 <= needed.least + 100, "{options:?}: {needed:?}");
        }
    }
    let of = |options: VectorIndexOptions| build_memory(&options, 1_000_000, 768);
    let metric = Metric::L2;
    let hnsw = of(VectorIndexOptions::Hnsw { metric, m: 16, ef_construction: 64 });
    assert_eq!(hnsw, of(VectorIndexOptions::Graph { metric, m: 16, ef_construction: 64 }));
    assert!(hnsw.least < hnsw.usual);
    // Codes need less than the vectors, and FAISS' copy of the vectors more.
    let faiss = |factory: &str| of(VectorIndexOptions::Faiss { metric, factory: factory.into() }).usual;
    let all = 4 * 768 * 1_000_000;
    assert!(faiss("IVF1024,PQ96x4fs") < all && faiss("HNSW16,Flat") > all);
    assert!(of(VectorIndexOptions::IvfFlat { metric, lists: 1000 }).usual < all);
}

#[test]
fn bytes_are_written_as_they_are_made() {
    // More than are calibrated.
    let vectors = scattered(2_500 * DIM);
    for metric in Metric::ALL {
        for options in kinds(metric) {
            let index = build(&options, &params(metric, &vectors)).unwrap();
            let (bytes, mut written) = (index.serialize(), Vec::new());
            index.serialize_into(&mut written).unwrap();
            assert_eq!(index.serialized_bytes(), bytes.len() as u64, "{options:?}");
            assert!(written == bytes, "{options:?}");
            let opened = open_stored(&Elsewhere { bytes, until: usize::MAX }).unwrap();
            assert!(opened.serialize() == written, "{options:?}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_told() {
    let vectors = scattered(ROWS * DIM);
    for options in kinds(Metric::L2) {
        let bytes = build(&options, &params(Metric::L2, &vectors)).unwrap().serialize();
        for until in [0, 10, 30, bytes.len() / 2, bytes.len() - 1] {
            let refused = open_stored(&Elsewhere { bytes: bytes.clone(), until });
            let Err(IndexError::Unreadable(why)) = refused else { panic!("{options:?} up to {until}") };
            assert_eq!(why.to_string(), format!("nothing from {until} on"));
        }
    }
}

/// Kept as `f16` or as the `f32` that those are: the same rows, and the same distances to the bit.
#[test]
fn half_precision_rows_are_found_as_the_rows_they_are() {
    let half: Vec<f16> = scattered(ROWS * DIM).into_iter().map(f16::from_f32).collect();
    let rows = Vectors::from(half.as_slice());
    let widened = rows.widened();
    let mut allowed = Bits::full(ROWS);
    (0..ROWS).filter(|position| position % 3 == 0).for_each(|position| allowed.clear(position));
    for metric in Metric::ALL {
        let query = &scattered((ROWS + 1) * DIM)[ROWS * DIM..];
        assert_eq!(
            search_exact(metric, DIM, rows, query, 20, Some(&allowed)),
            search_exact(metric, DIM, &*widened, query, 20, Some(&allowed))
        );
        for options in kinds(metric) {
            let index = build(&options, &params(metric, &widened)).unwrap();
            for allowed in [None, Some(&allowed)] {
                let wanted = SearchParams { k: 10, ef_search: 40, probes: 2, allowed };
                let found = index.search(rows, query, &wanted);
                assert_eq!(found, index.search((&*widened).into(), query, &wanted), "{options:?}");
                let unseen = index.search_unseen(rows, 31, &wanted);
                assert!(!unseen.is_empty() && unseen.iter().all(|neighbor| neighbor.position != 31));
                assert_eq!(unseen, index.search_unseen((&*widened).into(), 31, &wanted), "{options:?}");
            }
        }
    }
}

/// Rounded row by row as they are scored, or all before: the same rows, and the same distances to the bit.
#[test]
fn rows_read_as_half_precision_are_the_rounded_rows() {
    let single = scattered(ROWS * DIM);
    let half: Vec<f16> = single.iter().copied().map(f16::from_f32).collect();
    let (rounded, rows) = (Vectors::from(&single).rounded(), Vectors::from(half.as_slice()));
    assert_eq!(rounded.widened(), rows.widened());
    assert!(rounded.row(3, DIM).equals(&rows.row(3, DIM).widened()));
    assert!(!rounded.row(3, DIM).equals(&single[3 * DIM..4 * DIM]));
    for metric in Metric::ALL {
        let query = &scattered((ROWS + 1) * DIM)[ROWS * DIM..];
        let exact = search_exact(metric, DIM, rows, query, 20, None);
        assert_eq!(search_exact(metric, DIM, rounded, query, 20, None), exact);
        assert_ne!(search_exact(metric, DIM, &single, query, 20, None), exact, "{metric:?}");
        for options in kinds(metric) {
            let index = build(&options, &params(metric, &single)).unwrap();
            let wanted = SearchParams { k: 10, ef_search: 200, probes: 8, allowed: None };
            let found = index.search(rounded, query, &wanted);
            assert_eq!(found.len(), 10);
            for found in found {
                let row = rows.row(found.position as usize, DIM);
                assert_eq!(found.distance.to_bits(), distance(metric, query, row).to_bits(), "{options:?}");
            }
        }
    }
}

#[test]
fn slices_that_do_not_fit_are_refused() {
    let vectors = scattered(ROWS * DIM);
    let flat = VectorIndexOptions::Flat { metric: Metric::L2 };
    let refused = |params: &BuildParams| match build(&flat, params) {
        Err(IndexError::Shape(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("built"),
    };
    assert!(refused(&BuildParams { dim: 0, ..params(Metric::L2, &vectors) }).contains("dim is 0"));
    assert!(refused(&BuildParams { dim: 16_001, ..params(Metric::L2, &vectors) }).contains("16001"));
    assert!(
        refused(&BuildParams { dim: 7, ..params(Metric::L2, &vectors) }).contains("whole number of rows")
    );
    assert!(refused(&params(Metric::Cosine, &vectors)).contains("vector_l2_ops"));
    let short = Bits::full(3);
    let short = BuildParams { valid: Some(&short), ..params(Metric::L2, &vectors) };
    assert!(refused(&short).contains("3 bits for 600 rows"));
}

#[test]
fn an_empty_segment_has_an_empty_index() {
    for metric in Metric::ALL {
        for options in kinds(metric) {
            let index = build(&options, &params(metric, &[])).unwrap();
            let opened = open(&index.serialize()).unwrap();
            let wanted = SearchParams { k: 3, ef_search: 40, probes: 1, allowed: None };
            assert!(
                opened.is_empty() && opened.search((&[] as &[f32]).into(), &[0.0; DIM], &wanted).is_empty(),
                "{options:?}"
            );
        }
    }
}

#[test]
fn other_bytes_are_not_an_index() {
    for bytes in [&b""[..], b"SEPALIDX", b"PAR1 and so on, for more than a header's length"] {
        assert!(matches!(open(bytes), Err(IndexError::Corrupt { .. })));
    }
}
