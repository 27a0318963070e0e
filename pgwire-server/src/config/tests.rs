//! Which source wins, how a value's origin is told, and what is refused.

use std::fs;

use super::*;

#[derive(Serialize, Default)]
struct Flags {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pg_listen: Option<String>,
}

fn in_dir(toml: &str) -> (tempfile::TempDir, Flags) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("sepal.toml"), toml).unwrap();
    let flags = Flags { data: Some(dir.path().to_path_buf()), ..Flags::default() };
    (dir, flags)
}

#[test]
fn the_file_beats_defaults_and_flags_beat_the_file() {
    let (_dir, mut flags) = in_dir("pg_listen = \"127.0.0.1:1\"\nmax_connections = 7\n");
    let read = load(&Config::default(), &flags, None).unwrap();
    assert_eq!(read.config.pg_listen.port(), 1);
    assert_eq!(read.config.max_connections, 7);
    assert_eq!(read.config.http_listen, Config::default().http_listen);
    flags.pg_listen = Some("127.0.0.1:2".into());
    let read = load(&Config::default(), &flags, None).unwrap();
    assert_eq!(read.config.pg_listen.port(), 2);
    let text = read.to_toml().unwrap();
    let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line("pg_listen").ends_with("# flag --pg-listen"), "{text}");
    assert!(line("max_connections =").ends_with("sepal.toml"), "{text}");
    assert!(line("http_listen").ends_with("# default"), "{text}");
}

#[test]
fn what_is_printed_reads_back_the_same() {
    let (dir, flags) = in_dir("tls_cert = \"a b.pem\"\ntls_key = \"key\\\"s.pem\"\nlog = \"debug\"\n");
    let first = load(&Config::default(), &flags, None).unwrap();
    let copy = dir.path().join("copy.toml");
    fs::write(&copy, first.to_toml().unwrap()).unwrap();
    let second = load(&Config::default(), &Flags::default(), Some(&copy)).unwrap();
    assert_eq!(first.config, second.config);
}

#[test]
fn names_of_secrets_and_their_sources_are_settings() {
    let none = Config::default().secret_sources();
    assert_eq!((none.env_prefix, none.file_root, none.names), (None, None, EnvNames::SEPAL));
    let (_dir, flags) = in_dir(
        "secret_names = \"vf\"\nsecret_env_source = \"APP_SECRET_\"\nsecret_file_root = \"/run/secrets\"\n",
    );
    let read = load(&Config::default(), &flags, None).unwrap();
    let sources = read.config.secret_sources();
    assert_eq!(sources.env_prefix.as_deref(), Some("APP_SECRET_"));
    assert_eq!(sources.file_root.as_deref(), Some(Path::new("/run/secrets")));
    assert_eq!(sources.names.of("a-b"), "VF_SECRET_A_B");
}

#[test]
fn mistakes_are_named() {
    for (toml, expected) in [
        ("pg_listne = \"127.0.0.1:1\"", "pg_listne"),
        ("pg_listen = \"nowhere\"", "pg_listen"),
        ("max_connections = \"many\"", "max_connections"),
        ("max_connections = 0", "at least 1"),
        ("tenant_write_mib = 0", "at least 1"),
        ("tenant_query_mib = 0", "at least 1"),
        ("tenant_memtable_mib = 0", "every write would wait"),
        ("max_open_tenants = 0", "at least 1"),
        ("secret_names = \"other\"", "secret_names"),
        ("secret_env_source = \"\"", "whole environment"),
        ("secret_env_source = \"A B\"", "secret_env_source"),
        ("secret_file_root = \"\"", "name a directory"),
        ("tls_cert = \"x\"", "belong together"),
        ("pg_listen = \"0.0.0.0:1\"\ninsecure_plaintext = true", "loopback"),
        ("pg_listen = ", "sepal.toml"),
    ] {
        let (_dir, flags) = in_dir(toml);
        let error = load(&Config::default(), &flags, None).err().unwrap();
        assert!(error.0.contains(expected), "{toml}: {error}");
    }
    let error = load(&Config::default(), &Flags::default(), Some(Path::new("/no/such.toml"))).err().unwrap();
    assert!(error.0.contains("/no/such.toml"), "{error}");
}

#[test]
fn private_files_are_never_wider() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    files::write_new(&path, b"one", 0o600).unwrap();
    assert!(files::write_new(&path, b"two", 0o600).unwrap_err().to_string().contains("secret"));
    files::replace(&path, b"two", 0o600).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(files::mode(&path).unwrap(), 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_past_is_kept_as_the_settings_say() {
    let (_dir, flags) = in_dir("history_minutes = 5\nhistory_versions = 3\nhistory_max_mib = 2\n");
    let history = load(&Config::default(), &flags, None).unwrap().config.history();
    assert_eq!((history.keep_us, history.keep_versions, history.max_bytes), (300_000_000, 3, 2 << 20));
    assert_eq!(Config::default().history(), HistoryPolicy::default());
    let (_dir, flags) = in_dir("max_snapshot_minutes = 0");
    assert_eq!(load(&Config::default(), &flags, None).unwrap().config.max_snapshot_age(), None);
    assert_eq!(Config::default().max_snapshot_age(), Some(Duration::from_hours(24)));
}

#[test]
fn variables_that_are_no_settings_are_told() {
    let variables = [
        "SEPAL_NOPE",
        "SEPAL_DATA",
        "SEPAL_CONFIG",
        "SEPAL_SECRET_DB_PASSWORD",
        "SEPAL_APP_KEY",
        "PATH",
        "SEPAL_CACHE_MB",
    ];
    let variables = variables.iter().map(|name| (*name).to_owned());
    let found = ignored(variables, &["data", "cache_mib"], Some("SEPAL_APP_"));
    assert_eq!(found, ["SEPAL_CACHE_MB", "SEPAL_NOPE"]);
}

#[test]
fn more_threads_than_any_machine_has_are_refused() {
    let (_dir, flags) = in_dir("maintenance_threads = 9999\n");
    let Err(refused) = load(&Config::default(), &flags, None) else { panic!("9999 threads") };
    assert!(refused.0.starts_with("maintenance_threads is 9999"), "{refused}");
}

#[test]
fn the_cache_grows_with_the_memory_that_there_is() {
    for (bytes, expected) in [
        (None, 1024),
        (Some(0), 1024),
        (Some(4 << 30), 1024),
        (Some((16 << 30) - 1), 4095),
        (Some(16 << 30), 4096),
        (Some(u64::MAX), u64::MAX >> 22),
    ] {
        assert_eq!(cache_mib(bytes), expected, "{bytes:?}");
    }
    assert_eq!(Config::default().cache_mib, 1024, "for commands that open no cache");
    let defaults = Config::of_this_machine();
    assert_eq!(Config { cache_mib: 1024, ..defaults.clone() }, Config::default());
    let (_dir, flags) = in_dir("cache_mib = 7\n");
    assert_eq!(load(&defaults, &flags, None).unwrap().config.cache_mib, 7);
}
