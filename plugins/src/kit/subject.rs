//! The plugin under test, with everything that it is run with. Groups of checks ask it to work and look at what came of
//! it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use sepal_database::{
    TenantId,
    connector::{BadRow, Delivered, Encoding, Envelope, Fault, FaultKind, PluginKind},
};
use serde_json::Value;

use super::{
    case::TestCase,
    destination::{Destination, Weather},
    lookup,
    outside::{Circumstances, KitOutside, Road},
    rows::{Form, Sample, Sampler},
    setup::{self, Setup},
};
use crate::{
    call::{
        Call, CallError, Code, GuestHost, OpenArgs, Operation, Outcome, Outside, Reply, ResolverAnswer,
        ResolverRequest, SessionId, SinkCall,
    },
    egress::{Egress, EgressError, EgressOptions, Resolve},
    manifest::{ConfigSchema, EffectiveLimits, Manifest, ManifestError},
};

pub(super) const TENANT: TenantId = TenantId([0x5e; 16]);

/// Why a plugin cannot be tried at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unready {
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    /// The test case's options.
    #[error("{0}")]
    Options(Fault),
    #[error("{0}")]
    Egress(#[from] EgressError),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Subject {
    pub manifest: Manifest,
    pub schema: ConfigSchema,
    pub imports: Vec<String>,
    pub case: TestCase,
    pub setup: Setup,
    pub limits: EffectiveLimits,
    host: Arc<dyn GuestHost>,
    code: Code,
    /// Everything passes that the plugin's own rules let through: nothing is sent.
    scripted: Egress,
    /// Nothing passes: every name has an address that nobody may reach.
    nowhere: Egress,
    pub names: Arc<lookup::Unreachable>,
    strays: Arc<Mutex<Vec<String>>>,
    next_row: AtomicU32,
    next_session: AtomicU64,
}

/// A call's end, seen from outside of the guest.
#[derive(Debug)]
pub(super) enum Ended {
    /// The guest was killed at the call that [`Circumstances`] name.
    Crashed,
    Broke(CallError),
    Replied(Reply),
}

/// One thing that the plugin was asked to do, and what came of it.
#[derive(Debug)]
pub(super) struct Attempt {
    pub result: Result<Reply, CallError>,
    /// Of a sink.
    pub sample: Option<Sample>,
    pub destination: Arc<Destination>,
    pub outside: Arc<KitOutside>,
}

/// What an attempt comes down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Observed {
    /// Rows are claimed to be durable, or a value came.
    Delivered,
    NotFound,
    /// Neither durable nor refused.
    Held,
    Failed(Fault),
    Broke(CallError),
}

impl Subject {
    pub fn new(
        host: Arc<dyn GuestHost>,
        code: Code,
        manifest: Manifest,
        imports: Vec<String>,
        case: TestCase,
    ) -> Result<Self, Unready> {
        let schema = manifest.schema()?;
        let setup = Setup::new(&manifest, &schema, &case.config, &case.secrets).map_err(Unready::Options)?;
        let private_networks = setup::everywhere();
        let scripted = Egress::new(EgressOptions { private_networks, ..EgressOptions::default() })?;
        let names = Arc::new(lookup::Unreachable::default());
        let resolver = Arc::clone(&names) as Arc<dyn Resolve>;
        let nowhere = Egress::new(EgressOptions { resolver, ..EgressOptions::default() })?;
        // The kit does not wait: how often a plugin may ask is the host's to count.
        let limits = EffectiveLimits {
            requests_per_second: u32::MAX,
            log_lines_per_second: u32::MAX,
            ..EffectiveLimits::effective(&manifest, &EffectiveLimits::MOST)
        };
        Ok(Self {
            manifest,
            schema,
            imports,
            case,
            setup,
            limits,
            host,
            code,
            scripted,
            nowhere,
            names,
            strays: Arc::default(),
            next_row: AtomicU32::new(0),
            next_session: AtomicU64::new(1),
        })
    }

    pub fn kind(&self) -> PluginKind {
        self.manifest.plugin.kind
    }

    pub fn is_session(&self) -> bool {
        self.manifest.is_session()
    }

    pub fn strays(&self) -> Vec<String> {
        self.strays.lock().clone()
    }

    pub fn destination(&self, weather: Weather) -> Arc<Destination> {
        Arc::new(Destination::with_rules(&self.case.destination, weather))
    }

    /// A process's life of the plugin.
    pub fn outside(
        &self,
        setup: &Setup,
        destination: &Arc<Destination>,
        circumstances: Circumstances,
    ) -> Arc<KitOutside> {
        let egress = match circumstances.road {
            Road::Scripted => &self.scripted,
            Road::Real => &self.nowhere,
        };
        let outside = egress.outside(setup.spec(&self.manifest, "kit"));
        let strays = Arc::clone(&self.strays);
        Arc::new(KitOutside::new(outside, Arc::clone(destination), circumstances, strays))
    }

