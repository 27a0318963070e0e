//! Clients that run random transactions against a server and record what they did and saw.
//!
//! Few keys, many clients: most transactions meet another one. A key is left behind after [`WRITES_PER_KEY`] writes, so
//! that lists stay short and rows are inserted, too, in races. Some transactions roll back on purpose, some undo a
//! write by a savepoint, some lock before they write.

use std::{
    collections::BTreeSet,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::JoinSet, time::timeout};
use tokio_postgres::{Client, Error, Row, Statement};

use super::{
    history::{Key, Level, Op, Outcome, Tick, Transaction, Value},
    registers::Register,
};
use crate::server::Login;

/// Keys in use at one time.
const SLOTS: i64 = 10;
const WRITES_PER_KEY: i64 = 48;
/// No transaction of a living server takes as long: it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Keys that one statement reads.
const READ_KEYS: usize = 3;

/// What a key holds.
pub trait Shape: Send + Sync + 'static {
    type Seen: Clone + std::fmt::Debug + Send + Sync + 'static;
    const CREATE: &'static str;
    /// By keys `$1`, `$2`, `$3`; all statements give the key first.
    const READ: &'static str;
    /// By key `$1`, and locks it.
    const LOCK: &'static str;
    /// Value `$2` to key `$1`, whether it is there or not.
    const UPSERT: &'static str;
    /// Value `$2` to key `$1`, if it is there.
    const UPDATE: &'static str;
    fn seen(row: &Row) -> Self::Seen;
    /// What is seen of a key that is not there.
    fn nothing() -> Self::Seen;
}

/// A text of numbers with commas between them.
pub struct Lists;

impl Shape for Lists {
    type Seen = Vec<Value>;
    const CREATE: &'static str = "CREATE TABLE lists (k int8 PRIMARY KEY, v text NOT NULL)";
    const READ: &'static str = "SELECT k, v FROM lists WHERE k IN ($1, $2, $3)";
    const LOCK: &'static str = "SELECT k, v FROM lists WHERE k = $1 FOR UPDATE";
    const UPSERT: &'static str = "INSERT INTO lists (k, v) VALUES ($1, $2) \
        ON CONFLICT (k) DO UPDATE SET v = lists.v || ',' || EXCLUDED.v RETURNING k, v";
    const UPDATE: &'static str = "UPDATE lists SET v = v || ',' || $2::text WHERE k = $1 RETURNING k, v";

    fn seen(row: &Row) -> Vec<Value> {
        let text: &str = row.get(1);
        text.split(',').map(|number| number.parse().expect("a list of numbers")).collect()
    }

    fn nothing() -> Vec<Value> {
        Vec::new()
    }
}

/// A value, and how many there were.
pub struct Registers;

impl Shape for Registers {
    type Seen = Register;
    const CREATE: &'static str =
        "CREATE TABLE registers (k int8 PRIMARY KEY, v text NOT NULL, n int8 NOT NULL)";
    const READ: &'static str = "SELECT k, v, n FROM registers WHERE k IN ($1, $2, $3)";
    const LOCK: &'static str = "SELECT k, v, n FROM registers WHERE k = $1 FOR UPDATE";
    const UPSERT: &'static str = "INSERT INTO registers (k, v, n) VALUES ($1, $2, 1) \
        ON CONFLICT (k) DO UPDATE SET v = EXCLUDED.v, n = registers.n + 1 RETURNING k, v, n";
    const UPDATE: &'static str =
        "UPDATE registers SET v = $2::text, n = n + 1 WHERE k = $1 RETURNING k, v, n";

    fn seen(row: &Row) -> Register {
        let text: &str = row.get(1);
        Some((text.parse().expect("a number"), row.get(2)))
    }

    fn nothing() -> Register {
        None
    }
}

/// What all clients of a history share; it outlives a server that is killed.
#[derive(Default)]
pub struct Recorder {
    ticks: AtomicU64,
    values: AtomicI64,
    /// Writes sent to each slot.
    slots: [AtomicI64; SLOTS as usize],
    begun: AtomicI64,
    /// The server is about to be killed: connections may break, and clients end.
    pub ending: AtomicBool,
}

