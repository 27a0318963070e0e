//! The destination: an HTTP server on loopback that takes batches as a stranger's would.
//!
//! It shares two secrets with the sink, the token and the key of the signatures, and nothing with its plugin: signatures
//! are verified with an HMAC of its own (Standard Webhooks, specification 1.0.0). What is not signed is answered 401.
//! What becomes of the rest the story says ([`Mood`]), and then waits for it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    routing::any,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use crate::cli::failure::Failure;

/// How long the story waits for a delivery.
const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds that a signature may be old, against replay.
const TOLERANCE: u64 = 300;

/// What sender and receiver have agreed on.
pub struct Agreed {
    /// Sent with every request.
    pub token: String,
    /// Signs every batch; never sent.
    pub key: String,
}

impl Agreed {
    pub fn anew() -> Self {
        let random = || format!("{:032x}", rand::random::<u128>());
        Self { token: format!("hook_{}", random()), key: format!("sign_{}", random()) }
    }
}

/// What it does with a batch that is signed.
#[derive(Clone, Copy, Debug)]
pub enum Mood {
    Open,
    /// 503.
    Down,
    /// 400 for a batch with this word. Says the sender's own credentials back, as careless servers do.
    Refusing(&'static str),
}

/// A batch that was signed.
pub struct Delivery {
    /// `webhook-id`
    pub id: String,
    pub status: StatusCode,
    pub body: Bytes,
    pub lines: Vec<Line>,
    pub at: Instant,
}

/// A line of a body.
pub struct Line {
    pub text: String,
    pub change: Change,
}

#[derive(Deserialize)]
pub struct Change {
    pub op: String,
    pub key: Key,
    pub after: Option<Definition>,
}

#[derive(Deserialize)]
pub struct Key {
    pub id: i64,
}

#[derive(Deserialize)]
pub struct Definition {
    pub id: i64,
    pub word: String,
    pub pos: String,
    pub definition: String,
}

/// See the module.
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    agreed: Agreed,
    mood: Mutex<Mood>,
    deliveries: Mutex<Vec<Delivery>>,
    /// A request with the token and without a body: CREATE SINK asks whether we are there.
    was_asked: AtomicBool,
    /// Print what arrives.
    loud: AtomicBool,
    news: watch::Sender<()>,
}