    /// Runs a call in an instance of its own, or in a session's.
    pub async fn call(
        &self,
        outside: &Arc<KitOutside>,
        session: Option<(SessionId, bool)>,
        operation: Operation,
    ) -> Ended {
        self.call_within(self.limits, outside, session, operation).await
    }

    pub async fn call_within(
        &self,
        limits: EffectiveLimits,
        outside: &Arc<KitOutside>,
        session: Option<(SessionId, bool)>,
        operation: Operation,
    ) -> Ended {
        let call = Call {
            limits,
            session: session.map(|(session, _)| session),
            continues: session.is_some_and(|(_, continues)| continues),
            operation,
        };
        let asked = Arc::clone(outside) as Arc<dyn Outside>;
        tokio::select! {
            biased;
            () = outside.crash() => Ended::Crashed,
            result = self.host.call(TENANT, &self.code, call, asked) => match result {
                _ if outside.is_crashed() => Ended::Crashed,
                Ok(reply) => Ended::Replied(reply),
                Err(error) => Ended::Broke(error),
            },
        }
    }

    /// A call that nothing kills.
    async fn answered(
        &self,
        outside: &Arc<KitOutside>,
        session: Option<(SessionId, bool)>,
        operation: Operation,
    ) -> Result<Reply, CallError> {
        match self.call(outside, session, operation).await {
            Ended::Replied(reply) => Ok(reply),
            Ended::Broke(error) => Err(error),
            Ended::Crashed => Err(CallError::Gone("the kit ended the call".to_owned())),
        }
    }

    pub fn next_session(&self) -> Option<SessionId> {
        self.is_session().then(|| SessionId(self.next_session.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn form(&self) -> Form {
        Form::of(&self.manifest, self.case.rows.clone())
    }

    pub fn sampler(&self) -> Sampler<'_> {
        self.sampler_of(self.form())
    }

    pub fn sampler_of(&self, form: Form) -> Sampler<'_> {
        Sampler::new(form, &self.next_row)
    }

    pub fn open_args(&self, setup: &Setup, encoding: Encoding, envelope: Envelope) -> OpenArgs {
        OpenArgs {
            config_json: setup.config_json(),
            encoding,
            envelope,
            sink_id: "kit-sink-1".to_owned(),
            worker: 0,
            parallelism: 1,
            attributes: Vec::new(),
        }
    }

    /// What a call about this sample brings along.
    pub fn sink_call(&self, setup: &Setup, sample: &Sample, state: &BTreeMap<String, Vec<u8>>) -> SinkCall {
        let encoding = self.form().encoding;
        SinkCall {
            open: self.open_args(setup, encoding, sample.envelope),
            schema: Some(sample.schema.clone()),
            state: state.clone(),
        }
    }

    /// `check` with the options of `setup`.
    pub async fn check(&self, setup: &Setup, destination: &Arc<Destination>) -> Result<Reply, CallError> {
        let outside = self.outside(setup, destination, Circumstances::default());
        let form = self.form();
        let operation = match self.kind() {
            PluginKind::Sink => Operation::CheckSink(self.open_args(setup, form.encoding, form.envelope)),
            PluginKind::Resolver => Operation::CheckResolver { config_json: setup.config_json() },
        };
        self.answered(&outside, None, operation).await
    }

    /// What the plugin is for, once: a batch of two rows, or a secret.
    pub async fn work(&self, weather: Weather) -> Attempt {
        self.work_in(weather, Circumstances::default()).await
    }

    pub async fn work_in(&self, weather: Weather, circumstances: Circumstances) -> Attempt {
        match self.kind() {
            PluginKind::Sink => self.write(self.sampler().plain(2), weather, circumstances).await,
            PluginKind::Resolver => self.resolve(self.requests(1), weather, circumstances).await,
        }
    }

    /// One batch. What a session holds back is flushed.
    pub async fn write(&self, sample: Sample, weather: Weather, circumstances: Circumstances) -> Attempt {
        let destination = self.destination(weather);
        self.write_to(&self.setup, sample, destination, circumstances).await
    }

    pub async fn write_to(
        &self,
        setup: &Setup,
        sample: Sample,
        destination: Arc<Destination>,
        circumstances: Circumstances,
    ) -> Attempt {
        let outside = self.outside(setup, &destination, circumstances);
        let call = self.sink_call(setup, &sample, &BTreeMap::new());
        let limits = self.limits.with_room_for(sample.batch.payload.len());
        let session = self.next_session();
        let operation = Operation::Write(call.clone(), sample.batch.clone());
        let within = session.map(|session| (session, false));
        let mut result = match self.call_within(limits, &outside, within, operation).await {
            Ended::Replied(reply) => Ok(reply),
            Ended::Broke(error) => Err(error),
            Ended::Crashed => Err(CallError::Gone("the kit ended the call".to_owned())),
        };
        if let Some(session) = session {
            if let Ok(Reply { outcome: Outcome::Written(Delivered::Buffered), .. }) = &result {
                let flushed = self.answered(&outside, Some((session, true)), Operation::Flush(call)).await;
                result = flushed.map(|reply| after_flush(reply, &sample));
            }
            // Its answer says nothing; one that is gone is closed.
            let _ = self.call(&outside, Some((session, false)), Operation::Close).await;
        }
        Attempt { result, sample: Some(sample), destination, outside }
    }

    /// So many times the secret of the test case.
    pub fn requests(&self, number: usize) -> Vec<ResolverRequest> {
        let options_json = Value::Object(self.case.resolver.options.clone()).to_string();
        (0..number)
            .map(|number| ResolverRequest {
                name: format!("kit_{number}"),
                options_json: options_json.clone(),
                have_version: None,
            })
            .collect()
    }

    pub async fn resolve(
        &self,
        requests: Vec<ResolverRequest>,
        weather: Weather,
        circumstances: Circumstances,
    ) -> Attempt {
        let destination = self.destination(weather);
        self.resolve_from(&self.setup, requests, destination, circumstances).await
    }

    pub async fn resolve_from(
        &self,
        setup: &Setup,
        requests: Vec<ResolverRequest>,
        destination: Arc<Destination>,
        circumstances: Circumstances,
    ) -> Attempt {
        let outside = self.outside(setup, &destination, circumstances);
        let operation = Operation::Resolve { config_json: setup.config_json(), requests };
        let result = self.answered(&outside, None, operation).await;
        Attempt { result, sample: None, destination, outside }
    }

    pub async fn revoke(&self, lease_id: &str) -> Result<Reply, CallError> {
        let outside = self.outside(&self.setup, &self.destination(Weather::Fair), Circumstances::default());
        let config_json = self.setup.config_json();
        self.answered(&outside, None, Operation::Revoke { config_json, lease_id: lease_id.to_owned() }).await
    }
}

/// A flush that says that all is durable is what `write` could have said.
fn after_flush(reply: Reply, sample: &Sample) -> Reply {
    let outcome = match reply.outcome {
        Outcome::Flushed(Some(last)) if last == sample.batch.last => {
            Outcome::Written(Delivered::Durable(Vec::new()))
        }
        Outcome::Flushed(_) => Outcome::Written(Delivered::Buffered),
        other => other,
    };
    Reply { outcome, ..reply }
}

impl Attempt {
    pub fn observed(&self) -> Observed {
        let reply = match &self.result {
            Ok(reply) => reply,
            Err(error) => return Observed::Broke(error.clone()),
        };
        match &reply.outcome {
            Outcome::Failed(fault) => Observed::Failed(fault.clone()),
            Outcome::Resolved(answers) => answers.first().map_or(Observed::Held, of_answer),
            Outcome::Written(delivered) => self.of_rows(delivered),
            Outcome::Done | Outcome::Opened(_) | Outcome::Flushed(_) => Observed::Held,
        }
    }

