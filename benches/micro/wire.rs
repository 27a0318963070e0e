//! A round trip: `SELECT 1` from the client's write to ReadyForQuery, against a server in this process, over loopback.
//!
//! The client is `wire_load`'s. Floors: as many bytes there and back over TCP with nothing behind it, once by a
//! thread that blocks in `read`, once by a task of the runtime that the server runs in. The difference to the latter
//! is what the server itself takes.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::OnceLock,
    thread,
};

use divan::{Bencher, counter::ItemsCount};
use sepal_benches::connection::execution;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{files, server::Server};

const CACHE_BYTES: usize = 64 << 20;
/// BindComplete 5, DataRow with an int4 15, CommandComplete `SELECT 1` 14, ReadyForQuery 6.
const ANSWER_BYTES: usize = 40;

#[divan::bench]
fn select_1_prepared(bencher: Bencher) {
    let mut connection = shared().connect();
    connection.prepare("one", "SELECT 1").expect("Parse");
    let message = request();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        connection.round_trip(&message, |_| Ok(())).expect("an answer");
    });
}

#[divan::bench]
fn select_1_simple(bencher: Bencher) {
    let mut connection = shared().connect();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| connection.query("SELECT 1").expect("an answer"));
}

#[divan::bench]
fn floor_tcp_thread(bencher: Bencher) {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("the port").port();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("the client");
        socket.set_nodelay(true).expect("a socket option");
        let (mut asked, answer) = (vec![0; request().len()], [0; ANSWER_BYTES]);
        // Until the client closes.
        while socket.read_exact(&mut asked).is_ok() && socket.write_all(&answer).is_ok() {}
    });
    there_and_back(bencher, port);
}

#[divan::bench]
fn floor_tcp_tokio(bencher: Bencher) {
    let runtime = &shared().runtime;
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
    let port = listener.local_addr().expect("the port").port();
    runtime.spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("the client");
        socket.set_nodelay(true).expect("a socket option");
        let (mut asked, answer) = (vec![0; request().len()], [0; ANSWER_BYTES]);
        while socket.read_exact(&mut asked).await.is_ok() && socket.write_all(&answer).await.is_ok() {}
    });
    there_and_back(bencher, port);
}

fn there_and_back(bencher: Bencher, port: u16) {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("a listener");
    socket.set_nodelay(true).expect("a socket option");
    let (message, mut answer) = (request(), [0; ANSWER_BYTES]);
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        socket.write_all(&message).expect("an open socket");
        socket.read_exact(&mut answer).expect("an answer");
    });
}

/// Bind, Execute and Sync of the statement `one`.
fn request() -> Vec<u8> {
    execution("one", &[])
}

/// One for all.
fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    // Kept: the server writes there for as long as the process lives. `files::remove` takes it away.
    SHARED.get_or_init(|| Server::start(&files::directory().keep(), CACHE_BYTES))
}
