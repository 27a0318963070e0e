//! A server as `sepal serve` runs it, without TLS, inside a benchmark, with one tenant and one key.
//!
//! For `micro` and `sealing`. It ends with the process.

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use sepal_benches::connection::{Connection, Target};
use sepal_database::{Database, DatabaseOptions, Key, Scopes, TenantName};
use sepal_pgwire_server::{
    metrics::WireMetrics,
    server::{Limits, ServeOptions, serve},
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_util::sync::CancellationToken;

const TENANT: &str = "bench";

pub struct Server {
    pub runtime: Runtime,
    target: Target,
}

impl Server {
    /// In an empty directory.
    pub fn start(directory: &Path, cache_bytes: usize) -> Server {
        let root_key = Key::random();
        Database::init(directory, root_key.clone()).expect("an empty directory");
        let options = DatabaseOptions::new(directory.to_owned(), root_key, cache_bytes);
        let database = Database::open(options).expect("the database just made");
        let control = database.control();
        let name = TenantName::parse(TENANT).expect("a tenant's name");
        let tenant = control.create_tenant(&name).expect("the first tenant");
        let (_, token) = control
            .create_key(tenant.id, None, Scopes::READ_WRITE, "bench", None)
            .expect("a key of the tenant just made");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let port = listener.local_addr().expect("the port").port();
        let options = ServeOptions {
            tls: None,
            insecure_plaintext: true,
            limits: Limits::default(),
            shutdown: CancellationToken::new(),
        };
        let metrics = WireMetrics::register(&prometheus::Registry::new()).expect("an empty registry");
        let target = Target::local(port, TENANT, token.expose(), "default");
        runtime.spawn(serve(listener, Arc::clone(&database), options, Arc::new(metrics)));
        Server { runtime, target }
    }

    pub fn connect(&self) -> Connection {
        Connection::open(&self.target).expect("a login with the key just made")
    }
}
