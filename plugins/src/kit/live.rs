//! One call of a plugin for real: its requests leave through the same way out as in a server. `sepal plugin run`
//! calls it to try a plugin against a destination before there is a pipeline.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU32},
};

use sepal_database::connector::{Delivered, Encoding, PluginKind};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Kit, KitError, Specimen,
    case::{Plaintext, RowShape},
    rows::{Form, Sampler},
    setup::{self, Setup},
    subject::TENANT,
};
use crate::{
    call::{
        Call, GuestBatch, GuestHost, OpenArgs, Operation, Outcome, Outside, Reply, ResolverAnswer,
        ResolverRequest, SessionId, SinkCall,
    },
    egress::{Egress, EgressOptions},
    manifest::EffectiveLimits,
    package::Package,
};

/// There is one at a time.
const SESSION: SessionId = SessionId(1);

/// What a plugin is run with.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Without the sensitive ones.
    pub config: Map<String, Value>,
    pub secrets: BTreeMap<String, Plaintext>,
    pub work: LiveWork,
    /// Addresses that are not public may be reached.
    pub allow_private: bool,
}

/// What it is to do after `check`.
#[derive(Clone, Debug)]
pub enum LiveWork {
    /// Three rows that the kit makes up, or nothing but `check` for a resolver.
    Sample,
    /// Lines of a batch as docs/plugins/reference.md has them.
    Rows(Vec<String>),
    /// The options of one secret.
    Secret(Map<String, Value>),
}

/// What came of it. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Live {
    pub succeeded: bool,
    /// What was called, and what it answered.
    pub steps: Vec<(String, String)>,
    pub peak_memory_bytes: u64,
    pub cpu_us: u64,
}

impl Kit {
    /// Runs `check`, and then the work.
    pub async fn live(&self, package: &Specimen, options: &LiveOptions) -> Result<Live, KitError> {
        let manifest = &package.manifest;
        let setup = Setup::given(manifest, &package.schema, &options.config, &options.secrets)
            .map_err(|fault| KitError::Options(fault.to_string()))?;
        let mut egress = EgressOptions::default();
        if options.allow_private {
            egress.private_networks = setup::everywhere();
        }
        let outside = Egress::new(egress)?.outside(setup.spec(manifest, &manifest.plugin.name));
        let code = self.code(package).await?;
        let mut live = Live { succeeded: true, steps: Vec::new(), peak_memory_bytes: 0, cpu_us: 0 };
        for (name, operation) in operations(package, &setup, &options.work)? {
            let limits = EffectiveLimits::effective(manifest, &EffectiveLimits::MOST)
                .with_room_for(payload(&operation));
            let session = (manifest.is_session() && name != "check").then_some(SESSION);
            let call = Call { limits, session, continues: name == "flush", operation };
            let asked = Arc::clone(&outside) as Arc<dyn Outside>;
            let answered = self.host.call(TENANT, &code, call, asked).await;
            let (good, said) = match answered {
                Ok(reply) => {
                    live.peak_memory_bytes = live.peak_memory_bytes.max(reply.usage.peak_memory_bytes);
                    live.cpu_us += reply.usage.cpu_us;
                    describe(&reply)
                }
                Err(error) => (false, error.to_string()),
            };
            live.succeeded &= good;
            live.steps.push((name.to_owned(), outside.scrubber().scrub(&said).into_owned()));
            if !good {
                break;
            }
        }
        // A session that was kept ends here.
        self.host.forget_tenant(TENANT);
        Ok(live)
    }
}

fn payload(operation: &Operation) -> usize {
    match operation {
        Operation::Write(_, batch) => batch.payload.len(),
        _ => 0,
    }
}

