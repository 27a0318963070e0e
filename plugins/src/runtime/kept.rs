//! What was used lately, up to so many bytes: one large thing pushes out many small ones, not the memory's end.

use lru::LruCache;

use crate::call::ComponentHash;

pub(super) struct Kept<T> {
    things: LruCache<ComponentHash, (T, u64)>,
    bytes: u64,
    most_bytes: u64,
}

impl<T: Clone> Kept<T> {
    pub fn new(most_bytes: u64) -> Self {
        Self { things: LruCache::unbounded(), bytes: 0, most_bytes }
    }

    pub fn get(&mut self, hash: &ComponentHash) -> Option<T> {
        self.things.get(hash).map(|(thing, _)| thing.clone())
    }

    /// Keeps it, and lets go of the oldest until all fit; of itself too when it is larger than the whole.
    pub fn put(&mut self, hash: ComponentHash, thing: T, bytes: u64) {
        if let Some((_, replaced)) = self.things.put(hash, (thing, bytes)) {
            self.bytes -= replaced;
        }
        self.bytes += bytes;
        while self.bytes > self.most_bytes {
            let Some((_, (_, oldest))) = self.things.pop_lru() else { break };
            self.bytes -= oldest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_until_the_rest_fits() {
        let mut kept = Kept::new(100);
        kept.put([1; 32], "a", 40);
        kept.put([2; 32], "b", 40);
        assert_eq!(kept.get(&[1; 32]), Some("a"));
        kept.put([3; 32], "c", 60);
        assert_eq!((kept.get(&[1; 32]), kept.get(&[2; 32])), (Some("a"), None), "b was used before a");
        kept.put([3; 32], "d", 10);
        kept.put([4; 32], "e", 50);
        assert_eq!((kept.get(&[1; 32]), kept.get(&[3; 32])), (Some("a"), Some("d")), "50 of 100 were free");
        kept.put([5; 32], "f", 101);
        assert_eq!((kept.get(&[5; 32]), kept.bytes), (None, 0));
    }
}
