//! Asking for memory before it is read: a search knows where it will go next when the processor cannot guess it.
//!
//! Called by `distance` for rows and by `quantize` for codes and links. Reads nothing, and changes nothing but speed;
//! does nothing on processors other than x86-64 and aarch64.

/// What a processor loads at once. Some cores for aarch64 load twice that; asking again for half a line costs them next
/// to nothing.
const LINE_BYTES: usize = 64;

/// Starts loading the first `most` cache lines of `part`.
#[inline(always)]
pub(crate) fn prefetch_lines<T>(part: &[T], most: usize) {
    let start = part.as_ptr().cast::<u8>();
    for line in 0..size_of_val(part).div_ceil(LINE_BYTES).min(most) {
        prefetch_line(start.wrapping_add(line * LINE_BYTES));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing into the program and cannot fault, and SSE is part of x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

/// By hand: the intrinsic is not stable yet (rust-lang/rust#117217).
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn prefetch_line(address: *const u8) {
    // SAFETY: as on x86-64: a hint that reads nothing into the program and cannot fault.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{address}]",
            address = in(reg) address,
            options(nomem, nostack, preserves_flags),
        );
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline(always)]
fn prefetch_line(_address: *const u8) {}
