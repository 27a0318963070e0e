//! Control as its callers see it: files, tenants, environments, keys; and what must never be in control.db.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use sepal_crypto::Key;
use sepal_types::{Clock, LogEnd, TenantId};
use tempfile::TempDir;

use crate::*;

pub(crate) const START: i64 = 1_900_000_000;

/// A clock that stands still until told, in seconds.
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst) * 1_000_000
    }
}

/// A data directory with a fresh control database.
pub(crate) struct Fixture {
    pub(crate) directory: TempDir,
    pub(crate) root: Key,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) control: Control,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let root = Key::random();
        let clock = Arc::new(TestClock(AtomicI64::new(START)));
        let control = Control::create(&path(&directory), &root, options(&clock)).unwrap();
        Self { directory, root, clock, control }
    }

    pub(crate) fn path(&self) -> PathBuf {
        path(&self.directory)
    }

    pub(crate) fn options(&self) -> ControlOptions {
        options(&self.clock)
    }

    pub(crate) fn tenant(&self, name: &str) -> Tenant {
        self.control.create_tenant(&TenantName::parse(name).unwrap()).unwrap()
    }

    pub(crate) fn key(&self, tenant: &Tenant) -> (ApiKey, Token) {
        self.control.create_key(tenant.id, None, Scopes::READ_WRITE, "a key", None).unwrap()
    }
}

fn path(directory: &TempDir) -> PathBuf {
    directory.path().join("control.db")
}

fn options(clock: &Arc<TestClock>) -> ControlOptions {
    ControlOptions { clock: Arc::clone(clock) as Arc<dyn Clock>, ..ControlOptions::default() }
}

/// Invariant 2: what users gave us is in no file of the directory, in any form that a search would find.
#[test]
fn no_plaintext_reaches_a_file() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant("kanarie-tenant");
    let environment = EnvironmentName::parse("kanarie-environment").unwrap();
    fixture.control.create_environment(tenant.id, &environment).unwrap();
    let label = "kanarie label of a key";
    let (key, token) = fixture
        .control
        .create_key(tenant.id, Some("kanarie-environment"), Scopes::READ, label, Some(START + 1000))
        .unwrap();
    fixture.control.authenticate_token(token.expose()).unwrap();
    fixture.control.flush_last_used().unwrap();
    let tenant_keys = fixture.control.tenant_keys(tenant.id).unwrap();
    fixture.control.revoke_key(&key.id).unwrap();

    let secret = token.expose().split('_').nth(4).unwrap();
    let unkeyed_hash = sepal_crypto::sha256(token.expose().as_bytes());
    let xxh3 = xxhash_rust::xxh3::xxh3_64(token.expose().as_bytes());
    let (xxh3_le, xxh3_be) = (xxh3.to_le_bytes(), xxh3.to_be_bytes());
    let needles: [&[u8]; 13] = [
        b"kanarie",
        label.as_bytes(),
        token.expose().as_bytes(),
        secret.as_bytes(),
        b"SCRAM-SHA-256",
        b"default",
        b"scopes",
        b"created_at",
        &unkeyed_hash,
        &xxh3_le,
        &xxh3_be,
        tenant_keys.current().expose(),
        fixture.root.expose(),
    ];
    let mut files = 0;
    for entry in fs::read_dir(fixture.directory.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        files += 1;
        for needle in needles {
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{:?}", String::from_utf8_lossy(needle));
        }
    }
    assert!(files >= 1);
    let bytes = fs::read(fixture.path()).unwrap();
    assert!(bytes.windows(12).any(|window| window == key.id.as_bytes()), "the search finds what is there");
}

