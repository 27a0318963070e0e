//! Sinks and the plugins that carry them: what is refused when they are defined, and when they change.

use std::sync::Arc;

use sepal_crypto::{ed25519::SigningKey, sha256};
use sepal_types::limits;

use super::{
    Fake, bind,
    fake::{component, named_component},
    fixture, objects, refusal, with_sink,
};
use crate::{
    connector::{Fault, FaultKind},
    fixtures::{Fixture, refused, run},
};

#[tokio::test(flavor = "multi_thread")]
async fn without_connectors_nothing_is_defined() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    assert_eq!(refused(&mut session, "CREATE SINK s USING file OPTIONS (path 'a')").await, "0A000");
    run(&mut session, "CREATE SECRET a AS 'works without'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_stand_where_secrets_may() {
    let fixture = fixture(&Arc::default());
    let mut session = with_sink(&fixture).await;
    for (options, state) in [
        ("url 'https://a.example.com', token 'in clear'", "22023"),
        ("url SECRET[hook_token]", "22023"),
        ("url 'https://user:pw@a.example.com'", "22023"),
        ("url 'https://a.example.com', token SECRET[nowhere]", "42704"),
        ("url 'https://a.example.com', token SECRET[hook_token@9]", "42704"),
        ("token SECRET[hook_token]", "22023"),
    ] {
        let sql = format!("CREATE SINK other USING PLUGIN webhook OPTIONS ({options})");
        let refusal = refusal(&mut session, &sql).await;
        assert!(refusal.contains(state), "{options}: {refusal}");
        assert!(!refusal.contains("in clear'") && !refusal.contains("user:pw"), "{refusal}");
    }
    // A native connector has no schema to ask: names decide.
    let refusal =
        refusal(&mut session, "CREATE SINK other USING file OPTIONS (path 'a', password 'b')").await;
    assert!(refusal.contains("22023"), "{refusal}");
    assert!(objects(&fixture).await.sink("default", "other").is_none());
}

