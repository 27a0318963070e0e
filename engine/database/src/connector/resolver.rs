//! A place where secrets are kept outside of Sepal: what it is made from, what it is asked, what it answers.

use std::{collections::BTreeMap, fmt, sync::Arc};

use sepal_types::TenantId;
use zeroize::Zeroizing;

use super::{Fault, Setting};

/// A resolver as CREATE SECRET RESOLVER defined it.
#[derive(Clone, Debug)]
pub struct ResolverSpec {
    pub tenant: TenantId,
    pub environment: String,
    pub name: String,
    /// `plugin:<name>` of a bundled one when `component` is `None`.
    pub connector: String,
    pub component: Option<Arc<[u8]>>,
    /// Its own credential is a secret that is stored, never one that is resolved.
    pub options: BTreeMap<String, Setting>,
    pub allow_hosts: Vec<String>,
}

/// One secret that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveRequest {
    pub name: String,
    /// From CREATE SECRET … FROM: path, field, version.
    pub options: BTreeMap<String, String>,
    pub have_version: Option<String>,
}

/// What a resolver says about one request.
#[derive(Clone, Debug)]
pub enum ResolveAnswer {
    Value(ResolvedValue),
    Unchanged,
    NotFound,
    Failed(Fault),
}

/// A value from outside, wiped when dropped.
#[derive(Clone)]
pub struct ResolvedValue {
    pub value: Zeroizing<Vec<u8>>,
    pub version: Option<String>,
    pub ttl_seconds: Option<u32>,
    pub lease_id: Option<String>,
}

impl fmt::Debug for ResolvedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolvedValue")
            .field("version", &self.version)
            .field("ttl_seconds", &self.ttl_seconds)
            .finish_non_exhaustive()
    }
}
