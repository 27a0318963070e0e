//! What stays and what goes, on a directory with handmade entries.

use std::path::Path;

use sepal_database::{ControlOptions, Key};

use super::*;
use crate::{
    entry::{LogFile, Object, TenantEntry},
    failure::Failure,
    keys::Loaded,
    moment::compact,
    repository::Location,
};

const TENANT: TenantId = TenantId([7; 16]);
const FILE: &str = "08080808080808080808080808080808";
const NOW_DAYS: i64 = 20_000;

fn day_us(day: i64) -> i64 {
    day * 86_400 * SECOND
}

fn object(name: String) -> Object {
    Object { name, bytes: 3, sha256: "00".into() }
}

fn part(number: u64) -> String {
    Part {
        tenant: TENANT,
        line: "aaaaaaaa".into(),
        number,
        file: sepal_database::backup::FileId::parse(FILE).unwrap(),
        from: 0,
        to: 3,
        hash: "0".repeat(32),
    }
    .name()
}

/// A backup of a day, which needs a segment, and the log from a file on.
fn entry(day: i64, segment: &str, log: u64) -> Entry {
    let id = compact(day_us(day));
    Entry {
        version: 1,
        line: "aaaaaaaa".into(),
        started_us: day_us(day),
        finished_us: day_us(day),
        program: "test".into(),
        recovery: format!("recovery-of-{segment}"),
        control: object(names::control(&id)),
        tenants: vec![TenantEntry {
            tenant: TENANT.to_string(),
            keys: format!("keys-of-{segment}"),
            lsn: 1,
            time_us: day_us(day),
            manifests: vec![object(names::manifest(TENANT, "manifest/01.manifest", "0123456789abcdef"))],
            files: vec![object(names::tenant_file(TENANT, &format!("segments/{segment}.parquet")))],
            log: vec![LogFile { number: log, file: FILE.into(), bytes: 3, parts: vec![part(log)] }],
            facts_of: id.clone(),
            facts: String::new(),
        }],
        failed: Vec::new(),
        new_bytes: 0,
        id,
    }
}

/// An instance that has written nothing yet.
fn control(dir: &Path) -> Control {
    let path = dir.join("control.db");
    Control::create(&path, &Key::random(), ControlOptions::default()).unwrap()
}

async fn stored(dir: &Path, entries: &[Entry]) -> Repository {
    let repository = Repository::open(&Location::Directory(dir.to_owned())).unwrap();
    identity::make(&repository).await.unwrap();
    for entry in entries {
        for name in entry.objects() {
            repository.put(name, b"abc".to_vec()).await.unwrap();
        }
        let bytes = format!("{}\n{{\"mac\":\"\"}}\n", serde_json::to_string(entry).unwrap());
        repository.put(&names::entry(&entry.id), bytes.into_bytes()).await.unwrap();
    }
    repository
}

#[test]
fn the_newest_and_the_young_stay() {
    let entries = || (0..5).map(|day| entry(NOW_DAYS - 10 + day, "s", 1)).collect::<Vec<_>>();
    let kept = |keep_last, keep_days| {
        let retention = Retention { keep_last, keep_days, ..Retention::default() };
        split(entries(), &retention, day_us(NOW_DAYS)).0.len()
    };
    assert_eq!(kept(2, 0), 2);
    assert_eq!(kept(0, 0), 1, "one always stays");
    assert_eq!(kept(1, 8), 3);
    assert_eq!(kept(9, 0), 5);
}

#[tokio::test]
async fn what_a_kept_backup_needs_stays() {
    let dir = tempfile::tempdir().unwrap();
    let entries = [entry(1, "old", 1), entry(2, "shared", 2), entry(3, "shared", 3)];
    let repository = stored(dir.path(), &entries).await;
    // Archived after the last backup, and stored by one that is under way.
    repository.put(&part(4), b"abc".to_vec()).await.unwrap();
    let unfinished = names::tenant_file(TENANT, "segments/unfinished.parquet");
    repository.put(&unfinished, b"abc".to_vec()).await.unwrap();
    let retention = Retention { keep_last: 2, keep_days: 0, ..Retention::default() };
    let dry = Retention { dry_run: true, ..retention };
    let planned = prune(&repository, &dry, &Watch::default()).await.unwrap();
    let pruned = prune(&repository, &retention, &Watch::default()).await.unwrap();
    assert_eq!((planned.objects, &planned.removed), (pruned.objects, &pruned.removed));
    assert_eq!(pruned.removed, [entries[0].id.clone()]);
    assert_eq!(pruned.objects, 3, "its segment, its log file, its control.db");
    let left: HashSet<String> =
        repository.list("").await.unwrap().into_iter().map(|object| object.name).collect();
    for entry in &entries[1..] {
        entry.objects().for_each(|name| assert!(left.contains(name), "{name} is needed"));
    }
    assert!(left.contains(&part(4)) && left.contains(&unfinished));
    assert!(!left.contains(&part(1)) && !left.contains(&names::entry(&entries[0].id)));
    assert!(repository.list(names::LOCKS).await.unwrap().is_empty());
}

