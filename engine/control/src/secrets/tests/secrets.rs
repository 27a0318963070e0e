//! Names, values, versions, origins and collisions.

use std::collections::BTreeMap;

use crate::{
    Control, ControlOptions, EnvNames, KEPT_VERSIONS, MAX_SECRET_BYTES, SecretChange, SecretName,
    SecretOrigin,
    tests::{Fixture, START},
};

use super::{acme, code, new, prod, scope, store, value};

#[test]
fn a_secret_lives_in_one_environment() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let other = fixture.tenant("other");
    let made = store(control, &scope(&tenant), "DB_PASSWORD", b"test").unwrap();
    assert_eq!((made.version, made.created_at, made.updated_at), (1, START, START));
    assert_eq!((made.owner.as_str(), made.env_name.as_str()), ("operator", "SEPAL_SECRET_DB_PASSWORD"));
    store(control, &prod(&tenant), "DB_PASSWORD", b"production").unwrap();
    assert_eq!(value(control, &scope(&tenant), "DB_PASSWORD").unwrap(), b"test");
    assert_eq!(value(control, &prod(&tenant), "DB_PASSWORD").unwrap(), b"production");
    assert_eq!(value(control, &scope(&other), "DB_PASSWORD"), None);
    assert_eq!(value(control, &scope(&tenant), "db_password"), None, "case counts");
    assert_eq!(control.secret(&scope(&tenant), "no name at all").unwrap(), None);
    assert_eq!(control.list_secrets(&scope(&tenant)).unwrap(), std::slice::from_ref(&made));
    assert_eq!(control.secret(&scope(&tenant), "DB_PASSWORD").unwrap(), Some(made));

    assert_eq!(code(store(control, &scope(&tenant), "DB_PASSWORD", b"x").unwrap_err()), "42710");
    let nowhere = crate::Scope { tenant: tenant.id, environment: "nowhere" };
    assert_eq!(code(store(control, &nowhere, "A", b"x").unwrap_err()), "42704");

    control.drop_secret(&scope(&tenant), "DB_PASSWORD").unwrap();
    assert_eq!(value(control, &scope(&tenant), "DB_PASSWORD"), None);
    assert_eq!(code(control.drop_secret(&scope(&tenant), "DB_PASSWORD").unwrap_err()), "42704");
    assert_eq!(value(control, &prod(&tenant), "DB_PASSWORD").unwrap(), b"production");

    control.drop_tenant("acme").unwrap();
    let left: i64 = control
        .database
        .lock()
        .query_row(
            "SELECT (SELECT count(*) FROM secrets) + (SELECT count(*) FROM secret_versions)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_new_value_is_a_new_version_and_ten_are_kept() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let scope = scope(&tenant);
    store(control, &scope, "token", b"value 1").unwrap();
    for version in 2..=12_u64 {
        fixture.clock.advance(1);
        let text = format!("value {version}");
        let change = SecretChange { value: Some(text.as_bytes()), ..SecretChange::default() };
        assert_eq!(control.set_secret(&scope, "token", change).unwrap().version, version);
    }
    let of = |version| {
        let found = control.secret_value(&scope, "token", version).unwrap();
        found.map(|(version, value)| (version, String::from_utf8(value.to_vec()).unwrap()))
    };
    assert_eq!(of(None), Some((12, "value 12".into())));
    assert_eq!(of(Some(3)), Some((3, "value 3".into())));
    assert_eq!((of(Some(2)), of(Some(13)), of(Some(0))), (None, None, None));
    assert_eq!((3..=12).filter(|version| of(Some(*version)).is_some()).count() as u64, KEPT_VERSIONS);
    let secret = control.secret(&scope, "token").unwrap().unwrap();
    assert_eq!((secret.created_at, secret.updated_at), (START, START + 11));

    // Settings alone are no new version.
    let hosts = Some(Some(vec!["Hooks.Example.com".into(), "*.example.org".into()]));
    let change = SecretChange { allowed_hosts: hosts, ..SecretChange::default() };
    let bound = control.set_secret(&scope, "token", change).unwrap();
    assert_eq!(bound.version, 12);
    assert_eq!(bound.allowed_hosts.unwrap(), ["hooks.example.com", "*.example.org"]);
    let freed = SecretChange { allowed_hosts: Some(None), ..SecretChange::default() };
    assert_eq!(control.set_secret(&scope, "token", freed).unwrap().allowed_hosts, None);
    assert_eq!(code(control.set_secret(&scope, "none", SecretChange::default()).unwrap_err()), "42704");
}

#[test]
fn values_survive_and_have_their_limits() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let longest = vec![0xff; MAX_SECRET_BYTES];
    store(control, &scope(&tenant), "longest", &longest).unwrap();
    let error = store(control, &scope(&tenant), "longer", &[longest.as_slice(), b"x"].concat()).unwrap_err();
    assert!(error.to_string().contains("65537 bytes"), "{error}");
    assert_eq!(code(error), "22023");
    assert!(store(control, &scope(&tenant), "empty", b"").unwrap_err().to_string().contains("empty"));
    assert_eq!(control.list_secrets(&scope(&tenant)).unwrap().len(), 1);

    let (path, root, options) = (fixture.path(), fixture.root.clone(), fixture.options());
    drop(fixture.control);
    let control = Control::open(&path, &root, options).unwrap();
    assert_eq!(value(&control, &scope(&tenant), "longest").unwrap(), longest);
}

