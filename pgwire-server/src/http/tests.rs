//! Clients that hold on to the HTTP port.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

async fn start() -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let stopped = stop.clone();
    let router = Router::new().route("/health/live", get(live));
    let task = tokio::spawn(async move { accept(listener, &router, &stopped).await });
    (address, stop, task)
}

async fn ask(address: std::net::SocketAddr) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    // To the end: the server closes although the client would go on.
    timeout(Duration::from_secs(20), socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn one_answer_per_connection() {
    let (address, stop, task) = start().await;
    let answer = ask(address).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("live\n"), "{answer}");
    stop.cancel();
    timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_are_dropped_and_hold_no_place_for_long() {
    let (address, _stop, _task) = start().await;
    let begun = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..MOST_AT_ONCE {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET / HT").await.unwrap();
        silent.push(socket);
    }
    assert!(ask(address).await.ends_with("live\n"));
    assert!(begun.elapsed() < PATIENCE + Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(silent);
}
