//! The thin wrapper over FAISS's C API (`faiss-sys` 0.7, FAISS 1.12): nothing else calls it but a test.
//!
//! Every C++ exception comes back as a code, which [`check`] turns into [`IndexError::Faiss`]. Objects are
//! freed when dropped, are used on the thread that made them, and never outlive [`on_build_thread`].
//!
//! What must never reach FAISS, because it would loop or abort and not throw: NaN and infinity, and numbers
//! whose squares overflow `f32` (k-means then has no cell to split and looks for one for ever). `build` sees
//! to that.

use std::ffi::{CStr, c_int};
use std::ptr::{self, NonNull};
use std::time::Duration;

use faiss_sys as ffi;
use parking_lot::Mutex;
use sepal_types::Metric;

use crate::IndexError;

/// Runs a build on a thread of its own, with OpenMP and OpenBLAS limited to `threads`, one build at a time.
///
/// OpenMP's limit belongs to the calling thread, and so does the pool it leaves behind: a thread that ends
/// takes both along. OpenBLAS' limit belongs to the process, hence one at a time; waiting for a turn can be
/// cancelled.
pub(super) fn on_build_thread<T: Send>(
    threads: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
    work: impl FnOnce() -> Result<T, IndexError> + Send,
) -> Result<T, IndexError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = loop {
        if cancelled() {
            return Err(IndexError::Cancelled);
        }
        if let Some(turn) = ONE_AT_A_TIME.try_lock_for(Duration::from_millis(50)) {
            break turn;
        }
    };
    std::thread::scope(|scope| {
        let build = std::thread::Builder::new().name("faiss-build".into()).spawn_scoped(scope, || {
            limit_threads(threads);
            work()
        });
        let build = build.map_err(|error| IndexError::Resources(format!("a thread ({error})")))?;
        // A panic in there is a bug of ours; it goes on as one.
        build.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn limit_threads(threads: usize) {
    unsafe extern "C" {
        /// libgomp's, which `faiss-sys` links.
        fn omp_set_num_threads(threads: c_int);
    }
    let threads = c_int::try_from(threads.max(1)).unwrap_or(c_int::MAX);
    // SAFETY: takes any positive number and touches only this thread's OpenMP state.
    unsafe { omp_set_num_threads(threads) };
    // SAFETY: the name is a C string, and looking a symbol up has no effect.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"openblas_set_num_threads".as_ptr()) };
    // Any other BLAS has no such symbol and is left alone.
    if !symbol.is_null() {
        // SAFETY: OpenBLAS declares `void openblas_set_num_threads(int)`; the caller's lock keeps builds
        // apart.
        unsafe {
            let set = std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn(c_int)>(symbol);
            set(threads);
        }
    }
}

/// The centroids, searchable (`IndexFlat`): k-means fills it, then it assigns rows to their nearest cell.
pub(super) struct Quantizer {
    index: NonNull<ffi::FaissIndex>,
    dim: usize,
}

impl Quantizer {
    /// `metric` is [`Metric::L2`] or [`Metric::InnerProduct`].
    pub(super) fn new(dim: usize, metric: Metric) -> Result<Self, IndexError> {
        let metric = match metric {
            Metric::InnerProduct | Metric::Cosine => ffi::FaissMetricType_METRIC_INNER_PRODUCT,
            Metric::L1 | Metric::L2 => ffi::FaissMetricType_METRIC_L2,
        };
        let mut index = ptr::null_mut();
        // SAFETY: FAISS writes one pointer, which this value then owns.
        let code = unsafe { ffi::faiss_IndexFlat_new_with(&mut index, dim as ffi::idx_t, metric) };
        Ok(Self { index: owned(code, index, "make a quantizer")?, dim })
    }

    /// The nearest centroid of each row; negative where FAISS found none. `rows` is `labels.len() × dim`.
    pub(super) fn assign(&self, rows: &[f32], labels: &mut [i64]) -> Result<(), IndexError> {
        assert_eq!(rows.len(), labels.len() * self.dim, "one label a row");
        // SAFETY: the lengths fit together; FAISS reads `rows`, writes one label a row, and declares the
        // index `mut` only because the C header does.
        let code = unsafe {
            let n = labels.len() as ffi::idx_t;
            ffi::faiss_Index_assign(self.index.as_ptr(), n, rows.as_ptr(), labels.as_mut_ptr(), 1)
        };
        check(code, "assign rows to cells")
    }
}

impl Drop for Quantizer {
    fn drop(&mut self) {
        // SAFETY: owned, and freed once.
        unsafe { ffi::faiss_Index_free(self.index.as_ptr()) };
    }
}

/// FAISS's `Clustering`, one iteration a call so that a build can be cancelled between two.
pub(super) struct KMeans {
    clustering: NonNull<ffi::FaissClustering>,
    dim: usize,
    lists: usize,
}

impl KMeans {
    /// `spherical` scales centroids to length one after each iteration.
    pub(super) fn new(dim: usize, lists: usize, spherical: bool) -> Result<Self, IndexError> {
        let narrow = |value: usize| {
            c_int::try_from(value).map_err(|_| IndexError::Shape(format!("{value} is too large for FAISS")))
        };
        let (d, k) = (narrow(dim)?, narrow(lists)?);
        let parameters = ffi::FaissClusteringParameters {
            niter: 1,
            nredo: 1,
            verbose: 0,
            spherical: c_int::from(spherical),
            int_centroids: 0,
            update_index: 0,
            frozen_centroids: 0,
            // `build` has chosen the sample: no warning on stderr about a small one, no thinning of a large
            // one.
            min_points_per_centroid: 1,
            max_points_per_centroid: c_int::MAX,
            seed: 1234,
            decode_block_size: 32_768,
        };
        let mut clustering = ptr::null_mut();
        // SAFETY: FAISS copies the parameters and writes one pointer, which this value then owns.
        let code = unsafe { ffi::faiss_Clustering_new_with_params(&mut clustering, d, k, &parameters) };
        Ok(Self { clustering: owned(code, clustering, "set up k-means")?, dim, lists })
    }

    /// One more iteration over the same sample (`n × dim`, `n >= lists`), from the centroids of the last one
    /// or, the first time, from rows drawn with a fixed seed. Leaves the centroids in `quantizer`.
    pub(super) fn iterate(&mut self, sample: &[f32], quantizer: &mut Quantizer) -> Result<(), IndexError> {
        assert_eq!(
            (sample.len() % self.dim, quantizer.dim),
            (0, self.dim),
            "sample or quantizer of other dimensions"
        );
        let n = (sample.len() / self.dim) as ffi::idx_t;
        // SAFETY: FAISS reads `n × dim` floats; both objects are alive and nobody else uses them.
        let code = unsafe {
            ffi::faiss_Clustering_train(
                self.clustering.as_ptr(),
                n,
                sample.as_ptr(),
                quantizer.index.as_ptr(),
            )
        };
        check(code, "train cells")
    }

    /// `lists × dim`; empty before the first iteration.
    pub(super) fn centroids(&mut self) -> &[f32] {
        let (mut data, mut len) = (ptr::null_mut(), 0);
        // SAFETY: FAISS writes where its vector begins and how many floats it has.
        unsafe { ffi::faiss_Clustering_centroids(self.clustering.as_ptr(), &mut data, &mut len) };
        if data.is_null() || len != self.lists * self.dim {
            return &[];
        }
        // SAFETY: the vector lives in the clustering, and `&mut self` keeps it from being trained meanwhile.
        unsafe { std::slice::from_raw_parts(data, len) }
    }
}

impl Drop for KMeans {
    fn drop(&mut self) {
        // SAFETY: owned, and freed once.
        unsafe { ffi::faiss_Clustering_free(self.clustering.as_ptr()) };
    }
}

/// What a constructor returned, or its error.
fn owned<T>(code: c_int, object: *mut T, operation: &'static str) -> Result<NonNull<T>, IndexError> {
    check(code, operation)?;
    NonNull::new(object).ok_or_else(|| IndexError::Faiss {
        operation,
        code,
        message: "no object came back".into(),
    })
}

/// A FAISS code and, if it is an error, the message that FAISS keeps for this thread.
pub(super) fn check(code: c_int, operation: &'static str) -> Result<(), IndexError> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: no arguments; the string, if any, is valid until this thread's next FAISS call and copied
    // before.
    let message = unsafe {
        let text = ffi::faiss_get_last_error();
        if text.is_null() { "no message".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    Err(IndexError::Faiss { operation, code, message })
}
