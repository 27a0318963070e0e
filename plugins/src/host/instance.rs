//! One running guest: its store, its exports, and how far its life has come.
//!
//! A fresh one knows nothing, so every call brings what `open` and `set-schema` need; a kept one gets them once.

use sepal_database::connector::{BatchSchema, Fault, FaultKind};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::Store;

use super::{
    bindings::{
        resolver::{SecretResolver, SecretResolverPre},
        sink::{SinkPluginReveal, SinkPluginRevealPre},
    },
    convert,
    store::Guest,
};
use crate::call::{CallError, GuestBatch, OpenArgs, Operation, Outcome, ResolverRequest};

/// A component that is ready to be instantiated.
pub(super) enum Loaded {
    Sink(SinkPluginRevealPre<Guest>),
    Resolver(SecretResolverPre<Guest>),
}

enum Exports {
    Sink(SinkPluginReveal),
    Resolver(SecretResolver),
}

pub(super) struct Instance {
    pub(super) store: Store<Guest>,
    exports: Option<Exports>,
    opened: bool,
    schema_id: Option<String>,
    /// Its place among the guests; free again when it is dropped.
    _seat: OwnedSemaphorePermit,
}

impl Instance {
    pub(super) fn new(store: Store<Guest>, seat: OwnedSemaphorePermit) -> Self {
        Self { store, exports: None, opened: false, schema_id: None, _seat: seat }
    }

    pub(super) fn is_instantiated(&self) -> bool {
        self.exports.is_some()
    }

    pub(super) async fn instantiate(&mut self, loaded: &Loaded) -> wasmtime::Result<()> {
        self.exports = Some(match loaded {
            Loaded::Sink(pre) => Exports::Sink(pre.instantiate_async(&mut self.store).await?),
            Loaded::Resolver(pre) => Exports::Resolver(pre.instantiate_async(&mut self.store).await?),
        });
        Ok(())
    }

    /// Runs one operation. Errors are traps and broken limits; what the guest itself says is an outcome.
    pub(super) async fn run(&mut self, operation: Operation) -> wasmtime::Result<Outcome> {
        match operation {
            Operation::CheckSink(args) => {
                let args = convert::open_args(args);
                let (sink, store) = self.sink()?;
                let answer = sink.sepal_plugin_sink().call_check(store, &args).await?;
                Ok(answer.map_or_else(failed, |()| Outcome::Done))
            }
            Operation::OpenSink(call) => self.open(call.open).await,
            Operation::Write(call, batch) => match self.prepare(call.open, call.schema).await? {
                Some(failed) => Ok(failed),
                None => self.write(batch).await,
            },
            Operation::Flush(call) => match self.prepare(call.open, call.schema).await? {
                Some(failed) => Ok(failed),
                None => {
                    let (sink, store) = self.sink()?;
                    let answer = sink.sepal_plugin_sink().call_flush(store).await?;
                    Ok(answer.map_or_else(failed, Outcome::Flushed))
                }
            },
            Operation::Close => {
                let (sink, store) = self.sink()?;
                sink.sepal_plugin_sink().call_close(store).await?;
                Ok(Outcome::Done)
            }
            Operation::CheckResolver { config_json } => {
                let (resolver, store) = self.resolver()?;
                let answer = resolver.sepal_plugin_resolver().call_check(store, &config_json).await?;
                Ok(answer.map_or_else(failed, |()| Outcome::Done))
            }
            Operation::Resolve { config_json, requests } => self.resolve(&config_json, requests).await,
            Operation::Revoke { config_json, lease_id } => {
                if let Some(failed) = self.open_resolver(&config_json).await? {
                    return Ok(failed);
                }
                let (resolver, store) = self.resolver()?;
                let answer = resolver.sepal_plugin_resolver().call_revoke(store, &lease_id).await?;
                Ok(answer.map_or_else(failed, |()| Outcome::Done))
            }
        }
    }

    async fn open(&mut self, args: OpenArgs) -> wasmtime::Result<Outcome> {
        let args = convert::open_args(args);
        let (sink, store) = self.sink()?;
        match sink.sepal_plugin_sink().call_open(store, &args).await? {
            Ok(opened) => {
                self.opened = true;
                Ok(Outcome::Opened(convert::opened(opened)))
            }
            Err(error) => Ok(failed(error)),
        }
    }

    /// `open` and `set-schema` as far as they are missing; the outcome if one of them failed.
    async fn prepare(
        &mut self,
        args: OpenArgs,
        schema: Option<BatchSchema>,
    ) -> wasmtime::Result<Option<Outcome>> {
        if !self.opened
            && let failed @ Outcome::Failed(_) = self.open(args).await?
        {
            return Ok(Some(failed));
        }
        let Some(schema) = schema.filter(|schema| self.schema_id.as_ref() != Some(&schema.id)) else {
            return Ok(None);
        };
        let schema = convert::schema(schema);
        let (sink, store) = self.sink()?;
        match sink.sepal_plugin_sink().call_set_schema(store, &schema).await? {
            Ok(()) => {
                self.schema_id = Some(schema.id);
                Ok(None)
            }
            Err(error) => Ok(Some(failed(error))),
        }
    }

    async fn write(&mut self, batch: GuestBatch) -> wasmtime::Result<Outcome> {
        let batch = convert::batch(batch);
        let (sink, store) = self.sink()?;
        let answer = sink.sepal_plugin_sink().call_write(store, &batch).await?;
        Ok(answer.map_or_else(failed, |outcome| Outcome::Written(convert::delivered(outcome))))
    }

    async fn resolve(
        &mut self,
        config_json: &str,
        requests: Vec<ResolverRequest>,
    ) -> wasmtime::Result<Outcome> {
        if let Some(failed) = self.open_resolver(config_json).await? {
            return Ok(failed);
        }
        let asked = requests.len();
        let requests: Vec<_> = requests.into_iter().map(convert::request).collect();
        let (resolver, store) = self.resolver()?;
        match resolver.sepal_plugin_resolver().call_resolve(store, &requests).await? {
            Ok(answers) if answers.len() == asked => {
                Ok(Outcome::Resolved(answers.into_iter().map(convert::answer).collect()))
            }
            Ok(answers) => {
                let problem = format!("the resolver gave {} answers to {asked} requests", answers.len());
                Ok(Outcome::Failed(Fault::new(FaultKind::Internal, problem).with_code("plugin.protocol")))
            }
            Err(error) => Ok(failed(error)),
        }
    }

    async fn open_resolver(&mut self, config_json: &str) -> wasmtime::Result<Option<Outcome>> {
        let (resolver, store) = self.resolver()?;
        let answer = resolver.sepal_plugin_resolver().call_open(store, config_json).await?;
        Ok(answer.err().map(failed))
    }

    fn sink(&mut self) -> wasmtime::Result<(&SinkPluginReveal, &mut Store<Guest>)> {
        match &self.exports {
            Some(Exports::Sink(sink)) => Ok((sink, &mut self.store)),
            _ => Err(other_kind("sink")),
        }
    }

    fn resolver(&mut self) -> wasmtime::Result<(&SecretResolver, &mut Store<Guest>)> {
        match &self.exports {
            Some(Exports::Resolver(resolver)) => Ok((resolver, &mut self.store)),
            _ => Err(other_kind("resolver")),
        }
    }
}

fn failed(error: super::bindings::sink::sepal::plugin::types::Error) -> Outcome {
    Outcome::Failed(convert::fault(error))
}

fn other_kind(wanted: &str) -> wasmtime::Error {
    wasmtime::Error::new(CallError::Unfit(format!("the call is one of a {wanted}, which this plugin is not")))
}
