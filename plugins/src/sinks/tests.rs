//! Options, SQL and the naming of files; the destinations themselves are asked in the product's tests.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sepal_database::{
    TenantId,
    connector::{
        Batch, CertificateValue, Delivered, Encoding, Envelope, Fault, FaultKind, SecretValue, Secrets,
        Setting, Sink, SinkSpec, Tier,
    },
};

use super::{Native, Reach, rolled};

mod destinations;

#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl Reach for Nowhere {
    async fn addresses(&self, _: &SinkSpec, _: &str, _: &str, _: u16) -> Result<Vec<SocketAddr>, Fault> {
        Err(Fault::new(FaultKind::Misconfigured, "denied"))
    }

    fn http_client(&self, _: &SinkSpec) -> Result<reqwest::Client, Fault> {
        Err(Fault::new(FaultKind::Misconfigured, "denied"))
    }

    fn tls(&self) -> Arc<rustls::ClientConfig> {
        unreachable!("nothing is connected to")
    }
}

/// There are none.
#[derive(Debug)]
pub(crate) struct NoSecrets;

#[async_trait]
impl Secrets for NoSecrets {
    async fn secret(&self, name: &str, _: Option<u64>) -> Result<SecretValue, Fault> {
        Err(Fault::new(FaultKind::Misconfigured, format!("no secret {name}")))
    }

    async fn certificate(&self, name: &str) -> Result<CertificateValue, Fault> {
        Err(Fault::new(FaultKind::Misconfigured, format!("no certificate {name}")))
    }

    fn forget(&self, _: &str) {}

    fn note_reveal(&self, _: &str) {}
}

fn spec(connector: &str, options: &[(&str, Setting)]) -> SinkSpec {
    SinkSpec {
        tenant: TenantId([1; 16]),
        environment: "default".into(),
        name: "s".into(),
        id: "0123456789abcdef0123".into(),
        connector: connector.into(),
        component: None,
        options: options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        allow_hosts: Vec::new(),
        reveal: false,
        encoding: Encoding::Ndjson,
        envelope: Envelope::Upsert,
        tier: Tier::AtLeastOnce,
    }
}

fn text(value: &str) -> Setting {
    Setting::Text(value.into())
}

fn native(root: Option<&std::path::Path>) -> Native {
    Native::new(Arc::new(Nowhere), root.map(std::path::Path::to_path_buf))
}

fn refusal(connector: &str, options: &[(&str, Setting)]) -> String {
    let fault = native(None).validate(&spec(connector, options)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Misconfigured);
    fault.message
}

#[test]
fn options_are_refused_with_their_name_and_what_is_wanted() {
    let url = ("url", text("postgres://app@db.example.com/shop"));
    let table = ("table", text("items"));
    native(None).validate(&spec("postgres", &[url.clone(), table.clone()])).unwrap();
    assert!(refusal("postgres", std::slice::from_ref(&table)).starts_with("/url: missing"));
    assert!(refusal("postgres", &[url.clone(), table.clone(), ("tabel", text("x"))]).starts_with("/tabel: "));
    let literal = ("password", text("hunter2"));
    let said = refusal("postgres", &[url.clone(), table.clone(), literal]);
    assert!(said.contains("SECRET[name]") && !said.contains("hunter2"), "{said}");
    let inside = ("url", text("postgres://app:hunter2@db.example.com/shop"));
    let said = refusal("postgres", &[inside, table]);
    assert!(said.contains("SECRET[name]") && !said.contains("hunter2"), "{said}");
    assert!(refusal("file", &[("path", text("out"))]).contains("sink_file_root"));
    assert!(refusal("object_store", &[("url", text("ftp://x"))]).starts_with("/url: "));
    assert!(refusal("kafka", &[]).contains("postgres"));
}

#[test]
fn a_path_stays_below_the_operators_directory() {
    let root = tempfile::tempdir().unwrap();
    for path in ["../out", "/etc", "a/../../b"] {
        let refused = native(Some(root.path())).validate(&spec("file", &[("path", text(path))]));
        assert!(refused.is_err(), "{path}");
    }
    native(Some(root.path())).validate(&spec("file", &[("path", text("a/b"))])).unwrap();
}