#[test]
fn files_are_private() {
    let fixture = Fixture::new();
    fixture.tenant("acme");
    for entry in fs::read_dir(fixture.directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[test]
fn wrong_root_key_is_refused_and_writes_nothing() {
    let fixture = Fixture::new();
    fixture.tenant("acme");
    let (path, options) = (fixture.path(), fixture.options());
    let (root, directory) = (fixture.root.clone(), fixture.directory);
    drop(fixture.control);
    let before = fs::read(&path).unwrap();
    let files = || fs::read_dir(directory.path()).unwrap().count();
    let count = files();

    let error = Control::open(&path, &Key::random(), options.clone()).unwrap_err();
    assert!(matches!(error, ControlError::WrongRootKey { .. }));
    assert!(error.is_configuration());
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(files(), count);

    let control = Control::open(&path, &root, options).unwrap();
    assert_eq!(control.list_tenants().unwrap().len(), 1);
}

#[test]
fn create_and_open_refuse_the_wrong_files() {
    let fixture = Fixture::new();
    let again = Control::create(&fixture.path(), &fixture.root, fixture.options()).unwrap_err();
    assert!(matches!(again, ControlError::DatabaseExists(_)));
    let missing = Control::open(&fixture.directory.path().join("no.db"), &fixture.root, fixture.options());
    assert!(matches!(missing.unwrap_err(), ControlError::NoDatabase(_)));

    let garbage = fixture.directory.path().join("garbage.db");
    fs::write(&garbage, "not a database at all, but long enough to be looked at. ".repeat(20)).unwrap();
    let error = Control::open(&garbage, &fixture.root, fixture.options()).unwrap_err();
    assert_eq!(sepal_types::Error::from(error).state().code(), "XX001");
    let empty = fixture.directory.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    let error = Control::open(&empty, &fixture.root, fixture.options()).unwrap_err();
    assert!(matches!(error, ControlError::Corrupt { what: "control.db", .. }));
}

/// A start of `init` that died half-way does not stop the next one.
#[test]
fn create_replaces_an_unfinished_file() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("control.unfinished"), "half").unwrap();
    fs::write(directory.path().join("control.unfinished-journal"), "half").unwrap();
    Control::create(&path(&directory), &Key::random(), ControlOptions::default()).unwrap();
    assert!(!directory.path().join("control.unfinished").exists());
    assert!(!directory.path().join("control.unfinished-journal").exists());
}

#[test]
fn tenants_come_and_go() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let (beta, alpha) = (fixture.tenant("beta"), fixture.tenant("alpha"));
    assert_eq!(control.list_tenants().unwrap(), [alpha.clone(), beta.clone()]);
    assert_eq!(control.tenant_by_name("beta").unwrap(), Some(beta.clone()));
    assert_eq!(control.tenant_by_name("Beta'; --").unwrap(), None);
    let twice = control.create_tenant(&beta.name).unwrap_err();
    assert_eq!(sepal_types::Error::from(twice).state().code(), "42710");

    let key = |tenant: &Tenant| control.tenant_keys(tenant.id).unwrap().current().clone();
    let keys = [key(&alpha), key(&beta)];
    assert_ne!(keys[0].expose(), keys[1].expose());
    assert_eq!(key(&beta).expose(), keys[1].expose());

    let (api_key, token) = fixture.key(&beta);
    assert_eq!(control.drop_tenant("beta").unwrap().tenant, beta.id);
    assert!(control.tenant_keys(beta.id).is_err());
    assert!(control.list_keys(beta.id).is_err());
    assert!(control.list_environments(beta.id).is_err());
    assert!(control.authenticate_token(token.expose()).is_err());
    assert!(control.revoke_key(&api_key.id).is_err());
    assert_eq!(sepal_types::Error::from(control.drop_tenant("beta").unwrap_err()).state().code(), "42704");

    let reborn = fixture.tenant("beta");
    assert_ne!(reborn.id, beta.id, "a name may return, an id never");
    assert_ne!(key(&reborn).expose(), keys[1].expose());
}

/// Bodies of older files lack the field.
#[test]
fn a_tenants_body_is_golden() {
    let full = r#"{"name":"acme","created_at":7,"log_end":{"file":3,"bytes":160}}"#;
    let body: crate::tenants::TenantBody = serde_json::from_str(full).unwrap();
    assert_eq!(body.log_end, Some(LogEnd { file: 3, bytes: 160 }));
    assert_eq!(serde_json::to_string(&body).unwrap(), full);
    let piped = r#"{"name":"acme","created_at":7,"log_end":null,"pipelines":true}"#;
    let body: crate::tenants::TenantBody = serde_json::from_str(piped).unwrap();
    assert!(body.pipelines);
    assert_eq!(serde_json::to_string(&body).unwrap(), piped);
    let old: crate::tenants::TenantBody = serde_json::from_str(r#"{"name":"acme","created_at":7}"#).unwrap();
    assert_eq!((old.name.as_str(), old.created_at, old.log_end), ("acme", 7, None));
}

#[test]
fn tenants_with_pipelines_are_remembered() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let (acme, other) = (fixture.tenant("acme"), fixture.tenant("other"));
    assert!(control.tenants_with_pipelines().unwrap().is_empty());
    control.note_pipelines(acme.id, true).unwrap();
    control.note_pipelines(acme.id, true).unwrap();
    control.note_log_end(acme.id, LogEnd { file: 1, bytes: 160 }).unwrap();
    assert_eq!(control.tenants_with_pipelines().unwrap(), [acme.id]);
    assert_eq!(control.log_end(acme.id).unwrap(), Some(LogEnd { file: 1, bytes: 160 }));
    control.note_pipelines(other.id, true).unwrap();
    control.note_pipelines(acme.id, false).unwrap();
    assert_eq!(control.tenants_with_pipelines().unwrap(), [other.id]);
    control.drop_tenant("other").unwrap();
    assert!(control.tenants_with_pipelines().unwrap().is_empty());
    assert!(control.note_pipelines(other.id, true).is_err());
}

