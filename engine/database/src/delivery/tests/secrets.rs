//! Who may use which secret, where its value may stand, and how a resolver's answers are kept.

use std::sync::Arc;

use sepal_control::{EnvironmentName, Scope, Scopes, SecretChange};
use tokio::sync::Barrier;

use super::{Fake, bind, fixture, objects, refusal, with_sink};
use crate::{
    connector::{FaultKind, Secrets, Setting},
    delivery::secrets::SecretService,
    fixtures::{refused, run},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_in_the_text_is_warned_of() {
    let fixture = fixture(&Arc::default());
    let mut session = fixture.session().await;
    assert_eq!(bind(&mut session, "CREATE SECRET a AS $1", &[b"bound"]).await.unwrap(), "CREATE SECRET");
    assert!(session.take_notices().is_empty());
    run(&mut session, "CREATE SECRET b AS 'Hunter2!'").await;
    let notices = session.take_notices();
    assert_eq!(notices.len(), 1);
    assert_eq!((notices[0].severity, notices[0].error.state().code()), ("WARNING", "01000"));
    assert!(!notices[0].error.to_string().contains("Hunter2"), "{}", notices[0].error);
    assert_eq!(refused(&mut session, "CREATE SECRET a AS 'again'").await, "42710");
    run(&mut session, "CREATE SECRET IF NOT EXISTS a AS 'again'").await;
    assert_eq!(refused(&mut session, "CREATE SECRET \"my.key\" AS 'x'").await, "42602");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rolled_back_is_not_in_a_block() {
    let fixture = fixture(&Arc::default());
    let mut session = fixture.session().await;
    run(&mut session, "CREATE SECRET a AS 'x'").await;
    for sql in [
        "CREATE SECRET b AS 'x'",
        "ALTER SECRET a AS 'y'",
        "DROP SECRET a",
        "GRANT USAGE ON SECRET a TO PUBLIC",
    ] {
        run(&mut session, "BEGIN").await;
        assert_eq!(refused(&mut session, sql).await, "25001", "{sql}");
        run(&mut session, "ROLLBACK").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_their_owners_until_granted() {
    let fixture = fixture(&Arc::default());
    let mut owner = with_sink(&fixture).await;
    let mut other = fixture.session().await;
    let create =
        "CREATE SINK mine USING PLUGIN webhook OPTIONS (url 'https://b.test', token SECRET[hook_token])";
    assert_eq!(refused(&mut other, create).await, "42501");
    for sql in [
        "ALTER SECRET hook_token AS 'x'",
        "DROP SECRET hook_token",
        "GRANT USAGE ON SECRET hook_token TO PUBLIC",
    ] {
        assert_eq!(refused(&mut other, sql).await, "42501", "{sql}");
    }
    run(&mut owner, "GRANT USAGE ON SECRET hook_token TO PUBLIC").await;
    run(&mut other, create).await;
    // A grant taken back ends what runs.
    let tenant = fixture.tenant().await;
    let found = objects(&fixture).await;
    let sink = found.sink("default", "mine").unwrap();
    let service = SecretService::of_sink(&tenant.delivery, &tenant.store, sink, "test");
    assert_eq!(**service.secret("hook_token", None).await.unwrap().value, b"s3cret".to_vec());
    run(&mut owner, "ALTER SECRET hook_token AS 'rotated'").await;
    assert_eq!(**service.secret("hook_token", None).await.unwrap().value, b"rotated".to_vec());
    run(&mut owner, "REVOKE USAGE ON SECRET hook_token FROM PUBLIC").await;
    assert_eq!(service.secret("hook_token", None).await.unwrap_err().kind, FaultKind::Unauthorized);
    assert_eq!(service.secret("none", None).await.unwrap_err().kind, FaultKind::Misconfigured);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_use_stays_and_uses_are_recorded() {
    let fake: Arc<Fake> = Arc::default();
    let fixture = fixture(&fake);
    let mut session = with_sink(&fixture).await;
    assert_eq!(*fake.shown.lock(), ["s3cret"], "the sink was tried out with its secret");
    let refusal = refusal(&mut session, "DROP SECRET hook_token").await;
    assert!(refusal.contains("2BP01") && refusal.contains("sink hook"), "{refusal}");
    let used = "SELECT count(*) FROM sepal_secret_usage WHERE name = 'hook_token' AND used_by = 'sink hook'";
    assert_eq!(run(&mut session, used).await, [1]);
    run(&mut session, "DROP SINK hook; DROP SECRET hook_token").await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM sepal_secrets").await, [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_do_not_share() {
    let fixture = fixture(&Arc::default());
    drop(with_sink(&fixture).await);
    let control = fixture.database.control();
    control.create_environment(fixture.tenant_id(), &EnvironmentName::parse("staging").unwrap()).unwrap();
    let principal = fixture.principal(Scopes::READ_WRITE);
    let mut staging = fixture.database.connect(principal, "staging", &[]).await.unwrap();
    let create =
        "CREATE SINK hook USING PLUGIN webhook OPTIONS (url 'https://b.test', token SECRET[hook_token])";
    assert_eq!(refused(&mut staging, create).await, "42704", "no secret of another environment");
    assert_eq!(refused(&mut staging, "VALIDATE SINK hook").await, "42704", "no sink of another environment");
    assert_eq!(run(&mut staging, "SELECT count(*) FROM sepal_sinks").await, [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolver_is_asked_once_and_again_when_told_to_forget() {
    let fake: Arc<Fake> = Arc::default();
    fake.vault.lock().insert("kv/hook".to_owned(), "from the vault".to_owned());
    let fixture = fixture(&fake);
    let mut session = with_sink(&fixture).await;
    run(
        &mut session,
        "CREATE SECRET boot AS 'b';
         CREATE SECRET RESOLVER v USING PLUGIN vault OPTIONS (addr 'https://v.example.com:8200', token SECRET[boot]);
         CREATE SECRET far FROM v (path 'kv/hook');
         CREATE SECRET gone FROM v (path 'kv/none');
         CREATE SINK far USING PLUGIN webhook OPTIONS (url 'https://a.example.com', token SECRET[far])",
    )
    .await;
    assert_eq!(fake.shown.lock().last().unwrap(), "from the vault");
    let (tenant, found) = (fixture.tenant().await, objects(&fixture).await);
    let sink = found.sink("default", "far").unwrap();
    assert_eq!(sink.options["token"], Setting::Secret("far".to_owned(), None));
    let service = SecretService::of_sink(&tenant.delivery, &tenant.store, sink, "test");
    let first = service.secret("far", None).await.unwrap();
    assert_eq!(*fake.asked.lock(), 1, "kept since the sink was tried out");
    fake.vault.lock().insert("kv/hook".to_owned(), "rotated".to_owned());
    service.forget("far");
    let second = service.secret("far", None).await.unwrap();
    assert_eq!((**second.value).as_slice(), b"rotated");
    assert_ne!(first.version, second.version, "the version tells values apart");
    assert_eq!(service.secret("gone", None).await.unwrap_err().kind, FaultKind::Transient);
    // What a resolver keeps cannot open a resolver.
    let loops = "CREATE SECRET RESOLVER w USING PLUGIN vault OPTIONS (token SECRET[far])";
    assert_eq!(refused(&mut session, loops).await, "22023");
    assert_eq!(refused(&mut session, "DROP SECRET RESOLVER v").await, "2BP01");
    assert_eq!(refused(&mut session, "DROP SECRET boot").await, "2BP01");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_kept_goes_only_where_its_secret_may_go_now() {
    let fake: Arc<Fake> = Arc::default();
    fake.vault.lock().insert("kv/hook".to_owned(), "from the vault".to_owned());
    let fixture = fixture(&fake);
    let mut session = with_sink(&fixture).await;
    run(
        &mut session,
        "CREATE SECRET RESOLVER v USING PLUGIN vault OPTIONS (addr 'https://v.example.com:8200');
         CREATE SECRET far FROM v (path 'kv/hook');
         CREATE SINK far USING PLUGIN webhook OPTIONS (url 'https://a.example.com', token SECRET[far])",
    )
    .await;
    let (tenant, found) = (fixture.tenant().await, objects(&fixture).await);
    let sink = found.sink("default", "far").unwrap();
    let service = SecretService::of_sink(&tenant.delivery, &tenant.store, sink, "test");
    assert_eq!(service.secret("far", None).await.unwrap().allowed_hosts, None);
    // Nobody tells the cache of it: as if the answer had been on its way while a statement changed the hosts.
    let scope = Scope { tenant: fixture.tenant_id(), environment: "default" };
    let hosts = vec!["a.example.com".to_owned()];
    let change = SecretChange { allowed_hosts: Some(Some(hosts.clone())), ..SecretChange::default() };
    fixture.database.control().set_secret(&scope, "far", change).unwrap();
    assert_eq!(service.secret("far", None).await.unwrap().allowed_hosts, Some(hosts));
    assert_eq!(*fake.asked.lock(), 1, "the value is the one that was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_kept_goes_with_its_resolvers_right_to_ask() {
    let fake: Arc<Fake> = Arc::default();
    fake.vault.lock().insert("kv/hook".to_owned(), "from the vault".to_owned());
    let fixture = fixture(&fake);
    let (mut owner, mut reader, mut sender) =
        (fixture.session().await, fixture.session().await, fixture.session().await);
    run(&mut owner, "CREATE SECRET boot AS 'b'; GRANT USAGE ON SECRET boot TO PUBLIC").await;
    run(
        &mut reader,
        "CREATE SECRET RESOLVER v USING PLUGIN vault OPTIONS (addr 'https://v.example.com:8200', token SECRET[boot]);
         CREATE SECRET far FROM v (path 'kv/hook') WITH (max_stale = '1h');
         GRANT USAGE ON SECRET far TO PUBLIC",
    )
    .await;
    run(
        &mut sender,
        "CREATE SINK far USING PLUGIN webhook OPTIONS (url 'https://a.example.com', token SECRET[far])",
    )
    .await;
    let (tenant, found) = (fixture.tenant().await, objects(&fixture).await);
    let sink = found.sink("default", "far").unwrap();
    let resolver = found.resolver("default", "v").unwrap();
    assert_ne!(sink.created_by, resolver.created_by);
    let service = SecretService::of_sink(&tenant.delivery, &tenant.store, sink, "test");
    service.secret("far", None).await.unwrap();
    assert_eq!(*fake.asked.lock(), 1, "kept since the sink was tried out");
    run(&mut owner, "REVOKE USAGE ON SECRET boot FROM PUBLIC").await;
    // Neither as it was, nor because its resolver fails.
    for _ in 0..2 {
        let fault = service.secret("far", None).await.unwrap_err();
        assert!(fault.message.contains("resolver v may not use secret \"boot\""), "{fault}");
    }
    run(&mut owner, "GRANT USAGE ON SECRET boot TO PUBLIC").await;
    assert_eq!((**service.secret("far", None).await.unwrap().value).as_slice(), b"from the vault");
    fixture.database.control().revoke_key(&resolver.created_by).unwrap();
    let fault = service.secret("far", None).await.unwrap_err().message;
    assert!(fault.contains("resolver v may not use secret \"boot\"") && fault.contains("revoked"), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_on_its_way_goes_with_its_resolvers_right_to_ask() {
    let fake: Arc<Fake> = Arc::default();
    fake.vault.lock().insert("kv/hook".to_owned(), "from the vault".to_owned());
    let fixture = fixture(&fake);
    let mut session = with_sink(&fixture).await;
    run(
        &mut session,
        "CREATE SECRET boot AS 'b';
         CREATE SECRET RESOLVER v USING PLUGIN vault OPTIONS (addr 'https://v.example.com:8200', token SECRET[boot]);
         CREATE SECRET far FROM v (path 'kv/hook');
         GRANT USAGE ON SECRET far TO PUBLIC",
    )
    .await;
    let mut sender = fixture.session().await;
    let sink =
        "CREATE SINK far USING PLUGIN webhook OPTIONS (url 'https://a.example.com', token SECRET[far])";
    run(&mut sender, sink).await;
    let (tenant, found) = (fixture.tenant().await, objects(&fixture).await);
    let (sink, resolver) = (found.sink("default", "far").unwrap(), found.resolver("default", "v").unwrap());
    assert_ne!(sink.created_by, resolver.created_by);
    let service = SecretService::of_sink(&tenant.delivery, &tenant.store, sink, "test");
    service.forget("far");
    let barrier = Arc::new(Barrier::new(2));
    *fake.on_the_way.lock() = Some(Arc::clone(&barrier));
    let asking = tokio::spawn(async move { service.secret("far", None).await });
    barrier.wait().await;
    fixture.database.control().revoke_key(&resolver.created_by).unwrap();
    barrier.wait().await;
    let fault = asking.await.unwrap().unwrap_err();
    assert!(fault.message.contains("resolver v may not use secret \"boot\""), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_through_anothers_resolver() {
    let fixture = fixture(&Arc::default());
    let mut owner = fixture.session().await;
    run(
        &mut owner,
        "CREATE SECRET boot AS 'b';
         CREATE SECRET RESOLVER v USING PLUGIN vault OPTIONS (addr 'https://v.example.com:8200', token SECRET[boot])",
    )
    .await;
    let mut other = fixture.session().await;
    let create = "CREATE SECRET far FROM v (path 'kv/of/the/owner')";
    let refusal = refusal(&mut other, create).await;
    assert!(refusal.contains("42501") && refusal.contains("resolver \"v\""), "{refusal}");
    run(&mut other, "CREATE SECRET far AS 'own'").await;
    assert_eq!(refused(&mut other, "ALTER SECRET far FROM v (path 'kv')").await, "42501");
    run(&mut owner, "GRANT USAGE ON SECRET boot TO PUBLIC").await;
    run(&mut other, "ALTER SECRET far FROM v (path 'kv')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_gets_no_secret_once_its_key_is_revoked() {
    let fixture = fixture(&Arc::default());
    let mut owner = with_sink(&fixture).await;
    run(&mut owner, "GRANT USAGE ON SECRET hook_token TO PUBLIC").await;
    let (tenant, found) = (fixture.tenant().await, objects(&fixture).await);
    let sink = found.sink("default", "hook").unwrap();
    let service = SecretService::of_sink(&tenant.delivery, &tenant.store, sink, "test");
    service.secret("hook_token", None).await.unwrap();
    fixture.database.control().revoke_key(&sink.created_by).unwrap();
    let fault = service.secret("hook_token", None).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unauthorized);
    assert!(fault.message.contains("revoked") && fault.message.contains("ALTER SINK"), "{fault}");
    // Another key takes it over.
    let mut other = fixture.session().await;
    run(&mut other, "ALTER SINK hook ALLOW HOSTS ('https://a.example.com')").await;
    let found = objects(&fixture).await;
    let sink = found.sink("default", "hook").unwrap();
    let service = SecretService::of_sink(&tenant.delivery, &tenant.store, sink, "test");
    service.secret("hook_token", None).await.unwrap();
}
