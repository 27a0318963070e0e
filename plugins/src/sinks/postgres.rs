//! Rows into a table of another Postgres: upserts by key, deletions by key, one transaction a batch.
//!
//! The destination reads the rows itself: `jsonb_populate_recordset(NULL::table, …)` makes of each JSON value what the
//! column is, pgvector's `vector` among them. With `delivery = 'transactional'` the last position stands in
//! `sepal_positions` beside the data, and a batch that is sent twice is applied once.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error as _,
    fmt,
    future::poll_fn,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sepal_database::connector::{
    Batch, BatchSchema, Delivered, Encoding, Envelope, Fault, FaultKind, Opened, Secrets, Sink, SinkSpec,
    StateChange, Tier,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_postgres::{
    Client, Config, NoTls,
    config::SslMode,
    error::SqlState,
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use super::{
    REPLAY, Reach,
    bounds::{Meter, Metered, shown, within},
    misconfigured,
    options::{Options, SecretOption},
};
use crate::egress::Scrubber;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The destination keeps to it, if it is an honest one.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// A batch: BEGIN, two statements, the position, COMMIT.
const BATCH_TIMEOUT: Duration = Duration::from_secs(300);

/// Where the positions of transactional pipelines stand.
const POSITIONS: &str = "CREATE TABLE IF NOT EXISTS sepal_positions \
    (sink_id text PRIMARY KEY, position text NOT NULL, at timestamptz NOT NULL DEFAULT now())";

/// What the options say.
#[derive(Clone, Debug)]
pub(super) struct Target {
    host: String,
    port: u16,
    user: String,
    database: String,
    tls: bool,
    password: Option<SecretOption>,
    /// Quoted, with its schema.
    table: String,
}

impl Target {
    pub fn parse(options: &Options<'_>) -> Result<Self, Fault> {
        let url = options.required("url")?;
        let parsed = url::Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "postgres" | "postgresql"))
            .ok_or_else(|| misconfigured("/url: postgres://user@host:port/database is wanted"))?;
        if parsed.password().is_some() {
            return Err(misconfigured("/url: a password stands in it; use password SECRET[name] instead"));
        }
        let mut tls = true;
        for (name, value) in parsed.query_pairs() {
            match (name.as_ref(), value.as_ref()) {
                ("sslmode", "disable") => tls = false,
                ("sslmode", "verify-full") => tls = true,
                ("sslmode", _) => {
                    return Err(misconfigured("/url: sslmode is disable or verify-full (the default)"));
                }
                (name, _) => return Err(misconfigured(format!("/url: there is no parameter {name}"))),
            }
        }
        let host = parsed.host_str().ok_or_else(|| misconfigured("/url: it names no host"))?;
        let schema = options.text("schema")?.unwrap_or("public");
        let target = Self {
            host: host.to_owned(),
            port: parsed.port().unwrap_or(5432),
            user: if parsed.username().is_empty() { "postgres" } else { parsed.username() }.to_owned(),
            database: match parsed.path().trim_start_matches('/') {
                "" => "postgres".to_owned(),
                name => name.to_owned(),
            },
            tls,
            password: options.secret("password")?,
            table: format!("{}.{}", quote(schema), quote(options.required("table")?)),
        };
        options.finish()?;
        Ok(target)
    }
}

/// A connection and what is needed to make it again.
pub(super) struct PostgresSink {
    reach: Arc<dyn Reach>,
    spec: SinkSpec,
    target: Target,
    secrets: Arc<dyn Secrets>,
    scrubber: Scrubber,
    connection: Option<Connection>,
    keys: Vec<String>,
}

struct Connection {
    client: Client,
    meter: Arc<Meter>,
    driver: JoinHandle<()>,
    /// Of the password that it was made with.
    password_version: Option<String>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl fmt::Debug for PostgresSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSink").field("target", &self.target).finish_non_exhaustive()
    }
}

/// A line of the batch, as far as it matters here.
#[derive(Deserialize)]
struct Row {
    op: String,
    #[serde(default)]
    key: Values,
    #[serde(default)]
    after: Option<Values>,
}

/// By column, as they were written: read as numbers, those in documents would lose digits and a `float8` its last bit.
type Values = BTreeMap<String, Box<RawValue>>;

impl PostgresSink {
    pub fn new(reach: Arc<dyn Reach>, spec: &SinkSpec, secrets: Arc<dyn Secrets>) -> Result<Self, Fault> {
        let target = Target::parse(&Options::new(spec))?;
        let (spec, scrubber) = (spec.clone(), Scrubber::default());
        Ok(Self { reach, spec, target, secrets, scrubber, connection: None, keys: Vec::new() })
    }

