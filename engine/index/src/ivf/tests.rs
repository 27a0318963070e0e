//! The inverted file against exact search, against FAISS's own `IndexIVFFlat` over the same cells, and its
//! bytes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sepal_types::Metric;

use super::{IvfFlat, cell_metric};
use crate::distance::norm;
use crate::faiss::sys;
use crate::fixtures::{params, scattered, topics};
use crate::quantize::{Aligned, Codes, Correction, Width};
use crate::{Bits, BuildParams, IndexError, Neighbor, SearchParams, VectorIndex, Work, search_exact};

const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

impl PartialEq for IvfFlat {
    fn eq(&self, other: &Self) -> bool {
        self.serialize() == other.serialize()
    }
}

impl std::fmt::Debug for IvfFlat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IvfFlat").field("lists", &self.lists()).finish_non_exhaustive()
    }
}

fn build(metric: Metric, dim: usize, vectors: &[f32], lists: u32) -> IvfFlat {
    IvfFlat::build(lists, &params(metric, dim, vectors, None)).unwrap()
}

fn wanted(k: usize, probes: usize, allowed: Option<&Bits>) -> SearchParams<'_> {
    SearchParams { k, ef_search: 0, probes, allowed }
}

fn positions(neighbors: &[Neighbor]) -> Vec<u32> {
    neighbors.iter().map(|neighbor| neighbor.position).collect()
}

#[test]
fn all_cells_are_the_exact_answer_and_a_few_are_close() {
    let (rows, dim) = (3000, 24);
    let all = topics(rows + 50, dim, 1);
    let (vectors, queries) = all.split_at(rows * dim);
    for metric in METRICS {
        let index = build(metric, dim, vectors, 40);
        assert_eq!((index.len(), index.lists(), index.shape()), (rows, 40, (rows, dim)));
        let mut found = 0;
        for query in queries.chunks_exact(dim) {
            let exact = search_exact(metric, dim, vectors, query, 10, None);
            assert_eq!(index.search(vectors.into(), query, &wanted(10, 40, None)), exact);
            let near = index.search(vectors.into(), query, &wanted(10, 8, None));
            assert!(near.is_sorted() && near.len() == 10);
            found += near.iter().filter(|neighbor| exact.contains(neighbor)).count();
        }
        let recall = found as f64 / 500.0;
        assert!(recall > 0.9, "{metric:?}: recall@10 of 8 probes is {recall}");
        assert!(index.search(vectors.into(), &queries[..dim], &wanted(0, 1, None)).is_empty());
    }
}

#[test]
fn a_filter_never_costs_rows() {
    let (rows, dim) = (2000, 8);
    let vectors = topics(rows, dim, 2);
    let query = &vectors[..dim];
    for metric in METRICS {
        let index = build(metric, dim, &vectors, 50);
        for step in [1, 2, 3, 10, 150, 1999] {
            let mut allowed = Bits::new(rows);
            (0..rows).step_by(step).for_each(|position| allowed.set(position));
            for k in [1, 10, 300] {
                let found = index.search((&vectors).into(), query, &wanted(k, 1, Some(&allowed)));
                assert_eq!(found.len(), k.min(allowed.count()), "{metric:?}: k {k}, every {step}th row");
                assert!(found.iter().all(|neighbor| allowed.get(neighbor.position as usize)));
                assert!(found.is_sorted_by(|a, b| a < b));
            }
        }
        assert!(index.search((&vectors).into(), query, &wanted(5, 1, Some(&Bits::new(rows)))).is_empty());
        assert_eq!(index.search((&vectors).into(), query, &wanted(9999, 0, None)).len(), rows);
    }
}

#[test]
fn faiss_gives_the_same_rows_for_the_same_cells() {
    let (rows, dim, lists) = (1500, 16, 30);
    let all = topics(rows + 40, dim, 3);
    let (vectors, queries) = all.split_at(rows * dim);
    let mut allowed = Bits::new(rows);
    (0..rows).filter(|position| position % 3 != 0).for_each(|position| allowed.set(position));
    for metric in METRICS {
        let index = build(metric, dim, vectors, lists as u32);
        let oracle = Oracle::new(&index, vectors);
        for query in queries.chunks_exact(dim) {
            for probes in [1, 4, lists] {
                for allowed in [None, Some(&allowed)] {
                    let ours = index.search(vectors.into(), query, &wanted(10, probes, allowed));
                    let faiss = oracle.search(query, 10, probes, allowed);
                    // FAISS stops at `probes`, we go on until `k` rows are there.
                    if faiss.len() == 10 {
                        assert_eq!(positions(&ours), faiss, "{metric:?}, {probes} probes");
                    }
                }
            }
        }
    }
}