    fn of_rows(&self, delivered: &Delivered) -> Observed {
        let rows = self.sample.as_ref().map_or(0, Sample::len);
        match delivered {
            Delivered::Durable(bad) if bad.is_empty() || bad.len() < rows => Observed::Delivered,
            Delivered::Durable(bad) => Observed::Failed(of_bad_row(&bad[0])),
            Delivered::RetryRows(again) if again.len() < rows => Observed::Delivered,
            Delivered::RetryRows(_) => {
                Observed::Failed(Fault::new(FaultKind::Transient, "all rows have to be sent again"))
            }
            Delivered::Buffered => Observed::Held,
        }
    }

    /// The numbers of the rows that the plugin says are durable.
    pub fn claimed(&self) -> BTreeSet<usize> {
        let rows = self.sample.as_ref().map_or(0, Sample::len);
        let Ok(Reply { outcome: Outcome::Written(delivered), .. }) = &self.result else {
            return BTreeSet::new();
        };
        let unclaimed: BTreeSet<u32> = match delivered {
            Delivered::Durable(bad) => bad.iter().map(|row| row.index).collect(),
            Delivered::RetryRows(again) => again.iter().copied().collect(),
            Delivered::Buffered => return BTreeSet::new(),
        };
        (0..rows).filter(|row| !u32::try_from(*row).is_ok_and(|row| unclaimed.contains(&row))).collect()
    }
}

fn of_bad_row(row: &BadRow) -> Fault {
    Fault { code: row.code.clone(), ..Fault::new(FaultKind::Rejected, row.message.clone()) }
}

fn of_answer(answer: &ResolverAnswer) -> Observed {
    match answer {
        ResolverAnswer::Value { .. } | ResolverAnswer::Unchanged => Observed::Delivered,
        ResolverAnswer::NotFound => Observed::NotFound,
        ResolverAnswer::Failed(fault) => Observed::Failed(fault.clone()),
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered => f.write_str("success"),
            Self::NotFound => f.write_str("not found"),
            Self::Held => f.write_str("neither success nor an error"),
            Self::Failed(fault) => write!(f, "{}: {fault}", fault.kind.name()),
            Self::Broke(error) => write!(f, "{error}"),
        }
    }
}