#[test]
fn the_end_of_a_log_is_remembered() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let (acme, other) = (fixture.tenant("acme"), fixture.tenant("other"));
    let (_, token) = fixture.key(&acme);
    assert_eq!(control.log_end(acme.id).unwrap(), None);
    let ends = [LogEnd { file: 1, bytes: 160 }, LogEnd { file: 9, bytes: 5_000 }];
    for end in ends {
        control.note_log_end(acme.id, end).unwrap();
        assert_eq!(control.log_end(acme.id).unwrap(), Some(end));
    }
    assert_eq!(control.log_end(other.id).unwrap(), None);
    assert_eq!(control.tenant_by_name("acme").unwrap(), Some(acme.clone()), "the rest of the row stays");
    assert!(control.authenticate_token(token.expose()).is_ok());
    control.drop_tenant("acme").unwrap();
    for error in [control.log_end(acme.id).unwrap_err(), control.note_log_end(acme.id, ends[0]).unwrap_err()]
    {
        assert!(matches!(error, ControlError::NotFound { .. }), "{error}");
    }
    let (path, root, options) = (fixture.path(), fixture.root.clone(), fixture.options());
    control.note_log_end(other.id, ends[1]).unwrap();
    drop(fixture.control);
    let again = Control::open(&path, &root, options).unwrap();
    assert_eq!(again.log_end(other.id).unwrap(), Some(ends[1]));
    assert!(again.log_end(TenantId([1; 16])).is_err());
}

/// Crypto-shred: the wrapped key's bytes are gone from every file, not only its row. SQLite's journal keeps pages as
/// they were, also those of neighbours.
#[test]
fn a_destroyed_key_is_in_no_file() {
    for way in ["drop", "retire", "rewrite"] {
        let fixture = Fixture::new();
        let (control, tenant) = (&fixture.control, fixture.tenant("doomed"));
        let wrapped: Vec<u8> = control
            .database
            .lock()
            .query_row(
                "SELECT wrapped_key FROM tenant_keys WHERE tenant = ?1",
                [tenant.id.as_bytes()],
                |row| row.get(0),
            )
            .unwrap();
        let holding = || {
            let entries = fs::read_dir(fixture.directory.path()).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap())
                .filter(|entry| {
                    fs::read(entry.path()).unwrap().windows(wrapped.len()).any(|at| at == wrapped)
                })
                .map(|entry| entry.file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        fixture.tenant("neighbour");
        assert_eq!(holding(), ["control.db", "control.db-journal"]);
        match way {
            "drop" => drop(control.drop_tenant("doomed").unwrap()),
            "retire" => {
                control.rotate_tenant_key(tenant.id).unwrap();
                control.retire_tenant_keys(tenant.id, 2).unwrap();
            }
            _ => {
                let path = fixture.directory.path().join("own.key");
                root_key::create(&path).unwrap();
                control.set_tenant_provider(tenant.id, &Provider::KeyFile { path }).unwrap();
            }
        }
        assert!(holding().is_empty(), "{way}: {:?}", holding());
        assert_eq!(control.list_tenants().unwrap().len(), if way == "drop" { 1 } else { 2 });
    }
}

/// Between the commit that destroys a key and the end of its journal.
#[test]
fn the_next_opening_clears_what_a_crash_left_in_the_journal() {
    let fixture = Fixture::new();
    fixture.tenant("one");
    let mut journal = fixture.path().into_os_string();
    journal.push("-journal");
    let left = || fs::read(&journal).unwrap().iter().any(|byte| *byte != 0);
    assert!(left(), "pages as they were before the tenant was made");
    let (path, root, options) = (fixture.path(), fixture.root.clone(), fixture.options());
    drop(fixture.control);
    let control = Control::open(&path, &root, options).unwrap();
    assert!(!left());
    assert_eq!(control.list_tenants().unwrap().len(), 1);
}

#[test]
fn environments() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let (one, two) = (fixture.tenant("one"), fixture.tenant("two"));
    let staging = EnvironmentName::parse("staging").unwrap();
    control.create_environment(one.id, &staging).unwrap();
    let names = |tenant: &Tenant| -> Vec<String> {
        control.list_environments(tenant.id).unwrap().iter().map(|found| found.name.to_string()).collect()
    };
    assert_eq!(names(&one), ["default", "staging"]);
    assert_eq!(names(&two), ["default"]);
    assert!(control.has_environment(one.id, "staging").unwrap());
    assert!(!control.has_environment(two.id, "staging").unwrap());
    let twice = control.create_environment(one.id, &staging).unwrap_err();
    assert!(matches!(twice, ControlError::AlreadyExists { .. }));
    let foreign = control.create_key(two.id, Some("staging"), Scopes::READ, "", None).unwrap_err();
    assert!(matches!(foreign, ControlError::NotFound { what: "environment", .. }));
}