#[test]
fn null_rows_and_zero_directions_are_left_out() {
    let (rows, dim) = (300, 4);
    let mut vectors = topics(rows, dim, 4);
    let mut valid = Bits::full(rows);
    for position in (0..rows).step_by(10) {
        valid.clear(position);
        vectors[position * dim] = f32::NAN;
    }
    vectors[dim..2 * dim].fill(0.0);
    for (metric, held) in [(Metric::L2, 270), (Metric::InnerProduct, 270), (Metric::Cosine, 269)] {
        let index = IvfFlat::build(7, &params(metric, dim, &vectors, Some(&valid))).unwrap();
        let found = index.search((&vectors).into(), &[0.5, 0.1, -0.2, 0.9], &wanted(rows, 1, None));
        assert_eq!((index.len(), found.len()), (held, held));
        assert!(
            found.iter().all(|neighbor| valid.get(neighbor.position as usize) && !neighbor.distance.is_nan())
        );
        // A query of length zero has no cosine with anything, and still gets its rows.
        assert_eq!(index.search((&vectors).into(), &[0.0; 4], &wanted(5, 2, None)).len(), 5);
    }
    let none = IvfFlat::build(7, &params(Metric::L2, dim, &vectors, Some(&Bits::new(rows)))).unwrap();
    assert!(none.is_empty() && none.search((&vectors).into(), &[0.0; 4], &wanted(5, 2, None)).is_empty());
    let none = IvfFlat::decode(&none.serialize()).unwrap();
    assert_eq!((none.len(), none.shape()), (0, (rows, dim)));
}

#[test]
fn awkward_rows_build_too() {
    let one = build(Metric::L2, 3, &[1.0, 2.0, 3.0], 100);
    assert_eq!((one.lists(), one.len()), (1, 1));
    let more_lists = topics(5, 2, 5);
    let index = build(Metric::Cosine, 2, &more_lists, 1000);
    assert_eq!(index.lists(), 5);
    assert_eq!(index.search((&more_lists).into(), &[1.0, 1.0], &wanted(5, 1, None)).len(), 5);
    let same = vec![0.25; 500 * 3];
    let zero = vec![0.0; 500 * 3];
    let huge: Vec<f32> = topics(500, 3, 6).iter().map(|value| value * 2e38).collect();
    let tiny: Vec<f32> = topics(500, 3, 6).iter().map(|value| value * 1e-36).collect();
    for vectors in [same, zero, huge, tiny] {
        for metric in [Metric::L2, Metric::InnerProduct] {
            let index = build(metric, 3, &vectors, 20);
            assert_eq!(
                index.search((&vectors).into(), &vectors[..3], &wanted(500, 1, None)).len(),
                500,
                "{metric:?}"
            );
        }
    }
    assert_eq!(build(Metric::L2, 2, &topics(9, 2, 1), 0).lists(), 1);
}

#[test]
fn what_cannot_be_built_is_an_error() {
    let vectors = topics(50, 4, 7);
    let refused = IvfFlat::build(5, &params(Metric::L1, 4, &vectors, None));
    assert!(matches!(refused, Err(IndexError::UnsupportedMetric { method: "ivfflat", metric: Metric::L1 })));
    let mut damaged = vectors.clone();
    damaged[17] = f32::INFINITY;
    let refused = IvfFlat::build(5, &params(Metric::L2, 4, &damaged, None)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "index build: row 4 holds inf; vectors are checked when they are inserted"
    );
    // FAISS's own words come back as an error, not as an exception.
    let mut quantizer = sys::Quantizer::new(4, Metric::L2).unwrap();
    let refused = sys::KMeans::new(4, 60, false).unwrap().iterate(&vectors, &mut quantizer).unwrap_err();
    assert!(refused.to_string().contains("Number of training points (50) should be at least"), "{refused}");
}

