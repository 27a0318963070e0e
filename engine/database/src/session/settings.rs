//! Session settings (GUCs): what exists, what values are allowed, SET, SET LOCAL, RESET, SHOW.
//!
//! Unknown undotted names are an error, never a silent success; unknown dotted ones are custom settings, as in
//! Postgres, except under `hnsw.` and `ivfflat.`, which pgvector reserves, and under `sepal.`.

mod changes;
mod known;
mod memory;
mod search_path;
mod validate;

use std::{collections::HashMap, time::Duration};

use sepal_query::{Recall, SearchSettings, Zone, catalog::SettingRow};
use sepal_types::{Error, Result, SearchPath, SqlState};

use self::{
    changes::Changes,
    known::{KNOWN, Kind, Known},
    search_path::Searched,
    validate::{parse_milliseconds, validate},
};

/// The version that clients see: features of 17, so that drivers take their newest paths.
pub const SERVER_VERSION: &str = "17.2";

const TEXT_SEARCH_CONFIG: &str = "default_text_search_config";
const DEFAULT_ISOLATION: &str = "default_transaction_isolation";
const AS_OF: &str = "sepal.as_of";
const SEARCH_PATH: &str = "search_path";
const TARGET_RECALL: &str = "sepal.target_recall";
const MAINTENANCE_WORK_MEM: &str = "maintenance_work_mem";
const TIME_ZONE: &str = "TimeZone";

const ISOLATION: &[&str] = &["read uncommitted", "read committed", "repeatable read", "serializable"];

/// The values of one session.
#[derive(Debug)]
pub struct Settings {
    values: HashMap<String, String>,
    /// What the client connected with: RESET goes back to it.
    first: HashMap<String, String>,
    /// What the open transaction has set.
    changes: Changes,
    changed: Vec<String>,
    ready: Ready,
    searched: Searched,
}

/// What every statement asks for, as values: made anew when one of the settings in it changes, so that a statement
/// looks nothing up by name.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ready {
    search: SearchSettings,
    statement_timeout: Option<Duration>,
    idle_in_transaction_timeout: Option<Duration>,
    /// Whether new transactions may only read.
    read_only: bool,
    /// The isolation of new transactions, unless it is that of `transaction_isolation` by itself.
    isolation: Option<&'static str>,
    /// Whether `sepal.as_of` is set.
    past: bool,
    zone: Zone,
}

/// The settings that [`Ready`] is made of.
const READY: &[&str] = &[
    DEFAULT_ISOLATION,
    "default_transaction_read_only",
    "enable_indexscan",
    "hnsw.ef_search",
    "idle_in_transaction_session_timeout",
    "ivfflat.probes",
    "statement_timeout",
    "timezone",
    AS_OF,
    TARGET_RECALL,
];

impl Settings {
    pub fn new(user: &str) -> Self {
        let values = HashMap::from([("session_authorization".to_owned(), user.to_owned())]);
        let mut settings = Self {
            values,
            first: HashMap::new(),
            changes: Changes::default(),
            changed: Vec::new(),
            ready: Ready::default(),
            searched: Searched::default(),
        };
        settings.ready = settings.read();
        settings.read_path();
        settings
    }

    /// The value of a setting that nobody can set, by its name in lower case.
    pub fn fix(&mut self, name: &str, value: String) {
        self.values.insert(name.to_owned(), value);
    }

    /// The client is connected: nothing of what its startup packet has set is a change.
    pub fn connected(&mut self) {
        self.first = self.values.clone();
        self.changed.clear();
    }

    /// The value as SHOW prints it; `None` for a name that is not known.
    pub fn get(&self, name: &str) -> Option<String> {
        self.value(&key(name)).map(str::to_owned)
    }

    /// The same, by the name in lower case.
    pub fn value(&self, key: &str) -> Option<&str> {
        let set = self.values.get(key).map(String::as_str);
        set.or_else(|| find(key).map(|known| known.default))
    }

    /// SET and SET LOCAL. Returns the value as it stands.
    ///
    /// Errors: 42704 unknown name, 22023 a value out of bounds, 55P02-like refusals as 22023.
    pub fn set(&mut self, name: &str, value: &str, local: bool) -> Result<String> {
        let key = key(name);
        let value = match find(&key) {
            Some(known) => validate(known, value)?,
            None => {
                check_custom(name)?;
                value.to_owned()
            }
        };
        self.store(key, Some(value.clone()), local);
        Ok(value)
    }

    /// RESET name, SET name TO DEFAULT and SET LOCAL name TO DEFAULT.
    pub fn reset(&mut self, name: &str, local: bool) -> Result<()> {
        let key = key(name);
        match find(&key) {
            Some(Known { kind: Kind::Internal, name, .. }) => return Err(fixed(name)),
            Some(_) => {}
            None => check_custom(name)?,
        }
        let first = self.first.get(&key).cloned();
        self.store(key, first, local);
        Ok(())
    }

