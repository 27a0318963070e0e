//! DROP of everything of this family: what others need is kept, unless CASCADE says otherwise.
//!
//! CASCADE reaches from a plugin to its sinks and from a sink to its pipelines. It never reaches a secret.

use std::collections::{BTreeMap, BTreeSet};

use sepal_control::{Grantable, SecretOrigin};
use sepal_query::sql::delivery::ObjectKind;
use sepal_storage::{Op, Snapshot};
use sepal_types::{Error, Result, SqlState, TableDef};

use super::{Outcome, Session, done, missing};
use crate::{
    connector::Setting,
    delivery::{
        components,
        objects::{self, Objects, PipelineDef, PluginDef, ResolverDef, SinkConnector, SinkDef, TrustKeyDef},
        settings,
    },
};

/// Definitions that go together.
#[derive(Debug, Default)]
pub(super) struct Going {
    resolvers: BTreeSet<String>,
    sinks: BTreeSet<String>,
    pub pipelines: BTreeSet<String>,
}

impl Session {
    pub(super) async fn drop_object(
        &mut self,
        kind: ObjectKind,
        name: &str,
        if_exists: bool,
        cascade: bool,
    ) -> Result<Outcome> {
        let dropped = match kind {
            ObjectKind::Secret => self.drop_secret(name).await,
            ObjectKind::Certificate => self.drop_certificate(name).await,
            ObjectKind::Pipeline
            | ObjectKind::Plugin
            | ObjectKind::Resolver
            | ObjectKind::Sink
            | ObjectKind::TrustKey => self.drop_definition(kind, name, cascade).await,
        };
        match dropped {
            Err(error) if if_exists && error.state() == SqlState::UndefinedObject => {
                let message = format!("{} \"{name}\" does not exist, skipping", kind.noun());
                self.notice("NOTICE", Error::new(SqlState::UndefinedObject, message));
            }
            other => other?,
        }
        Ok(done(&format!("DROP {}", kind.keyword())))
    }

    async fn drop_secret(&mut self, name: &str) -> Result<()> {
        self.check_no_block("DROP SECRET")?;
        self.check_owner(Grantable::Secret, name).await?;
        let (_, objects) = self.objects().await?;
        let names =
            |options: &BTreeMap<String, Setting>| settings::secrets(options).any(|(used, _)| used == name);
        check_unused(ObjectKind::Secret, name, users(&objects, &self.environment, names))?;
        let asked = name.to_owned();
        self.ask_control(move |control, scope| control.drop_secret(scope, &asked)).await?;
        self.give_back(name).await;
        Ok(())
    }

    async fn drop_certificate(&mut self, name: &str) -> Result<()> {
        self.check_no_block("DROP CERTIFICATE")?;
        self.check_owner(Grantable::Certificate, name).await?;
        let (_, objects) = self.objects().await?;
        let names =
            |options: &BTreeMap<String, Setting>| settings::certificates(options).any(|used| used == name);
        check_unused(ObjectKind::Certificate, name, users(&objects, &self.environment, names))?;
        let asked = name.to_owned();
        self.ask_control(move |control, scope| control.drop_certificate(scope, &asked)).await
    }

    async fn drop_definition(&mut self, kind: ObjectKind, name: &str, cascade: bool) -> Result<()> {
        let (view, objects) = self.definitions_view().await?;
        let environment = self.environment.to_string();
        let exists = match kind {
            ObjectKind::TrustKey => objects.trust_key(&environment, name).is_some(),
            ObjectKind::Plugin => objects.plugin(&environment, name).is_some(),
            ObjectKind::Resolver => objects.resolver(&environment, name).is_some(),
            ObjectKind::Sink => objects.sink(&environment, name).is_some(),
            ObjectKind::Pipeline => objects.pipeline(&environment, name).is_some(),
            ObjectKind::Secret | ObjectKind::Certificate => false,
        };
        if !exists {
            return Err(missing(kind, name));
        }
        if kind == ObjectKind::TrustKey {
            self.check_trusting(&objects).await?;
        }
        let mut going = Going::default();
        match kind {
            ObjectKind::Pipeline => {
                going.pipelines.insert(name.to_owned());
            }
            ObjectKind::Sink => going.sink(&objects, &environment, name),
            ObjectKind::Plugin => going.users_of_plugin(&objects, &environment, name),
            ObjectKind::Resolver => {
                going.resolvers.insert(name.to_owned());
            }
            ObjectKind::TrustKey | ObjectKind::Secret | ObjectKind::Certificate => {}
        }
        let dependents = going.others(kind, name);
        if !cascade {
            check_unused(kind, name, dependents)?;
        } else {
            self.notice_cascade(&dependents);
        }
        for resolver in &going.resolvers {
            self.check_resolver_unused(resolver).await?;
        }
        let mut ops = going.ops(&view, &objects, &environment)?;
        match kind {
            ObjectKind::Plugin => {
                ops.extend(components::remove_unused(&view, &objects, (&environment, name))?);
                ops.extend(objects::remove::<PluginDef>(&view, &environment, name)?);
            }
            ObjectKind::TrustKey => ops.extend(objects::remove::<TrustKeyDef>(&view, &environment, name)?),
            _ => {}
        }
        self.define(ops)?;
        self.leave_behind(&going);
        Ok(())
    }

