//! `sepal_secrets`, `sepal_sinks`, `sepal_pipelines`, …: what goes out, and with which secrets.
//!
//! Never a secret's value: the rows have none.

use super::super::CatalogContext;
use super::super::names::name_list;
use super::super::shape::{DEAD_LETTERS, Relation, Rows};
use super::super::value::Value;

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "sepal_secrets",
        12_200,
        "name text, version bigint, source text, env_name text, allowed_hosts text[], owner text, \
         created_at timestamp with time zone, updated_at timestamp with time zone",
        secrets,
    ),
    Relation::catalog(
        "sepal_certificates",
        12_201,
        "name text, version bigint, subject text, not_before timestamp with time zone, not_after \
         timestamp with time zone, sha256 text, owner text",
        certificates,
    ),
    Relation::catalog(
        "sepal_secret_usage",
        12_202,
        "at timestamp with time zone, name text, version text, used_by text, purpose text",
        secret_usage,
    ),
    Relation::catalog(
        "sepal_resolvers",
        12_203,
        "name text, plugin text, options text, allow_hosts text[]",
        resolvers,
    ),
    Relation::catalog(
        "sepal_plugins",
        12_204,
        "name text, version text, kind text, api text, summary text, license text, sha256 text, \
         bytes bigint, signed_by text, bundled boolean",
        plugins,
    ),
    Relation::catalog(
        "sepal_plugin_capabilities",
        12_205,
        "plugin text, capability text",
        plugin_capabilities,
    ),
    Relation::catalog(
        "sepal_sinks",
        12_206,
        "name text, connector text, options text, allow_hosts text[], pipelines text[]",
        sinks,
    ),
    Relation::catalog(
        "sepal_pipelines",
        12_207,
        "name text, query text, sink text, key text[], format text, envelope text, options text",
        pipelines,
    ),
    Relation::catalog(
        "sepal_pipeline_status",
        12_208,
        "pipeline text, state text, phase text, lag_rows bigint, lag_seconds double precision, \
         position text, attempts bigint, last_error text, last_error_code text, rows_delivered \
         bigint, batches_delivered bigint, rows_dead bigint, retained_bytes bigint, \
         retention_limit_bytes bigint, updated_at timestamp with time zone",
        pipeline_status,
    ),
    Relation::catalog(
        DEAD_LETTERS,
        12_209,
        "id bigint, pipeline text, at timestamp with time zone, code text, message text, op text, \
         key text, row text, batch_id text, position text",
        dead_letters,
    ),
];

fn time(micros: Option<i64>) -> Value {
    micros.map_or(Value::Null, Value::Time)
}

fn list(items: &[String]) -> Value {
    name_list(items.iter().map(String::as_str))
}

fn secrets(context: &CatalogContext, rows: &mut Rows) {
    for secret in &context.delivery.secrets {
        rows.push([
            ("name", secret.name.as_str().into()),
            ("version", secret.version.into()),
            ("source", secret.source.as_str().into()),
            ("env_name", secret.env_name.as_str().into()),
            ("allowed_hosts", secret.allowed_hosts.as_deref().map_or(Value::Null, list)),
            ("owner", secret.owner.as_str().into()),
            ("created_at", time(secret.created_at)),
            ("updated_at", time(secret.updated_at)),
        ]);
    }
}

fn certificates(context: &CatalogContext, rows: &mut Rows) {
    for certificate in &context.delivery.certificates {
        rows.push([
            ("name", certificate.name.as_str().into()),
            ("version", certificate.version.into()),
            ("subject", certificate.subject.as_str().into()),
            ("not_before", time(certificate.not_before)),
            ("not_after", time(certificate.not_after)),
            ("sha256", certificate.sha256.as_str().into()),
            ("owner", certificate.owner.as_str().into()),
        ]);
    }
}

fn secret_usage(context: &CatalogContext, rows: &mut Rows) {
    for usage in context.delivery.secret_usage.iter() {
        rows.push([
            ("at", time(usage.at)),
            ("name", usage.name.as_str().into()),
            ("version", usage.version.as_str().into()),
            ("used_by", usage.used_by.as_str().into()),
            ("purpose", usage.purpose.as_str().into()),
        ]);
    }
}

