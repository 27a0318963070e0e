//! Who tests the tester: plugins made up here, one that does all right and others that do one thing wrong each. The kit
//! passes the first and finds in every other just the group it sins against.

mod bundled;
mod texts;

use std::{collections::BTreeSet, fmt, sync::Arc};

use async_trait::async_trait;
use sepal_database::{
    TenantId,
    connector::{Delivered, Fault, FaultKind, Opened},
};

use super::*;
use crate::{
    call::{
        Call, CallError, GuestBatch, HeaderValue, HttpError, HttpRequest, HttpResponse, Operation, Outcome,
        Outside, Reply, SecretError, SinkCall, Usage,
    },
    manifest::World,
};

/// What is wrong with a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Nothing,
    /// Takes a 500 for success.
    ClaimsOn500,
    /// Writes its secret into the log.
    Leaks,
    /// Leaves out a row of a batch that comes again.
    LosesOnReplay,
    /// Takes a 401 for the data's fault.
    Misclassifies401,
    /// Ignores retry-after.
    Hurries,
    /// Takes a refusal of the way out for a passing failure.
    TriesWhatIsDenied,
    /// Asks another host too.
    Strays,
    /// Sends rows without anything by which they are known again.
    Anonymous,
    /// Ends when a value is null.
    FallsOverNull,
    /// Of a transactional sink: does not ask how far the destination is.
    ForgetsPosition,
}

/// A sink, written here, that puts batches where their position can be asked for.
#[derive(Clone, Copy, Debug)]
struct Fake {
    flaw: Flaw,
}

const URL: &str = "https://destination.test/in";

#[async_trait]
impl GuestHost for Fake {
    async fn call(
        &self,
        _tenant: TenantId,
        _code: &Code,
        call: Call,
        outside: Arc<dyn Outside>,
    ) -> Result<Reply, CallError> {
        let outcome = match call.operation {
            Operation::CheckSink(_) => Outcome::Done,
            Operation::OpenSink(_) => self.open(&*outside).await,
            Operation::Write(call, batch) => self.write(&call, &batch, &*outside).await?,
            other => return Err(CallError::Unfit(format!("a fake sink does not {other:?}"))),
        };
        Ok(Reply { outcome, state_changes: Vec::new(), usage: Usage::default() })
    }

    fn forget_tenant(&self, _tenant: TenantId) {}
}

impl Fake {
    async fn open(&self, outside: &dyn Outside) -> Outcome {
        if self.flaw == Flaw::ForgetsPosition {
            return Outcome::Opened(Opened::default());
        }
        let answered = outside.http(request("GET", URL, Vec::new(), None)).await;
        let kept = match answered {
            Ok(HttpResponse { status: 200, body, .. }) => String::from_utf8(body).ok(),
            Ok(_) => None,
            Err(error) => return self.unanswered(&error),
        };
        let position = kept.and_then(|kept| Some(kept.lines().next()?.to_owned()));
        Outcome::Opened(Opened { committed_through: position, max_writers: None })
    }

    async fn write(
        &self,
        call: &SinkCall,
        batch: &GuestBatch,
        outside: &dyn Outside,
    ) -> Result<Outcome, CallError> {
        assert!(call.open.config_json.contains("$secret"), "{}", call.open.config_json);
        if let Err(SecretError::NoSuchSlot | SecretError::Unavailable) = outside.secret("token").await {
            return Ok(failed(FaultKind::Transient, None));
        }
        if self.flaw == Flaw::Leaks {
            let value = outside.reveal("token").await.unwrap_or_default();
            let message = format!("using {}", String::from_utf8_lossy(&value));
            outside.log(crate::call::Level::Info, &message, &[]);
        }
        let text = String::from_utf8_lossy(&batch.payload).into_owned();
        if self.flaw == Flaw::FallsOverNull && text.contains("\"note\":null") {
            return Err(CallError::Trap("unreachable".to_owned()));
        }
        if self.flaw == Flaw::Strays {
            // Its answer does not matter.
            let _ = outside.http(request("GET", "https://elsewhere.test/", Vec::new(), None)).await;
        }
        let headers = vec![("authorization".to_owned(), HeaderValue::Bearer("token".to_owned()))];
        let body = self.body(batch, &text);
        let answered = outside.http(request("PUT", URL, headers, Some(body))).await;
        Ok(match answered {
            Ok(response) => self.judge(&response),
            Err(error) => self.unanswered(&error),
        })
    }