#[test]
fn keys_are_listed_with_what_they_were_made_with() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let (tenant, other) = (fixture.tenant("acme"), fixture.tenant("other"));
    let (first, token) =
        control.create_key(tenant.id, Some("default"), Scopes::READ, "reader", Some(START + 100)).unwrap();
    fixture.clock.advance(5);
    let (second, _) = fixture.key(&tenant);
    fixture.key(&other);
    assert_eq!(control.list_keys(tenant.id).unwrap(), [first.clone(), second.clone()]);
    assert_eq!(first.environment.as_deref(), Some("default"));
    assert_eq!((first.scopes, first.label.as_str()), (Scopes::READ, "reader"));
    assert_eq!((first.created_at, first.expires_at), (START, Some(START + 100)));

    control.authenticate_token(token.expose()).unwrap();
    assert_eq!(
        control.list_keys(tenant.id).unwrap()[0].last_used_at,
        Some(START + 5),
        "before it is flushed"
    );
    control.flush_last_used().unwrap();
    fixture.clock.advance(1);
    let revoked = control.revoke_key(&second.id).unwrap();
    assert_eq!(revoked.revoked_at, Some(START + 6));
    fixture.clock.advance(1);
    assert_eq!(control.revoke_key(&second.id).unwrap().revoked_at, Some(START + 6), "the first time counts");

    let (path, root, options) = (fixture.path(), fixture.root.clone(), fixture.options());
    let expected = control.list_keys(tenant.id).unwrap();
    assert_eq!(expected[0].last_used_at, Some(START + 5));
    drop(fixture.control);
    assert_eq!(Control::open(&path, &root, options).unwrap().list_keys(tenant.id).unwrap(), expected);
}

#[test]
fn bad_requests_for_keys_say_what_is_wrong() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant("acme");
    let create = |scopes, label: &str, expires_at| {
        fixture.control.create_key(tenant.id, None, scopes, label, expires_at).unwrap_err().to_string()
    };
    assert!(create(Scopes { read: false, write: false }, "", None).contains("scope"));
    assert!(create(Scopes::READ, &"x".repeat(201), None).contains("201 bytes"));
    assert!(create(Scopes::READ, "a\nb", None).contains("control characters"));
    assert!(create(Scopes::READ, "", Some(START)).contains("expiry"));
    assert!(fixture.control.list_keys(tenant.id).unwrap().is_empty());
    assert_eq!(Scopes::parse("read, write").unwrap(), Scopes::READ_WRITE);
    assert!(Scopes::parse("admin").is_err() && Scopes::parse("").is_err());
}

/// Every sealed value of every row is bound to its row: exchanging two of them is noticed.
#[test]
fn values_moved_to_another_row_do_not_open() {
    let fixture = Fixture::new();
    let control = &fixture.control;
    let (one, two) = (fixture.tenant("one"), fixture.tenant("two"));
    let (_, token_one) = fixture.key(&one);
    let (key_two, token_two) = fixture.key(&two);
    let run = |sql: &str| control.database.lock().execute_batch(sql).unwrap();
    let corrupt = |result: std::result::Result<Principal, ControlError>| {
        assert!(matches!(result.unwrap_err(), ControlError::Corrupt { .. }));
    };

    // The thief owns key one and control.db, not the root key: wants tenant two's rights for his token.
    run("CREATE TEMP TABLE saved AS SELECT id, mac, body, tenant FROM api_keys");
    run(&format!(
        "UPDATE api_keys SET mac = (SELECT mac FROM saved WHERE id = '{}') WHERE id = '{}'",
        token_one.key_id(),
        key_two.id
    ));
    corrupt(control.authenticate_token(token_two.expose()));
    run("UPDATE api_keys SET mac = (SELECT mac FROM saved WHERE saved.id = api_keys.id)");
    fixture.clock.advance(61);
    assert!(control.authenticate_token(token_two.expose()).is_ok());

    run(&format!(
        "UPDATE api_keys SET tenant = (SELECT tenant FROM saved WHERE id = '{}') WHERE id = '{}'",
        key_two.id,
        token_one.key_id()
    ));
    corrupt(control.authenticate_token(token_one.expose()));

    let exchanged = control.database.lock().execute(
        "UPDATE tenant_keys SET wrapped_key = (SELECT wrapped_key FROM tenant_keys WHERE tenant = ?1) \
         WHERE tenant = ?2",
        [one.id.as_bytes(), two.id.as_bytes()],
    );
    assert_eq!(exchanged.unwrap(), 1);
    assert!(matches!(control.tenant_keys(two.id).unwrap_err(), ControlError::Corrupt { .. }));
}