    /// RESET ALL, DISCARD ALL.
    pub fn reset_all(&mut self) {
        let names: Vec<String> = self
            .values
            .keys()
            .filter(|name| !matches!(find(name), Some(Known { kind: Kind::Internal, .. })))
            .cloned()
            .collect();
        for name in names {
            let first = self.first.get(&name).cloned();
            self.store(name, first, false);
        }
    }

    fn store(&mut self, key: String, value: Option<String>, local: bool) {
        let old = self.values.get(&key).cloned();
        // These are the transaction's, however they are set.
        let local = local || matches!(key.as_str(), "transaction_isolation" | "transaction_read_only");
        // Without an effect it has a warning, which the caller sends.
        if self.changes.note(&key, old, local) {
            self.put(key, value);
        }
    }

    fn put(&mut self, key: String, value: Option<String>) {
        if find(&key).is_some_and(|known| known.reported) && !self.changed.contains(&key) {
            self.changed.push(key.clone());
        }
        let (concerned, is_path) = (READY.contains(&key.as_str()), key == SEARCH_PATH);
        match value {
            Some(value) => self.values.insert(key, value),
            None => self.values.remove(&key),
        };
        if concerned {
            self.ready = self.read();
        }
        if is_path {
            self.read_path();
        }
    }

    fn read_path(&mut self) {
        let user = self.value("session_authorization").unwrap_or_default();
        let path = SearchPath::parse(self.value(SEARCH_PATH).unwrap_or_default(), user);
        self.searched.set(path.unwrap_or_default());
    }

    /// Where bare names are looked up.
    pub fn search_path(&self) -> &SearchPath {
        self.searched.path()
    }

    /// A number that the path has in this session, and no other path had.
    pub fn path_edition(&self) -> u64 {
        self.searched.edition()
    }

    fn read(&self) -> Ready {
        let number =
            |key: &str, otherwise| self.value(key).and_then(|value| value.parse().ok()).unwrap_or(otherwise);
        let recall = self.values.get(TARGET_RECALL).and_then(|share| share.parse().ok());
        let level = self.values.get(DEFAULT_ISOLATION);
        Ready {
            search: SearchSettings {
                ef_search: number("hnsw.ef_search", 40),
                probes: number("ivfflat.probes", 1),
                use_indexes: self.is_on("enable_indexscan"),
                target_recall: recall.and_then(Recall::new),
            },
            statement_timeout: self.timeout("statement_timeout"),
            idle_in_transaction_timeout: self.timeout("idle_in_transaction_session_timeout"),
            read_only: self.is_on("default_transaction_read_only"),
            isolation: ISOLATION.iter().copied().find(|known| level.is_some_and(|level| level == known)),
            past: self.values.get(AS_OF).is_some_and(|value| !value.is_empty()),
            zone: self.value("timezone").and_then(Zone::parse).map_or(Zone::UTC, |(zone, _)| zone),
        }
    }

