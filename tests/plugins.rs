//! What can a hostile plugin do?
//!
//! `plugins/hostile` is a component that does, on request, everything that a plugin should not. It is built once and
//! installed like any tenant's; each test lets it loose beside pipelines of the same tenant and of another, which must
//! go on. `corpus` is about files that are no plugins, `signing` about whose they are, `upgrade` about a new version
//! under load, `sandbox` about the process that runs them.

mod breaks;
mod corpus;
mod guest;
mod probes;
mod sandbox;
mod signing;
mod upgrade;

use tokio_postgres::Client;

use crate::{
    http::{Answer, Destination, Request},
    pipeline_status::run,
    server::Server,
};

/// What the server lets plugins reach beside public addresses: not 127.0.0.1, where everything else of a test is.
const NETWORK: &str = "127.9.9.8/30";
/// In that network: where the sinks deliver to.
const HERE: &str = "127.9.9.9";
/// In it too, but no secret may go there.
const THERE: &str = "127.9.9.10";

/// The value of the tenant's secret. Must be nowhere but in requests to [`HERE`].
const CANARY: &str = "hostile-canary-Vt4qZ8wK1";
const KEY_CANARY: &str = "hostile-key-Bn6xR2mD9";

/// A server with the hostile plugin, a place for its requests, and a tenant that has nothing to do with it.
struct Scene {
    server: Server,
    /// The tenant that has the plugin.
    client: Client,
    destination: Destination,
    /// Same network, other address.
    other: Destination,
    /// On 127.0.0.1: nothing may come here.
    forbidden: Destination,
}

impl Scene {
    /// `answer`: of [`HERE`].
    async fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Scene {
        let server = Server::start_with(&["--private-networks", NETWORK]);
        let client = server.connect().await;
        let scene = Scene {
            server,
            client,
            destination: Destination::start(HERE, answer),
            other: Destination::start(THERE, |_| Answer::status(204)),
            forbidden: Destination::start("127.0.0.1", |_| Answer::status(204)),
        };
        guest::install(&scene.client, "hostile", &scene.component("1.0.0")).await;
        scene.secrets().await;
        run(&scene.client, "CREATE TABLE events (id bigint PRIMARY KEY, note text)").await;
        run(&scene.client, "INSERT INTO events VALUES (1, 'one')").await;
        scene
    }

    /// The plugin, asking for every host that a test has.
    fn component(&self, version: &str) -> Vec<u8> {
        guest::pack(&guest::hostile(), &guest::manifest(version, &self.hosts()))
    }

    fn hosts(&self) -> Vec<String> {
        let port = self.forbidden.port();
        let mut hosts: Vec<String> = ["127.0.0.1", "[::1]", "localhost"]
            .into_iter()
            .map(|host| format!("http://{host}:{port}"))
            .collect();
        hosts.push("http://169.254.169.254".to_owned());
        hosts.push(self.other.origin());
        hosts
    }

    async fn secrets(&self) {
        let canary = format!("CREATE SECRET canary AS $1 WITH (allowed_hosts = '{HERE}')");
        self.client.execute(&canary, &[&CANARY]).await.expect("a secret");
        let key = format!("CREATE SECRET key_canary AS $1 WITH (allowed_hosts = '{HERE}')");
        self.client.execute(&key, &[&KEY_CANARY]).await.expect("a secret");
    }

    /// A sink and a pipeline of one mode, both with this name, over `table`.
    async fn pipeline(&self, name: &str, mode: &str, path: &str, table: &str) {
        run(&self.client, &self.sink(name, mode, path)).await;
        self.flow(name, table).await;
    }

    /// A pipeline into the sink of the same name.
    async fn flow(&self, name: &str, table: &str) {
        let sql = format!(
            "CREATE PIPELINE {name} AS SELECT id, note FROM {table} INTO SINK {name}
             WITH (max_attempts = 2, linger = '20ms')"
        );
        run(&self.client, &sql).await;
    }

    fn sink(&self, name: &str, mode: &str, path: &str) -> String {
        let hosts: Vec<String> = self.hosts().iter().map(|host| format!("'{host}'")).collect();
        format!(
            "CREATE SINK {name} USING PLUGIN hostile
             OPTIONS (mode '{mode}', url '{}', other '{}', forbidden_port {}, token SECRET[canary],
                      key SECRET[key_canary])
             ALLOW HOSTS ('{}', {})",
            self.destination.url(path),
            self.other.origin(),
            self.forbidden.port(),
            self.destination.origin(),
            hosts.join(", ")
        )
    }
}

/// A pipeline that behaves, of the sink that comes with the server.
async fn honest(client: &Client, destination: &Destination, path: &str) {
    run(client, "CREATE TABLE orders (id bigint PRIMARY KEY, total int)").await;
    let sink = format!(
        "CREATE SINK honest USING PLUGIN webhook OPTIONS (url '{}') ALLOW HOSTS ('{}')",
        destination.url(path),
        destination.origin()
    );
    run(client, &sink).await;
    let pipeline =
        "CREATE PIPELINE honest AS SELECT id, total FROM orders INTO SINK honest WITH (linger = '20ms')";
    run(client, pipeline).await;
}

/// Writes an order and waits until it has arrived: the pipeline is alive.
async fn goes_on(client: &Client, destination: &Destination, path: &str, id: i64) {
    run(client, &format!("INSERT INTO orders VALUES ({id}, 1)")).await;
    let row = format!("\"after\":{{\"id\":{id},");
    let arrived = |requests: &[Request]| requests.iter().any(|request| request.text().contains(&row));
    destination.wait_for(path, &format!("order {id}"), arrived).await;
}
