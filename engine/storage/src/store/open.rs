//! From a directory to a store: manifest, segments, log, new log file, clean-up, in this order.
//!
//! Nothing on disk changes before the whole log has been replayed: a store that does not open is left as it is. Log
//! files from before the manifest stay: pipelines may read them.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use roaring::RoaringBitmap;
use sepal_crypto::KeyRing;
use sepal_types::{Lsn, TableId, TenantId, limits::FIRST_OBJECT_ID};

use super::{Poison, StoreOptions, TenantStore, lost::Lost};
use crate::{
    ChunkRef, Snapshot, StoreError, TableVersion,
    blob::{Blob, Owner, check_length},
    checkpoint::Maintenance,
    chunk::{Chunk, SealedChunk, SealedParts},
    counters::{CounterValues, Counters},
    disk::{self, Disk, PublishError},
    feed::{Kept, LogFiles},
    group::Writer,
    manifest::{self, Manifest, SegmentEntry, TableEntry},
    ops,
    paths::{DataKind, Paths, file_key_aad, number, show},
    segment::Identity,
    snapshot::{Rules, State},
    wal::{self, Log, Replay, WalFile, WalStart, kept_before, recover},
};

/// The generation of everything that was replayed: the writer's first.
const REPLAY: Rules = Rules { generation: 1, trusted: true };

pub(super) fn create(
    dir: &Path,
    tenant: TenantId,
    keys: KeyRing,
    options: StoreOptions,
) -> Result<TenantStore, StoreError> {
    let paths = Paths::new(dir);
    let disk = Disk::new(Arc::clone(&options.files), options.fault.clone());
    for directory in [paths.manifests(), paths.wal(), paths.segments()] {
        disk.create_directory(&directory)?;
    }
    // A creation that was killed may have left directories whose names are not durable yet.
    for directory in paths.root().ancestors().take(3).filter(|path| !path.as_os_str().is_empty()) {
        disk.sync_directory("directory", &disk.open_directory("directory", directory)?)?;
    }
    clear_unfinished(&disk, &paths)?;
    let start = WalStart { number: 1, base_lsn: Lsn(0), previous_length: 0 };
    let wal = WalFile::create(&disk, &paths, tenant, &keys, start).map_err(either)?;
    let manifest = Manifest { number: 1, wal_from: 1, next_object: FIRST_OBJECT_ID, ..Manifest::default() };
    let hash = manifest::commit(&disk, &paths, tenant, &keys, &manifest).map_err(either)?;
    let opened = Opened {
        state: State::default(),
        counters: Counters::new(&CounterValues::default()),
        registered: Vec::new(),
        lost: Lost::default(),
    };
    let context = Context { paths, disk, tenant, keys, options };
    let files =
        Kept { older: Vec::new(), current: start.span(), needed_from: 1, released: true, damage: None };
    Ok(context.store(opened, Writer::new(wal), files, Maintenance { manifest, hash }))
}

pub(super) fn open(
    dir: &Path,
    tenant: TenantId,
    keys: KeyRing,
    options: StoreOptions,
) -> Result<TenantStore, StoreError> {
    let paths = Paths::new(dir);
    let disk = Disk::new(Arc::clone(&options.files), options.fault.clone());
    let (manifest, hash) = manifest::newest(&disk, &paths, tenant, &keys)?;
    let context = Context { paths, disk, tenant, keys, options };
    let mut opened = context.read_manifest(&manifest)?;
    let log = Log { disk: &context.disk, paths: &context.paths, tenant, keys: &context.keys };
    let replay = Replay { log, from: manifest.wal_from, lsn: manifest.lsn, end: context.options.log_end };
    let recovered = recover(&replay, |file, lsn, payload| opened.replay(file, lsn, &payload))?;
    let (mut older, damage) = kept_before(&log, manifest.wal_from)?;
    if let Some(error) = &damage {
        tracing::warn!(%error, "a log file that only pipelines could still need cannot be read");
    }
    older.extend(recovered.files);
    let start = WalStart {
        number: recovered.last_number + 1,
        base_lsn: recovered.lsn,
        previous_length: recovered.last_length,
    };
    let wal = WalFile::create(&context.disk, &context.paths, tenant, &context.keys, start).map_err(either)?;
    let files =
        Kept { older, current: start.span(), needed_from: manifest.wal_from, released: false, damage };
    let store = context.store(opened, Writer::new(wal), files, Maintenance { manifest, hash });
    store.remove_orphans(&store.maintenance.lock().manifest)?;
    Ok(store)
}

