//! Zeroed memory on a cache-line pair (128 bytes), in huge pages when it is large.
//!
//! Holds codes and links, which a search reads at random: a code that straddles cache lines costs three times
//! as much, and huge pages save a quarter of a hop (fewer TLB misses). Used by `quantize` and `graph`; never
//! grows.

use std::alloc::{Layout, alloc, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use sepal_types::{HUGE_PAGE_BYTES, advise_large};

use crate::IndexError;
use crate::prefetch::prefetch_lines;

/// Two cache lines: x86 fetches lines in pairs, and some cores for aarch64 have lines of this size.
const LINE_PAIR: usize = 128;

/// Types for which all-zero bytes are a value and that need no drop.
///
/// # Safety
/// Implementors promise just that.
pub(crate) unsafe trait Plain {}

// SAFETY: zero is a u8, and it has no drop.
unsafe impl Plain for u8 {}
// SAFETY: zero is an i8, and it has no drop.
unsafe impl Plain for i8 {}
// SAFETY: an AtomicU32 is laid out as a u32, zero is one, and it has no drop.
unsafe impl Plain for AtomicU32 {}

/// A fixed number of `T`, zeroed, aligned to at least 128 bytes.
pub(crate) struct Aligned<T: Plain> {
    start: NonNull<T>,
    len: usize,
    layout: Layout,
}

// SAFETY: an `Aligned` owns its elements as a `Vec` does.
unsafe impl<T: Plain + Send> Send for Aligned<T> {}
// SAFETY: as above; shared access hands out only `&T`.
unsafe impl<T: Plain + Sync> Sync for Aligned<T> {}

impl<T: Plain> Aligned<T> {
    /// # Errors
    /// [`IndexError::Resources`] when the machine has not that much memory.
    pub(crate) fn zeroed(len: usize) -> Result<Self, IndexError> {
        let too_much = || IndexError::Resources(format!("{len} × {} bytes of memory", size_of::<T>()));
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(too_much)?.max(1);
        // Smaller ones are left on ordinary pages: they would waste most of a huge one.
        let align = if bytes >= 2 * HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { LINE_PAIR };
        let layout = Layout::from_size_align(bytes, align).map_err(|_| too_much())?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) }).ok_or_else(too_much)?;
        // Codes tell much about the vectors: they stay out of core dumps, too.
        advise_large(start.as_ptr(), bytes);
        // After the advice: the first touch decides which page size is used.
        // SAFETY: `bytes` bytes were just allocated at `start`.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Self { start: start.cast(), len, layout })
    }

    /// Heap bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.layout.size()
    }
}

impl<T: Plain> Deref for Aligned<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements were allocated and zeroed, and zero is a `T`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Aligned<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> Drop for Aligned<T> {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout; `T` needs no drop.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) }
    }
}

/// Starts loading `count` elements from `start` on.
#[inline(always)]
pub(crate) fn prefetch<T>(slice: &[T], start: usize, count: usize) {
    /// More lines than this are left to the hardware, which has seen the pattern by then.
    const MOST_LINES: usize = 16;
    if let Some(part) = slice.get(start..start + count) {
        prefetch_lines(part, MOST_LINES);
    }
}