    /// The isolation of the transaction that begins; `None` for that of sessions that have set none.
    pub fn first_isolation(&self) -> Option<&'static str> {
        self.ready.isolation
    }

    /// A transaction begins. Whether it may only read.
    pub fn begin(&mut self) -> bool {
        self.changes.begin();
        if let Some(level) = self.ready.isolation {
            self.store("transaction_isolation".to_owned(), Some(level.to_owned()), true);
        }
        if self.ready.read_only {
            self.store("transaction_read_only".to_owned(), Some("on".to_owned()), true);
        }
        self.ready.read_only
    }

    /// Where the open transaction is: see [`Self::undo_since`].
    pub fn mark(&self) -> usize {
        self.changes.mark()
    }

    /// ROLLBACK TO a savepoint: what was set since is as it was.
    pub fn undo_since(&mut self, mark: usize) {
        while let Some((key, value)) = self.changes.take_back(mark) {
            self.put(key, value);
        }
    }

    /// The transaction ended: local values go, and with a rollback the others too.
    pub fn end(&mut self, committed: bool) {
        if !committed {
            self.undo_since(0);
        }
        for (key, value) in self.changes.end() {
            self.put(key, value);
        }
    }

    /// Reported settings that changed since the last call, for ParameterStatus.
    pub fn take_changes(&mut self) -> Vec<(String, String)> {
        let names = std::mem::take(&mut self.changed);
        let shown =
            |key: String| find(&key).map(|known| (known.name.to_owned(), self.get(&key).unwrap_or_default()));
        names.into_iter().filter_map(shown).collect()
    }

    /// In which times are read and printed.
    pub fn zone(&self) -> Zone {
        self.ready.zone
    }

    /// What steers vector search.
    pub fn search(&self) -> SearchSettings {
        self.ready.search
    }

    /// `None` for no limit.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.ready.statement_timeout
    }

    /// `None` for no limit.
    pub fn idle_in_transaction_timeout(&self) -> Option<Duration> {
        self.ready.idle_in_transaction_timeout
    }

    /// `name` in lower case.
    pub fn is_on(&self, name: &str) -> bool {
        self.value(name) == Some("on")
    }

    /// The value of `sepal.as_of`, if it is set.
    pub fn as_of(&self) -> Option<&str> {
        if !self.ready.past {
            return None;
        }
        self.values.get(AS_OF).map(String::as_str)
    }

    /// What an index build of this session may take.
    pub fn maintenance_bytes(&self) -> u64 {
        self.value(MAINTENANCE_WORK_MEM).and_then(memory::bytes).unwrap_or(u64::MAX)
    }

    /// A timeout in milliseconds as a duration; 0 means none. `name` in lower case.
    pub fn timeout(&self, name: &str) -> Option<Duration> {
        let milliseconds = parse_milliseconds(self.value(name)?)?;
        u64::try_from(milliseconds).ok().filter(|milliseconds| *milliseconds > 0).map(Duration::from_millis)
    }

    /// The rows of `pg_settings`.
    pub fn rows(&self) -> Vec<SettingRow> {
        let custom =
            self.values.iter().filter(|(name, _)| find(name).is_none()).map(|(name, value)| SettingRow {
                name: name.clone(),
                setting: value.clone(),
                category: "Customized Options".to_owned(),
                context: "user".to_owned(),
                vartype: "string".to_owned(),
                source: "session".to_owned(),
                ..SettingRow::default()
            });
        KNOWN
            .iter()
            .map(|known| SettingRow {
                name: known.name.to_owned(),
                setting: self.value(&key(known.name)).map(|value| known.plain(value)).unwrap_or_default(),
                shown: self.get(known.name),
                unit: match known.kind {
                    Kind::Integer(_, _, unit) => unit.map(str::to_owned),
                    Kind::Memory => Some("kB".to_owned()),
                    _ => None,
                },
                category: "Sepal".to_owned(),
                short_desc: known.description.to_owned(),
                context: if matches!(known.kind, Kind::Internal) { "internal" } else { "user" }.to_owned(),
                vartype: match known.kind {
                    Kind::Bool => "bool",
                    Kind::Integer(..) | Kind::Memory => "integer",
                    Kind::Enum(_) => "enum",
                    Kind::Real | Kind::Share => "real",
                    Kind::Text | Kind::Internal => "string",
                }
                .to_owned(),
                source: match known.kind {
                    Kind::Internal => "default",
                    _ if self.values.contains_key(&key(known.name)) => "session",
                    _ => "default",
                }
                .to_owned(),
                min_val: match known.kind {
                    Kind::Integer(least, ..) => Some(least.to_string()),
                    Kind::Memory => Some(memory::LEAST_KB.to_string()),
                    Kind::Share => Some("0".to_owned()),
                    _ => None,
                },
                max_val: match known.kind {
                    Kind::Integer(_, most, _) => Some(most.to_string()),
                    Kind::Memory => Some(memory::MOST_KB.to_string()),
                    Kind::Share => Some("1".to_owned()),
                    _ => None,
                },
                enumvals: match known.kind {
                    Kind::Enum(values) => values.iter().map(|value| (*value).to_owned()).collect(),
                    _ => Vec::new(),
                },
                boot_val: Some(known.plain(known.default)),
                reset_val: match known.kind {
                    Kind::Internal => self.get(known.name),
                    _ => {
                        let first = self.first.get(&key(known.name)).map_or(known.default, String::as_str);
                        Some(known.plain(first))
                    }
                },
            })
            .chain(custom)
            .collect()
    }
}

fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn find(key: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(key))
}

fn fixed(name: &str) -> Error {
    Error::new(SqlState::InvalidParameterValue, format!("parameter \"{name}\" cannot be changed"))
}

fn check_custom(name: &str) -> Result<()> {
    let unknown =
        || Error::new(SqlState::UndefinedObject, format!("unrecognized configuration parameter \"{name}\""));
    match name.split_once('.') {
        None => Err(unknown()),
        Some((class, _))
            if matches!(class.to_ascii_lowercase().as_str(), "hnsw" | "ivfflat" | "sepal" | "vector") =>
        {
            Err(Error::new(SqlState::InvalidName, format!("invalid configuration parameter name \"{name}\""))
                .with_detail(format!("\"{class}\" is a reserved prefix.")))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
