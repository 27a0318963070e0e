//! One piece of work on several threads. Used by the encoder and by the graph's builder.

use std::thread;

/// Runs `work` on this thread and on up to `threads - 1` others; returns when all have. `work` takes its
/// share from some common counter, so a thread that the machine refuses only makes it slower.
pub(crate) fn on_threads(threads: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for number in 1..threads {
            let builder = thread::Builder::new().name(format!("index-build-{number}"));
            if builder.spawn_scoped(scope, &work).is_err() {
                break;
            }
        }
        work();
    });
}
