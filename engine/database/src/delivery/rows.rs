//! What the views of secrets, sinks, pipelines and plugins show of one environment.
//!
//! Called by the session when one of the views is read. Nothing secret is among it: of a secret its name and facts, of
//! options what was allowed to be in clear.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use sepal_control::{Scope, SecretOrigin};
use sepal_query::catalog::delivery::{
    CertificateRow, DeadLetterRow, DeliveryRows, PipelineRow, PluginCapabilityRow, PluginRow, ResolverRow,
    SecretRow, SecretUseRow, SinkRow,
};
use sepal_storage::Snapshot;
use sepal_types::Result;

use super::{
    Delivery,
    objects::{Objects, OnExhausted, OnRejected, PipelineDef, SinkConnector, SinkDef},
    settings,
    sinks::{encoding_name, envelope_name, tier_name},
    system_tables::{Rows, SystemTable},
};
use crate::{
    connector::{PluginFacts, PluginKind},
    tenant::OpenTenant,
};

/// Most uses of secrets that the view shows: as many as are kept.
const MOST_USES: usize = 10_000;
/// Most dead letters that the view shows, and their bytes: the oldest, for they are the first to be sent again.
/// `rows_dead` of a pipeline's status counts them all.
const MOST_LETTERS: usize = 100_000;
const MOST_LETTER_BYTES: usize = 64 << 20;

/// Rows of an environment at a snapshot. What cannot be read is in the log, and not shown. `may_read`: whether the
/// key may read the tenant's rows, which dead letters are and errors may quote.
pub fn rows(
    tenant: &Arc<OpenTenant>,
    snapshot: &Snapshot,
    environment: &str,
    may_read: bool,
) -> DeliveryRows {
    let delivery = &tenant.delivery;
    let scope = Scope { tenant: delivery.tenant, environment };
    let objects = shown("definitions", Objects::of(snapshot));
    let (mut plugins, mut capabilities) = (Vec::new(), Vec::new());
    for def in objects.plugins_in(environment) {
        plugins.push(PluginRow { signed_by: def.signed_by.clone(), ..plugin(&def.name, &def.facts, false) });
        capabilities.extend(asked(&def.name, &def.facts));
    }
    for facts in delivery.connectors().map(|connectors| connectors.bundled()).unwrap_or_default() {
        plugins.push(plugin(&facts.name, &facts, true));
        capabilities.extend(asked(&facts.name, &facts));
    }
    DeliveryRows {
        secrets: shown("secrets", secrets(delivery, &scope)),
        certificates: shown("certificates", certificates(delivery, &scope)),
        resolvers: objects
            .resolvers_in(environment)
            .map(|def| ResolverRow {
                name: def.name.clone(),
                plugin: def.plugin.clone(),
                options: settings::shown(&def.options),
                allow_hosts: def.allow_hosts.clone(),
            })
            .collect(),
        plugins,
        plugin_capabilities: capabilities,
        sinks: objects.sinks_in(environment).map(|def| sink(&objects, def)).collect(),
        pipelines: objects.pipelines_in(environment).map(pipeline).collect(),
        pipeline_status: {
            // What runs may be one that was dropped a moment ago.
            let mut status = tenant.pipelines.status(environment);
            status.retain(|row| objects.pipelines_in(environment).any(|def| def.name == row.pipeline));
            if !may_read {
                // A destination quotes the rows that it refuses. The code has nothing of them.
                status.iter_mut().for_each(|row| row.last_error = None);
            }
            status
        },
        secret_usage: {
            let (delivery, environment) = (Arc::clone(delivery), environment.to_owned());
            LazyLock::new(Box::new(move || shown("uses of secrets", uses(&delivery, &environment))))
        },
        dead_letters: {
            let snapshot = snapshot.clone();
            let names: HashMap<String, String> = objects
                .pipelines_in(environment)
                .filter(|_| may_read)
                .map(|def| (def.id.clone(), def.name.clone()))
                .collect();
            LazyLock::new(Box::new(move || shown("dead letters", dead_letters(&snapshot, &names))))
        },
    }
}

fn shown<T: Default>(what: &str, rows: Result<T>) -> T {
    rows.unwrap_or_else(|error| {
        tracing::error!(%error, "the {what} cannot be listed");
        T::default()
    })
}

/// Unix seconds as microseconds.
fn micros(seconds: i64) -> Option<i64> {
    seconds.checked_mul(1_000_000)
}

fn secrets(delivery: &Delivery, scope: &Scope<'_>) -> Result<Vec<SecretRow>> {
    let listed = delivery.control.list_secrets(scope)?;
    let row = |secret: sepal_control::Secret| SecretRow {
        name: secret.name.to_string(),
        version: secret.version,
        source: match secret.source {
            SecretOrigin::Stored => "stored".to_owned(),
            SecretOrigin::Resolver { resolver, .. } => resolver,
            SecretOrigin::Environment { .. } => "environment".to_owned(),
            SecretOrigin::File { .. } => "file".to_owned(),
        },
        env_name: secret.env_name,
        allowed_hosts: secret.allowed_hosts,
        owner: secret.owner,
        created_at: micros(secret.created_at),
        updated_at: micros(secret.updated_at),
    };
    Ok(listed.into_iter().map(row).collect())
}