    fn body(&self, batch: &GuestBatch, text: &str) -> Vec<u8> {
        let skipped = usize::from(self.flaw == Flaw::LosesOnReplay && batch.attempt > 1);
        let mut lines = vec![batch.last.clone()];
        for line in text.lines().skip(skipped) {
            lines.push(match self.flaw {
                Flaw::Anonymous => note_of(line),
                _ => line.to_owned(),
            });
        }
        lines.join("\n").into_bytes()
    }

    fn judge(&self, response: &HttpResponse) -> Outcome {
        let kind = match response.status {
            200..=299 => return Outcome::Written(Delivered::Durable(Vec::new())),
            500 if self.flaw == Flaw::ClaimsOn500 => {
                return Outcome::Written(Delivered::Durable(Vec::new()));
            }
            401 if self.flaw == Flaw::Misclassifies401 => FaultKind::Rejected,
            401 | 403 => FaultKind::Unauthorized,
            300..=399 | 404 | 410 => FaultKind::Misconfigured,
            408 | 425 | 429 | 500..=599 => FaultKind::Transient,
            _ => FaultKind::Rejected,
        };
        let wait = response.headers.iter().find(|(name, _)| name == "retry-after");
        let wait = wait.and_then(|(_, seconds)| seconds.parse::<u32>().ok()).map(|seconds| seconds * 1000);
        failed(kind, wait.filter(|_| self.flaw != Flaw::Hurries))
    }

    fn unanswered(&self, error: &HttpError) -> Outcome {
        match error {
            HttpError::Denied(_) if self.flaw != Flaw::TriesWhatIsDenied => {
                failed(FaultKind::Misconfigured, None)
            }
            _ => failed(FaultKind::Transient, None),
        }
    }
}

fn failed(kind: FaultKind, retry_after_ms: Option<u32>) -> Outcome {
    Outcome::Failed(Fault { retry_after_ms, ..Fault::new(kind, "it did not work") })
}

fn request(
    method: &str,
    url: &str,
    headers: Vec<(String, HeaderValue)>,
    body: Option<Vec<u8>>,
) -> HttpRequest {
    HttpRequest {
        method: method.to_owned(),
        url: url.to_owned(),
        headers,
        body,
        body_secrets: Vec::new(),
        timeout_ms: None,
        max_response_bytes: None,
    }
}

/// The column `note` of a line, or the line where it has none.
fn note_of(line: &str) -> String {
    let row: serde_json::Value = serde_json::from_str(line).unwrap();
    row["after"]["note"].as_str().map_or_else(|| line.to_owned(), ToOwned::to_owned)
}

fn manifest(delivery: &str) -> Manifest {
    let manifest = serde_json::json!({
        "plugin": { "name": "kit/fake", "version": "1.0.0", "kind": "sink", "api": "sepal:plugin@0.1.0" },
        "sink": { "encodings": ["ndjson"], "envelopes": ["upsert"], "delivery": delivery,
            "batch": { "max_rows": 50, "max_bytes": 65536, "linger": 1000 } },
        "config": { "schema": {
            "type": "object", "additionalProperties": false, "required": ["url", "token"],
            "properties": { "url": { "type": "string" }, "token": { "sensitive": true } },
        } },
        "secrets": { "token": { "use": ["http-header", "reveal"], "required": true } },
        "capabilities": { "http": ["{config.url}"], "reveal": true },
    });
    Manifest::from_json(manifest.to_string().as_bytes()).unwrap()
}

fn case(transactional: bool) -> TestCase {
    let mut text = format!("config = {{ url = {URL:?} }}\nsecrets = {{ token = 'correct horse battery' }}\n");
    if transactional {
        text.push_str("[[destination]]\nmethod = 'PUT'\nkeep = 'position'\n");
        text.push_str("[[destination]]\nmethod = 'GET'\nkept = 'position'\n");
    }
    TestCase::parse("conformance.toml", &text).unwrap()
}

