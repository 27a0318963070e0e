//! Destinations that are not what they should be: they are asked for what they must not have, talk without end, repeat
//! what they were told.

use std::{future::pending, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use zeroize::Zeroizing;

use super::*;
use crate::{
    egress::{Egress, EgressOptions},
    sinks::bounds::within,
};

const SECRET: &str = "hunter2-and-more";

/// One secret for some hosts.
#[derive(Debug)]
struct Bound(Option<Vec<String>>);

#[async_trait]
impl Secrets for Bound {
    async fn secret(&self, _: &str, _: Option<u64>) -> Result<SecretValue, Fault> {
        Ok(SecretValue {
            value: Arc::new(Zeroizing::new(SECRET.as_bytes().to_vec())),
            version: "1".into(),
            allowed_hosts: self.0.clone(),
        })
    }

    async fn certificate(&self, name: &str) -> Result<CertificateValue, Fault> {
        Err(Fault::new(FaultKind::Misconfigured, format!("no certificate {name}")))
    }

    fn forget(&self, _: &str) {}

    fn note_reveal(&self, _: &str) {}
}

/// Says the same to everybody who says something, and hangs up. With the number of those who came.
async fn says(answer: Vec<u8>) -> (SocketAddr, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(0));
    let count = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            *count.lock() += 1;
            let _ = socket.read(&mut [0; 4096]).await;
            // The other side hangs up when it has heard enough.
            let _ = socket.write_all(&answer).await;
        }
    });
    (address, heard)
}

/// Of the Postgres protocol: type, length with itself, content.
fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), content].concat()
}

fn postgres(address: SocketAddr) -> SinkSpec {
    let url = format!("postgres://app@{address}/shop?sslmode=disable");
    let password = Setting::Secret("password".into(), None);
    let options = [("url", text(&url)), ("table", text("items")), ("password", password)];
    SinkSpec { allow_hosts: vec![format!("postgres://{address}")], ..spec("postgres", &options) }
}

fn bucket(address: SocketAddr) -> SinkSpec {
    let options = [
        ("url", text("s3://shop/rows")),
        ("endpoint", text(&format!("http://{address}"))),
        ("access_key_id", text("id")),
        ("secret_access_key", Setting::Secret("key".into(), None)),
    ];
    SinkSpec { allow_hosts: vec![format!("http://{address}")], ..spec("object_store", &options) }
}

/// What the sink says of a destination that cannot be written to.
async fn complaint(spec: &SinkSpec, hosts: Option<&[&str]>) -> Fault {
    let private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let egress = Egress::new(EgressOptions { private_networks, ..EgressOptions::default() }).unwrap();
    let hosts = hosts.map(|hosts| hosts.iter().map(ToString::to_string).collect());
    Native::new(Arc::new(egress), None).check(spec, Arc::new(Bound(hosts))).await.unwrap_err()
}

#[tokio::test]
async fn a_secret_goes_only_to_hosts_that_it_allows() {
    let (address, heard) = says(Vec::new()).await;
    for spec in [postgres(address), bucket(address)] {
        for hosts in [&["*.example.com"] as &[&str], &[], &["127.0.0.2"]] {
            let fault = complaint(&spec, Some(hosts)).await;
            assert!(fault.message.contains("may not go to 127.0.0.1"), "{}: {fault}", spec.connector);
            assert_eq!(fault.kind, FaultKind::Misconfigured);
        }
    }
    assert_eq!(*heard.lock(), 0);
    let fault = complaint(&postgres(address), Some(&["127.0.0.1"])).await;
    assert!(!fault.message.contains("may not go"), "{fault}");
    assert_eq!(*heard.lock(), 1);
}

#[tokio::test]
async fn an_endpoint_is_an_address_and_nothing_else() {
    let (address, heard) = says(Vec::new()).await;
    for endpoint in ["http://app:hunter2@127.0.0.1", "http://127.0.0.1/?x=1", "ftp://127.0.0.1", "http://"] {
        let mut spec = bucket(address);
        spec.options.insert("endpoint".into(), text(endpoint));
        let fault = complaint(&spec, None).await;
        assert!(fault.message.starts_with("/endpoint: ") && !fault.message.contains("hunter2"), "{fault}");
    }
    assert_eq!(*heard.lock(), 0);
}

#[tokio::test]
async fn a_postgres_that_talks_without_end_is_left() {
    let parameter = message(b'S', &[b"name\0".as_slice(), &[b'x'; 4096], b"\0"].concat());
    let authenticated = message(b'R', &0_u32.to_be_bytes());
    let (address, _) = says([authenticated, parameter.repeat(1024)].concat()).await;
    let fault = complaint(&postgres(address), None).await;
    assert!(fault.message.contains("more than 1048576 bytes in one reply"), "{fault}");
    assert_eq!(fault.kind, FaultKind::Transient);
}

