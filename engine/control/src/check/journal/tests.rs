//! What is rolled back in memory is what SQLite makes of the same two files.

use std::fs;

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::{MAGIC, roll_back};

/// A file as it was, as a transaction under way has left it, and the journal of that one. `spilled`: the cache is so
/// small that the journal is synced, and pages are written, many times before the end.
fn interrupted(spilled: bool) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let place = TempDir::new().unwrap();
    let path = place.path().join("a.db");
    let connection = Connection::open(&path).unwrap();
    let cache = if spilled { 10 } else { 10_000 };
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = FULL; PRAGMA cache_size = {cache};
             CREATE TABLE t (id INTEGER PRIMARY KEY, filler BLOB);
             WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300)
             INSERT INTO t SELECT x, randomblob(900) FROM n;"
        ))
        .unwrap();
    let before = fs::read(&path).unwrap();
    connection
        .execute_batch(
            "BEGIN IMMEDIATE; UPDATE t SET filler = randomblob(900) WHERE id % 2 = 0;
             INSERT INTO t SELECT id + 1000, randomblob(900) FROM t WHERE id % 3 = 0;",
        )
        .unwrap();
    (before, fs::read(&path).unwrap(), fs::read(place.path().join("a.db-journal")).unwrap())
}

/// What SQLite leaves of the file.
fn by_sqlite(database: &[u8], journal: &[u8]) -> Vec<u8> {
    let place = TempDir::new().unwrap();
    let path = place.path().join("b.db");
    fs::write(&path, database).unwrap();
    fs::write(place.path().join("b.db-journal"), journal).unwrap();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).unwrap();
    // Its outcome is of no interest: half a roll-back may leave no database.
    drop(connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)));
    drop(connection);
    fs::read(&path).unwrap()
}

fn by_us(database: &[u8], journal: &[u8]) -> Vec<u8> {
    let mut database = database.to_vec();
    roll_back(&mut database, journal).unwrap();
    database
}

#[test]
fn a_transaction_that_was_cut_short_is_undone() {
    let (before, during, journal) = interrupted(true);
    assert!(journal.starts_with(&MAGIC) && during != before, "the journal is hot, and pages were written");
    let parts = journal.windows(MAGIC.len()).filter(|window| *window == MAGIC).count();
    assert!(parts > 2, "{parts} parts");
    assert!(by_us(&during, &journal) == before);
    // Nothing was written yet.
    let (before, during, journal) = interrupted(false);
    assert!(by_us(&during, &journal) == before && during == before);
}

#[test]
fn whatever_is_left_of_a_journal_sqlite_makes_the_same_of_it() {
    let (_, during, journal) = interrupted(true);
    let sizes = [0, 7, 27, 28, 511, 512, 513, 4_000, 5_000, journal.len() / 2, journal.len() - 1];
    for size in sizes {
        assert!(by_us(&during, &journal[..size]) == by_sqlite(&during, &journal[..size]), "cut to {size}");
    }
    // The magic; how many records; the nonce; a page's number, its content, its checksum; a later part.
    for at in [0, 11, 15, 515, 700, 512 + 4 + 4_096 + 3, journal.len() / 3, journal.len() / 2] {
        let mut changed = journal.clone();
        changed[at] ^= 1;
        assert!(by_us(&during, &changed) == by_sqlite(&during, &changed), "changed at {at}");
    }
    assert!(by_us(&[], &journal).is_empty());
}

#[test]
fn a_journal_of_a_far_larger_file_is_refused() {
    let (_, during, mut journal) = interrupted(true);
    journal[16] = 0xff;
    let mut database = during.clone();
    let refused = roll_back(&mut database, &journal).unwrap_err();
    assert!(refused.to_string().contains("control.db-journal"), "{refused}");
    assert!(database == during);
}