/// Who can write to the repository adds an entry: it pushes none out, and what it names stays.
#[tokio::test]
async fn a_server_prunes_what_it_wrote_itself() {
    let dir = tempfile::tempdir().unwrap();
    let control = control(dir.path());
    let entries = [entry(1, "first", 1), entry(2, "second", 2), entry(NOW_DAYS, "strange", 3)];
    let repository = stored(&dir.path().join("repository"), &entries).await;
    for own in &entries[..2] {
        repository.put(&names::entry(&own.id), own.encode(&control).unwrap()).await.unwrap();
    }
    let believed = entry::own(&repository, &control).await.unwrap();
    assert_eq!(believed, entries[..2]);
    let retention = Retention { keep_last: 1, keep_days: 0, ..Retention::default() };
    let pruned = prune_own(&repository, &control, &retention, &Watch::default()).await.unwrap();
    assert_eq!(pruned.kept, [entries[1].id.clone()]);
    assert_eq!(pruned.removed, [entries[0].id.clone()]);
    let left: HashSet<String> =
        repository.list("").await.unwrap().into_iter().map(|object| object.name).collect();
    for entry in &entries[1..] {
        entry.objects().for_each(|name| assert!(left.contains(name), "{name} is needed"));
    }
    // An entry that does not open at all may be one of ours: nothing goes then.
    repository.put(&names::entry("damaged"), b"{".to_vec()).await.unwrap();
    prune_own(&repository, &control, &retention, &Watch::default()).await.unwrap_err();
    assert_eq!(entry::own(&repository, &control).await.unwrap(), entries[1..2]);
}

#[tokio::test]
async fn a_prune_and_a_backup_keep_apart() {
    let dir = tempfile::tempdir().unwrap();
    let repository = stored(dir.path(), &[entry(1, "s", 1)]).await;
    let backup = Lock::take(&repository, Job::Backup).await.unwrap();
    let error = prune(&repository, &Retention::default(), &Watch::default()).await.unwrap_err();
    assert_eq!(error.state(), sepal_database::SqlState::ObjectInUse);
    let second = Lock::take(&repository, Job::Backup).await.unwrap();
    second.hold(async { Ok(()) }).await.unwrap();
    backup.hold(async { Ok(()) }).await.unwrap();
    prune(&repository, &Retention::default(), &Watch::default()).await.unwrap();
}

/// What `load` finds, without the sets that came later.
async fn loaded(repository: &Repository, control: &Control, set: &str) -> Loaded {
    match keys::load(repository, control, TENANT, set, None).await.unwrap() {
        Loaded::Keys(sealed, later) if later.is_empty() => Loaded::Keys(sealed, later),
        Loaded::Keys(..) => panic!("no line was named"),
        gone => gone,
    }
}

fn only(sealed: &[u8]) -> Loaded {
    Loaded::Keys(sealed.to_vec(), Vec::new())
}

#[tokio::test]
async fn sets_of_keys_go_with_the_last_backup_that_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, control) = (stored(&dir.path().join("repository"), &[]).await, control(dir.path()));
    let store = async |tag: &'static str, sealed: &'static [u8]| {
        keys::store(&repository, &control, (TENANT, "aaaaaaaa"), tag, sealed).await.unwrap()
    };
    let first = store("epoch 1", b"sealed once").await;
    let again = store("epoch 1", b"sealed twice").await;
    assert_eq!(first, again, "the same keys are one set, however they are sealed");
    let second = store("epoch 2", b"other keys").await;
    assert_eq!(loaded(&repository, &control, &first).await, only(b"sealed once"));
    assert!(keys::keep(&repository, TENANT, std::slice::from_ref(&second)).await.unwrap());
    keys::load(&repository, &control, TENANT, &first, None).await.unwrap_err();
    assert_eq!(loaded(&repository, &control, &second).await, only(b"other keys"));
    assert!(keys::keep(&repository, TENANT, &[]).await.unwrap());
    assert_eq!(loaded(&repository, &control, &second).await, Loaded::Missing);
}

/// A drop can be told from a loss, and what was read before it is not written after it.
#[tokio::test]
async fn a_tombstone_stands_until_no_backup_names_the_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, control) = (stored(&dir.path().join("repository"), &[]).await, control(dir.path()));
    let store = async || keys::store(&repository, &control, (TENANT, "aaaaaaaa"), "epoch 1", b"keys").await;
    let set = store().await.unwrap();
    keys::destroy(&repository, &control, TENANT).await.unwrap();
    assert_eq!(loaded(&repository, &control, &set).await, Loaded::Dropped);
    let name = names::tenant_keys(TENANT);
    let tombstone = repository.get(&name, 1 << 20).await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&tombstone).contains(&set), "nothing is left of the keys");
    keys::destroy(&repository, &control, TENANT).await.unwrap();
    assert_eq!(repository.get(&name, 1 << 20).await.unwrap().unwrap(), tombstone, "once is enough");

    assert!(matches!(store().await.unwrap_err(), Failure::Tenant(_)));
    assert!(!keys::lacks(&repository, TENANT, "epoch 2").await.unwrap());
    assert!(!keys::keep(&repository, TENANT, std::slice::from_ref(&set)).await.unwrap());
    assert_eq!(loaded(&repository, &control, &set).await, Loaded::Dropped);

    // Who can write to the repository declares nobody dropped: not with a tombstone of another tenant, or of his own.
    let strange = String::from_utf8(tombstone.clone()).unwrap().replace("dropped_us\":1", "dropped_us\":2");
    repository.put(&name, strange.into_bytes()).await.unwrap();
    let error = keys::load(&repository, &control, TENANT, &set, None).await.unwrap_err();
    assert!(error.message().contains("it was changed"), "{error}");
    let other = TenantId([8; 16]);
    repository.put(&names::tenant_keys(other), tombstone).await.unwrap();
    let error = keys::load(&repository, &control, other, &set, None).await.unwrap_err();
    assert!(error.message().contains("it is of tenant"), "{error}");

    // A prune without a backup of the tenant takes it away.
    assert!(keys::keep(&repository, TENANT, &[]).await.unwrap());
    assert_eq!(loaded(&repository, &control, &set).await, Loaded::Missing);
}

