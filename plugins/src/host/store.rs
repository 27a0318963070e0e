//! A guest's store: everything the host keeps for one instance, and nothing of any other.
//!
//! `imports` answers the guest out of it. WASI is linked as toolchains expect it, with no file, argument, variable or
//! socket behind it and its output discarded.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Instant};

use wasmtime::{Engine, Store, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::{
    limits::{Meter, Rate},
    staged::StagedState,
    tokens::Tokens,
};
use crate::{call::Outside, manifest::EffectiveLimits};

/// Handles a guest may hold: streams and pollables of WASI, and secrets.
const MAX_HANDLES: usize = 1024;
const MAX_RANDOM_BYTES: u64 = 64 << 10;

/// What `secrets.get` gives out: which slot, and the version it had then.
#[derive(Debug)]
pub struct SecretHandle {
    pub(super) slot: String,
    pub(super) version: String,
}

/// The store's data.
pub(super) struct Guest {
    pub(super) table: ResourceTable,
    wasi: WasiCtx,
    pub(super) meter: Meter,
    pub(super) limits: EffectiveLimits,
    pub(super) outside: Arc<dyn Outside>,
    pub(super) state: StagedState,
    pub(super) tokens: Tokens,
    pub(super) requests: Rate,
    pub(super) log_lines: Rate,
    /// Names of counters and gauges so far.
    pub(super) series: BTreeSet<String>,
    /// When the call has to be over: a request does not outlive it.
    pub(super) until: Instant,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("meter", &self.meter).finish_non_exhaustive()
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Guest {
    fn new(limits: EffectiveLimits, outside: Arc<dyn Outside>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let mut wasi = WasiCtxBuilder::new();
        wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false).max_random_size(MAX_RANDOM_BYTES);
        let now = Instant::now();
        Self {
            table,
            wasi: wasi.build(),
            meter: Meter::new(limits),
            limits,
            outside,
            state: StagedState::default(),
            tokens: Tokens::default(),
            requests: Rate::new(limits.requests_per_second, now),
            log_lines: Rate::new(limits.log_lines_per_second, now),
            series: BTreeSet::new(),
            until: now,
        }
    }
}

/// A store for one instance.
pub(super) fn store(engine: &Engine, limits: EffectiveLimits, outside: Arc<dyn Outside>) -> Store<Guest> {
    let mut store = Store::new(engine, Guest::new(limits, outside));
    store.limiter(|guest| &mut guest.meter);
    store.epoch_deadline_callback(|mut context| context.data_mut().meter.tick());
    store
}

/// A call begins.
pub(super) fn begin(
    store: &mut Store<Guest>,
    limits: EffectiveLimits,
    outside: &Arc<dyn Outside>,
    state: StagedState,
    until: Instant,
) {
    store.set_epoch_deadline(1);
    store.set_hostcall_fuel(usize::try_from(limits.hostcall_bytes).unwrap_or(usize::MAX));
    let guest = store.data_mut();
    guest.meter.begin(limits);
    guest.limits = limits;
    guest.outside = Arc::clone(outside);
    guest.state = state;
    guest.until = until;
}