fn certificates(delivery: &Delivery, scope: &Scope<'_>) -> Result<Vec<CertificateRow>> {
    let listed = delivery.control.list_certificates(scope)?;
    let row = |certificate: sepal_control::Certificate| CertificateRow {
        name: certificate.name.to_string(),
        version: certificate.version,
        subject: certificate.subject,
        not_before: micros(certificate.not_before),
        not_after: micros(certificate.not_after),
        sha256: certificate.sha256,
        owner: certificate.owner,
    };
    Ok(listed.into_iter().map(row).collect())
}

fn uses(delivery: &Delivery, environment: &str) -> Result<Vec<SecretUseRow>> {
    let scope = Scope { tenant: delivery.tenant, environment };
    let listed = delivery.control.secret_uses(&scope, MOST_USES)?;
    let row = |used: sepal_control::SecretUse| SecretUseRow {
        at: micros(used.at),
        name: used.name,
        version: used.version,
        used_by: used.who,
        purpose: used.why,
    };
    Ok(listed.into_iter().map(row).collect())
}

fn plugin(name: &str, facts: &PluginFacts, bundled: bool) -> PluginRow {
    PluginRow {
        name: name.to_owned(),
        version: facts.version.clone(),
        kind: match facts.kind {
            PluginKind::Sink => "sink".to_owned(),
            PluginKind::Resolver => "resolver".to_owned(),
        },
        api: facts.api.clone(),
        summary: facts.summary.clone(),
        license: facts.license.clone(),
        sha256: facts.sha256.clone(),
        bytes: facts.bytes,
        signed_by: None,
        bundled,
    }
}

fn asked(name: &str, facts: &PluginFacts) -> impl Iterator<Item = PluginCapabilityRow> {
    let row =
        |capability: &String| PluginCapabilityRow { plugin: name.to_owned(), capability: capability.clone() };
    facts.capabilities.iter().map(row).collect::<Vec<_>>().into_iter()
}

fn sink(objects: &Objects, def: &SinkDef) -> SinkRow {
    let pipelines = objects.pipelines_in(&def.environment).filter(|pipeline| pipeline.sink == def.name);
    SinkRow {
        name: def.name.clone(),
        connector: match &def.connector {
            SinkConnector::Plugin { name, version: None } => format!("plugin {name}"),
            SinkConnector::Plugin { name, version: Some(version) } => format!("plugin {name} {version}"),
            SinkConnector::Native(name) => name.clone(),
        },
        options: settings::shown(&def.options),
        allow_hosts: def.allow_hosts.clone(),
        pipelines: pipelines.map(|pipeline| pipeline.name.clone()).collect(),
    }
}

fn pipeline(def: &PipelineDef) -> PipelineRow {
    let options = serde_json::json!({
        "snapshot": def.snapshot,
        "delivery": tier_name(def.tier),
        "batch_rows": def.batch_rows,
        "batch_bytes": def.batch_bytes,
        "linger": format!("{}ms", def.linger_ms),
        "max_attempts": def.max_attempts,
        "on_exhausted": match def.on_exhausted {
            OnExhausted::Pause => "pause",
            OnExhausted::DeadLetter => "dlq",
        },
        "on_rejected": match def.on_rejected {
            OnRejected::DeadLetter => "dlq",
            OnRejected::Pause => "pause",
        },
    });
    PipelineRow {
        name: def.name.clone(),
        query: def.query.clone(),
        sink: def.sink.clone(),
        key: def.key.clone(),
        format: encoding_name(def.encoding).to_owned(),
        envelope: envelope_name(def.envelope).to_owned(),
        options: options.to_string(),
    }
}

/// Of the pipelines that are there, `names` by id: the oldest ones first, as many as fit.
fn dead_letters(snapshot: &Snapshot, names: &HashMap<String, String>) -> Result<Vec<DeadLetterRow>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let known = |rows: &Rows, row: usize| rows.text("pipeline", row).is_some_and(|id| names.contains_key(id));
    let (mut letters, mut bytes) = (BTreeMap::new(), 0);
    SystemTable::DeadLetters.each_match(snapshot, &["pipeline"], known, |rows| {
        for (id, letter) in (0..rows.len()).filter_map(|row| dead_letter(&rows, row, names)) {
            bytes += letter_bytes(&letter);
            letters.insert(id, letter);
            while (letters.len() > MOST_LETTERS || bytes > MOST_LETTER_BYTES)
                && letters.len() > 1
                && let Some((_, last)) = letters.pop_last()
            {
                bytes -= letter_bytes(&last);
            }
        }
        Ok(())
    })?;
    Ok(letters.into_values().collect())
}

fn dead_letter(rows: &Rows, row: usize, names: &HashMap<String, String>) -> Option<(i64, DeadLetterRow)> {
    let text = |column: &str| rows.text(column, row).map(str::to_owned);
    let pipeline = names.get(rows.text("pipeline", row)?)?;
    let id = rows.int("id", row)?;
    let letter = DeadLetterRow {
        id,
        pipeline: pipeline.clone(),
        at: rows.time("at", row),
        code: text("code").unwrap_or_default(),
        message: text("message").unwrap_or_default(),
        op: text("op").unwrap_or_default(),
        key: text("key"),
        row: text("row"),
        batch_id: text("batch_id").unwrap_or_default(),
        position: text("position").unwrap_or_default(),
    };
    Some((id, letter))
}

fn letter_bytes(letter: &DeadLetterRow) -> usize {
    let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    size_of::<DeadLetterRow>() + letter.message.len() + optional(&letter.key) + optional(&letter.row)
}
