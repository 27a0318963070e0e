//! Trust keys and plugins: whose code may run, and the code.
//!
//! A plugin is inspected (its manifest read, checked against its imports, compiled) by the connectors, in a process of
//! its own; its signature is judged here, before anything reads the bytes.

use std::sync::Arc;

use sepal_crypto::ed25519::VerifyingKey;
use sepal_query::sql::delivery::{ObjectKind, Value};
use sepal_storage::{Op, Snapshot};
use sepal_types::{
    Error, Result, SqlState,
    limits::{MAX_PLUGINS, MAX_TRUST_KEYS},
};

use super::{Outcome, Session, check_room, done, duplicate, missing, values::Bound};
use crate::{
    connector::{PluginFacts, PluginKind},
    delivery::{
        Delivery, components, fault_error, now_us,
        objects::{self, Objects, PluginDef, SinkConnector, SinkDef, TrustKeyDef},
        plugins,
        sinks::{self, Wanted},
    },
};

/// A package as a statement brings it: the component and its signature.
type Package<'a> = (&'a Value, Option<&'a Value>);

/// What a package turned out to be.
struct Inspected {
    component: Arc<[u8]>,
    facts: PluginFacts,
    signed_by: Option<String>,
}

impl Session {
    pub(super) async fn create_trust_key(
        &mut self,
        name: &str,
        key: &Value,
        bound: Bound<'_>,
    ) -> Result<Outcome> {
        let text = bound.text(key, "the trust key")?;
        let key = VerifyingKey::parse(&text).map_err(|problem| {
            Error::new(SqlState::InvalidParameterValue, format!("the trust key cannot be read: {problem}"))
                .with_hint("sepal plugin sign prints the public key that belongs to a signature.")
        })?;
        let (view, objects) = self.definitions_view().await?;
        if objects.trust_key(&self.environment, name).is_some() {
            return Err(duplicate(ObjectKind::TrustKey, name));
        }
        self.check_trusting(&objects).await?;
        check_room(ObjectKind::TrustKey, objects.trust_keys().count(), MAX_TRUST_KEYS)?;
        let def = TrustKeyDef {
            name: name.to_owned(),
            environment: self.environment.to_string(),
            key: key.to_string(),
            created_by: self.key_id(),
            created_at: now_us(),
        };
        self.define(objects::put(&self.tenant.store, &view, &def)?)?;
        Ok(done("CREATE PLUGIN TRUST KEY"))
    }

    pub(super) async fn create_plugin(
        &mut self,
        name: &str,
        or_replace: bool,
        package: Package<'_>,
        bound: Bound<'_>,
    ) -> Result<Outcome> {
        let (_, objects) = self.objects().await?;
        if !or_replace && objects.plugin(&self.environment, name).is_some() {
            return Err(duplicate(ObjectKind::Plugin, name)
                .with_hint("ALTER PLUGIN … UPDATE or CREATE OR REPLACE PLUGIN brings another version."));
        }
        let inspected = self.inspect(&objects, package, bound).await?;
        let (view, objects) = self.definitions_view().await?;
        match objects.plugin(&self.environment, name) {
            Some(_) if !or_replace => return Err(duplicate(ObjectKind::Plugin, name)),
            Some(old) => self.replace_plugin((&view, &objects), old, inspected).await?,
            None => self.add_plugin((&view, &objects), name, inspected).await?,
        }
        Ok(done("CREATE PLUGIN"))
    }

    pub(super) async fn update_plugin(
        &mut self,
        name: &str,
        version: Option<&str>,
        package: Package<'_>,
        bound: Bound<'_>,
    ) -> Result<Outcome> {
        let (_, objects) = self.objects().await?;
        if objects.plugin(&self.environment, name).is_none() {
            return Err(missing(ObjectKind::Plugin, name));
        }
        let inspected = self.inspect(&objects, package, bound).await?;
        if let Some(wanted) = version.filter(|wanted| *wanted != inspected.facts.version) {
            let message =
                format!("the component is version {} of the plugin, not {wanted}", inspected.facts.version);
            return Err(Error::new(SqlState::InvalidParameterValue, message)
                .with_hint("Give the component of that version, or leave TO out."));
        }
        let (view, objects) = self.definitions_view().await?;
        let old = objects.plugin(&self.environment, name).ok_or_else(|| missing(ObjectKind::Plugin, name))?;
        self.replace_plugin((&view, &objects), old, inspected).await?;
        Ok(done("ALTER PLUGIN"))
    }

