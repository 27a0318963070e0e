//! WASM by its hash: a tenant's components, shared by the plugins that have the same bytes.
//!
//! Called by `session::delivery` when a plugin comes or goes, and by `sinks` and `secrets` when one is to run.

use std::sync::Arc;

use sepal_crypto::sha256;
use sepal_storage::{Op, Snapshot, TenantStore};
use sepal_types::{Error, Result, SqlState};

use super::{
    objects::Objects,
    system_tables::{Cell, SystemTable},
};
use crate::sealing::hex;

/// Most bytes of a component. Python's runtime alone has 18 MB.
pub const MAX_COMPONENT_BYTES: usize = 32 << 20;

/// The name of a component: SHA-256, lower-case hex.
pub fn hash(component: &[u8]) -> String {
    hex(&sha256(component))
}

/// Operations that keep a component, none when it is there.
pub fn put(store: &TenantStore, snapshot: &Snapshot, component: &[u8]) -> Result<Vec<Op>> {
    let key = Cell::Text(hash(component));
    if SystemTable::Components.get(snapshot, std::slice::from_ref(&key))?.is_some() {
        return Ok(Vec::new());
    }
    SystemTable::Components.insert_ops(store, snapshot, &[vec![key, Cell::Bytes(component.to_vec())]])
}

/// Operations that remove the component of a plugin that goes, unless another plugin has the same.
pub fn remove_unused(
    snapshot: &Snapshot,
    objects: &Objects,
    (environment, plugin): (&str, &str),
) -> Result<Vec<Op>> {
    let Some(going) = objects.plugin(environment, plugin) else { return Ok(Vec::new()) };
    let others = |def: &&super::objects::PluginDef| def.environment != environment || def.name != plugin;
    if objects.plugins().filter(others).any(|def| def.facts.sha256 == going.facts.sha256) {
        return Ok(Vec::new());
    }
    SystemTable::Components.delete_ops(snapshot, &[vec![Cell::text(&going.facts.sha256)]])
}

/// A component's bytes. May decode a segment. Errors: XX001 when they are not there, or not those of the name.
pub fn read(snapshot: &Snapshot, name: &str) -> Result<Arc<[u8]>> {
    let found = SystemTable::Components.get(snapshot, &[Cell::text(name)])?;
    let bytes: Option<Arc<[u8]>> = found.and_then(|rows| rows.bytes("bytes", 0).map(Arc::from));
    bytes.filter(|bytes| hash(bytes) == name).ok_or_else(|| {
        Error::new(SqlState::DataCorrupted, format!("the component {name} is missing"))
            .with_hint("Create the plugin anew: ALTER PLUGIN … UPDATE FROM $1.")
    })
}
