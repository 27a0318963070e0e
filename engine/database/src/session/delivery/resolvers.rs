//! CREATE SECRET RESOLVER: a place where secrets are kept outside of Sepal.

use std::sync::Arc;

use sepal_query::sql::delivery::{ObjectKind, Options};
use sepal_storage::Snapshot;
use sepal_types::{Error, Result, SqlState, limits::MAX_RESOLVERS};

use super::{Outcome, Session, check_room, done, duplicate, plugins::touched};
use crate::{
    connector::PluginKind,
    delivery::{
        fault_error, now_us,
        objects::{self, Objects, ResolverDef},
        plugins,
        secrets::{SecretService, resolver_spec},
        settings,
    },
};

/// Names of what is built in, so that nobody mistakes a tenant's resolver for it.
const RESERVED: [&str; 3] = ["env", "file", "local"];

impl Session {
    pub(super) async fn create_resolver(
        &mut self,
        name: &str,
        plugin: &str,
        options: &Options,
        allow_hosts: &[String],
    ) -> Result<Outcome> {
        if RESERVED.contains(&name) {
            return Err(Error::new(
                SqlState::InvalidName,
                format!("\"{name}\" is the name of a built-in resolver"),
            )
            .with_hint("Choose another name."));
        }
        let def = ResolverDef {
            name: name.to_owned(),
            environment: self.environment.to_string(),
            plugin: plugin.to_owned(),
            options: settings::settings(options)?,
            allow_hosts: settings::allow_hosts(allow_hosts)?,
            created_by: self.key_id(),
            created_at: now_us(),
        };
        let (view, objects) = self.objects().await?;
        self.check_new_resolver(&objects, name)?;
        let found = plugins::find(
            &self.tenant.delivery,
            &objects,
            &self.environment,
            plugin,
            PluginKind::Resolver,
            None,
        )?;
        settings::check_sensitive(Some(&found.facts), &def.options)?;
        self.check_references(&def.options, true).await?;
        self.try_resolver(view, objects, def.clone()).await?;
        let (view, objects) = self.definitions_view().await?;
        self.check_new_resolver(&objects, name)?;
        let mut ops = touched(self, (&view, &objects), plugin, PluginKind::Resolver)?;
        ops.extend(objects::put(&self.tenant.store, &view, &def)?);
        self.define(ops)?;
        Ok(done("CREATE SECRET RESOLVER"))
    }

    fn check_new_resolver(&self, objects: &Objects, name: &str) -> Result<()> {
        match objects.resolver(&self.environment, name) {
            Some(_) => Err(duplicate(ObjectKind::Resolver, name)),
            None => check_room(ObjectKind::Resolver, objects.resolvers().count(), MAX_RESOLVERS),
        }
    }

    /// Asks the place itself whether it answers to these options.
    async fn try_resolver(&self, view: Snapshot, objects: Objects, def: ResolverDef) -> Result<()> {
        let (delivery, store) = (Arc::clone(&self.tenant.delivery), Arc::clone(&self.tenant.store));
        let secrets = SecretService::of_resolver(&delivery, &store, &def, "check");
        let what = format!("secret resolver \"{}\"", def.name);
        let preparing = Arc::clone(&delivery);
        let spec = self.off_thread(move || resolver_spec(&preparing, &view, &objects, &def)).await?;
        let connectors = delivery.connectors()?;
        let checking = async {
            connectors.check_resolver(&spec, secrets).await.map_err(|fault| fault_error(&what, &fault))
        };
        self.cancel.guard(checking).await
    }
}