/// The tenant's in the operator's directory.
fn home(root: &std::path::Path) -> std::path::PathBuf {
    root.join(TenantId([1; 16]).to_string())
}

#[tokio::test]
async fn a_symbolic_link_does_not_lead_out() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(home(root.path())).unwrap();
    std::os::unix::fs::symlink(outside.path(), home(root.path()).join("link")).unwrap();
    for path in ["link", "link/deeper"] {
        let spec = spec("file", &[("path", text(path))]);
        let fault = native(Some(root.path())).check(&spec, Arc::new(NoSecrets)).await.unwrap_err();
        assert!(fault.message.contains("leads out"), "{fault}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "{path}");
    }
}

#[tokio::test]
async fn a_tenant_has_a_directory_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let native = native(Some(root.path()));
    let one = spec("file", &[("path", text("out"))]);
    let other = SinkSpec { tenant: TenantId([2; 16]), ..one.clone() };
    native.check(&one, Arc::new(NoSecrets)).await.unwrap();
    native.check(&other, Arc::new(NoSecrets)).await.unwrap();
    assert!(!root.path().join("out").exists());
    assert!(home(root.path()).join("out").is_dir());
    assert!(root.path().join(TenantId([2; 16]).to_string()).join("out").is_dir());
}

fn batch(number: u32, rows: u32) -> Batch {
    Batch {
        id: format!("b{number}"),
        schema_id: "s".into(),
        first: format!("p{number}"),
        last: format!("q{number}"),
        rows,
        attempt: 1,
        snapshot: false,
        payload: Bytes::from(format!("{{\"n\":{number}}}\n")),
    }
}