/// A creation ends with the first manifest, so a store is there if one is.
pub(super) fn is_made(dir: &Path) -> Result<bool, StoreError> {
    let manifests = Paths::new(dir).manifests();
    if !manifests.try_exists().map_err(|error| disk::io_error("read", &manifests, &error))? {
        return Ok(false);
    }
    let local = Disk::default();
    Ok(local.list(&manifests)?.iter().any(|name| number(name, "manifest").is_some()))
}

/// Removes what a creation that did not reach its manifest left. Anything more is somebody's data: a store whose
/// manifest was lost must not be made anew over it.
fn clear_unfinished(disk: &Disk, paths: &Paths) -> Result<(), StoreError> {
    let manifests = disk.list(&paths.manifests())?;
    let logs = disk.list(&paths.wal())?;
    let unfinished = |name: &String| number(name, "tmp").is_some();
    let empty_log =
        |name: &String| number(name, "wal") == Some(1) && wal::is_empty(disk, &paths.wal().join(name));
    let fresh = manifests.iter().all(unfinished)
        && logs.iter().all(|name| unfinished(name) || empty_log(name))
        && disk.list(&paths.segments())?.is_empty();
    if !fresh {
        let why =
            format!("{} holds a store, or what is left of one: open it, or move it away", show(paths.root()));
        return Err(StoreError::Bug(why));
    }
    logs.iter().try_for_each(|name| disk.remove("wal", &paths.wal().join(name)))
}

/// Nothing was written yet that either outcome could contradict.
fn either(error: PublishError) -> StoreError {
    match error {
        PublishError::Before(error) | PublishError::Unknown(error) => error,
    }
}

/// Who opens what where. `check` and `repair` open with it, too.
pub(crate) struct Context {
    pub paths: Paths,
    pub disk: Disk,
    pub tenant: TenantId,
    pub keys: KeyRing,
    pub options: StoreOptions,
}

/// The state as far as it has been read.
pub(crate) struct Opened {
    pub state: State,
    pub counters: Counters,
    registered: Vec<Arc<Chunk>>,
    /// Rows that are known to be gone: a replay passes over their deletion.
    pub lost: Lost,
}

impl Context {
    pub(crate) fn read_manifest(&self, manifest: &Manifest) -> Result<Opened, StoreError> {
        let next_rows: HashMap<_, _> =
            manifest.tables.iter().map(|table| (table.def.id, table.next_row)).collect();
        let values = CounterValues {
            next_object: manifest.next_object,
            next_rows,
            sequences: manifest.sequences.clone(),
        };
        let mut state = State { lsn: manifest.lsn, ..State::default() };
        let mut registered = Vec::new();
        for table in &manifest.tables {
            let version = self.read_table(table, &mut registered)?;
            Arc::make_mut(&mut state.names).insert(&table.def)?;
            state.tables.insert(table.def.id, Arc::new(version));
        }
        Ok(Opened { state, counters: Counters::new(&values), registered, lost: Lost::default() })
    }

