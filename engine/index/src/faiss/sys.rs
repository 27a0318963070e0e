//! The thin wrapper over FAISS's C API (`faiss-sys` 0.7, FAISS 1.12): nothing else calls it but a test.
//!
//! Every C++ exception comes back as a code, which [`check`] turns into [`IndexError::Faiss`]. Objects are
//! freed when dropped and belong to no thread. Training and adding run in [`on_build_thread`], everything else on the
//! caller's thread and on it alone.
//!
//! What must never reach FAISS, because it would loop or abort and not throw: NaN and infinity, and numbers
//! whose squares overflow `f32` (k-means then has no cell to split and looks for one for ever): `rows` sees
//! to that. Factory strings that `factory` has not read. Bytes that FAISS has not written: `layout` sees to that.

use std::ffi::{CStr, CString, c_int};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::time::Duration;

use faiss_sys as ffi;
use parking_lot::Mutex;
use sepal_types::Metric;

use crate::IndexError;

/// Whoever builds has it.
static TURN: Mutex<()> = Mutex::new(());

/// Whether no build has FAISS for itself, or the one that has it is done so soon. It may have it for hours: a build
/// that somebody waits for is better left to later then.
pub fn faiss_is_free(within: Duration) -> bool {
    TURN.try_lock_for(within).is_some()
}

