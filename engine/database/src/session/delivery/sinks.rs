//! CREATE SINK, ALTER SINK and VALIDATE SINK: a destination, tried out by the code path of a write.

use std::sync::Arc;

use sepal_query::sql::delivery::{Connector, ObjectKind, Options};
use sepal_storage::{Op, Snapshot};
use sepal_types::{Error, Result, SqlState, limits::MAX_SINKS};

use super::{Outcome, Session, check_room, done, duplicate, plugins::touched};
use crate::{
    connector::{PluginKind, SinkSpec},
    delivery::{
        now_us,
        objects::{self, Objects, SinkConnector, SinkDef},
        secrets::SecretService,
        settings,
        sinks::{self, Wanted},
    },
};

impl Session {
    pub(super) async fn create_sink(
        &mut self,
        name: &str,
        connector: &Connector,
        options: &Options,
        allow_hosts: &[String],
    ) -> Result<Outcome> {
        let def = SinkDef {
            name: name.to_owned(),
            environment: self.environment.to_string(),
            connector: match connector {
                Connector::Plugin { name, version } => {
                    SinkConnector::Plugin { name: name.clone(), version: version.clone() }
                }
                Connector::Native(name) => SinkConnector::Native(name.clone()),
            },
            options: settings::settings(options)?,
            allow_hosts: settings::allow_hosts(allow_hosts)?,
            created_by: self.key_id(),
            created_at: now_us(),
            revision: 1,
        };
        let (view, objects) = self.objects().await?;
        self.check_new_sink(&objects, name)?;
        self.check_sink(view, objects, &def).await?;
        let (view, objects) = self.definitions_view().await?;
        self.check_new_sink(&objects, name)?;
        let ops = self.sink_ops((&view, &objects), &def)?;
        self.define(ops)?;
        Ok(done("CREATE SINK"))
    }

    /// What is named replaces what was there. Whose secrets the sink may use is now this key's right.
    pub(super) async fn alter_sink(
        &mut self,
        name: &str,
        options: Option<&Options>,
        allow_hosts: Option<&[String]>,
    ) -> Result<Outcome> {
        let (view, objects) = self.objects().await?;
        let old = objects.sink(&self.environment, name).ok_or_else(|| sinks::no_sink(name))?.clone();
        let mut def = SinkDef { created_by: self.key_id(), revision: old.revision + 1, ..old.clone() };
        if let Some(options) = options {
            def.options = settings::settings(options)?;
        }
        if let Some(hosts) = allow_hosts {
            def.allow_hosts = settings::allow_hosts(hosts)?;
        }
        self.check_sink(view, objects, &def).await?;
        let (view, objects) = self.definitions_view().await?;
        if objects.sink(&self.environment, name) != Some(&old) {
            return Err(concurrently(name));
        }
        let ops = self.sink_ops((&view, &objects), &def)?;
        self.define(ops)?;
        Ok(done("ALTER SINK"))
    }

    pub(super) async fn validate_sink(&mut self, name: &str) -> Result<Outcome> {
        let (view, objects) = self.objects().await?;
        let def = objects.sink(&self.environment, name).ok_or_else(|| sinks::no_sink(name))?.clone();
        self.try_sink(view, objects, &def).await?;
        Ok(done("VALIDATE SINK"))
    }

    fn check_new_sink(&self, objects: &Objects, name: &str) -> Result<()> {
        match objects.sink(&self.environment, name) {
            Some(_) => Err(duplicate(ObjectKind::Sink, name)),
            None => check_room(ObjectKind::Sink, objects.sinks().count(), MAX_SINKS),
        }
    }

    /// Everything about a new definition that can be known before it is one.
    async fn check_sink(&self, view: Snapshot, objects: Objects, def: &SinkDef) -> Result<()> {
        let plugin = sinks::plugin_of(&self.tenant.delivery, &objects, def)?;
        settings::check_sensitive(plugin.as_ref().map(|plugin| &plugin.facts), &def.options)?;
        self.check_references(&def.options, false).await?;
        self.try_sink(view, objects, def).await
    }

    /// Asks the connector about the options, for each of the sink's pipelines, then the destination.
    async fn try_sink(&self, view: Snapshot, objects: Objects, def: &SinkDef) -> Result<()> {
        let (delivery, store) = (Arc::clone(&self.tenant.delivery), Arc::clone(&self.tenant.store));
        let (preparing, sink) = (Arc::clone(&delivery), def.clone());
        let spec = self.off_thread(move || {
            let any = Wanted { keyed: true, ..Wanted::default() };
            let mut spec: SinkSpec = sinks::accepted(&preparing, &objects, &view, &sink, any)?;
            let pipelines = objects.pipelines_in(&sink.environment);
            for pipeline in pipelines.filter(|pipeline| pipeline.sink == sink.name) {
                spec = sinks::accepted(&preparing, &objects, &view, &sink, Wanted::of(pipeline))?;
            }
            Ok(spec)
        });
        let spec = spec.await?;
        let secrets = SecretService::of_sink(&delivery, &store, def, "check");
        let connectors = delivery.connectors()?;
        let checking = async {
            let checked = connectors.check_sink(&spec, secrets).await;
            checked.map_err(|fault| sinks::refused(def, &fault))
        };
        self.cancel.guard(checking).await
    }

    fn sink_ops(&self, (view, objects): (&Snapshot, &Objects), def: &SinkDef) -> Result<Vec<Op>> {
        let mut ops = match &def.connector {
            SinkConnector::Plugin { name, .. } => touched(self, (view, objects), name, PluginKind::Sink)?,
            SinkConnector::Native(_) => Vec::new(),
        };
        ops.extend(objects::put(&self.tenant.store, view, def)?);
        Ok(ops)
    }
}

fn concurrently(name: &str) -> Error {
    Error::new(SqlState::SerializationFailure, format!("sink \"{name}\" was changed at the same time"))
        .with_hint("Repeat the statement.")
}