impl Recorder {
    /// Whether clients are at work.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst) > 0
    }

    fn tick(&self) -> Tick {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    fn value(&self) -> Value {
        self.values.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The key that is in use in a random slot, and whether it is to be written.
    fn key(&self, random: &mut StdRng, written: bool) -> Key {
        let slot = random.random_range(0..SLOTS);
        let writes = &self.slots[usize::try_from(slot).expect("a slot")];
        let writes = writes.fetch_add(i64::from(written), Ordering::Relaxed);
        slot + SLOTS * (writes / WRITES_PER_KEY)
    }

    /// Every key that may have been written.
    fn keys(&self) -> Vec<Key> {
        let slots = (0..SLOTS).zip(&self.slots);
        let generations = |writes: &AtomicI64| 0..=writes.load(Ordering::Relaxed) / WRITES_PER_KEY;
        slots.flat_map(|(slot, writes)| generations(writes).map(move |one| slot + SLOTS * one)).collect()
    }

    fn ends(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }
}

/// How much of it, and how.
#[derive(Clone, Copy)]
pub struct Plan {
    pub level: Level,
    pub clients: usize,
    /// Of all clients together.
    pub transactions: i64,
    pub seed: u64,
}

/// Runs clients until the plan is fulfilled or [`Recorder::ending`] is set. A later call with the same recorder goes on
/// with the same history, up to `transactions` more.
pub async fn run<S: Shape>(login: &Login, plan: Plan, recorder: &Arc<Recorder>) -> Vec<Transaction<S::Seen>> {
    let mut actors = Vec::new();
    for id in 0..plan.clients {
        actors.push(Actor::<S>::connect(login, plan, id, Arc::clone(recorder)).await);
    }
    let mut clients = JoinSet::new();
    for actor in actors {
        clients.spawn(actor.run(plan.transactions));
    }
    let mut history = Vec::new();
    while let Some(ended) = clients.join_next().await {
        match ended {
            Ok(transactions) => history.extend(transactions),
            Err(error) => panic!("a client failed: {error}"),
        }
    }
    recorder.begun.store(0, Ordering::SeqCst);
    history
}

/// One transaction, after all others, that reads every key.
pub async fn read_all<S: Shape>(login: &Login, plan: Plan, recorder: &Arc<Recorder>) -> Transaction<S::Seen> {
    let mut actor = Actor::<S>::connect(login, plan, plan.clients, Arc::clone(recorder)).await;
    let begun = recorder.tick();
    let mut ops = Vec::new();
    actor.client.batch_execute(plan.level.begin()).await.expect("BEGIN");
    for keys in recorder.keys().chunks(READ_KEYS) {
        ops.push(actor.read(keys).await.expect("read"));
    }
    actor.client.batch_execute("COMMIT").await.expect("COMMIT");
    Transaction { client: plan.clients, begun, outcome: Outcome::Committed(recorder.tick()), ops }
}

/// One client.
struct Actor<S: Shape> {
    client: Client,
    id: usize,
    level: Level,
    random: StdRng,
    recorder: Arc<Recorder>,
    read: Statement,
    lock: Statement,
    upsert: Statement,
    update: Statement,
    shape: PhantomData<S>,
}

impl<S: Shape> Actor<S> {
    async fn connect(login: &Login, plan: Plan, id: usize, recorder: Arc<Recorder>) -> Actor<S> {
        let client = login.connect().await.expect("connect");
        let prepare = |sql| client.prepare(sql);
        let (read, lock) = (prepare(S::READ).await.expect("READ"), prepare(S::LOCK).await.expect("LOCK"));
        let (upsert, update) =
            (prepare(S::UPSERT).await.expect("UPSERT"), prepare(S::UPDATE).await.expect("UPDATE"));
        let random = StdRng::seed_from_u64(plan.seed.wrapping_mul(1_000).wrapping_add(id as u64));
        let shape = PhantomData;
        Actor { client, id, level: plan.level, random, recorder, read, lock, upsert, update, shape }
    }

    async fn run(mut self, transactions: i64) -> Vec<Transaction<S::Seen>> {
        let mut history = Vec::new();
        while self.recorder.begun.fetch_add(1, Ordering::SeqCst) < transactions && !self.recorder.ends() {
            let begun = self.recorder.tick();
            let mut ops = Vec::new();
            let outcome = timeout(PATIENCE, self.transaction(&mut ops)).await;
            let outcome = outcome
                .unwrap_or_else(|_| panic!("client {} has no answer after {PATIENCE:?}: {ops:?}", self.id));
            history.push(Transaction { client: self.id, begun, outcome, ops });
            if self.client.is_closed() {
                break;
            }
        }
        history
    }

    async fn transaction(&mut self, ops: &mut Vec<Op<S::Seen>>) -> Outcome {
        if let Err(error) = self.client.batch_execute(self.level.begin()).await {
            return self.give_up(&error).await;
        }
        for _ in 0..self.random.random_range(1..=4) {
            if let Err(error) = self.operation(ops).await {
                return self.give_up(&error).await;
            }
        }
        if self.random.random_bool(0.05) {
            return match self.client.batch_execute("ROLLBACK").await {
                Ok(()) => Outcome::Aborted,
                Err(error) => self.give_up(&error).await,
            };
        }
        match self.client.batch_execute("COMMIT").await {
            Ok(()) => Outcome::Committed(self.recorder.tick()),
            Err(error) if error.as_db_error().is_some() => self.give_up(&error).await,
            Err(error) => {
                self.may_break(&error);
                Outcome::Unknown
            }
        }
    }

    /// After an error before COMMIT was sent, or one that COMMIT told: nothing of the transaction stands.
    async fn give_up(&mut self, error: &Error) -> Outcome {
        let Some(told) = error.as_db_error() else {
            self.may_break(error);
            return Outcome::Aborted;
        };
        let code = told.code().code();
        assert!(["40001", "40P01"].contains(&code), "client {}: {code} {}", self.id, told.message());
        if let Err(error) = self.client.batch_execute("ROLLBACK").await {
            self.may_break(&error);
        }
        Outcome::Aborted
    }

    fn may_break(&self, error: &Error) {
        assert!(error.as_db_error().is_none(), "client {}: {error:?}", self.id);
        assert!(self.recorder.ends(), "client {}'s connection broke: {error}", self.id);
    }

    async fn operation(&mut self, ops: &mut Vec<Op<S::Seen>>) -> Result<(), Error> {
        match self.random.random_range(0..10) {
            0..4 => {
                let keys = self.random.random_range(1..=READ_KEYS);
                let keys: BTreeSet<Key> =
                    (0..keys).map(|_| self.recorder.key(&mut self.random, false)).collect();
                let keys: Vec<Key> = keys.into_iter().collect();
                let read = self.read(&keys).await?;
                ops.push(read);
            }
            4 => {
                let key = self.recorder.key(&mut self.random, true);
                let rows = self.client.query(&self.lock, &[&key]).await?;
                ops.push(Op::Read { seen: seen::<S>(&[key], &rows), locked: true });
                self.write(key, ops).await?;
            }
            5 => {
                let key = self.recorder.key(&mut self.random, true);
                let value = self.recorder.value();
                ops.push(Op::Undone { key, value });
                self.client.batch_execute("SAVEPOINT s").await?;
                self.client.query(&self.upsert, &[&key, &value.to_string()]).await?;
                self.client.batch_execute("ROLLBACK TO SAVEPOINT s").await?;
            }
            _ => {
                let key = self.recorder.key(&mut self.random, true);
                self.write(key, ops).await?;
            }
        }
        Ok(())
    }

    /// One statement over up to [`READ_KEYS`] keys, all of them different.
    async fn read(&mut self, keys: &[Key]) -> Result<Op<S::Seen>, Error> {
        let key = |at: usize| keys.get(at).unwrap_or(&keys[0]);
        let rows = self.client.query(&self.read, &[key(0), key(1), key(2)]).await?;
        Ok(Op::Read { seen: seen::<S>(keys, &rows), locked: false })
    }

    /// Half of the writes update what is there, and insert only if nothing is.
    async fn write(&mut self, key: Key, ops: &mut Vec<Op<S::Seen>>) -> Result<(), Error> {
        let value = self.recorder.value();
        let text = value.to_string();
        ops.push(Op::Write { key, value });
        let mut rows = Vec::new();
        if self.random.random_bool(0.5) {
            rows = self.client.query(&self.update, &[&key, &text]).await?;
        }
        if rows.is_empty() {
            rows = self.client.query(&self.upsert, &[&key, &text]).await?;
        }
        assert_eq!(rows.len(), 1, "a write to key {key} returned {} rows", rows.len());
        ops.push(Op::Read { seen: seen::<S>(&[key], &rows), locked: false });
        Ok(())
    }
}

/// What the rows say of each of the keys.
fn seen<S: Shape>(keys: &[Key], rows: &[Row]) -> Vec<(Key, S::Seen)> {
    let of = |key: Key| {
        let mut found = rows.iter().filter(|row| row.get::<_, Key>(0) == key);
        let first = found.next().map_or_else(S::nothing, S::seen);
        assert!(found.next().is_none(), "key {key} has several rows");
        (key, first)
    };
    keys.iter().map(|key| of(*key)).collect()
}