fn operations(
    package: &Package,
    setup: &Setup,
    work: &LiveWork,
) -> Result<Vec<(&'static str, Operation)>, KitError> {
    let config_json = setup.config_json();
    let wrong = |problem: &str| Err(KitError::Options(problem.to_owned()));
    Ok(match (package.manifest.plugin.kind, work) {
        (PluginKind::Resolver, LiveWork::Rows(_)) => {
            return wrong(
                "a resolver takes no rows: give --options with what CREATE SECRET … FROM would say",
            );
        }
        (PluginKind::Sink, LiveWork::Secret(_)) => {
            return wrong("a sink resolves nothing: give --rows, or nothing for rows that are made up");
        }
        (PluginKind::Resolver, LiveWork::Sample) => {
            vec![("check", Operation::CheckResolver { config_json })]
        }
        (PluginKind::Resolver, LiveWork::Secret(options)) => {
            let options_json = Value::Object(options.clone()).to_string();
            let request = ResolverRequest { name: "secret".to_owned(), options_json, have_version: None };
            let resolve = Operation::Resolve { config_json: config_json.clone(), requests: vec![request] };
            vec![("check", Operation::CheckResolver { config_json }), ("resolve", resolve)]
        }
        (PluginKind::Sink, LiveWork::Rows(_)) if form(package).encoding != Encoding::Ndjson => {
            return wrong("the sink takes no NDJSON, so lines are no rows for it: leave --rows out");
        }
        (PluginKind::Sink, LiveWork::Sample | LiveWork::Rows(_)) => {
            let (call, batch) = write(package, config_json, work);
            let mut steps = vec![("check", Operation::CheckSink(call.open.clone()))];
            steps.push(("write", Operation::Write(call.clone(), batch)));
            if package.manifest.is_session() {
                steps.push(("flush", Operation::Flush(call)));
            }
            steps
        }
    })
}

fn form(package: &Package) -> Form {
    Form::of(&package.manifest, RowShape::default())
}

/// A batch of the rows given, or of rows made up.
fn write(package: &Package, config_json: String, work: &LiveWork) -> (SinkCall, GuestBatch) {
    let form = form(package);
    let next = AtomicU32::new(1);
    let mut sample = Sampler::new(form.clone(), &next).plain(3);
    if let LiveWork::Rows(lines) = work {
        sample.batch.payload = lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes();
        sample.batch.rows = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    }
    let open = OpenArgs {
        config_json,
        encoding: form.encoding,
        envelope: form.envelope,
        sink_id: "sepal-plugin-run".to_owned(),
        worker: 0,
        parallelism: 1,
        attributes: Vec::new(),
    };
    (SinkCall { open, schema: Some(sample.schema), state: BTreeMap::new() }, sample.batch)
}

/// Whether it went well, and in words. A value is not shown.
fn describe(reply: &Reply) -> (bool, String) {
    match &reply.outcome {
        Outcome::Done => (true, "no error".to_owned()),
        Outcome::Failed(fault) => (false, format!("{}: {fault}", fault.kind.name())),
        Outcome::Written(Delivered::Durable(bad)) if bad.is_empty() => (true, "durable".to_owned()),
        Outcome::Written(Delivered::Durable(bad)) => {
            let rows: Vec<String> =
                bad.iter().map(|row| format!("row {}: {}", row.index, row.message)).collect();
            (false, format!("durable apart from {}", rows.join("; ")))
        }
        Outcome::Written(Delivered::Buffered) => (true, "buffered".to_owned()),
        Outcome::Written(Delivered::RetryRows(rows)) => {
            (false, format!("rows {rows:?} have to be sent again"))
        }
        Outcome::Resolved(answers) => match answers.as_slice() {
            [ResolverAnswer::Value { value, version, ttl_seconds, .. }] => {
                let version = version.as_deref().unwrap_or("none");
                let ttl = ttl_seconds.map_or_else(|| "none".to_owned(), |seconds| format!("{seconds} s"));
                (true, format!("a value of {} bytes, version {version}, time to live {ttl}", value.len()))
            }
            [ResolverAnswer::NotFound] => (false, "not found".to_owned()),
            [ResolverAnswer::Failed(fault)] => (false, format!("{}: {fault}", fault.kind.name())),
            other => (false, format!("{other:?}")),
        },
        Outcome::Opened(_) | Outcome::Flushed(_) => (true, "no error".to_owned()),
    }
}
