//! What a tenant holds and what it may: the rows of `sepal_usage`. A tenant sees its own only.

use sepal_query::catalog::UsageRow;

use crate::{tenant::OpenTenant, write_memory::WriteMemory};

/// Counted now; files but the log as of when one was last made or removed. A limit of 0 is none, but where it says so.
pub fn rows(tenant: &OpenTenant, writes: &WriteMemory) -> Vec<UsageRow> {
    let (memory, spill, room) = (tenant.engine.memory(), tenant.engine.spill(), &tenant.room);
    let (columns, indexes) = tenant.cached_bytes();
    let row = |resource, used_bytes, limit_bytes: Option<u64>, setting| UsageRow {
        resource,
        used_bytes,
        limit_bytes,
        setting,
    };
    let quota = Some(room.quota_bytes()).filter(|bytes| *bytes > 0);
    let disk = room.disk_bytes(tenant.store.log_bytes());
    vec![
        row("query memory", memory.used() as u64, Some(memory.limit() as u64), "tenant_query_mib"),
        row("temporary files", spill.used_bytes(), Some(spill.limit_bytes()), "tenant_spill_mib"),
        row("unfinished writes", writes.used() as u64, Some(writes.limit() as u64), "tenant_write_mib"),
        row(
            "unflushed rows",
            tenant.store.unflushed_bytes(),
            Some(room.unflushed_limit()),
            "tenant_memtable_mib",
        ),
        row("column cache", columns as u64, tenant.cache_limit(), "tenant_cache_mib"),
        row("index cache", indexes as u64, tenant.cache_limit().map(|bytes| bytes / 2), "tenant_cache_mib"),
        row("disk", disk, quota, "tenant_disk_mib"),
    ]
}