fn resolvers(context: &CatalogContext, rows: &mut Rows) {
    for resolver in &context.delivery.resolvers {
        rows.push([
            ("name", resolver.name.as_str().into()),
            ("plugin", resolver.plugin.as_str().into()),
            ("options", resolver.options.as_str().into()),
            ("allow_hosts", list(&resolver.allow_hosts)),
        ]);
    }
}

fn plugins(context: &CatalogContext, rows: &mut Rows) {
    for plugin in &context.delivery.plugins {
        rows.push([
            ("name", plugin.name.as_str().into()),
            ("version", plugin.version.as_str().into()),
            ("kind", plugin.kind.as_str().into()),
            ("api", plugin.api.as_str().into()),
            ("summary", plugin.summary.as_str().into()),
            ("license", plugin.license.as_str().into()),
            ("sha256", plugin.sha256.as_str().into()),
            ("bytes", plugin.bytes.into()),
            ("signed_by", plugin.signed_by.as_ref().into()),
            ("bundled", plugin.bundled.into()),
        ]);
    }
}

fn plugin_capabilities(context: &CatalogContext, rows: &mut Rows) {
    for row in &context.delivery.plugin_capabilities {
        rows.push([("plugin", row.plugin.as_str().into()), ("capability", row.capability.as_str().into())]);
    }
}

fn sinks(context: &CatalogContext, rows: &mut Rows) {
    for sink in &context.delivery.sinks {
        rows.push([
            ("name", sink.name.as_str().into()),
            ("connector", sink.connector.as_str().into()),
            ("options", sink.options.as_str().into()),
            ("allow_hosts", list(&sink.allow_hosts)),
            ("pipelines", list(&sink.pipelines)),
        ]);
    }
}

fn pipelines(context: &CatalogContext, rows: &mut Rows) {
    for pipeline in &context.delivery.pipelines {
        rows.push([
            ("name", pipeline.name.as_str().into()),
            ("query", pipeline.query.as_str().into()),
            ("sink", pipeline.sink.as_str().into()),
            ("key", list(&pipeline.key)),
            ("format", pipeline.format.as_str().into()),
            ("envelope", pipeline.envelope.as_str().into()),
            ("options", pipeline.options.as_str().into()),
        ]);
    }
}

fn pipeline_status(context: &CatalogContext, rows: &mut Rows) {
    for status in &context.delivery.pipeline_status {
        rows.push([
            ("pipeline", status.pipeline.as_str().into()),
            ("state", status.state.as_str().into()),
            ("phase", status.phase.as_str().into()),
            ("lag_rows", status.lag_rows.map_or(Value::Null, Value::Int)),
            ("lag_seconds", status.lag_seconds.map_or(Value::Null, Value::Float)),
            ("position", status.position.as_ref().into()),
            ("attempts", status.attempts.into()),
            ("last_error", status.last_error.as_ref().into()),
            ("last_error_code", status.last_error_code.as_ref().into()),
            ("rows_delivered", status.rows_delivered.into()),
            ("batches_delivered", status.batches_delivered.into()),
            ("rows_dead", status.rows_dead.into()),
            ("retained_bytes", status.retained_bytes.into()),
            ("retention_limit_bytes", status.retention_limit_bytes.into()),
            ("updated_at", time(status.updated_at)),
        ]);
    }
}

fn dead_letters(context: &CatalogContext, rows: &mut Rows) {
    for letter in context.delivery.dead_letters.iter() {
        rows.push([
            ("id", letter.id.into()),
            ("pipeline", letter.pipeline.as_str().into()),
            ("at", time(letter.at)),
            ("code", letter.code.as_str().into()),
            ("message", letter.message.as_str().into()),
            ("op", letter.op.as_str().into()),
            ("key", letter.key.as_ref().into()),
            ("row", letter.row.as_ref().into()),
            ("batch_id", letter.batch_id.as_str().into()),
            ("position", letter.position.as_str().into()),
        ]);
    }
}