    /// Who signed the package, then what it is.
    async fn inspect(
        &mut self,
        objects: &Objects,
        (component, signature): Package<'_>,
        bound: Bound<'_>,
    ) -> Result<Inspected> {
        let component = bound.component(component)?;
        if component.len() > components::MAX_COMPONENT_BYTES {
            let most = components::MAX_COMPONENT_BYTES >> 20;
            let message = format!("the component has {} bytes; {most} MiB is the most", component.len());
            return Err(Error::new(SqlState::ProgramLimitExceeded, message)
                .with_hint("Build it for size: opt-level \"s\", LTO, debug information stripped."));
        }
        let signature = signature.map(|signature| bound.signature(signature)).transpose()?;
        let delivery = Arc::clone(&self.tenant.delivery);
        let keys = objects.trust_keys_in(&self.environment);
        let signature = signature.as_ref().map(|signature| signature.as_slice());
        let signed_by = plugins::signer(&component, signature, keys, delivery.allow_unsigned_plugins)?;
        let connectors = delivery.connectors()?;
        let bytes = Arc::clone(&component);
        let inspecting = async {
            let inspected = connectors.inspect(delivery.tenant, bytes).await;
            inspected.map_err(|fault| fault_error("the plugin's component", &fault))
        };
        let facts = self.cancel.guard(inspecting).await?;
        // The name under which the bytes are kept, and by which they are found again.
        if facts.sha256 != components::hash(&component) {
            return Err(Error::bug("the connectors inspected another component than was given"));
        }
        Ok(Inspected { component, facts, signed_by })
    }

    async fn add_plugin(
        &mut self,
        (view, objects): (&Snapshot, &Objects),
        name: &str,
        new: Inspected,
    ) -> Result<()> {
        check_room(ObjectKind::Plugin, objects.plugins().count(), MAX_PLUGINS)?;
        // Where a bundled plugin has this name, what ran with that one runs with this from now on.
        self.check_carried(objects, name).await?;
        let def = PluginDef {
            name: name.to_owned(),
            environment: self.environment.to_string(),
            facts: new.facts,
            signed_by: new.signed_by,
            revision: 1,
            created_by: self.key_id(),
            created_at: now_us(),
        };
        let mut ops = components::put(&self.tenant.store, view, &new.component)?;
        ops.extend(objects::put(&self.tenant.store, view, &def)?);
        self.check_users(view.clone(), &ops, def).await?;
        self.define(ops)
    }

    /// Puts a component in the place of an older one, if everything that runs with the older one can go on.
    async fn replace_plugin(
        &mut self,
        (view, objects): (&Snapshot, &Objects),
        old: &PluginDef,
        new: Inspected,
    ) -> Result<()> {
        check_kin(old, &new.facts)?;
        self.check_carried(objects, &old.name).await?;
        let store = &self.tenant.store;
        let same = old.facts.sha256 == new.facts.sha256;
        let mut ops = if same { Vec::new() } else { components::put(store, view, &new.component)? };
        if !same {
            ops.extend(components::remove_unused(view, objects, (&old.environment, &old.name))?);
        }
        let def = PluginDef {
            facts: new.facts,
            signed_by: new.signed_by,
            revision: old.revision + 1,
            ..old.clone()
        };
        ops.extend(objects::put(store, view, &def)?);
        self.check_users(view.clone(), &ops, def).await?;
        self.define(ops)
    }

    /// Whether this key may use the secrets of all that runs under a plugin's name. Its code acts with them in the name
    /// of the keys that defined those sinks and resolvers: new code is a way to their secrets.
    ///
    /// Errors: 42501 and the others of [`Session::check_references`].
    async fn check_carried(&self, objects: &Objects, plugin: &str) -> Result<()> {
        for sink in objects.sinks_in(&self.environment).filter(|sink| uses(sink, plugin)) {
            let checked = self.check_references(&sink.options, false).await;
            checked.map_err(|error| carries(&format!("sink \"{}\"", sink.name), plugin, &error))?;
        }
        for resolver in objects.resolvers_in(&self.environment).filter(|resolver| resolver.plugin == plugin) {
            let checked = self.check_references(&resolver.options, true).await;
            checked.map_err(|error| {
                carries(&format!("secret resolver \"{}\"", resolver.name), plugin, &error)
            })?;
        }
        Ok(())
    }

    /// Whether this key may say whom the environment trusts: it said so before, or nobody has whose key still counts.
    /// Else whoever may write could bring code of their own past the signatures.
    ///
    /// Errors: 42501.
    pub(super) async fn check_trusting(&self, objects: &Objects) -> Result<()> {
        let mut makers: Vec<String> =
            objects.trust_keys_in(&self.environment).map(|def| def.created_by.clone()).collect();
        makers.sort_unstable();
        makers.dedup();
        if makers.contains(&self.key_id()) {
            return Ok(());
        }
        let living = self.ask_control(move |control, scope| {
            let mut living = Vec::new();
            for maker in makers {
                if control.is_live_key(scope, &maker)? {
                    living.push(maker);
                }
            }
            Ok(living)
        });
        let living = living.await?;
        if living.is_empty() {
            return Ok(());
        }
        let message = "permission denied: other API keys say whose plugins this environment trusts";
        Err(Error::new(SqlState::InsufficientPrivilege, message)
            .with_detail(format!("Its trust keys were made by {}.", living.join(", ")))
            .with_hint("Use one of those keys. Once they are revoked, any key that may write can say it."))
    }