#[test]
fn progress_ends_at_all_rows_and_cancelling_ends_the_build() {
    let vectors = topics(400, 4, 8);
    let seen = Mutex::new(Vec::new());
    let progress = |done, total| seen.lock().unwrap().push((done, total));
    let watched = BuildParams { progress: &progress, ..params(Metric::L2, 4, &vectors, None) };
    IvfFlat::build(10, &watched).unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted() && seen.len() > 10);
    assert_eq!(seen.last(), Some(&(400, 400)));

    for patience in [0, 1, 5, 11] {
        let asked = AtomicU64::new(0);
        let cancelled = || asked.fetch_add(1, Ordering::Relaxed) >= patience;
        let watched = BuildParams { cancelled: &cancelled, ..params(Metric::L2, 4, &vectors, None) };
        assert!(
            matches!(IvfFlat::build(10, &watched), Err(IndexError::Cancelled)),
            "after {patience} questions"
        );
    }
}

#[test]
fn the_same_rows_give_the_same_index_and_its_bytes_open_to_it() {
    let vectors = topics(700, 5, 9);
    for metric in METRICS {
        let index = build(metric, 5, &vectors, 12);
        let bytes = index.serialize();
        assert_eq!(bytes, build(metric, 5, &vectors, 12).serialize());
        assert_eq!(IvfFlat::decode(&bytes).unwrap(), index);
        assert!(index.memory_bytes() >= bytes.len() - 64);
        let opened = crate::open(&bytes).unwrap();
        let query = &vectors[15..20];
        let params = wanted(20, 3, None);
        assert_eq!(
            opened.search((&vectors).into(), query, &params),
            index.search((&vectors).into(), query, &params)
        );
    }
}

/// Kind 3, without codes, for ever: a change here is a new version. Builds from before there were codes wrote it too.
#[test]
fn golden_bytes() {
    let index = IvfFlat::new(Metric::Cosine, (4, 1), vec![1.0, -1.0], vec![0, 1, 3], vec![2, 0, 3]);
    let mut bytes = b"SEPALIDX\x01\0\x03\x03\x04\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    bytes.extend(b"\x02\0\0\0\x03\0\0\0");
    bytes.extend(b"\0\0\x80\x3f\0\0\x80\xbf");
    bytes.extend(b"\0\0\0\0\x01\0\0\0\x03\0\0\0");
    bytes.extend(b"\x02\0\0\0\0\0\0\0\x03\0\0\0");
    assert_eq!(index.serialize(), bytes);
    assert_eq!(IvfFlat::decode(&bytes).unwrap(), index);
}

#[test]
fn damaged_bytes_are_an_error_or_a_harmless_index() {
    let vectors = topics(40, 3, 10);
    let bytes = build(Metric::L2, 3, &vectors, 4).serialize();
    for len in 0..bytes.len() {
        assert!(crate::open(&bytes[..len]).is_err(), "{len} bytes");
    }
    for offset in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[offset] ^= flip;
            // What still opens has a shape, and can be searched with vectors of that shape. (A flipped metric
            // or centroid cannot be told from another one; storage's seal tells.)
            if let Ok(index) = IvfFlat::decode(&damaged)
                && index.shape() == (40, 3)
            {
                assert_eq!(index.search((&vectors).into(), &vectors[..3], &wanted(40, 1, None)).len(), 40);
            }
        }
    }
}

