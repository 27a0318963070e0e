//! What the kernel is told of large memory: to use huge pages, and to leave it out of core dumps.
//!
//! Said by `storage` of decoded columns and by `index` of codes and links, before they touch them. Both are wishes: a
//! kernel that refuses them changes nothing but speed. Never allocates.

/// A huge page of x86-64, and of aarch64 where pages are 4 KiB.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Asks for huge pages, where whole ones lie inside `bytes` bytes from `start` on, and that they stay out of core dumps.
/// To be called before the memory is touched first: that decides which page size is used. Memory of less than two huge
/// pages is left alone.
#[cfg(target_os = "linux")]
pub fn advise_large(start: *const u8, bytes: usize) {
    if bytes < 2 * HUGE_PAGE_BYTES {
        return;
    }
    let (first, end) = (start.addr().next_multiple_of(HUGE_PAGE_BYTES), start.addr() + bytes);
    let whole = (end - first) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    let first = start.with_addr(first).cast_mut().cast();
    // SAFETY: neither advice changes what the memory holds, or whether it may be used, whoever owns it.
    unsafe {
        libc::madvise(first, whole, libc::MADV_HUGEPAGE);
        libc::madvise(first, whole, libc::MADV_DONTDUMP);
    }
}

#[cfg(not(target_os = "linux"))]
pub fn advise_large(_start: *const u8, _bytes: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advised_memory_keeps_what_it_holds() {
        for bytes in [0, 1, HUGE_PAGE_BYTES, 2 * HUGE_PAGE_BYTES, 5 * HUGE_PAGE_BYTES + 17] {
            let memory: Vec<u8> = (0..bytes).map(|place| (place % 251) as u8).collect();
            advise_large(memory.as_ptr(), bytes);
            assert!(memory.iter().enumerate().all(|(place, byte)| usize::from(*byte) == place % 251));
        }
    }
}