#[test]
fn values_come_from_one_place() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let scope = scope(&tenant);
    let name = SecretName::parse("hook").unwrap();
    let vault = SecretOrigin::Resolver {
        resolver: "vault_prod".into(),
        options: BTreeMap::from([("path".into(), "hooks/acme".into())]),
    };
    let create =
        |origin: &SecretOrigin, value| control.create_secret(&scope, new(&name, origin.clone(), value));
    let wrong = [
        (SecretOrigin::Stored, None),
        (vault.clone(), Some(b"x".as_slice())),
        (SecretOrigin::Resolver { resolver: String::new(), options: BTreeMap::new() }, None),
        (SecretOrigin::Environment { variable: "1A".into() }, None),
        (SecretOrigin::Environment { variable: "A=B".into() }, None),
        (SecretOrigin::File { path: "/etc/shadow".into() }, None),
        (SecretOrigin::File { path: "a/../../b".into() }, None),
        (SecretOrigin::File { path: String::new() }, None),
    ];
    for (origin, value) in wrong {
        assert_eq!(code(create(&origin, value).unwrap_err()), "22023", "{origin:?}");
    }
    let made = create(&vault, None).unwrap();
    assert_eq!((made.source, made.version), (vault.clone(), 1));
    assert_eq!(value(control, &scope, "hook"), None, "it is not stored here");

    // A value alone makes it a stored one, an origin alone takes the values away.
    let stored = SecretChange { value: Some(b"v"), ..SecretChange::default() };
    assert_eq!(control.set_secret(&scope, "hook", stored).unwrap().source, SecretOrigin::Stored);
    assert_eq!(value(control, &scope, "hook").unwrap(), b"v");
    let moved =
        SecretChange { origin: Some(vault), refresh_seconds: Some(Some(300)), ..SecretChange::default() };
    let moved = control.set_secret(&scope, "hook", moved).unwrap();
    assert_eq!((moved.version, moved.refresh_seconds), (3, Some(300)));
    assert!(control.secret_value(&scope, "hook", Some(2)).unwrap().is_none());
    let stay = SecretChange { origin: Some(SecretOrigin::Stored), ..SecretChange::default() };
    assert!(control.set_secret(&scope, "hook", stay).unwrap_err().to_string().contains("give a value"));
    let back = SecretChange { value: Some(b"w"), ..SecretChange::default() };
    let back = control.set_secret(&scope, "hook", back).unwrap();
    assert_eq!((back.version, back.refresh_seconds), (4, None));
    let refresh = SecretChange { refresh_seconds: Some(Some(5)), ..SecretChange::default() };
    assert_eq!(code(control.set_secret(&scope, "hook", refresh).unwrap_err()), "22023");
}

#[test]
fn hosts_are_hosts() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    store(control, &scope(&tenant), "a", b"x").unwrap();
    let bind = |hosts: &[&str]| {
        let hosts = hosts.iter().map(ToString::to_string).collect();
        let change = SecretChange { allowed_hosts: Some(Some(hosts)), ..SecretChange::default() };
        control.set_secret(&scope(&tenant), "a", change)
    };
    for host in ["", "*.", "https://a.com", "a.com/x", "u@a.com", "a b", "*", "a.*.com", ".a.com"] {
        assert!(bind(&[host]).is_err(), "{host}");
    }
    assert!(bind(&[]).unwrap_err().to_string().contains("leave it out"));
    assert!(bind(&["a.com", "10.0.0.1", "[::1]", "localhost:8443"]).is_ok());
}

#[test]
fn two_secrets_are_never_one_variable_by_accident() {
    let fixture = Fixture::new();
    let tenant = acme(&fixture);
    store(&fixture.control, &scope(&tenant), "db-password", b"1").unwrap();
    let error = store(&fixture.control, &scope(&tenant), "db_password", b"2").unwrap_err();
    assert_eq!(
        error.to_string(),
        "secret \"db_password\" would be the environment variable SEPAL_SECRET_DB_PASSWORD, which secret \
         \"db-password\" is already: choose a name that differs in more than '-', '_' and case"
    );
    assert_eq!(code(error), "42710");
    store(&fixture.control, &prod(&tenant), "db_password", b"3").unwrap();

    let (path, root, options) = (fixture.path(), fixture.root.clone(), fixture.options());
    drop(fixture.control);
    let compatible = ControlOptions { secret_env_names: EnvNames::VF, ..options.clone() };
    let control = Control::open(&path, &root, compatible).unwrap();
    let second = store(&control, &scope(&tenant), "db_password", b"2").unwrap();
    assert_eq!(second.env_name, "VF_SECRET_DB_PASSWORD");
    assert_eq!(second.collides_with.as_deref(), Some("db-password"));
    let third = store(&control, &scope(&tenant), "Db_Password", b"4").unwrap();
    assert_eq!(third.collides_with.as_deref(), Some("db-password"), "the first");
    assert_eq!(value(&control, &scope(&tenant), "db-password").unwrap(), b"1", "each has its own value");

    // Back in the strict mode they stay, and say so.
    drop(control);
    let control = Control::open(&path, &root, options).unwrap();
    let listed = control.list_secrets(&scope(&tenant)).unwrap();
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|secret| secret.collides_with.is_some()));
    assert!(store(&control, &scope(&tenant), "DB_PASSWORD", b"5").is_err());
}
