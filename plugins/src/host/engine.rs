//! The engine's settings: one set for compiling and running, as machine code is bound to them.
//!
//! Cranelift only, epochs for CPU time, no threads, no garbage collector, no 64-bit memories. Linear memories reserve
//! 256 MiB of address space instead of 4 GiB: bounds are checked in code then, and a worker's address space can be
//! limited to something that means something.

use std::hash::{DefaultHasher, Hash, Hasher};

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy};

use crate::manifest::EffectiveLimits;

/// What a slot keeps from one guest to the next, wiped: about what a Rust guest touches.
const KEPT_MEMORY_BYTES: usize = 1 << 20;
const KEPT_TABLE_BYTES: usize = 64 << 10;

/// More than any guest may have.
const MEMORY_RESERVATION_BYTES: u64 = 256 << 20;
const MEMORY_GUARD_BYTES: u64 = 32 << 20;
const WASM_STACK_BYTES: usize = 512 << 10;
const FIBER_STACK_BYTES: usize = 2 << 20;
/// Linear memories of one guest: its own, and its adapters'.
pub(super) const MEMORIES: u32 = 4;
/// One per core instance is usual.
const TABLES_PER_INSTANCE: u32 = 8;
const MAX_CONTEXT_BYTES: usize = 4 << 20;

const _: () = assert!(EffectiveLimits::MOST.memory_bytes <= MEMORY_RESERVATION_BYTES);

/// Where instances get their memory from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Allocation {
    /// From slots made beforehand, for this many guests at once.
    Pooled { guests: u32 },
    /// From the system, given back at once.
    OnDemand,
}

/// Address space that one guest takes.
pub(super) const fn guest_address_space_bytes() -> u64 {
    (MEMORY_RESERVATION_BYTES + MEMORY_GUARD_BYTES) * MEMORIES as u64 + FIBER_STACK_BYTES as u64
}

pub(super) fn engine(allocation: Allocation) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        // Adapters of components use several memories.
        .wasm_multi_memory(true)
        .wasm_memory64(false);
    if let Allocation::Pooled { guests } = allocation {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(guests)));
    }
    Engine::new(&config)
}

fn pool(guests: u32) -> PoolingAllocationConfig {
    let limits = EffectiveLimits::MOST;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(guests)
        .total_core_instances(guests.saturating_mul(limits.instances))
        .total_memories(guests.saturating_mul(MEMORIES))
        .total_tables(guests.saturating_mul(TABLES_PER_INSTANCE))
        .total_stacks(guests.saturating_mul(2))
        .max_core_instances_per_component(limits.instances)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES_PER_INSTANCE)
        .max_memories_per_module(MEMORIES)
        .max_tables_per_module(TABLES_PER_INSTANCE)
        .max_core_instance_size(MAX_CONTEXT_BYTES)
        .max_component_instance_size(2 * MAX_CONTEXT_BYTES)
        .max_memory_size(MEMORY_RESERVATION_BYTES as usize)
        .table_elements(limits.table_elements as usize)
        .max_unused_warm_slots(guests / 2)
        // Cleared by hand instead of given back: a guest's first pages are there when the next one is made.
        .linear_memory_keep_resident(KEPT_MEMORY_BYTES)
        .table_keep_resident(KEPT_TABLE_BYTES);
    pool
}

/// Machine code of a component. Takes seconds and cannot be stopped: `compile` calls it in a process of its own.
pub(crate) fn compile(component: &[u8]) -> Result<Vec<u8>, String> {
    let engine = engine(Allocation::OnDemand).map_err(|error| format!("{error:#}"))?;
    engine.precompile_component(component).map_err(|error| format!("{error:#}"))
}

/// 16 hex digits that differ wherever machine code does: version, settings, CPU.
pub(crate) fn machine_tag() -> Result<String, String> {
    let engine = engine(Allocation::OnDemand).map_err(|error| format!("{error:#}"))?;
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}