/// Also under REPEATABLE READ, where the transaction's first query comes after the savepoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_from_before_a_savepoint_is_seen_after_going_back_to_it() {
    let fixture = fixture(&Arc::default());
    let mut session = with_sink(&fixture).await;
    run(&mut session, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    run(&mut session, "CREATE SINK other USING file OPTIONS (path 'a')").await;
    run(&mut session, "SAVEPOINT s; SELECT count(*) FROM orders; ROLLBACK TO s; DROP SINK other; COMMIT")
        .await;
    assert!(objects(&fixture).await.sink("default", "other").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_refuses_is_no_sink() {
    let fake: Arc<Fake> = Arc::default();
    let fixture = fixture(&fake);
    let mut session = with_sink(&fixture).await;
    *fake.refuses.lock() = Some(Fault::new(FaultKind::Unauthorized, "it says 401").with_code("http.401"));
    let again = "CREATE SINK other USING PLUGIN webhook OPTIONS (url 'https://a.example.com')";
    let refusal = refusal(&mut session, again).await;
    assert!(refusal.contains("38000") && refusal.contains("http.401"), "{refusal}");
    assert_eq!(refused(&mut session, "VALIDATE SINK hook").await, "38000");
    *fake.refuses.lock() = None;
    run(&mut session, "VALIDATE SINK hook; ALTER SINK hook ALLOW HOSTS ('https://*.example.com:8443')").await;
    let found = objects(&fixture).await;
    let sink = found.sink("default", "hook").unwrap();
    assert_eq!(
        (sink.allow_hosts.as_slice(), sink.revision),
        (&["https://*.example.com:8443".to_owned()][..], 2)
    );
    assert_eq!(sink.options.len(), 2, "what is not named stays");
    for host in [
        "a.example.com",
        "https://a.example.com/path",
        "https://u:p@a.example.com",
        "https://:443",
        "ftp://a",
    ] {
        let sql = format!("ALTER SINK hook ALLOW HOSTS ('{host}')");
        assert_eq!(refused(&mut session, &sql).await, "22023", "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_part_of_the_transaction() {
    let fixture = fixture(&Arc::default());
    let mut session = with_sink(&fixture).await;
    let create = "CREATE SINK other USING PLUGIN webhook OPTIONS (url 'https://a.example.com')";
    run(&mut session, &format!("BEGIN; {create}; DROP SINK hook; ROLLBACK")).await;
    let found = objects(&fixture).await;
    assert!(found.sink("default", "hook").is_some() && found.sink("default", "other").is_none());
    run(&mut session, &format!("BEGIN; {create}")).await;
    assert_eq!(refused(&mut session, create).await, "42710", "its own definition is in sight");
    run(&mut session, "ROLLBACK").await;
    assert_eq!(refused(&mut session, "DROP SINK none").await, "42704");
    run(&mut session, "DROP SINK IF EXISTS none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_signed_by_whom_the_environment_trusts() {
    let fixture = fixture(&Arc::default());
    let mut session = fixture.session().await;
    let wasm = component("1.0.0", &["http https://a.example.com:443"]);
    let (mine, other) = (SigningKey::generate(), SigningKey::generate());
    let signature =
        |key: &SigningKey, wasm: &[u8]| key.sign(&[b"sepal-plugin-v1\0".as_slice(), &sha256(wasm)].concat());
    // Nobody is trusted yet, and this server is for development.
    assert_eq!(bind(&mut session, "CREATE PLUGIN loose FROM $1", &[&wasm]).await.unwrap(), "CREATE PLUGIN");
    let key = mine.verifying_key().to_string();
    bind(&mut session, "CREATE PLUGIN TRUST KEY acme AS $1", &[key.as_bytes()]).await.unwrap();
    let create = "CREATE PLUGIN hook FROM $1 SIGNATURE $2";
    for wrong in [signature(&other, &wasm).to_vec(), signature(&mine, b"another").to_vec()] {
        let error = bind(&mut session, create, &[&wasm, &wrong]).await.unwrap_err();
        assert_eq!(error.state().code(), "42501", "{error}");
    }
    let error = bind(&mut session, "CREATE PLUGIN hook FROM $1", &[&wasm]).await.unwrap_err();
    assert_eq!(error.state().code(), "42501", "unsigned where keys are trusted: {error}");
    let error = bind(&mut session, create, &[&wasm, b"short"]).await.unwrap_err();
    assert_eq!(error.state().code(), "22023", "{error}");
    bind(&mut session, create, &[&wasm, &signature(&mine, &wasm)]).await.unwrap();
    let found = objects(&fixture).await;
    assert_eq!(found.plugin("default", "hook").unwrap().signed_by.as_deref(), Some("acme"));
    assert_eq!(refused(&mut session, "CREATE PLUGIN TRUST KEY b AS 'ed25519:zzz'").await, "22023");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_component_may_not_ask_for_more() {
    let fixture = fixture(&Arc::default());
    let mut session = fixture.session().await;
    let host = "http https://a.example.com:443";
    bind(&mut session, "CREATE PLUGIN hook FROM $1", &[&component("1.0.0", &[host])]).await.unwrap();
    run(&mut session, "CREATE SINK s USING PLUGIN hook VERSION '1.0' OPTIONS (url 'https://a.example.com')")
        .await;
    let update = "ALTER PLUGIN hook UPDATE FROM $1";
    let error = bind(&mut session, update, &[&component("1.0.1", &[host, "reveal"])]).await.unwrap_err();
    assert_eq!((error.state().code(), error.detail()), ("42501", Some("reveal")));
    let error = bind(&mut session, update, &[&component("2.0.0", &[host])]).await.unwrap_err();
    assert!(error.to_string().contains("sink \"s\""), "it wants 1.0: {error}");
    let to = "ALTER PLUGIN hook UPDATE TO '1.0.9' FROM $1";
    let error = bind(&mut session, to, &[&component("1.0.1", &[host])]).await.unwrap_err();
    assert_eq!(error.state().code(), "22023", "{error}");
    bind(&mut session, update, &[&component("1.0.1", &[])]).await.unwrap();
    let found = objects(&fixture).await;
    let plugin = found.plugin("default", "hook").unwrap();
    assert_eq!((plugin.facts.version.as_str(), plugin.revision), ("1.0.1", 2));
    let components = "SELECT count(*) FROM sepal_plugins WHERE NOT bundled";
    assert_eq!(run(&mut session, components).await, [1]);
    assert_eq!(refused(&mut session, "DROP PLUGIN hook").await, "2BP01");
    run(&mut session, "DROP PLUGIN hook CASCADE").await;
    let found = objects(&fixture).await;
    assert!(found.plugin("default", "hook").is_none() && found.sink("default", "s").is_none());
    let store = fixture.tenant().await.store.clone();
    let left = crate::delivery::system_tables::SystemTable::Components.rows(&store.snapshot()).unwrap();
    assert_eq!(left.len(), 0, "a component that nobody uses goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn code_comes_from_who_may_use_the_secrets_it_gets() {
    let fixture = fixture(&Arc::default());
    let mut owner = with_sink(&fixture).await;
    let mut other = fixture.session().await;
    let wasm = component("1.0.0", &[]);
    bind(&mut owner, "CREATE PLUGIN mine FROM $1", &[&wasm]).await.unwrap();
    run(
        &mut owner,
        "CREATE SINK m USING PLUGIN mine OPTIONS (url 'https://a.example.com', token SECRET[hook_token])",
    )
    .await;
    let newer = component("1.0.1", &[]);
    for sql in ["ALTER PLUGIN mine UPDATE FROM $1", "CREATE OR REPLACE PLUGIN mine FROM $1"] {
        let error = bind(&mut other, sql, &[&newer]).await.unwrap_err();
        other.fail_transaction();
        assert_eq!(error.state().code(), "42501", "{sql}: {error}");
        assert!(error.to_string().contains("sink \"m\""), "{error}");
    }
    // A new plugin that takes the place of the bundled one, with which the owner's sink `hook` runs.
    let error = bind(&mut other, "CREATE PLUGIN webhook FROM $1", &[&wasm]).await.unwrap_err();
    other.fail_transaction();
    assert_eq!(error.state().code(), "42501", "{error}");
    assert_eq!(objects(&fixture).await.plugin("default", "mine").unwrap().revision, 1);
    run(&mut owner, "GRANT USAGE ON SECRET hook_token TO PUBLIC").await;
    bind(&mut other, "ALTER PLUGIN mine UPDATE FROM $1", &[&newer]).await.unwrap();
    bind(&mut other, "CREATE PLUGIN webhook FROM $1", &[&wasm]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_component_does_not_come_back() {
    let fixture = fixture(&Arc::default());
    let mut session = fixture.session().await;
    bind(&mut session, "CREATE PLUGIN hook FROM $1", &[&component("1.2.0", &["a", "b"])]).await.unwrap();
    for older in ["1.1.9", "1.2.0-rc.1"] {
        let update = "ALTER PLUGIN hook UPDATE FROM $1";
        let error = bind(&mut session, update, &[&component(older, &[])]).await.unwrap_err();
        session.fail_transaction();
        assert_eq!(error.state().code(), "22023", "{older}: {error}");
    }
    let update = "ALTER PLUGIN hook UPDATE FROM $1";
    let other = bind(&mut session, update, &[&named_component("acme/other", "1.3.0")]).await.unwrap_err();
    session.fail_transaction();
    assert_eq!(other.state().code(), "42809", "{other}");
    bind(&mut session, update, &[&component("1.2.0", &["a"])]).await.unwrap();
    bind(&mut session, update, &[&component("1.10.0", &["a"])]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_trusts_first_says_who_else_is_trusted() {
    let fixture = fixture(&Arc::default());
    let (mut first, mut other) = (fixture.session().await, fixture.session().await);
    let key = || SigningKey::generate().verifying_key().to_string();
    bind(&mut first, "CREATE PLUGIN TRUST KEY acme AS $1", &[key().as_bytes()]).await.unwrap();
    let error =
        bind(&mut other, "CREATE PLUGIN TRUST KEY mine AS $1", &[key().as_bytes()]).await.unwrap_err();
    other.fail_transaction();
    assert_eq!(error.state().code(), "42501", "{error}");
    assert_eq!(refused(&mut other, "DROP PLUGIN TRUST KEY acme").await, "42501");
    bind(&mut first, "CREATE PLUGIN TRUST KEY second AS $1", &[key().as_bytes()]).await.unwrap();
    let maker = objects(&fixture).await.trust_key("default", "acme").unwrap().created_by.clone();
    fixture.database.control().revoke_key(&maker).unwrap();
    bind(&mut other, "CREATE PLUGIN TRUST KEY mine AS $1", &[key().as_bytes()]).await.unwrap();
    run(&mut other, "DROP PLUGIN TRUST KEY acme").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_so_many_sinks_and_no_more() {
    let fixture = fixture(&Arc::default());
    let mut session = fixture.session().await;
    let create = |at: usize| format!("CREATE SINK s{at} USING file OPTIONS (path 'a')");
    for at in 0..limits::MAX_SINKS {
        run(&mut session, &create(at)).await;
    }
    assert_eq!(refused(&mut session, &create(limits::MAX_SINKS)).await, "54000");
    run(&mut session, "DROP SINK s0").await;
    run(&mut session, &create(limits::MAX_SINKS)).await;
}