impl Receiver {
    pub async fn start(agreed: Agreed) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            agreed,
            mood: Mutex::new(Mood::Open),
            deliveries: Mutex::default(),
            was_asked: AtomicBool::new(false),
            loud: AtomicBool::new(false),
            news: watch::Sender::new(()),
        });
        let router = Router::new().route("/in", any(receive)).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the demo's receiver ended");
            }
        });
        Ok(Self { address, shared, server })
    }

    pub fn agreed(&self) -> &Agreed {
        &self.shared.agreed
    }

    pub fn set(&self, mood: Mood) {
        *self.shared.mood.lock() = mood;
    }

    /// From now on what arrives is printed.
    pub fn print(&self) {
        self.shared.loud.store(true, Ordering::Relaxed);
    }

    pub fn was_asked(&self) -> bool {
        self.shared.was_asked.load(Ordering::Relaxed)
    }

    /// Deliveries so far, taken or not.
    pub fn count(&self) -> usize {
        self.shared.deliveries.lock().len()
    }

    /// Looks at the deliveries from the `from`th on until `look` finds what it looks for.
    pub async fn wait<T>(
        &self,
        what: &str,
        from: usize,
        look: impl Fn(&[Delivery]) -> Option<T>,
    ) -> Result<T, Failure> {
        let mut news = self.shared.news.subscribe();
        let found = async {
            loop {
                news.borrow_and_update();
                let found = look(&self.shared.deliveries.lock()[from..]);
                if let Some(found) = found {
                    return found;
                }
                // The sender is ours: this does not fail.
                if news.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        timeout(PATIENCE, found).await.map_err(|_| {
            let seconds = PATIENCE.as_secs();
            Failure::failed(format!("{what} did not arrive at the receiver within {seconds} s"))
        })
    }

    /// Posts as somebody would who has stolen the token and not the key. The answer's status line.
    pub async fn forge(&self) -> Result<String, Failure> {
        let body = r#"{"op":"c","key":{"id":1},"after":null}"#;
        let request = format!(
            "POST /in HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nwebhook-id: forged\r\n\
             webhook-timestamp: {}\r\nwebhook-signature: v1,{}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.address,
            self.shared.agreed.token,
            unix_now(),
            STANDARD.encode([0; 32]),
            body.len()
        );
        let mut socket = TcpStream::connect(self.address).await?;
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(PATIENCE, socket.read_to_string(&mut answer))
            .await
            .map_err(|_| Failure::failed("the receiver did not answer"))??;
        Ok(answer.lines().next().unwrap_or_default().to_owned())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    shared.answer(&method, &headers, body)
}

impl Shared {
    fn answer(&self, method: &Method, headers: &HeaderMap, body: Bytes) -> (StatusCode, String) {
        let refused = |why: &str| (StatusCode::UNAUTHORIZED, why.to_owned());
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if text("authorization").strip_prefix("Bearer ") != Some(self.agreed.token.as_str()) {
            return refused("not our token");
        }
        if *method == Method::HEAD {
            self.was_asked.store(true, Ordering::Relaxed);
            return (StatusCode::OK, String::new());
        }
        let (id, sent) = (text("webhook-id"), text("webhook-timestamp"));
        if !sent.parse::<i64>().is_ok_and(|sent| sent.abs_diff(unix_now()) <= TOLERANCE) {
            return refused("sent at another time");
        }
        let signed = [id.as_bytes(), sent.as_bytes(), &body[..]].join(&b'.');
        let key = self.agreed.key.as_bytes();
        if !text("webhook-signature").split(' ').any(|signature| fits(key, signature, &signed)) {
            return refused("not our signature");
        }
        let Some(lines) = read(&body) else {
            return (StatusCode::UNPROCESSABLE_ENTITY, "not rows of definitions".to_owned());
        };
        let (status, answer) = self.judge(&lines, text("authorization"));
        if self.loud.load(Ordering::Relaxed) {
            lines.iter().for_each(|line| println!("  ← {} {}", status.as_u16(), line.text));
        }
        let delivery = Delivery { id: id.to_owned(), status, body, lines, at: Instant::now() };
        self.deliveries.lock().push(delivery);
        self.news.send_replace(());
        (status, answer)
    }

    fn judge(&self, lines: &[Line], authorization: &str) -> (StatusCode, String) {
        let mood = *self.mood.lock();
        let has = |word: &str| {
            lines.iter().any(|line| line.change.after.as_ref().is_some_and(|after| after.word == word))
        };
        match mood {
            Mood::Open => (StatusCode::OK, "taken".to_owned()),
            Mood::Down => (StatusCode::SERVICE_UNAVAILABLE, "down for a moment".to_owned()),
            Mood::Refusing(word) if has(word) => {
                (StatusCode::BAD_REQUEST, format!("no {word} here (you said {authorization})"))
            }
            Mood::Refusing(_) => (StatusCode::OK, "taken".to_owned()),
        }
    }
}

/// Whether a signature is that of what was signed.
fn fits(key: &[u8], signature: &str, signed: &[u8]) -> bool {
    let Some(Ok(code)) = signature.strip_prefix("v1,").map(|text| STANDARD.decode(text)) else {
        return false;
    };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
    mac.update(signed);
    mac.verify_slice(&code).is_ok()
}

fn read(body: &[u8]) -> Option<Vec<Line>> {
    let line = |text: &str| Some(Line { text: text.to_owned(), change: serde_json::from_str(text).ok()? });
    std::str::from_utf8(body).ok()?.lines().map(line).collect()
}

fn unix_now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Standard Webhooks' own libraries.
    const SIGNED: &[u8] = br#"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert!(fits(&key, SIGNATURE, SIGNED));
        assert!(!fits(&key[1..], SIGNATURE, SIGNED));
        assert!(!fits(&key, SIGNATURE, &SIGNED[1..]));
        for signature in ["", "v1,", "v1,AAAA", &SIGNATURE[3..], &SIGNATURE.replace("v1", "v2")] {
            assert!(!fits(&key, signature, SIGNED), "{signature}");
        }
    }

    #[test]
    fn bodies_are_rows_of_definitions() {
        let body = br#"{"op":"c","key":{"id":7},"after":{"id":7,"word":"ox","pos":"noun","definition":"cattle"},"pos":"1","ts":"2"}
{"op":"d","key":{"id":7},"after":null,"pos":"2","ts":"2"}
"#;
        let lines = read(body).unwrap();
        assert_eq!(lines.iter().map(|line| line.change.op.as_str()).collect::<Vec<_>>(), ["c", "d"]);
        assert_eq!(lines[0].change.after.as_ref().unwrap().word, "ox");
        assert!(lines[1].change.after.is_none());
        assert!(read(b"{}\n").is_none());
    }
}
