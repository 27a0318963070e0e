//! Files of formats 1 and 2, and what is refused.
//!
//! The sealed bytes were made with Python's `cryptography` from docs/format/control.md, under the root key 07…07.

use std::{fs, path::PathBuf};

use sepal_crypto::Key;
use sepal_types::TenantId;
use tempfile::TempDir;

use super::*;
use crate::{Control, ControlOptions, RecoveryKey, Scope, SecretOrigin};

const ROOT: Key = Key::from_bytes([7; 32]);
const ACME: TenantId = TenantId([0xaa; 16]);

/// The tables as format 1 had them.
const OLD_TABLES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE tenants (
        id BLOB PRIMARY KEY,
        name_mac BLOB NOT NULL UNIQUE,
        wrapped_key BLOB NOT NULL,
        body BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE environments (
        tenant BLOB NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        name_mac BLOB NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (tenant, name_mac)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        tenant BLOB NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
        mac BLOB NOT NULL,
        verifier BLOB NOT NULL,
        body BLOB NOT NULL,
        last_used BLOB
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX api_keys_by_tenant ON api_keys (tenant);
    PRAGMA application_id = 0x5345504c;
    PRAGMA user_version = 1;
";
/// The canary, and the tenant `acme` (key bb…bb) with its environment `default`.
const OLD_ROWS: &str = concat!(
    "INSERT INTO meta VALUES ('canary', X'",
    "01010101010101010101010101010101010101010101010130039510ee9a37005a6cdc1012bb717971b5bfe5d145cc48",
    "1732c25e9cd2f329fc0550cc57d6",
    "');",
    "INSERT INTO tenants VALUES (X'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', X'",
    "ee9698ee24e15caa7af225b895fae1f3a4ff4e87ab173a6c5484e435134573ca",
    "', X'",
    "010a88edf1496329d0e711a1357031750202020202020202020202020202020202020202020202021b09af306bbc4529",
    "aba7558bf2d5b9ac119330ee7a272043285daf569191163baf7b9afb569ef25ee88f7be44def31e5",
    "', X'",
    "030303030303030303030303030303030303030303030303ec168f4d1fc3b956e4b4011f0a538fa9e6ba246ba26bde5e",
    "fcefa2d7543271fb1e0f06334e840105365cd0ac02f156540cb84eb17797eb08a3b4d20861",
    "');",
    "INSERT INTO environments VALUES (X'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', X'",
    "9f1d0e46b174c28cfa7dac01816e4ba2d16c2bacbc416cc382375003d7687ace",
    "', X'",
    "040404040404040404040404040404040404040404040404c778aa6fdc14f18fb12b610fa265da197d5debe219207011",
    "75ff706c2aa61c255f07da0d73b43c676f5c2452104416da44",
    "');",
);
/// The secret `DB_PASSWORD` of that environment, worth `hunter2`, as format 2 keeps it.
const SECRET_ROWS: &str = concat!(
    "INSERT INTO secrets VALUES (X'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', X'",
    "9f1d0e46b174c28cfa7dac01816e4ba2d16c2bacbc416cc382375003d7687ace",
    "', X'",
    "bf2ea9e5b3f96ae307302df561a77c2f1c1a3309de52bbef7750319b0397c68e",
    "', X'",
    "f68b3f52b84449ac1b02e57cd3f8cd3e9312ed6db54416f4ef82cc3d56cdff16",
    "', X'",
    "060606060606060606060606060606060606060606060606bdfd8be5686c5cd5ee49c47b2b0914bed66d040bbb97c8e1",
    "dc2eaad32b9bb4cf906ba1185834e72f3cc64a945491ed0c0eef9961e591d0f10a3b73d659ab9e5389265bd9187edf68",
    "b3615d641cf4bc06dfc424e9bcf600166c557a4b2fd57b2f1fa23bdef719ebf079005592a9558e9748fc2bafe80e6b6f",
    "3677400b3ad74a4acedaa325e2d485fc9bc173c4db59566b17974b0850dfe19febf8cb83f15d0c1493f35a318bd26cbc",
    "d116502102a257cd38ad23172c9fa76782bd",
    "');",
    "INSERT INTO secret_versions VALUES (X'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', X'",
    "9f1d0e46b174c28cfa7dac01816e4ba2d16c2bacbc416cc382375003d7687ace",
    "', X'",
    "bf2ea9e5b3f96ae307302df561a77c2f1c1a3309de52bbef7750319b0397c68e",
    "', 1, X'",
    "050505050505050505050505050505050505050505050505fb823da3027752faa1c219ebcd4d2e82cf703271b68a1a",
    "');",
);

fn old_file() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(OLD_TABLES).unwrap();
    connection.execute_batch(OLD_ROWS).unwrap();
    connection.close().unwrap();
    (directory, path)
}

fn open(path: &Path) -> Control {
    Control::open(path, &ROOT, ControlOptions::default()).unwrap()
}

#[test]
fn a_file_of_format_1_becomes_one_of_today() {
    let (_directory, path) = old_file();
    for opening in ["the first", "the second"] {
        let control = open(&path);
        assert_eq!(format_of(&control.database.lock()).unwrap(), FORMAT, "{opening}");
        let tenants = control.list_tenants().unwrap();
        assert_eq!((tenants.len(), tenants[0].id, tenants[0].name.as_str()), (1, ACME, "acme"));
        assert_eq!(control.tenant_keys(ACME).unwrap().current().expose(), &[0xbb; 32]);
        assert_eq!(control.tenant_key_epoch(ACME).unwrap(), 1);
        assert_eq!(control.audit_events(0, 9).unwrap()[0].event.action, "control.format");
        assert!(control.list_secrets(&Scope { tenant: ACME, environment: "default" }).unwrap().is_empty());
    }
    // As a file of today, down to the words of its tables.
    let fresh = TempDir::new().unwrap();
    let fresh = Control::create(&fresh.path().join("c.db"), &ROOT, ControlOptions::default()).unwrap();
    let tables = |control: &Control| -> Vec<String> {
        let database = control.database.lock();
        let mut sql =
            database.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY sql").unwrap();
        sql.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(tables(&open(&path)), tables(&fresh));
}

/// The old wrapped key is nowhere in the file any more: under the next root key it would be a second way in.
#[test]
fn migrating_erases_the_key_from_its_old_place() {
    let (_directory, path) = old_file();
    let old: Vec<u8> = Connection::open(&path)
        .unwrap()
        .query_row("SELECT wrapped_key FROM tenants", [], |row| row.get(0))
        .unwrap();
    let holds = || fs::read(&path).unwrap().windows(old.len()).any(|window| window == old);
    assert!(holds());
    drop(open(&path));
    assert!(!holds());
}

#[test]
fn the_wrong_root_key_changes_nothing_in_an_old_file() {
    let (_directory, path) = old_file();
    let before = fs::read(&path).unwrap();
    let refused = Control::open(&path, &Key::random(), ControlOptions::default()).unwrap_err();
    assert!(matches!(refused, ControlError::WrongRootKey { .. }));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_stored_secret_of_format_2_is_golden() {
    let (_directory, path) = old_file();
    {
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(SECRET_TABLES).unwrap();
        connection.execute_batch(SECRET_ROWS).unwrap();
        connection.pragma_update(None, "user_version", 2).unwrap();
    }
    let control = open(&path);
    let scope = Scope { tenant: ACME, environment: "default" };
    let secret = control.secret(&scope, "DB_PASSWORD").unwrap().unwrap();
    assert_eq!((secret.version, secret.owner.as_str(), secret.created_at), (1, "operator", 7));
    assert_eq!((secret.source, secret.env_name.as_str()), (SecretOrigin::Stored, "SEPAL_SECRET_DB_PASSWORD"));
    let (version, value) = control.secret_value(&scope, "DB_PASSWORD", None).unwrap().unwrap();
    assert_eq!((version, value.as_slice()), (1, b"hunter2".as_slice()));
    // Found by the variable as well, which another prefix does not change.
    let name = crate::SecretName::parse("db-password").unwrap();
    let new = crate::NewSecret {
        name: &name,
        owner: "operator",
        origin: SecretOrigin::Stored,
        value: Some(b"x"),
        allowed_hosts: None,
        refresh_seconds: None,
        max_stale_seconds: None,
    };
    let refused = control.create_secret(&scope, new).unwrap_err();
    assert!(matches!(refused, ControlError::SecretCollision { first, .. } if first == "DB_PASSWORD"));
}

/// Rows of format 3 under the root key 07…07: two epochs of `acme`'s key, a recovery package for 09…09, one entry of the
/// audit trail. Made as those above.
const ROWS_OF_FORMAT_3: &str = include_str!("golden/format_3.sql");
/// The same of format 4, which binds instance keys anew.
const ROWS_OF_FORMAT_4: &str = include_str!("golden/format_4.sql");

/// The tables are the same in formats 3 and 4.
fn file_of(format: i64, rows: &str) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.db");
    let mut connection = Connection::open(&path).unwrap();
    create_tables(&mut connection).unwrap();
    connection.execute_batch(rows).unwrap();
    connection.pragma_update(None, "user_version", format).unwrap();
    connection.close().unwrap();
    (directory, path)
}

fn actions(control: &Control) -> Vec<String> {
    control.audit_events(0, 9).unwrap().into_iter().map(|entry| entry.event.action).collect()
}

#[test]
fn files_of_formats_3_and_4_are_golden() {
    let (_directory, path) = file_of(3, ROWS_OF_FORMAT_3);
    for _ in 0..2 {
        let control = open(&path);
        assert_golden(&control);
        assert_eq!(actions(&control), ["tenant.create", "control.format"]);
    }
    let (_directory, path) = file_of(4, ROWS_OF_FORMAT_4);
    let control = open(&path);
    assert_golden(&control);
    assert_eq!(actions(&control), ["tenant.create"]);
}

fn assert_golden(control: &Control) {
    assert_eq!(control.list_tenants().unwrap()[0].name.as_str(), "acme");
    let keys = control.tenant_keys(ACME).unwrap();
    assert!(keys.keys().map(Key::expose).eq([&[0xcc; 32], &[0xbb; 32]]));
    let status = control.tenant_key_status(ACME).unwrap();
    assert_eq!((status[0].epoch, status[0].check.as_str()), (2, "bea19574bad0bdfa601d4a3902b60733"));
    let root = control.root_status().unwrap();
    assert_eq!((root.generation, root.keys, root.under_old, root.rotating), (2, 2, 0, false));
    assert_eq!(control.verify_audit(None).unwrap().wrong, Vec::<String>::new());
    assert_eq!(control.audit_events(0, 9).unwrap()[0].event.object, "acme");
    let package = control.recovery_package().unwrap().unwrap();
    let recovery = RecoveryKey::from_key(Key::from_bytes([9; 32]));
    assert_eq!(crate::open_recovery_package(&package, &recovery).unwrap().expose(), ROOT.expose());
    assert_eq!(RecoveryKey::parse(&recovery.expose()).unwrap().id(), recovery.id());
}

/// A trail that format 3 left without its end goes on, says so, and is not called damaged for ever.
#[test]
fn a_trail_of_format_3_without_an_end_goes_on() {
    let gone = "DELETE FROM audit; DELETE FROM meta WHERE name = 'audit';";
    let cases = [
        ("DELETE FROM meta WHERE name = 'audit';", vec!["tenant.create", "audit.resume", "control.format"]),
        (gone, vec!["audit.resume", "control.format"]),
        // Nothing was ever to be told.
        (
            "DELETE FROM audit; DELETE FROM meta WHERE name = 'audit'; DELETE FROM tenants",
            vec!["control.format"],
        ),
    ];
    for (sql, expected) in cases {
        let (_directory, path) = file_of(3, ROWS_OF_FORMAT_3);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let control = open(&path);
        assert_eq!(actions(&control), expected, "{sql}");
        assert_eq!(control.verify_audit(None).unwrap().wrong, Vec::<String>::new());
    }
}

/// Else whoever can write to the file could have its trail begun anew.
#[test]
fn a_file_of_today_is_not_taken_for_one_of_format_3() {
    let (_directory, path) = file_of(4, ROWS_OF_FORMAT_4);
    let sql = "DELETE FROM audit; DELETE FROM meta WHERE name = 'audit'; PRAGMA user_version = 3";
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let before = fs::read(&path).unwrap();
    let refused = Control::open(&path, &ROOT, ControlOptions::default()).unwrap_err();
    assert!(matches!(refused, ControlError::Corrupt { what: "an instance key", .. }), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_newer_format_is_refused() {
    let (_directory, path) = old_file();
    drop(open(&path));
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 5).unwrap();
    let refused = Control::open(&path, &ROOT, ControlOptions::default()).unwrap_err();
    assert!(matches!(refused, ControlError::UnsupportedFormat { format: 5, expected: 4, .. }));
}
