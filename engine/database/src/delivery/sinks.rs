//! From a sink's definition to what a connector opens.
//!
//! [`sink_spec`] is `pipeline`'s way; `session::delivery` tries a sink out before there is a pipeline. What a native
//! connector takes it says itself (`Connectors::validate`): where a statement leaves something open, the first that
//! it accepts is taken.

use std::sync::Arc;

use sepal_crypto::random_bytes;
use sepal_storage::Snapshot;
use sepal_types::{Error, Result, SqlState};

use super::{
    Delivery, components, fault_error,
    objects::{Objects, PipelineDef, SinkConnector, SinkDef},
    plugins::{self, Plugin},
};
use crate::{
    connector::{Encoding, Envelope, Fault, PluginKind, SinkSpec, Tier},
    sealing::hex,
    tenant::OpenTenant,
};

/// What a pipeline has said of the way its rows travel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub encoding: Option<Encoding>,
    pub envelope: Option<Envelope>,
    pub tier: Option<Tier>,
    /// Whether rows have a key: without one there is no [`Envelope::Upsert`].
    pub keyed: bool,
}

impl Wanted {
    /// What an existing pipeline goes on with.
    pub fn of(pipeline: &PipelineDef) -> Self {
        Self {
            encoding: Some(pipeline.encoding),
            envelope: Some(pipeline.envelope),
            tier: Some(pipeline.tier),
            keyed: !pipeline.key.is_empty(),
        }
    }
}

/// How rows travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub encoding: Encoding,
    pub envelope: Envelope,
    pub tier: Tier,
}

/// What a pipeline opens. Reads a component: blocking.
///
/// Errors: 42704 for a sink or plugin that is gone; XX001 for a component that is.
pub fn sink_spec(tenant: &OpenTenant, objects: &Objects, pipeline: &PipelineDef) -> Result<SinkSpec> {
    let sink = objects.sink(&pipeline.environment, &pipeline.sink).ok_or_else(|| no_sink(&pipeline.sink))?;
    let plugin = plugin_of(&tenant.delivery, objects, sink)?;
    let snapshot = tenant.store.snapshot();
    let way = Way { encoding: pipeline.encoding, envelope: pipeline.envelope, tier: pipeline.tier };
    let id = pipeline.id.clone();
    spec(&tenant.delivery, &snapshot, (sink, plugin.as_ref()), id, way)
}

/// The plugin that carries a sink; `None` for a native connector. Errors: as [`plugins::find`]; 0A000 for a connector
/// that this process has not.
pub fn plugin_of(delivery: &Delivery, objects: &Objects, sink: &SinkDef) -> Result<Option<Plugin>> {
    match &sink.connector {
        SinkConnector::Plugin { name, version } => {
            let (environment, version) = (&sink.environment, version.as_deref());
            plugins::find(delivery, objects, environment, name, PluginKind::Sink, version).map(Some)
        }
        SinkConnector::Native(name) => {
            let known = delivery.connectors()?.native();
            if known.contains(&name.as_str()) {
                return Ok(None);
            }
            Err(Error::unsupported(format!("there is no connector \"{name}\""))
                .with_hint(format!("There are {}, and plugins: USING PLUGIN name.", known.join(", "))))
        }
    }
}

/// The specification of a sink with its plugin, if it has one. Reads a component: blocking.
fn spec(
    delivery: &Delivery,
    snapshot: &Snapshot,
    (sink, plugin): (&SinkDef, Option<&Plugin>),
    id: String,
    way: Way,
) -> Result<SinkSpec> {
    let own = plugin.filter(|plugin| plugin.own);
    let component: Option<Arc<[u8]>> =
        own.map(|plugin| components::read(snapshot, &plugin.facts.sha256)).transpose()?;
    let connector = match (&sink.connector, plugin) {
        (_, Some(plugin)) => plugin.connector(),
        (SinkConnector::Native(name) | SinkConnector::Plugin { name, .. }, None) => name.clone(),
    };
    Ok(SinkSpec {
        tenant: delivery.tenant,
        environment: sink.environment.clone(),
        name: sink.name.clone(),
        id,
        connector,
        component,
        options: sink.options.clone(),
        allow_hosts: sink.allow_hosts.clone(),
        reveal: delivery.allow_reveal && plugin.is_some_and(asks_to_reveal),
        encoding: way.encoding,
        envelope: way.envelope,
        tier: way.tier,
    })
}

/// Whether a plugin asks to see its secrets' values.
pub fn asks_to_reveal(plugin: &Plugin) -> bool {
    plugin.facts.capabilities.iter().any(|asked| asked == "reveal" || asked.starts_with("reveal "))
}