    /// Connects and looks for the table.
    pub async fn check(&mut self) -> Result<(), Fault> {
        let checked = within(STATEMENT_TIMEOUT, self.look()).await;
        checked.map_err(|fault| shown(&self.scrubber, fault))
    }

    async fn look(&mut self) -> Result<(), Fault> {
        self.connect().await?;
        let table = self.target.table.clone();
        let row = self
            .client()?
            .query_one(
                "SELECT coalesce(has_table_privilege(to_regclass($1), 'INSERT, UPDATE, DELETE'), false)",
                &[&table],
            )
            .await
            .map_err(|error| fault(&error))?;
        if row.try_get::<_, bool>(0).map_err(|error| fault(&error))? {
            return Ok(());
        }
        Err(misconfigured(format!(
            "/table: {table} does not exist there, or {} may not write it",
            self.target.user
        )))
    }

    fn client(&mut self) -> Result<&mut Client, Fault> {
        self.connection
            .as_mut()
            .map(|connection| &mut connection.client)
            .ok_or_else(|| Fault::new(FaultKind::NotConnected, "not connected"))
    }

    async fn connect(&mut self) -> Result<(), Fault> {
        // Before each use of a connection that stands, too: a grant that is taken back ends it.
        let password = self.password().await?;
        let password_version = password.as_ref().map(|(_, version)| version.clone());
        if let Some(connection) = &self.connection
            && !connection.client.is_closed()
            && !connection.meter.is_spent()
            && connection.password_version == password_version
        {
            connection.meter.begin();
            return Ok(());
        }
        self.connection = None;
        let target = &self.target;
        let addresses = self.reach.addresses(&self.spec, "postgres", &target.host, target.port).await?;
        let config = self.config(password.map(|(password, _)| password));
        let unreachable = |why: String| {
            Fault::new(
                FaultKind::Transient,
                format!("{}:{} is out of reach: {why}", target.host, target.port),
            )
            .with_code("pg.connect")
        };
        let connecting = async {
            let stream =
                TcpStream::connect(addresses.as_slice()).await.map_err(|e| unreachable(e.to_string()))?;
            stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
            let meter = Arc::new(Meter::default());
            let stream = Metered::new(stream, Arc::clone(&meter));
            let connection = if target.tls {
                let mut tls = MakeRustlsConnect::new(self.reach.tls().as_ref().clone());
                let tls = MakeTlsConnect::<Metered>::make_tls_connect(&mut tls, &target.host)
                    .map_err(|error| unreachable(error.to_string()))?;
                handshake(&config, stream, meter, tls).await?
            } else {
                handshake(&config, stream, meter, NoTls).await?
            };
            let limit = format!("SET statement_timeout = {}", STATEMENT_TIMEOUT.as_millis());
            connection.client.batch_execute(&limit).await.map_err(|error| fault(&error))?;
            Ok::<_, Fault>(connection)
        };
        let connected =
            timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| unreachable("timeout".into()))?;
        let mut connection = connected?;
        connection.password_version = password_version;
        self.connection = Some(connection);
        Ok(())
    }

    /// With its version.
    async fn password(&self) -> Result<Option<(Zeroizing<String>, String)>, Fault> {
        match &self.target.password {
            Some(password) => password.value(self.secrets.as_ref(), &self.target.host).await.map(Some),
            None => Ok(None),
        }
    }

    fn config(&self, password: Option<Zeroizing<String>>) -> Config {
        let target = &self.target;
        let mut config = Config::new();
        config.user(&target.user).dbname(&target.database).application_name("sepal");
        config.ssl_mode(if target.tls { SslMode::Require } else { SslMode::Disable });
        if let Some(password) = password {
            self.scrubber.learn("password", password.as_bytes());
            config.password(password.as_str());
        }
        config
    }

    async fn apply(&mut self, batch: &Batch) -> Result<(), Fault> {
        let changes = changes(batch)?;
        let (upsert, delete) = (self.upsert_sql(&changes.columns), self.delete_sql());
        // Dead letters that are sent again come from before the position.
        let moves_position = self.spec.tier == Tier::Transactional && !batch.id.starts_with(REPLAY);
        let id = self.spec.id.clone();
        let transaction = self.client()?.transaction().await.map_err(|error| fault(&error))?;
        if !changes.deletes.is_empty() {
            let rows = as_json(&changes.deletes)?;
            transaction.execute(&delete, &[&rows]).await.map_err(|error| fault(&error))?;
        }
        if !changes.upserts.is_empty() {
            let rows = as_json(&changes.upserts)?;
            transaction.execute(&upsert, &[&rows]).await.map_err(|error| fault(&error))?;
        }
        if moves_position {
            transaction
                .execute(
                    "INSERT INTO sepal_positions (sink_id, position) VALUES ($1, $2) ON CONFLICT (sink_id) \
                     DO UPDATE SET position = excluded.position, at = now()",
                    &[&id, &batch.last],
                )
                .await
                .map_err(|error| fault(&error))?;
        }
        transaction.commit().await.map_err(|error| fault(&error))
    }

    fn upsert_sql(&self, columns: &[String]) -> String {
        let table = &self.target.table;
        let names: Vec<String> = columns.iter().map(|name| quote(name)).collect();
        let keys: Vec<String> = self.keys.iter().map(|name| quote(name)).collect();
        let set: Vec<String> = columns
            .iter()
            .filter(|name| !self.keys.contains(name))
            .map(|name| format!("{0} = excluded.{0}", quote(name)))
            .collect();
        let names = names.join(", ");
        let conflict = match (keys.is_empty(), set.is_empty()) {
            (true, _) => String::new(),
            (false, true) => format!(" ON CONFLICT ({}) DO NOTHING", keys.join(", ")),
            (false, false) => format!(" ON CONFLICT ({}) DO UPDATE SET {}", keys.join(", "), set.join(", ")),
        };
        format!(
            "INSERT INTO {table} ({names}) SELECT {names} FROM \
             jsonb_populate_recordset(NULL::{table}, $1::text::jsonb){conflict}"
        )
    }

    fn delete_sql(&self) -> String {
        let table = &self.target.table;
        let same: Vec<String> =
            self.keys.iter().map(|key| format!("there.{0} = gone.{0}", quote(key))).collect();
        format!(
            "DELETE FROM {table} AS there USING jsonb_populate_recordset(NULL::{table}, $1::text::jsonb) AS gone \
             WHERE {}",
            same.join(" AND ")
        )
    }
}

