//! Accounts between which money moves: the sum stays, whoever looks and whenever.
//!
//! Half of the tellers lock both accounts at READ COMMITTED, half take their chance at REPEATABLE READ and are told to
//! try again (40001). All compute the new balances themselves, so that an update that was not seen is money lost or
//! made. Auditors look at REPEATABLE READ, in one statement and account by account, and once by a single statement
//! at READ COMMITTED.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::JoinSet, time::timeout};
use tokio_postgres::{Client, Error};

use super::{history::Level, seed, tenant, transactions};
use crate::{
    oracle::Oracle,
    server::{Login, skip},
};

const ACCOUNTS: i64 = 6;
const EACH: i64 = 100;
const TELLERS: u64 = 6;
/// No transfer of a living server takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all tellers have done.
#[derive(Default)]
struct Book {
    /// Transfers still to do.
    left: AtomicI64,
    moved: AtomicU64,
    again: AtomicU64,
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_neither_lost_nor_made() {
    bank(&tenant("histories-bank")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_neither_lost_nor_made_on_postgresql() {
    let Some(oracle) = Oracle::start() else {
        skip("no PostgreSQL 15 found (apt-get install postgresql-15): the bank was not tried on it");
        return;
    };
    bank(&oracle.login()).await;
}

async fn bank(login: &Login) {
    let client = login.connect().await.expect("connect");
    let sql = "CREATE TABLE accounts (id int8 PRIMARY KEY, balance int8 NOT NULL)";
    client.batch_execute(sql).await.expect("CREATE TABLE");
    for id in 0..ACCOUNTS {
        client.execute("INSERT INTO accounts VALUES ($1, $2)", &[&id, &EACH]).await.expect("an account");
    }
    let (book, seed) = (Arc::new(Book::default()), seed());
    book.left.store(transactions() / 3, Ordering::SeqCst);
    let mut running = JoinSet::new();
    for teller in 0..TELLERS {
        let client = login.connect().await.expect("connect");
        let level = if teller % 2 == 0 { Level::ReadCommitted } else { Level::RepeatableRead };
        running.spawn(work(
            client,
            level,
            StdRng::seed_from_u64(seed.wrapping_add(teller)),
            Arc::clone(&book),
        ));
    }
    for _ in 0..2 {
        running.spawn(audit(login.connect().await.expect("connect"), Arc::clone(&book)));
    }
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            panic!("somebody at the bank failed: {error}");
        }
    }
    let (moved, again) = (book.moved.load(Ordering::SeqCst), book.again.load(Ordering::SeqCst));
    println!("{moved} transfers, {again} told to try again");
    assert!(moved > 20, "only {moved} transfers were made");
    let rows = client.query("SELECT balance FROM accounts", &[]).await.expect("balances");
    let balances: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        (rows.len(), balances.iter().sum::<i64>()),
        (ACCOUNTS as usize, ACCOUNTS * EACH),
        "{balances:?}"
    );
}

/// Moves money until the book is closed.
async fn work(client: Client, level: Level, mut random: StdRng, book: Arc<Book>) {
    while book.left.fetch_sub(1, Ordering::SeqCst) > 0 {
        let from = random.random_range(0..ACCOUNTS);
        let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = random.random_range(1..=EACH / 4);
        let done = timeout(PATIENCE, transfer(&client, level, from, to, amount)).await;
        match done.unwrap_or_else(|_| panic!("a transfer at {level:?} hangs")) {
            Ok(true) => book.moved.fetch_add(1, Ordering::SeqCst),
            Ok(false) => 0,
            Err(error) => {
                let code =
                    error.code().map_or_else(|| panic!("a transfer: {error}"), |code| code.code().to_owned());
                assert!(code == "40001" || code == "40P01", "a transfer at {level:?}: {error:?}");
                client.batch_execute("ROLLBACK").await.expect("ROLLBACK");
                book.again.fetch_add(1, Ordering::SeqCst)
            }
        };
    }
}

/// False: there is not enough.
async fn transfer(client: &Client, level: Level, from: i64, to: i64, amount: i64) -> Result<bool, Error> {
    client.batch_execute(level.begin()).await?;
    let lock = if level == Level::ReadCommitted { " FOR UPDATE" } else { "" };
    let sql = format!("SELECT id, balance FROM accounts WHERE id IN ($1, $2) ORDER BY id{lock}");
    let rows = client.query(&sql, &[&from, &to]).await?;
    let balance = |id: i64| {
        let row = rows.iter().find(|row| row.get::<_, i64>(0) == id);
        row.map(|row| row.get::<_, i64>(1)).unwrap_or_else(|| panic!("account {id} is gone"))
    };
    let (gives, takes) = (balance(from), balance(to));
    if gives < amount {
        client.batch_execute("ROLLBACK").await?;
        return Ok(false);
    }
    let sql = "UPDATE accounts SET balance = $2 WHERE id = $1";
    // In the order of ids, so that nobody waits in a circle: PostgreSQL takes a second to see one.
    let mut new = [(from, gives - amount), (to, takes + amount)];
    new.sort_unstable();
    for (id, balance) in new {
        assert_eq!(client.execute(sql, &[&id, &balance]).await?, 1, "account {id} is gone");
    }
    client.batch_execute("COMMIT").await?;
    Ok(true)
}

/// Counts the money as long as tellers work, and once more.
async fn audit(client: Client, book: Arc<Book>) {
    const SUM: &str = "SELECT sum(balance)::int8, min(balance) FROM accounts";
    loop {
        let last = book.left.load(Ordering::SeqCst) <= 0;
        check(&client, SUM, "a statement at READ COMMITTED").await;
        client.batch_execute(Level::RepeatableRead.begin()).await.expect("BEGIN");
        check(&client, SUM, "the first statement").await;
        let mut total = 0;
        for id in 0..ACCOUNTS {
            let row = client
                .query_one("SELECT balance FROM accounts WHERE id = $1", &[&id])
                .await
                .expect("balance");
            total += row.get::<_, i64>(0);
        }
        assert_eq!(total, ACCOUNTS * EACH, "account by account, at REPEATABLE READ");
        check(&client, SUM, "the last statement").await;
        client.batch_execute("COMMIT").await.expect("COMMIT");
        if last {
            return;
        }
    }
}

async fn check(client: &Client, sql: &str, when: &str) {
    let row = client.query_one(sql, &[]).await.expect(when);
    let (sum, least): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(sum, ACCOUNTS * EACH, "{when}");
    assert!(least >= 0, "{when}: an account has {least}");
}