#[test]
fn cells_are_read_by_codes_and_the_best_rows_by_their_vectors() {
    let (rows, dim, k) = (4000, 48, 10);
    let all = scattered(rows + 40, dim, 11);
    let (vectors, queries) = all.split_at(rows * dim);
    let mut odd = Bits::new(rows);
    (1..rows).step_by(2).for_each(|position| odd.set(position));
    for metric in METRICS {
        let index = build(metric, dim, vectors, 20);
        assert!(index.codes.is_some(), "{metric:?}: codes tell such rows apart");
        assert!(index.memory_bytes() >= rows * Width::Four.stride(dim));
        let mut without = IvfFlat::decode(&index.serialize()).unwrap();
        assert_eq!(without, index);
        without.codes = None;
        for allowed in [None, Some(&odd)] {
            let mut found = 0;
            for query in queries.chunks_exact(dim) {
                let by_vectors = without.search(vectors.into(), query, &wanted(k, 6, allowed));
                let by_codes = index.search(vectors.into(), query, &wanted(k, 6, allowed));
                assert!(by_codes.len() == k && by_codes.is_sorted_by(|a, b| a < b));
                // Distances are the rows' own, whichever way they were found.
                let exact = search_exact(metric, dim, vectors, query, rows, allowed);
                assert!(by_codes.iter().all(|neighbor| exact.contains(neighbor)));
                found += by_codes.iter().filter(|neighbor| by_vectors.contains(neighbor)).count();
                let all = index.search(vectors.into(), query, &wanted(k, 20, allowed));
                assert_eq!(all, search_exact(metric, dim, vectors, query, k, allowed), "all cells");
            }
            assert!(found >= 384, "{metric:?}: {found} of 400 by codes as by vectors");
        }
    }
}

#[test]
fn codes_fill_what_a_filter_and_few_cells_leave() {
    let (rows, dim) = (2000, 32);
    let vectors = scattered(rows, dim, 12);
    let index = build(Metric::L2, dim, &vectors, 50);
    for step in [1, 2, 10, 150, 1999] {
        let mut allowed = Bits::new(rows);
        (0..rows).step_by(step).for_each(|position| allowed.set(position));
        for k in [1, 10, 300] {
            let found = index.search((&vectors).into(), &vectors[..dim], &wanted(k, 1, Some(&allowed)));
            assert_eq!(found.len(), k.min(allowed.count()), "k {k}, every {step}th row");
            assert!(found.iter().all(|neighbor| allowed.get(neighbor.position as usize)));
            assert!(found.is_sorted_by(|a, b| a < b));
        }
    }
    assert_eq!(index.search((&vectors).into(), &vectors[..dim], &wanted(9999, 3, None)).len(), rows);
}

#[test]
fn rows_that_look_alike_have_no_codes() {
    // Groups of 30 rows that differ by less than a step of their codes.
    let (rows, dim) = (3000, 32);
    let mut vectors = scattered(rows, dim, 13);
    for group in vectors.chunks_exact_mut(30 * dim) {
        let first = group[..dim].to_vec();
        for (number, row) in group.chunks_exact_mut(dim).enumerate() {
            row.copy_from_slice(&first);
            row[number % dim] += 1e-5 * (1 + number) as f32;
        }
    }
    let index = build(Metric::L2, dim, &vectors, 10);
    assert!(index.codes.is_none());
    let exact = search_exact(Metric::L2, dim, &vectors, &vectors[..dim], 5, None);
    assert_eq!(index.search((&vectors).into(), &vectors[..dim], &wanted(5, 1, None)), exact);
}

/// Groups of rows closer together than a step of 4 bits and further apart than one of 8.
#[test]
fn codes_of_eight_bits_tell_apart_what_four_cannot() {
    let (rows, dim, k) = (3000, 48, 10);
    let (groups, noise) = (scattered(rows, dim, 16), scattered(rows, dim, 17));
    let vectors: Vec<f32> = (0..rows * dim)
        .map(|place| {
            let (row, axis) = (place / dim, place % dim);
            groups[row % 20 * dim + axis] + noise[place] / 12.0
        })
        .collect();
    for metric in [Metric::L2, Metric::Cosine] {
        let index = build(metric, dim, &vectors, 30);
        assert_eq!(index.codes.as_ref().map(Codes::width), Some(Width::Eight), "{metric:?}");
        assert!(index.memory_bytes() >= rows * Width::Eight.stride(dim));
        let bytes = index.serialize();
        assert_eq!(bytes[8], 5);
        assert_eq!(IvfFlat::decode(&bytes).unwrap(), index);
        let rows = params(metric, dim, &vectors, None);
        crate::verify(&index, &rows).unwrap();
        let mut without = IvfFlat::decode(&bytes).unwrap();
        without.codes = None;
        let mut found = 0;
        for query in vectors.chunks_exact(dim).step_by(100) {
            let mut work = Work::default();
            let by_codes = index.search_counted((&vectors).into(), query, &wanted(k, 4, None), &mut work);
            let by_vectors = without.search((&vectors).into(), query, &wanted(k, 4, None));
            found += by_codes.iter().filter(|neighbor| by_vectors.contains(neighbor)).count();
            assert!(work.codes > 0 && work.wide_codes == work.codes, "{work:?}");
        }
        assert!(found >= 294, "{metric:?}: {found} of 300 by codes as by vectors");
    }
}

