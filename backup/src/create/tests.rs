//! Keys that are replaced while a backup is made, step by step.

use std::{path::PathBuf, time::Duration};

use sepal_database::{
    Database, DatabaseOptions, Key, KeyFiles, NewSecret, Scope, SecretName, SecretOrigin, TenantName,
    root_key,
};
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::{
    repository::Location,
    restore::{Opener, RestoreOptions, Restored, Target, restore},
    verify::{VerifyOptions, verify},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Tenants with a secret each, and a repository.
struct Scene {
    place: TempDir,
    root: Key,
    database: Arc<Database>,
    source: Source,
    repository: Repository,
    pace: Pace,
    watch: Watch,
}

impl Scene {
    async fn new(tenants: &[&str]) -> Self {
        let (place, root) = (tempfile::tempdir().unwrap(), Key::random());
        let data = place.path().join("data");
        std::fs::create_dir(&data).unwrap();
        Database::init(&data, root.clone()).unwrap();
        let database = Database::open(DatabaseOptions::new(data, root.clone(), 64 << 20)).unwrap();
        let control = database.control();
        control.create_recovery(None, false).unwrap();
        for name in tenants {
            let tenant = control.create_tenant(&TenantName::parse(name).unwrap()).unwrap().id;
            let secret = NewSecret {
                name: &SecretName::parse("DB").unwrap(),
                owner: "operator",
                origin: SecretOrigin::Stored,
                value: Some(b"hunter2"),
                allowed_hosts: None,
                refresh_seconds: None,
                max_stale_seconds: None,
            };
            control.create_secret(&Scope { tenant, environment: "default" }, secret).unwrap();
        }
        let source = Source::new(Arc::clone(&database));
        let repository = Repository::open(&Location::Directory(place.path().join("repository"))).unwrap();
        identity::settle(&repository, &source, false).await.unwrap();
        Self { place, root, database, source, repository, pace: Pace::default(), watch: Watch::default() }
    }

    fn id(&self, tenant: &str) -> TenantId {
        self.database.control().tenant_by_name(tenant).unwrap().unwrap().id
    }

    async fn begin(&self) -> Run<'_> {
        let (pace, watch) = (&self.pace, &self.watch);
        Run::begin(&self.source, &self.repository, &CreateOptions::default(), (pace, watch)).await.unwrap()
    }

    fn opener(&self) -> Opener {
        Opener::Root(self.root.clone())
    }

    async fn restored(&self, target: Target) -> Restored {
        let to = tempfile::tempdir_in(self.place.path()).unwrap();
        let options = RestoreOptions { target, tenant: None, wrappers: Arc::new(KeyFiles) };
        let (pace, watch) = (&self.pace, &self.watch);
        restore(&self.repository, &self.opener(), to.path(), &options, (pace, watch)).await.unwrap()
    }

    /// That a backup is good, and brings everybody back.
    async fn check(&self, made: &Entry) {
        assert!(made.failed.is_empty(), "{:?}", made.failed);
        for target in [Target::Backup(made.id.clone()), Target::Latest] {
            let restored = self.restored(target).await;
            assert!(restored.failed.is_empty() && restored.dropped.is_empty(), "{restored:?}");
            assert_eq!(restored.tenants.len(), made.tenants.len());
        }
        let options = VerifyOptions {
            target: Target::Backup(made.id.clone()),
            tenant: None,
            work: self.place.path().to_owned(),
            wrappers: Arc::new(KeyFiles),
        };
        let watched = (&self.pace, &self.watch);
        let report = verify(&self.repository, &self.opener(), &options, watched).await.unwrap();
        assert!(report.is_good(), "{report:?}");
    }

    /// Waits until nothing is under older keys, and there are so many.
    async fn rewrapped(&self, tenant: &str, keys: usize) {
        let begun = Instant::now();
        loop {
            let now = self.database.tenant_key_progress(tenant).await.unwrap();
            if now.under_older == Some(0) && now.keys.len() == keys {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "it stays {now:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A run that was killed leaves a copy of control.db, which no rotation of the root key would reach.
#[tokio::test(flavor = "multi_thread")]
async fn copies_of_control_that_killed_runs_left_go() {
    let scene = Scene::new(&["acme"]).await;
    let folder = identity::folder(scene.source.data_dir());
    let left: Vec<PathBuf> =
        ["control-copy-x", ".tmpAbCdEf", "destroy"].iter().map(|name| folder.join(name)).collect();
    for place in &left {
        std::fs::create_dir_all(place).unwrap();
        std::fs::write(place.join("control.db"), b"a copy").unwrap();
    }
    let mut run = scene.begin().await;
    let copied = run.copy_control().await.unwrap();
    run.finish(copied).await.unwrap();
    let there: Vec<bool> = left.iter().map(|place| place.exists()).collect();
    assert_eq!(there, [false, false, true], "what is not a copy stays");
}

/// One damaged entry hides neither the moments before it nor the other backups.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_entry_is_in_the_way_of_nothing_older() {
    let scene = Scene::new(&["acme"]).await;
    let mut run = scene.begin().await;
    let copied = run.copy_control().await.unwrap();
    let made = run.finish(copied).await.unwrap();
    let later = "29990101T000000Z-00000000";
    scene.repository.put(&names::entry(later), b"{".to_vec()).await.unwrap();
    let restored = scene.restored(Target::Moment(now_us())).await;
    assert_eq!((restored.backup.as_str(), restored.tenants.len()), (made.id.as_str(), 1));
    let listed = crate::list(&scene.repository).await.unwrap();
    let told: Vec<_> = listed.iter().map(|backup| (backup.id.as_str(), backup.damaged.is_some())).collect();
    assert_eq!(told, [(made.id.as_str(), false), (later, true)]);
    // The newest is what was asked for.
    let to = tempfile::tempdir_in(scene.place.path()).unwrap();
    let options = RestoreOptions { target: Target::Latest, tenant: None, wrappers: Arc::new(KeyFiles) };
    let watched = (&scene.pace, &scene.watch);
    let refused = restore(&scene.repository, &scene.opener(), to.path(), &options, watched).await;
    assert_eq!(refused.unwrap_err().state(), SqlState::DataCorrupted);
}

/// control.db is copied under one key, and everything else is under the next when the tenant's turn comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_replaced_after_the_copy_of_control_is_no_loss() {
    let scene = Scene::new(&["acme"]).await;
    let mut run = scene.begin().await;
    let copied = run.copy_control().await.unwrap();
    scene.database.rotate_tenant_key("acme").await.unwrap();
    // The older one would be destroyed now.
    scene.rewrapped("acme", 2).await;
    let made = run.finish(copied).await.unwrap();
    scene.check(&made).await;
    scene.rewrapped("acme", 1).await;
}

/// Between the reading of the keys and the sealing of what is noted of the tenant.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_replaced_while_a_tenant_is_copied_is_no_loss() {
    let scene = Scene::new(&["acme"]).await;
    // So slow that the log is being copied still.
    let slow = Pace::new(Some(100));
    let mut run = scene.begin().await;
    let copied = run.copy_control().await.unwrap();
    run.pace = &slow;
    let acme = scene.id("acme");
    let copying: PathBuf = scene.place.path().join(format!("repository/tenants/{acme}/manifest"));
    let rotate = async {
        let begun = Instant::now();
        while !copying.exists() {
            assert!(begun.elapsed() < PATIENCE, "no manifest is copied");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        scene.database.control().rotate_tenant_key(acme).unwrap()
    };
    let (made, epoch) = tokio::join!(run.finish(copied), rotate);
    assert_eq!(epoch, 2);
    scene.check(&made.unwrap()).await;
}

/// The copy of control.db cannot say who opens the keys: the tenant is left out aloud, and the next backup has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_comes_after_the_copy_of_control_is_told() {
    let scene = Scene::new(&["acme", "rival"]).await;
    let path = scene.place.path().join("acme.key");
    root_key::create(&path).unwrap();
    let mut run = scene.begin().await;
    let copied = run.copy_control().await.unwrap();
    let provider = Provider::KeyFile { path };
    scene.database.set_tenant_provider("acme", provider).await.unwrap();
    let made = run.finish(copied).await.unwrap();
    let failed: Vec<_> = made.failed.iter().map(|failed| (failed.tenant.clone(), failed.again)).collect();
    assert_eq!(failed, [(scene.id("acme").to_string(), true)]);
    let restored = scene.restored(Target::Backup(made.id)).await;
    assert_eq!(restored.tenants.len(), 1, "{restored:?}");
    assert_eq!((restored.tenants[0].name.as_str(), restored.failed[0].name.as_str()), ("rival", "acme"));

    let mut next = scene.begin().await;
    let copied = next.copy_control().await.unwrap();
    scene.check(&next.finish(copied).await.unwrap()).await;
}
