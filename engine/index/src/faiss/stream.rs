//! An index's bytes in FAISS' own format, to memory and back.
//!
//! FAISS' callbacks have no argument of ours, so what they write to and read from belongs to the thread for as long as
//! the call runs. Nothing goes through a file, not even one without a name.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};

use faiss_sys as ffi;

use super::sys::{self, Index, check, owned};
use crate::IndexError;

/// `IO_FLAG_SKIP_PRECOMPUTE_TABLE` and `IO_FLAG_PQ_SKIP_SDC_TABLE` of `index_io.h`, which the C header leaves out.
const NO_RESIDUAL_TABLE: c_int = 16;
const NO_SYMMETRIC_TABLE: c_int = 32;

thread_local! {
    static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// What is left to read: where it begins, and how many bytes there are.
    static LEFT: Cell<(*const u8, usize)> = const { Cell::new((ptr::null(), 0)) };
}

/// # Errors
/// [`IndexError::Faiss`], also when memory runs out.
pub(super) fn write(index: &Index) -> Result<Vec<u8>, IndexError> {
    let mut writer = ptr::null_mut();
    // SAFETY: FAISS writes one pointer, which is freed below, and keeps the function's.
    let code = unsafe { ffi::faiss_CustomIOWriter_new(&mut writer, Some(append)) };
    let writer: NonNull<ffi::FaissCustomIOWriter> = owned(code, writer, "write the index")?;
    WRITTEN.set(Vec::new());
    sys::stay_on_this_thread();
    // SAFETY: index and writer live through the call; a custom writer is a writer.
    let code = unsafe {
        let code = ffi::faiss_write_index_custom(index.as_ptr(), writer.as_ptr().cast(), 0);
        ffi::faiss_CustomIOWriter_free(writer.as_ptr());
        code
    };
    let written = WRITTEN.take();
    check(code, "write the index")?;
    Ok(written)
}

/// `bytes` are what [`write`] has written: FAISS checks little of them. `with_table`: whether it computes the table that
/// makes product quantizers over residuals faster.
///
/// # Errors
/// [`IndexError::Faiss`]
pub(super) fn read(bytes: &[u8], with_table: bool) -> Result<Index, IndexError> {
    let mut reader = ptr::null_mut();
    // SAFETY: FAISS writes one pointer, which is freed below, and keeps the function's.
    let code = unsafe { ffi::faiss_CustomIOReader_new(&mut reader, Some(next)) };
    let reader: NonNull<ffi::FaissCustomIOReader> = owned(code, reader, "read the index")?;
    let flags = NO_SYMMETRIC_TABLE | if with_table { 0 } else { NO_RESIDUAL_TABLE };
    let mut index = ptr::null_mut();
    LEFT.set((bytes.as_ptr(), bytes.len()));
    sys::stay_on_this_thread();
    // SAFETY: the reader lives through the call, `bytes` too; FAISS writes one pointer, which the index then owns.
    let code = unsafe {
        let code = ffi::faiss_read_index_custom(reader.as_ptr().cast(), flags, &mut index);
        ffi::faiss_CustomIOReader_free(reader.as_ptr());
        code
    };
    let (_, left) = LEFT.replace((ptr::null(), 0));
    let index = Index::from_raw(owned(code, index, "read the index")?);
    if left > 0 {
        let message = format!("{left} bytes follow the index");
        return Err(IndexError::Faiss { operation: "read the index", code: 0, message });
    }
    Ok(index)
}

/// What FAISS writes; fewer than `items` is an error there. Must not panic: C++ calls it.
unsafe extern "C" fn append(from: *const c_void, size: usize, items: usize) -> usize {
    let Some(len) = size.checked_mul(items) else { return 0 };
    if len == 0 {
        // The pointer of an empty vector is null.
        return items;
    }
    // SAFETY: FAISS has `items` objects of `size` bytes there.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), len) };
    let append = |written: &RefCell<Vec<u8>>| {
        let mut written = written.try_borrow_mut().ok()?;
        written.try_reserve(len).ok()?;
        written.extend_from_slice(bytes);
        Some(items)
    };
    WRITTEN.try_with(append).ok().flatten().unwrap_or(0)
}

/// What FAISS reads; fewer than `items` is an error there. Must not panic: C++ calls it.
unsafe extern "C" fn next(to: *mut c_void, size: usize, items: usize) -> usize {
    let Some(len) = size.checked_mul(items) else { return 0 };
    if len == 0 {
        return items;
    }
    let Ok((from, left)) = LEFT.try_with(Cell::get) else { return 0 };
    if len > left {
        return 0;
    }
    // SAFETY: `left` bytes are at `from`, and FAISS has room for `items` objects of `size` bytes at `to`.
    let rest = unsafe {
        ptr::copy_nonoverlapping(from, to.cast::<u8>(), len);
        from.add(len)
    };
    match LEFT.try_with(|place| place.set((rest, left - len))) {
        Ok(()) => items,
        Err(_) => 0,
    }
}
