//! From the exports of a component to the traits: [`sink!`](crate::sink!) and [`resolver!`](crate::resolver!) name a
//! type, this keeps its one value and converts. Nothing else calls it.

use std::{any::Any, cell::RefCell, marker::PhantomData};

use serde::de::DeserializeOwned;

use crate::{
    Context, Error, Request, Resolver, Sink,
    bindings::{
        resolver::{
            exports::sepal::plugin::resolver as resolver_wit, sepal::plugin::types as resolver_types,
        },
        sink::{
            exports::sepal::plugin::sink as sink_wit,
            sepal::plugin::types::{self as sink_types, OpenArgs},
        },
    },
};

/// Exports a type as the component's sink: `sepal_plugin::sink!(MySink);`
#[macro_export]
macro_rules! sink {
    ($sink:ty) => {
        // The names of exports are no names for a native linker, and tests run natively.
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::glue::SinkGuest<$sink>;
    $crate::bindings::sink::export_sink!(Exported with_types_in $crate::bindings::sink);
        };
    };
}

/// Exports a type as the component's secret resolver: `sepal_plugin::resolver!(MyResolver);`
#[macro_export]
macro_rules! resolver {
    ($resolver:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::glue::ResolverGuest<$resolver>;
    $crate::bindings::resolver::export_resolver!(Exported with_types_in $crate::bindings::resolver);
        };
    };
}

thread_local! {
    /// The component's one sink or resolver; a guest has one thread.
    static OPEN: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

fn keep<T: 'static>(value: T) {
    OPEN.with_borrow_mut(|open| *open = Some(Box::new(value)));
}

fn with<T: 'static, R>(act: impl FnOnce(&mut T) -> Result<R, Error>) -> Result<R, Error> {
    OPEN.with_borrow_mut(|open| match open.as_mut().and_then(|open| open.downcast_mut()) {
        Some(value) => act(value),
        None => Err(Error::internal("called before open").code("plugin.not-open")),
    })
}

/// The host has checked the options against the schema; what does not fit the type is the schema's mistake.
fn parse<T: DeserializeOwned>(what: &str, json: &str) -> Result<T, Error> {
    serde_json::from_str(json)
        .map_err(|error| Error::misconfigured(format!("{what}: {error}")).code("plugin.config"))
}

/// A [`Sink`] as the world wants it.
pub struct SinkGuest<S>(PhantomData<S>);

impl<S: Sink> sink_wit::Guest for SinkGuest<S> {
    fn check(args: OpenArgs) -> Result<(), sink_types::Error> {
        let (context, config) = Context::of(args);
        Ok(S::check(parse("options", &config)?, &context)?)
    }

    fn open(args: OpenArgs) -> Result<sink_wit::Opened, sink_types::Error> {
        let (context, config) = Context::of(args);
        let mut sink = S::open(parse("options", &config)?, &context)?;
        let opened = sink.opened()?;
        keep(sink);
        Ok(opened.into())
    }

    fn set_schema(schema: sink_wit::Schema) -> Result<(), sink_types::Error> {
        Ok(with(|sink: &mut S| sink.set_schema(&schema.into()))?)
    }

    fn write(batch: sink_wit::Batch) -> Result<sink_wit::Outcome, sink_types::Error> {
        Ok(with(|sink: &mut S| sink.write(&batch.into()))?.into())
    }

    fn flush() -> Result<Option<String>, sink_types::Error> {
        Ok(with(S::flush)?)
    }

    fn close() {
        // Closing what was never opened is nothing to report.
        let _ = with(|sink: &mut S| {
            sink.close();
            Ok(())
        });
        OPEN.with_borrow_mut(|open| *open = None);
    }
}

/// A [`Resolver`] as the world wants it.
pub struct ResolverGuest<R>(PhantomData<R>);

impl<R: Resolver> resolver_wit::Guest for ResolverGuest<R> {
    fn check(config_json: String) -> Result<(), resolver_types::Error> {
        Ok(R::check(parse("options", &config_json)?)?)
    }

    fn open(config_json: String) -> Result<(), resolver_types::Error> {
        keep(R::open(parse("options", &config_json)?)?);
        Ok(())
    }

    fn resolve(
        requests: Vec<resolver_wit::Request>,
    ) -> Result<Vec<resolver_wit::Answer>, resolver_types::Error> {
        let answers = with(|resolver: &mut R| {
            Ok(requests.into_iter().map(|request| answer(resolver, request)).collect())
        })?;
        Ok(answers)
    }

    fn revoke(lease_id: String) -> Result<(), resolver_types::Error> {
        Ok(with(|resolver: &mut R| resolver.revoke(&lease_id))?)
    }
}

fn answer<R: Resolver>(resolver: &mut R, request: resolver_wit::Request) -> resolver_wit::Answer {
    let resolver_wit::Request { name, options_json, have_version } = request;
    let answer = parse(&format!("options of {name}"), &options_json)
        .and_then(|options| resolver.resolve(&Request { name, options, have_version }));
    match answer {
        Ok(answer) => answer.into(),
        Err(error) => resolver_wit::Answer::Failed(error.into()),
    }
}