/// A specification that its connector accepts, with what `wanted` leaves open filled in. Reads a component: blocking.
///
/// Errors: 42501 for a plugin that asks for `reveal` where it is not granted; 0A000 for a way that the plugin does not
/// know; what the connector has to say against the options.
pub fn accepted(
    delivery: &Delivery,
    objects: &Objects,
    snapshot: &Snapshot,
    sink: &SinkDef,
    wanted: Wanted,
) -> Result<SinkSpec> {
    let connectors = delivery.connectors()?;
    let plugin = plugin_of(delivery, objects, sink)?;
    if plugin.as_ref().is_some_and(asks_to_reveal) && !delivery.allow_reveal {
        return Err(Error::new(
            SqlState::InsufficientPrivilege,
            format!("the plugin of sink \"{}\" asks to see the values of its secrets", sink.name),
        )
        .with_hint("The server's operator can grant that to plugins: the setting allow_reveal."));
    }
    let ways = ways(plugin.as_ref(), wanted)?;
    let mut ways = ways.into_iter();
    let first = ways.next().ok_or_else(|| Error::bug("a sink without a way for its rows"))?;
    // Of every row's way the component is the same: it is read once.
    let mut spec = spec(delivery, snapshot, (sink, plugin.as_ref()), hex(&random_bytes::<16>()), first)?;
    let Err(problem) = connectors.validate(&spec) else { return Ok(spec) };
    let mut problems = vec![problem];
    for way in ways {
        (spec.encoding, spec.envelope, spec.tier) = (way.encoding, way.envelope, way.tier);
        match connectors.validate(&spec) {
            Ok(()) => return Ok(spec),
            Err(problem) => problems.push(problem),
        }
    }
    // What most ways suffer from is the options' fault, not the way's.
    let frequency = |fault: &&Fault| problems.iter().filter(|other| other == fault).count();
    let problem = problems.iter().max_by_key(frequency);
    Err(problem
        .map_or_else(|| Error::bug("a sink was refused without a reason"), |fault| refused(sink, fault)))
}

pub fn refused(sink: &SinkDef, fault: &Fault) -> Error {
    fault_error(&format!("sink \"{}\"", sink.name), fault)
}

pub fn no_sink(name: &str) -> Error {
    Error::new(SqlState::UndefinedObject, format!("sink \"{name}\" does not exist"))
        .with_hint("SHOW SINKS lists those of this environment.")
}

/// The ways that fit, the best first. Of a plugin its manifest tells; a native connector is asked about each.
fn ways(plugin: Option<&Plugin>, wanted: Wanted) -> Result<Vec<Way>> {
    let (encodings, envelopes, tiers) = match plugin {
        Some(plugin) => {
            let facts = &plugin.facts;
            if let Some(tier) = wanted.tier.filter(|tier| *tier > facts.tier) {
                return Err(Error::unsupported(format!(
                    "plugin {} delivers {}, not {}",
                    facts.name,
                    tier_name(facts.tier),
                    tier_name(tier)
                ))
                .with_hint("Leave delivery out of WITH, or ask for less."));
            }
            (facts.encodings.clone(), facts.envelopes.clone(), vec![wanted.tier.unwrap_or(facts.tier)])
        }
        None => (
            vec![Encoding::Ndjson, Encoding::ArrowIpcStream],
            vec![Envelope::Upsert, Envelope::Append, Envelope::Debezium],
            wanted.tier.map_or_else(
                || vec![Tier::Transactional, Tier::Idempotent, Tier::AtLeastOnce],
                |tier| vec![tier],
            ),
        ),
    };
    let encodings = narrowed("format", encodings, wanted.encoding, encoding_name)?;
    let mut envelopes = narrowed("envelope", envelopes, wanted.envelope, envelope_name)?;
    if !wanted.keyed {
        envelopes.retain(|envelope| *envelope != Envelope::Upsert);
    }
    if envelopes.is_empty() {
        return Err(Error::new(
            SqlState::InvalidTableDefinition,
            "the envelope UPSERT needs a key, and the pipeline has none",
        )
        .with_hint("Name it: KEY (column), or give the table a primary key and select its columns."));
    }
    let mut ways = Vec::new();
    for tier in tiers {
        for &encoding in &encodings {
            ways.extend(envelopes.iter().map(|&envelope| Way { encoding, envelope, tier }));
        }
    }
    Ok(ways)
}

/// The wanted one, if it is known; all that are known if none is wanted.
fn narrowed<T: Copy + PartialEq>(
    what: &str,
    known: Vec<T>,
    wanted: Option<T>,
    name: fn(T) -> &'static str,
) -> Result<Vec<T>> {
    let Some(wanted) = wanted else { return Ok(known) };
    if known.contains(&wanted) {
        return Ok(vec![wanted]);
    }
    let names: Vec<&str> = known.into_iter().map(name).collect();
    Err(Error::unsupported(format!("the sink's plugin does not take the {what} {}", name(wanted)))
        .with_hint(format!("It takes {}.", names.join(", "))))
}

/// The word after FORMAT.
pub const fn encoding_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::ArrowIpcStream => "ARROW",
        Encoding::Ndjson => "NDJSON",
    }
}

/// The word after ENVELOPE.
pub const fn envelope_name(envelope: Envelope) -> &'static str {
    match envelope {
        Envelope::Append => "APPEND",
        Envelope::Upsert => "UPSERT",
        Envelope::Debezium => "DEBEZIUM",
    }
}

/// As WITH (delivery = …) spells it.
pub const fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::AtLeastOnce => "at-least-once",
        Tier::Idempotent => "idempotent",
        Tier::Transactional => "transactional",
    }
}
