//! Which SQLSTATE and words each error leaves with.

use std::io;

use sepal_types::{Error, Lsn, TableId};

use super::StoreError;

#[test]
fn leaves_with_postgres_words() {
    let unique = StoreError::UniqueViolation {
        schema: "public".into(),
        table: "items".into(),
        constraint: "items_pkey".into(),
        columns: "id".into(),
        key_text: "1".into(),
    };
    let error = Error::from(unique);
    assert_eq!(error.state().code(), "23505");
    assert_eq!(error.message(), "duplicate key value violates unique constraint \"items_pkey\"");
    assert_eq!(error.detail(), Some("Key (id)=(1) already exists."));
    let violated = error.violated().map(|violated| (&*violated.table, &*violated.constraint));
    assert_eq!(violated, Some(("items", "items_pkey")));

    let conflict = Error::from(StoreError::WriteConflict { table: "items".into() });
    assert_eq!(conflict.state().code(), "40001");
    assert_eq!(conflict.message(), "could not serialize access due to concurrent update");
}

#[test]
fn every_error_has_its_state() {
    let full = io::Error::from(io::ErrorKind::StorageFull);
    let cases = [
        (StoreError::DuplicateTable("items".into()), "42P07"),
        (StoreError::NoSuchTable(TableId(20_000)), "42P01"),
        (StoreError::TooMuchDeleted { table: "items".into(), limit_mib: 1 }, "54000"),
        (StoreError::ManifestTooLarge { bytes: 2, limit: 1 }, "54000"),
        (StoreError::LogGone { after: Lsn(3), oldest: Lsn(9) }, "55000"),
        (StoreError::NoSuchPast { asked: "commit 3".into(), oldest: "commit 9".into() }, "55000"),
        (StoreError::NotYet { asked: "commit 9".into(), newest: "commit 3".into() }, "22023"),
        (StoreError::NoSuchSnapshot { name: "before".into() }, "42704"),
        (StoreError::DuplicateSnapshot { name: "before".into() }, "42710"),
        (StoreError::NullValues { table: "items".into(), column: "label".into() }, "23502"),
        (StoreError::io("write", "wal/1.wal", &full), "53100"),
        (StoreError::io("write", "wal/1.wal", &io::Error::from_raw_os_error(libc::EIO)), "58030"),
        (StoreError::corrupt("wal/1.wal", "bad"), "XX001"),
        (StoreError::Poisoned { why: "fsync failed".into() }, "58030"),
        (StoreError::Stopped, "57014"),
        (StoreError::Bug("wrong".into()), "XX000"),
        (StoreError::NoSuchSchema("s".into()), "3F000"),
        (StoreError::DuplicateSchema("s".into()), "42P06"),
        (StoreError::DefaultTooLarge { column: "label".into(), rows: 9 }, "54000"),
        (StoreError::ValueTooLarge { column: "label".into() }, "54000"),
    ];
    for (error, code) in cases {
        let shown = error.to_string();
        assert_eq!(Error::from(error).state().code(), code, "{shown}");
    }
    assert!(Error::from(StoreError::corrupt("wal/1.wal", "bad")).message().contains("wal/1.wal"));
}