/// JSON objects for the destination to read.
#[derive(Default)]
struct Changes {
    columns: Vec<String>,
    upserts: Vec<Values>,
    deletes: Vec<Values>,
}

/// What a batch comes to: for each key its last change.
fn changes(batch: &Batch) -> Result<Changes, Fault> {
    let mut last: HashMap<String, Row> = HashMap::new();
    let mut order: Vec<String> = Vec::new();
    for line in batch.payload.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let row: Row = serde_json::from_slice(line)
            .map_err(|error| Fault::new(FaultKind::Internal, format!("a row does not parse: {error}")))?;
        let key = serde_json::to_string(&row.key)
            .map_err(|error| Fault::new(FaultKind::Internal, format!("a key: {error}")))?;
        if last.insert(key.clone(), row).is_none() {
            order.push(key);
        }
    }
    let mut changes = Changes::default();
    for key in &order {
        let Some(row) = last.remove(key) else { continue };
        match row.after {
            Some(after) if row.op != "d" => {
                if changes.columns.is_empty() {
                    changes.columns = after.keys().cloned().collect();
                }
                changes.upserts.push(after);
            }
            _ => changes.deletes.push(row.key),
        }
    }
    Ok(changes)
}

/// As one JSON array.
fn as_json(rows: &[Values]) -> Result<String, Fault> {
    serde_json::to_string(rows).map_err(|error| Fault::new(FaultKind::Internal, format!("rows: {error}")))
}

async fn handshake<T>(
    config: &Config,
    stream: Metered,
    meter: Arc<Meter>,
    tls: T,
) -> Result<Connection, Fault>
where
    T: TlsConnect<Metered>,
    T::Stream: Send + 'static,
{
    let (client, mut connection) = config.connect_raw(stream, tls).await.map_err(|error| fault(&error))?;
    let driver = tokio::spawn(async move {
        // Notices are dropped, and so is the error's text: a destination's words are nothing for our log.
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if message.is_err() {
                tracing::debug!("the connection to a destination failed");
                break;
            }
        }
    });
    Ok(Connection { client, meter, driver, password_version: None })
}