/// As a drop leaves it in format 1, and as keys were written then.
#[tokio::test]
async fn keys_of_format_1_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, control) = (stored(&dir.path().join("repository"), &[]).await, control(dir.path()));
    let golden = concat!(
        r#"{"version":1,"sets":[{"id":"48a53f0774c8ceff","tag":"1122334455667788","line":"aaaaaaaa","#,
        r#""sealed":"a2V5cw=="}]}"#
    );
    repository.put(&names::tenant_keys(TENANT), golden.into()).await.unwrap();
    assert_eq!(loaded(&repository, &control, "48a53f0774c8ceff").await, only(b"keys"));
    let again = keys::store(&repository, &control, (TENANT, "aaaaaaaa"), "1122334455667788", b"x").await;
    assert_eq!(again.unwrap(), "48a53f0774c8ceff");
}

/// Keys that came after the last backup are those of the log since.
#[tokio::test]
async fn keys_of_the_log_stay_with_the_backup_that_it_goes_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, control) = (stored(&dir.path().join("repository"), &[]).await, control(dir.path()));
    assert!(!keys::lacks(&repository, TENANT, "epoch 1").await.unwrap(), "no backup has any");
    let mut sets = Vec::new();
    for (line, tag) in [("aaaaaaaa", "1"), ("aaaaaaaa", "2"), ("bbbbbbbb", "3"), ("aaaaaaaa", "4")] {
        let set = keys::store(&repository, &control, (TENANT, line), tag, tag.as_bytes()).await;
        sets.push(set.unwrap());
    }
    assert!(keys::lacks(&repository, TENANT, "5").await.unwrap());
    assert!(!keys::lacks(&repository, TENANT, "4").await.unwrap());
    assert!(keys::keep(&repository, TENANT, &sets[1..2]).await.unwrap());
    keys::load(&repository, &control, TENANT, &sets[0], None).await.unwrap_err();
    let later =
        async |line: Option<&'static str>| match keys::load(&repository, &control, TENANT, &sets[1], line)
            .await
            .unwrap()
        {
            Loaded::Keys(_, later) => later,
            gone => panic!("{gone:?}"),
        };
    assert_eq!(later(Some("aaaaaaaa")).await, [b"4".to_vec()]);
    assert_eq!(later(Some("bbbbbbbb")).await, [b"3".to_vec()]);
    assert!(later(None).await.is_empty());
    // Two backups, and a key that came and went between them: the log from the first to the second is under it.
    let last = keys::store(&repository, &control, (TENANT, "aaaaaaaa"), "5", b"5").await.unwrap();
    let named = [sets[1].clone(), last];
    assert!(!keys::keep(&repository, TENANT, &named).await.unwrap(), "nothing is too much");
    assert_eq!(later(Some("aaaaaaaa")).await, [b"4".to_vec(), b"5".to_vec()]);
}

#[tokio::test]
async fn what_the_archived_log_names_stays_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let entries = [entry(1, "old", 1), entry(2, "new", 2)];
    let repository = stored(dir.path(), &entries).await;
    let mark = |number, segment: &str| Mark {
        tenant: TENANT,
        line: "aaaaaaaa".into(),
        number,
        object: Object { sha256: "0".repeat(64), ..object(names::tenant_file(TENANT, segment)) },
    };
    let (early, late) = (mark(1, "segments/early.parquet"), mark(2, "segments/late.parquet"));
    for mark in [&early, &late] {
        repository.put(&mark.object.name, b"abc".to_vec()).await.unwrap();
        repository.put(&mark.name().unwrap(), b"{}".to_vec()).await.unwrap();
    }
    let retention = Retention { keep_last: 1, keep_days: 0, grace_seconds: -10, dry_run: false };
    prune(&repository, &retention, &Watch::default()).await.unwrap();
    let listed = repository.list(names::TENANTS).await.unwrap();
    let there = |name: &str| listed.iter().any(|object| object.name == name);
    assert!(there(&late.object.name) && there(&late.name().unwrap()));
    assert!(!there(&early.object.name) && !there(&early.name().unwrap()));
}
