//! The clock of CPU budgets: a thread that advances the engines' epochs while a guest runs, and sleeps otherwise.
//!
//! A plain thread and not a task: guests must be interrupted when every thread of the runtime is busy with them.

use std::{sync::Arc, thread, time::Duration};

use parking_lot::{Condvar, Mutex};
use wasmtime::{Engine, EngineWeak};

/// How long one tick is. A guest that runs gives way to others this often.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Ends its thread when dropped.
#[derive(Debug)]
pub(super) struct Ticker(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    ended: bool,
}

/// While one lives, time passes.
#[derive(Debug)]
pub(super) struct Ticking(Arc<Shared>);

impl Ticker {
    pub(super) fn start(engines: &[&Engine]) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let engines: Vec<EngineWeak> = engines.iter().map(|engine| engine.weak()).collect();
        let mine = Arc::clone(&shared);
        thread::Builder::new().name("plugin-ticker".to_owned()).spawn(move || mine.tick(&engines))?;
        Ok(Self(shared))
    }

    pub(super) fn run(&self) -> Ticking {
        let mut state = self.0.state.lock();
        state.running += 1;
        self.0.changed.notify_one();
        Ticking(Arc::clone(&self.0))
    }
}

impl Shared {
    fn tick(&self, engines: &[EngineWeak]) {
        loop {
            let mut state = self.state.lock();
            while state.running == 0 && !state.ended {
                self.changed.wait(&mut state);
            }
            if state.ended {
                return;
            }
            drop(state);
            thread::sleep(TICK);
            for engine in engines {
                if let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                }
            }
        }
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.running = state.running.saturating_sub(1);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.changed.notify_one();
    }
}