/// Runs a build on a thread of its own, with OpenMP and OpenBLAS limited to `threads`, one build at a time.
///
/// OpenMP's limit belongs to the calling thread, and so does the pool it leaves behind: a thread that ends
/// takes both along. OpenBLAS' limit belongs to the process, hence one at a time; waiting for a turn can be
/// cancelled.
pub(crate) fn on_build_thread<T: Send>(
    threads: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
    work: impl FnOnce() -> Result<T, IndexError> + Send,
) -> Result<T, IndexError> {
    let _turn = loop {
        if cancelled() {
            return Err(IndexError::Cancelled);
        }
        if let Some(turn) = TURN.try_lock_for(Duration::from_millis(50)) {
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

/// Keeps what FAISS does on the calling thread from starting others: each thread that lets OpenMP have its way gets a
/// pool of its own.
pub(super) fn stay_on_this_thread() {
    limit_openmp(1);
}

fn limit_openmp(threads: c_int) {
    unsafe extern "C" {
        /// libgomp's, which `faiss-sys` links.
        fn omp_set_num_threads(threads: c_int);
    }
    // SAFETY: takes any positive number and touches only this thread's OpenMP state.
    unsafe { omp_set_num_threads(threads) };
}

fn limit_threads(threads: usize) {
    let threads = c_int::try_from(threads.max(1)).unwrap_or(c_int::MAX);
    limit_openmp(threads);
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
pub(crate) struct Quantizer {
    index: NonNull<ffi::FaissIndex>,
    dim: usize,
}

impl Quantizer {
    /// `metric` is [`Metric::L2`] or [`Metric::InnerProduct`].
    pub(crate) fn new(dim: usize, metric: Metric) -> Result<Self, IndexError> {
        let metric = faiss_metric(metric);
        let mut index = ptr::null_mut();
        // SAFETY: FAISS writes one pointer, which this value then owns.
        let code = unsafe { ffi::faiss_IndexFlat_new_with(&mut index, dim as ffi::idx_t, metric) };
        Ok(Self { index: owned(code, index, "make a quantizer")?, dim })
    }

    /// The nearest centroid of each row; negative where FAISS found none. `rows` is `labels.len() × dim`.
    pub(crate) fn assign(&self, rows: &[f32], labels: &mut [i64]) -> Result<(), IndexError> {
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
pub(crate) struct KMeans {
    clustering: NonNull<ffi::FaissClustering>,
    dim: usize,
    lists: usize,
}

impl KMeans {
    /// `spherical` scales centroids to length one after each iteration.
    pub(crate) fn new(dim: usize, lists: usize, spherical: bool) -> Result<Self, IndexError> {
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
    pub(crate) fn iterate(&mut self, sample: &[f32], quantizer: &mut Quantizer) -> Result<(), IndexError> {
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
    pub(crate) fn centroids(&mut self) -> &[f32] {
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

/// An index that `factory` has described. Searching changes nothing in it, so that many threads may at once.
pub(crate) struct Index {
    index: NonNull<ffi::FaissIndex>,
    dim: usize,
}

/// How one search goes about it.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Cells to read, of an index that has cells.
    pub(crate) probes: Option<usize>,
    /// Rows that may be found: bit `i % 8` of byte `i / 8`. Only for indexes that can select.
    pub(crate) bitmap: Option<&'a [u8]>,
}

// SAFETY: FAISS' indexes have no tie to a thread.
unsafe impl Send for Index {}
// SAFETY: what takes `&self` here only reads the index: FAISS allows concurrent searches, and counts them in
// statistics of the process that nobody reads.
unsafe impl Sync for Index {}

impl Index {
    /// An empty one. `description` is what [`super::factory`] has written; `metric` as for [`Quantizer::new`].
    ///
    /// # Errors
    /// [`IndexError::Faiss`] with what FAISS says against it.
    pub(crate) fn described(description: &str, dim: usize, metric: Metric) -> Result<Self, IndexError> {
        let description = CString::new(description)
            .map_err(|_| IndexError::Shape("a factory string with a zero byte".to_owned()))?;
        let (d, metric) = (narrow(dim)?, faiss_metric(metric));
        let mut index = ptr::null_mut();
        stay_on_this_thread();
        // SAFETY: FAISS reads the string up to its zero and writes one pointer, which this value then owns.
        let code = unsafe { ffi::faiss_index_factory(&mut index, d, description.as_ptr(), metric) };
        let index = Self { index: owned(code, index, "make an index")?, dim };
        // Some kinds know L2 only and do not say so.
        if index.metric() == metric && index.shape().1 == dim {
            return Ok(index);
        }
        let message = "this kind of index has no inner product".to_owned();
        Err(IndexError::Faiss { operation: "make an index", code: 0, message })
    }

    /// Rows and dimensions.
    pub(crate) fn shape(&self) -> (usize, usize) {
        // SAFETY: both read a number.
        let (rows, dim) = unsafe {
            (ffi::faiss_Index_ntotal(self.index.as_ptr()), ffi::faiss_Index_d(self.index.as_ptr()))
        };
        (usize::try_from(rows).unwrap_or(usize::MAX), usize::try_from(dim).unwrap_or(usize::MAX))
    }

    pub(crate) fn is_for(&self, metric: Metric) -> bool {
        self.metric() == faiss_metric(metric)
    }

    fn metric(&self) -> ffi::FaissMetricType {
        // SAFETY: reads a number.
        unsafe { ffi::faiss_Index_metric_type(self.index.as_ptr()) }
    }

    pub(crate) fn is_trained(&self) -> bool {
        // SAFETY: reads a number.
        unsafe { ffi::faiss_Index_is_trained(self.index.as_ptr()) != 0 }
    }

    /// Gives an untrained inverted file its cells: `cells × dim`, which it then needs not look for.
    pub(crate) fn set_centroids(&mut self, centroids: &[f32]) -> Result<(), IndexError> {
        let missing =
            || IndexError::Faiss { operation: "set cells", code: 0, message: "there are none".to_owned() };
        // SAFETY: a dynamic cast, null for an index of another kind.
        let cells = NonNull::new(unsafe { ffi::faiss_IndexIVF_cast(self.index.as_ptr()) });
        let cells = cells.ok_or_else(missing)?;
        // SAFETY: the quantizer is the inverted file's, which goes on owning it and is not used meanwhile.
        let quantizer = NonNull::new(unsafe { ffi::faiss_IndexIVF_quantizer(cells.as_ptr()) });
        add(quantizer.ok_or_else(missing)?, self.dim, centroids, "set cells")
    }

    /// `n × dim`.
    pub(crate) fn train(&mut self, sample: &[f32]) -> Result<(), IndexError> {
        let rows = whole_rows(sample, self.dim);
        // SAFETY: FAISS reads `rows × dim` floats, and `&mut self` keeps searches away.
        let code = unsafe { ffi::faiss_Index_train(self.index.as_ptr(), rows, sample.as_ptr()) };
        check(code, "train the index")
    }

    /// `n × dim`; they get the next numbers.
    pub(crate) fn add(&mut self, rows: &[f32]) -> Result<(), IndexError> {
        add(self.index, self.dim, rows, "add rows")
    }

    /// One of FAISS' search parameters (`ParameterSpace`), for all searches that follow.
    pub(crate) fn set(&mut self, name: &CStr, value: f64) -> Result<(), IndexError> {
        let mut space = ptr::null_mut();
        // SAFETY: FAISS writes one pointer, which is freed below.
        let code = unsafe { ffi::faiss_ParameterSpace_new(&mut space) };
        let space = owned(code, space, "set a parameter")?;
        // SAFETY: all three live through the call, and `&mut self` keeps searches away.
        let code = unsafe {
            let (space, index) = (space.as_ptr(), self.index.as_ptr());
            let code = ffi::faiss_ParameterSpace_set_index_parameter(space, index, name.as_ptr(), value);
            ffi::faiss_ParameterSpace_free(space);
            code
        };
        check(code, "set a parameter")
    }

    /// The nearest rows' numbers, as many as `labels` has room for, negative ones where there are no more.
    pub(crate) fn search(
        &self,
        query: &[f32],
        wanted: Wanted,
        labels: &mut [i64],
        distances: &mut [f32],
    ) -> Result<(), IndexError> {
        assert!(query.len() == self.dim && labels.len() == distances.len(), "a query and its answer's room");
        stay_on_this_thread();
        let selector = wanted.bitmap.map(Selector::new).transpose()?;
        let chosen = selector.as_ref().map_or(ptr::null_mut(), Selector::as_ptr);
        let params = match wanted.probes {
            Some(probes) => Some(Params::with_probes(chosen, probes)?),
            None if selector.is_some() => Some(Params::new(chosen)?),
            None => None,
        };
        let (index, k) = (self.index.as_ptr(), labels.len() as ffi::idx_t);
        // SAFETY: FAISS reads one query of `dim` floats and writes `k` numbers to each of the others; selector and
        // parameters live until the end of this function.
        let code = unsafe {
            let (query, distances, labels) = (query.as_ptr(), distances.as_mut_ptr(), labels.as_mut_ptr());
            match &params {
                Some(params) => {
                    let params = params.0.as_ptr();
                    ffi::faiss_Index_search_with_params(index, 1, query, k, params, distances, labels)
                }
                None => ffi::faiss_Index_search(index, 1, query, k, distances, labels),
            }
        };
        check(code, "search")
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::FaissIndex {
        self.index.as_ptr()
    }

    /// Takes over what FAISS has made.
    pub(super) fn from_raw(index: NonNull<ffi::FaissIndex>) -> Self {
        let mut index = Self { index, dim: 0 };
        index.dim = index.shape().1;
        index
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // SAFETY: owned, and freed once.
        unsafe { ffi::faiss_Index_free(self.index.as_ptr()) };
    }
}

/// Which rows may be found. FAISS reads the bitmap where it lies.
struct Selector<'a> {
    selector: NonNull<ffi::FaissIDSelectorBitmap>,
    _bitmap: PhantomData<&'a [u8]>,
}

impl<'a> Selector<'a> {
    fn new(bitmap: &'a [u8]) -> Result<Self, IndexError> {
        let mut selector = ptr::null_mut();
        // SAFETY: FAISS writes one pointer and keeps the bitmap's, which outlives this value.
        let code = unsafe { ffi::faiss_IDSelectorBitmap_new(&mut selector, bitmap.len(), bitmap.as_ptr()) };
        Ok(Self { selector: owned(code, selector, "select rows")?, _bitmap: PhantomData })
    }

    fn as_ptr(&self) -> *mut ffi::FaissIDSelector {
        self.selector.as_ptr().cast()
    }
}

impl Drop for Selector<'_> {
    fn drop(&mut self) {
        // SAFETY: owned, and freed once.
        unsafe { ffi::faiss_IDSelectorBitmap_free(self.selector.as_ptr()) };
    }
}

/// Parameters of one search. They do not own the selector that they point to.
struct Params(NonNull<ffi::FaissSearchParameters>);

impl Params {
    fn new(selector: *mut ffi::FaissIDSelector) -> Result<Self, IndexError> {
        let mut params = ptr::null_mut();
        // SAFETY: FAISS writes one pointer, which this value then owns.
        let code = unsafe { ffi::faiss_SearchParameters_new(&mut params, selector) };
        Ok(Self(owned(code, params, "set up a search")?))
    }

    /// For an index with cells. `selector` may be null.
    fn with_probes(selector: *mut ffi::FaissIDSelector, probes: usize) -> Result<Self, IndexError> {
        let mut params = ptr::null_mut();
        // SAFETY: as above.
        let code = unsafe { ffi::faiss_SearchParametersIVF_new_with(&mut params, selector, probes, 0) };
        Ok(Self(owned(code, params, "set up a search")?.cast()))
    }
}

impl Drop for Params {
    fn drop(&mut self) {
        // SAFETY: owned, and freed once; C++ knows what they are by their virtual destructor.
        unsafe { ffi::faiss_SearchParameters_free(self.0.as_ptr()) };
    }
}

fn add(
    index: NonNull<ffi::FaissIndex>,
    dim: usize,
    rows: &[f32],
    operation: &'static str,
) -> Result<(), IndexError> {
    let n = whole_rows(rows, dim);
    // SAFETY: FAISS reads `n × dim` floats; the callers have the index for themselves.
    let code = unsafe { ffi::faiss_Index_add(index.as_ptr(), n, rows.as_ptr()) };
    check(code, operation)
}

fn whole_rows(rows: &[f32], dim: usize) -> ffi::idx_t {
    assert!(rows.len().is_multiple_of(dim), "{} floats are not rows of {dim}", rows.len());
    (rows.len() / dim) as ffi::idx_t
}

fn narrow(value: usize) -> Result<c_int, IndexError> {
    c_int::try_from(value).map_err(|_| IndexError::Shape(format!("{value} is too large for FAISS")))
}

/// What rows are compared by; a cosine is the inner product of rows of length one.
fn faiss_metric(metric: Metric) -> ffi::FaissMetricType {
    match metric {
        Metric::InnerProduct | Metric::Cosine => ffi::FaissMetricType_METRIC_INNER_PRODUCT,
        Metric::L1 | Metric::L2 => ffi::FaissMetricType_METRIC_L2,
    }
}

/// What a constructor returned, or its error.
pub(super) fn owned<T>(
    code: c_int,
    object: *mut T,
    operation: &'static str,
) -> Result<NonNull<T>, IndexError> {
    check(code, operation)?;
    NonNull::new(object).ok_or_else(|| IndexError::Faiss {
        operation,
        code,
        message: "no object came back".into(),
    })
}

/// A FAISS code and, if it is an error, the message that FAISS keeps for this thread.
pub(crate) fn check(code: c_int, operation: &'static str) -> Result<(), IndexError> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: no arguments; the string, if any, is valid until this thread's next FAISS call and copied
    // before.
    let message = unsafe {
        let text = ffi::faiss_get_last_error();
        if text.is_null() { "no message".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    Err(IndexError::Faiss { operation, code, message: own_words(&message).to_owned() })
}

/// Without `Error in <C++ signature> at <path of the machine that compiled FAISS>:<line>: `.
fn own_words(message: &str) -> &str {
    let place = [".cpp:", ".h:"].into_iter().filter_map(|suffix| message.find(suffix)).min();
    let words = place.and_then(|place| message[place..].split_once(": ").map(|(_, words)| words));
    words.filter(|_| message.starts_with("Error in ")).unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faiss_is_not_free_while_something_is_built() {
        let free = on_build_thread(1, &|| false, || Ok(faiss_is_free(Duration::from_millis(1))));
        assert!(!free.unwrap());
    }

    #[test]
    fn errors_are_told_without_places() {
        let message =
            "Error in Index* faiss::make(int) at /x/faiss/index_factory.cpp:945: could not parse: X";
        assert_eq!(own_words(message), "could not parse: X");
        assert_eq!(own_words("vector::reserve"), "vector::reserve");
        assert_eq!(own_words("see a.cpp:1: it"), "see a.cpp:1: it");
    }
}