impl PostgresSink {
    /// What a destination that keeps positions has already.
    async fn begin(&mut self) -> Result<Opened, Fault> {
        self.connection = None;
        self.connect().await.inspect_err(|error| {
            if let (FaultKind::Unauthorized, Some(password)) = (error.kind, &self.target.password) {
                password.forget(self.secrets.as_ref());
            }
        })?;
        if self.spec.tier != Tier::Transactional {
            return Ok(Opened { committed_through: None, max_writers: Some(1) });
        }
        let id = self.spec.id.clone();
        let client = self.client()?;
        client.batch_execute(POSITIONS).await.map_err(|error| fault(&error))?;
        let row = client
            .query_opt("SELECT position FROM sepal_positions WHERE sink_id = $1", &[&id])
            .await
            .map_err(|error| fault(&error))?;
        let through = row.map(|row| row.try_get(0)).transpose().map_err(|error| fault(&error))?;
        Ok(Opened { committed_through: through, max_writers: Some(1) })
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<(), Fault> {
        self.connect().await?;
        self.apply(batch).await
    }
}

#[async_trait]
impl Sink for PostgresSink {
    async fn open(&mut self, _: BTreeMap<String, Vec<u8>>) -> Result<Opened, Fault> {
        if self.spec.encoding != Encoding::Ndjson || self.spec.envelope == Envelope::Append {
            return Err(misconfigured(
                "the sink postgres takes FORMAT NDJSON with ENVELOPE UPSERT or DEBEZIUM",
            ));
        }
        let opened = within(STATEMENT_TIMEOUT, self.begin()).await;
        opened.map_err(|fault| shown(&self.scrubber, fault))
    }

    async fn set_schema(&mut self, schema: &BatchSchema) -> Result<(), Fault> {
        if schema.key_columns.is_empty() {
            return Err(misconfigured(
                "the sink postgres needs KEY (columns) to know which row a change is of",
            ));
        }
        self.keys.clone_from(&schema.key_columns);
        Ok(())
    }

    async fn write(&mut self, batch: &Batch) -> Result<Delivered, Fault> {
        let applied = within(BATCH_TIMEOUT, self.deliver(batch)).await;
        if applied.as_ref().is_err_and(|fault| fault.kind == FaultKind::NotConnected) {
            self.connection = None;
        }
        applied.map(|()| Delivered::Durable(Vec::new())).map_err(|fault| shown(&self.scrubber, fault))
    }

    async fn flush(&mut self) -> Result<Option<String>, Fault> {
        Ok(None)
    }

    fn take_state_changes(&mut self) -> Vec<StateChange> {
        Vec::new()
    }

    async fn close(&mut self) {
        self.connection = None;
    }
}

/// What a Postgres error asks for. The classes are those of appendix A of its manual.
fn fault(error: &tokio_postgres::Error) -> Fault {
    let Some(database) = error.as_db_error() else {
        let kind = if error.is_closed() { FaultKind::NotConnected } else { FaultKind::Transient };
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        return Fault::new(kind, format!("the connection failed: {error}{cause}")).with_code("pg.connection");
    };
    let code = database.code();
    let kind = match code.code().get(..2).unwrap_or_default() {
        "08" | "57" => FaultKind::NotConnected,
        "40" | "53" | "55" | "58" => FaultKind::Transient,
        "28" => FaultKind::Unauthorized,
        "22" | "23" => FaultKind::Rejected,
        _ => FaultKind::Misconfigured,
    };
    let kind = if *code == SqlState::QUERY_CANCELED { FaultKind::Transient } else { kind };
    Fault::new(kind, database.message().to_owned()).with_code(format!("pg.{}", code.code()))
}

/// An identifier as SQL.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn values_go_on_as_they_were_written() {
        let payload = concat!(
            r#"{"op":"c","key":{"id":1},"after":{"id":1,"v":0},"pos":"","ts":""}"#,
            "\n",
            r#"{"op":"d","key":{"id":2},"after":null,"pos":"","ts":""}"#,
            "\n",
            r#"{"op":"u","key":{"id":1},"after":{"id":1,"v":{"n":12345678901234567890.10},"w":null},"pos":"","ts":""}"#,
            "\n",
        );
        let batch = Batch {
            id: "b".into(),
            schema_id: "s".into(),
            first: "p".into(),
            last: "q".into(),
            rows: 3,
            attempt: 1,
            snapshot: false,
            payload: Bytes::from_static(payload.as_bytes()),
        };
        let changes = changes(&batch).unwrap();
        assert_eq!(changes.columns, ["id", "v", "w"]);
        assert_eq!(
            as_json(&changes.upserts).unwrap(),
            r#"[{"id":1,"v":{"n":12345678901234567890.10},"w":null}]"#
        );
        assert_eq!(as_json(&changes.deletes).unwrap(), r#"[{"id":2}]"#);
    }
}