    pub(crate) fn read_table(
        &self,
        table: &TableEntry,
        registered: &mut Vec<Arc<Chunk>>,
    ) -> Result<TableVersion, StoreError> {
        let mut chunks = Vec::with_capacity(table.segments.len());
        for entry in &table.segments {
            let owner = Owner { tenant: self.tenant, table: table.def.id, segment: entry.file };
            let deleted = match &entry.deleted {
                None => RoaringBitmap::new(),
                Some(deleted) => {
                    let blob = Blob::named(
                        &self.disk,
                        &self.paths,
                        &self.keys,
                        owner,
                        DataKind::Deleted,
                        &deleted.blob,
                    )?;
                    let bitmap = RoaringBitmap::deserialize_from(blob.open(&self.disk)?.as_slice());
                    let path = self.paths.data(DataKind::Deleted, deleted.blob.file);
                    bitmap.map_err(|error| StoreError::corrupt(&show(&path), error.to_string()))?
                }
            };
            let chunk = Arc::new(Chunk::sealed(self.read_segment(table.def.id, entry)?));
            registered.push(Arc::clone(&chunk));
            chunks.push(ChunkRef { chunk, deleted: Arc::new(deleted) });
        }
        Ok(TableVersion { def: Arc::new(table.def.clone()), chunks })
    }

    /// Checks that the files are there with their lengths; their bytes are read when first needed.
    fn read_segment(&self, table: TableId, entry: &SegmentEntry) -> Result<SealedChunk, StoreError> {
        let path = self.paths.data(DataKind::Segment, entry.file);
        let aad = file_key_aad(DataKind::Segment, self.tenant, table, entry.file);
        let key =
            self.keys.unwrap(&aad, &entry.key).map_err(|error| StoreError::sealed(&show(&path), error))?;
        check_length(&self.disk, &path, entry.bytes)?;
        let owner = Owner { tenant: self.tenant, table, segment: entry.file };
        let mut indexes = BTreeMap::new();
        for index in &entry.indexes {
            let blob = Blob::named(&self.disk, &self.paths, &self.keys, owner, DataKind::Index, &index.blob)?;
            indexes.insert(index.index, blob);
        }
        let identity = Identity { tenant: self.tenant, table, file: entry.file, key };
        let own = SegmentEntry { deleted: None, indexes: Vec::new(), ..entry.clone() };
        let cache = Arc::clone(&self.options.cache);
        Ok(SealedChunk::new(SealedParts {
            disk: self.disk.clone(),
            path,
            identity,
            cache,
            entry: own,
            indexes,
        }))
    }

    pub(crate) fn store(
        self,
        opened: Opened,
        writer: Writer,
        files: Kept,
        maintenance: Maintenance,
    ) -> TenantStore {
        let store = TenantStore {
            tenant: self.tenant,
            keys: RwLock::new(Arc::new(self.keys)),
            paths: self.paths,
            disk: self.disk,
            cache: self.options.cache,
            wal_segment_bytes: self.options.wal_segment_bytes,
            head: RwLock::new(Snapshot::new(opened.state)),
            counters: opened.counters,
            poison: Poison::default(),
            log: LogFiles::new(files, self.options.log_retention_bytes),
            queue: Mutex::default(),
            writer: Mutex::new(writer),
            maintenance: Mutex::new(maintenance),
            registry: Mutex::default(),
        };
        opened.registered.iter().for_each(|chunk| store.register(chunk));
        store
    }
}

impl Opened {
    /// Applies a commit of the log. It was checked when it was written, so what does not apply is damage.
    pub(crate) fn replay(
        &mut self,
        file: &str,
        lsn: Lsn,
        payload: &arrow::buffer::Buffer,
    ) -> Result<(), StoreError> {
        let (marks, ops) =
            ops::decode(payload).map_err(|why| StoreError::corrupt(file, format!("commit {lsn}: {why}")))?;
        for op in &ops {
            let op = self.lost.without(&self.state, op)?;
            self.state.apply(&op, REPLAY).map_err(|error| match error {
                StoreError::Corrupt { .. } | StoreError::Io { .. } => error,
                other => StoreError::corrupt(file, format!("commit {lsn} does not apply: {other}")),
            })?;
        }
        self.state.lsn = lsn;
        self.counters.committed(&marks, &ops);
        Ok(())
    }
}