    /// After the commit, what the pipelines leave is removed.
    pub(super) fn leave_behind(&mut self, going: &Going) {
        if let Some(open) = &mut self.open {
            open.after.changed = true;
            open.after.dropped |= !going.pipelines.is_empty();
        }
    }

    /// Errors: 2BP01 while secrets come from the resolver.
    async fn check_resolver_unused(&self, name: &str) -> Result<()> {
        let listed = self.ask_control(move |control, scope| control.list_secrets(scope)).await?;
        let from_it = |origin: &SecretOrigin| match origin {
            SecretOrigin::Resolver { resolver, .. } => resolver == name,
            SecretOrigin::Stored | SecretOrigin::Environment { .. } | SecretOrigin::File { .. } => false,
        };
        let secrets = listed.iter().filter(|secret| from_it(&secret.source));
        let secrets: Vec<String> = secrets.map(|secret| format!("secret {}", secret.name)).collect();
        check_unused(ObjectKind::Resolver, name, secrets)
    }

    pub(super) fn notice_cascade(&mut self, dependents: &[String]) {
        for dependent in dependents {
            let message = format!("drop cascades to {dependent}");
            self.notice("NOTICE", Error::new(SqlState::DependentObjectsStillExist, message));
        }
    }
}

impl Going {
    fn sink(&mut self, objects: &Objects, environment: &str, name: &str) {
        self.sinks.insert(name.to_owned());
        let pipelines = objects.pipelines_in(environment).filter(|pipeline| pipeline.sink == name);
        self.pipelines.extend(pipelines.map(|pipeline| pipeline.name.clone()));
    }

    fn users_of_plugin(&mut self, objects: &Objects, environment: &str, plugin: &str) {
        for sink in objects.sinks_in(environment) {
            if matches!(&sink.connector, SinkConnector::Plugin { name, .. } if name == plugin) {
                self.sink(objects, environment, &sink.name);
            }
        }
        let resolvers = objects.resolvers_in(environment).filter(|resolver| resolver.plugin == plugin);
        self.resolvers.extend(resolvers.map(|resolver| resolver.name.clone()));
    }

    /// Everything but the thing that was named.
    fn others(&self, kind: ObjectKind, name: &str) -> Vec<String> {
        let of = |names: &BTreeSet<String>, of: ObjectKind| -> Vec<String> {
            let others = names.iter().filter(|other| of != kind || *other != name);
            others.map(|other| format!("{} {other}", of.noun())).collect()
        };
        let mut others = of(&self.resolvers, ObjectKind::Resolver);
        others.extend(of(&self.sinks, ObjectKind::Sink));
        others.extend(of(&self.pipelines, ObjectKind::Pipeline));
        others
    }

    /// Removes the definitions. What pipelines leave behind goes after the commit: see `delivery::pipelines`.
    pub(super) fn ops(&self, view: &Snapshot, objects: &Objects, environment: &str) -> Result<Vec<Op>> {
        let mut ops = Vec::new();
        for name in &self.resolvers {
            ops.extend(objects::remove::<ResolverDef>(view, environment, name)?);
        }
        for name in &self.sinks {
            ops.extend(objects::remove::<SinkDef>(view, environment, name)?);
        }
        for name in &self.pipelines {
            ops.extend(objects::remove::<PipelineDef>(view, environment, name)?);
        }
        let (gone, staying): (Vec<&PipelineDef>, Vec<&PipelineDef>) =
            objects.pipelines().partition(|pipeline| {
                pipeline.environment == environment && self.pipelines.contains(&pipeline.name)
            });
        let mut tables: BTreeSet<_> = gone.iter().map(|pipeline| pipeline.table).collect();
        tables.retain(|table| staying.iter().all(|pipeline| pipeline.table != *table));
        for version in tables.into_iter().filter_map(|table| view.table(table)) {
            ops.push(Op::AlterTable(TableDef { captured: false, ..version.def.as_ref().clone() }));
        }
        Ok(ops)
    }
}

/// The sinks and resolvers whose options say so.
fn users(
    objects: &Objects,
    environment: &str,
    names: impl Fn(&BTreeMap<String, Setting>) -> bool,
) -> Vec<String> {
    let sinks = objects.sinks_in(environment).filter(|sink| names(&sink.options));
    let resolvers = objects.resolvers_in(environment).filter(|resolver| names(&resolver.options));
    let sinks = sinks.map(|sink| format!("sink {}", sink.name));
    sinks.chain(resolvers.map(|resolver| format!("secret resolver {}", resolver.name))).collect()
}

/// Errors: 2BP01, as Postgres words it.
fn check_unused(kind: ObjectKind, name: &str, dependents: Vec<String>) -> Result<()> {
    if dependents.is_empty() {
        return Ok(());
    }
    let what = format!("{} {name}", kind.noun());
    let detail: Vec<String> =
        dependents.iter().map(|dependent| format!("{dependent} depends on {what}")).collect();
    let cascades = matches!(kind, ObjectKind::Plugin | ObjectKind::Sink);
    let hint = if cascades {
        "Use DROP ... CASCADE to drop the dependent objects too."
    } else {
        "Drop or alter them first."
    };
    Err(Error::new(
        SqlState::DependentObjectsStillExist,
        format!("cannot drop {what} because other objects depend on it"),
    )
    .with_detail(detail.join("\n"))
    .with_hint(hint))
}