#[tokio::test]
async fn files_are_named_after_their_first_batch_and_written_again_under_the_same_name() {
    let root = tempfile::tempdir().unwrap();
    let spec = spec("file", &[("path", text("out")), ("roll_rows", Setting::Number(20.0))]);
    let native = native(Some(root.path()));
    let mut sink = native.open(&spec, Arc::new(NoSecrets)).await.unwrap();
    sink.open(BTreeMap::new()).await.unwrap();
    assert_eq!(sink.write(&batch(1, 10)).await.unwrap(), Delivered::Buffered);
    assert_eq!(sink.write(&batch(2, 10)).await.unwrap(), Delivered::Durable(Vec::new()));
    assert_eq!(sink.write(&batch(3, 10)).await.unwrap(), Delivered::Buffered);
    assert_eq!(sink.flush().await.unwrap(), Some("q3".into()));
    assert_eq!(sink.flush().await.unwrap(), Some("q3".into()), "still the last that is durable");
    // A crash before the second acknowledgement: the third batch comes again, and the fourth with it.
    let mut sink = native.open(&spec, Arc::new(NoSecrets)).await.unwrap();
    sink.open(BTreeMap::new()).await.unwrap();
    sink.write(&batch(3, 10)).await.unwrap();
    sink.write(&batch(4, 10)).await.unwrap();
    let mut files: Vec<(String, String)> = std::fs::read_dir(home(root.path()).join("out"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect();
    files.sort();
    let expected = [("p1", "{\"n\":1}\n{\"n\":2}\n"), ("p3", "{\"n\":3}\n{\"n\":4}\n")];
    let expected: Vec<(String, String)> = expected
        .iter()
        .map(|(first, text)| (format!("0123456789abcdef-{first}.ndjson"), (*text).to_owned()))
        .collect();
    assert_eq!(files, expected);
}

/// Fails as often as it is told to.
#[derive(Debug, Default)]
struct Flaky {
    failures: Mutex<u32>,
    files: Mutex<Vec<(String, Bytes)>>,
}

#[async_trait]
impl rolled::Shelf for Arc<Flaky> {
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), Fault> {
        let mut left = self.failures.lock();
        if *left > 0 {
            *left -= 1;
            return Err(Fault::new(FaultKind::Transient, "no"));
        }
        self.files.lock().push((name.to_owned(), bytes));
        Ok(())
    }
}

#[tokio::test]
async fn a_batch_that_comes_again_after_a_failed_roll_is_held_once() {
    let shelf = Arc::new(Flaky { failures: Mutex::new(2), files: Mutex::default() });
    let spec = spec("file", &[("roll_rows", Setting::Number(10.0))]);
    let mut sink = rolled::RolledSink::new(&spec, Box::new(Arc::clone(&shelf))).unwrap();
    sink.open(BTreeMap::new()).await.unwrap();
    assert!(sink.write(&batch(1, 10)).await.is_err());
    assert!(sink.write(&batch(1, 10)).await.is_err());
    assert_eq!(sink.write(&batch(1, 10)).await.unwrap(), Delivered::Durable(Vec::new()));
    assert_eq!(
        shelf.files.lock().as_slice(),
        [("0123456789abcdef-p1.ndjson".into(), Bytes::from("{\"n\":1}\n"))]
    );
}

fn small_files(shelf: &Arc<Flaky>) -> rolled::RolledSink {
    let spec = spec("file", &[("roll_rows", Setting::Number(20.0))]);
    rolled::RolledSink::new(&spec, Box::new(Arc::clone(shelf))).unwrap()
}

#[tokio::test]
async fn a_batch_that_was_set_aside_is_in_no_file() {
    let shelf = Arc::new(Flaky { failures: Mutex::new(1), files: Mutex::default() });
    let mut sink = small_files(&shelf);
    sink.open(BTreeMap::new()).await.unwrap();
    assert_eq!(sink.write(&batch(1, 10)).await.unwrap(), Delivered::Buffered);
    assert!(sink.write(&batch(2, 10)).await.is_err());
    // The pipeline gave the second up: its rows are dead letters.
    assert_eq!(sink.write(&batch(3, 10)).await.unwrap(), Delivered::Durable(Vec::new()));
    let files = shelf.files.lock();
    assert_eq!(
        files.as_slice(),
        [("0123456789abcdef-p1.ndjson".into(), Bytes::from("{\"n\":1}\n{\"n\":3}\n"))]
    );
}

#[tokio::test]
async fn dead_letters_take_no_other_files_name() {
    let shelf = Arc::new(Flaky::default());
    let mut sink = small_files(&shelf);
    sink.open(BTreeMap::new()).await.unwrap();
    sink.write(&batch(1, 10)).await.unwrap();
    assert_eq!(sink.write(&batch(2, 10)).await.unwrap(), Delivered::Durable(Vec::new()));
    // Its position is that of a file.
    let again = Batch { id: "dlq-7".into(), ..batch(1, 1) };
    assert_eq!(sink.write(&again).await.unwrap(), Delivered::Buffered);
    assert_eq!(sink.flush().await.unwrap(), Some("q1".into()));
    let names: Vec<String> = shelf.files.lock().iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, ["0123456789abcdef-p1.ndjson", "0123456789abcdef-dlq-7.ndjson"]);
}

#[tokio::test]
async fn a_flush_knows_what_a_full_file_made_durable() {
    let shelf = Arc::new(Flaky::default());
    let mut sink = small_files(&shelf);
    sink.open(BTreeMap::new()).await.unwrap();
    assert_eq!(sink.write(&batch(1, 10)).await.unwrap(), Delivered::Buffered);
    assert_eq!(sink.write(&batch(2, 10)).await.unwrap(), Delivered::Durable(Vec::new()));
    // The pipeline still waits for an answer about the first.
    assert_eq!(sink.flush().await.unwrap(), Some("q2".into()));
    assert_eq!(shelf.files.lock().len(), 1);
}

#[test]
fn a_file_is_gathered_in_memory_and_so_has_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    let roll = |mib: f64| {
        let options = [("path", text("out")), ("roll_mib", Setting::Number(mib))];
        native(Some(directory.path())).validate(&spec("file", &options))
    };
    roll(64.0).unwrap();
    let fault = roll(65.0).unwrap_err();
    assert!(fault.message.starts_with("/roll_mib: "), "{}", fault.message);
}