/// What the kit makes of it, and the groups with a check that failed.
async fn examined(flaw: Flaw, delivery: &str) -> (Report, BTreeSet<u8>) {
    let transactional = delivery == "transactional";
    let manifest = manifest(delivery);
    let report = Report::new(&manifest, &[0; 32], Level::of(&manifest));
    let code = Code { hash: [0; 32], world: World::Sink { reveal: true }, machine_code: [].into() };
    let imports = ["http", "reveal", "secrets"].map(|name| format!("sepal:plugin/{name}@0.1.0")).to_vec();
    let options = KitOptions { thorough: true, instances: 0, ..KitOptions::default() };
    let host = Arc::new(Fake { flaw });
    let report =
        examine(report, host, code, &manifest, imports, &case(transactional), &options).await.unwrap();
    let groups = report.checks.iter().filter(|check| check.failed()).map(|check| check.group).collect();
    (report, groups)
}

/// For messages of failing tests.
struct Failures<'a>(&'a Report);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in self.0.checks.iter().filter(|check| check.failed()) {
            let (verdict, told) = check.verdict.describe();
            writeln!(f, "{} {verdict} {}: {told}", check.group, check.check)?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_plugin_that_does_all_right_passes() {
    for delivery in ["at-least-once", "idempotent", "transactional"] {
        let (report, _) = examined(Flaw::Nothing, delivery).await;
        assert!(report.passed, "{delivery}:\n{}", Failures(&report));
        let (passed, skipped, failed) = report.counts();
        assert!(passed > 60 && failed == 0, "{passed} {skipped} {failed}");
    }
}

#[tokio::test]
async fn every_flaw_is_found_in_its_own_group() {
    let flaws = [
        (Flaw::ClaimsOn500, &[5][..]),
        (Flaw::Leaks, &[6][..]),
        (Flaw::LosesOnReplay, &[4][..]),
        (Flaw::Misclassifies401, &[3][..]),
        (Flaw::Hurries, &[3][..]),
        (Flaw::TriesWhatIsDenied, &[7][..]),
        (Flaw::Strays, &[7][..]),
        // A row without its key is also one that a reader of the request cannot find.
        (Flaw::Anonymous, &[2, 4]),
        (Flaw::FallsOverNull, &[2][..]),
    ];
    for (flaw, wrong) in flaws {
        let (report, groups) = examined(flaw, "idempotent").await;
        assert_eq!(
            groups,
            wrong.iter().copied().collect::<BTreeSet<_>>(),
            "{flaw:?}:\n{}",
            Failures(&report)
        );
        assert!(!report.passed);
    }
}

#[tokio::test]
async fn a_transactional_sink_has_to_ask_how_far_it_is() {
    let (report, groups) = examined(Flaw::ForgetsPosition, "transactional").await;
    assert_eq!(groups, BTreeSet::from([4]), "{}", Failures(&report));
    let repeats = report.checks.iter().find(|check| check.failed()).unwrap();
    assert_eq!(repeats.check, "nothing comes twice");
}

#[tokio::test]
async fn a_level_below_the_claim_asks_less() {
    let manifest = manifest("idempotent");
    let report = Report::new(&manifest, &[0; 32], Level::L0);
    let code = Code { hash: [0; 32], world: World::Sink { reveal: true }, machine_code: [].into() };
    let imports = ["http", "reveal", "secrets"].map(|name| format!("sepal:plugin/{name}@0.1.0")).to_vec();
    let options = KitOptions { instances: 0, ..KitOptions::default() };
    let host = Arc::new(Fake { flaw: Flaw::LosesOnReplay });
    let report = examine(report, host, code, &manifest, imports, &case(false), &options).await.unwrap();
    assert!(report.passed, "{}", Failures(&report));
}

#[tokio::test]
async fn a_report_never_holds_a_secret() {
    let (report, _) = examined(Flaw::Leaks, "idempotent").await;
    let json = serde_json::to_string(&report).unwrap();
    assert!(!json.contains("correct horse"), "{json}");
    assert!(json.contains(r#""verdict":"fail""#) && json.contains(r#""passed":false"#), "{json}");
}
