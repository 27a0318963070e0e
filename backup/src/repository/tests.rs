//! A directory as a repository: objects appear whole, and what an interrupted upload leaves is no object.

use std::path::PathBuf;

use super::*;

/// No object of these tests is longer.
const MOST: u64 = 1 << 30;

fn repository(path: &Path) -> Repository {
    Repository::open(&Location::Directory(path.to_owned())).unwrap()
}

async fn names(repository: &Repository, folder: &str) -> Vec<String> {
    let mut names: Vec<String> =
        repository.list(folder).await.unwrap().into_iter().map(|object| object.name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn objects_come_back_as_they_were_stored() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository(&dir.path().join("new").join("place"));
    assert_eq!(repository.get("a/b", MOST).await.unwrap(), None);
    assert!(names(&repository, "").await.is_empty(), "a place that is not there yet is empty");
    repository.put("a/b", b"first".to_vec()).await.unwrap();
    let content = repository.put("a/b", b"second".to_vec()).await.unwrap();
    assert_eq!((content.bytes, content.sha256.len()), (6, 64));
    repository.put("a/c/d", Vec::new()).await.unwrap();
    repository.put("other", b"x".to_vec()).await.unwrap();
    assert_eq!(repository.get("a/b", MOST).await.unwrap().unwrap(), b"second");
    assert_eq!(repository.get("a/c/d", MOST).await.unwrap().unwrap(), b"");
    assert_eq!(names(&repository, "a").await, ["a/b", "a/c/d"]);
    assert_eq!(names(&repository, "").await, ["a/b", "a/c/d", "other"]);
    repository.remove("a/b").await.unwrap();
    repository.remove("a/b").await.unwrap();
    assert_eq!(repository.get("a/b", MOST).await.unwrap(), None);
}

#[tokio::test]
async fn a_file_goes_up_from_one_byte_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository(&dir.path().join("repository"));
    let source: PathBuf = dir.path().join("source");
    let bytes: Vec<u8> = (0..CHUNK_BYTES * 2 + 77).map(|at| (at % 251) as u8).collect();
    std::fs::write(&source, &bytes).unwrap();
    let pace = Pace::default();
    let range = (5, bytes.len() as u64 - 3);
    let stored = repository.put_file("big", &source, range, &pace).await.unwrap();
    assert_eq!(repository.get("big", MOST).await.unwrap().unwrap(), bytes[5..bytes.len() - 3]);
    let mut back = tokio::fs::File::create(dir.path().join("back")).await.unwrap();
    assert_eq!(repository.fetch("big", &mut back, bytes.len() as u64, &pace).await.unwrap(), stored);
    assert_eq!(std::fs::read(dir.path().join("back")).unwrap(), bytes[5..bytes.len() - 3]);
    let beyond = (0, bytes.len() as u64 + 1);
    repository.put_file("short", &source, beyond, &pace).await.unwrap_err();
    assert_eq!(names(&repository, "").await, ["big"], "what could not be read whole is no object");
}

#[tokio::test]
async fn what_is_longer_than_it_may_be_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository(&dir.path().join("repository"));
    repository.put("a", b"12345".to_vec()).await.unwrap();
    assert_eq!(repository.get("a", 5).await.unwrap().unwrap(), b"12345");
    let error = repository.get("a", 4).await.unwrap_err();
    assert_eq!(error.state(), SqlState::DataCorrupted, "{error}");
    let mut back = tokio::fs::File::create(dir.path().join("back")).await.unwrap();
    let error = repository.fetch("a", &mut back, 4, &Pace::default()).await.unwrap_err();
    assert!(matches!(error, TransferError::Object(_)), "{error:?}");
    assert_eq!(std::fs::read(dir.path().join("back")).unwrap(), b"");
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_the_old_object() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository(dir.path());
    repository.put("a", b"old".to_vec()).await.unwrap();
    let mut upload = repository.shelf.begin("a", 3).await.unwrap();
    upload.write(Bytes::from_static(b"ne")).await.unwrap();
    assert_eq!(names(&repository, "").await, ["a"], "unfinished files are not listed");
    drop(upload);
    assert_eq!(repository.get("a", MOST).await.unwrap().unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn no_name_leads_out_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside.json");
    std::fs::write(&outside, "kept").unwrap();
    let repository = repository(&dir.path().join("repository"));
    repository.put("a/b", b"x".to_vec()).await.unwrap();
    let absolute = outside.display().to_string();
    for name in ["../outside.json", "a/../../outside.json", "a/./b", "a//b", "a/", "", absolute.as_str()] {
        repository.get(name, MOST).await.unwrap_err();
        repository.remove(name).await.unwrap_err();
        repository.put(name, b"y".to_vec()).await.unwrap_err();
    }
    repository.list("../").await.unwrap_err();
    assert_eq!(std::fs::read(&outside).unwrap(), b"kept");
}

