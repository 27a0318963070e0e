//! What a tenant has defined: trust keys, plugins, resolvers, sinks and pipelines, as rows of `objects`.
//!
//! `session::delivery` writes them inside its transaction, `pipeline` and `secrets` read them from a snapshot. Each
//! is JSON whose fields are only ever added, with a default. None holds a secret: options name them.
//!
//! Everything belongs to one environment, plugins and trust keys too: a key that is limited to `dev` must not be able
//! to change what runs in `prod`.

use std::collections::BTreeMap;

use sepal_storage::{Op, Snapshot, TenantStore};
use sepal_types::{ColumnId, Error, Result, SqlState, TableId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::system_tables::{Cell, SystemTable};
use crate::connector::{Encoding, Envelope, PluginFacts, Setting, Tier};

/// A definition that is a row of `objects`.
pub trait Object: Serialize + DeserializeOwned {
    /// Its `kind` in the table. For ever.
    const KIND: &'static str;

    fn environment(&self) -> &str;

    fn name(&self) -> &str;
}

/// Whose signature a plugin may carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustKeyDef {
    pub name: String,
    pub environment: String,
    /// `ed25519:…`, as it was given.
    pub key: String,
    /// API key id.
    pub created_by: String,
    /// Microseconds since 1970 UTC, as the other times.
    pub created_at: i64,
}

/// A tenant's own plugin. Its bytes are in `components`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginDef {
    pub name: String,
    pub environment: String,
    pub facts: PluginFacts,
    /// The trust key whose signature it carries; `None`: unsigned.
    pub signed_by: Option<String>,
    /// Counts its components: whoever runs an older one begins anew with the newer.
    pub revision: u64,
    pub created_by: String,
    pub created_at: i64,
}

/// A place where secrets are kept outside of Sepal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResolverDef {
    pub name: String,
    pub environment: String,
    /// A plugin of the environment, else a bundled one.
    pub plugin: String,
    pub options: BTreeMap<String, Setting>,
    pub allow_hosts: Vec<String>,
    pub created_by: String,
    pub created_at: i64,
}

/// What carries the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkConnector {
    /// A plugin of the environment, else a bundled one; with the start of the versions that will do.
    Plugin {
        name: String,
        version: Option<String>,
    },
    Native(String),
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SinkDef {
    pub name: String,
    pub environment: String,
    pub connector: SinkConnector,
    pub options: BTreeMap<String, Setting>,
    pub allow_hosts: Vec<String>,
    /// Whose right to use the secrets it has: of the API key that said the options last.
    pub created_by: String,
    pub created_at: i64,
    /// Counts its changes: an opened sink of an older one is closed and opened anew.
    pub revision: u64,
}

/// What is done when a batch's attempts are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnExhausted {
    Pause,
    DeadLetter,
}

/// What is done with rows that the destination will never take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRejected {
    DeadLetter,
    Pause,
}

/// The changes of one table on their way to a sink.
///
/// # Where it begins
/// The commit that creates a pipeline inserts its row into `objects` and alters its table to `captured`, if only in
/// writing the same definition again, so that DROP TABLE conflicts with it. A statement does not know the place of its
/// own commit: `created_after` is a commit before it, and changes of the table between the two are not the pipeline's.
/// The creating commit is the first one after `created_after` that inserts a row with this `id` into `objects`
/// (`SystemTable::Objects::id` of a snapshot; `kind` is `pipeline`, `body` holds the id). While the pipeline has no row
/// in `pipeline_state`, `pipeline` holds the log from `created_after`.
///
/// `table` is captured from that commit on: later deletions carry what they delete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineDef {
    /// 32 hex digits, random: the key of everything that the pipeline leaves.
    pub id: String,
    pub name: String,
    pub environment: String,
    /// The SELECT, with `*` written out: columns that are added later are not sent.
    pub query: String,
    pub sink: String,
    /// Names among the query's columns. Empty: changes are not paired up.
    pub key: Vec<String>,
    pub encoding: Encoding,
    pub envelope: Envelope,
    pub tier: Tier,
    pub table: TableId,
    /// The columns of the table that the query reads.
    pub reads: Vec<ColumnId>,
    pub paused: bool,
    /// Rises with RESET: what older generations left does not count.
    pub generation: u64,
    /// Of RESUME FROM POSITION: rises with each, and the position.
    pub resume_from: Option<(u64, String)>,
    /// Rises with RESUME: a pipeline that stopped by itself tries again.
    #[serde(default)]
    pub resumed: u64,
    /// Whether it begins with the rows that the table has.
    pub snapshot: bool,
    pub batch_rows: u32,
    pub batch_bytes: u32,
    pub linger_ms: u32,
    pub max_attempts: u32,
    pub on_exhausted: OnExhausted,
    pub on_rejected: OnRejected,
    /// See above.
    pub created_after: u64,
    pub created_by: String,
    pub created_at: i64,
}

macro_rules! object {
    ($def:ty, $kind:literal) => {
        impl Object for $def {
            const KIND: &'static str = $kind;

            fn environment(&self) -> &str {
                &self.environment
            }

            fn name(&self) -> &str {
                &self.name
            }
        }
    };
}

object!(TrustKeyDef, "trust-key");
object!(PluginDef, "plugin");
object!(ResolverDef, "resolver");
object!(SinkDef, "sink");
object!(PipelineDef, "pipeline");

/// All definitions of a tenant at one snapshot.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    trust_keys: Vec<TrustKeyDef>,
    plugins: Vec<PluginDef>,
    resolvers: Vec<ResolverDef>,
    sinks: Vec<SinkDef>,
    pipelines: Vec<PipelineDef>,
}

