//! A store on a disk that loses, tears, flips and fills up: one seed is one history, always the same one.
//!
//! `make test` runs a few hundred seeds, `make soak` ten thousand fresh ones. docs/reliability.md says what is covered
//! and how to follow a seed. A run is single-threaded; what happens at once elsewhere is interleaved here: commits of
//! one group, sessions while a checkpoint writes.
//!
//! ```text
//! dice        chance from a seed              session   a transaction and its changes
//! machine/    disk, page cache, power         world     the run: store, model, what is acknowledged
//! model       what should be there            steps     what happens next
//! rows, feed  the store's answers against it  restart   from one life of the store to the next
//! meanwhile   sessions while upkeep works     past        moments and names
//! keys        the tenant's key and its files' run         a seed from start to end
//! mend        what is checked and repaired    tests, planted, flips
//! ```
//! What must hold, whatever fails:
//! - What was acknowledged is there, what was refused is not, and what nobody knows is there whole or not at all, in
//!   the order of the log.
//! - Readers see one commit, as long as they like. Serials, row ids and manifests never go back.
//! - A clone begins with its source's rows, and a named snapshot stays what it was.
//! - A key that nothing is said to need opens nothing that is needed. A replacement of keys comes to its end.
//! - No nonce serves twice under a key. No file outside the store's directories, and none that nothing names.
//! - An error has a cause. Damage is called so, names the file, and changes nothing. Nothing panics.
//! - A check finds what is damaged and nothing else; a repair costs what it says, and no row more.

mod dice;
mod feed;
mod flips;
mod keys;
mod machine;
mod meanwhile;
mod mend;
mod model;
mod past;
mod planted;
mod restart;
mod rows;
mod run;
mod session;
mod steps;
mod tests;
mod world;