#[tokio::test]
async fn what_a_postgres_says_is_shown_as_one_short_line() {
    let words = format!("no\nERROR {SECRET}\x1b[31m{}", "x".repeat(10_000));
    let error = format!("SFATAL\0C28P01\0M{words}\0\0");
    let (address, _) = says(message(b'E', error.as_bytes())).await;
    let fault = complaint(&postgres(address), None).await;
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::Unauthorized, Some("pg.28P01")));
    assert!(fault.message.starts_with("no\\u{a}ERROR <redacted>\\u{1b}[31mxxx"), "{fault}");
    assert!(fault.message.len() < 5000, "{} bytes", fault.message.len());
}

#[tokio::test]
async fn what_a_bucket_says_is_shown_as_one_short_line() {
    let body = format!("<Error>\n{SECRET}\x1b[31m{}", "x".repeat(8 << 20));
    let (address, _) =
        says(format!("HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{body}").into_bytes()).await;
    let fault = complaint(&bucket(address), None).await;
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::Unauthorized, Some("s3.denied")));
    assert!(fault.message.len() < 5000, "{} bytes", fault.message.len());
    assert!(fault.message.contains("<redacted>") && !fault.message.contains(SECRET), "{fault}");
    assert!(!fault.message.contains(['\n', '\x1b']), "{fault}");
}

#[tokio::test]
async fn a_destination_that_never_answers_is_not_waited_for() {
    let fault = within(Duration::ZERO, pending::<Result<(), Fault>>()).await.unwrap_err();
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::NotConnected, Some("sink.timeout")));
}

/// A secret that is there once, and then changed or taken away.
#[derive(Debug)]
struct Fickle {
    changes: bool,
    asked: Mutex<u32>,
}

impl Fickle {
    fn new(changes: bool) -> Arc<Self> {
        Arc::new(Self { changes, asked: Mutex::default() })
    }
}

#[async_trait]
impl Secrets for Fickle {
    async fn secret(&self, name: &str, version: Option<u64>) -> Result<SecretValue, Fault> {
        let asked = {
            let mut asked = self.asked.lock();
            *asked += 1;
            *asked
        };
        if asked > 1 && !self.changes {
            return Err(Fault::new(FaultKind::Unauthorized, "taken back").with_code("secret.denied"));
        }
        let value = Bound(None).secret(name, version).await?;
        Ok(SecretValue { version: asked.to_string(), ..value })
    }

    async fn certificate(&self, name: &str) -> Result<CertificateValue, Fault> {
        Bound(None).certificate(name).await
    }

    fn forget(&self, _: &str) {}

    fn note_reveal(&self, _: &str) {}
}

async fn opened(spec: &SinkSpec, secrets: Arc<dyn Secrets>) -> Box<dyn Sink> {
    let private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let egress = Egress::new(EgressOptions { private_networks, ..EgressOptions::default() }).unwrap();
    let mut sink = Native::new(Arc::new(egress), None).open(spec, secrets).await.unwrap();
    sink.open(BTreeMap::new()).await.unwrap();
    sink
}

#[tokio::test]
async fn a_bucket_is_written_with_the_key_of_now_or_not_at_all() {
    let (address, heard) = says(Vec::new()).await;
    for (changes, kind, code) in
        [(true, FaultKind::NotConnected, "s3.key"), (false, FaultKind::Unauthorized, "secret.denied")]
    {
        let mut sink = opened(&bucket(address), Fickle::new(changes)).await;
        assert_eq!(sink.write(&batch(1, 10)).await.unwrap(), Delivered::Buffered);
        let fault = sink.flush().await.unwrap_err();
        assert_eq!((fault.kind, fault.code.as_deref()), (kind, Some(code)), "{fault}");
    }
    assert_eq!(*heard.lock(), 0);
}

#[tokio::test]
async fn a_connection_to_a_postgres_ends_with_the_right_to_its_password() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut answer = [message(b'R', &0_u32.to_be_bytes()), message(b'Z', b"I")].concat();
        // Whatever it is told then, it has done.
        while matches!(socket.read(&mut [0; 4096]).await, Ok(1..)) {
            // The sink hangs up when it has seen enough.
            let _ = socket.write_all(&answer).await;
            answer = [message(b'C', b"SET\0"), message(b'Z', b"I")].concat();
        }
    });
    let mut sink = opened(&postgres(address), Fickle::new(false)).await;
    let fault = sink.write(&batch(1, 1)).await.unwrap_err();
    assert_eq!((fault.kind, fault.code.as_deref()), (FaultKind::Unauthorized, Some("secret.denied")));
}
