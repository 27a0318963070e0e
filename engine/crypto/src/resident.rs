//! Memory for keys that live long: root, instance and tenant keys.
//!
//! Locked, so that they do not reach the swap; left out of core dumps; empty in a forked child; wiped when their slot
//! is free again. A page holds 128 keys and is never given back. Where the operating system locks no more memory
//! (`RLIMIT_MEMLOCK`), keys are kept all the same and [`locked_memory`] tells: a server that stops for it would protect
//! less than one that runs. What is computed from a key passes through ordinary memory, and is wiped there.

use std::{fmt, ops::Deref, ptr::NonNull};

use parking_lot::Mutex;
use zeroize::Zeroize;

use crate::Key;

const PAGE_BYTES: usize = 4096;

static POOL: Mutex<Pool> =
    Mutex::new(Pool { free: Vec::new(), memory: LockedMemory { pages: 0, unlocked: 0 } });

/// A [`Key`] in such memory. Used like one.
pub struct ResidentKey(NonNull<Key>);

/// What the operating system granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockedMemory {
    /// Pages of 4 KiB that hold keys.
    pub pages: usize,
    /// Of these, pages that could not be locked.
    pub unlocked: usize,
}

struct Pool {
    /// Slots that hold zeroes and belong to nobody.
    free: Vec<NonNull<Key>>,
    memory: LockedMemory,
}

// SAFETY: the pointers lead to memory that is never unmapped, and whoever takes one out of the list owns its slot.
unsafe impl Send for Pool {}

// SAFETY: a `ResidentKey` owns its slot as a box would; a `Key` may go to other threads.
unsafe impl Send for ResidentKey {}

// SAFETY: through a shared reference the slot is only read.
unsafe impl Sync for ResidentKey {}

/// How many pages hold keys, and how many of them are not locked: for the log and the operator.
pub fn locked_memory() -> LockedMemory {
    POOL.lock().memory
}

impl ResidentKey {
    pub fn new(key: &Key) -> Self {
        let slot = POOL.lock().take();
        // SAFETY: the slot is `Key`-sized (bytes, so aligned anywhere), holds zeroes, which are a valid `Key`, and is
        // ours alone. Assigning drops that zero key, which wipes it once more.
        unsafe { *slot.as_ptr() = key.clone() };
        Self(slot)
    }
}

impl From<Key> for ResidentKey {
    fn from(key: Key) -> Self {
        Self::new(&key)
    }
}

impl Deref for ResidentKey {
    type Target = Key;

    fn deref(&self) -> &Key {
        // SAFETY: the slot holds a valid key for as long as `self` lives, and nobody writes to it meanwhile.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for ResidentKey {
    fn clone(&self) -> Self {
        Self::new(self)
    }
}

impl Drop for ResidentKey {
    fn drop(&mut self) {
        // SAFETY: the slot is ours until it is pushed to the list below.
        unsafe { self.0.as_mut() }.zeroize();
        POOL.lock().free.push(self.0);
    }
}

impl fmt::Debug for ResidentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResidentKey(redacted)")
    }
}

impl Pool {
    fn take(&mut self) -> NonNull<Key> {
        if self.free.is_empty() {
            self.grow();
        }
        self.free.pop().expect("a page was just added, and it has room for many keys")
    }

    fn grow(&mut self) {
        // SAFETY: a private anonymous mapping at no given address touches no memory of ours.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        self.memory.pages += 1;
        let page: *mut Key = if mapped == libc::MAP_FAILED {
            self.memory.unlocked += 1;
            // Out of mappings: ordinary memory is better than no keys.
            Box::leak(vec![0_u8; PAGE_BYTES].into_boxed_slice()).as_mut_ptr().cast()
        } else {
            // SAFETY: exactly the page that was mapped. Refusals are counted or harmless: a kernel without one of
            // the two pieces of advice keeps the page as it is.
            let locked = unsafe {
                libc::madvise(mapped, PAGE_BYTES, libc::MADV_DONTDUMP);
                libc::madvise(mapped, PAGE_BYTES, libc::MADV_WIPEONFORK);
                libc::mlock(mapped, PAGE_BYTES)
            };
            self.memory.unlocked += usize::from(locked != 0);
            mapped.cast()
        };
        for slot in 0..PAGE_BYTES / size_of::<Key>() {
            // SAFETY: within the page; a pointer into it is not null.
            self.free.push(unsafe { NonNull::new_unchecked(page.add(slot)) });
        }
    }
}

const _: () = assert!(size_of::<Key>() == 32 && align_of::<Key>() == 1 && PAGE_BYTES.is_multiple_of(32));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_themselves_and_their_slots_are_wiped() {
        let keys: Vec<Key> = (0..=255).map(|byte| Key::from_bytes([byte; 32])).collect();
        let resident: Vec<ResidentKey> = keys.iter().map(ResidentKey::new).collect();
        for (key, resident) in keys.iter().zip(&resident) {
            assert_eq!(resident.expose(), key.expose());
            assert_eq!(resident.clone().expose(), key.expose());
        }
        assert!(locked_memory().pages >= 2, "256 keys need two pages");
        drop(resident);
        // Other tests may take slots meanwhile; those in the list belong to nobody.
        let pool = POOL.lock();
        for slot in &pool.free {
            // SAFETY: the list's slots are valid and, while the pool is locked, nobody else's.
            assert_eq!(unsafe { slot.as_ref() }.expose(), &[0; 32]);
        }
    }

    #[test]
    fn the_page_is_kept_out_of_dumps() {
        let key = ResidentKey::from(Key::from_bytes([9; 32]));
        let address = key.0.as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        let mut flags = None;
        for line in maps.lines() {
            if let Some((range, _)) = line.split_once(' ').filter(|(range, _)| range.contains('-')) {
                let (start, end) = range.split_once('-').unwrap();
                let edge = |text: &str| usize::from_str_radix(text, 16).unwrap();
                inside = (edge(start)..edge(end)).contains(&address);
            } else if inside && line.starts_with("VmFlags:") {
                flags = Some(line.to_owned());
            }
        }
        let flags = flags.expect("the page is among the mappings");
        assert!(flags.contains(" dd"), "{flags}");
        let locked = flags.contains(" lo");
        assert!(locked || locked_memory().unlocked > 0, "{flags}");
    }
}