    /// Errors: what a sink of the plugin could not do with its new component.
    async fn check_users(&self, view: Snapshot, ops: &[Op], plugin: PluginDef) -> Result<()> {
        let (delivery, ops) = (Arc::clone(&self.tenant.delivery), ops.to_vec());
        self.off_thread(move || {
            let next = ops.iter().try_fold(view, |next, op| next.apply(op))?;
            let objects = Objects::of(&next)?;
            for sink in objects.sinks_in(&plugin.environment).filter(|sink| uses(sink, &plugin.name)) {
                check_user(&delivery, &objects, &next, sink).map_err(|error| {
                    Error::new(error.state(), format!("sink \"{}\" cannot use the new component", sink.name))
                        .with_detail(error.message().to_owned())
                        .with_hint("ALTER SINK first, or create the new component as a plugin of its own.")
                })?;
            }
            Ok(())
        })
        .await
    }
}

/// Why a plugin's code cannot come from this key.
fn carries(what: &str, plugin: &str, error: &Error) -> Error {
    let message = format!("{what} runs with plugin \"{plugin}\", and has secrets that this key may not use");
    Error::new(error.state(), message).with_detail(error.message().to_owned()).with_hint(
        "GRANT USAGE ON SECRET … TO this key, by its owner; or create the component as a plugin under another name.",
    )
}

/// Whether a component may take an older one's place. Errors: 42809 of another kind or name; 22023 an older version;
/// 42501 asking for more.
fn check_kin(old: &PluginDef, new: &PluginFacts) -> Result<()> {
    if old.facts.name != new.name {
        let message =
            format!("plugin \"{}\" is {}, and the component is {}", old.name, old.facts.name, new.name);
        return Err(Error::new(SqlState::WrongObjectType, message)
            .with_hint("CREATE PLUGIN makes it one of its own, under another name."));
    }
    if old.facts.kind != new.kind {
        let (was, is) = (plugins::noun(old.facts.kind), plugins::noun(new.kind));
        let message = format!("plugin \"{}\" is a {was}, and the component is a {is}", old.name);
        return Err(Error::new(SqlState::WrongObjectType, message));
    }
    // An old signature does not expire: what a newer version has mended would be brought back with it.
    if plugins::is_older(&new.version, &old.facts.version) {
        let message = format!(
            "plugin \"{}\" has version {}, and the component is {}, an older one",
            old.name, old.facts.version, new.version
        );
        return Err(Error::new(SqlState::InvalidParameterValue, message)
            .with_hint("If it is to be the older one: DROP PLUGIN … CASCADE, then CREATE PLUGIN."));
    }
    let grown = plugins::grown(&old.facts, new);
    if grown.is_empty() {
        return Ok(());
    }
    let message =
        format!("version {} of plugin \"{}\" asks for more than it was granted", new.version, old.name);
    Err(Error::new(SqlState::InsufficientPrivilege, message).with_detail(grown.join("\n")).with_hint(
        "If it is to have that: DROP PLUGIN … CASCADE and CREATE PLUGIN grant it anew, or create it under \
             another name and move the sinks.",
    ))
}

fn uses(sink: &SinkDef, plugin: &str) -> bool {
    matches!(&sink.connector, SinkConnector::Plugin { name, .. } if name == plugin)
}

/// Tries a sink's options, and the way of each of its pipelines, on the component that its plugin has now.
fn check_user(delivery: &Delivery, objects: &Objects, view: &Snapshot, sink: &SinkDef) -> Result<()> {
    let mut pipelines =
        objects.pipelines_in(&sink.environment).filter(|pipeline| pipeline.sink == sink.name).peekable();
    if pipelines.peek().is_none() {
        let any = Wanted { keyed: true, ..Wanted::default() };
        return sinks::accepted(delivery, objects, view, sink, any).map(drop);
    }
    pipelines.try_for_each(|pipeline| {
        sinks::accepted(delivery, objects, view, sink, Wanted::of(pipeline)).map(drop)
    })
}

/// Errors: 42704 unless the plugin is there and of this kind; for `resolvers` and `sinks`.
pub(super) fn touched(
    session: &Session,
    (view, objects): (&Snapshot, &Objects),
    name: &str,
    kind: PluginKind,
) -> Result<Vec<Op>> {
    plugins::find(&session.tenant.delivery, objects, &session.environment, name, kind, None)?;
    match objects.plugin(&session.environment, name) {
        Some(own) => objects::put(&session.tenant.store, view, own),
        None => Ok(Vec::new()),
    }
}