/// A dropped tenant's keys are not to be found in what the file system has given back.
#[tokio::test]
async fn what_held_keys_is_overwritten_when_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository(dir.path());
    let first = [b'k'; 1_000];
    // Whoever has the file open still sees its blocks.
    let stored = async |name: &str| {
        repository.put(name, first.to_vec()).await.unwrap();
        std::fs::File::open(dir.path().join(name)).unwrap()
    };
    let left = |mut file: std::fs::File| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        bytes
    };
    let (replaced, removed) = (stored("keys/tenants/a").await, stored("keys/tenants/b").await);
    let (kept, other) = (stored("keys/tenants/c").await, stored("tenants/d").await);
    std::fs::hard_link(dir.path().join("keys/tenants/c"), dir.path().join("on-purpose")).unwrap();
    repository.put("keys/tenants/a", b"a tombstone".to_vec()).await.unwrap();
    for name in ["keys/tenants/b", "keys/tenants/c", "tenants/d"] {
        repository.remove(name).await.unwrap();
        repository.remove(name).await.unwrap();
    }
    for file in [replaced, removed] {
        assert_eq!(left(file), [0; 1_000]);
    }
    assert_eq!(left(kept), first, "it has another name");
    assert_eq!(left(other), first, "it holds no keys");
    assert_eq!(repository.get("keys/tenants/a", MOST).await.unwrap().unwrap(), b"a tombstone");
    assert_eq!(repository.get("keys/tenants/b", MOST).await.unwrap(), None);
    let error = repository.get("keys/tenants/a", 4).await.unwrap_err();
    assert_eq!(error.state(), SqlState::DataCorrupted, "{error}");

    // What was not finished held them as well.
    let mut upload = repository.shelf.begin("keys/tenants/e", 1_000).await.unwrap();
    upload.write(Bytes::copy_from_slice(&first)).await.unwrap();
    let unfinished = std::fs::read_dir(dir.path().join("keys/tenants"))
        .unwrap()
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(".e."));
    let unfinished = std::fs::File::open(unfinished.unwrap().path()).unwrap();
    until_written(&unfinished, 1_000).await;
    drop(upload);
    assert_eq!(left(unfinished), [0; 1_000]);
}

/// A process that is killed drops nothing.
#[tokio::test]
async fn what_a_killed_upload_left_goes() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository(dir.path());
    repository.put("keys/tenants/a", b"keys".to_vec()).await.unwrap();
    repository.put("tenants/a/segments/b", b"rows".to_vec()).await.unwrap();
    let leave = |name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, b"half of it").unwrap();
        let held = std::fs::File::open(&path).unwrap();
        (path, held)
    };
    let bytes = |mut file: std::fs::File| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        bytes
    };
    for replaced in [true, false] {
        let (path, held) = leave("keys/tenants/.a.4711-3");
        let (others, _) = leave("keys/tenants/.b.4711-4");
        if replaced {
            repository.put("keys/tenants/a", b"a tombstone".to_vec()).await.unwrap();
        } else {
            repository.remove("keys/tenants/a").await.unwrap();
        }
        assert!(!path.exists() && others.exists(), "{replaced}");
        assert_eq!(bytes(held), [0; 10], "its keys are overwritten");
    }
    let (others, held) = leave("keys/tenants/.b.4711-4");
    let (rows, _) = leave("tenants/a/segments/.c.parquet.4711-5");
    let (strange, _) = leave("tenants/a/.nfs0001");
    assert_eq!(repository.sweep(0).await.unwrap(), 0, "they are younger");
    assert!(others.exists() && rows.exists());
    assert_eq!(repository.sweep(i64::MAX).await.unwrap(), 20);
    assert!(!others.exists() && !rows.exists() && strange.exists());
    assert_eq!(bytes(held), [0; 10]);
    assert_eq!(names(&repository, "tenants").await, ["tenants/a/segments/b"]);
}

/// tokio writes in the background.
async fn until_written(file: &std::fs::File, bytes: u64) {
    while file.metadata().unwrap().len() < bytes {
        tokio::task::yield_now().await;
    }
}

#[test]
fn addresses_are_read_and_refused() {
    let bucket: Location =
        "s3://backups/a//b/?region=eu-central-1&endpoint=http://127.0.0.1:9000".parse().unwrap();
    let Location::Bucket(found) = &bucket else { panic!("{bucket:?}") };
    assert_eq!((found.bucket.as_str(), found.prefix.as_str()), ("backups", "a/b"));
    assert_eq!(found.region.as_deref(), Some("eu-central-1"));
    assert_eq!(bucket.to_string(), "s3://backups/a/b");
    let directory: Location = "file:///var/backups".parse().unwrap();
    assert_eq!(directory, Location::Directory("/var/backups".into()));
    for wrong in
        ["", "ftp://x/y", "s3://", "s3://id:key@bucket/x", "s3://b?endpoint=ftp://x", "s3://b?secret=1"]
    {
        let error = wrong.parse::<Location>().unwrap_err();
        assert!(!error.to_string().contains("id:key"), "{error}");
    }
    // In clear on this machine only.
    let endpoint = |url: &str| format!("s3://b?endpoint={url}").parse::<Location>();
    for right in ["https://s3.example:9000", "http://localhost:9000", "http://127.0.0.2", "http://[::1]:9000"]
    {
        endpoint(right).unwrap();
    }
    for wrong in
        ["http://s3.example", "http://10.0.0.1:9000", "http://localhost.example", "https://", "data:x"]
    {
        endpoint(wrong).unwrap_err();
    }
    let error = endpoint("https://id:key@s3.example").unwrap_err();
    assert!(!error.to_string().contains("id:key"), "{error}");
}