impl Objects {
    /// Errors: XX001 when a definition cannot be read.
    pub fn of(snapshot: &Snapshot) -> Result<Self> {
        let rows = SystemTable::Objects.rows(snapshot)?;
        let mut objects = Self::default();
        for row in 0..rows.len() {
            let (kind, body) = (rows.text("kind", row), rows.text("body", row).unwrap_or_default());
            match kind {
                Some(TrustKeyDef::KIND) => objects.trust_keys.push(read(body)?),
                Some(PluginDef::KIND) => objects.plugins.push(read(body)?),
                Some(ResolverDef::KIND) => objects.resolvers.push(read(body)?),
                Some(SinkDef::KIND) => objects.sinks.push(read(body)?),
                Some(PipelineDef::KIND) => objects.pipelines.push(read(body)?),
                // Of a newer version: this one neither runs nor shows it.
                _ => {}
            }
        }
        objects.sort();
        Ok(objects)
    }

    /// By name: the order of the table changes with each write.
    fn sort(&mut self) {
        fn by_name<T: Object>(objects: &mut [T]) {
            objects.sort_by(|one, other| {
                (one.environment(), one.name()).cmp(&(other.environment(), other.name()))
            });
        }
        by_name(&mut self.trust_keys);
        by_name(&mut self.plugins);
        by_name(&mut self.resolvers);
        by_name(&mut self.sinks);
        by_name(&mut self.pipelines);
    }

    /// Of every environment, by name within each.
    pub fn pipelines(&self) -> impl Iterator<Item = &PipelineDef> {
        self.pipelines.iter()
    }

    pub fn pipelines_in(&self, environment: &str) -> impl Iterator<Item = &PipelineDef> {
        of_environment(&self.pipelines, environment)
    }

    /// Of every environment, as [`Self::resolvers`] and [`Self::trust_keys`].
    pub fn sinks(&self) -> impl Iterator<Item = &SinkDef> {
        self.sinks.iter()
    }

    pub fn resolvers(&self) -> impl Iterator<Item = &ResolverDef> {
        self.resolvers.iter()
    }

    pub fn trust_keys(&self) -> impl Iterator<Item = &TrustKeyDef> {
        self.trust_keys.iter()
    }

    pub fn sinks_in(&self, environment: &str) -> impl Iterator<Item = &SinkDef> {
        of_environment(&self.sinks, environment)
    }

    pub fn resolvers_in(&self, environment: &str) -> impl Iterator<Item = &ResolverDef> {
        of_environment(&self.resolvers, environment)
    }

    /// Of every environment: components are shared by hash.
    pub fn plugins(&self) -> impl Iterator<Item = &PluginDef> {
        self.plugins.iter()
    }

    pub fn plugins_in(&self, environment: &str) -> impl Iterator<Item = &PluginDef> {
        of_environment(&self.plugins, environment)
    }

    pub fn trust_keys_in(&self, environment: &str) -> impl Iterator<Item = &TrustKeyDef> {
        of_environment(&self.trust_keys, environment)
    }

    pub fn pipeline(&self, environment: &str, name: &str) -> Option<&PipelineDef> {
        named(&self.pipelines, environment, name)
    }

    pub fn sink(&self, environment: &str, name: &str) -> Option<&SinkDef> {
        named(&self.sinks, environment, name)
    }

    pub fn resolver(&self, environment: &str, name: &str) -> Option<&ResolverDef> {
        named(&self.resolvers, environment, name)
    }

    pub fn plugin(&self, environment: &str, name: &str) -> Option<&PluginDef> {
        named(&self.plugins, environment, name)
    }

    pub fn trust_key(&self, environment: &str, name: &str) -> Option<&TrustKeyDef> {
        named(&self.trust_keys, environment, name)
    }
}

/// Operations that write a definition in the place of the one of its name, if there is one.
pub fn put<T: Object>(store: &TenantStore, snapshot: &Snapshot, object: &T) -> Result<Vec<Op>> {
    let body = serde_json::to_string(object)
        .map_err(|problem| Error::bug(format!("a {} does not serialise: {problem}", T::KIND)))?;
    let mut row = key::<T>(object.environment(), object.name());
    row.push(Cell::text(body));
    SystemTable::Objects.upsert_ops(store, snapshot, &[row])
}

/// Operations that remove a definition.
pub fn remove<T: Object>(snapshot: &Snapshot, environment: &str, name: &str) -> Result<Vec<Op>> {
    SystemTable::Objects.delete_ops(snapshot, &[key::<T>(environment, name)])
}

fn key<T: Object>(environment: &str, name: &str) -> Vec<Cell> {
    vec![Cell::text(T::KIND), Cell::text(environment), Cell::text(name)]
}

fn read<T: Object>(body: &str) -> Result<T> {
    serde_json::from_str(body).map_err(|problem| {
        // Positions only: a message of serde's may quote what it found.
        let place = format!("line {}, column {}", problem.line(), problem.column());
        Error::new(SqlState::DataCorrupted, format!("the stored definition of a {} does not parse", T::KIND))
            .with_detail(place)
            .with_hint("It was written by a newer version of Sepal, or is damaged: start the newer version.")
    })
}

fn of_environment<'a, T: Object>(objects: &'a [T], environment: &str) -> impl Iterator<Item = &'a T> {
    objects.iter().filter(move |object| object.environment() == environment)
}

fn named<'a, T: Object>(objects: &'a [T], environment: &str, name: &str) -> Option<&'a T> {
    objects.iter().find(|object| object.environment() == environment && object.name() == name)
}