/// Kind 5, for ever: a change here is a new version.
#[test]
fn golden_bytes_with_codes() {
    let dim = 17;
    let numbers = |first: f32| -> Vec<f32> { (0..dim).map(|number| first + number as f32).collect() };
    let mut index = IvfFlat::new(Metric::L2, (3, dim), numbers(1.0), vec![0, 2], vec![0, 2]);
    let corrections = vec![Correction { factor: -2.0, bias: 1.0 }, Correction { factor: -0.5, bias: 0.25 }];
    let mut codes: Aligned<u8> = Aligned::zeroed(2 * 64).unwrap();
    codes.iter_mut().enumerate().for_each(|(place, byte)| *byte = place as u8);
    index.codes = Codes::from_parts(Metric::L2, Width::Four, numbers(-3.0), corrections, codes);
    let mut bytes = b"SEPALIDX\x01\0\x05\x01\x03\0\0\0\x11\0\0\0\0\0\0\0".to_vec();
    bytes.extend(b"\x01\0\0\0\x02\0\0\0");
    bytes.extend(numbers(1.0).iter().flat_map(|number| number.to_le_bytes()));
    bytes.extend(b"\0\0\0\0\x02\0\0\0");
    bytes.extend(b"\0\0\0\0\x02\0\0\0");
    bytes.extend(numbers(-3.0).iter().flat_map(|number| number.to_le_bytes()));
    bytes.extend(b"\0\0\0\xc0\0\0\x80\x3f\0\0\0\xbf\0\0\x80\x3e");
    bytes.extend(0..128u8);
    assert_eq!(index.serialize(), bytes);
    assert_eq!(IvfFlat::decode(&bytes).unwrap(), index);
    for len in 0..bytes.len() {
        assert!(crate::open(&bytes[..len]).is_err(), "{len} bytes");
    }
    // Not a number where a correction stands.
    let correction = bytes.len() - 128 - 16;
    bytes[correction..correction + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(matches!(crate::open(&bytes), Err(IndexError::Corrupt { .. })));
}

/// Version 5 of kind 5, for ever: codes of 8 bits an element.
#[test]
fn golden_bytes_with_codes_of_eight_bits() {
    let dim = 33;
    let numbers = |first: f32| -> Vec<f32> { (0..dim).map(|number| first + number as f32).collect() };
    let mut index = IvfFlat::new(Metric::L2, (3, dim), numbers(1.0), vec![0, 2], vec![0, 2]);
    let corrections = vec![Correction { factor: -2.0, bias: 1.0 }, Correction { factor: -0.5, bias: 0.25 }];
    let mut codes: Aligned<u8> = Aligned::zeroed(2 * 128).unwrap();
    codes.iter_mut().enumerate().for_each(|(place, byte)| *byte = place as u8);
    index.codes = Codes::from_parts(Metric::L2, Width::Eight, numbers(-3.0), corrections, codes);
    let mut bytes = b"SEPALIDX\x05\0\x05\x01\x03\0\0\0\x21\0\0\0\0\0\0\0".to_vec();
    bytes.extend(b"\x01\0\0\0\x02\0\0\0");
    bytes.extend(numbers(1.0).iter().flat_map(|number| number.to_le_bytes()));
    bytes.extend(b"\0\0\0\0\x02\0\0\0");
    bytes.extend(b"\0\0\0\0\x02\0\0\0");
    bytes.extend(numbers(-3.0).iter().flat_map(|number| number.to_le_bytes()));
    bytes.extend(b"\0\0\0\xc0\0\0\x80\x3f\0\0\0\xbf\0\0\x80\x3e");
    bytes.extend(0..=255u8);
    assert_eq!(index.serialize(), bytes);
    assert_eq!(IvfFlat::decode(&bytes).unwrap(), index);
    for len in 0..bytes.len() {
        assert!(crate::open(&bytes[..len]).is_err(), "{len} bytes");
    }
    // Codes of 4 bits would be half as long, and of 8 bits they are no shorter than vectors of 32 dimensions.
    for (offset, value) in [(8, 1), (16, 32)] {
        let mut other = bytes.clone();
        other[offset] = value;
        assert!(matches!(crate::open(&other), Err(IndexError::Corrupt { .. })), "{value} at {offset}");
    }
}

/// FAISS's own inverted file over an index's centroids and lists, vectors copied in.
struct Oracle {
    index: *mut faiss_sys::FaissIndexIVFFlat,
    quantizer: *mut faiss_sys::FaissIndex,
}

impl Oracle {
    fn new(ours: &IvfFlat, vectors: &[f32]) -> Self {
        let metric = match cell_metric(ours.metric) {
            Metric::InnerProduct => faiss_sys::FaissMetricType_METRIC_INNER_PRODUCT,
            _ => faiss_sys::FaissMetricType_METRIC_L2,
        };
        let (mut quantizer, mut index) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: one-to-one calls of the C API with lengths that fit; every pointer outlives its call.
        unsafe {
            let code = faiss_sys::faiss_IndexFlat_new_with(&mut quantizer, ours.dim as i64, metric);
            sys::check(code, "make a quantizer").unwrap();
            let code = faiss_sys::faiss_Index_add(quantizer, ours.lists() as i64, ours.centroids.as_ptr());
            sys::check(code, "add centroids").unwrap();
            let (dim, lists) = (ours.dim, ours.lists());
            let code =
                faiss_sys::faiss_IndexIVFFlat_new_with_metric(&mut index, quantizer, dim, lists, metric);
            sys::check(code, "make an inverted file").unwrap();
            for list in 0..ours.lists() {
                let ids: Vec<i64> = ours.list(list).iter().map(|position| i64::from(*position)).collect();
                let mut rows = Vec::new();
                for position in ours.list(list) {
                    let row = &vectors[*position as usize * ours.dim..][..ours.dim];
                    let scale = if ours.metric == Metric::Cosine { norm(row) as f32 } else { 1.0 };
                    rows.extend(row.iter().map(|value| value / scale));
                }
                let cells = vec![list as i64; ids.len()];
                let (n, x) = (ids.len() as i64, rows.as_ptr());
                let code = faiss_sys::faiss_IndexIVFFlat_add_core(index, n, x, ids.as_ptr(), cells.as_ptr());
                sys::check(code, "add rows").unwrap();
            }
        }
        Self { index, quantizer }
    }

    fn search(&self, query: &[f32], k: usize, probes: usize, allowed: Option<&Bits>) -> Vec<u32> {
        let bitmap: Option<Vec<u8>> =
            allowed.map(|allowed| allowed.words().iter().flat_map(|word| word.to_le_bytes()).collect());
        let (mut distances, mut labels) = (vec![0.0f32; k], vec![-1i64; k]);
        // SAFETY: as above; the bitmap outlives the selector, and both parameter objects are freed after use.
        unsafe {
            let (mut selector, mut params) = (std::ptr::null_mut(), std::ptr::null_mut());
            if let Some(bitmap) = &bitmap {
                let code =
                    faiss_sys::faiss_IDSelectorBitmap_new(&mut selector, bitmap.len(), bitmap.as_ptr());
                sys::check(code, "make a selector").unwrap();
            }
            let code = faiss_sys::faiss_SearchParametersIVF_new_with(&mut params, selector.cast(), probes, 0);
            sys::check(code, "make parameters").unwrap();
            let code = faiss_sys::faiss_Index_search_with_params(
                self.index,
                1,
                query.as_ptr(),
                k as i64,
                params,
                distances.as_mut_ptr(),
                labels.as_mut_ptr(),
            );
            sys::check(code, "search").unwrap();
            faiss_sys::faiss_SearchParametersIVF_free(params);
            if !selector.is_null() {
                faiss_sys::faiss_IDSelectorBitmap_free(selector);
            }
        }
        labels.into_iter().filter_map(|label| u32::try_from(label).ok()).collect()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // SAFETY: both owned; the inverted file does not own its quantizer.
        unsafe {
            faiss_sys::faiss_IndexIVFFlat_free(self.index);
            faiss_sys::faiss_Index_free(self.quantizer);
        }
    }
}
